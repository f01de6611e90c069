//! What all recorders can do.

use std::time::Duration;

use super::errors::{FlushError, RecordError};
use super::receipt::Receipt;
use crate::event::Event;
use crate::pipeline::Health;

/// Records events. Threads can share a recorder. An application chooses its recorder where it makes it; the rest of its code
/// uses this trait.
pub trait Recorder: Send + Sync {
    /// Passes an event to the recorder. The receipt tells when and where the event is recorded. Each recorder documents whether
    /// this blocks.
    ///
    /// # Errors
    ///
    /// [`RecordError`] with the event in it: it is not valid or too large, the buffer has no room for it, or the recorder is closed.
    /// From a [`DirectRecorder`](super::DirectRecorder) also: with [`CommitMode::PerEvent`](super::CommitMode::PerEvent) the database
    /// did not store it; with [`CommitMode::Grouped`](super::CommitMode::Grouped) an earlier error ended the recorder.
    fn record(&self, event: Event) -> Result<Receipt, RecordError>;

    /// Blocks until it is known of every event passed in before this call whether it is recorded, at most for `patience`.
    ///
    /// # Errors
    ///
    /// [`FlushError`], with the events that are not recorded and whose receipts were dropped.
    fn flush(&self, patience: Duration) -> Result<(), FlushError>;

    /// What prevents events from being recorded at the moment, and since when. Does not block.
    fn health(&self) -> Health;
}
