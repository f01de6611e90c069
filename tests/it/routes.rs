//! Routes: what events of a stream, or of an application, do to tables of the user's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use catchment::config::{RouteConfig, Unmatched};
use catchment::record::{CommitMode, FailureReason};
use catchment::{DirectRecorder, DirectRecorderConfig, Error, Event, Recorder};
use rusqlite::Connection;
use serde_json::json;

use crate::support::chance::Chance;
use crate::support::collector::{Collector, output, stderr};
use crate::support::fixture::Fixture;
use crate::support::refusal::refused;
use crate::support::{eventually, oracle, with};

const TABLES: &str = "
    CREATE TABLE lines(id INTEGER PRIMARY KEY, at INTEGER, name TEXT NOT NULL, text TEXT NOT NULL) STRICT;
    CREATE TABLE users(name TEXT PRIMARY KEY, lines INTEGER NOT NULL, last TEXT NOT NULL) STRICT;
    CREATE TABLE words(word TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT;
    CREATE TRIGGER words AFTER INSERT ON lines BEGIN
        INSERT INTO words VALUES (NEW.text, 1) ON CONFLICT(word) DO UPDATE SET count = count + 1;
    END;
";

const ADD_LINE: &str = "INSERT INTO lines(at, name, text) VALUES (:sequence, :name, :text)";
const COUNT_LINE: &str = "INSERT INTO users VALUES (:name, 1, :text)
    ON CONFLICT(name) DO UPDATE SET lines = lines + 1, last = excluded.last";
const GREETING: &str =
    "INSERT INTO lines(at, name, text) VALUES (:sequence, :token_3, coalesce(:header_said, 'hello'))";

/// A fixture whose collector has these settings, and a database with the tables.
struct Chat {
    fixture: Fixture,
}

impl Chat {
    fn new(settings: &str) -> Self {
        let chat = Self { fixture: Fixture::new() };
        chat.settings(settings);
        chat.edit(TABLES);
        chat
    }

    /// With a line's two statements, and a greeting that takes what is left of the subject.
    fn usual() -> Self {
        Self::new(&routes())
    }

    fn settings(&self, settings: &str) {
        std::fs::write(self.fixture.folder.path().join("chat.toml"), settings).expect("writes");
    }

    fn edit(&self, sql: &str) {
        let connection = Connection::open(self.fixture.database()).expect("opens");
        connection.busy_timeout(Duration::from_secs(10)).expect("sets");
        connection.execute_batch(sql).expect("runs");
    }

    fn run(&self) -> Command {
        let mut command = self.fixture.run();
        command.arg("--config").arg(self.fixture.folder.path().join("chat.toml"));
        command
    }

    fn log(&self) -> PathBuf {
        self.fixture.folder.path().join("collector.log")
    }

    fn drain(&self) -> String {
        let done = output(self.run().arg("--drain"));
        assert!(done.status.success(), "{}", stderr(&done));
        stderr(&done)
    }

    fn texts(&self, sql: &str) -> Vec<String> {
        texts(&self.fixture.database(), sql)
    }

    fn lines(&self) -> Vec<String> {
        self.texts("SELECT coalesce(at, '-') || ' ' || name || ': ' || text FROM lines ORDER BY id")
    }

    fn users(&self) -> Vec<String> {
        self.texts("SELECT name || ' ' || lines || ' ' || last FROM users ORDER BY name")
    }
}

fn texts(database: &Path, sql: &str) -> Vec<String> {
    let connection = oracle::open(database);
    let mut statement = connection.prepare(sql).expect("SQL");
    let rows = statement.query_map([], |row| row.get(0)).expect("runs");
    rows.collect::<Result<_, _>>().expect("text")
}

fn routes() -> String {
    format!(
        "[[route]]\nname = \"line\"\nsubject = \"events.chat.log\"\nsql = ['{ADD_LINE}', '''{COUNT_LINE}''']\n\
         [[route]]\nname = \"greeting\"\nsubject = \"events.chat.*\"\nsql = \"{GREETING}\"\n"
    )
}

fn line(name: &str, text: &str) -> String {
    json!({ "name": name, "text": text }).to_string()
}

#[test]
fn an_event_runs_its_first_route_and_the_triggers() {
    let chat = Chat::usual();
    let mut raw = chat.fixture.server.raw();
    raw.publish("events.chat.log", None, line("ann", "hi"));
    raw.publish("events.chat.eve", None, "what it says is not asked for");
    raw.publish("events.chat.eve", Some(b"NATS/1.0\r\nSaid: good day\r\n\r\n"), "");
    raw.publish("events.other", None, "kept as it is");
    let packed = rmp_serde::to_vec_named(&json!({ "name": "ann", "text": "hi" })).expect("MessagePack");
    raw.publish("events.chat.log", Some(b"NATS/1.0\r\nContent-Type: application/msgpack\r\n\r\n"), packed);
    raw.publish("events.chat.log", None, line("bob", "ho"));
    chat.drain();
    assert_eq!(chat.lines(), ["1 ann: hi", "2 eve: hello", "3 eve: good day", "5 ann: hi", "6 bob: ho"]);
    assert_eq!(chat.users(), ["ann 2 hi", "bob 1 ho"]);
    assert_eq!(
        chat.texts("SELECT word || ' ' || count FROM words ORDER BY word"),
        ["good day 1", "hello 1", "hi 2", "ho 1"]
    );
    assert_eq!(oracle::payloads(&chat.fixture.database()), ["kept as it is"]);
}

#[test]
fn what_no_route_takes_is_dropped_and_counted_if_it_is_to_be() {
    let chat = Chat::new(&format!("unmatched = \"drop\"\n{}", routes()));
    let mut raw = chat.fixture.server.raw();
    for subject in ["events.other", "events.chat.log", "events.chat.log.more"] {
        raw.publish(subject, None, line("ann", "hi"));
    }
    let log = chat.drain();
    assert!(
        log.contains("committed 3 events") && log.contains("2 of them dropped because no route takes them"),
        "{log}"
    );
    assert_eq!((chat.lines(), oracle::count(&chat.fixture.database())), (vec!["2 ann: hi".into()], 0));
    assert!(chat.drain().contains("committed 0 events"), "what was dropped is not read again");
}

#[test]
fn sql_that_cannot_work_is_refused_at_the_start_with_its_place() {
    let chat = Chat::usual();
    for (sql, said) in [
        ("INSERT INTO lines(name) VALUES (:name) WHERE", "near \"WHERE\": syntax error (at 1:40, \"WHERE\")"),
        ("UPDATE users SET lines = 0 WHERE nam = :name", "no such column: nam (at 1:34, \"nam = :name\")"),
        ("DELETE FROM nobody", "no such table: nobody"),
        ("DELETE FROM users WHERE name = ?", "a parameter ? without a name"),
        ("DELETE FROM users; DELETE FROM lines", "it is several statements"),
        ("SELECT name FROM users", "it writes nothing"),
        ("COMMIT", "it begins or ends a transaction"),
        ("DELETE FROM catchment_ledger", "it writes catchment_ledger, which is catchment's own"),
    ] {
        chat.settings(&format!("[[route]]\nname = \"x\"\nsubject = \"events.>\"\nsql = ['{ADD_LINE}', '{sql}']\n"));
        refused(&mut chat.run(), 2, &["a.db: ", ":1: route x, statement 2: ", said]);
    }
    chat.settings("[[route]]\nsubject = \"events.>\"\nsql = \"DELETE FROM users\"\nbind = { city = \"/city\" }\n");
    refused(&mut chat.run(), 2, &["route events.>: bind.city is used by no statement"]);
    assert_eq!(oracle::count(&chat.fixture.database()), 0);
}

#[test]
fn a_dead_letter_names_its_route_and_statement() {
    let chat = Chat::usual();
    chat.edit("CREATE TRIGGER short BEFORE INSERT ON users BEGIN SELECT raise(ROLLBACK, 'too long') WHERE length(NEW.name) > 9; END");
    let mut raw = chat.fixture.server.raw();
    for payload in
        [&line("ann", "1"), "{\"name\": ", &line("someone else", "2"), "{\"name\": \"ann\"}", &line("ann", "3")]
    {
        raw.send("events.chat.log", Some(b"NATS/1.0\r\nTrace-Id: 7\r\n\r\n"), payload);
    }
    raw.finish();
    let log = chat.drain();
    assert!(log.contains("3 of them as dead letters"), "{log}");
    assert_eq!((chat.lines(), chat.users()), (vec!["1 ann: 1".into(), "5 ann: 3".into()], vec!["ann 2 3".into()]));
    let sql = "SELECT concat_ws(' | ', sequence, route, coalesce(statement, '-'), error, headers) FROM catchment_dead_letters ORDER BY id";
    let headers = r#"{"Trace-Id":"7"}"#;
    let dead = chat.texts(sql);
    assert!(dead[0].starts_with("2 | line | - | the payload cannot be read as JSON"), "{}", dead[0]);
    assert_eq!(dead[1], format!("3 | line | {COUNT_LINE} | too long | {headers}"));
    assert_eq!(dead[2], format!("4 | line | {ADD_LINE} | NOT NULL constraint failed: lines.text | {headers}"));
}

#[test]
fn a_dropped_table_stops_the_collector_without_loss() {
    let chat = Chat::usual();
    let mut collector = Collector::start(chat.run(), &chat.log());
    let mut raw = chat.fixture.server.raw();
    raw.publish("events.chat.log", None, line("ann", "1"));
    eventually("the first line", || (chat.lines().len() == 1).then_some(()));
    chat.edit("ALTER TABLE users RENAME TO people");
    raw.publish("events.chat.log", None, line("ann", "2"));
    assert_eq!(collector.wait().code(), Some(1));
    let log = collector.log();
    assert!(log.contains("a.db: route line, statement 2: no such table: users"), "{log}");
    assert!(texts(&chat.fixture.database(), "SELECT error FROM catchment_dead_letters").is_empty());
    chat.edit("ALTER TABLE people RENAME TO users");
    chat.drain();
    assert_eq!((chat.lines(), chat.users()), (vec!["1 ann: 1".into(), "2 ann: 2".into()], vec!["ann 2 2".into()]));
}

#[test]
fn a_trigger_made_while_running_cannot_touch_the_ledger() {
    let chat = Chat::usual();
    let mut collector = Collector::start(chat.run(), &chat.log());
    let mut raw = chat.fixture.server.raw();
    raw.publish("events.chat.log", None, line("ann", "1"));
    eventually("the first line", || (chat.lines().len() == 1).then_some(()));
    chat.edit("CREATE TRIGGER evil AFTER INSERT ON words BEGIN DELETE FROM catchment_ledger; END");
    raw.publish("events.chat.log", None, line("ann", "2"));
    assert_eq!(collector.wait().code(), Some(1));
    let log = collector.log();
    let said = "route line, statement 1: it writes catchment_ledger, which is catchment's own, in trigger or view evil";
    assert!(log.contains(said), "{log}");
    assert_eq!(chat.texts("SELECT CAST(sequence AS TEXT) FROM catchment_ledger"), ["1"]);
}

/// Batches of a few events, so that writers overtake each other wherever they may.
fn small_batches(writers: usize) -> String {
    format!("[database]\nwriters = {writers}\nsynchronous = \"normal\"\n[batch]\nmax_events = 20\n")
}

#[test]
fn several_writers_bind_side_by_side_and_commit_in_order() {
    const EVENTS: usize = 20_000;
    let chat = Chat::new(&(small_batches(3) + &routes()));
    let mut raw = chat.fixture.server.raw();
    for n in 1..=EVENTS {
        // Payloads of very different length take a writer very different times.
        let text = if n % 100 == 0 { "long ".repeat(2_000) } else { n.to_string() };
        raw.send("events.chat.log", None, line("ann", &text));
    }
    raw.finish();
    chat.drain();
    let disorder = "SELECT CAST(count(*) AS TEXT) FROM lines WHERE at <> id";
    assert_eq!(chat.texts(disorder), ["0"]);
    assert_eq!(chat.texts("SELECT name || ' ' || lines FROM users"), [format!("ann {EVENTS}")]);
    assert_eq!(chat.lines().len(), EVENTS);
}

#[test]
fn counts_stay_exact_through_kills() {
    const EVENTS: usize = 30_000;
    let mut chance = Chance::new();
    let chat = Chat::new(&(small_batches(2) + &routes()));
    let mut raw = chat.fixture.server.raw();
    for n in 0..EVENTS {
        let name = ["ann", "bob", "eve"][n % 3];
        // Some fail at their first statement, some at their second, and some cannot be read.
        let payload = match n % 1_000 {
            7 => "{".into(),
            8 => json!({ "name": name }).to_string(),
            9 => line("", "nameless"),
            _ => line(name, "hi"),
        };
        raw.send("events.chat.log", None, payload);
    }
    raw.finish();
    chat.edit(
        "CREATE TRIGGER named BEFORE INSERT ON users BEGIN SELECT raise(ABORT, 'nameless') WHERE NEW.name = ''; END",
    );
    let stored = || chat.texts("SELECT CAST(count(*) AS TEXT) FROM lines")[0].parse::<usize>().expect("a number");
    for _ in 0..4 {
        let before = stored();
        let collector = Collector::start(chat.run(), &chat.log());
        eventually("some lines more", || (stored() > before).then_some(()));
        std::thread::sleep(chance.time(Duration::from_millis(60)));
        collector.kill();
    }
    chat.drain();
    let dead = 3 * EVENTS / 1_000;
    assert_eq!(stored(), EVENTS - dead);
    assert_eq!(chat.texts("SELECT CAST(sum(lines) AS TEXT) FROM users"), [(EVENTS - dead).to_string()]);
    assert_eq!(chat.texts("SELECT CAST(count(DISTINCT at) AS TEXT) FROM lines"), [(EVENTS - dead).to_string()]);
    assert_eq!(
        chat.texts("SELECT CAST(count(DISTINCT sequence) AS TEXT) FROM catchment_dead_letters"),
        [dead.to_string()]
    );
    assert_eq!(chat.texts("SELECT CAST(count(*) AS TEXT) FROM catchment_dead_letters"), [dead.to_string()]);
}

fn direct(database: &Path, commit: CommitMode, unmatched: Unmatched) -> DirectRecorderConfig {
    let route = |name: &str, subject: &str, sql: &[&str]| {
        with(RouteConfig::new(subject, sql.iter().copied()), |route| route.name = Some(name.into()))
    };
    let routes = vec![
        route("line", "events.chat.log", &[ADD_LINE, COUNT_LINE]),
        route("greeting", "events.chat.*", &[GREETING]),
    ];
    let mut config = DirectRecorderConfig::default();
    (config.commit, config.routes, config.unmatched) = (commit, routes, unmatched);
    database.clone_into(&mut config.database.path);
    config
}

#[test]
fn an_application_that_records_directly_has_the_same_routes() {
    for commit in [CommitMode::PerEvent, CommitMode::Grouped] {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        Connection::open(&database).expect("opens").execute_batch(TABLES).expect("tables");
        let recorder = DirectRecorder::open(direct(&database, commit, Unmatched::Store)).expect("opens");
        let packed = rmp_serde::to_vec_named(&json!({ "name": "ann", "text": "hi" })).expect("MessagePack");
        for event in [
            Event::new("events.chat.log", line("ann", "hi")),
            Event::new("events.chat.eve", "").header("Said", "good day"),
            Event::new("events.chat.log", "{\"name\": \"ann\"}"),
            Event::new("events.chat.log", packed).header("Content-Type", "application/msgpack"),
            Event::new("other", "as it is"),
        ] {
            recorder.record(event).expect("taken");
        }
        recorder.flush(Duration::from_secs(20)).expect("committed");
        assert_eq!(recorder.dead_letters(), 1);
        drop(recorder);
        let lines = texts(&database, "SELECT coalesce(at, '-') || ' ' || name || ': ' || text FROM lines ORDER BY id");
        assert_eq!(lines, ["- ann: hi", "- eve: good day", "- ann: hi"], "{commit:?}");
        assert_eq!(texts(&database, "SELECT name || ' ' || lines FROM users"), ["ann 2"]);
        assert_eq!(oracle::payloads(&database), ["as it is"]);
        let dead = texts(&database, "SELECT route || ' | ' || statement || ' | ' || error FROM catchment_dead_letters");
        assert_eq!(dead, [format!("line | {ADD_LINE} | NOT NULL constraint failed: lines.text")]);

        let recorder = DirectRecorder::open(direct(&database, commit, Unmatched::Drop)).expect("opens");
        recorder.record(Event::new("other", "dropped")).expect("taken").wait(Duration::from_secs(20)).expect("settled");
        assert_eq!((recorder.unmatched_dropped(), recorder.dead_letters()), (1, 0));
        drop(recorder);
        assert_eq!(oracle::payloads(&database), ["as it is"]);
    }
}

#[test]
fn a_direct_recorder_says_what_is_wrong_with_a_route() {
    for commit in [CommitMode::PerEvent, CommitMode::Grouped] {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        let refused = DirectRecorder::open(direct(&database, commit, Unmatched::Store)).expect_err("there is no table");
        assert!(refused.to_string().ends_with("a.db: route line, statement 1: no such table: lines"), "{refused}");
        let mut config = direct(&database, commit, Unmatched::Store);
        config.routes[0].subject = "{prefix}.log".into();
        let refused = DirectRecorder::open(config).expect_err("there is no prefix");
        assert!(matches!(refused, Error::Config { .. }), "{refused}");
    }
    // Per event, a table that goes gives the event back; another event may do.
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let connection = Connection::open(&database).expect("opens");
    connection.execute_batch(TABLES).expect("tables");
    let recorder = DirectRecorder::open(direct(&database, CommitMode::PerEvent, Unmatched::Store)).expect("opens");
    connection.execute_batch("ALTER TABLE users RENAME TO people").expect("renames");
    let refused = recorder.record(Event::new("events.chat.log", line("ann", "hi"))).expect_err("no table, no commit");
    let FailureReason::Database { detail: said, .. } = &refused.reason else { panic!("{refused}") };
    assert!(said.contains("route line, statement 2: no such table: users"), "{said}");
    recorder.record(Event::new("events.chat.eve", "")).expect("another route's");
    assert_eq!(texts(&database, "SELECT name FROM lines"), ["eve"]);
}
