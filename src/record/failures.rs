//! What a recorder could not keep and nobody holds a receipt for, until somebody asks.

use super::RecordError;

/// Failures for the next flush, as far as there is room.
#[derive(Debug, Default)]
pub(super) struct Failures {
    kept: Vec<RecordError>,
    /// Failures that may be kept.
    most: usize,
    /// Bytes that may still be kept.
    room: usize,
    lost: usize,
    /// Lines for the log, which whoever holds a lock must not write: that may block.
    unlogged: Vec<String>,
}

impl Failures {
    /// With room for so many events and bytes.
    pub(super) fn within(events: usize, bytes: usize) -> Self {
        Self { most: events, room: bytes, ..Self::default() }
    }

    /// Keeps one, or counts it where there is no room. Write [`Failures::unlogged`] to the log afterwards.
    pub(super) fn keep(&mut self, failure: RecordError) {
        self.unlogged.push(failure.to_string());
        let size = failure.event.size();
        if self.kept.len() < self.most && size <= self.room {
            self.room -= size;
            self.kept.push(failure);
        } else {
            self.lost += 1;
        }
    }

    /// Keeps one in any case, and without a line in the log: the recorder ends, and the caller is told of it at once.
    pub(super) fn keep_last(&mut self, failure: RecordError) {
        self.room = self.room.saturating_sub(failure.event.size());
        self.kept.push(failure);
    }

    /// Whether there are lines for the log.
    pub(super) fn has_unlogged(&self) -> bool {
        !self.unlogged.is_empty()
    }

    /// Lines for the log since the last call.
    pub(super) fn unlogged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unlogged)
    }

    /// Those kept since the last call. Write [`Failures::unlogged`] to the log afterwards.
    pub(super) fn take(&mut self) -> Vec<RecordError> {
        if self.lost > 0 {
            self.unlogged.push(format!("{} more failed events are only in the log above", self.lost));
            self.lost = 0;
        }
        let kept = std::mem::take(&mut self.kept);
        self.room += kept.iter().map(|failure| failure.event.size()).sum::<usize>();
        kept
    }
}
