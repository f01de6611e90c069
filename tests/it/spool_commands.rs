//! `catchment forward` and `catchment spool`, and what a program in another language sees of them.

mod edges;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use catchment::{DirectRecorder, Event, Recorder};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::chance::Chance;
use crate::support::collector::{catchment, drain, output, piped, printed, results, stderr};
use crate::support::load::payload;
use crate::support::server::Server;
use crate::support::{eventually, oracle};

const LONG: Duration = Duration::from_secs(60);

struct Fixture {
    folder: tempfile::TempDir,
    server: Server,
}

impl Fixture {
    fn new() -> Self {
        Self::with_stream(&json!({ "duplicate_window": 100_000_000 }))
    }

    fn with_stream(settings: &Value) -> Self {
        let (folder, server) = Server::in_new_folder();
        server.make_stream_with("EVENTS", &["events.>"], settings);
        Self { folder, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn app(&self) -> Connection {
        let connection = Connection::open(self.path("app.db")).expect("opens");
        connection.busy_timeout(LONG).expect("sets");
        connection
    }

    fn forward(&self, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.arg("forward").args(["--server", &self.server.url(), "--database"]).arg(self.path("app.db"));
        command.args(arguments);
        command
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = results(output(self.forward(arguments).arg("--json")));
        serde_json::from_str(&text).expect("JSON")
    }

    fn collected(&self) -> Vec<String> {
        let database = self.path("a.db");
        drain(&self.server.url(), &database);
        oracle::payloads(&database)
    }
}

#[test]
fn the_rows_of_a_direct_recorder_are_forwarded_while_it_records() {
    let fixture = Fixture::new();
    let recorder = DirectRecorder::create(fixture.path("app.db")).expect("opens");
    let record = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            recorder.record(Event::new("events.a", payload(number)).header("A", "1")).expect("taken");
        }
        recorder.flush(LONG).expect("committed");
    };
    record(0..500);
    let said = printed(&mut fixture.forward(&["--once"]));
    assert_eq!(said, "table events: 500 rows forwarded, up to id 500; 0 waiting\n");
    record(500..520);
    let status = fixture.json(&["--status"]);
    let expected = json!({ "forwarded": 500, "given_up": 0, "waiting": 20, "position": 500, "error": null });
    let of = |key: &str| (status[key].clone(), expected[key].clone());
    assert!(
        ["forwarded", "given_up", "waiting", "position", "error"].iter().all(|key| of(key).0 == of(key).1),
        "{status}"
    );
    assert!(status["oldest_us"].is_u64(), "{status}");
    let mut child = piped(&mut fixture.forward(&[]));
    eventually("all events", || (fixture.server.last_sequence("EVENTS") == 520).then_some(()));
    record(520..530);
    eventually("all events", || (fixture.server.last_sequence("EVENTS") == 530).then_some(()));
    let second = output(&mut fixture.forward(&["--once"]));
    let refused = stderr(&second);
    assert!(refused.contains("app.db") && refused.contains("uses it already"), "{refused}");
    crate::support::collector::signal(child.id(), "TERM");
    assert!(child.wait().expect("ends").success());
    assert_eq!(fixture.collected(), (0..530).map(payload).collect::<Vec<_>>());
    let headers = oracle::texts(&fixture.path("a.db"), "SELECT DISTINCT headers FROM events");
    assert_eq!(headers, [r#"{"A":"1"}"#]);
}

#[test]
fn an_outbox_is_forwarded_once_through_kills_of_the_command_and_the_broker() {
    let mut fixture = Fixture::new();
    let mut chance = Chance::new();
    let app = fixture.app();
    app.execute_batch(
        "CREATE TABLE outbox(id INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, payload TEXT NOT NULL)",
    )
    .expect("SQL");
    let mut number = 0;
    for round in 0..8 {
        let mut child = piped(&mut fixture.forward(&["--table", "outbox", "--delete", "--poll", "5ms"]));
        for _ in 0..20 {
            let transaction = app.unchecked_transaction().expect("begins");
            for _ in 0..chance.up_to(200) {
                let sql = "INSERT INTO outbox(subject, payload) VALUES ('events.a', ?)";
                transaction.execute(sql, [payload(number)]).expect("inserts");
                number += 1;
            }
            transaction.commit().expect("commits");
        }
        std::thread::sleep(chance.time(Duration::from_millis(300)));
        if round % 3 == 2 {
            fixture.server.kill();
        }
        child.kill().expect("kills");
        child.wait().expect("ends");
        if round % 3 == 2 {
            std::thread::sleep(Duration::from_millis(150));
            fixture.server.restart();
        }
    }
    let said = printed(&mut fixture.forward(&["--table", "outbox", "--delete", "--once"]));
    assert!(said.ends_with(&format!("up to id {number}; 0 waiting\n")), "{said}");
    let left: u64 = app.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).expect("a number");
    assert_eq!(left, 1, "the last row stays");
    assert_eq!(fixture.collected(), (0..number).map(payload).collect::<Vec<_>>());
    oracle::sound(&fixture.path("a.db"));
}

#[test]
fn rows_that_cannot_be_forwarded_are_given_up_and_the_rest_goes_on() {
    let fixture = Fixture::new();
    fixture
        .app()
        .execute_batch(
            "CREATE TABLE events(id INTEGER PRIMARY KEY, subject, payload);
             INSERT INTO events VALUES (1, 'events.a', 'one'), (2, 'no subject', 'two'), (3, 'nobody.a', 'three'),
                                       (4, 'events.a', 'four');",
        )
        .expect("SQL");
    // Something has to be stored after the refusal, to show that only that row is refused.
    let app = fixture.app();
    let (done, ended) = std::thread::scope(|scope| {
        let forward = scope.spawn(|| output(&mut fixture.forward(&["--once", "--json", "--give-up-after", "200ms"])));
        while !forward.is_finished() {
            std::thread::sleep(Duration::from_millis(100));
            let sql = "INSERT INTO events(subject, payload) SELECT 'events.b', 'more' WHERE (SELECT count(*) FROM events) < 60";
            app.execute(sql, []).expect("inserts");
        }
        let done = forward.join().expect("no panic");
        (serde_json::from_slice::<Value>(&done.stdout).expect("JSON"), done)
    });
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(done["given_up"], 2, "{done}");
    assert!(done["error"].as_str().expect("an error").contains("2 rows given up"), "{done}");
    let sql = "SELECT id || ' ' || error FROM catchment_forward_dead_letters ORDER BY id";
    let errors = oracle::texts(&fixture.path("app.db"), sql);
    assert!(errors[0].starts_with("2 ") && errors[1].starts_with("3 no stream takes"), "{errors:?}");
    let rows = fixture.collected();
    assert_eq!(rows[..2], ["one", "four"]);
}

#[test]
fn a_row_that_no_stream_takes_does_not_stop_rows_with_far_ids() {
    let fixture = Fixture::new();
    fixture.server.make_stream_with("SMALL", &["small.>"], &json!({ "max_msg_size": 100 }));
    fixture
        .app()
        .execute_batch(
            "CREATE TABLE events(id INTEGER PRIMARY KEY, subject, payload);
             INSERT INTO events VALUES (1, 'small.a', zeroblob(200)), (2, 'nobody.a', 'two'), (100000, 'events.a', 'far'),
                                       (200000, 'events.a', 'farther');",
        )
        .expect("SQL");
    let ended = output(&mut fixture.forward(&["--once", "--json", "--give-up-after", "200ms"]));
    let done: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    assert_eq!(ended.status.code(), Some(1), "{done}");
    let counts = ["forwarded", "given_up", "missed", "waiting", "position"].map(|key| done[key].clone());
    assert_eq!(counts, [2, 2, 0, 0, 200_000].map(Value::from), "{done}");
    let sql = "SELECT id || ' ' || error FROM catchment_forward_dead_letters ORDER BY id";
    let errors = oracle::texts(&fixture.path("app.db"), sql);
    assert!(errors[0].contains("message size exceeds maximum") && errors[1].contains("no stream takes"), "{errors:?}");
    assert_eq!(fixture.collected(), ["far", "farther"]);
    fixture.app().execute("INSERT INTO events VALUES (3, 'events.a', 'late')", []).expect("SQL");
    let said = output(&mut fixture.forward(&["--once", "--delete"]));
    assert!(stderr(&said).contains("has 1 row with an id up to 200000 that appeared after"), "{}", stderr(&said));
    assert_eq!(fixture.json(&["--status"])["missed"], 1);
    assert_eq!(oracle::texts(&fixture.path("app.db"), "SELECT payload FROM events WHERE id = 3"), ["late"]);
}

#[test]
fn without_a_broker_nothing_is_lost_and_the_reason_is_said() {
    let mut fixture = Fixture::new();
    fixture
        .app()
        .execute_batch(
            "CREATE TABLE events(id INTEGER PRIMARY KEY, subject, payload); INSERT INTO events VALUES (1, 'events.a', 'one')",
        )
        .expect("SQL");
    fixture.server.kill();
    let failed = output(fixture.forward(&["--once"]).args(["--timeout", "1s"]));
    let said = stderr(&failed);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("not all rows are forwarded") && said.contains("127.0.0.1"), "{said}");
    fixture.server.restart();
    assert_eq!(printed(&mut fixture.forward(&["--once"])), "table events: 1 row forwarded, up to id 1; 0 waiting\n");
    assert_eq!(fixture.collected(), ["one"]);
    let missing = output(&mut fixture.forward(&["--once", "--table", "orders"]));
    assert!(stderr(&missing).contains("it has no table orders; name the table with --table"), "{}", stderr(&missing));
}

#[test]
fn a_spool_that_is_none_is_not_made_by_a_look() {
    let fixture = Fixture::new();
    for action in ["status", "export", "drain", "retry"] {
        let mut command = catchment();
        command.args(["spool", action]).arg(fixture.path("none"));
        if action == "drain" {
            command.args(["--server", &fixture.server.url()]);
        }
        let refused = output(&mut command);
        assert_eq!(refused.status.code(), Some(1), "{action}");
        let said = stderr(&refused);
        assert!(said.contains("there is no such file") && !said.contains("--database"), "{action}: {said}");
        assert!(!fixture.path("none").exists() && !fixture.path("none.lock").exists(), "{action}");
    }
}
