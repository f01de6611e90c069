//! One event, one transaction, on the caller's thread.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::dead_letters;
use super::failure::{detail, is_events_own};
use super::file::File;
use super::pool::Manager;
use super::route::Routes;
use crate::pipeline::{Batch, Delivery, Limits, Mark};

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
    looked: Instant,
    /// Kept from event to event, but for one that is in doubt.
    connection: Option<r2d2::PooledConnection<Manager>>,
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
}

impl Single {
    pub(super) fn new(pool: r2d2::Pool<Manager>, file: File) -> Self {
        let event = Batch::new(Limits { events: 1, bytes: 64 << 10 });
        Self { pool, file, turn: Mutex::new(Turn { event, looked: Instant::now(), connection: None }) }
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
        let Turn { event, looked, connection } = &mut *turn;
        event.clear();
        event.push(Mark { sequence: 0, published_ns }, subject, headers, payload);
        let mut pooled = match connection.take() {
            Some(pooled) => pooled,
            None => self.pool.get().map_err(|e| format!("no connection: {e}"))?,
        };
        if looked.elapsed() >= LOOK {
            *looked = Instant::now();
            if self.file.was_replaced() {
                pooled.done_with = true;
                return Err(format!("{} was moved, removed or replaced meanwhile", self.file.path().display()));
            }
        }
        match commit(&pooled.sqlite, &event.delivery(0)) {
            Ok(kept) => {
                *connection = Some(pooled);
                Ok(kept)
            }
            Err(error) => {
                pooled.done_with = true;
                Err(detail(&error))
            }
        }
    }
}

/// The route's one statement is a transaction by itself.
fn commit(connection: &rusqlite::Connection, delivery: &Delivery<'_>) -> rusqlite::Result<Kept> {
    match Routes::prepare(connection)?.apply(None, delivery) {
        Ok(()) => Ok(Kept::Stored),
        Err(e) if is_events_own(&e) => {
            dead_letters::insert(connection, None, delivery, &Routes::reason(&e))?;
            Ok(Kept::DeadLetter)
        }
        Err(e) => Err(e),
    }
}
