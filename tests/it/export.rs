//! Rows written into files, and files stored through the routes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::database::own_mounts;
use crate::support::chance::Chance;
use crate::support::collector::{catchment, fed, output, printed, signal, stderr};
use crate::support::eventually;
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
fn whatever_a_stream_carries_is_the_same_after_export_and_import() {
    let fixture = Fixture::new();
    let mut raw = fixture.server.raw();
    let all: Vec<u8> = (0..=255).collect();
    let texts = [
        "",
        " ",
        "null",
        "1.50",
        "1e999",
        "\"quoted\"",
        "{\"$blob\":\"AA==\"}",
        "{\"$real\":\"inf\"}",
        "\u{feff}bom",
        "\0",
        "a\r\nb\n",
        "\u{2028}\u{fffd}",
        "{\"subject\":\"x\"}",
        "\\u0041",
        "\u{10ffff}",
    ];
    let bytes: [&[u8]; 6] = [&all, b"\xff", b"caf\xe9", b"\xed\xa0\x80", b"\xc0\x80", b"text \xf0\x9f\x98"];
    for payload in texts.iter().map(|text| text.as_bytes()).chain(bytes) {
        raw.send("events.payload", None, payload);
    }
    for subject in [
        "events.\u{1}",
        "events.\u{fc}",
        "events.a*",
        "events.{\"x\"}",
        "events.$JS.a",
        &format!("events.{}", "x".repeat(2_400)),
    ] {
        raw.send(subject, None, "odd");
    }
    for headers in
        ["A: 1\r\nB:\r\nA: 2", "K: \u{e9}\"\\", "Nats-Msg-Id: mine-7", "k: lower\r\nK: upper", "X:  spaces \t"]
    {
        raw.send("events.headers", Some(format!("NATS/1.0\r\n{headers}\r\n\r\n").as_bytes()), "odd");
    }
    // Random ones, the same in each run.
    let mut state = 7_u64;
    for _ in 0..300 {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let length = usize::from(next());
        raw.send(
            "events.random",
            None,
            (0..length).map(|_| next() & if length % 2 == 0 { 0x7f } else { 0xff }).collect::<Vec<u8>>(),
        );
    }
    raw.finish();
    fixture.drain();
    let (database, copy, file) = (fixture.database(), fixture.path("copy.db"), fixture.path("e.ndjson"));
    let rows = oracle::texts(&database, ALL);
    assert_eq!(rows.len(), texts.len() + bytes.len() + 6 + 5 + 300);
    let done = output(&mut on(&database, &["export", "--json", "-o", file.to_str().expect("UTF-8")]));
    let report = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(report.contains("\"bad_texts\":0,") && report.contains("\"inexact\":0,"), "{report}");
    assert_eq!(stderr(&done), "");
    printed(&mut on(&copy, &["import", file.to_str().expect("UTF-8")]));
    assert_eq!(oracle::texts(&copy, ALL), rows);
    // The text is the same too.
    assert_eq!(printed(&mut on(&copy, &["export"])), std::fs::read_to_string(&file).expect("reads"));
}

#[test]
fn what_an_export_changes_is_said() {
    let fixture = Fixture::new();
    let database = fixture.database();
    printed(&mut on(&database, &["import", "/dev/null"]));
    let sql = "INSERT INTO events(subject, published_us, payload) VALUES
                   ('a', 1, CAST(x'6fff' AS TEXT)), ('a', 2, 7), ('a', 3, 9e999), ('a b', 4, 'x'), ('a', 5, 'good');
               INSERT INTO events(subject, published_us, headers, payload) VALUES ('a', 6, '[1]', 'x');
               CREATE TABLE t(a); INSERT INTO t VALUES (CAST(x'ff' AS TEXT)), ('good'), (-9e999)";
    rusqlite::Connection::open(&database).and_then(|open| open.execute_batch(sql)).expect("SQL");
    let file = fixture.path("e.ndjson");
    let file = file.to_str().expect("UTF-8");
    let done = output(&mut on(&database, &["export", "--json", "-o", file]));
    let (said, report) = (stderr(&done), String::from_utf8_lossy(&done.stdout).into_owned());
    assert!(done.status.success() && said.lines().count() == 1, "{said}");
    let words = "1 text not UTF-8: written as bytes, which an import stores as a blob; 4 rows of a kind that no collector stores";
    assert!(said.contains(words), "{said}");
    assert!(report.contains("\"bad_texts\":1,") && report.contains("\"inexact\":4,"), "{report}");
    let text = std::fs::read_to_string(file).expect("reads");
    assert!(text.contains(r#""payload":{"$blob":"b/8="}"#) && text.contains(r#""payload":{"$real":"inf"}"#), "{text}");
    for (format, expected) in [
        ("ndjson", "{\"a\":{\"$blob\":\"/w==\"}}\n{\"a\":\"good\"}\n{\"a\":{\"$real\":\"-inf\"}}\n"),
        ("csv", "a\nx'ff'\ngood\n-inf\n"),
    ] {
        let done = output(&mut on(&database, &["export", "t", "--format", format]));
        assert_eq!(String::from_utf8_lossy(&done.stdout), expected);
        assert!(stderr(&done).contains("1 text not UTF-8: written as bytes"), "{}", stderr(&done));
    }
    // The bytes are there after an import.
    let copy = fixture.path("copy.db");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("b/8=") || line.contains("good")).collect();
    let kept = fixture.file("kept.ndjson", lines.join("\n"));
    printed(&mut on(&copy, &["import", &kept]));
    assert_eq!(
        oracle::texts(&copy, "SELECT hex(payload) || typeof(payload) FROM events"),
        ["6FFFblob", "676F6F64text"]
    );
}

#[test]
fn a_copy_of_an_imported_file_that_was_cut_short_is_recognised() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let text = lines(0, 12_000);
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("writes");
        file.to_str().expect("UTF-8").to_owned()
    };
    let import = |file: &str| output(&mut on(&database, &["import", file]));
    let all_known = |name: &str, text: &str, lines: &str| {
        let file = file(name, text);
        assert_eq!(
            String::from_utf8_lossy(&import(&file).stdout),
            format!("all {lines} lines of {file} were imported before\n")
        );
    };
    let first = |lines: usize| text.split_inclusive('\n').take(lines).collect::<String>();
    assert!(import(&file("whole.ndjson", &text)).status.success());
    // Within a transaction, at its end, and in a later one; without the last line's end; with other ends.
    all_known("cut.ndjson", &first(7), "7");
    all_known("cut.ndjson", &first(5_000), "5,000");
    all_known("cut.ndjson", &first(11_999), "11,999");
    all_known("cut.ndjson", first(600).trim_end(), "600");
    all_known("cut.ndjson", &first(600).replace('\n', "\r\n"), "600");
    assert_eq!(oracle::count(&database), 12_000);
    // Cut within a line: that line is none, and those before are known.
    let torn = file("torn.ndjson", &first(100)[..first(100).len() - 20]);
    let said = stderr(&import(&torn));
    assert!(said.contains("torn.ndjson: line 100 does not look like"), "{said}");
    assert_eq!(oracle::count(&database), 12_000);
    // With another line in it, it is another file.
    let other = file("other.ndjson", &(first(9) + &lines(99_999, 1)));
    let done = import(&other);
    assert_eq!(String::from_utf8_lossy(&done.stdout), format!("{other}: 10 events stored\n"));
    // Both are known now, and so is what is added to the cut one.
    all_known("cut.ndjson", &first(9), "9");
    let grown = file("grown.ndjson", &(text.clone() + &lines(12_000, 3)));
    let done = import(&grown);
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        format!("{grown}: 3 events stored, 12,000 lines were imported before\n")
    );
    all_known("cut.ndjson", &(text.clone() + &lines(12_000, 2)), "12,002");
    assert_eq!(oracle::count(&database), 12_013);
}

#[test]
fn a_signal_ends_an_import_with_what_it_has_stored() {
    let fixture = Fixture::new();
    let database = fixture.database();
    let mut command = on(&database, &["import", "-", "--json"]);
    let mut child = crate::support::collector::piped(&mut command);
    let mut input = child.stdin.take().expect("piped");
    // More than a transaction, then a pipe that says nothing.
    std::io::Write::write_all(&mut input, lines(0, 5_500).as_bytes()).expect("writes");
    eventually("the first transaction", || (database.exists() && rows(&database) == Some(5_000)).then_some(()));
    signal(child.id(), "INT");
    let done = child.wait_with_output().expect("ends");
    drop(input);
    assert_eq!(done.status.code(), Some(130), "{}", stderr(&done));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let stored = report["stored"].as_u64().expect("a number");
    assert_eq!(stored, oracle::count(&database));
    assert!((5_000..=5_500).contains(&stored), "{report}");
    assert_eq!(stderr(&done).lines().count(), 1, "{}", stderr(&done));
    // An error says how far it came too.
    let bad = fixture.file("bad.ndjson", lines(0, 2) + "no event\n");
    let done = output(&mut on(&database, &["import", &bad, "--json"]));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!((done.status.code(), &report["stored"], &report["lines"]), (Some(1), &2.into(), &2.into()), "{report}");
}

/// How many rows there are, if the database can be read already.
fn rows(database: &Path) -> Option<u64> {
    let open = rusqlite::Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    open.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).ok()
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
    assert_eq!(
        done,
        format!("{{\"bad_texts\":0,\"bytes\":{},\"file\":\"{file}\",\"inexact\":0,\"rows\":1}}\n", text.len())
    );
    assert_eq!(std::fs::read_to_string(file).expect("reads"), text);
    for (arguments, words) in [
        (&["export", "-o", file][..], "there is a file already"),
        (&["export", "nothing"], "there is no table nothing; the tables are events"),
        (&["export", "--where", "\"nope\" = 1"], "--where does not fit table events: no such column: \"nope\""),
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
