//! How much work a statement of a route may be. It is counted in steps of SQLite's virtual machine, not in time, so that no event
//! becomes a dead letter because of a busy machine or a slow disk.
//!
//! SQLite calls the progress handler every so many steps of a statement, counted over all its runs, and once more after its end:
//! <https://sqlite.org/c3ref/progress_handler.html>. A statement that is interrupted there ends its transaction:
//! <https://sqlite.org/c3ref/interrupt.html>. A statement that is a transaction by itself has committed before that last call. So
//! it is not interrupted after its commit hook: <https://sqlite.org/c3ref/commit_hook.html>. A single step, such as a function
//! call, is never interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

/// Steps between two checks: some milliseconds.
const STEPS_PER_CHECK: i32 = 1_000_000;

/// More checks than any statement lasts.
const UNBOUNDED: u64 = u64::MAX;

/// How many checks the statement that runs on a connection may still pass.
#[derive(Clone, Debug)]
pub(in crate::store) struct Budget {
    checks: Arc<AtomicU64>,
}

impl Budget {
    pub(in crate::store) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let checks = Arc::new(AtomicU64::new(UNBOUNDED));
        let left = Arc::clone(&checks);
        // A connection runs on one thread at a time, so no other thread changes the count.
        let spend = move || match left.load(Ordering::Relaxed).checked_sub(1) {
            Some(rest) => {
                left.store(rest, Ordering::Relaxed);
                false
            }
            None => true,
        };
        connection.progress_handler(STEPS_PER_CHECK, Some(spend))?;
        let left = Arc::clone(&checks);
        let commit = move || {
            left.store(UNBOUNDED, Ordering::Relaxed);
            false
        };
        connection.commit_hook(Some(commit))?;
        Ok(Self { checks })
    }

    /// Interrupts a statement that takes more than `max_steps` in the call, at the latest two million steps later. A statement
    /// that takes fewer is never interrupted. Outside the call there is no limit.
    pub(in crate::store) fn within<T>(&self, max_steps: u64, run: impl FnOnce() -> T) -> T {
        /// Also when the call panics, or the connection would interrupt catchment's own statements.
        struct Unbounded<'a>(&'a AtomicU64);
        impl Drop for Unbounded<'_> {
            fn drop(&mut self) {
                self.0.store(UNBOUNDED, Ordering::Relaxed);
            }
        }
        // The first check may come at once.
        self.checks.store(max_steps.div_ceil(STEPS_PER_CHECK.unsigned_abs().into()), Ordering::Relaxed);
        let _unbounded = Unbounded(&self.checks);
        run()
    }
}
