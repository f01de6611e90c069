//! What all recorders can do.

use std::time::Duration;

use super::errors::{FailureReason, FlushError, RecordError};
use super::receipt::Receipt;
use crate::event::Event;
use crate::pipeline::Health;

/// How long dropping a recorder may go on recording what it has.
pub(super) const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// The event, if it can be recorded at all.
pub(super) fn valid(event: Event) -> Result<Event, RecordError> {
    match event.validate() {
        Ok(()) => Ok(event),
        Err(invalid) => Err(RecordError::new(event, FailureReason::Invalid(invalid))),
    }
}

/// Logs what became of the events of a recorder that was dropped.
pub(super) fn log_dropped(ended: Result<(), FlushError>) {
    if let Err(error) = ended {
        log::error!(event = "recorder.dropped", error:% = error; "recorder: dropped with {error}");
    }
}

/// Records events. An application chooses its recorder where it makes it; the rest of its code uses this trait.
///
/// Threads share a recorder by reference or in an `Arc`, also as `Arc<dyn Recorder>`. All functions take `&self`, so any of the
/// threads can close it.
///
/// Only this crate can implement the trait, so that later versions can add functions to it. For tests of your own code there is
/// [`MemoryRecorder`](super::MemoryRecorder), which needs neither a broker nor a file and can be made to fail.
///
/// ```
/// use catchment::testing::MemoryRecorder;
/// use catchment::{Event, Recorder};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// let recorder: Arc<dyn Recorder> = Arc::new(MemoryRecorder::new()); // or a NatsRecorder, DirectRecorder, SpooledRecorder
/// let of_a_thread = Arc::clone(&recorder);
/// std::thread::spawn(move || of_a_thread.record(Event::new("events.door", "open")).map(drop))
///     .join()
///     .expect("no panic")?;
/// recorder.close(Duration::from_secs(5))?;
/// assert!(recorder.record(Event::new("events.door", "shut")).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Recorder: Sealed + Send + Sync {
    /// Passes an event to the recorder. The receipt reports when and where the event is recorded. Each recorder documents whether
    /// this blocks.
    ///
    /// # Errors
    ///
    /// [`RecordError`] with the event in it: it is not valid or too large, the buffer has no room for it, or the recorder is closed.
    /// From a [`DirectRecorder`](super::DirectRecorder) also: with [`CommitMode::PerEvent`](super::CommitMode::PerEvent) the database
    /// did not store it; with [`CommitMode::Grouped`](super::CommitMode::Grouped) an earlier error ended the recorder.
    fn record(&self, event: Event) -> Result<Receipt, RecordError>;

    /// Blocks until it is known of every event passed in before this call whether it is recorded, at most for `timeout`. Also
    /// reports events that failed since the last call.
    ///
    /// # Errors
    ///
    /// [`FlushError::Failed`] with the events that are not recorded and whose receipts were dropped. [`FlushError::Deadline`] where
    /// `timeout` is over: those events may still be recorded.
    fn flush(&self, timeout: Duration) -> Result<(), FlushError>;

    /// Accepts no more events, records those in the buffer, and ends: threads, connections and the lock on the database are
    /// released, except a thread that hangs: it ends later by itself. Blocks at most for `timeout`. Calls of [`Recorder::record`]
    /// that come later return [`FailureReason::Closed`](super::FailureReason::Closed). Closing a closed recorder does nothing; where
    /// several threads close it at a time, the shortest `timeout` counts.
    ///
    /// An event that is not recorded by then comes back: from its receipt where that still exists, otherwise in the error. Where the
    /// event may be stored all the same, [`FailureReason::may_be_stored`](super::FailureReason::may_be_stored) is true.
    ///
    /// # Errors
    ///
    /// [`FlushError::Failed`] with the events whose receipts were dropped; [`FlushError::Deadline`] where the receipts of all of
    /// them still exist.
    fn close(&self, timeout: Duration) -> Result<(), FlushError>;

    /// What prevents events from being recorded at the moment, and since when. Does not block.
    fn health(&self) -> Health;
}

/// Keeps other crates from implementing [`Recorder`].
pub trait Sealed {}
