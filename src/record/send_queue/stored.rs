//! A queue for events that are kept elsewhere too, in a spool or a table, and that are sent until they are in the stream.

use std::time::Duration;

use crossbeam_channel::Sender;

use super::entry::Outcome;
use super::state::{Settled, State, unlock_and_log};
use super::{SendQueue, too_large};
use crate::broker::Denial;
use crate::event::Event;
use crate::printable;
use crate::record::FailureReason;

impl SendQueue {
    /// Sends the outcome of each event there.
    pub(in crate::record) fn report_to(&self, reports: Sender<Settled>) {
        self.state.lock().reports = Some(reports);
    }

    /// Adds events that have numbers already, in ascending order. Does not wait for room.
    pub(in crate::record) fn enqueue_stored(&self, events: impl IntoIterator<Item = (u64, Event)>) {
        let mut state = self.state.lock();
        for (number, event) in events {
            let reason = too_large(&event, state.max_payload);
            self.insert(&mut state, number, event);
            if let Some(reason) = reason {
                state.settle(number, Outcome::Failed(reason));
            }
        }
        unlock_and_log(state);
    }

    /// Sends no more of the events up to this number: they are not kept any more. One that was sent may be stored.
    pub(in crate::record) fn drop_through(&self, number: u64) {
        let mut state = self.state.lock();
        let dropped: Vec<u64> = state.pending.range(..=number).map(|(number, _)| *number).collect();
        for number in dropped {
            let sent = state.pending.get(&number).and_then(|pending| pending.sent);
            let reason = sent.map_or(FailureReason::Dropped, |sent| FailureReason::Unconfirmed(sent.first.elapsed()));
            state.settle(number, Outcome::Failed(reason));
        }
        self.notify_waiters();
        unlock_and_log(state);
    }

    /// How long an event that the server refuses is sent again at least, in a queue of events that are kept elsewhere too.
    pub(in crate::record) fn patience(&self) -> Option<Duration> {
        self.bounds.patience
    }
}

impl State {
    /// Schedules the denied events in flight to be sent again, as far as they are held.
    pub(super) fn hold_denied(&mut self, denial: &Denial, patience: Duration) {
        let is_denied = |subject: &str| denial.is_about(subject);
        let denied = self.pending.iter().filter(|(_, one)| one.in_flight && is_denied(one.entry.event.subject()));
        let denied: Vec<u64> = denied.map(|(number, _)| *number).collect();
        for number in denied {
            if self.is_held(number, patience) {
                self.schedule_retry(number, printable(&denial.to_string()).into_owned());
            }
        }
    }
}
