//! How waiting ends: when all is settled, at a deadline, or with the recorder.

use std::time::Instant;

use super::entry::Outcome;
use super::{SendQueue, conclude, leave};
use crate::record::{FailureReason, FlushError};

impl SendQueue {
    /// Takes nothing in any more. What waits goes on being sent.
    pub(in crate::record) fn close(&self) {
        self.state.lock().closed = true;
        self.room.notify_all();
        self.to_send.notify_all();
        self.wake();
    }

    /// Takes nothing in any more, gives nothing to any connection, and fails all that waits: with [`FailureReason::Closed`] what is
    /// known not to be stored, with [`FailureReason::Unconfirmed`] what was sent. Returns how many events waited. All of those
    /// whose receipts are gone are kept for [`SendQueue::failures`]: there are no more than the buffer holds.
    pub(in crate::record) fn abandon(&self) -> usize {
        let mut state = self.state.lock();
        state.closed = true;
        state.connection += 1;
        let waiting = std::mem::take(&mut state.waiting);
        let count = waiting.len();
        (state.bytes, state.under_way) = (0, (0, 0));
        state.again.clear();
        for waiting in waiting.into_values() {
            let sent = waiting.sent;
            let reason = sent.map_or(FailureReason::Closed, |sent| FailureReason::Unconfirmed(sent.first.elapsed()));
            if let Some(failure) = conclude(&mut state.counts, waiting.entry, Outcome::Failed(reason)) {
                state.failures.keep_last(failure);
            }
        }
        self.tell();
        self.wake();
        count
    }

    /// Blocks until everything handed in so far is settled.
    pub(in crate::record) fn flush(&self, until: Instant) -> Result<(), FlushError> {
        let mut state = self.state.lock();
        let target = state.next;
        while state.is_waiting_below(target) {
            if self.settled.wait_until(&mut state, until).timed_out() && state.is_waiting_below(target) {
                let waiting = state.waiting.range(..target).count();
                return Err(FlushError::Deadline { waiting, trouble: state.trouble.clone() });
            }
        }
        drop(state);
        self.failures()
    }

    /// The failures that nobody was told of yet.
    pub(in crate::record) fn failures(&self) -> Result<(), FlushError> {
        let mut state = self.state.lock();
        let failed = state.failures.take();
        let trouble = state.trouble.clone();
        leave(state);
        if failed.is_empty() { Ok(()) } else { Err(FlushError::Failed { failed, trouble }) }
    }
}
