//! Deletes what `[retention]` does not keep.

use std::time::Duration;

use super::every::Every;
use super::job::Job;
use crate::error::Error;
use crate::pipeline::Signal;
use crate::store::Retention;

/// The job `retention`.
pub(crate) struct RetentionJob {
    retention: Retention,
    every: Every,
}

impl RetentionJob {
    pub(crate) fn new(retention: Retention, every: Duration) -> Self {
        Self { retention, every: Every::at_once(every) }
    }
}

impl Job for RetentionJob {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn due_in(&mut self) -> Option<Duration> {
        Some(self.every.due_in())
    }

    fn run(&mut self, stop: &Signal) -> Result<(), Error> {
        self.every.begin();
        self.retention.round(stop)
    }
}
