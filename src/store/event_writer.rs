//! Commits one event in one transaction, on the caller's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::checkpointer::Checkpointer;
use super::database_file::DatabaseFile;
use super::dead_letters;
use super::pool::{ConnectionManager, WriteConnection};
use super::routes::decoded_batch::{DecodedBatch, Disposition};
use super::routes::plan::Plan;
use super::routes::statements::{StatementError, Statements};
use super::sqlite_error::{is_constraint, one_line, problem};
use crate::error::DatabaseFault;
use crate::pipeline::{Delivery, Mark, Problem, SingleEvent};

/// How often to check that the database file was not replaced. A check for each event would cost more than the commit.
const FILE_CHECK: Duration = Duration::from_millis(100);

/// Commits events one by one. Any number of threads may call it; a mutex makes them take turns, because SQLite's own lock
/// can starve some of them.
#[derive(Debug)]
pub struct EventWriter {
    manager: ConnectionManager,
    checkpointer: Arc<Checkpointer>,
    file: DatabaseFile,
    state: Mutex<State>,
}

struct State {
    event: SingleEvent,
    decoded: DecodedBatch,
    file_checked: Instant,
    /// `None` after an error: a connection whose state is uncertain is not used again.
    connection: Option<WriteConnection>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("file_checked", &self.file_checked).finish_non_exhaustive()
    }
}

/// What was done with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// Its statements ran.
    Stored,
    /// It failed and became a dead letter.
    DeadLetter,
    /// It was dropped: no route matches it, or it is a delete marker that no route takes.
    Dropped,
}

impl EventWriter {
    pub(super) fn new(
        manager: ConnectionManager,
        checkpointer: Arc<Checkpointer>,
        file: DatabaseFile,
        plan: Arc<Plan>,
    ) -> Self {
        let state = State {
            event: SingleEvent::default(),
            decoded: DecodedBatch::new(plan),
            file_checked: Instant::now(),
            connection: None,
        };
        Self { manager, checkpointer, file, state: Mutex::new(state) }
    }

    /// Commits an event. When this returns, it is as durable as the database's `synchronous` makes it. Blocks while other threads
    /// commit theirs, and at most for `busy_timeout` while another process writes.
    ///
    /// # Errors
    ///
    /// What is wrong with the database. After [`DatabaseFault::Io`] the event may be stored; after any other it is not.
    pub fn commit<'h>(
        &self,
        published_ns: i64,
        subject: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        payload: &[u8],
    ) -> Result<EventOutcome, Problem> {
        let mut state = self.state.lock();
        let State { event, decoded, file_checked, connection } = &mut *state;
        event.replace(Mark { sequence: 0, published_ns }, subject, headers, payload);
        let delivery = event.delivery();
        decoded.read_one(&delivery, None);
        // Checked before opening too: opening creates an empty file where there is none.
        if connection.is_none() || file_checked.elapsed() >= FILE_CHECK {
            *file_checked = Instant::now();
            if let Err(problem) = self.file.must_be_the_same() {
                *connection = None;
                return Err(Problem::from(&problem.at(self.file.path())));
            }
        }
        let pooled = match connection.take() {
            Some(pooled) => pooled,
            None => self.manager.open_counted().map_err(|e| problem(&e))?,
        };
        match commit(&pooled, decoded, &delivery) {
            Ok(outcome) => {
                self.checkpointer.committed(&pooled.sqlite);
                *connection = Some(pooled);
                Ok(outcome)
            }
            // The connection's state is uncertain: it is dropped.
            Err(failure) => Err(match failure {
                StatementError::Database(error) => problem(&error),
                StatementError::Invalid(error) => Problem::from(&error),
                StatementError::Event(reason) | StatementError::EndedTransaction(reason) => {
                    Problem::new(DatabaseFault::Statement, reason.error)
                }
            }),
        }
    }
}

fn commit(
    pooled: &WriteConnection,
    decoded: &DecodedBatch,
    delivery: &Delivery<'_>,
) -> Result<EventOutcome, StatementError> {
    let ran = match decoded.disposition(0) {
        Disposition::Dropped | Disposition::SkippedMarker => return Ok(EventOutcome::Dropped),
        Disposition::DeadLetter(_, reason) => Err(StatementError::Event(reason.as_ref().clone())),
        Disposition::Events | Disposition::Route(..) => in_transaction(pooled, decoded, delivery),
    };
    match ran {
        Ok(()) => Ok(EventOutcome::Stored),
        Err(StatementError::Event(reason)) => {
            let store_dead_letter = || {
                let _rolled_back_unless_committed = RollBack::begin(&pooled.sqlite)?;
                dead_letters::insert(&pooled.sqlite, None, delivery, &reason)?;
                run(&pooled.sqlite, "COMMIT")
            };
            store_dead_letter().map(|()| EventOutcome::DeadLetter).map_err(StatementError::Database)
        }
        Err(failure) => Err(failure),
    }
}

/// Runs the statements in an explicit transaction, even where there is only one. Outside of one, a statement that fails may leave
/// a part of its changes behind, as `FAIL` does in a statement, a constraint or a trigger
/// (<https://sqlite.org/lang_conflict.html>). Another program may add such a trigger at any time.
fn in_transaction(
    pooled: &WriteConnection,
    decoded: &DecodedBatch,
    delivery: &Delivery<'_>,
) -> Result<(), StatementError> {
    let _rolled_back_unless_committed = RollBack::begin(&pooled.sqlite).map_err(StatementError::Database)?;
    Statements::new(decoded.plan(), pooled).run(decoded, 0, delivery, None)?;
    run(&pooled.sqlite, "COMMIT").map_err(|error| {
        if is_constraint(&error) {
            StatementError::Event(decoded.at_commit(0, one_line(&error)))
        } else {
            StatementError::Database(error)
        }
    })
}

/// Rolls the transaction back when dropped, unless it has ended by then.
struct RollBack<'c>(&'c Connection);

impl<'c> RollBack<'c> {
    fn begin(connection: &'c Connection) -> rusqlite::Result<Self> {
        run(connection, "BEGIN IMMEDIATE").map(|()| Self(connection))
    }
}

impl Drop for RollBack<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            // An error can be ignored: closing the connection rolls back too.
            let _ = run(self.0, "ROLLBACK");
        }
    }
}

/// The statement is cached: with `synchronous = normal`, compiling it for each event would take a noticeable part of the time.
fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

#[cfg(test)]
mod tests {
    use crate::config::{RouteConfig, Unmatched};
    use crate::store::fixture::{Fixture, route};
    use crate::store::{EventOutcome, EventWriter};

    const SCHEMA: &str = "
        CREATE TABLE known(name TEXT PRIMARY KEY);
        INSERT INTO known VALUES ('ann'), ('bob'), ('late'), ('full');
        CREATE TABLE lines(name TEXT REFERENCES known DEFERRABLE INITIALLY DEFERRED, text TEXT);
        CREATE TABLE users(name TEXT UNIQUE ON CONFLICT ROLLBACK);
        CREATE TRIGGER late BEFORE INSERT ON users BEGIN SELECT raise(ABORT, 'too late') WHERE NEW.name = 'late'; END;
    ";
    const ADD_LINE: &str = "INSERT INTO lines VALUES (:name, :text)";

    fn fixture(schema: &str) -> (Fixture, EventWriter) {
        let routes = [route("both", &[ADD_LINE, "INSERT INTO users VALUES (:name)"]), route("one", &[ADD_LINE])];
        let fixture = Fixture::with_routes(&(SCHEMA.to_owned() + schema), &routes, Unmatched::Drop).expect("opens");
        let writer = fixture.open().event_writer();
        (fixture, writer)
    }

    fn kept(writer: &EventWriter, subject: &str, name: &str) -> EventOutcome {
        let payload = format!(r#"{{"name": "{name}", "text": "hi"}}"#);
        writer.commit(7_000, subject, [], payload.as_bytes()).expect("commits")
    }

    #[test]
    fn an_event_is_committed_whole_or_is_a_dead_letter() {
        let (fixture, writer) = fixture("");
        let kept = |subject, name| kept(&writer, subject, name);
        assert_eq!(
            (kept("both", "ann"), kept("one", "ann"), kept("both", "bob")),
            (EventOutcome::Stored, EventOutcome::Stored, EventOutcome::Stored)
        );
        // Refused by the second statement, by its rollback, and by COMMIT with two statements and with one.
        for (subject, name) in [("both", "late"), ("both", "ann"), ("both", "nobody"), ("one", "nobody")] {
            assert_eq!(kept(subject, name), EventOutcome::DeadLetter, "{name}");
        }
        assert_eq!(writer.commit(7_000, "one", [], b"{"), Ok(EventOutcome::DeadLetter));
        assert_eq!(kept("other", "ann"), EventOutcome::Dropped);
        assert_eq!(fixture.texts("SELECT name FROM lines ORDER BY rowid"), ["ann", "ann", "bob"]);
        assert_eq!(fixture.texts("SELECT name FROM users ORDER BY rowid"), ["ann", "bob"]);
        let dead = fixture.texts(
            "SELECT route || ': ' || error || ' in ' || coalesce(statement, 'none') FROM catchment_dead_letters ORDER BY id",
        );
        let unique = "both: UNIQUE constraint failed: users.name in INSERT INTO users VALUES (:name)";
        assert_eq!(dead[..2], ["both: too late in INSERT INTO users VALUES (:name)", unique]);
        assert_eq!(dead[2], "both: FOREIGN KEY constraint failed in COMMIT");
        assert_eq!(dead[3], "one: FOREIGN KEY constraint failed in COMMIT");
        assert!(
            dead[4].starts_with("one: the payload cannot be read as JSON") && dead[4].ends_with(" in none"),
            "{}",
            dead[4]
        );
    }

    #[test]
    fn a_statement_that_fails_half_way_leaves_nothing_behind() {
        let (fixture, writer) = fixture(
            "CREATE TRIGGER full AFTER INSERT ON lines BEGIN SELECT raise(FAIL, 'full') WHERE NEW.name = 'full'; END;",
        );
        assert_eq!(kept(&writer, "one", "full"), EventOutcome::DeadLetter);
        assert_eq!(kept(&writer, "one", "ann"), EventOutcome::Stored);
        assert_eq!(fixture.texts("SELECT name FROM lines"), ["ann"]);
    }

    #[test]
    fn a_failing_foreign_trigger_leaves_no_partial_event() {
        let (fixture, writer) = fixture("");
        let full = "CREATE TRIGGER full AFTER INSERT ON lines BEGIN SELECT raise(FAIL, 'full'); END;";
        for _ in 0..3 {
            assert_eq!(kept(&writer, "one", "ann"), EventOutcome::Stored);
            fixture.connection.execute_batch(full).expect("adds a trigger");
            // Once before the connection has noticed the trigger, and once after.
            assert_eq!([kept(&writer, "one", "bob"), kept(&writer, "one", "bob")], [EventOutcome::DeadLetter; 2]);
            fixture.connection.execute_batch("DROP TRIGGER full").expect("drops it");
        }
        assert_eq!(fixture.texts("SELECT name FROM lines"), ["ann"; 3]);
        assert_eq!(fixture.dead().len(), 6);
    }

    #[test]
    fn a_failure_after_a_triggers_write_is_a_dead_letter() {
        let (fixture, writer) = fixture(
            "CREATE TABLE log(name TEXT);
             CREATE TRIGGER full AFTER INSERT ON lines BEGIN
                 INSERT INTO log VALUES (NEW.name);
                 SELECT raise(ABORT, 'too much') WHERE NEW.name = 'full';
             END;",
        );
        assert_eq!(kept(&writer, "one", "full"), EventOutcome::DeadLetter);
        assert_eq!(kept(&writer, "one", "ann"), EventOutcome::Stored);
        assert_eq!((fixture.texts("SELECT name FROM log"), fixture.dead().len()), (vec!["ann".to_owned()], 1));

        let endless = "
            CREATE TABLE log(name TEXT);
            CREATE TRIGGER endless AFTER INSERT ON lines BEGIN
                INSERT INTO log VALUES (NEW.name);
                INSERT INTO log SELECT 'many' FROM (
                    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0
                );
            END;";
        let bounded = RouteConfig { max_steps: 1, ..route("one", &[ADD_LINE]) };
        let fixture = Fixture::with_routes(&(SCHEMA.to_owned() + endless), &[bounded], Unmatched::Drop).expect("opens");
        assert_eq!(self::kept(&fixture.open().event_writer(), "one", "ann"), EventOutcome::DeadLetter);
        assert_eq!((fixture.texts("SELECT text FROM lines").len(), fixture.dead().len()), (0, 1));
    }

    #[test]
    fn an_event_interrupted_late_is_stored_or_a_dead_letter() {
        // Each sum adds a step, each row the steps of a row. For some of them the last check of the budget is after the commit.
        let kept = |upto: u64, sums: usize| {
            let count = format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :upto)
                 INSERT INTO lines SELECT 'ann', max(i){} FROM n",
                " + 1".repeat(sums)
            );
            let bounded = RouteConfig { max_steps: 1, ..route("count", &[&count]) };
            let fixture = Fixture::with_routes(SCHEMA, &[bounded], Unmatched::Drop).expect("opens");
            let payload = format!(r#"{{"upto": {upto}}}"#);
            let kept = fixture.open().event_writer().commit(7_000, "count", [], payload.as_bytes()).expect("commits");
            let stored = fixture.texts("SELECT text FROM lines").len();
            let of_both = (stored, fixture.dead().len());
            assert_eq!(of_both, if kept == EventOutcome::Stored { (1, 0) } else { (0, 1) }, "{upto} rows, {sums} sums");
            kept
        };
        let (mut fits, mut does_not) = (1_000, 1_000_000);
        while fits + 1 < does_not {
            let middle = u64::midpoint(fits, does_not);
            if kept(middle, 0) == EventOutcome::Stored { fits = middle } else { does_not = middle }
        }
        for sums in 1..20 {
            for upto in fits - 2..=does_not {
                kept(upto, sums);
            }
        }
    }

    #[test]
    fn a_missing_table_makes_no_dead_letters() {
        let (fixture, writer) = fixture("");
        assert_eq!(kept(&writer, "one", "ann"), EventOutcome::Stored);
        fixture.connection.execute_batch("ALTER TABLE lines RENAME TO sentences").expect("renames");
        let said = writer.commit(7_000, "one", [], br#"{"name": "ann"}"#).expect_err("no table, no commit");
        assert!(said.detail.ends_with("route one, statement 1: no such table: lines"), "{said}");
        assert!(fixture.dead().is_empty());
        fixture.connection.execute_batch("ALTER TABLE sentences RENAME TO lines").expect("renames");
        assert_eq!(kept(&writer, "one", "ann"), EventOutcome::Stored);
    }

    #[test]
    fn no_file_is_made_where_the_database_was_removed() {
        let (fixture, writer) = fixture("");
        assert_eq!(kept(&writer, "one", "ann"), EventOutcome::Stored);
        std::fs::remove_file(&fixture.config.path).expect("removes");
        writer.state.lock().connection = None;
        for _ in 0..2 {
            let said = writer.commit(7_000, "one", [], br#"{"name": "ann"}"#).expect_err("no file, no commit");
            assert!(said.detail.contains("was moved, removed or replaced"), "{said}");
            assert!(!fixture.config.path.exists());
        }
    }
}
