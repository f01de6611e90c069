//! One event, one transaction, on the caller's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::database::no_connection;
use super::dead_letters::{self, Reason};
use super::decoded::{Course, Decoded};
use super::failure::{database_error, detail, is_constraint};
use super::file::File;
use super::plan::Plan;
use super::pool::{Manager, Pooled};
use super::statements::{Failure, Statements};
use crate::error::Error;
use crate::pipeline::{Batch, Limits, Mark};

/// How often to look whether the file is still in its place: more often would cost more than the commit.
const LOOK: Duration = Duration::from_millis(100);

/// Commits events one by one, whichever thread brings them. The threads take turns before SQLite's own lock, which would
/// let some of them starve.
#[derive(Debug)]
pub struct Single {
    pool: r2d2::Pool<Manager>,
    file: File,
    turn: Mutex<Turn>,
}

/// What whoever's turn it is works with.
struct Turn {
    event: Batch,
    decoded: Decoded,
    looked: Instant,
    /// Kept from event to event, but for one that is in doubt.
    connection: Option<r2d2::PooledConnection<Manager>>,
    /// A statement that fails may leave behind a part of what it did.
    leaves_parts: bool,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").field("looked", &self.looked).finish_non_exhaustive()
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Its statements have run.
    Stored,
    /// They refused it: it is a dead letter.
    DeadLetter,
    /// No route takes it, and it was dropped.
    Dropped,
}

/// What came of trying to store an event.
#[derive(Clone, Debug)]
pub enum Attempt {
    /// Its statements have run, and what they did is committed.
    Stored,
    /// No route takes it, and such are dropped.
    Dropped,
    /// They refused it. Nothing of it is left.
    Refused(Reason),
}

impl Single {
    pub(super) fn new(pool: r2d2::Pool<Manager>, file: File, plan: Arc<Plan>) -> Self {
        let turn = Turn {
            event: Batch::new(Limits { events: 1, bytes: 64 << 10 }),
            decoded: Decoded::new(plan),
            looked: Instant::now(),
            connection: None,
            leaves_parts: true,
        };
        Self { pool, file, turn: Mutex::new(turn) }
    }

    /// Commits an event; when this returns, it is as durable as the database's `synchronous` makes it. Blocks for the events
    /// of other threads, and for `busy_timeout` where another process writes.
    ///
    /// # Errors
    ///
    /// One line: what is wrong with the database. After an I/O error the event may be stored or not; else it is not.
    pub fn commit<'h>(
        &self,
        published_ns: i64,
        subject: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        payload: &[u8],
    ) -> Result<Kept, String> {
        let mut turn = self.turn.lock();
        let Turn { event, decoded, looked, connection, leaves_parts } = &mut *turn;
        event.clear();
        event.push(Mark { sequence: 0, published_ns }, subject, headers, payload);
        decoded.read(event);
        let look = connection.is_none() || looked.elapsed() >= LOOK;
        let mut pooled = match connection.take() {
            Some(pooled) => pooled,
            None => self.pool.get().map_err(|e| format!("no connection: {e}"))?,
        };
        if look {
            *looked = Instant::now();
            if self.file.was_replaced() {
                pooled.done_with = true;
                return Err(format!("{} was moved, removed or replaced meanwhile", self.file.path().display()));
            }
            *leaves_parts = may_leave_parts(decoded.plan(), &pooled);
        }
        match commit(&pooled, decoded, event, *leaves_parts) {
            Ok(kept) => {
                *connection = Some(pooled);
                Ok(kept)
            }
            Err(failure) => {
                pooled.done_with = true;
                Err(match failure {
                    Failure::Database(error) => detail(&error),
                    Failure::Lost(error) => error.to_string(),
                    Failure::Event(reason) | Failure::Ended(reason) => reason.error,
                })
            }
        }
    }

    /// Runs the statements for the first event of a batch, in a transaction of its own, and makes no dead letter of it. Blocks
    /// as [`Single::commit`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: the event is not stored; after an I/O error it may be.
    pub fn attempt(&self, batch: &Batch) -> Result<Attempt, Error> {
        self.attempt_with(batch, |_| Ok(()))
    }

    /// The same, with more to do in the same transaction once the statements have run.
    pub(super) fn attempt_with(
        &self,
        batch: &Batch,
        also: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<Attempt, Error> {
        let path = self.file.path();
        let mut turn = self.turn.lock();
        let Turn { decoded, connection, .. } = &mut *turn;
        decoded.read(batch);
        let mut pooled = match connection.take() {
            Some(pooled) => pooled,
            None => self.pool.get().map_err(|e| no_connection(path, &e))?,
        };
        let tried = in_transaction(&pooled, decoded, batch, also);
        pooled.done_with = matches!(tried, Err(Failure::Database(_)));
        *connection = Some(pooled).filter(|pooled| !pooled.done_with);
        match tried {
            Ok(()) if decoded.dropped() > 0 => Ok(Attempt::Dropped),
            Ok(()) => Ok(Attempt::Stored),
            Err(Failure::Event(reason) | Failure::Ended(reason)) => Ok(Attempt::Refused(reason)),
            Err(Failure::Lost(error)) => Err(error),
            Err(Failure::Database(error)) => Err(database_error(path, error)),
        }
    }
}

fn commit(pooled: &Pooled, decoded: &Decoded, event: &Batch, leaves_parts: bool) -> Result<Kept, Failure> {
    let statements = match decoded.course(0) {
        Course::Dropped => return Ok(Kept::Dropped),
        Course::Events => 1,
        Course::Route(route, _) => decoded.plan().route(*route).steps.len(),
        Course::Doomed(..) => 0,
    };
    let ran = if statements > 1 || leaves_parts {
        in_transaction(pooled, decoded, event, |_| Ok(()))
    } else {
        // One statement is a transaction by itself.
        Statements::new(decoded.plan(), pooled).run(decoded, event, 0)
    };
    match ran {
        Ok(()) => Ok(Kept::Stored),
        Err(Failure::Event(reason)) => {
            dead_letters::insert(&pooled.sqlite, None, &event.delivery(0), &reason).map_err(Failure::Database)?;
            Ok(Kept::DeadLetter)
        }
        Err(failure) => Err(failure),
    }
}

/// Runs a batch's first event and what is to be done besides, and commits both or neither.
fn in_transaction(
    pooled: &Pooled,
    decoded: &Decoded,
    batch: &Batch,
    also: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), Failure> {
    // Its drop rolls back, unless the statements have done so.
    let transaction = Transaction::new_unchecked(&pooled.sqlite, TransactionBehavior::Immediate);
    let transaction = transaction.map_err(Failure::Database)?;
    Statements::new(decoded.plan(), pooled).run(decoded, batch, 0)?;
    also(&transaction).map_err(Failure::Database)?;
    transaction.commit().map_err(|error| match is_constraint(&error) {
        true => Failure::Event(decoded.at_commit(0, detail(&error))),
        false => Failure::Database(error),
    })
}

/// Whether a statement that fails may leave behind a part of what it did, as `FAIL` does where it stands in a statement, a
/// constraint or a trigger: <https://sqlite.org/lang_conflict.html>.
fn may_leave_parts(plan: &Plan, pooled: &Pooled) -> bool {
    let sql = "SELECT EXISTS(SELECT 1 FROM sqlite_schema WHERE sql LIKE '%fail%')";
    let in_schema = || pooled.sqlite.prepare_cached(sql)?.query_row([], |row| row.get(0));
    plan.says_fail() || in_schema().unwrap_or(true)
}
