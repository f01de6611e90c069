//! The page of a collector, in a browser without a window. `CHROMIUM` is the browser, else one on the PATH; without one these tests are
//! skipped by name.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::collector::{Collector, stderr};
use crate::support::eventually;
use crate::support::fixture::Fixture;
use crate::support::http::Observed;

/// The browser.
fn chromium() -> Option<PathBuf> {
    let given = std::env::var_os("CHROMIUM").filter(|path| !path.is_empty()).map(PathBuf::from);
    let names = ["chromium", "chromium-browser", "google-chrome"].map(PathBuf::from);
    let works = |program: &PathBuf| {
        let done = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    let found = given.into_iter().chain(names).find(works);
    if found.is_none() {
        // To be seen also where the output of tests is not.
        let why = "skipped: the page in a browser: there is no chromium, and CHROMIUM names none";
        writeln!(std::io::stderr(), "{why}").expect("writes");
    }
    found
}

/// What the browser makes of a page, as HTML, and what it said of it.
fn shown(browser: &Path, profile: &Path, address: &str) -> (String, String) {
    let mut command = Command::new(browser);
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]);
    command.args(["--virtual-time-budget=3000", "--window-size=1200,2000"]);
    command.arg(format!("--user-data-dir={}", profile.display())).arg(address).stdin(Stdio::null());
    let done = command.output().expect("the browser runs");
    assert!(done.status.success(), "{}", stderr(&done));
    (String::from_utf8_lossy(&done.stdout).into_owned(), stderr(&done))
}

/// A collector with routes, queries and a dead letter.
fn watched(fixture: &Fixture) -> (Collector, Observed) {
    fixture.file(
        "catchment.toml",
        "[[route]]\nname = 'lines'\nsubject = 'events.>'\nsql = 'INSERT INTO lines(text) VALUES (:text)'\n\
         [[query]]\nsubject = 'ask.a_rather_long_subject.of_a_query'\nsql = 'SELECT 1'\n[database]\nmigrations = 'm'\n",
    );
    std::fs::create_dir(fixture.path("m")).expect("a folder");
    fixture.file("m/001_lines.sql", "CREATE TABLE lines(text TEXT NOT NULL) STRICT;");
    let mut command = fixture.run();
    command.current_dir(fixture.folder.path());
    let observed = Observed::on(&mut command);
    let collector = Collector::start(command, &fixture.path("collector.log"));
    observed.ready(true, &[]);
    let payloads = [r#"{"text": "one"}"#, r#"{"n": "<script>alert(1)</script>"}"#].map(str::to_owned);
    fixture.server.raw().publish_all("events.<b>test</b>", &payloads);
    eventually("the dead letter on the page", || {
        observed.get("/").body.contains("NOT NULL constraint failed: lines.text").then_some(())
    });
    (collector, observed)
}

#[test]
fn the_page_is_live_and_whole_without_a_script() {
    let Some(browser) = chromium() else { return };
    let fixture = Fixture::new();
    let (collector, observed) = watched(&fixture);
    let address = format!("http://127.0.0.1:{}/", observed.0);
    let (page, log) = shown(&browser, &fixture.path("profile"), &address);
    assert!(page.contains(">live, "), "the script does not run: {page}\n{log}");
    assert!(!log.contains("Refused to") && !log.contains("CONSOLE"), "{log}");
    // What a browser without scripts gets.
    let plain = observed.get("/").body;
    assert!(plain.contains("as of ") && !plain.contains(">live, "), "{plain}");
    for page in [&page, &plain] {
        for text in
            ["Collecting stream EVENTS into ", "lines", "ask.a_rather_long_subject.of_a_query", "Last dead letters"]
        {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(page.contains("events.&lt;b&gt;test&lt;/b&gt;"), "{page}");
        assert_eq!(page.matches("<svg").count(), page.matches("role=\"img\"").count(), "each chart says what it shows");
        assert!(page.matches("<svg").count() >= 6, "{page}");
    }
    assert!(collector.stop().success());
}

#[test]
fn the_page_fits_a_phone_and_a_wide_screen() {
    let Some(browser) = chromium() else { return };
    let fixture = Fixture::new();
    let (collector, observed) = watched(&fixture);
    let page = observed.get("/").body;
    // A copy that reports its width. The page itself allows no other script, and no frame.
    let told = "<script>parent.postMessage([document.documentElement.scrollWidth <= innerWidth, innerWidth], '*')</script></body>";
    fixture.file("page.html", page.replace("</body>", told));
    for width in [390, 1200] {
        let frame = format!(
            "<body><p id=found></p><iframe src=page.html width={width} height=3000></iframe>\
             <script>onmessage = (said) => {{ found.textContent = 'fits ' + said.data.join(' of ') }}</script>"
        );
        let wrapper = fixture.file("frame.html", frame);
        let (dom, log) = shown(&browser, &fixture.path("profile"), &format!("file://{wrapper}"));
        assert!(dom.contains(&format!("fits true of {width}")), "{dom}\n{log}");
    }
    assert!(collector.stop().success());
}
