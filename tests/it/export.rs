//! Rows written into files, and files stored through the routes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::database::own_mounts;
use crate::support::chance::Chance;
use crate::support::collector::{catchment, fed, output, printed, stderr};
use crate::support::fixture::Fixture;
use crate::support::oracle;

const ALL: &str =
    "SELECT concat_ws('|', id, subject, stream, sequence, published_us, headers, hex(payload), typeof(payload))
                   FROM events ORDER BY id";

fn on(database: &Path, arguments: &[&str]) -> Command {
    let mut command = catchment();
    command.args(arguments).arg("--database").arg(database);
    command
}

/// Lines of events, `number` of them from this one on.
fn lines(first: usize, number: usize) -> String {
    let mut lines = String::new();
    for n in first..first + number {
        let _ = writeln!(lines, r#"{{"subject":"events.a","published_us":{n},"payload":"{n:0>200}"}}"#);
    }
    lines
}

#[test]
fn exported_events_are_imported_as_the_same_rows() {
    let fixture = Fixture::new();
    let mut raw = fixture.server.raw();
    raw.publish_all("events.a", &["{\"a\": 1.50}".into(), String::new(), "ü\n\"\u{1}".into()]);
    let mut publish =
        fixture.command(&["publish", "events.b.c", "x", "--header", "K: v", "--header", "A: 1", "--id", "7"]);
    printed(publish.args(["--server", &fixture.server.url()]));
    let events = r#"{"subject":"events.d","payload":{"$blob":"/wAK"}}"#;
    let done = fed(fixture.command(&["publish", "--events", "-"]).args(["--server", &fixture.server.url()]), events);
    assert!(done.status.success(), "{}", stderr(&done));
    fixture.drain();
    let database = fixture.database();
    let (file, copy) = (fixture.path("e.ndjson"), fixture.path("copy.db"));
    let file = file.to_str().expect("UTF-8");
    assert_eq!(printed(&mut on(&database, &["export", "-o", file])), format!("{file} has 5 rows\n"));
    assert_eq!(printed(&mut on(&copy, &["import", file])), format!("{file}: 5 events stored\n"));
    let rows = oracle::texts(&database, ALL);
    assert_eq!(rows.len(), 5);
    assert_eq!(oracle::texts(&copy, ALL), rows);
    assert!(rows.iter().any(|row| row.contains("FF000A|blob")), "{rows:?}");
    // And again as text.
    assert_eq!(printed(&mut on(&copy, &["export"])), std::fs::read_to_string(file).expect("reads"));
    let again = printed(&mut on(&copy, &["import", file]));
    assert_eq!(again, format!("all 5 lines of {file} were imported before\n"));
    assert_eq!(oracle::count(&copy), 5);
    printed(&mut on(&copy, &["import", "--again", file]));
    assert_eq!(oracle::count(&copy), 10);
}

#[test]
fn an_export_has_the_filters_of_tail() {
    let fixture = Fixture::new();
    let database = fixture.database();
    let lines = r#"
        {"subject": "a.b", "published_us": 1000000, "payload": "one"}
        {"subject": "a.c", "published_us": 2000000, "payload": ""}
        {"subject": "b", "published_us": 3000000, "payload": {"$blob": "AP8="}}"#;
    let file = fixture.file("three.ndjson", lines);
    printed(&mut on(&database, &["import", &file]));
    let payloads = |arguments: &[&str]| {
        let text = printed(&mut on(&database, &[&["export", "events"], arguments].concat()));
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["payload"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(payloads(&["--subject", "a.*"]), ["one", ""]);
    assert_eq!(payloads(&["--since", "1970-01-01T00:00:02Z", "--where", "subject <> 'b'"]), [""]);
    let csv = "id,subject,stream,sequence,published_us,headers,payload\n\
               1,a.b,,,1000000,,one\n2,a.c,,,2000000,,\"\"\n3,b,,,3000000,,x'00ff'\n";
    assert_eq!(printed(&mut on(&database, &["export", "--format", "csv"])), csv);
    let file = fixture.path("out.csv");
    let file = file.to_str().expect("UTF-8");
    let query = "SELECT count(*) AS n, 9007199254740993 AS big, 0.1 AS real, NULL AS none FROM events";
    let done = printed(&mut on(&database, &["export", "--query", query, "-o", file, "--json"]));
    let text = "n,big,real,none\n3,9007199254740993,0.1,\n";
    assert_eq!(done, format!("{{\"bytes\":{},\"file\":\"{file}\",\"rows\":1}}\n", text.len()));
    assert_eq!(std::fs::read_to_string(file).expect("reads"), text);
    for (arguments, words) in [
        (&["export", "-o", file][..], "there is a file already"),
        (&["export", "nothing"], "there is no table nothing; the tables are events"),
        (&["export", "--where", "nope = 1"], "--where does not fit table events: no such column: nope"),
        (&["export", "--query", "DELETE FROM events"], "only statements that read are run here"),
        (&["export", "--query", "SELECT 1; SELECT 2"], "there are several statements"),
    ] {
        let refused = output(&mut on(&database, arguments));
        let said = stderr(&refused);
        assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(oracle::count(&database), 3);
    let (other, link) = (fixture.path("other.db"), fixture.path("link.ndjson"));
    rusqlite::Connection::open(&other).expect("opens").execute_batch("CREATE TABLE t(x)").expect("SQL");
    std::os::unix::fs::symlink(&other, &link).expect("links");
    let refused = output(&mut on(&database, &["export", "--force", "-o", link.to_str().expect("UTF-8")]));
    assert!(stderr(&refused).contains("it is a database; name another file"), "{}", stderr(&refused));
    assert_eq!(
        (refused.status.code(), oracle::texts(&other, "SELECT count(*) || '' FROM t")),
        (Some(1), vec!["0".into()])
    );
}

#[test]
fn an_import_stores_through_the_routes_and_keeps_bad_lines() {
    let fixture = Fixture::new();
    let settings = fixture.file(
        "a.toml",
        "unmatched = \"drop\"\n[database]\npath = \"chat.db\"\nmigrations = \"chat\"\n\
         [[route]]\nsubject = \"chat.line\"\nsql = \"INSERT INTO lines VALUES (:user, :published_us)\"\n",
    );
    std::fs::create_dir(fixture.path("chat")).expect("a folder");
    fixture.file("chat/001_lines.sql", "CREATE TABLE lines(user TEXT NOT NULL, at INTEGER)");
    let text = "\u{feff}{\"subject\": \"chat.line\", \"published_us\": 7, \"payload\": {\"user\": \"ann\"}}\n\n\
                {\"subject\": \"chat.line\", \"payload\": {}}\n{\"subject\": \"other\", \"payload\": 1}\nno event\n\
                {\"subject\": \"chat.line\", \"published_us\": 8, \"payload\": {\"user\": \"bob\"}}";
    let file = fixture.file("chat.ndjson", text);
    let import =
        |arguments: &[&str]| output(&mut fixture.command(&[&["import", "-c", &settings, &file], arguments].concat()));
    let database = fixture.path("chat.db");
    let stopped = import(&[]);
    let said = stderr(&stopped);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(
        said.contains("chat.ndjson: line 5 does not look like") && said.contains("--bad-lines dead-letter"),
        "{said}"
    );
    assert_eq!(oracle::texts(&database, "SELECT user || at FROM lines"), ["ann7"], "the lines before it are stored");
    let done = import(&["--bad-lines", "dead-letter", "--json"]);
    let counts = "{\"dead_letters\":1,\"dropped\":0,\"lines\":2,\"lines_before\":4,\"stored\":1}\n";
    assert_eq!(String::from_utf8_lossy(&done.stdout), counts, "{}", stderr(&done));
    assert_eq!(oracle::texts(&database, "SELECT user || at FROM lines"), ["ann7", "bob8"]);
    let errors = oracle::texts(&database, "SELECT subject || ' ' || error FROM catchment_dead_letters ORDER BY id");
    assert!(errors[0].starts_with("chat.line NOT NULL constraint failed"), "{errors:?}");
    assert!(errors[1].starts_with("import line 5 of ") && errors.len() == 2, "{errors:?}");
    // Lines that were added, under another name.
    let longer = fixture.file(
        "longer.ndjson",
        format!("{text}\n{{\"subject\": \"chat.line\", \"published_us\": 9, \"payload\": {{\"user\": \"eve\"}}}}\n"),
    );
    let added = printed(&mut fixture.command(&["import", "-c", &settings, &longer]));
    assert_eq!(added, format!("{longer}: 1 event stored, 6 lines were imported before\n"));
    // Another beginning is another file.
    let other = fixture
        .file("other.ndjson", "{\"subject\": \"chat.line\", \"published_us\": 6, \"payload\": {\"user\": \"ann\"}}\n");
    printed(&mut fixture.command(&["import", "-c", &settings, &other]));
    let piped = fed(&mut fixture.command(&["import", "-c", &settings, "-"]), std::fs::read(&other).expect("reads"));
    assert!(piped.status.success(), "{}", stderr(&piped));
    let users = oracle::texts(&database, "SELECT user || at FROM lines");
    assert_eq!(users, ["ann7", "bob8", "eve9", "ann6", "ann6"], "a pipe is not recognised");
}

#[test]
fn an_import_is_refused_while_a_collector_runs() {
    let fixture = Fixture::new();
    let file = fixture.file("a.ndjson", lines(0, 3));
    let collector = fixture.collector();
    collector.said("collecting stream EVENTS");
    let refused = output(&mut on(&fixture.database(), &["import", &file]));
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(said.contains(&format!("process {} uses it already", collector.pid())), "{said}");
    assert!(collector.stop().success());
    printed(&mut on(&fixture.database(), &["import", &file]));
    fixture.has(3);
}

#[test]
fn an_import_killed_at_any_moment_stores_each_line_once() {
    const LINES: usize = 40_000;
    let mut chance = Chance::new();
    let folder = tempfile::tempdir().expect("a folder");
    let [database, timed, file] = ["a.db", "timed.db", "a.ndjson"].map(|name| folder.path().join(name));
    std::fs::write(&file, lines(0, LINES)).expect("writes");
    let file = file.to_str().expect("UTF-8");
    let began = Instant::now();
    printed(&mut on(&timed, &["import", file]));
    let takes = began.elapsed();
    for _ in 0..20 {
        let mut child =
            on(&database, &["import", file]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(chance.time(takes / 3));
        child.kill().expect("kills");
        child.wait().expect("ends");
        let rows = oracle::count(&database);
        println!("killed at {rows} rows");
    }
    printed(&mut on(&database, &["import", file]));
    let numbers = "SELECT CAST(published_us AS TEXT) FROM events ORDER BY id";
    assert_eq!(oracle::texts(&database, numbers), (0..LINES).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(oracle::payloads(&database), oracle::payloads(&timed));
}

#[test]
fn an_import_continues_after_a_full_disk() {
    let Some(unshare) = own_mounts() else {
        eprintln!("skipped: an_import_continues_after_a_full_disk: no mount of its own");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let [disk, file] = ["disk", "a.ndjson"].map(|name| folder.path().join(name));
    std::fs::create_dir(&disk).expect("a folder");
    std::fs::write(&file, lines(0, 20_000)).expect("writes");
    let program = env!("CARGO_BIN_EXE_catchment");
    let (disk, file) = (disk.display(), file.display());
    let import = format!("{program} import {file} --database {disk}/a.db");
    let script = format!(
        "mount -t tmpfs -o size=24m tmpfs {disk} && head -c 22000000 /dev/zero >{disk}/ballast
         {import}; echo $?; rm {disk}/ballast; {import} --json; {program} sql -d {disk}/a.db --csv \
         'SELECT count(*), count(DISTINCT published_us) FROM events'"
    );
    let done = output(Command::new("unshare").args(unshare).args(["sh", "-c", &script]).stdin(Stdio::null()));
    let (said, printed) = (stderr(&done), String::from_utf8_lossy(&done.stdout).into_owned());
    assert!(said.lines().count() == 1 && said.contains("full; make room on its disk"), "{said}");
    assert!(printed.starts_with("1\n") && printed.ends_with("\n20000,20000\n"), "{printed}");
}
