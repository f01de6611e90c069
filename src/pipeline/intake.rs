//! The seam above the pipeline: where deliveries come from.

use std::time::Duration;

use super::{Batch, Epoch, Mark};
use crate::error::Error;

/// Where deliveries come from. Runs on the pipeline's intake thread.
pub trait Intake: Send + 'static {
    /// Adds to `batch` what has arrived, in order, as far as there is room. Where nothing has, blocks for the first
    /// delivery, at most for `wait` and not past the pipeline's stop. May do its own housekeeping, reconnecting for
    /// instance, but blocks for that only while the batch is empty.
    ///
    /// A delivery that is returned will be committed or the pipeline fails: the intake may go on behind it.
    ///
    /// # Errors
    ///
    /// What no waiting can mend; the pipeline stops with it.
    fn fill(&mut self, batch: &mut Batch, wait: Duration) -> Result<IntakeState, Error>;

    /// Called instead of [`Intake::fill`] once the pipeline is to stop, until it says that it has ended: takes in no more and
    /// adds to `batch` what it holds already and nobody else keeps. Without a body of its own there is none of that.
    ///
    /// # Errors
    ///
    /// As [`Intake::fill`].
    fn drain(&mut self, batch: &mut Batch) -> Result<IntakeState, Error> {
        let _ = batch;
        Ok(IntakeState::Drained)
    }

    /// Hears that everything up to `last` is committed in this epoch. An intake whose source waits for acknowledgement
    /// acknowledges now.
    fn committed(&mut self, epoch: &Epoch, last: Mark) {
        let _ = (epoch, last);
    }
}

/// Whether there is more to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntakeState {
    /// There may be.
    Open,
    /// What is in the batch is the last.
    Drained,
}
