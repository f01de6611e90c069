//! Counts the frames in the WAL: how large it is after each commit.

use std::cell::Cell;

use rusqlite::Connection;

thread_local! {
    /// The number after this thread's last commit. SQLite's hook, a plain function, has no other place for it.
    static FRAMES: Cell<u32> = const { Cell::new(0) };
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
