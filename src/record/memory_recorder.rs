//! A recorder for tests of code that records.

use std::time::Duration;

use parking_lot::Mutex;

use super::recorder::{Sealed, valid};
use super::{Destination, FailureReason, FlushError, Receipt, RecordError, Recorder};
use crate::event::Event;
use crate::pipeline::Health;

/// Keeps events in memory, for tests of your own code. It needs neither a broker nor a file, and can be made to fail.
///
/// Its receipts are settled at once, with [`Destination::Database`]. Nothing limits how many events it keeps.
///
/// ```
/// use catchment::record::FailureReason;
/// use catchment::testing::MemoryRecorder;
/// use catchment::{Event, Recorder};
///
/// /// What is to be tested: returns whether the event was recorded.
/// fn open_door(recorder: &dyn Recorder) -> bool {
///     recorder.record(Event::new("events.door", "open")).is_ok()
/// }
///
/// let recorder = MemoryRecorder::new();
/// assert!(open_door(&recorder));
/// assert_eq!(recorder.events(), [Event::new("events.door", "open")]);
/// recorder.fail_with(FailureReason::NoStream);
/// assert!(!open_door(&recorder));
/// ```
#[derive(Debug, Default)]
pub struct MemoryRecorder(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    failure: Option<FailureReason>,
    closed: bool,
}

impl MemoryRecorder {
    /// A recorder without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The events recorded so far, in the order of the calls.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().events.clone()
    }

    /// From now on, refuses each event with this reason; with `None`, accepts events again.
    pub fn fail_with(&self, reason: impl Into<Option<FailureReason>>) {
        self.0.lock().failure = reason.into();
    }
}

impl Sealed for MemoryRecorder {}

impl Recorder for MemoryRecorder {
    /// Keeps the event. Does not block. An event that is not valid is refused as by the other recorders.
    fn record(&self, event: Event) -> Result<Receipt, RecordError> {
        let event = valid(event)?;
        let mut state = self.0.lock();
        if state.closed {
            return Err(RecordError::new(event, FailureReason::Closed));
        }
        if let Some(reason) = state.failure.clone() {
            return Err(RecordError::new(event, reason));
        }
        state.events.push(event);
        Ok(Receipt::settled(Destination::Database))
    }

    /// Returns at once.
    fn flush(&self, _timeout: Duration) -> Result<(), FlushError> {
        Ok(())
    }

    /// Refuses further events. The events stay.
    fn close(&self, _timeout: Duration) -> Result<(), FlushError> {
        self.0.lock().closed = true;
        Ok(())
    }

    /// Always well.
    fn health(&self) -> Health {
        Health::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refuses_what_the_other_recorders_refuse() {
        let recorder = MemoryRecorder::new();
        let refused = recorder.record(Event::new("a..b", "x")).expect_err("it is not valid");
        assert!(matches!(refused.reason, FailureReason::Invalid(_)), "{refused}");
        recorder.fail_with(FailureReason::NoStream);
        assert_eq!(recorder.record(Event::new("a", "x")).expect_err("it fails").reason, FailureReason::NoStream);
        recorder.fail_with(None);
        let receipt = recorder.record(Event::new("a", "x")).expect("it works again");
        assert!(receipt.is_settled() && receipt.wait(Duration::ZERO).is_ok());
        recorder.close(Duration::ZERO).expect("closes");
        assert_eq!(recorder.record(Event::new("a", "y")).expect_err("closed").reason, FailureReason::Closed);
        assert_eq!(recorder.events(), [Event::new("a", "x")]);
    }
}
