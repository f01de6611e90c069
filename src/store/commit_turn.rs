//! Whose turn it is to write: the writers of a collector, and what else of this process writes its database.
//!
//! Two connections of a process that write by turns find SQLite's lock taken and sleep, longer each time; one of them may starve. Here
//! a thread that waits is woken as soon as the other one has committed.

use std::sync::Arc;

use parking_lot::{FairMutex, FairMutexGuard};

/// The turn to write. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct CommitTurn(Arc<FairMutex<()>>);

impl CommitTurn {
    /// Waits for the turn. It ends when the guard is dropped; who has waited longest is next.
    pub(super) fn take(&self) -> FairMutexGuard<'_, ()> {
        self.0.lock()
    }
}
