//! `catchment tail` beside a collector and an application that deletes rows.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::collector::{Collector, catchment, output, signal, stderr};
use crate::support::fixture::Fixture;

/// A database that routes write, beside a collector.
const ROUTES: &str = "
[[route]]
subject = \"events.line\"
sql = [
  \"INSERT INTO lines(user, text) VALUES (:user, :text)\",
  \"INSERT INTO users(name, lines) VALUES (:user, 1) ON CONFLICT(name) DO UPDATE SET lines = lines + 1\",
]
";

#[test]
fn with_routes_it_follows_the_tables_that_they_fill() {
    let fixture = Fixture::new();
    let at = |name: &str| fixture.folder.path().join(name);
    std::fs::create_dir(at("m")).expect("a folder");
    let tables = "CREATE TABLE lines(id INTEGER PRIMARY KEY, user TEXT NOT NULL, text TEXT, raw BLOB);
                  CREATE TABLE users(name TEXT PRIMARY KEY, lines INTEGER); CREATE TABLE other(a);";
    std::fs::write(at("m/1_tables.sql"), tables).expect("writes");
    std::fs::write(at("c.toml"), format!("[database]\nmigrations = {:?}\n{ROUTES}", at("m"))).expect("writes");
    let tailing = |arguments: &[&str]| {
        let mut command = catchment();
        command.arg("tail").args(arguments).arg("--config").arg(at("c.toml"));
        command.arg("--database").arg(fixture.database());
        command
    };
    let lines = |command: &mut std::process::Command| {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("catchment starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Tail { child, lines }
    };
    // It waits for the database and for the tables of the migration.
    let mut tail = lines(&mut tailing(&[]));
    let mut users = lines(&mut tailing(&["users", "--json"]));
    let mut run = fixture.run();
    run.arg("--config").arg(at("c.toml"));
    let collector = Collector::start(run, &at("log"));
    collector.said("collecting stream");
    let mut said = |expected: &str| assert_eq!(tail.lines.next().expect("it goes on").expect("UTF-8"), expected);
    let raw = &mut fixture.server.raw();
    raw.publish_all("events.line", &[r#"{"user": "ada", "text": "a\u001bb"}"#.to_owned()]);
    said(r#"lines {"id":1,"user":"ada","text":"a\u001bb","raw":null}"#);
    said(r#"users {"name":"ada","lines":1}"#);
    raw.publish_all("events.line", &[r#"{"user": "ada", "text": "two"}"#.to_owned()]);
    said(r#"lines {"id":2,"user":"ada","text":"two","raw":null}"#);
    raw.publish_all("events.other", &["as it is".to_owned()]);
    let event = tail.lines.next().expect("it goes on").expect("UTF-8");
    assert!(event.starts_with("events 2") && event.ends_with("Z events.other as it is"), "{event}");
    raw.publish_all("events.line", &[r#"{"user": "bob"}"#.to_owned()]);
    let next = |tail: &mut Tail| tail.lines.next().expect("it goes on").expect("UTF-8");
    // A row is printed once, as it was when it was read.
    for name in ["ada", "bob"] {
        let row: Value = serde_json::from_str(&next(&mut users)).expect("JSON");
        assert_eq!((&row["table"], &row["row"]["name"]), (&"users".into(), &name.into()));
    }
    assert!(collector.stop().success());

    let printed = |arguments: &[&str]| {
        let done = output(&mut tailing(arguments));
        (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned(), stderr(&done))
    };
    let (status, rows, _) = printed(&["--no-follow", "--json", "-n", "1"]);
    assert_eq!(status, Some(0));
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        rows.iter().map(|row| row["table"].as_str().expect("a name")).collect::<Vec<_>>(),
        ["lines", "users", "events"]
    );
    assert_eq!((&rows[0]["row"]["id"], &rows[2]["row"]["payload"]), (&3.into(), &"as it is".into()));
    let (_, rows, _) = printed(&["Lines", "--no-follow", "-n", "1"]);
    assert_eq!(rows, "{\"id\":3,\"user\":\"bob\",\"text\":null,\"raw\":null}\n");
    let (status, _, said) = printed(&["lins", "--no-follow"]);
    assert_eq!(status, Some(1));
    assert_eq!(said, "catchment: there is no table lins; the tables are events, lines, other, users\n");
    // Without the settings, the routes are not known.
    let mut unknown = catchment();
    unknown.args(["tail", "--no-follow", "--database"]).arg(fixture.database());
    assert!(stderr(&output(&mut unknown)).is_empty(), "there is an event");
    Connection::open(fixture.database()).and_then(|sqlite| sqlite.execute("DELETE FROM events", [])).expect("deletes");
    let said = stderr(&output(&mut unknown));
    assert!(said.contains("table events is empty") && said.contains("with one of lines, other, users"), "{said}");
}

/// `tail --json`; killed when dropped.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(fixture: &Fixture) -> Self {
        let mut command = catchment();
        command.args(["tail", "-n", "1", "--json", "--database"]).arg(fixture.database());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("catchment starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// While it looks at nothing.
    fn stopped(&self, act: impl FnOnce()) {
        signal(self.child.id(), "STOP");
        act();
        signal(self.child.id(), "CONT");
    }

    /// Id and payload of the next event.
    fn next(&mut self) -> (u64, String) {
        let line = self.lines.next().expect("it goes on").expect("UTF-8");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        (event["id"].as_u64().expect("a number"), event["payload"].as_str().expect("text").to_owned())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_goes_on_when_rows_were_deleted_and_ids_are_used_again() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    collector.said("collecting stream");
    fixture.publish("one", 20);
    fixture.has(20);
    let mut tail = Tail::start(&fixture);
    assert_eq!(tail.next(), (20, "one-19".into()));
    // Between two looks all rows are deleted, or all but the first, and fewer, as many or more are collected.
    for (round, (left, count)) in [(0, 5), (0, 5), (0, 12), (3, 9), (3, 20), (0, 1)].into_iter().enumerate() {
        let prefix = format!("round-{round}");
        tail.stopped(|| {
            let connection = Connection::open(fixture.database()).expect("opens");
            connection.busy_timeout(std::time::Duration::from_secs(10)).expect("sets");
            connection.execute("DELETE FROM events WHERE id > ?", [left]).expect("deletes");
            fixture.publish(&prefix, count);
            fixture.has(left + count);
        });
        for number in 0..count {
            assert_eq!(tail.next(), ((left + number + 1) as u64, format!("{prefix}-{number}")));
        }
    }
}

#[test]
fn a_table_that_cannot_be_followed_any_more_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    let sqlite = Connection::open(&path).expect("opens");
    let sql = "CREATE TABLE t(a INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (9223372036854775807);
               CREATE TABLE w(a PRIMARY KEY) WITHOUT ROWID;";
    sqlite.execute_batch(sql).expect("SQL");
    let mut command = catchment();
    command.args(["tail", "t", "--database"]).arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("catchment starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut tail = Tail { child, lines };
    for row in ["{\"a\":1}", "{\"a\":9223372036854775807}"] {
        assert_eq!(tail.lines.next().expect("a row").expect("UTF-8"), row);
    }
    let mut said = || log.next().expect("a line").expect("UTF-8");
    let line = said();
    assert!(line.contains("WARN") && line.contains("table t: a row has the largest number"), "{line}");
    sqlite.execute_batch("DROP TABLE t").expect("SQL");
    let line = said();
    assert!(line.contains("table t was removed; its rows are printed again once there is such a table"), "{line}");
    sqlite.execute_batch("CREATE TABLE t(b); INSERT INTO t VALUES (7)").expect("SQL");
    assert_eq!(tail.lines.next().expect("a row").expect("UTF-8"), "{\"b\":7}");

    // A mistyped name is no reason to wait.
    for (arguments, words) in [
        (&["nope"][..], "there is no table nope; the tables are t"),
        (&["t", "nope", "neither"], "there is no table nope, neither; the tables are t"),
        (&["w"], "w is WITHOUT ROWID: its rows have no numbers; read it with catchment sql --database "),
    ] {
        let done = output(catchment().args(["--quiet", "tail"]).args(arguments).arg("--database").arg(&path));
        assert_eq!(done.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&done).contains(words), "{}", stderr(&done));
    }
}
