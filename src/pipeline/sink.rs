//! The interface through which a pipeline commits batches.

use std::fmt;
use std::path::PathBuf;

use super::Batch;
use crate::error::{DatabaseFault, Error};

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
    /// The first of them, counted from 0 in the batch.
    pub first_dead: Option<usize>,
    /// How many were dropped because no route takes them.
    pub unmatched_dropped: usize,
    /// How many were delete markers that are skipped.
    pub markers_skipped: usize,
    /// How many were stored before, as their recorders' numbers show. They change nothing.
    pub repeated: usize,
    /// How many requested confirmations were dropped because their queue was full.
    pub confirmations_dropped: usize,
}

/// Why a batch is not committed.
#[derive(Debug)]
pub enum Refusal {
    /// A problem that may pass: try the same batch again.
    Retry(Problem),
    /// A problem that waiting cannot repair: the pipeline stops.
    Fatal(Error),
    /// The sink was closed before this attempt. The batch was not committed, and will not be.
    Closed,
}

/// What is wrong with the database. Its text is one line, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kind of trouble.
    pub fault: DatabaseFault,
    /// What happened.
    pub detail: String,
    /// What to do about it, where that is known.
    pub remedy: Option<String>,
}

impl Problem {
    /// A problem without a remedy.
    #[must_use]
    pub fn new(fault: DatabaseFault, detail: impl Into<String>) -> Self {
        Self { fault, detail: detail.into(), remedy: None }
    }

    /// The problem as an error of the database at this path.
    #[must_use]
    pub fn at(self, path: impl Into<PathBuf>) -> Error {
        let Self { fault, detail, remedy } = self;
        Error::Database { fault, path: path.into(), detail, remedy, source: None }
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let fault = match error {
            Error::Database { fault, .. } => *fault,
            _ => DatabaseFault::Other,
        };
        let (text, remedy) = (error.to_string(), error.remedy());
        // The message ends with the remedy.
        let ending = remedy.map_or(String::new(), |remedy| format!("; {remedy}"));
        let detail = text.strip_suffix(&ending).unwrap_or(&text).to_owned();
        Self { fault, detail, remedy: remedy.map(str::to_owned) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}
