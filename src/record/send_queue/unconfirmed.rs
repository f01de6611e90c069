//! Events that were sent and have no answer, and what is needed to find out whether they are stored.

use std::sync::Arc;
use std::time::Duration;

use super::SendQueue;
use super::state::unlock_and_log;
use crate::broker::Outgoing;
use crate::record::FailureReason;

impl SendQueue {
    /// Some subjects of unconfirmed events, which are about to be sent again.
    pub(in crate::record) fn unconfirmed_subjects(&self) -> Vec<String> {
        /// Enough to find the streams.
        const MOST: usize = 32;
        let state = self.state.lock();
        let mut subjects = Vec::new();
        for pending in state.pending.values().filter(|pending| pending.sent.is_some()) {
            let subject = pending.entry.event.subject();
            if !subjects.iter().any(|known| known == subject) {
                subjects.push(subject.to_owned());
            }
            if subjects.len() == MOST {
                break;
            }
        }
        subjects
    }

    /// The unconfirmed events that were first sent at least this long ago. With them, a stream and a sequence up to which that
    /// stream has none of the events; `None` where no such sequence is known.
    pub(in crate::record) fn unconfirmed(&self, age: Duration) -> (Vec<Outgoing>, Option<(String, u64)>) {
        let state = self.state.lock();
        let unconfirmed = state.pending.iter().filter_map(|(number, pending)| {
            let sent = pending.sent.filter(|sent| sent.is_older_than(age))?;
            Some((
                Outgoing { number: *number, event: Arc::clone(&pending.entry.event), alone: true },
                sent.after_sequence,
            ))
        });
        let (events, sequences): (Vec<_>, Vec<_>) = unconfirmed.unzip();
        // As long as there is only one stream, the sequences are that stream's.
        let after = state.last_stored.0.clone().zip(sequences.into_iter().min());
        (events, after)
    }

    /// Fails the events that were first sent longer ago than the stream recognises a repetition: they cannot be sent again. In
    /// core NATS nothing recognises one, and `window` is zero. Call it between two connections.
    pub(in crate::record) fn fail_unconfirmed(&self, window: Duration) {
        let mut state = self.state.lock();
        state.resend_window = window;
        state.fail(|pending| {
            let sent = pending.sent.filter(|sent| sent.is_older_than(window))?;
            Some(FailureReason::Unconfirmed(if window.is_zero() { sent.first.elapsed() } else { window }))
        });
        self.notify_waiters(&state);
        unlock_and_log(state);
    }

    /// The subject of a pending event.
    pub(in crate::record) fn subject_of(&self, number: u64) -> Option<String> {
        self.state.lock().pending.get(&number).map(|pending| pending.entry.event.subject().to_owned())
    }
}
