//! Events that were sent and have no answer, and what helps to find out what became of them.

use std::sync::Arc;
use std::time::Duration;

use super::SendQueue;
use crate::broker::Outgoing;

impl SendQueue {
    /// Some subjects of events that were sent and not confirmed: they are about to be sent again.
    pub(in crate::record) fn subjects_in_doubt(&self) -> Vec<String> {
        /// Enough to find the streams by.
        const SOME: usize = 32;
        let state = self.state.lock();
        let mut subjects = Vec::new();
        for waiting in state.waiting.values().filter(|waiting| waiting.sent.is_some()) {
            let subject = waiting.entry.event.subject();
            if !subjects.iter().any(|known| known == subject) {
                subjects.push(subject.to_owned());
            }
            if subjects.len() == SOME {
                break;
            }
        }
        subjects
    }

    /// The events that were sent first this long ago or earlier and are not confirmed. And a stream and a sequence up to which that
    /// stream has none of them; `None` where none is known.
    pub(in crate::record) fn doubtful(&self, ago: Duration) -> (Vec<Outgoing>, Option<(String, u64)>) {
        let state = self.state.lock();
        let doubtful = state.waiting.iter().filter_map(|(number, waiting)| {
            let sent = waiting.sent.filter(|sent| sent.is_beyond(ago))?;
            Some((Outgoing { number: *number, event: Arc::clone(&waiting.entry.event) }, sent.behind))
        });
        let (events, behind): (Vec<_>, Vec<_>) = doubtful.unzip();
        // While there is one stream, the sequences noted are its own.
        let after = state.reached.0.clone().zip(behind.into_iter().min());
        (events, after)
    }

    /// The subject of an event that waits.
    pub(in crate::record) fn subject_of(&self, number: u64) -> Option<String> {
        self.state.lock().waiting.get(&number).map(|waiting| waiting.entry.event.subject().to_owned())
    }
}

/// Takes in that the stream has kept an event at this sequence. Of several streams no sequence says anything.
pub(super) fn reached(reached: &mut (Option<String>, u64), stream: &str, sequence: u64) {
    match reached {
        (Some(known), highest) if known == stream => *highest = sequence.max(*highest),
        (None, 0) => *reached = (Some(stream.to_owned()), sequence),
        _ => *reached = (None, u64::MAX),
    }
}
