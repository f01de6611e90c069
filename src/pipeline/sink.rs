//! The interface through which a pipeline commits batches.

use super::Batch;
use crate::error::Error;

/// Commits batches. Each writer thread has its own.
pub trait Sink: Send + 'static {
    /// Does the work on a batch that need not wait for its turn, in parallel with other writers. Called once for each batch, before
    /// its first commit. The default implementation does nothing.
    fn prepare(&mut self, batch: &Batch) {
        let _ = batch;
    }

    /// Commits the batch and its epoch's new position in one transaction, or commits nothing. Called in ticket order, one call at
    /// a time over all writers. Called again with the same batch after [`Refusal::Retry`].
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
    /// How many were dropped because no route takes them.
    pub unmatched_dropped: usize,
    /// How many were delete markers that are skipped.
    pub markers_skipped: usize,
    /// How many requested confirmations were dropped because their queue was full.
    pub confirmations_dropped: usize,
}

/// Why a batch is not committed.
#[derive(Debug)]
pub enum Refusal {
    /// A problem that may pass: try the same batch again. The text says what is wrong and what to do.
    Retry(String),
    /// A problem that waiting cannot repair: the pipeline stops.
    Fatal(Error),
}
