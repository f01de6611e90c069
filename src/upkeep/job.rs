//! What is to be done from time to time.

use std::time::Duration;

use crate::error::Error;
use crate::pipeline::Signal;

/// Work that is due from time to time.
pub(crate) trait Job: Send {
    /// Its name in the log, in the status and in metrics: `retention`. A job of the same name takes over its counts after a reload.
    fn name(&self) -> &'static str;

    /// In how long it is due; zero if it is due now, `None` if it is not due until further notice. Called at the start, after each run
    /// and at least once a minute, so it may look at the clock and at files. It must not block.
    fn due_in(&mut self) -> Option<Duration>;

    /// Does the work. Returns early, with any result, once `stop` is raised: at the latest after a few tenths of a second.
    ///
    /// # Errors
    ///
    /// What prevented it: one line that says what to do. It is logged and counted, and the job is tried again after
    /// [`retry_after`](Self::retry_after), or when it is due next if that is later.
    fn run(&mut self, stop: &Signal) -> Result<(), Error>;

    /// How long to wait after an error.
    fn retry_after(&self) -> Duration {
        Duration::from_secs(60)
    }
}
