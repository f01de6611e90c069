//! The interface through which a pipeline gets deliveries.

use std::time::Duration;

use super::{Batch, Epoch, Mark};
use crate::error::Error;

/// Yields deliveries. Runs on the pipeline's intake thread.
pub trait Intake: Send + 'static {
    /// Adds the deliveries that have arrived to `batch`, in order, as far as there is room. If none have arrived, blocks for the
    /// first, at most for `wait` and not after the pipeline's stop is raised. May also do other work, such as connecting again,
    /// but blocks for it only while the batch is empty.
    ///
    /// Each delivery that is added is committed, or the pipeline fails. So the intake may continue after it.
    ///
    /// # Errors
    ///
    /// Only errors that waiting cannot repair: the pipeline stops with the error.
    fn fill(&mut self, batch: &mut Batch, wait: Duration) -> Result<IntakeState, Error>;

    /// Called instead of [`Intake::fill`] once the pipeline's stop is raised, until it returns [`IntakeState::Drained`]. Receives no
    /// more, and adds to `batch` the deliveries that it holds in memory and that would otherwise be lost. The default
    /// implementation drains nothing.
    ///
    /// # Errors
    ///
    /// As [`Intake::fill`].
    fn drain(&mut self, batch: &mut Batch) -> Result<IntakeState, Error> {
        let _ = batch;
        Ok(IntakeState::Drained)
    }

    /// Called when everything up to `last` is committed in this epoch. An intake whose source waits for acknowledgements
    /// acknowledges now.
    fn committed(&mut self, epoch: &Epoch, last: Mark) {
        let _ = (epoch, last);
    }
}

/// Whether an intake may yield more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntakeState {
    /// It may yield more.
    Open,
    /// It yields nothing after this batch.
    Drained,
}
