//! How much work a statement of a route may be: counted in steps of SQLite's virtual machine, not in time, so that no event is given
//! up for a busy machine or a slow disk.
//!
//! SQLite looks up from a statement every so many steps of its own, counted over all its runs, and once more behind its end:
//! <https://sqlite.org/c3ref/progress_handler.html>. One that is then interrupted ends its transaction:
//! <https://sqlite.org/c3ref/interrupt.html>. A statement that is a transaction by itself has committed before that last look; so
//! what has come to its commit, <https://sqlite.org/c3ref/commit_hook.html>, is interrupted no more. What a single step does, a
//! function for instance, is not interrupted either.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

/// Steps from look to look: some milliseconds.
const STEPS_A_LOOK: i32 = 1_000_000;

/// More looks than any statement lasts.
const UNBOUNDED: u64 = u64::MAX;

/// What is left on one connection.
#[derive(Clone, Debug)]
pub(in crate::store) struct Budget {
    looks: Arc<AtomicU64>,
}

impl Budget {
    pub(in crate::store) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let looks = Arc::new(AtomicU64::new(UNBOUNDED));
        let left = Arc::clone(&looks);
        // A connection runs on one thread at a time: nobody else counts.
        let spend = move || match left.load(Ordering::Relaxed).checked_sub(1) {
            Some(rest) => {
                left.store(rest, Ordering::Relaxed);
                false
            }
            None => true,
        };
        connection.progress_handler(STEPS_A_LOOK, Some(spend))?;
        let left = Arc::clone(&looks);
        let commit = move || {
            left.store(UNBOUNDED, Ordering::Relaxed);
            false
        };
        connection.commit_hook(Some(commit))?;
        Ok(Self { looks })
    }

    /// Interrupts a statement that takes more than so many steps in the call, at the latest two million steps later, and never one
    /// that takes fewer. Outside, statements take all they need.
    pub(in crate::store) fn within<T>(&self, most_steps: u64, run: impl FnOnce() -> T) -> T {
        /// Also when the call panics: the connection would interrupt catchment's own statements.
        struct Unbounded<'a>(&'a AtomicU64);
        impl Drop for Unbounded<'_> {
            fn drop(&mut self) {
                self.0.store(UNBOUNDED, Ordering::Relaxed);
            }
        }
        // The first may come at once.
        self.looks.store(most_steps.div_ceil(STEPS_A_LOOK.unsigned_abs().into()), Ordering::Relaxed);
        let _unbounded = Unbounded(&self.looks);
        run()
    }
}
