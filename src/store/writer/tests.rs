mod alone;
mod replaced_routes;
mod routed;
mod together;

use super::*;
use crate::pipeline::{Defect, Limits, Mark};
use crate::store::fixture::{Fixture, batch, mark};

fn dead_letters(result: Result<Committed, Refusal>) -> usize {
    result.expect("commits").dead_letters
}

#[test]
fn rows_and_ledger_are_one_commit() {
    let mut fixture = Fixture::new("");
    let writer = &mut fixture.writer;
    assert_eq!(dead_letters(writer.commit(&batch(0, &["x", "y"]))), 0);
    assert_eq!(dead_letters(writer.commit(&batch(2, &["z"]))), 0);
    assert_eq!(fixture.stored(), ["x", "y", "z"]);
    assert_eq!(fixture.ledger(), 3);
}

#[test]
fn the_ledger_stops_a_second_writer() {
    let mut fixture = Fixture::new("");
    fixture.writer.commit(&batch(0, &["x"])).expect("commits");
    let mut second = fixture.open().writers().pop().expect("a writer");
    let refused = second.commit(&batch(0, &["x"])).expect_err("it is there already");
    let Refusal::Fatal(Error::Database { fault: DatabaseFault::Conflict, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(fixture.stored(), ["x"]);
}

#[test]
fn a_batch_whose_commit_was_unclear_is_not_stored_twice() {
    let mut fixture = Fixture::new("");
    fixture.writer.commit(&batch(0, &["x", "y"])).expect("commits");
    fixture.writer.unclear = true;
    fixture.writer.commit(&batch(0, &["x", "y"])).expect("finds it done");
    fixture.writer.unclear = true;
    fixture.writer.commit(&batch(0, &["x", "y", "z"])).expect("adds what is missing");
    assert_eq!(fixture.stored(), ["x", "y", "z"]);
}

#[test]
fn a_bad_event_affects_no_other_event() {
    let mut fixture = Fixture::new(
        "CREATE TRIGGER t BEFORE INSERT ON events WHEN NEW.payload = 'bad'
                           BEGIN SELECT raise(ABORT, 'no bad ones'); END;",
    );
    assert_eq!(dead_letters(fixture.writer.commit(&batch(0, &["x", "bad", "y", "bad"]))), 2);
    assert_eq!(fixture.stored(), ["x", "y"]);
    assert_eq!(fixture.dead(), ["bad: no bad ones", "bad: no bad ones"]);
    assert_eq!(fixture.ledger(), 4);
}

#[test]
fn a_function_that_refuses_an_event_makes_it_a_dead_letter() {
    let mut fixture = Fixture::new("CREATE INDEX city ON events(payload ->> '$.city');");
    assert_eq!(dead_letters(fixture.writer.commit(&batch(0, &["{}", "{", "[]"]))), 1);
    assert_eq!(fixture.stored(), ["{}", "[]"]);
    assert_eq!(fixture.dead(), ["{: malformed JSON"]);
}

#[test]
fn a_statement_that_ends_the_transaction_loses_no_other_event() {
    let mut fixture = Fixture::new(
        "CREATE TRIGGER t BEFORE INSERT ON events WHEN NEW.payload = 'bad'
                           BEGIN SELECT raise(ROLLBACK, 'all or nothing'); END;",
    );
    assert_eq!(dead_letters(fixture.writer.commit(&batch(0, &["x", "bad", "y", "bad", "z"]))), 2);
    assert_eq!(fixture.stored(), ["x", "y", "z"]);
    assert_eq!(fixture.dead().len(), 2);
    assert_eq!(fixture.ledger(), 5);
}

#[test]
fn constraints_checked_at_commit_are_traced_to_their_event() {
    let mut fixture = Fixture::new(
        "CREATE TABLE known(name TEXT PRIMARY KEY);
                           CREATE TABLE seen(name TEXT REFERENCES known DEFERRABLE INITIALLY DEFERRED);
                           INSERT INTO known VALUES ('x'), ('y'), ('z');
                           CREATE TRIGGER t AFTER INSERT ON events BEGIN INSERT INTO seen VALUES (NEW.payload); END;",
    );
    assert_eq!(dead_letters(fixture.writer.commit(&batch(0, &["x", "y", "bad", "z", "x", "worse", "y"]))), 2);
    assert_eq!(fixture.stored(), ["x", "y", "z", "x", "y"]);
    assert_eq!(fixture.dead(), ["bad: FOREIGN KEY constraint failed", "worse: FOREIGN KEY constraint failed"]);
    assert_eq!(fixture.ledger(), 7);
}

#[test]
fn an_event_known_to_be_defective_is_kept_whole() {
    let mut fixture = Fixture::new("");
    let mut odd = batch(0, &["x"]);
    odd.push_defect(mark(2), "a", Defect { reason: "unreadable headers", raw_headers: b"NATS/1.0\r\n\xff" }, b"y");
    assert_eq!(dead_letters(fixture.writer.commit(&odd)), 1);
    assert_eq!(fixture.texts("SELECT hex(headers) FROM catchment_dead_letters"), ["4E4154532F312E300D0AFF"]);
    assert_eq!(fixture.dead(), ["y: unreadable headers"]);
}

#[test]
fn a_full_database_is_tried_again_and_resumes() {
    let mut fixture = Fixture::new("");
    let payload = "x".repeat(5_000);
    let full = batch(0, &[payload.as_str(); 20]);
    {
        let pooled = fixture.writer.pool.get().expect("a connection");
        pooled.sqlite.pragma_update(None, "max_page_count", 10).expect("a small limit");
    }
    let Err(Refusal::Retry(reason)) = fixture.writer.commit(&full) else { panic!("it cannot fit") };
    assert_eq!(reason.to_string(), "database or disk is full; make room on its disk");
    assert_eq!((fixture.stored().len(), fixture.ledger()), (0, 0));
    // The limit applied to the old connection; a new one has room.
    assert_eq!(dead_letters(fixture.writer.commit(&full)), 0);
    assert_eq!((fixture.stored().len(), fixture.ledger()), (20, 20));
}

#[test]
fn the_writer_waits_for_another_process() {
    let mut fixture = Fixture::new("BEGIN IMMEDIATE");
    fixture.writer.pool.get().expect("a connection").sqlite.busy_timeout(std::time::Duration::ZERO).expect("sets");
    let Err(Refusal::Retry(reason)) = fixture.writer.commit(&batch(0, &["x"])) else { panic!("it is locked") };
    assert!(reason.to_string().contains("another process holds its write lock"), "{reason}");
    fixture.connection.execute_batch("COMMIT").expect("unlocks");
    assert_eq!(dead_letters(fixture.writer.commit(&batch(0, &["x"]))), 0);
    assert_eq!(fixture.stored(), ["x"]);
}

#[test]
fn a_table_removed_while_running_stops_too() {
    let mut fixture = Fixture::new("");
    fixture.writer.commit(&batch(0, &["x"])).expect("commits");
    fixture.connection.execute_batch("ALTER TABLE events RENAME TO old_events").expect("renames");
    let Err(Refusal::Fatal(error)) = fixture.writer.commit(&batch(1, &["y"])) else { panic!("no table, no commit") };
    assert!(error.to_string().contains("route events: no such table"), "{error}");
    assert!(fixture.dead().is_empty());
}

#[test]
fn a_missing_table_stops_with_the_routes_name() {
    let mut fixture = Fixture::new("DROP TABLE events");
    let Err(Refusal::Fatal(error)) = fixture.writer.commit(&batch(0, &["x"])) else { panic!("no table, no commit") };
    assert!(error.to_string().contains("route events: no such table: events"), "{error}");
}

#[test]
fn events_without_a_stream_are_not_stored_twice_either() {
    let mut fixture = Fixture::new("");
    let epoch = Arc::new(fixture.open().begin_local().expect("a local epoch"));
    let batch = |after: usize, payloads: &[&str]| {
        let mut batch = Batch::new(Limits { events: 100, bytes: 10_000 });
        batch.begin(Arc::clone(&epoch), if after == 0 { Mark::START } else { mark(after) });
        payloads.iter().zip(after + 1..).for_each(|(payload, at)| batch.push(mark(at), "a", [], payload.as_bytes()));
        batch
    };
    fixture.writer.commit(&batch(0, &["x", "y"])).expect("commits");
    fixture.writer.unclear = true;
    fixture.writer.commit(&batch(0, &["x", "y", "z"])).expect("adds what is missing");
    assert_eq!(fixture.stored(), ["x", "y", "z"]);
    assert_eq!(
        fixture.texts("SELECT 'a stream' FROM events WHERE stream IS NOT NULL OR sequence IS NOT NULL").len(),
        0
    );
    // After the next start, an unclear batch of the previous start must not count as its own.
    let next = Arc::new(fixture.open().begin_local().expect("a local epoch"));
    assert_eq!(next.number, epoch.number + 1);
    assert!(matches!(fixture.writer.commit(&batch(2, &["z"])), Err(Refusal::Fatal(_))), "it is there already");
}
