//! Whether a part of the collector works. Each reason for trouble is logged once, and the recovery.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::incidents::{Incident, Incidents};
use crate::printable;

/// How many reasons of one trouble are remembered. Reasons that come in turn, as those of several servers, are each logged once.
const REASONS: usize = 16;

/// Whether a part works. Clones share it.
#[derive(Clone, Debug)]
pub struct Condition {
    part: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    trouble: Option<Trouble>,
    /// The reasons of this trouble that were logged.
    logged: VecDeque<String>,
    incidents: Incidents,
}

/// Why a part does not work, and since when.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trouble {
    /// The part: `broker`, `intake`, `database`, `service`, `spool` or `spool file`, or a job of the upkeep: `retention`.
    pub part: &'static str,
    /// Why it does not work: one line.
    pub reason: String,
    /// Since when.
    pub since: Instant,
}

impl Condition {
    /// A part that works.
    #[must_use]
    pub fn new(part: &'static str) -> Self {
        Self { part, state: Arc::default() }
    }

    /// Notes that the part does not work. Logs the reason on one line if it was not logged since the part last worked.
    pub fn degrade(&self, reason: impl Into<String>) {
        let reason = printable(&reason.into()).into_owned();
        let mut state = self.state.lock();
        if !state.logged.contains(&reason) {
            log::warn!(event = "trouble.began", part = self.part, reason = reason; "{}: {reason}", self.part);
            if state.logged.len() == REASONS {
                state.logged.pop_front();
            }
            state.logged.push_back(reason.clone());
            state.incidents.add(self.part, &reason);
        }
        match state.trouble.as_mut() {
            Some(known) => known.reason = reason,
            None => state.trouble = Some(Trouble { part: self.part, reason, since: Instant::now() }),
        }
    }

    /// Notes that the part works. Logs it if it did not work before.
    pub fn recover(&self) {
        let mut state = self.state.lock();
        state.logged.clear();
        if let Some(trouble) = state.trouble.take() {
            state.incidents.end();
            let took = trouble.since.elapsed();
            log::info!(
                event = "trouble.ended", part = self.part, reason = trouble.reason, seconds = took.as_secs_f64();
                "{}: well again after {took:.1?}", self.part
            );
        }
    }

    /// What was wrong lately, the latest last. Does not block.
    #[must_use]
    pub(crate) fn incidents(&self) -> Vec<Incident> {
        self.state.lock().incidents.all()
    }

    /// What is wrong now, if anything. Does not block.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.state.lock().trouble.clone()
    }
}

/// Whether all parts work.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Health {
    /// One entry for each part that does not work; empty when all parts work.
    pub troubles: Vec<Trouble>,
}

impl Health {
    /// The health of the parts with these conditions.
    pub(crate) fn of<'c>(conditions: impl IntoIterator<Item = &'c Condition>) -> Self {
        Self { troubles: conditions.into_iter().filter_map(Condition::trouble).collect() }
    }

    /// Whether all parts work.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.troubles.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_comes_again_is_remembered_until_the_recovery() {
        let condition = Condition::new("broker");
        let logged = || condition.state.lock().logged.iter().cloned().collect::<Vec<_>>();
        for reason in ["a", "b", "a", "b", "a"] {
            condition.degrade(reason);
        }
        assert_eq!(logged(), ["a", "b"]);
        let trouble = condition.trouble().expect("trouble");
        assert_eq!((trouble.part, &*trouble.reason), ("broker", "a"));
        for number in 0..100 {
            condition.degrade(number.to_string());
        }
        assert_eq!(logged().len(), REASONS);
        condition.recover();
        assert!(condition.trouble().is_none() && logged().is_empty());
        condition.degrade("again");
        let incidents = condition.incidents();
        let last = incidents.last().expect("kept");
        assert_eq!((incidents.len(), &*last.reason, last.lasted), (REASONS, "again", None));
        assert!(incidents.iter().rev().skip(1).all(|incident| incident.lasted.is_some()));
    }
}
