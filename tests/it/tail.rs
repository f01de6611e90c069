//! `catchment tail` beside a collector and an application that deletes rows.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::collector::{Collector, catchment, output, printed, signal, stderr};
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
    assert_eq!(said, "catchment: there is no table lins; did you mean lines?\n");
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

#[test]
fn options_choose_rows_of_tables_of_routes() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("m")).expect("a folder");
    let tables = "CREATE TABLE lines(id INTEGER PRIMARY KEY, user TEXT, at INTEGER) STRICT;
                  CREATE TABLE logins(id INTEGER PRIMARY KEY, topic TEXT, at REAL) STRICT;";
    fixture.file("m/1_tables.sql", tables);
    let settings = "[broker]\nsubjects = [\"events.>\"]\n\n[database]\npath = \"a.db\"\nmigrations = \"m\"\n
[[route]]
name = \"line\"
subject = \"events.line.*\"
sql = \"INSERT INTO lines(user, at) VALUES (:user, coalesce(:at, :published_s))\"

[[route]]
name = \"login\"
subject = \"events.login.*\"
sql = \"REPLACE INTO main.logins(topic, at) VALUES (:subject, :published_us / 1e6)\"
";
    fixture.file("catchment.toml", settings);
    let mut run = fixture.command(&["run", "--server", &fixture.server.url()]);
    run.env("CATCHMENT_BROKER__SILENCE", "2s");
    let collector = Collector::start(run, &fixture.path("log"));
    collector.said("collecting stream");
    let mut raw = fixture.server.raw();
    let line = |raw: &mut crate::support::raw::Raw, user: &str, at: &str| {
        raw.publish("events.line.a", None, format!("{{\"user\": \"{user}\", \"at\": {at}}}"));
    };
    line(&mut raw, "ada", "1000");
    line(&mut raw, "bob", "null");
    raw.publish("events.login.a", None, "");
    raw.publish("events.login.b", None, "");
    raw.publish("events.x", None, "no JSON");
    crate::support::eventually("all rows", || {
        let count = printed(&mut fixture.command(&["sql", "--csv", "SELECT count(*) FROM events"]));
        (count == "count(*)\n1\n").then_some(())
    });
    let tail = |arguments: &[&str]| {
        let mut command = fixture.command(&["tail", "--no-follow", "--json"]);
        let done = output(command.args(arguments));
        let rows = String::from_utf8(done.stdout.clone()).expect("UTF-8");
        let ids = rows.lines().map(|line| {
            let row: Value = serde_json::from_str(line).expect("JSON");
            match row["table"].as_str() {
                Some(table) => format!("{table} {}", row["row"]["id"]),
                None => format!("events {}", row["id"]),
            }
        });
        (done.status.code(), ids.collect::<Vec<_>>().join(", "), stderr(&done))
    };
    for (arguments, rows) in [
        (&["--subject", "events.login.*"][..], "logins 1, logins 2"),
        (&["--subject", "events.*.b"], "logins 2"),
        (&["--subject", "events.x"], "events 1"),
        (&["--subject", "events.>"], "lines 1, lines 2, logins 1, logins 2, events 1"),
        (&["--since", "1h"], "lines 2, logins 1, logins 2, events 1"),
        (&["--since", "1h", "-n", "1"], "lines 2, logins 2, events 1"),
        (&["--where", "user = 'ada' -- so"], "lines 1"),
        (&["--where", "id > 1"], "lines 2, logins 2"),
        (&["lines", "--where", "rowid = 1", "--since", "1970-01-01"], "lines 1"),
        (&["lines", "--since", "1970-01-01T00:16:41Z"], "lines 2"),
    ] {
        let (status, found, said) = tail(arguments);
        assert_eq!((status, found.as_str()), (Some(0), rows), "{arguments:?}: {said}");
    }
    for (arguments, reason) in [
        (&["--where", "usr = 1"][..], "--where does not fit table lines: no such column: usr (at 1:1, \"usr = 1\")"),
        (&["events", "--where", "user = 1"], "--where does not fit table events: no such column: user"),
        (&["lines", "--subject", "events.login.a"], "only events on other subjects fill it (route line)"),
        (&["lines", "--subject", "events.line.a"], "events on other subjects fill it too (route line)"),
        (&["events", "--where", "payload ->> '$.a' = 1"], "some value is not JSON: leave it out with"),
        (&["--where", "1; DROP TABLE lines"], "it has a semicolon; write one expression"),
        (&["--where", "(SELECT 1 FROM catchment_nope)"], "no such table: catchment_nope"),
    ] {
        let (status, _, said) = tail(arguments);
        assert_eq!(status, Some(1), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
    // What does not match is passed over while it follows.
    let mut command = fixture.command(&["tail", "lines", "--json", "--where", "user LIKE 'e%'"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("catchment starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut follower = Tail { child, lines };
    line(&mut raw, "dan", "1");
    line(&mut raw, "eve", "1");
    line(&mut raw, "fay", "1");
    line(&mut raw, "eli", "1");
    for user in ["eve", "eli"] {
        let row = follower.lines.next().expect("a row").expect("UTF-8");
        assert!(row.contains(&format!("\"user\":\"{user}\"")), "{row}");
    }
    assert!(collector.stop().success());
}

#[test]
fn incoming_messages_are_shown_and_the_stream_stays_as_it_was() {
    for retention in ["limits", "interest", "workqueue"] {
        let fixture = Fixture::with_retention(retention);
        // An interest stream keeps messages for a consumer.
        if retention == "interest" {
            let config = serde_json::json!({ "durable_name": "other", "ack_policy": "explicit" });
            let body = serde_json::json!({ "stream_name": "EVENTS", "config": config });
            fixture.ask("$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.other", &body);
        }
        let consumers = fixture.server.consumers("EVENTS");
        let raw = &mut fixture.server.raw();
        for number in 0..600 {
            let subject = if number % 100 == 0 { "events.rare" } else { "events.often" };
            raw.send(subject, Some(b"NATS/1.0\r\nA: b\r\n\r\n"), format!("{number}"));
        }
        raw.finish();
        let incoming = |arguments: &[&str]| {
            let mut command = fixture.command(&["tail", "--incoming", "--json"]);
            command.args(["--server", &fixture.server.url()]).args(arguments);
            command
        };
        let payloads = |arguments: &[&str]| -> Vec<String> {
            let lines = printed(incoming(arguments).arg("--no-follow"));
            let read = |line: &str| {
                let message: Value = serde_json::from_str(line).expect("JSON");
                assert_eq!(message["headers"]["A"], "b");
                message["payload"].as_str().expect("text").to_owned()
            };
            lines.lines().map(read).collect()
        };
        assert_eq!(payloads(&["-n", "3"]), ["597", "598", "599"]);
        assert_eq!(payloads(&["-n", "2", "--subject", "events.rare"]), ["400", "500"]);
        assert_eq!(payloads(&["--since", "1h"]).len(), 600);
        assert_eq!(payloads(&["--since", "1h", "--subject", "events.*", "-n", "300"]).len(), 300);
        let mut child = incoming(&["-n", "1"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut tail = Tail { child, lines };
        let mut next = || {
            let line = tail.lines.next().expect("it goes on").expect("UTF-8");
            serde_json::from_str::<Value>(&line).expect("JSON")
        };
        assert_eq!(next()["sequence"], 600);
        raw.publish("events.new", None, b"\xff");
        let new = next();
        assert_eq!((&new["sequence"], &new["payload"]["$blob"]), (&601.into(), &"/w==".into()));
        assert_eq!(fixture.server.consumers("EVENTS"), consumers, "{retention}");
        assert_eq!(fixture.server.messages("EVENTS"), 601, "{retention}");
    }
}

#[test]
fn incoming_goes_on_after_the_broker_was_lost() {
    let mut fixture = Fixture::new();
    let url = fixture.server.url();
    let mut command = fixture.command(&["tail", "--incoming", "--server", &url]);
    command.env("CATCHMENT_BROKER__TIMEOUT", "2s");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("catchment starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let log = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut tail = Tail { child, lines };
    fixture.publish("one", 1);
    let line = tail.lines.next().expect("a line").expect("UTF-8");
    assert!(line.ends_with(" events.test one-0"), "{line}");
    signal(fixture.server.pid(), "KILL");
    fixture.server.restart();
    let again = log.map(|line| line.expect("UTF-8")).find(|line| line.contains("reading stream EVENTS again after"));
    assert!(again.is_some());
    fixture.publish("two", 1);
    let line = tail.lines.next().expect("a line").expect("UTF-8");
    assert!(line.ends_with(" events.test two-0"), "{line}");
}
