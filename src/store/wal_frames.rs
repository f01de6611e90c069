//! Counts the frames in the WAL: how large it is after each commit.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;

thread_local! {
    /// The number after this thread's last commit. SQLite's hook, a plain function, has no other place for it.
    static FRAMES: Cell<u32> = const { Cell::new(0) };
}

/// How many frames the WAL has.
#[derive(Debug, Default)]
pub struct WalFrames {
    /// Frames in it after the last commit.
    pub(super) written: AtomicU32,
    /// How many of them are copied into the database.
    pub(super) copied: AtomicU32,
}

impl WalFrames {
    /// How many frames it has after the last commit, and how many of them are copied into the database.
    #[must_use]
    pub fn now(&self) -> (u32, u32) {
        let written = self.written.load(Ordering::Relaxed);
        (written, self.copied.load(Ordering::Relaxed).min(written))
    }
}

/// Counts the frames in this connection's commits. SQLite then runs no checkpoint in them:
/// <https://sqlite.org/c3ref/wal_hook.html>.
pub(super) fn count(connection: &Connection) {
    connection.wal_hook(Some(|_, frames| {
        FRAMES.set(u32::try_from(frames).unwrap_or_default());
        Ok(())
    }));
}

/// The number of frames after the last commit of this thread; 0 if it was returned before.
pub(super) fn take() -> u32 {
    FRAMES.take()
}
