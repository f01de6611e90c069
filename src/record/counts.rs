//! The numbers of events by their outcome.

use super::send_queue::entry::Outcome;

/// How many events had which outcome. Events that have none yet are in none of the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecorderCounts {
    /// Acknowledged by the stream; in core NATS, read by the server.
    pub stored: u64,
    /// Known not to be stored.
    pub not_stored: u64,
    /// Sent, but without an answer: they may be stored or not.
    pub unknown: u64,
}

impl RecorderCounts {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Recorded(_) => self.stored += 1,
            Outcome::Failed(reason) if reason.may_be_stored() => self.unknown += 1,
            Outcome::Failed(_) => self.not_stored += 1,
        }
    }

    /// How many events have an outcome.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.stored + self.not_stored + self.unknown
    }
}
