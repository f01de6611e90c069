//! A process of an environment that is gone for a while.

use super::environment::TestEnvironment;
use super::{CompareError, clock};

/// When it is to be ended and started again, and when that was done.
pub(super) struct Absence {
    due: u64,
    lasts: u64,
    gone: Option<u64>,
    back: Option<u64>,
}

impl Absence {
    /// From `due` on, by [`clock::now`], for `lasts` nanoseconds.
    pub(super) fn new(due: u64, lasts: u64) -> Self {
        Self { due, lasts, gone: None, back: None }
    }

    /// Does what is due: ends the process, or starts it again.
    pub(super) fn step<'c>(
        &mut self,
        environment: &mut TestEnvironment<'c>,
        end: impl FnOnce(&mut TestEnvironment<'c>),
        start: impl FnOnce(&mut TestEnvironment<'c>) -> Result<(), CompareError>,
    ) -> Result<(), CompareError> {
        let now = clock::now();
        match (self.gone, self.back) {
            (None, _) if now >= self.due => {
                end(environment);
                self.gone = Some(now);
            }
            (Some(since), None) if now >= since + self.lasts => {
                start(environment)?;
                self.back = Some(clock::now());
            }
            _ => {}
        }
        Ok(())
    }

    /// When it began and ended. What the run did not reach counts as if it had come in time.
    pub(super) fn span(&self) -> (u64, u64) {
        let from = self.gone.unwrap_or(self.due);
        (from, self.back.unwrap_or(from + self.lasts))
    }
}
