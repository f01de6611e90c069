//! How much work a statement of a route may be: counted in steps of SQLite's virtual machine, not in time, so that an event's fate
//! hangs on the event alone and not on how busy the machine or how slow the disk is.
//!
//! SQLite looks up from a statement every so many steps: <https://sqlite.org/c3ref/progress_handler.html>. One that is then
//! interrupted ends its transaction: <https://sqlite.org/c3ref/interrupt.html>.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

/// Steps between two looks: some milliseconds.
const STEPS: i32 = 1_000_000;

/// The steps that are left on one connection.
#[derive(Clone, Debug)]
pub(in crate::store) struct Steps(Arc<AtomicU64>);

impl Steps {
    pub(in crate::store) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let counted = Arc::clone(&left);
        // Nobody else counts here while a statement runs.
        let spend = move || match counted.load(Ordering::Relaxed).checked_sub(STEPS.unsigned_abs().into()) {
            Some(rest) => {
                counted.store(rest, Ordering::Relaxed);
                false
            }
            None => true,
        };
        connection.progress_handler(STEPS, Some(spend))?;
        Ok(Self(left))
    }

    /// Interrupts what runs in the call after so many steps, give or take a million. Outside, statements take all they need.
    pub(in crate::store) fn within<T>(&self, most: u64, run: impl FnOnce() -> T) -> T {
        /// Also when the call panics: the connection would interrupt catchment's own statements.
        struct Unbounded<'a>(&'a AtomicU64);
        impl Drop for Unbounded<'_> {
            fn drop(&mut self) {
                self.0.store(u64::MAX, Ordering::Relaxed);
            }
        }
        self.0.store(most, Ordering::Relaxed);
        let _unbounded = Unbounded(&self.0);
        run()
    }
}
