//! Reports dropped events, in the log once a second at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::counted;
use crate::pipeline::{Condition, Counters};

/// The least time between two lines of the log.
const INTERVAL: Duration = Duration::from_secs(1);

/// Watches the count of dropped events and reports how it grows.
pub(super) struct DropReporter {
    counters: Arc<Counters>,
    condition: Condition,
    logged: u64,
    seen: u64,
    last_line: Option<Instant>,
    last_drop: Instant,
}

impl DropReporter {
    pub(super) fn new(counters: &Arc<Counters>, condition: &Condition) -> Self {
        let seen = counters.dropped.get();
        let condition = condition.clone();
        Self {
            counters: Arc::clone(counters),
            condition,
            logged: seen,
            seen,
            last_line: None,
            last_drop: Instant::now(),
        }
    }

    /// To be called regularly: more often than once a second while events come.
    pub(super) fn look(&mut self) {
        let dropped = self.counters.dropped.get();
        if dropped > self.seen {
            self.seen = dropped;
            self.last_drop = Instant::now();
            self.condition.degrade("events come faster than they can be stored: those without room are dropped");
        }
        if self.last_line.is_none_or(|line| line.elapsed() >= INTERVAL) {
            self.log();
        }
        if self.is_dropping() && self.last_drop.elapsed() >= INTERVAL {
            self.condition.recover();
        }
    }

    /// Whether events were dropped within the last second or so.
    pub(super) fn is_dropping(&self) -> bool {
        self.condition.trouble().is_some()
    }

    fn log(&mut self) {
        let new = self.seen - self.logged;
        if new > 0 {
            let (total, counted) = (self.seen, counted(new, "event"));
            log::warn!(
                event = "events.dropped", events = new, total = total;
                "intake: dropped {counted}, {total} since the start"
            );
            self.logged = self.seen;
            self.last_line = Some(Instant::now());
        }
    }
}

impl Drop for DropReporter {
    fn drop(&mut self) {
        self.seen = self.counters.dropped.get();
        self.log();
    }
}
