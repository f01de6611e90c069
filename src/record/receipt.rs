//! The receipt of an event.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::commit_queue::CommitQueue;
use super::errors::because;
use super::send_queue::{Entry, Outcome, SendQueue};
use super::stream_outcomes::StreamOutcomes;
use super::{Destination, FailureReason, RecordError, RecordMetadata};
use crate::deadline;
use crate::event::Event;
use crate::printable;

/// Reports when and where an event is recorded. A receipt can be dropped: the event is recorded all the same, and if it fails,
/// [`Recorder::flush`](super::Recorder::flush) returns it.
pub struct Receipt(ReceiptState);

enum ReceiptState {
    InSendQueue(InSendQueue),
    InCommitQueue(InCommitQueue),
    InSpool(Box<InSpool>),
    Settled(Destination),
}

struct InSendQueue {
    queue: Arc<SendQueue>,
    entry: Arc<Entry>,
    kind: ReceiptKind,
}

struct InCommitQueue {
    queue: Arc<CommitQueue>,
    number: u64,
    /// No row is written for it.
    is_dropped: bool,
    /// `None` once it was given back.
    event: Option<Event>,
}

struct InSpool {
    commit: InCommitQueue,
    /// The event's position in the spool.
    position: u64,
    outcomes: Arc<StreamOutcomes>,
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = match &self.0 {
            ReceiptState::InSendQueue(InSendQueue { entry, .. }) => Some(&*entry.event),
            ReceiptState::InCommitQueue(InCommitQueue { event, .. }) => event.as_ref(),
            ReceiptState::InSpool(at) => at.commit.event.as_ref(),
            ReceiptState::Settled(_) => None,
        };
        let mut receipt = f.debug_struct("Receipt");
        receipt.field("kind", &self.kind()).field("is_settled", &self.is_settled()).field("event", &event).finish()
    }
}

/// What "recorded" means for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiptKind {
    /// Stored by the stream; the collector will bring it into the database. How durable it is until then depends on the stream's
    /// replicas and storage, and on how often the server syncs (every two minutes by default,
    /// <https://docs.nats.io/running-a-nats-service/configuration#jetstream>).
    StoredByStream,
    /// Read by a server without a stream (core NATS): the server has answered a flush that was sent after the event, and has
    /// passed the event on to the subscribers. Nothing confirms that there are any or that they stored it: at most once.
    HandedToBroker,
    /// Committed in the database, or dropped as the settings say ([`Destination::Dropped`]). How durable that is depends on its
    /// `synchronous`: with `full`, it is on the disk.
    Committed,
    /// Kept in the spool: on the disk. [`Receipt::wait_for_stream`] reports when it is in the stream too.
    Spooled,
}

impl Receipt {
    pub(super) fn in_send_queue(queue: Arc<SendQueue>, entry: Arc<Entry>, kind: ReceiptKind) -> Self {
        Self(ReceiptState::InSendQueue(InSendQueue { queue, entry, kind }))
    }

    /// The receipt holds the event only to give it back. `is_dropped`: no route takes it.
    pub(super) fn in_commit_queue(queue: Arc<CommitQueue>, number: u64, is_dropped: bool, event: Event) -> Self {
        Self(ReceiptState::InCommitQueue(InCommitQueue { queue, number, is_dropped, event: Some(event) }))
    }

    /// As [`Receipt::in_commit_queue`], for an event that is forwarded from its position in a spool.
    pub(super) fn in_spool(
        queue: Arc<CommitQueue>,
        number: u64,
        event: Event,
        position: u64,
        outcomes: Arc<StreamOutcomes>,
    ) -> Self {
        let commit = InCommitQueue { queue, number, is_dropped: false, event: Some(event) };
        Self(ReceiptState::InSpool(Box::new(InSpool { commit, position, outcomes })))
    }

    pub(super) fn settled(destination: Destination) -> Self {
        Self(ReceiptState::Settled(destination))
    }

    /// What "recorded" means for this event. Does not block.
    #[must_use]
    pub fn kind(&self) -> ReceiptKind {
        match &self.0 {
            ReceiptState::InSendQueue(at) => at.kind,
            ReceiptState::InSpool(_) => ReceiptKind::Spooled,
            ReceiptState::InCommitQueue(_) | ReceiptState::Settled(_) => ReceiptKind::Committed,
        }
    }

    /// Whether the event is recorded or has failed. Does not block.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match &self.0 {
            ReceiptState::InSendQueue(InSendQueue { entry, .. }) => entry.outcome.get().is_some(),
            ReceiptState::InCommitQueue(InCommitQueue { queue, number, .. }) => queue.is_settled(*number),
            ReceiptState::InSpool(at) => at.commit.queue.is_settled(at.commit.number),
            ReceiptState::Settled(_) => true,
        }
    }

    /// The event's subject, for an error. `None` where the event is recorded, or was given back.
    fn subject(&self) -> Option<&str> {
        match &self.0 {
            ReceiptState::InSendQueue(at) => Some(at.entry.event.subject()),
            ReceiptState::InCommitQueue(at) => at.event.as_ref().map(Event::subject),
            ReceiptState::InSpool(at) => at.commit.event.as_ref().map(Event::subject),
            ReceiptState::Settled(_) => None,
        }
    }

    /// What prevents events from being recorded at the moment, if anything.
    fn trouble(&self) -> Option<String> {
        match &self.0 {
            ReceiptState::InSendQueue(at) => at.queue.trouble(),
            ReceiptState::InCommitQueue(at) => at.queue.trouble(),
            ReceiptState::InSpool(at) => at.commit.queue.trouble().or_else(|| at.outcomes.trouble()),
            ReceiptState::Settled(_) => None,
        }
    }

    /// Blocks until the event is recorded or has failed, at most for `timeout`, and returns whether it is. The receipt stays: then
    /// [`Receipt::wait`] does not block.
    #[must_use]
    pub fn wait_settled(&self, timeout: Duration) -> bool {
        let until = deadline::after(timeout);
        match &self.0 {
            ReceiptState::InSendQueue(at) => at.queue.wait_for(&at.entry, until),
            ReceiptState::InCommitQueue(at) => drop(at.queue.wait_for(at.number, until)),
            ReceiptState::InSpool(at) => drop(at.commit.queue.wait_for(at.commit.number, until)),
            ReceiptState::Settled(_) => {}
        }
        self.is_settled()
    }

    /// Blocks until the event is in the stream or has failed, at most for `timeout`. From a
    /// [`SpooledRecorder`](super::SpooledRecorder), that is later than [`Receipt::wait`]: the broker may be away for days. For the events
    /// of other recorders, this is [`Receipt::wait`].
    ///
    /// # Errors
    ///
    /// [`WaitError::Failed`] with the event in it: it was not recorded, or it was given up and is kept in the spool as a dead letter.
    /// [`WaitError::Pending`] with the receipt, where `timeout` is over, or the recorder was closed: then the event is kept in the
    /// spool and forwarded at the next start.
    pub fn wait_for_stream(self, timeout: Duration) -> Result<RecordMetadata, WaitError> {
        let until = deadline::after(timeout);
        let ReceiptState::InSpool(mut at) = self.0 else { return self.wait(timeout) };
        match at.commit.queue.wait_for(at.commit.number, until) {
            None => Err(WaitError::Pending(Self(ReceiptState::InSpool(at)))),
            Some(Err(reason)) => Err(WaitError::Failed(at.commit.failed(reason))),
            Some(Ok(())) => match at.outcomes.wait(at.position, until) {
                None => Err(WaitError::Pending(Self(ReceiptState::InSpool(at)))),
                Some(Ok(metadata)) => Ok(metadata),
                Some(Err(reason)) => {
                    let event = at.commit.event.take().unwrap_or_default();
                    Err(WaitError::Failed(RecordError::new(event, reason)))
                }
            },
        }
    }

    /// Blocks until the event is recorded or has failed, at most for `timeout`; with [`Duration::ZERO`] it does not block. An event
    /// of [`ReceiptKind::StoredByStream`] is in the stream then, one of [`ReceiptKind::Committed`] in the database, and one of
    /// [`ReceiptKind::Spooled`] on the disk.
    ///
    /// # Errors
    ///
    /// [`WaitError::Failed`] with the event in it. [`WaitError::Pending`] with the receipt, where `timeout` is over.
    pub fn wait(self, timeout: Duration) -> Result<RecordMetadata, WaitError> {
        let until = deadline::after(timeout);
        match self.0 {
            ReceiptState::Settled(destination) => Ok(RecordMetadata { destination }),
            ReceiptState::InCommitQueue(mut at) => match at.queue.wait_for(at.number, until) {
                None => Err(WaitError::Pending(Self(ReceiptState::InCommitQueue(at)))),
                Some(Ok(())) => Ok(RecordMetadata { destination: in_database(at.is_dropped) }),
                Some(Err(reason)) => Err(WaitError::Failed(at.failed(reason))),
            },
            ReceiptState::InSpool(mut at) => match at.commit.queue.wait_for(at.commit.number, until) {
                None => Err(WaitError::Pending(Self(ReceiptState::InSpool(at)))),
                Some(Ok(())) => Ok(RecordMetadata { destination: Destination::Spool }),
                Some(Err(reason)) => Err(WaitError::Failed(at.commit.failed(reason))),
            },
            ReceiptState::InSendQueue(at) => {
                at.queue.wait_for(&at.entry, until);
                match at.entry.outcome.get() {
                    None => Err(WaitError::Pending(Self(ReceiptState::InSendQueue(at)))),
                    Some(Outcome::Recorded(metadata)) => Ok(metadata.clone()),
                    Some(Outcome::Failed(reason)) => {
                        at.entry.reported.store(true, Ordering::Relaxed);
                        Err(WaitError::Failed(RecordError::new((*at.entry.event).clone(), reason.clone())))
                    }
                }
            }
        }
    }
}

/// Where an event is that a direct recorder has committed.
pub(super) fn in_database(is_dropped: bool) -> Destination {
    if is_dropped { Destination::Dropped } else { Destination::Database }
}

impl InCommitQueue {
    /// Gives the event back, which was not committed.
    fn failed(&mut self, reason: FailureReason) -> RecordError {
        self.queue.given_back();
        RecordError::new(self.event.take().unwrap_or_default(), reason)
    }
}

impl Drop for InSpool {
    fn drop(&mut self) {
        self.outcomes.forget(self.position);
    }
}

impl Drop for InCommitQueue {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.queue.receipt_dropped(self.number, event);
        }
    }
}

impl Drop for InSendQueue {
    fn drop(&mut self) {
        self.queue.receipt_dropped(&self.entry);
    }
}

/// Why [`Receipt::wait`] returned no metadata.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The event was not recorded.
    #[error(transparent)]
    Failed(RecordError),
    /// The event is neither recorded nor failed yet. The receipt can be waited for again. The message also says what is wrong with
    /// the broker or the database, if anything, at the time it is written.
    #[error(
        "event on {} not confirmed yet{}",
        printable(.0.subject().unwrap_or_default()),
        because(.0.trouble().as_deref())
    )]
    Pending(Receipt),
}
