//! The commands as somebody at a terminal, or a script, meets them.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::collector::{Collector, catchment, fed, output, printed, results, run, signal, stderr};
use crate::support::publishing::PublishingFixture as Fixture;
use crate::support::{eventually, oracle};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// What a command printed that had this on standard input.
#[track_caller]
fn printed_from(command: &mut Command, input: &[u8]) -> String {
    results(fed(command, input))
}

fn numbered(numbers: std::ops::Range<u32>, text: impl Fn(u32) -> String) -> Vec<String> {
    numbers.map(text).collect()
}

#[test]
fn lines_of_standard_input_are_published_one_event_each() {
    let fixture = Fixture::new();
    let input = b"{\"a\":1}\n\n{\"a\":2}\r\nnot json\n\xff\xfe\n{\"last\":\"without a line end\"}";
    let said = printed_from(&mut fixture.publish(&["events.in"]), input);
    assert_eq!(said, "published 5 events, the last as 5 of stream EVENTS\n");
    fixture.drain();
    let connection = oracle::open(&fixture.database());
    let mut sql = connection.prepare("SELECT CAST(payload AS BLOB) FROM events ORDER BY id").expect("SQL");
    let rows: Vec<Vec<u8>> =
        sql.query_map([], |row| row.get(0)).expect("runs").map(|row| row.expect("a row")).collect();
    let expected: [&[u8]; 5] =
        [b"{\"a\":1}", b"{\"a\":2}", b"not json", b"\xff\xfe", b"{\"last\":\"without a line end\"}"];
    assert_eq!(rows, expected);
}

#[test]
fn a_file_is_published_as_standard_input_is() {
    let fixture = Fixture::new();
    let file = fixture.folder.path().join("in.ndjson");
    std::fs::write(&file, numbered(0..3_000, |n| format!("{{\"n\":{n}}}")).join("\n")).expect("writes");
    let said = printed(&mut fixture.publish(&["--json", "--file", file.to_str().expect("UTF-8"), "events.file"]));
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (&said["published"], &said["stream"], &said["last_sequence"]),
        (&3_000.into(), &"EVENTS".into(), &3_000.into())
    );
    fixture.drain();
    assert_eq!(oracle::payloads(&fixture.database()), numbered(0..3_000, |n| format!("{{\"n\":{n}}}")));
    let missing = output(&mut fixture.publish(&["--file", "missing.ndjson", "events.file"]));
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).starts_with("catchment: cannot read missing.ndjson"), "{}", stderr(&missing));
}

#[test]
fn one_event_with_headers_and_an_identity_is_published_once() {
    let fixture = Fixture::new();
    let arguments = ["events.one", "hello", "-H", "Trace-Id: 7", "-H", "Empty:", "--id", "17"];
    assert_eq!(printed(&mut fixture.publish(&arguments)), "published 1 event, the last as 1 of stream EVENTS\n");
    let again = printed(&mut fixture.publish(&arguments));
    assert_eq!(again, "published 1 event, the last as 1 of stream EVENTS, which had it already\n");
    fixture.drain();
    let row = printed(&mut fixture.reading(&["sql", "--json", "SELECT subject, payload, headers FROM events"]));
    let row: Value = serde_json::from_str(&row).expect("one row");
    assert_eq!((&row["subject"], &row["payload"]), (&"events.one".into(), &"hello".into()));
    let headers: Value = serde_json::from_str(row["headers"].as_str().expect("text")).expect("JSON");
    assert_eq!(headers, serde_json::json!({ "Trace-Id": "7", "Empty": "", "Nats-Msg-Id": "17" }));
}

#[test]
fn an_event_that_cannot_be_sent_is_refused_as_wrong_usage() {
    let fixture = Fixture::new();
    for (arguments, words) in [
        (&["events.>", "x"][..], "wildcard"),
        (&["events a", "x"], "white space"),
        (&["", "x"], "empty"),
        (&["events.a", "x", "-H", "no colon"], "Trace-Id:7"),
        (&["events.a", "x", "-H", "a b: c"], "header name"),
        (&["events.a", "x", "-H", "a: b\r\nc: d"], "line break"),
    ] {
        let refused = output(&mut fixture.publish(arguments));
        let said = stderr(&refused);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.starts_with("catchment: ") && said.contains(words) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(fixture.server.last_sequence("EVENTS"), 0);
}

#[test]
fn a_line_that_is_too_large_ends_publishing_with_its_reason() {
    let fixture = Fixture::new();
    let file = fixture.folder.path().join("in.ndjson");
    std::fs::write(&file, format!("small\n{}\n", "x".repeat(1 << 20))).expect("writes");
    let refused = output(&mut fixture.publish(&["--file", file.to_str().expect("UTF-8"), "events.file"]));
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("max_payload") && !said.contains("xxxx"), "the reason, not the event: {said}");
}

#[test]
fn generated_load_has_the_count_the_size_and_the_rate_asked_for() {
    let fixture = Fixture::new();
    let began = std::time::Instant::now();
    let said = printed(&mut fixture.publish(&["events.load", "--count", "100", "--size", "300", "--rate", "200"]));
    assert!(said.starts_with("published 100 events"), "{said}");
    assert!(began.elapsed().as_millis() >= 495, "the last of 100 is due after 495 ms: {:?}", began.elapsed());
    fixture.drain();
    let sql = "SELECT count(*) AS n, min(length(payload)) AS a, max(length(payload)) AS z, \
               count(DISTINCT payload ->> '$.n') AS apart FROM events";
    let said = printed(&mut fixture.reading(&["sql", "--json", sql]));
    assert_eq!(said, "{\"n\":100,\"a\":300,\"z\":300,\"apart\":100}\n");
}

#[test]
fn sql_answers_as_json_as_csv_and_as_a_table() {
    let fixture = Fixture::new();
    printed_from(&mut fixture.publish(&["events.a"]), "one, \"two\"\n\u{1b}[2J grüße\n".as_bytes());
    fixture.server.raw().publish("events.b", None, b"\xff\x00");
    fixture.drain();
    let query = "SELECT id, subject, payload, headers IS NULL AS bare FROM events ORDER BY id";
    let json = printed(&mut fixture.reading(&["sql", "--json", query]));
    let expected = "{\"id\":1,\"subject\":\"events.a\",\"payload\":\"one, \\\"two\\\"\",\"bare\":1}\n\
                    {\"id\":2,\"subject\":\"events.a\",\"payload\":\"\\u001b[2J grüße\",\"bare\":1}\n\
                    {\"id\":3,\"subject\":\"events.b\",\"payload\":{\"$blob\":\"/wA=\"},\"bare\":1}\n";
    assert_eq!(json, expected);
    let csv = printed(&mut fixture.reading(&["sql", "--csv", query]));
    let expected = "id,subject,payload,bare\n1,events.a,\"one, \"\"two\"\"\",1\n2,events.a,\u{1b}[2J grüße,1\n\
                    3,events.b,x'ff00',1\n";
    assert_eq!(csv, expected);
    let table = printed(&mut fixture.reading(&["sql", query]));
    assert!(table.contains("payload") && table.contains("grüße") && table.contains("x'ff00'"), "{table}");
    assert!(!table.contains('\u{1b}'), "nothing plays with the terminal: {table:?}");
    // From standard input, several statements.
    let two = printed_from(&mut fixture.reading(&["sql", "--csv", "-"]), b"SELECT 1 AS a;\nSELECT 2 AS b;\n");
    assert_eq!(two, "a\n1\nb\n2\n");
    // It is the default where there is no terminal.
    let two = printed_from(&mut fixture.reading(&["sql", "--csv"]), b"-- two\nSELECT 1 AS a; SELECT 2 AS b");
    assert_eq!(two, "a\n1\nb\n2\n");
    let commented = printed(&mut fixture.reading(&["sql", "-- a comment\nSELECT 1 AS a", "--csv"]));
    assert_eq!(commented, "a\n1\n");
    assert_eq!(printed(&mut fixture.reading(&["sql", "--csv", "PRAGMA journal_mode"])), "journal_mode\nwal\n");
}

#[test]
fn sql_shows_the_tables_and_how_they_were_made() {
    let fixture = Fixture::new();
    let tables = "CREATE TABLE messages(id INTEGER PRIMARY KEY,\n  text TEXT);
                  CREATE INDEX by_text ON messages(text); CREATE VIEW texts AS SELECT text FROM messages;
                  CREATE VIRTUAL TABLE words USING fts5(text);";
    Connection::open(fixture.database()).and_then(|sqlite| sqlite.execute_batch(tables)).expect("a database");
    let listed = printed(&mut fixture.reading(&["sql", "--tables", "--csv"]));
    assert_eq!(listed, "name,type\nmessages,table\ntexts,view\nwords,virtual\n");
    let schema = printed(&mut fixture.reading(&["sql", "--schema", "Messages"]));
    let made =
        "CREATE TABLE messages(id INTEGER PRIMARY KEY,\n  text TEXT);\nCREATE INDEX by_text ON messages(text);\n";
    assert_eq!(schema, made);
    let all = printed(&mut fixture.reading(&["sql", "--schema"]));
    let rest = "CREATE VIEW texts AS SELECT text FROM messages;\nCREATE VIRTUAL TABLE words USING fts5(text);\n";
    assert_eq!(all, format!("{made}{rest}"));
    let json = printed(&mut fixture.reading(&["sql", "--json", "--schema", "texts"]));
    let view =
        r#"{"type":"view","name":"texts","table":"texts","sql":"CREATE VIEW texts AS SELECT text FROM messages"}"#;
    assert_eq!(json, format!("{view}\n"));
    let missing = output(&mut fixture.reading(&["sql", "--schema", "nowhere"]));
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(stderr(&missing), "catchment: there is no table or view nowhere; sql --tables lists them\n");
}

#[test]
fn sql_changes_nothing_and_says_what_is_wrong() {
    let fixture = Fixture::new();
    printed(&mut fixture.publish(&["events.a", "x"]));
    fixture.drain();
    for (sql, words) in [
        ("DELETE FROM events", "only statements that read"),
        ("DROP TABLE events", "only statements that read"),
        ("PRAGMA journal_mode = DELETE", "only statements that read"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("SELECT payload ->> '$.a' FROM events", "malformed JSON; some value is not JSON: leave it out with WHERE"),
    ] {
        let refused = output(&mut fixture.reading(&["sql", sql]));
        let said = stderr(&refused);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.starts_with("catchment: database ") && said.contains(words), "{said}");
        assert!(said.contains("a.db") && said.lines().count() == 1, "{said}");
    }
    let empty = output(&mut fixture.reading(&["sql", " "]));
    assert_eq!(empty.status.code(), Some(2), "{}", stderr(&empty));
    let mistyped = output(&mut fixture.reading(&["sql", "--jsn", "SELECT 1"]));
    assert_eq!(mistyped.status.code(), Some(2));
    assert_eq!(stderr(&mistyped), "catchment: there is no option --jsn; did you mean --json?\n");
    let unquoted = output(&mut fixture.reading(&["sql", "SELECT", "1"]));
    assert_eq!(unquoted.status.code(), Some(2));
    assert!(stderr(&unquoted).contains("give the SQL as one argument, in quotes"), "{}", stderr(&unquoted));
    for reader in [&["sql", "SELECT 1"][..], &["tail"], &["dead-letters", "list"]] {
        let folder = output(catchment().args(reader).args(["--database", "/tmp"]));
        assert_eq!(stderr(&folder), "catchment: database /tmp: it is a directory; give the path of a file in it\n");
        assert_eq!(folder.status.code(), Some(1));
    }
    let missing = output(catchment().args(["sql", "SELECT 1", "--database", "/nowhere/a.db"]));
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/nowhere/a.db: there is no such file"), "{}", stderr(&missing));
    assert_eq!(oracle::count(&fixture.database()), 1);
}

/// Reads one line and lets go of the pipe, as `head -1` does.
#[track_caller]
fn read_one_line_and_leave(command: &mut Command) -> ExitStatus {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let mut child =
        command.stdout(Stdio::piped()).stderr(log.reopen().expect("a file")).spawn().expect("catchment starts");
    let mut line = String::new();
    BufReader::with_capacity(64, child.stdout.take().expect("piped")).read_line(&mut line).expect("UTF-8");
    assert!(!line.is_empty());
    let status = eventually("an end", || child.try_wait().expect("can be asked"));
    assert_eq!(std::fs::read_to_string(log.path()).expect("reads"), "", "it is no failure");
    status
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let fixture = Fixture::new();
    printed(&mut fixture.publish(&["events.load", "--count", "5000", "--size", "200"]));
    fixture.drain();
    for form in [&["--json"][..], &["--csv"], &[]] {
        let mut command = fixture.reading(&["sql", "SELECT * FROM events"]);
        assert_eq!(read_one_line_and_leave(command.args(form)).code(), Some(0), "{form:?}");
    }
    for form in [&["--json"][..], &[]] {
        let mut command = fixture.reading(&["tail", "-n", "5000", "--no-follow"]);
        assert_eq!(read_one_line_and_leave(command.args(form)).code(), Some(0), "{form:?}");
    }
}

#[test]
fn tail_prints_the_last_events_and_ends() {
    let fixture = Fixture::new();
    printed_from(&mut fixture.publish(&["events.a"]), numbered(0..30, |n| n.to_string()).join("\n").as_bytes());
    fixture.drain();
    let text = printed(&mut fixture.reading(&["tail", "--no-follow"]));
    let last: Vec<_> = text.lines().map(|line| line.rsplit(' ').next().expect("a payload")).collect();
    assert_eq!(last, numbered(20..30, |n| n.to_string()));
    assert!(text.lines().all(|line| line.split(' ').nth(1) == Some("events.a")), "{text}");
    let json = printed(&mut fixture.reading(&["tail", "--no-follow", "--json", "-n", "3"]));
    let ids: Vec<_> = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|event| (event["id"].as_u64().expect("a number"), event["payload"].clone()))
        .collect();
    assert_eq!(ids, [(28, "27".into()), (29, "28".into()), (30, "29".into())]);
    assert_eq!(printed(&mut fixture.reading(&["tail", "--no-follow", "-n", "0"])), "");
    assert_eq!(printed(&mut fixture.reading(&["tail", "--no-follow", "-n", "1000"])).lines().count(), 30);
}

/// A command whose lines are read one by one; killed when dropped.
struct Following {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Following {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("catchment starts");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    /// The next line; the test's own time-out is the harness's.
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("UTF-8");
        line
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn tail_ends_with_its_reader_though_nothing_comes() {
    let folder = folder();
    let mut command = catchment();
    command.args(["tail", "--quiet", "--database"]).arg(folder.path().join("none.db"));
    let mut tail = command.stdout(Stdio::piped()).spawn().expect("catchment starts");
    drop(tail.stdout.take());
    assert!(tail.wait().expect("it ends").success());
}

#[test]
fn tail_waits_for_the_database_and_follows_it() {
    let fixture = Fixture::new();
    let mut tail = Following::start(fixture.reading(&["tail", "--json"]));
    let collector =
        Collector::start(run(&fixture.server.url(), &fixture.database()), &fixture.folder.path().join("log"));
    for n in 0..3 {
        printed(&mut fixture.publish(&["events.a", &format!("event {n}")]));
        let event: Value = serde_json::from_str(&tail.next()).expect("JSON");
        assert_eq!(event["payload"], format!("event {n}"));
    }
    assert!(collector.stop().success());
}

#[test]
fn one_interrupt_commits_and_a_second_ends_at_once() {
    let fixture = Fixture::new();
    let log = fixture.folder.path().join("log");
    let mut collector = Collector::start(run(&fixture.server.url(), &fixture.database()), &log);
    collector.said("collecting stream EVENTS");
    printed(&mut fixture.publish(&["events.load", "--count", "20000"]));
    signal(collector.pid(), "INT");
    assert!(collector.wait().success(), "{}", collector.log());
    collector.said("committed ");
    let rows = oracle::count(&fixture.database());
    let said = collector.log();
    assert!(said.contains(&format!("committed {} events", grouped(rows))), "{rows} rows: {said}");
    oracle::sound(&fixture.database());

    // With the database held, the first signal cannot commit; the second does not wait.
    let holder = rusqlite::Connection::open(fixture.database()).expect("opens");
    let mut command = run(&fixture.server.url(), &fixture.database());
    command.args(["--stop-timeout", "1h"]);
    let mut collector = Collector::start(command, &fixture.folder.path().join("second.log"));
    collector.said("collecting stream EVENTS");
    holder.busy_timeout(std::time::Duration::from_secs(10)).expect("sets");
    holder.execute_batch("BEGIN IMMEDIATE").expect("gets the lock");
    printed(&mut fixture.publish(&["events.load", "--count", "10"]));
    collector.said("another process holds its write lock");
    signal(collector.pid(), "INT");
    eventually("the first signal to be heard", || {
        let caught = std::fs::read_to_string(format!("/proc/{}/status", collector.pid())).expect("it runs");
        let pending = caught.lines().find(|line| line.starts_with("ShdPnd:")).expect("the kernel tells").to_owned();
        pending.ends_with("0000000000000000").then_some(())
    });
    signal(collector.pid(), "INT");
    assert_eq!(collector.wait().code(), Some(130), "{}", collector.log());
}

/// 20000 as 20,000.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|part| String::from_utf8_lossy(part)).collect();
    parts.join(",")
}

#[test]
fn the_help_of_test_lists_every_key_of_its_json() {
    let folder = folder();
    let result = printed_from(catchment().current_dir(&folder).args(["test", "--json", "-"]), b"");
    let result: serde_json::Value = serde_json::from_str(&result).expect("JSON");
    let help = printed(catchment().args(["test", "--help"])).split_whitespace().collect::<Vec<_>>().join(" ");
    for key in result.as_object().expect("an object").keys() {
        assert!(help.contains(&format!("\"{key}\"")), "{key}: {help}");
    }
}

#[test]
fn help_and_version_are_for_people() {
    let help = printed(catchment().arg("--help"));
    for word in ["run", "publish", "sql", "tail", "CATCHMENT_", "Exit status"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(printed(catchment().arg("--version")).starts_with("catchment "));
    let wrong = output(catchment().arg("collect"));
    assert_eq!(wrong.status.code(), Some(2));
}
