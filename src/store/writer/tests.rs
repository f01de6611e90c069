use super::*;
use crate::config::DatabaseConfig;
use crate::pipeline::{Defect, Epoch, Limits, Mark};
use crate::store::{Database, Routes};

struct Bench {
    _folder: tempfile::TempDir,
    config: DatabaseConfig,
    writer: Writer,
    connection: Connection,
}

fn bench(extra: &str) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let config = DatabaseConfig { path: folder.path().join("a.db"), ..DatabaseConfig::default() };
    let database = Database::open(&config, &Routes::default()).expect("a new database");
    let connection = Connection::open(&config.path).expect("opens");
    connection.execute_batch(extra).expect("extra SQL");
    let writer = database.writers().pop().expect("one writer");
    Bench { _folder: folder, config, writer, connection }
}

impl Bench {
    fn texts(&self, sql: &str) -> Vec<String> {
        let mut statement = self.connection.prepare(sql).expect("SQL");
        let rows = statement.query_map([], |row| row.get(0)).expect("runs");
        rows.collect::<Result<_, _>>().expect("text")
    }

    fn stored(&self) -> Vec<String> {
        self.texts("SELECT payload FROM events ORDER BY id")
    }

    fn dead(&self) -> Vec<String> {
        self.texts("SELECT CAST(payload AS TEXT) || ': ' || error FROM catchment_dead_letters ORDER BY id")
    }

    fn ledger(&self) -> i64 {
        let sql = "SELECT coalesce(max(sequence), 0) FROM catchment_ledger";
        self.connection.query_row(sql, [], |row| row.get(0)).expect("a number")
    }
}

fn mark(sequence: usize) -> Mark {
    Mark { sequence: sequence as u64, published_ns: 1_000_000 }
}

/// A batch of these payloads behind position `after`.
fn batch(after: usize, payloads: &[&str]) -> Batch {
    let mut batch = Batch::new(Limits { events: 100, bytes: 10_000 });
    let before = if after == 0 { Mark::START } else { mark(after) };
    batch.begin(Arc::new(Epoch { stream: "S".into(), number: 1, created: "then".into() }), before);
    for (at, payload) in payloads.iter().enumerate() {
        batch.push(mark(after + at + 1), "a", [], payload.as_bytes());
    }
    batch
}

fn dead_letters(result: Result<Committed, Refusal>) -> usize {
    result.expect("commits").dead_letters
}

#[test]
fn rows_and_ledger_are_one_commit() {
    let mut bench = bench("");
    let writer = &mut bench.writer;
    assert_eq!(dead_letters(writer.commit(&batch(0, &["x", "y"]))), 0);
    assert_eq!(dead_letters(writer.commit(&batch(2, &["z"]))), 0);
    assert_eq!(bench.stored(), ["x", "y", "z"]);
    assert_eq!(bench.ledger(), 3);
}

#[test]
fn a_second_writer_is_stopped_by_the_ledger_and_adds_nothing() {
    let mut bench = bench("");
    bench.writer.commit(&batch(0, &["x"])).expect("commits");
    let mut second =
        Database::open(&bench.config, &Routes::default()).expect("opens").writers().pop().expect("a writer");
    let refused = second.commit(&batch(0, &["x"])).expect_err("it is there already");
    let Refusal::Fatal(Error::Database { fault: DatabaseFault::Conflict, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(bench.stored(), ["x"]);
}

#[test]
fn a_batch_whose_commit_was_unclear_is_not_stored_twice() {
    let mut bench = bench("");
    bench.writer.commit(&batch(0, &["x", "y"])).expect("commits");
    bench.writer.unclear = true;
    bench.writer.commit(&batch(0, &["x", "y"])).expect("finds it done");
    bench.writer.unclear = true;
    bench.writer.commit(&batch(0, &["x", "y", "z"])).expect("adds what is missing");
    assert_eq!(bench.stored(), ["x", "y", "z"]);
}

#[test]
fn a_bad_event_costs_nothing_else() {
    let mut bench = bench(
        "CREATE TRIGGER t BEFORE INSERT ON events WHEN NEW.payload = 'bad'
                           BEGIN SELECT raise(ABORT, 'no bad ones'); END;",
    );
    assert_eq!(dead_letters(bench.writer.commit(&batch(0, &["x", "bad", "y", "bad"]))), 2);
    assert_eq!(bench.stored(), ["x", "y"]);
    assert_eq!(bench.dead(), ["bad: no bad ones", "bad: no bad ones"]);
    assert_eq!(bench.ledger(), 4);
}

#[test]
fn a_function_that_refuses_an_event_makes_it_a_dead_letter() {
    let mut bench = bench("CREATE INDEX city ON events(payload ->> '$.city');");
    assert_eq!(dead_letters(bench.writer.commit(&batch(0, &["{}", "{", "[]"]))), 1);
    assert_eq!(bench.stored(), ["{}", "[]"]);
    assert_eq!(bench.dead(), ["{: malformed JSON"]);
}

#[test]
fn a_statement_that_ends_the_transaction_takes_nobody_along() {
    let mut bench = bench(
        "CREATE TRIGGER t BEFORE INSERT ON events WHEN NEW.payload = 'bad'
                           BEGIN SELECT raise(ROLLBACK, 'all or nothing'); END;",
    );
    assert_eq!(dead_letters(bench.writer.commit(&batch(0, &["x", "bad", "y", "bad", "z"]))), 2);
    assert_eq!(bench.stored(), ["x", "y", "z"]);
    assert_eq!(bench.dead().len(), 2);
    assert_eq!(bench.ledger(), 5);
}

#[test]
fn constraints_that_only_commit_checks_are_pinned_on_their_event() {
    let mut bench = bench(
        "CREATE TABLE known(name TEXT PRIMARY KEY);
                           CREATE TABLE seen(name TEXT REFERENCES known DEFERRABLE INITIALLY DEFERRED);
                           INSERT INTO known VALUES ('x'), ('y'), ('z');
                           CREATE TRIGGER t AFTER INSERT ON events BEGIN INSERT INTO seen VALUES (NEW.payload); END;",
    );
    assert_eq!(dead_letters(bench.writer.commit(&batch(0, &["x", "y", "bad", "z", "x", "worse", "y"]))), 2);
    assert_eq!(bench.stored(), ["x", "y", "z", "x", "y"]);
    assert_eq!(bench.dead(), ["bad: FOREIGN KEY constraint failed", "worse: FOREIGN KEY constraint failed"]);
    assert_eq!(bench.ledger(), 7);
}

#[test]
fn an_event_known_to_be_defective_is_kept_whole() {
    let mut bench = bench("");
    let mut odd = batch(0, &["x"]);
    odd.push_defect(mark(2), "a", Defect { reason: "unreadable headers", raw_headers: b"NATS/1.0\r\n\xff" }, b"y");
    assert_eq!(dead_letters(bench.writer.commit(&odd)), 1);
    assert_eq!(bench.texts("SELECT hex(headers) FROM catchment_dead_letters"), ["4E4154532F312E300D0AFF"]);
    assert_eq!(bench.dead(), ["y: unreadable headers"]);
}

#[test]
fn a_full_database_is_tried_again_and_resumes() {
    let mut bench = bench("");
    let payload = "x".repeat(5_000);
    let full = batch(0, &[payload.as_str(); 20]);
    {
        let pooled = bench.writer.pool.get().expect("a connection");
        pooled.sqlite.pragma_update(None, "max_page_count", 10).expect("a small limit");
    }
    let Err(Refusal::Retry(reason)) = bench.writer.commit(&full) else { panic!("it cannot fit") };
    assert_eq!(reason, "database or disk is full; make room on its disk");
    assert_eq!((bench.stored().len(), bench.ledger()), (0, 0));
    // The limit was the connection's; a new one has room.
    assert_eq!(dead_letters(bench.writer.commit(&full)), 0);
    assert_eq!((bench.stored().len(), bench.ledger()), (20, 20));
}

#[test]
fn a_foreign_writer_is_waited_for() {
    let mut bench = bench("BEGIN IMMEDIATE");
    bench.writer.pool.get().expect("a connection").sqlite.busy_timeout(std::time::Duration::ZERO).expect("sets");
    let Err(Refusal::Retry(reason)) = bench.writer.commit(&batch(0, &["x"])) else { panic!("it is locked") };
    assert!(reason.contains("another process holds its write lock"), "{reason}");
    bench.connection.execute_batch("COMMIT").expect("lets go");
    assert_eq!(dead_letters(bench.writer.commit(&batch(0, &["x"]))), 0);
    assert_eq!(bench.stored(), ["x"]);
}

#[test]
fn a_table_that_goes_while_running_stops_too() {
    let mut bench = bench("");
    bench.writer.commit(&batch(0, &["x"])).expect("commits");
    bench.connection.execute_batch("ALTER TABLE events RENAME TO old_events").expect("renames");
    let Err(Refusal::Fatal(error)) = bench.writer.commit(&batch(1, &["y"])) else { panic!("no table, no commit") };
    assert!(error.to_string().contains("route events: no such table"), "{error}");
    assert!(bench.dead().is_empty());
}

#[test]
fn a_missing_table_stops_with_the_routes_name() {
    let mut bench = bench("DROP TABLE events");
    let Err(Refusal::Fatal(error)) = bench.writer.commit(&batch(0, &["x"])) else { panic!("no table, no commit") };
    assert!(error.to_string().contains("route events: no such table: events"), "{error}");
}

#[test]
fn events_that_come_from_no_stream_are_not_stored_twice_either() {
    let mut bench = bench("");
    let epoch = Arc::new(
        Database::open(&bench.config, &Routes::default()).expect("opens").begin_local().expect("a local epoch"),
    );
    let batch = |after: usize, payloads: &[&str]| {
        let mut batch = Batch::new(Limits { events: 100, bytes: 10_000 });
        batch.begin(Arc::clone(&epoch), if after == 0 { Mark::START } else { mark(after) });
        payloads.iter().zip(after + 1..).for_each(|(payload, at)| batch.push(mark(at), "a", [], payload.as_bytes()));
        batch
    };
    bench.writer.commit(&batch(0, &["x", "y"])).expect("commits");
    bench.writer.unclear = true;
    bench.writer.commit(&batch(0, &["x", "y", "z"])).expect("adds what is missing");
    assert_eq!(bench.stored(), ["x", "y", "z"]);
    assert_eq!(bench.texts("SELECT 'a stream' FROM events WHERE stream IS NOT NULL OR sequence IS NOT NULL").len(), 0);
    // The next start: an unclear batch of the one before must not count as its own.
    let next = Arc::new(
        Database::open(&bench.config, &Routes::default()).expect("opens").begin_local().expect("a local epoch"),
    );
    assert_eq!(next.number, epoch.number + 1);
    assert!(matches!(bench.writer.commit(&batch(2, &["z"])), Err(Refusal::Fatal(_))), "it is there already");
}
