//! Work that is done in transactions so small that no commit waits long for one.
//!
//! A transaction takes the turn that the writers take. It ends after the step in which some milliseconds are over, and then pauses as
//! long as it took. A single statement that takes too long is interrupted, which rolls its transaction back; the next one does less.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::figures::RetentionFigures;
use crate::pipeline::Signal;
use crate::store::checkpointer::Checkpointer;
use crate::store::commit_turn::CommitTurn;
use crate::store::statement_limit::StatementLimit;

/// After so long a transaction does nothing further and commits.
const ENOUGH: Duration = Duration::from_millis(8);

/// A transaction whose statements take longer is interrupted.
const TOO_LONG: Duration = Duration::from_millis(30);

/// So many times in a row, a step alone is tried before it counts as too slow.
const TRIES: u32 = 20;

/// How long to wait for another process that writes.
const BUSY_WAIT: Duration = Duration::from_millis(20);

/// So many times. Together with the waits, ten seconds.
const BUSY_TRIES: u32 = 500;

/// What the transactions use.
pub(super) struct SmallTransactions<'a> {
    pub(super) connection: &'a Connection,
    pub(super) limit: &'a StatementLimit,
    pub(super) turn: &'a CommitTurn,
    pub(super) checkpointer: &'a Checkpointer,
    pub(super) figures: &'a RetentionFigures,
    pub(super) stop: &'a Signal,
    pub(super) page_size: u64,
}

/// Why not everything was done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The thread has to stop.
    Stopped,
    /// One step alone takes too long.
    TooSlow,
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// What the committed transactions did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// The sum of what the steps returned.
    pub(super) sum: u64,
    /// Pages that were given back to the file system.
    pub(super) returned: u64,
}

impl SmallTransactions<'_> {
    /// Runs `step` for each number below `steps`, in as many transactions as it takes; `last` in the same transaction as the last step.
    /// Returns what was done also where not everything was.
    pub(super) fn run(
        &self,
        steps: usize,
        mut step: impl FnMut(&Connection, usize) -> rusqlite::Result<u64>,
        mut last: impl FnMut(&Connection) -> rusqlite::Result<()>,
    ) -> (Done, Result<(), Failure>) {
        let mut done = Done::default();
        let result = self.try_to_run(steps, &mut step, &mut last, &mut done);
        (done, result)
    }

    fn try_to_run(
        &self,
        steps: usize,
        step: &mut impl FnMut(&Connection, usize) -> rusqlite::Result<u64>,
        last: &mut impl FnMut(&Connection) -> rusqlite::Result<()>,
        all: &mut Done,
    ) -> Result<(), Failure> {
        let (mut done, mut most, mut slow, mut busy) = (0, usize::MAX, 0, 0);
        while done < steps {
            if self.stop.is_raised() {
                return Err(Failure::Stopped);
            }
            let began = Instant::now();
            match self.transaction(done, steps, most, step, last) {
                Ok((now, of_this)) => {
                    (slow, busy, most) = (0, 0, most.saturating_mul(2));
                    done = now;
                    all.sum += of_this.sum;
                    all.returned += of_this.returned;
                    let took = began.elapsed();
                    if self.stop.wait(took.min(TOO_LONG)) {
                        return Err(Failure::Stopped);
                    }
                }
                Err(_) if self.stop.is_raised() => return Err(Failure::Stopped),
                Err(error) => match error.sqlite_error_code() {
                    Some(ErrorCode::OperationInterrupted) if slow < TRIES => (slow, most) = (slow + 1, 1),
                    Some(ErrorCode::OperationInterrupted) => return Err(Failure::TooSlow),
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) if busy < BUSY_TRIES => {
                        busy += 1;
                        if self.stop.wait(BUSY_WAIT) {
                            return Err(Failure::Stopped);
                        }
                    }
                    _ => return Err(Failure::Sqlite(error)),
                },
            }
        }
        Ok(())
    }

    /// One transaction. Returns how many steps are done then.
    fn transaction(
        &self,
        from: usize,
        steps: usize,
        most: usize,
        step: &mut impl FnMut(&Connection, usize) -> rusqlite::Result<u64>,
        last: &mut impl FnMut(&Connection) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<(usize, Done)> {
        let connection = self.connection;
        let turn = self.turn.take();
        let began = Instant::now();
        // `new` needs a mutable connection. No other code uses this connection now.
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let before = Sizes::of(connection)?;
        let until = from.saturating_add(most).min(steps);
        let (mut done, mut sum) = (from, 0);
        self.limit.within(TOO_LONG, || {
            while done < until && began.elapsed() < ENOUGH {
                sum += step(connection, done)?;
                done += 1;
            }
            if done == steps { last(connection) } else { Ok(()) }
        })?;
        let after = Sizes::of(connection)?;
        transaction.commit()?;
        let took = began.elapsed();
        drop(turn);
        self.checkpointer.committed(connection);
        let returned = before.pages.saturating_sub(after.pages);
        let freed = (after.free + returned).saturating_sub(before.free);
        self.figures.add_transaction(took, freed * self.page_size, returned * self.page_size);
        Ok((done, Done { sum, returned }))
    }
}

/// The pages of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) pages: u64,
    pub(super) free: u64,
}

impl Sizes {
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let number = |sql| connection.prepare_cached(sql)?.query_row([], |row| row.get(0));
        Ok(Self { pages: number("PRAGMA page_count")?, free: number("PRAGMA freelist_count")? })
    }

    pub(super) fn used(self) -> u64 {
        self.pages.saturating_sub(self.free)
    }
}
