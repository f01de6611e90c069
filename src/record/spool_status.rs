//! The figures of a spool.

use std::time::Duration;

use super::forwarding::ForwardProgress;
use crate::store::SpoolTotals;
use crate::unix_time::since_us;

/// What a [`SpooledRecorder`](super::SpooledRecorder) keeps, and what became of the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpoolStatus {
    /// Events in the spool. The stream does not have them yet, or the answer is not noted yet.
    pub spooled: u64,
    /// Their bytes.
    pub spooled_bytes: u64,
    /// Events that this recorder has forwarded to the stream, since it was opened.
    pub forwarded: u64,
    /// Events that were dropped to make room, since the spool was made.
    pub dropped: u64,
    /// Events that were given up, and are kept in the spool as dead letters.
    pub dead_letters: u64,
    /// How long ago the oldest event in the spool was recorded, by the clock of this machine. `None` where the spool is empty, and for a
    /// moment after the recorder was opened.
    pub oldest_waiting: Option<Duration>,
}

impl SpoolStatus {
    pub(super) fn of(totals: SpoolTotals, progress: ForwardProgress) -> Self {
        let SpoolTotals { events, bytes, dropped, dead_letters, .. } = totals;
        let oldest_waiting = progress.oldest_us.filter(|_| events > 0).map(since_us);
        let (spooled, spooled_bytes, forwarded) = (events, bytes, progress.forwarded);
        Self { spooled, spooled_bytes, forwarded, dropped, dead_letters, oldest_waiting }
    }
}
