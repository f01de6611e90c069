//! What became of spooled events in the stream, for the receipts that still exist.

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::{FailureReason, RecordMetadata};
use crate::pipeline::Condition;

/// Where an event is in the stream, or why it is not there.
pub(super) type StreamOutcome = Result<RecordMetadata, FailureReason>;

#[derive(Debug)]
pub(super) struct StreamOutcomes {
    state: Mutex<State>,
    settled: Condvar,
    /// The broker's.
    condition: Condition,
}

#[derive(Debug, Default)]
struct State {
    /// By the event's position in the spool. `None` while there is no outcome.
    watched: HashMap<u64, Option<StreamOutcome>>,
    /// Nothing more is forwarded.
    ended: bool,
}

impl StreamOutcomes {
    pub(super) fn new(condition: Condition) -> Self {
        Self { state: Mutex::default(), settled: Condvar::new(), condition }
    }

    /// Keeps the outcome of this event from now on.
    pub(super) fn watch(&self, position: u64) {
        self.state.lock().watched.insert(position, None);
    }

    /// Keeps it no longer.
    pub(super) fn forget(&self, position: u64) {
        self.state.lock().watched.remove(&position);
    }

    /// Notes outcomes. Those of events without a receipt are passed over.
    pub(super) fn set(&self, outcomes: impl IntoIterator<Item = (u64, StreamOutcome)>) {
        let mut state = self.state.lock();
        for (position, outcome) in outcomes {
            if let Some(watched) = state.watched.get_mut(&position) {
                watched.get_or_insert(outcome);
            }
        }
        drop(state);
        self.settled.notify_all();
    }

    /// Notes that all events up to this position that have no outcome were dropped.
    pub(super) fn drop_through(&self, position: u64) {
        let mut state = self.state.lock();
        for (at, outcome) in &mut state.watched {
            if *at <= position {
                outcome.get_or_insert(Err(FailureReason::Dropped));
            }
        }
        drop(state);
        self.settled.notify_all();
    }

    /// Notes that nothing more is forwarded: nobody waits any longer.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.settled.notify_all();
    }

    /// The outcome of an event. Waits for it, until then at the latest. `None` where there is none.
    pub(super) fn wait(&self, position: u64, until: Instant) -> Option<StreamOutcome> {
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = state.watched.get(&position).cloned().flatten() {
                return Some(outcome);
            }
            if state.ended || self.settled.wait_until(&mut state, until).timed_out() {
                return state.watched.get(&position).cloned().flatten();
            }
        }
    }

    /// Why an event is not in the stream yet, if that is known.
    pub(super) fn trouble(&self) -> Option<String> {
        if self.state.lock().ended {
            return Some(
                "the recorder was closed; the event is kept in the spool and forwarded at the next start".into(),
            );
        }
        self.condition.trouble().map(|trouble| trouble.reason)
    }
}
