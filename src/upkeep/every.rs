//! A fixed time between the beginnings of two runs.

use std::time::{Duration, Instant};

/// When a job is due that runs at fixed intervals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Every {
    interval: Duration,
    next: Instant,
}

impl Every {
    /// First due now.
    pub(super) fn at_once(interval: Duration) -> Self {
        Self { interval, next: Instant::now() }
    }

    /// First due after this time.
    pub(super) fn after(first: Duration, interval: Duration) -> Self {
        Self { interval, next: Instant::now() + first }
    }

    /// A run begins.
    pub(super) fn begin(&mut self) {
        self.next = Instant::now() + self.interval;
    }

    pub(super) fn due_in(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }
}
