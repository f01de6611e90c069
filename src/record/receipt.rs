//! What `record` gives back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::desk::{Desk, Entry, Outcome};
use super::tray::Tray;
use super::{Destination, RecordError, RecordMetadata};
use crate::deadline;
use crate::event::Event;

/// Tells when an event is kept, and where. Dropping it is fine: the event goes its way.
#[derive(Debug)]
pub struct Receipt(Way);

/// Who knows what becomes of the event.
#[derive(Debug)]
enum Way {
    Desk(AtDesk),
    Tray(InTray),
    Committed,
}

#[derive(Debug)]
struct AtDesk {
    desk: Arc<Desk>,
    entry: Arc<Entry>,
    kind: ReceiptKind,
}

#[derive(Debug)]
struct InTray {
    tray: Arc<Tray>,
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
    pub(super) fn from_desk(desk: Arc<Desk>, entry: Arc<Entry>, kind: ReceiptKind) -> Self {
        Self(Way::Desk(AtDesk { desk, entry, kind }))
    }

    /// The event is only there to be given back.
    pub(super) fn from_tray(tray: Arc<Tray>, number: u64, event: Event) -> Self {
        Self(Way::Tray(InTray { tray, number, event: Some(event) }))
    }

    pub(super) fn committed() -> Self {
        Self(Way::Committed)
    }

    /// What this receipt promises.
    #[must_use]
    pub fn kind(&self) -> ReceiptKind {
        match &self.0 {
            Way::Desk(at) => at.kind,
            Way::Tray(_) | Way::Committed => ReceiptKind::Committed,
        }
    }

    /// Whether it is known what became of the event. Does not block.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match &self.0 {
            Way::Desk(AtDesk { entry, .. }) => entry.outcome.get().is_some(),
            Way::Tray(InTray { tray, number, .. }) => tray.is_settled(*number),
            Way::Committed => true,
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
            Way::Committed => Ok(RecordMetadata { destination: Destination::Database }),
            Way::Tray(mut at) => match at.tray.wait_for(at.number, until) {
                None => Err(WaitError::Pending(Self(Way::Tray(at)))),
                Some(Ok(())) => Ok(RecordMetadata { destination: Destination::Database }),
                Some(Err(reason)) => {
                    at.tray.gave_back();
                    let event = Box::new(at.event.take().unwrap_or_default());
                    Err(WaitError::Failed(RecordError { event, reason }))
                }
            },
            Way::Desk(at) => {
                at.desk.wait_for(&at.entry, until);
                match at.entry.outcome.get() {
                    None => Err(WaitError::Pending(Self(Way::Desk(at)))),
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

impl Drop for InTray {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.tray.release(self.number, event);
        }
    }
}

impl Drop for AtDesk {
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
