//! Failed events whose receipts were dropped: the next flush returns them.

use super::RecordError;

/// Failed events for the next flush, within limits.
#[derive(Debug, Default)]
pub(super) struct Failures {
    kept: Vec<RecordError>,
    /// The number of failures that may be kept.
    max_events: usize,
    /// Bytes that may still be kept.
    bytes_left: usize,
    dropped: usize,
    /// Lines for the log. They are written after the lock is released, because logging may block.
    unlogged: Vec<String>,
}

impl Failures {
    /// Keeps at most this many events and bytes.
    pub(super) fn within(events: usize, bytes: usize) -> Self {
        Self { max_events: events, bytes_left: bytes, ..Self::default() }
    }

    /// Keeps a failure, or only counts it where it exceeds the limits. Log [`Failures::unlogged`] afterwards.
    pub(super) fn keep(&mut self, failure: RecordError) {
        self.unlogged.push(failure.to_string());
        let size = failure.event.size();
        if self.kept.len() < self.max_events && size <= self.bytes_left {
            self.bytes_left -= size;
            self.kept.push(failure);
        } else {
            self.dropped += 1;
        }
    }

    /// Keeps a failure whatever the limits, and does not log it: the recorder ends, and its caller gets the failure at once.
    pub(super) fn keep_last(&mut self, failure: RecordError) {
        self.bytes_left = self.bytes_left.saturating_sub(failure.event.size());
        self.kept.push(failure);
    }

    /// Whether there are lines for the log.
    pub(super) fn has_unlogged(&self) -> bool {
        !self.unlogged.is_empty()
    }

    /// The lines for the log since the last call.
    pub(super) fn unlogged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unlogged)
    }

    /// The failures since the last call. Log [`Failures::unlogged`] afterwards.
    pub(super) fn take(&mut self) -> Vec<RecordError> {
        if self.dropped > 0 {
            self.unlogged.push(format!("{} more failed events are only in the log above", self.dropped));
            self.dropped = 0;
        }
        let kept = std::mem::take(&mut self.kept);
        self.bytes_left += kept.iter().map(|failure| failure.event.size()).sum::<usize>();
        kept
    }
}
