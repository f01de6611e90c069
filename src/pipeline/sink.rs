//! The seam below the pipeline: where batches are committed.

use super::Batch;
use crate::error::Error;

/// Commits batches. Each writer thread has its own.
pub trait Sink: Send + 'static {
    /// Does what can be done for a batch before its turn, side by side with other writers. Called once a batch, before its
    /// first commit, which does it else.
    fn prepare(&mut self, batch: &Batch) {
        let _ = batch;
    }

    /// Commits the batch and its epoch's new position in one transaction, or nothing. Called in ticket order, one call
    /// at a time over all writers, and again with the same batch after [`Refusal::Retry`].
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal>;
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// How many of the batch's deliveries became dead letters.
    pub dead_letters: usize,
    /// How many were dropped, for no route takes them.
    pub unmatched_dropped: usize,
    /// How many were to be confirmed and were not, for there was no room for the confirmation.
    pub unconfirmed: usize,
}

/// Why a batch is not committed.
#[derive(Debug)]
pub enum Refusal {
    /// The sink is unwell: the same batch is to be tried again. The text says what is wrong and what would help.
    Retry(String),
    /// No waiting can mend it: the pipeline stops.
    Fatal(Error),
}
