//! What `record` gives back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::commit_queue::CommitQueue;
use super::send_queue::{Entry, Outcome, SendQueue};
use super::{Destination, RecordError, RecordMetadata};
use crate::deadline;
use crate::event::Event;

/// Tells when an event is kept, and where. Dropping it is fine: the event goes its way.
#[derive(Debug)]
pub struct Receipt(ReceiptState);

/// Who knows what becomes of the event.
#[derive(Debug)]
enum ReceiptState {
    InSendQueue(InSendQueue),
    InCommitQueue(InCommitQueue),
    Committed,
}

#[derive(Debug)]
struct InSendQueue {
    queue: Arc<SendQueue>,
    entry: Arc<Entry>,
    kind: ReceiptKind,
}

#[derive(Debug)]
struct InCommitQueue {
    queue: Arc<CommitQueue>,
    number: u64,
    /// Gone once it is known what became of it.
    event: Option<Event>,
}

/// What "kept" means for a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiptKind {
    /// Stored by the stream: the collector will bring it into the database. How safe it is until then is the stream's
    /// matter: replicas, storage, and how often the server syncs (every two minutes by default,
    /// <https://docs.nats.io/running-a-nats-service/configuration#jetstream>).
    StoredByStream,
    /// Handed to a broker without a stream (core NATS): the server has read it, for it has answered a flush behind it, and
    /// passed it on to whoever listened. Nobody says that anybody did, or stored it: at most once.
    HandedToBroker,
    /// Committed by the database, with its `synchronous`: `full` is on the disk.
    Committed,
}

impl Receipt {
    pub(super) fn in_send_queue(queue: Arc<SendQueue>, entry: Arc<Entry>, kind: ReceiptKind) -> Self {
        Self(ReceiptState::InSendQueue(InSendQueue { queue, entry, kind }))
    }

    /// The event is only there to be given back.
    pub(super) fn in_commit_queue(queue: Arc<CommitQueue>, number: u64, event: Event) -> Self {
        Self(ReceiptState::InCommitQueue(InCommitQueue { queue, number, event: Some(event) }))
    }

    pub(super) fn committed() -> Self {
        Self(ReceiptState::Committed)
    }

    /// What this receipt promises.
    #[must_use]
    pub fn kind(&self) -> ReceiptKind {
        match &self.0 {
            ReceiptState::InSendQueue(at) => at.kind,
            ReceiptState::InCommitQueue(_) | ReceiptState::Committed => ReceiptKind::Committed,
        }
    }

    /// Whether it is known what became of the event. Does not block.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match &self.0 {
            ReceiptState::InSendQueue(InSendQueue { entry, .. }) => entry.outcome.get().is_some(),
            ReceiptState::InCommitQueue(InCommitQueue { queue, number, .. }) => queue.is_settled(*number),
            ReceiptState::Committed => true,
        }
    }

    /// Blocks until it is known what became of the event, at most for `patience`; the receipt is given back when that is
    /// not enough.
    ///
    /// # Errors
    ///
    /// [`WaitError::Failed`] with the event in it; [`WaitError::Pending`] with the receipt.
    pub fn wait(self, patience: Duration) -> Result<RecordMetadata, WaitError> {
        let until = deadline::after(patience);
        match self.0 {
            ReceiptState::Committed => Ok(RecordMetadata { destination: Destination::Database }),
            ReceiptState::InCommitQueue(mut at) => match at.queue.wait_for(at.number, until) {
                None => Err(WaitError::Pending(Self(ReceiptState::InCommitQueue(at)))),
                Some(Ok(())) => Ok(RecordMetadata { destination: Destination::Database }),
                Some(Err(reason)) => {
                    at.queue.gave_back();
                    let event = Box::new(at.event.take().unwrap_or_default());
                    Err(WaitError::Failed(RecordError { event, reason }))
                }
            },
            ReceiptState::InSendQueue(at) => {
                at.queue.wait_for(&at.entry, until);
                match at.entry.outcome.get() {
                    None => Err(WaitError::Pending(Self(ReceiptState::InSendQueue(at)))),
                    Some(Outcome::Kept(recorded)) => Ok(recorded.clone()),
                    Some(Outcome::Failed(reason)) => {
                        at.entry.told.store(true, Ordering::Relaxed);
                        let (event, reason) = (Box::new((*at.entry.event).clone()), reason.clone());
                        Err(WaitError::Failed(RecordError { event, reason }))
                    }
                }
            }
        }
    }
}

impl Drop for InCommitQueue {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.queue.release(self.number, event);
        }
    }
}

impl Drop for InSendQueue {
    fn drop(&mut self) {
        self.queue.release(&self.entry);
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
