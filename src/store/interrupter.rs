//! Interrupts the opening of a database: migrations may take long.

use parking_lot::Mutex;
use rusqlite::{Connection, InterruptHandle};

/// Interrupts the opening of a database from another thread.
#[derive(Default)]
pub struct OpeningInterrupter(Mutex<Vec<InterruptHandle>>);

impl std::fmt::Debug for OpeningInterrupter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpeningInterrupter").finish_non_exhaustive()
    }
}

impl OpeningInterrupter {
    /// Interrupts the statements that run now, and so rolls unfinished migrations back. Does not block. A statement that begins
    /// afterwards is not interrupted, so this has to be called again until the opening has ended.
    pub fn interrupt(&self) {
        self.0.lock().iter().for_each(InterruptHandle::interrupt);
    }

    /// From now on, this connection's statements are interrupted too.
    pub(super) fn add(&self, connection: &Connection) {
        self.0.lock().push(connection.get_interrupt_handle());
    }
}
