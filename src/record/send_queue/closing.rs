//! Flushing and closing a send queue.

use std::time::Instant;

use super::SendQueue;
use super::entry::Outcome;
use super::state::unlock_and_log;
use crate::record::{FailureReason, FlushError};

impl SendQueue {
    /// Accepts no more events. The events in it are still sent.
    pub(in crate::record) fn close(&self) {
        self.state.lock().closed = true;
        self.has_room.notify_all();
        self.has_events.notify_all();
        self.wake_sender();
    }

    /// Accepts no more events, sends none, and fails all pending ones: with [`FailureReason::Closed`] where it is known that they are
    /// not stored, with [`FailureReason::Unconfirmed`] where they were sent. Returns how many were pending. Those whose receipts
    /// were dropped are all kept for [`SendQueue::failures`]: the buffer's limits apply to them already.
    pub(in crate::record) fn abandon(&self) -> usize {
        let mut state = self.state.lock();
        state.closed = true;
        state.connection += 1;
        let pending = std::mem::take(&mut state.pending);
        let count = pending.len();
        (state.bytes, state.in_flight) = (0, (0, 0));
        state.forget_again();
        state.lines.clear();
        (state.refused, state.refusal) = (0, None);
        for pending in pending.into_values() {
            let sent = pending.sent;
            let reason = sent.map_or(FailureReason::Closed, |sent| FailureReason::Unconfirmed(sent.first.elapsed()));
            if let Some(failure) = state.set_outcome(pending.entry, Outcome::Failed(reason)) {
                state.failures.keep_last(failure);
            }
        }
        self.notify_waiters(&state);
        self.wake_sender();
        count
    }

    /// Blocks until every event enqueued so far has an outcome.
    pub(in crate::record) fn flush(&self, until: Instant) -> Result<(), FlushError> {
        let mut state = self.state.lock();
        let target = state.next;
        while state.has_pending_below(target) {
            if self.settled.wait_until(&mut state, until).timed_out() && state.has_pending_below(target) {
                let waiting = state.pending.range(..target).count();
                return Err(FlushError::Deadline { waiting, trouble: state.trouble.clone() });
            }
        }
        drop(state);
        self.failures()
    }

    /// The failures that were not reported yet.
    pub(in crate::record) fn failures(&self) -> Result<(), FlushError> {
        let mut state = self.state.lock();
        let failed = state.failures.take();
        let trouble = state.trouble.clone();
        unlock_and_log(state);
        if failed.is_empty() { Ok(()) } else { Err(FlushError::Failed { failed, trouble }) }
    }
}
