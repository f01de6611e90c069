//! Interrupts what a connection does, and the opening of a database: migrations may take long.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use parking_lot::Mutex;
use rusqlite::{Connection, InterruptHandle};

use crate::error::{DatabaseFault, Error};

/// How often to call `keep_going`.
const CHECK: Duration = Duration::from_millis(20);

/// The thread of the work.
const THREAD: &str = "catchment-open";

/// Interrupts the opening of a database from another thread.
#[derive(Default)]
pub(super) struct OpeningInterrupter {
    connections: Mutex<Vec<InterruptHandle>>,
    is_interrupted: AtomicBool,
}

impl OpeningInterrupter {
    /// Interrupts the statements that run now, and so rolls unfinished migrations back. Does not block. A statement that begins
    /// afterwards is not interrupted, so this has to be called again until the opening has ended.
    fn interrupt(&self) {
        self.is_interrupted.store(true, Ordering::Relaxed);
        self.connections.lock().iter().for_each(InterruptHandle::interrupt);
    }

    /// From now on, this connection's statements are interrupted too.
    pub(super) fn add(&self, connection: &Connection) {
        self.connections.lock().push(connection.get_interrupt_handle());
    }

    /// Whether the work is to end.
    pub(super) fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::Relaxed)
    }

    /// Fails if the work is to end: to be called before a commit.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with [`DatabaseFault::Interrupted`].
    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        if self.is_interrupted() { Err(interrupted(path, "it was interrupted")) } else { Ok(()) }
    }
}

/// To be called before a connection is closed that another thread may have interrupted. An interrupt is in force until the next statement
/// begins (<https://sqlite.org/c3ref/interrupt.html>). It would end the checkpoint of the last connection to close, and so leave commits in
/// a `-wal` file that nobody uses.
pub(super) fn end_interrupt(connection: &Connection) {
    let _ = connection.query_row("SELECT 1", [], |_| Ok(()));
}

/// The error of work that was interrupted.
pub(super) fn interrupted(path: &Path, detail: &str) -> Error {
    Error::database(DatabaseFault::Interrupted, path, detail)
}

/// Does the work on a thread of its own. Calls `keep_going` several times a second, and interrupts the work once that has returned `false`.
/// Returns `None` where the work has failed after that.
///
/// # Errors
///
/// Those of the work; [`Error::Thread`].
pub(super) fn work_while<T: Send>(
    keep_going: &dyn Fn() -> bool,
    work: impl FnOnce(&OpeningInterrupter) -> Result<T, Error> + Send,
) -> Result<Option<T>, Error> {
    let interrupter = OpeningInterrupter::default();
    let (done, is_done) = crossbeam_channel::bounded::<()>(0);
    let mut goes_on = true;
    let ended = std::thread::scope(|scope| {
        let work = || {
            // Dropped at the end, panics included.
            let _done = done;
            work(&interrupter)
        };
        let working = std::thread::Builder::new().name(THREAD.into()).spawn_scoped(scope, work);
        let working = working.map_err(|source| Error::Thread { name: THREAD.into(), source })?;
        while is_done.recv_timeout(CHECK) == Err(RecvTimeoutError::Timeout) {
            goes_on = goes_on && keep_going();
            if !goes_on {
                interrupter.interrupt();
            }
        }
        working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    match ended {
        Err(_) if !goes_on => Ok(None),
        ended => ended.map(Some),
    }
}
