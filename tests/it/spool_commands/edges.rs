//! An outbox whose table changes while it is forwarded, and after that.

use serde_json::{Value, json};

use super::Fixture;
use crate::support::collector::{Collector, output, piped, printed, run, signal, stderr};
use crate::support::{eventually, oracle};

const TABLE: &str = "CREATE TABLE events(id INTEGER PRIMARY KEY, subject, payload);";

fn with_table(sql: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.sql(&format!("{TABLE} {sql}"));
    fixture
}

impl Fixture {
    fn sql(&self, sql: &str) {
        self.app().execute_batch(sql).expect("SQL");
    }

    /// Forwards what is there. Returns what it says, and its exit status.
    fn once(&self, arguments: &[&str]) -> (Value, Option<i32>) {
        let done = output(self.forward(&["--once", "--json"]).args(arguments));
        (serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", stderr(&done))), done.status.code())
    }

    fn stored(&self, events: u64) {
        eventually("the events", || (self.server.last_sequence("EVENTS") == events).then_some(()));
    }
}

#[test]
fn columns_that_are_added_while_it_runs_are_used() {
    let fixture = with_table("INSERT INTO events VALUES (1, 'events.a', 'one')");
    let mut child = piped(&mut fixture.forward(&[]));
    fixture.stored(1);
    fixture.sql(
        "BEGIN; ALTER TABLE events ADD COLUMN headers; ALTER TABLE events ADD COLUMN stream;
         INSERT INTO events VALUES (2, 'events.a', 'two', '{\"A\":\"1\"}', NULL), (3, 'events.a', 'not sent', NULL, 'S'),
                                   (4, 'events.a', 'four', NULL, NULL); COMMIT",
    );
    fixture.stored(3);
    signal(child.id(), "TERM");
    assert!(child.wait().expect("ends").success());
    assert_eq!(fixture.collected(), ["one", "two", "four"]);
    let headers = oracle::texts(&fixture.path("a.db"), "SELECT headers FROM events WHERE headers IS NOT NULL");
    assert_eq!(headers, [r#"{"A":"1"}"#]);
}

#[test]
fn a_row_that_is_changed_after_it_was_forwarded_doubles_nothing() {
    for arguments in [&[][..], &["--delete"]] {
        let fixture = with_table("INSERT INTO events VALUES (1, 'events.a', 'one'), (2, 'events.a', 'two')");
        assert_eq!(fixture.once(arguments).0["forwarded"], 2);
        fixture.sql("UPDATE events SET payload = 'changed' WHERE id = 2");
        let changed = output(fixture.forward(&["--once"]).args(arguments));
        let said = stderr(&changed);
        assert!(changed.status.success() && said.contains("the content of row 2 was changed after it was"), "{said}");
        let mut child = piped(fixture.forward(&[]).args(arguments));
        fixture.sql("INSERT INTO events VALUES (3, 'events.a', 'three')");
        fixture.stored(3);
        fixture.sql(
            "UPDATE events SET payload = 'changed' WHERE id = 3; INSERT INTO events VALUES (4, 'events.a', 'four')",
        );
        fixture.stored(4);
        signal(child.id(), "TERM");
        assert!(child.wait().expect("ends").success());
        assert_eq!(fixture.collected(), ["one", "two", "three", "four"]);
    }
}

#[test]
fn a_row_that_is_repaired_while_it_is_sent_again_is_sent_as_it_is_then() {
    let fixture = with_table(
        "INSERT INTO events VALUES (1, 'nobody.a', 'one'), (2, 'nobody.b', 'gone'), (3, 'events.a', 'three')",
    );
    let mut child = piped(&mut fixture.forward(&["--give-up-after", "1h"]));
    fixture.stored(1);
    eventually("the refusals", || {
        let sql = "SELECT id FROM catchment_forward_refusals ORDER BY id";
        (oracle::texts(&fixture.path("app.db"), &format!("SELECT CAST(id AS TEXT) FROM ({sql})")).len() == 2)
            .then_some(())
    });
    fixture.sql(
        "UPDATE events SET subject = 'events.a', payload = 'repaired' WHERE id = 1; DELETE FROM events WHERE id = 2",
    );
    fixture.stored(2);
    eventually("the position", || (fixture.json(&["--status"])["position"] == 3).then_some(()));
    signal(child.id(), "TERM");
    assert!(child.wait().expect("ends").success());
    let status = fixture.json(&["--status"]);
    assert_eq!((&status["forwarded"], &status["given_up"]), (&json!(2), &json!(0)), "{status}");
    assert_eq!(fixture.collected(), ["three", "repaired"]);
}

#[test]
fn several_short_runs_give_a_row_up() {
    let fixture = with_table("INSERT INTO events VALUES (1, 'nobody.a', 'one'), (2, 'events.a', 'two')");
    let short = ["--timeout", "1s"];
    let (done, status) = fixture.once(&short);
    assert_eq!((status, &done["given_up"], &done["waiting"]), (Some(1), &json!(0), &json!(2)), "{done}");
    let (done, _) = fixture.once(&[&short[..], &["--give-up-after", "1ms"]].concat());
    assert_eq!((&done["given_up"], &done["forwarded"], &done["waiting"]), (&json!(1), &json!(1), &json!(0)), "{done}");
    let refusals = oracle::number(&fixture.path("app.db"), "SELECT count(*) FROM catchment_forward_refusals");
    assert_eq!((refusals, fixture.collected()), (0, vec!["two".to_owned()]));
}

#[test]
fn only_the_expected_stream_stores_rows() {
    let fixture = with_table("INSERT INTO events VALUES (1, 'other.a', 'astray'), (2, 'events.a', 'two')");
    fixture.server.make_stream("OTHER", &["other.>"]);
    let arguments = ["--stream", "EVENTS", "--give-up-after", "1ms", "--timeout", "2s"];
    // Row 2 may be stored before the refusal of row 1 arrives. Then row 1 waits until another row is stored after it.
    assert_eq!(fixture.once(&arguments).1, Some(1));
    fixture.sql("INSERT INTO events VALUES (3, 'events.a', 'three')");
    let (done, _) = fixture.once(&arguments);
    assert_eq!(done["waiting"], 0, "{done}");
    let why = oracle::texts(&fixture.path("app.db"), "SELECT error FROM catchment_forward_dead_letters");
    assert!(why[0].contains("another stream than EVENTS takes its subject"), "{why:?}");
    assert_eq!(
        (why.len(), fixture.server.messages("OTHER"), fixture.collected()),
        (1, 0, vec!["two".to_owned(), "three".to_owned()])
    );
}

#[test]
fn a_database_that_is_restored_while_it_is_forwarded_ends_the_command_and_loses_no_row() {
    let fixture = with_table("INSERT INTO events VALUES (1, 'events.a', 'one'), (2, 'events.a', 'two')");
    assert_eq!(fixture.once(&[]).0["position"], 2);
    let backup = fixture.path("backup.db");
    fixture.app().execute("VACUUM INTO ?", [backup.to_str().expect("UTF-8")]).expect("copies");
    let mut child = piped(&mut fixture.forward(&[]));
    fixture.sql("INSERT INTO events VALUES (3, 'events.a', 'three'), (4, 'events.a', 'four')");
    fixture.stored(4);
    eventually("the position", || (fixture.json(&["--status"])["position"] == 4).then_some(()));
    // With SQLite, as a backup tool does it.
    let mut app = fixture.app();
    app.restore("main", &backup, None::<fn(rusqlite::backup::Progress)>).expect("restores");
    fixture.sql("INSERT INTO events VALUES (3, 'events.a', 'another three'), (4, 'events.a', 'another four')");
    eventually("its end", || child.try_wait().expect("waits"));
    let said = stderr(&child.wait_with_output().expect("ends"));
    assert!(said.contains("start again"), "{said}");
    assert_eq!(fixture.once(&[]).0["position"], 4);
    assert_eq!(fixture.collected(), ["one", "two", "three", "four", "another three", "another four"]);
    assert_eq!(printed(&mut fixture.forward(&["--once"])), "table events: 4 rows forwarded, up to id 4; 0 waiting\n");
}

#[test]
fn rows_that_no_stream_takes_do_not_keep_the_others_however_many_are_before_them() {
    let fixture = Fixture::with_stream(&json!({ "allow_batched": true }));
    fixture.sql(&format!(
        "{TABLE} WITH RECURSIVE n(id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n LIMIT 200)
         INSERT INTO events SELECT id, iif(id <= 190, 'nobody.a', 'events.a'), id FROM n"
    ));
    let (done, _) = fixture.once(&["--identity", "database", "--give-up-after", "1ms"]);
    assert_eq!(
        (&done["forwarded"], &done["given_up"], &done["waiting"]),
        (&json!(10), &json!(190), &json!(0)),
        "{done}"
    );
    assert_eq!(fixture.collected(), (191..=200).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[test]
fn rows_that_wait_are_sent_as_they_are_then_however_many() {
    let fixture = with_table(
        "WITH RECURSIVE n(id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n LIMIT 300)
         INSERT INTO events SELECT id, 'nobody.a', id FROM n",
    );
    let forward = Collector::start(fixture.forward(&[]), &fixture.path("forward.log"));
    forward.said("no stream takes nobody.a");
    fixture
        .sql("UPDATE events SET subject = 'events.a' WHERE id > 250; DELETE FROM events WHERE id BETWEEN 201 AND 250");
    fixture.stored(50);
    fixture.server.make_stream("NOBODY", &["nobody.>"]);
    eventually("all rows", || (fixture.json(&["--status"])["position"] == 300).then_some(()));
    assert_eq!((fixture.server.messages("NOBODY"), fixture.server.messages("EVENTS")), (200, 50));
    assert!(forward.stop().success());
}

#[test]
fn a_full_stream_stores_the_rows_of_each_subject_in_order() {
    let fixture = Fixture::with_stream(&json!({ "max_msgs": 100, "discard": "new" }));
    fixture.sql(&format!(
        "{TABLE} WITH RECURSIVE n(id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n LIMIT 3000)
         INSERT INTO events SELECT id, 'events.' || (id % 3), id FROM n"
    ));
    let mut raw = fixture.server.raw();
    for _ in 0..100 {
        raw.publish("events.other", None, "before");
    }
    let database = fixture.path("a.db");
    let collector = Collector::start(run(&fixture.server.url(), &database), &fixture.path("run.log"));
    let forward = Collector::start(fixture.forward(&[]), &fixture.path("forward.log"));
    forward.said("maximum messages exceeded");
    eventually("all rows", || {
        let (rows, last) = (oracle::count(&database), oracle::position(&database));
        fixture.server.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": last + 1 }));
        (rows == 3_100).then_some(())
    });
    let stored =
        "SELECT subject || ' ' || payload FROM events WHERE subject <> 'events.other' ORDER BY subject, sequence";
    let expected = (0..3).flat_map(|subject| {
        (1..=3_000).filter(move |row| row % 3 == subject).map(move |row| format!("events.{subject} {row}"))
    });
    assert_eq!(oracle::texts(&database, stored), expected.collect::<Vec<_>>());
    assert!(forward.stop().success() && collector.stop().success());
}
