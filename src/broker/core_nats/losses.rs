//! Says what was dropped, once a second at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pipeline::{Condition, Counters};

/// The least time between two lines of the log.
const BETWEEN: Duration = Duration::from_secs(1);

/// Looks at the count of dropped events and says how it grew.
pub(super) struct Losses {
    counters: Arc<Counters>,
    condition: Condition,
    said: u64,
    seen: u64,
    last_line: Option<Instant>,
    last_loss: Instant,
}

impl Losses {
    pub(super) fn new(counters: &Arc<Counters>, condition: &Condition) -> Self {
        let seen = counters.dropped.get();
        let condition = condition.clone();
        Self { counters: Arc::clone(counters), condition, said: seen, seen, last_line: None, last_loss: Instant::now() }
    }

    /// To be called every now and then, more often than once a second while events come.
    pub(super) fn look(&mut self) {
        let dropped = self.counters.dropped.get();
        if dropped > self.seen {
            self.seen = dropped;
            self.last_loss = Instant::now();
            self.condition.degrade("events come faster than they can be stored: what there is no room for is dropped");
        }
        if self.last_line.is_none_or(|line| line.elapsed() >= BETWEEN) {
            self.say();
        }
        if self.is_losing() && self.last_loss.elapsed() >= BETWEEN {
            self.condition.recover();
        }
    }

    /// Whether events were dropped within the last moments.
    pub(super) fn is_losing(&self) -> bool {
        self.condition.trouble().is_some()
    }

    fn say(&mut self) {
        let new = self.seen - self.said;
        if new > 0 {
            log::warn!("intake: dropped {new} of what came, {} since the start", self.seen);
            self.said = self.seen;
            self.last_line = Some(Instant::now());
        }
    }
}

impl Drop for Losses {
    fn drop(&mut self) {
        self.seen = self.counters.dropped.get();
        self.say();
    }
}
