//! One event, one transaction, on the caller's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::database_file::DatabaseFile;
use super::dead_letters;
use super::pool::{ConnectionManager, WriteConnection};
use super::routes::decoded_batch::{DecodedBatch, Disposition};
use super::routes::plan::Plan;
use super::routes::statements::{StatementError, Statements};
use super::sqlite_error::{is_constraint, one_line};
use crate::pipeline::{Batch, Limits, Mark};

/// How often to check that the file was not replaced. More often would cost more than the commit.
const LOOK: Duration = Duration::from_millis(100);

/// Commits events one by one, from any thread. The threads queue for a fair lock, because SQLite's own lock would let some of them
/// starve.
#[derive(Debug)]
pub struct Single {
    manager: ConnectionManager,
    file: DatabaseFile,
    turn: Mutex<Turn>,
}

/// The state that the thread with the turn uses.
struct Turn {
    event: Batch,
    decoded: DecodedBatch,
    looked: Instant,
    /// Kept from event to event; dropped after an error.
    connection: Option<WriteConnection>,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").field("looked", &self.looked).finish_non_exhaustive()
    }
}

/// What happened to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is stored.
    Stored,
    /// Its statements refused it: it is a dead letter.
    DeadLetter,
    /// No route matches it, and it was dropped.
    Dropped,
}

impl Single {
    pub(super) fn new(manager: ConnectionManager, file: DatabaseFile, plan: Arc<Plan>) -> Self {
        let turn = Turn {
            event: Batch::new(Limits { events: 1, bytes: 64 << 10 }),
            decoded: DecodedBatch::new(plan),
            looked: Instant::now(),
            connection: None,
        };
        Self { manager, file, turn: Mutex::new(turn) }
    }

    /// Commits an event; when this returns, it is as durable as the database's `synchronous` makes it. Blocks for the events
    /// of other threads, and for up to `busy_timeout` while another process writes.
    ///
    /// # Errors
    ///
    /// One line: the problem of the database. After an I/O error the event may be stored or not; after other errors it is not.
    pub fn commit<'h>(
        &self,
        published_ns: i64,
        subject: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        payload: &[u8],
    ) -> Result<Kept, String> {
        let mut turn = self.turn.lock();
        let Turn { event, decoded, looked, connection } = &mut *turn;
        event.clear();
        event.push(Mark { sequence: 0, published_ns }, subject, headers, payload);
        decoded.read(event);
        // Checked before opening too, which would create an empty file if there is none.
        if connection.is_none() || looked.elapsed() >= LOOK {
            *looked = Instant::now();
            if self.file.was_replaced() {
                *connection = None;
                return Err(format!(
                    "{} was moved, removed or replaced while it was in use",
                    self.file.path().display()
                ));
            }
        }
        let pooled = match connection.take() {
            Some(pooled) => pooled,
            None => self.manager.open().map_err(|e| one_line(&e))?,
        };
        match commit(&pooled, decoded, event) {
            Ok(kept) => {
                *connection = Some(pooled);
                Ok(kept)
            }
            // The connection's state is unclear, so it is dropped.
            Err(failure) => Err(match failure {
                StatementError::Database(error) => one_line(&error),
                StatementError::Invalid(error) => error.to_string(),
                StatementError::Event(reason) | StatementError::EndedTransaction(reason) => reason.error,
            }),
        }
    }
}

fn commit(pooled: &WriteConnection, decoded: &DecodedBatch, event: &Batch) -> Result<Kept, StatementError> {
    let ran = match decoded.disposition(0) {
        Disposition::Dropped => return Ok(Kept::Dropped),
        Disposition::DeadLetter(_, reason) => Err(StatementError::Event(reason.as_ref().clone())),
        Disposition::Events | Disposition::Route(..) => in_transaction(pooled, decoded, event),
    };
    match ran {
        Ok(()) => Ok(Kept::Stored),
        Err(StatementError::Event(reason)) => {
            let insert = || {
                let _rollback = RollBack::begin(&pooled.sqlite)?;
                dead_letters::insert(&pooled.sqlite, None, &event.delivery(0), &reason)?;
                run(&pooled.sqlite, "COMMIT")
            };
            insert().map(|()| Kept::DeadLetter).map_err(StatementError::Database)
        }
        Err(failure) => Err(failure),
    }
}

/// Runs an event's statements in a transaction, even a single one. Alone, a failing statement may leave a part of its changes, as
/// with `FAIL` in a statement, a constraint or a trigger (<https://sqlite.org/lang_conflict.html>). Another program may add such a
/// trigger at any time.
fn in_transaction(pooled: &WriteConnection, decoded: &DecodedBatch, event: &Batch) -> Result<(), StatementError> {
    let _rollback = RollBack::begin(&pooled.sqlite).map_err(StatementError::Database)?;
    Statements::new(decoded.plan(), pooled).run(decoded, event, 0)?;
    run(&pooled.sqlite, "COMMIT").map_err(|error| {
        if is_constraint(&error) {
            StatementError::Event(decoded.at_commit(0, one_line(&error)))
        } else {
            StatementError::Database(error)
        }
    })
}

/// Rolls the transaction back when dropped, unless it has ended.
struct RollBack<'c>(&'c Connection);

impl<'c> RollBack<'c> {
    fn begin(connection: &'c Connection) -> rusqlite::Result<Self> {
        run(connection, "BEGIN IMMEDIATE").map(|()| Self(connection))
    }
}

impl Drop for RollBack<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            // If this fails, SQLite rolls back when the connection is closed.
            let _ = run(self.0, "ROLLBACK");
        }
    }
}

/// Runs a statement from the cache: at `synchronous = normal`, compiling it for each event would be noticeably slower.
fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

#[cfg(test)]
mod tests {
    use crate::config::{RouteConfig, Unmatched};
    use crate::store::fixture::{Fixture, route};
    use crate::store::{Kept, Single};

    const SCHEMA: &str = "
        CREATE TABLE known(name TEXT PRIMARY KEY);
        INSERT INTO known VALUES ('ann'), ('bob'), ('late'), ('full');
        CREATE TABLE lines(name TEXT REFERENCES known DEFERRABLE INITIALLY DEFERRED, text TEXT);
        CREATE TABLE users(name TEXT UNIQUE ON CONFLICT ROLLBACK);
        CREATE TRIGGER late BEFORE INSERT ON users BEGIN SELECT raise(ABORT, 'too late') WHERE NEW.name = 'late'; END;
    ";
    const ADD_LINE: &str = "INSERT INTO lines VALUES (:name, :text)";

    fn fixture(schema: &str) -> (Fixture, Single) {
        let routes = [route("both", &[ADD_LINE, "INSERT INTO users VALUES (:name)"]), route("one", &[ADD_LINE])];
        let fixture = Fixture::with_routes(&(SCHEMA.to_owned() + schema), &routes, Unmatched::Drop).expect("opens");
        let single = fixture.open().single();
        (fixture, single)
    }

    fn kept(single: &Single, subject: &str, name: &str) -> Kept {
        let payload = format!(r#"{{"name": "{name}", "text": "hi"}}"#);
        single.commit(7_000, subject, [], payload.as_bytes()).expect("commits")
    }

    #[test]
    fn an_event_is_committed_whole_or_is_a_dead_letter() {
        let (fixture, single) = fixture("");
        let kept = |subject, name| kept(&single, subject, name);
        assert_eq!(
            (kept("both", "ann"), kept("one", "ann"), kept("both", "bob")),
            (Kept::Stored, Kept::Stored, Kept::Stored)
        );
        // Refused by the second statement, by its rollback, and by COMMIT, with two statements and with one.
        for (subject, name) in [("both", "late"), ("both", "ann"), ("both", "nobody"), ("one", "nobody")] {
            assert_eq!(kept(subject, name), Kept::DeadLetter, "{name}");
        }
        assert_eq!(single.commit(7_000, "one", [], b"{"), Ok(Kept::DeadLetter));
        assert_eq!(kept("other", "ann"), Kept::Dropped);
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
    fn a_statement_that_fails_half_way_leaves_no_changes() {
        let (fixture, single) = fixture(
            "CREATE TRIGGER full AFTER INSERT ON lines BEGIN SELECT raise(FAIL, 'full') WHERE NEW.name = 'full'; END;",
        );
        assert_eq!(kept(&single, "one", "full"), Kept::DeadLetter);
        assert_eq!(kept(&single, "one", "ann"), Kept::Stored);
        assert_eq!(fixture.texts("SELECT name FROM lines"), ["ann"]);
    }

    #[test]
    fn a_trigger_added_by_another_program_leaves_no_partial_changes() {
        let (fixture, single) = fixture("");
        let full = "CREATE TRIGGER full AFTER INSERT ON lines BEGIN SELECT raise(FAIL, 'full'); END;";
        for _ in 0..3 {
            assert_eq!(kept(&single, "one", "ann"), Kept::Stored);
            fixture.connection.execute_batch(full).expect("adds a trigger");
            // At once, and again after the connection has read the new schema.
            assert_eq!([kept(&single, "one", "bob"), kept(&single, "one", "bob")], [Kept::DeadLetter; 2]);
            fixture.connection.execute_batch("DROP TRIGGER full").expect("drops it");
        }
        assert_eq!(fixture.texts("SELECT name FROM lines"), ["ann"; 3]);
        assert_eq!(fixture.dead().len(), 6);
    }

    #[test]
    fn a_trigger_that_fails_after_its_write_makes_a_dead_letter() {
        let (fixture, single) = fixture(
            "CREATE TABLE log(name TEXT);
             CREATE TRIGGER full AFTER INSERT ON lines BEGIN
                 INSERT INTO log VALUES (NEW.name);
                 SELECT raise(ABORT, 'too much') WHERE NEW.name = 'full';
             END;",
        );
        assert_eq!(kept(&single, "one", "full"), Kept::DeadLetter);
        assert_eq!(kept(&single, "one", "ann"), Kept::Stored);
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
        assert_eq!(self::kept(&fixture.open().single(), "one", "ann"), Kept::DeadLetter);
        assert_eq!((fixture.texts("SELECT text FROM lines").len(), fixture.dead().len()), (0, 1));
    }

    #[test]
    fn an_event_interrupted_at_its_end_is_stored_or_a_dead_letter() {
        // One step more for each sum, several for each row: for some of them the last check comes after the commit.
        let kept = |upto: u64, sums: usize| {
            let count = format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :upto)
                 INSERT INTO lines SELECT 'ann', max(i){} FROM n",
                " + 1".repeat(sums)
            );
            let bounded = RouteConfig { max_steps: 1, ..route("count", &[&count]) };
            let fixture = Fixture::with_routes(SCHEMA, &[bounded], Unmatched::Drop).expect("opens");
            let payload = format!(r#"{{"upto": {upto}}}"#);
            let kept = fixture.open().single().commit(7_000, "count", [], payload.as_bytes()).expect("commits");
            let stored = fixture.texts("SELECT text FROM lines").len();
            let of_both = (stored, fixture.dead().len());
            assert_eq!(of_both, if kept == Kept::Stored { (1, 0) } else { (0, 1) }, "{upto} rows, {sums} sums");
            kept
        };
        let (mut fits, mut does_not) = (1_000, 1_000_000);
        while fits + 1 < does_not {
            let middle = u64::midpoint(fits, does_not);
            if kept(middle, 0) == Kept::Stored { fits = middle } else { does_not = middle }
        }
        for sums in 1..20 {
            for upto in fits - 2..=does_not {
                kept(upto, sums);
            }
        }
    }

    #[test]
    fn a_missing_table_makes_no_dead_letter() {
        let (fixture, single) = fixture("");
        assert_eq!(kept(&single, "one", "ann"), Kept::Stored);
        fixture.connection.execute_batch("ALTER TABLE lines RENAME TO sentences").expect("renames");
        let error = single.commit(7_000, "one", [], br#"{"name": "ann"}"#).expect_err("no table, no commit");
        assert!(error.ends_with("route one, statement 1: no such table: lines"), "{error}");
        assert!(fixture.dead().is_empty());
        fixture.connection.execute_batch("ALTER TABLE sentences RENAME TO lines").expect("renames");
        assert_eq!(kept(&single, "one", "ann"), Kept::Stored);
    }

    #[test]
    fn no_file_is_created_after_the_database_was_removed() {
        let (fixture, single) = fixture("");
        assert_eq!(kept(&single, "one", "ann"), Kept::Stored);
        std::fs::remove_file(&fixture.config.path).expect("removes");
        single.turn.lock().connection = None;
        for _ in 0..2 {
            let error = single.commit(7_000, "one", [], br#"{"name": "ann"}"#).expect_err("no file, no commit");
            assert!(error.contains("was moved, removed or replaced"), "{error}");
            assert!(!fixture.config.path.exists());
        }
    }
}
