//! What `record` gives back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::desk::{Desk, Entry, Outcome};
use super::{Reason, RecordError, Recorded};

/// Tells when an event is kept, and where. Dropping it is fine: the event goes its way.
#[derive(Debug)]
pub struct Receipt {
    pub(super) desk: Arc<Desk>,
    pub(super) entry: Arc<Entry>,
}

/// What "kept" means for a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Stored by the stream: the collector will bring it into the database. How safe it is until then is the stream's
    /// matter: replicas, storage, and how often the server syncs (every two minutes by default,
    /// <https://docs.nats.io/running-a-nats-service/configuration#jetstream>).
    StoredByStream,
}

impl Receipt {
    /// What this receipt promises.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::StoredByStream
    }

    /// Whether it is known what became of the event. Does not block.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.entry.outcome.get().is_some()
    }

    /// Blocks until it is known what became of the event, at most for `patience`; the receipt is given back when that is
    /// not enough.
    ///
    /// # Errors
    ///
    /// [`WaitError::Failed`] with the event in it; [`WaitError::Pending`] with the receipt.
    pub fn wait(self, patience: Duration) -> Result<Recorded, WaitError> {
        self.desk.wait_for(&self.entry, Instant::now() + patience);
        match self.entry.outcome.get() {
            None => Err(WaitError::Pending(self)),
            Some(Outcome::Kept(recorded)) => Ok(recorded.clone()),
            Some(Outcome::Failed(reason)) => {
                self.entry.told.store(true, Ordering::Relaxed);
                Err(WaitError::Failed(self.failure(reason)))
            }
        }
    }

    fn failure(&self, reason: &Reason) -> RecordError {
        RecordError { event: Box::new((*self.entry.event).clone()), reason: reason.clone() }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.desk.release(&self.entry);
    }
}

/// A receipt that cannot be honoured, or not yet.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The event is not kept.
    #[error(transparent)]
    Failed(RecordError),
    /// Not known yet; the event is still on its way.
    #[error("not confirmed yet")]
    Pending(Receipt),
}
