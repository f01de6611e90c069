//! Ends statements of a connection that take too long, or whose thread has to stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use rusqlite::Connection;

use crate::pipeline::Signal;

/// Steps of SQLite's virtual machine between two looks at the clock: some tens of microseconds.
const STEPS_PER_CHECK: i32 = 1_000;

/// How long the statements of one connection may run.
#[derive(Clone, Debug)]
pub(super) struct StatementLimit {
    begin: Instant,
    /// Microseconds after `begin`; 0 if there is no limit.
    until: Arc<AtomicU64>,
}

impl StatementLimit {
    /// Interrupts the connection's statements once `stop` is raised.
    pub(super) fn of(connection: &Connection, stop: &Signal) -> rusqlite::Result<Self> {
        let limit = Self { begin: Instant::now(), until: Arc::default() };
        let (begin, until) = (limit.begin, Arc::clone(&limit.until));
        let stop: Receiver<Infallible> = stop.channel().clone();
        let is_over = move || {
            let until = until.load(Ordering::Relaxed);
            (until > 0 && micros(begin.elapsed()) >= until)
                || matches!(stop.try_recv(), Err(TryRecvError::Disconnected))
        };
        connection.progress_handler(STEPS_PER_CHECK, Some(is_over))?;
        Ok(limit)
    }

    /// Interrupts statements that run longer than this in the call.
    pub(super) fn within<T>(&self, at_most: Duration, run: impl FnOnce() -> T) -> T {
        struct Unlimited<'a>(&'a AtomicU64);
        impl Drop for Unlimited<'_> {
            fn drop(&mut self) {
                self.0.store(0, Ordering::Relaxed);
            }
        }
        self.until.store(micros(self.begin.elapsed() + at_most).max(1), Ordering::Relaxed);
        let _unlimited = Unlimited(&self.until);
        run()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDLESS: &str = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

    #[test]
    fn a_statement_ends_at_its_limit_and_at_a_stop() {
        let connection = Connection::open_in_memory().expect("memory");
        let stop = Signal::default();
        let limit = StatementLimit::of(&connection, &stop).expect("sets");
        let run = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        assert!(limit.within(Duration::from_millis(5), || run(ENDLESS)).is_err());
        assert_eq!(run("SELECT 7"), Ok(7), "there is no limit outside of the call");
        stop.raise();
        assert!(run(ENDLESS).is_err());
    }
}
