//! `catchment dead-letters` on events that really failed, beside a collector that goes on.

use catchment::config::RouteConfig;
use catchment::dead_letters::{self, Selection, UnreadableHeaders};
use catchment::{Config, DirectRecorder, DirectRecorderConfig, Event, Recorder};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::input::BREAKING;
use crate::support::chance::Chance;
use crate::support::collector::{Collector, catchment, fed, output, results, signal, stderr};
use crate::support::fixture::Fixture;
use crate::support::refusal::refused;
use crate::support::{eventually, oracle};

/// A line of chat needs a user who is known.
const TABLES: &str = "
CREATE TABLE users(name TEXT PRIMARY KEY) STRICT;
CREATE TABLE lines(id INTEGER PRIMARY KEY, user TEXT NOT NULL REFERENCES users(name), text TEXT NOT NULL, sequence INTEGER) STRICT;
INSERT INTO users VALUES ('ann');
";

const ROUTE: &str = r#"
[[route]]
name = "lines"
subject = "events.line"
sql = "INSERT INTO lines(user, text, sequence) VALUES (:user, :text, :sequence)"
"#;

/// A server, and a collector whose lines go to a table of their own.
struct Chat {
    fixture: Fixture,
}

impl Chat {
    fn new() -> Self {
        let fixture = Fixture::new();
        let migrations = fixture.folder.path().join("migrations");
        std::fs::create_dir(&migrations).expect("a folder");
        std::fs::write(migrations.join("001_tables.sql"), TABLES).expect("writes");
        let config = format!("[database]\nmigrations = {:?}\n{ROUTE}", migrations.display());
        std::fs::write(fixture.folder.path().join("chat.toml"), config).expect("writes");
        Self { fixture }
    }

    fn config(&self) -> PathBuf {
        self.fixture.folder.path().join("chat.toml")
    }

    fn run(&self) -> Command {
        let mut command = self.fixture.run();
        command.arg("--config").arg(self.config());
        command
    }

    fn collector(&self) -> Collector {
        Collector::start(self.run(), &self.fixture.folder.path().join("collector.log"))
    }

    fn drain(&self) {
        let done = output(self.run().arg("--drain"));
        assert!(done.status.success(), "{}", stderr(&done));
    }

    fn publish(&self, lines: &[(&str, &str)]) {
        let payloads: Vec<String> =
            lines.iter().map(|(user, text)| json!({ "user": user, "text": text }).to_string()).collect();
        self.fixture.server.raw().publish_all("events.line", &payloads);
    }

    fn letters(&self, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.arg("dead-letters").args(arguments).arg("--config").arg(self.config());
        command.arg("--database").arg(self.fixture.database());
        command
    }

    /// The command that lists the letters, with the flags of [`Chat::letters`].
    fn list_command(&self) -> String {
        let (config, database) = (self.config(), self.fixture.database());
        format!("catchment dead-letters list --config {} --database {}", config.display(), database.display())
    }

    #[track_caller]
    fn said(&self, arguments: &[&str]) -> String {
        let done = output(&mut self.letters(arguments));
        assert!(done.status.success(), "{}", stderr(&done));
        String::from_utf8(done.stdout).expect("UTF-8")
    }

    fn ids(&self, arguments: &[&str]) -> Vec<u64> {
        let said = self.said(&[&["list", "--json"], arguments].concat());
        let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.map(|letter| letter["id"].as_u64().expect("a number")).collect()
    }

    fn texts(&self, sql: &str) -> Vec<String> {
        let connection = oracle::open(&self.fixture.database());
        let mut statement = connection.prepare(sql).expect("SQL");
        let rows = statement.query_map([], |row| row.get(0)).expect("runs");
        rows.collect::<Result<_, _>>().expect("text")
    }

    fn stored(&self) -> Vec<String> {
        self.texts("SELECT text FROM lines ORDER BY id")
    }

    fn has(&self, table: &str, rows: u64) {
        eventually(&format!("{rows} rows of {table}"), || {
            let sql = format!("SELECT count(*) FROM {table}");
            let count: u64 = oracle::open(&self.fixture.database()).query_row(&sql, [], |row| row.get(0)).ok()?;
            (count == rows).then_some(())
        });
    }

    fn mend(&self, sql: &str) {
        let connection = Connection::open(self.fixture.database()).expect("opens");
        connection.busy_timeout(Duration::from_secs(10)).expect("sets");
        connection.execute_batch(sql).expect("SQL");
    }
}

#[test]
fn letters_are_managed_beside_a_running_collector() {
    let chat = Chat::new();
    let collector = chat.collector();
    collector.said("collecting");
    chat.publish(&[("ann", "one"), ("bob", "two"), ("ann", "three"), ("bob", "four")]);
    chat.fixture.server.raw().publish("events.line", Some(b"NATS/1.0\r\nTrace-Id: 7\r\n\r\n"), b"\xff\x00");
    chat.has("catchment_dead_letters", 3);

    let table = chat.said(&["list"]);
    for words in ["id", "events.line", "lines", "FOREIGN KEY constraint failed", "the payload cannot be read as JSON"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert_eq!(chat.ids(&[]), [1, 2, 3]);
    assert_eq!(chat.ids(&["--newest", "--limit", "2"]), [3, 2]);
    assert_eq!(chat.ids(&["--error", "foreign key", "--since", "1h", "--subject", "*.line"]), [1, 2]);
    assert_eq!(chat.ids(&["--until", "1h"]), [0; 0]);
    assert_eq!(chat.ids(&["--route", "other"]), [0; 0]);
    assert_eq!(chat.said(&["list", "--subject", "other.>"]), "no dead letters\n");

    let shown = chat.said(&["show", "1"]);
    let sql = "INSERT INTO lines(user, text, sequence) VALUES (:user, :text, :sequence)";
    for words in
        ["dead letter 1\n", "FOREIGN KEY", sql, "EVENTS, sequence 2, epoch 1", r#"{"text":"two","user":"bob"}"#]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let shown = chat.said(&["show", "3"]);
    assert!(shown.contains(r#"{"Trace-Id":"7"}"#) && shown.contains("payload, 2 bytes:\nff00\n"), "{shown}");
    let bytes = output(&mut chat.letters(&["show", "3", "--payload"])).stdout;
    assert_eq!(bytes, b"\xff\x00");
    let letter: Value = serde_json::from_str(&chat.said(&["show", "3", "--json"])).expect("JSON");
    assert_eq!(letter["headers"], json!({ "Trace-Id": "7" }));
    assert_eq!((&letter["payload"], &letter["sequence"]), (&json!({ "$blob": "/wA=" }), &json!(5)));

    assert_eq!(chat.said(&["drop", "--error", "foreign", "--dry-run"]), "would drop 2 dead letters\n");
    assert_eq!(chat.ids(&[]), [1, 2, 3]);
    // What is there is dropped, and what is not is named.
    let done = output(&mut chat.letters(&["drop", "3", "99", "98", "--json"]));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "{\"dropped\":1,\"missing\":[99,98]}\n");
    assert_eq!(
        stderr(&done),
        format!("catchment: there is no such dead letter: 99, 98; {} shows them\n", chat.list_command())
    );
    assert_eq!(done.status.code(), Some(1));
    refused(&mut chat.letters(&["drop", "3"]), 1, &["there is no such dead letter: 3"]);
    assert_eq!(chat.said(&["drop", "1", "--dry-run", "--json"]), "{\"missing\":[],\"would_drop\":1}\n");
    assert_eq!(chat.said(&["drop", "--all"]), "dropped 2 dead letters\n");
    chat.publish(&[("ann", "five"), ("bob", "six")]);
    chat.has("lines", 3);
    chat.has("catchment_dead_letters", 1);
    assert_eq!(chat.ids(&[]), [4], "numbers are not used again");
    assert!(collector.stop().success());
}

#[test]
fn a_retry_works_beside_a_running_collector() {
    let chat = Chat::new();
    let collector = chat.collector();
    collector.said("collecting");
    let mut lines = vec![("ann", "plain")];
    lines.extend([("bob", "two"), ("cid", "three")].repeat(150));
    chat.publish(&lines);
    chat.has("catchment_dead_letters", 300);
    let recorded = "SELECT DISTINCT id || ' ' || recorded_us FROM catchment_dead_letters WHERE id % 100 = 2";
    let before = chat.texts(recorded);
    chat.mend("INSERT INTO users VALUES ('bob')");

    let load = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let load: Vec<String> =
                (0..20_000).map(|n| json!({ "user": "ann", "text": n.to_string() }).to_string()).collect();
            chat.fixture.server.raw().publish_all("events.line", &load);
            load.len() as u64
        });
        assert_eq!(chat.said(&["retry", "--all", "--dry-run"]), "would retry 300 dead letters\n");
        let done = output(&mut chat.letters(&["retry", "--route", "lines"]));
        assert_eq!(String::from_utf8_lossy(&done.stdout), "stored 150 of 300 dead letters\n", "{}", stderr(&done));
        assert_eq!(done.status.code(), Some(1));
        let said = stderr(&done);
        let last = said.lines().last().expect("a line");
        assert!(last.starts_with("catchment: 150 dead letters stay: 2: FOREIGN KEY constraint failed; 4: "), "{said}");
        assert!(last.ends_with("; and others"), "{said}");
        load.join().expect("published")
    });
    assert_ne!(chat.texts(recorded), before, "those that stay say when they were tried");

    chat.mend("INSERT INTO users VALUES ('cid')");
    let said: Value = serde_json::from_str(&chat.said(&["retry", "--all", "--json"])).expect("JSON");
    assert_eq!(
        said,
        json!({ "stored": 150, "refused": 0, "passed_over": 0, "not_tried": 0, "interrupted": false, "reasons": [], "missing": [] })
    );
    chat.has("lines", load + 301);
    assert_eq!(chat.ids(&[]), [0; 0]);
    // Each line once, with the sequence it had in the stream.
    let twice = "SELECT count(*) || '' FROM (SELECT 1 FROM lines GROUP BY sequence HAVING count(*) > 1)";
    assert_eq!(chat.texts(twice), ["0"]);
    let retried = "SELECT group_concat(DISTINCT text) FROM (SELECT text FROM lines WHERE sequence BETWEEN 2 AND 301 ORDER BY sequence)";
    assert_eq!(chat.texts(retried), ["two,three"]);
    assert!(collector.stop().success());
}

#[test]
fn an_interrupted_retry_says_what_it_did() {
    let chat = Chat::new();
    chat.drain();
    chat.mend(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000)
         INSERT INTO catchment_dead_letters(stream, epoch, sequence, published_us, subject, payload, error, recorded_us)
         SELECT 'EVENTS', 1, x, 1, 'events.line', json_object('user', iif(x % 2, 'ann', 'bob'), 'text', '' || x), 'old', 1 FROM n;
         CREATE TRIGGER slow AFTER INSERT ON lines BEGIN
             SELECT count(*) FROM (WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000) SELECT x FROM n);
         END;",
    );
    let count =
        |sql: &str| chat.texts(&format!("SELECT count(*) || '' FROM {sql}"))[0].parse::<u64>().expect("a count");
    for (name, status, arguments) in
        [("INT", 130, &["retry", "--all"][..]), ("TERM", 143, &["retry", "--all", "--json"])]
    {
        let (letters, lines) = (count("catchment_dead_letters"), count("lines"));
        let mut command = chat.letters(arguments);
        let retry = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("catchment starts");
        eventually("it to store some", || (count("lines") > lines).then_some(()));
        signal(retry.id(), name);
        let done = retry.wait_with_output().expect("ends");
        assert_eq!(done.status.code(), Some(status), "{}", stderr(&done));
        let stored = count("lines") - lines;
        let said = stderr(&done);
        let last = said.lines().last().expect("a line");
        assert!(last.starts_with("catchment: interrupted: of ") && last.ends_with(" not tried"), "{said}");
        if status == 143 {
            let said: Value = serde_json::from_slice(&done.stdout).expect("JSON");
            assert_eq!((&said["stored"], &said["interrupted"]), (&json!(stored), &json!(true)), "{said}");
            let kept = said["not_tried"].as_u64().expect("a count") + said["refused"].as_u64().expect("a count");
            assert_eq!((kept, kept + stored), (count("catchment_dead_letters"), letters));
        } else {
            assert!(done.stdout.is_empty());
        }
    }
}

#[test]
fn two_retries_at_once_and_kills_store_each_letter_once() {
    let mut chance = Chance::new();
    let chat = Chat::new();
    chat.drain();
    let payload = "'{\"user\":\"' || iif(x % 50 = 0, 'nobody', 'ann') || '\",\"text\":\"' || x || '\"}'";
    chat.mend(&format!(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000)
         INSERT INTO catchment_dead_letters(stream, epoch, sequence, published_us, subject, payload, error, recorded_us)
         SELECT 'EVENTS', 1, x, 1, 'events.line', {payload}, 'old', 1 FROM n"
    ));
    let retry = || {
        let mut command = chat.letters(&["retry", "--error", "old"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("catchment starts")
    };
    let count =
        |sql: &str| chat.texts(&format!("SELECT count(*) || '' FROM {sql}"))[0].parse::<u64>().expect("a count");
    let mut kills = 0;
    while count("catchment_dead_letters WHERE error = 'old'") > 0 {
        let (mut one, mut other) = (retry(), retry());
        let further = count("catchment_dead_letters WHERE error = 'old'").saturating_sub(chance.up_to(2_000));
        eventually("it to get further", || {
            let ended =
                one.try_wait().expect("can be asked").is_some() && other.try_wait().expect("can be asked").is_some();
            (ended || count("catchment_dead_letters WHERE error = 'old'") <= further).then_some(())
        });
        for retry in [&mut one, &mut other] {
            kills += u32::from(retry.try_wait().expect("can be asked").is_none());
            let _ = retry.kill();
            retry.wait().expect("ends");
        }
        assert_eq!(count("lines") + count("catchment_dead_letters"), 20_000, "nothing is lost, nothing is there twice");
    }
    assert!(kills > 0, "none was killed");
    assert_eq!((count("lines"), count("(SELECT DISTINCT sequence FROM lines)")), (19_600, 19_600));
    assert_eq!(count("catchment_dead_letters WHERE error LIKE 'FOREIGN KEY%'"), 400);
}

#[test]
fn an_export_is_published_again_byte_by_byte() {
    let chat = Chat::new();
    let payloads: [&[u8]; 4] = [b"not JSON \"\\ \x01\n", b"\xff\xfe\x00", b"", "gr\u{fc}\u{df}e".as_bytes()];
    let headers: [Option<&[u8]>; 4] = [
        None,
        Some(b"NATS/1.0\r\nA: 1\r\nA: 2\r\nB: x y\r\n\r\n"),
        Some(b"NATS/1.0\r\nNats-Msg-Id: 17\r\nNats-Expected-Stream: EVENTS\r\n\r\n"),
        None,
    ];
    let mut raw = chat.fixture.server.raw();
    for (payload, headers) in payloads.iter().zip(headers) {
        raw.publish("events.line", headers, payload);
    }
    chat.drain();
    let export = output(&mut chat.letters(&["export", "--route", "lines"]));
    assert!(export.status.success(), "{}", stderr(&export));
    assert_eq!(String::from_utf8_lossy(&export.stdout).lines().count(), 4);

    // Into another stream, whose collector knows no routes.
    chat.fixture.server.make_stream("OTHER", &["other.>"]);
    let elsewhere = String::from_utf8(export.stdout).expect("UTF-8").replace("events.line", "other.line");
    let mut publish = catchment();
    publish.args(["publish", "--events", "-H", "From: export", "--server", &chat.fixture.server.url()]);
    results(fed(&mut publish, elsewhere));
    let database = chat.fixture.folder.path().join("other.db");
    let mut drain = crate::support::collector::run(&chat.fixture.server.url(), &database);
    let drained = output(drain.args(["--drain", "--stream", "OTHER"]).env("CATCHMENT_BROKER__SUBJECTS", "other.>"));
    assert!(drained.status.success(), "{}", stderr(&drained));
    let connection = oracle::open(&database);
    let mut statement =
        connection.prepare("SELECT CAST(payload AS BLOB), headers FROM events ORDER BY id").expect("SQL");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("runs");
    let rows: Vec<(Vec<u8>, String)> = rows.collect::<Result<_, _>>().expect("rows");
    assert_eq!(rows.iter().map(|(payload, _)| payload.as_slice()).collect::<Vec<_>>(), payloads);
    let headers: Vec<Value> = rows.iter().map(|(_, headers)| serde_json::from_str(headers).expect("JSON")).collect();
    // The client tells values of one name in any order.
    assert!(
        [json!(["1", "2"]), json!(["2", "1"])].contains(&headers[1]["A"]) && headers[1]["B"] == "x y",
        "{headers:?}"
    );
    assert_eq!((&headers[2]["Nats-Msg-Id"], &headers[2]["Nats-Expected-Stream"]), (&json!("17"), &Value::Null));
    assert!(headers.iter().all(|headers| headers["From"] == "export"), "{headers:?}");

    // And what tail prints.
    let tail = output(catchment().args(["tail", "--json", "--no-follow", "--database"]).arg(&database));
    let file = chat.fixture.folder.path().join("tail.ndjson");
    std::fs::write(&file, tail.stdout).expect("writes");
    let mut publish = catchment();
    publish.args(["publish", "--events", "--json", "--server", &chat.fixture.server.url(), "--file"]).arg(&file);
    let published = output(&mut publish);
    assert!(published.status.success(), "{}", stderr(&published));
    assert_eq!(serde_json::from_slice::<Value>(&published.stdout).expect("JSON")["published"], 4);
}

#[test]
fn a_line_that_is_no_event_ends_publishing_with_its_number() {
    let chat = Chat::new();
    let file = chat.fixture.folder.path().join("in.ndjson");
    let lines = "{\"subject\":\"events.a\",\"payload\":{\"n\":1.50}}\n\n{\"subject\":\"events.a\",\"payload\":null}\nhello\n{\"subject\":\"events.a\"}\n";
    std::fs::write(&file, lines).expect("writes");
    let mut publish = catchment();
    publish.args(["publish", "--events", "--server", &chat.fixture.server.url(), "--file"]).arg(&file);
    refused(&mut publish, 1, &["line 4: does not look like {\"subject\"", "of 2 events before it, 2 are stored"]);
    assert_eq!(chat.fixture.server.last_sequence("EVENTS"), 2);
    for arguments in [&["publish"][..], &["publish", "--events", "events.a"], &["publish", "--events", "--count", "3"]]
    {
        let done = output(catchment().args(arguments));
        assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
    }
}

#[test]
fn a_retry_may_leave_out_unreadable_headers() {
    let chat = Chat::new();
    chat.publish(&[("ann", "first")]);
    let line = br#"{"user":"ann","text":"behind bad headers"}"#;
    chat.fixture.server.raw().publish("events.line", Some(BREAKING[0]), line);
    chat.drain();
    let export: Value = serde_json::from_str(&chat.said(&["export"])).expect("JSON");
    assert_eq!(export["raw_headers"], json!({ "$blob": "TkFUUy8xLjANCkE6IP/+DQoNCg==" }));
    let mut kept = chat.letters(&["retry", "--all"]);
    let done = output(&mut kept);
    assert_eq!((done.status.code(), &*done.stdout), (Some(1), &b"stored 0 of 1 dead letter\n"[..]));
    assert!(
        stderr(&done).contains("1 dead letter stays: 1: its headers cannot be read; retry it with --without-headers"),
        "{}",
        stderr(&done)
    );
    assert_eq!(chat.said(&["retry", "1", "--without-headers"]), "stored 1 of 1 dead letter\n");
    assert_eq!(chat.stored(), ["first", "behind bad headers"]);
}

#[test]
fn a_mistake_is_refused_and_changes_nothing() {
    let chat = Chat::new();
    chat.publish(&[("bob", "one")]);
    chat.drain();
    for arguments in [&["drop"][..], &["retry"], &["show"], &["drop", "--limit", "5"]] {
        refused(&mut chat.letters(arguments), 2, &["select dead letters", "--all"]);
    }
    for arguments in [
        &["drop", "--all", "1"][..],
        &["retry", "--all", "--subject", "a"],
        &["list", "--since", "soon"],
        &["list", "--subject", "a..b"],
        &["drop", "--error", ""],
        &["drop", "--route", ""],
        &["drop", "one"],
    ] {
        let done = output(&mut chat.letters(arguments));
        assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
    }
    for command in ["show", "retry", "drop", "export", "list"] {
        refused(&mut chat.letters(&[command, "7"]), 1, &["there is no such dead letter: 7"]);
        refused(&mut chat.letters(&[command, "1", "--route", "other"]), 1, &["there is no such dead letter: 1"]);
    }
    for (command, printed) in [("show", "dead letter 1\n"), ("export", "{\"id\":1,"), ("list", "FOREIGN KEY")] {
        let done = output(&mut chat.letters(&[command, "1", "7"]));
        assert!(String::from_utf8_lossy(&done.stdout).contains(printed), "{command}");
        let shows = format!("there is no such dead letter: 7; {} shows them\n", chat.list_command());
        assert!(stderr(&done).ends_with(&shows), "{}", stderr(&done));
        assert_eq!(done.status.code(), Some(1));
    }
    assert_eq!(chat.ids(&[]), [1]);

    let other = chat.fixture.folder.path().join("other.db");
    for arguments in [&["list"][..], &["drop", "--all"], &["retry", "--all"], &["export"]] {
        let mut command = catchment();
        command.arg("dead-letters").args(arguments).arg("--database").arg(&other);
        refused(&mut command, 1, &["other.db", "no such file"]);
    }
    assert!(!other.exists());
    Connection::open(&other).and_then(|other| other.execute_batch("CREATE TABLE t(x)")).expect("a database");
    let mut command = catchment();
    command.args(["dead-letters", "retry", "--all", "--database"]).arg(&other);
    refused(&mut command, 1, &["other.db", "it has no tables of catchment"]);

    let config = std::fs::read_to_string(chat.config()).expect("reads").replace("INTO lines", "INTO liens");
    std::fs::write(chat.config(), config).expect("writes");
    refused(&mut chat.letters(&["retry", "--all"]), 2, &["route lines", "no such table: liens"]);
    assert_eq!(chat.ids(&[]), [1]);
}

#[test]
fn a_program_retries_with_a_prefix_in_its_routes() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("1_lines.sql"), "CREATE TABLE lines(text TEXT NOT NULL)").expect("writes");
    let mut config = Config::default();
    config.prefix = Some("chat".into());
    config.broker.subjects = vec!["{prefix}.>".into()];
    config.database.path = folder.path().join("a.db");
    config.database.migrations = Some(folder.path().into());
    let mut recorder = DirectRecorderConfig::default();
    recorder.database = config.database.clone();
    recorder.routes = vec![RouteConfig::new("chat.line", ["INSERT INTO lines(text) VALUES (:text)"])];
    let recorder = DirectRecorder::open(recorder).expect("opens");
    recorder.record(Event::new("chat.line", "{}")).expect("room");
    recorder.close(Duration::from_secs(10)).expect("in time");
    let lines = "INSERT INTO lines(text) VALUES (coalesce(:text, 'none'))";
    config.routes = vec![RouteConfig::new("{prefix}.line", [lines])];
    let retry = |config: &Config| {
        dead_letters::retry(config, &Selection::default(), UnreadableHeaders::Keep, |_| ControlFlow::Continue(()))
    };
    assert_eq!(retry(&config).expect("the database is well").stored, 1);
    config.prefix = None;
    let refused = retry(&config).expect_err("no prefix").to_string();
    assert!(refused.contains("needs the setting prefix"), "{refused}");
}
