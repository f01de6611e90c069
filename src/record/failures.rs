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
}

impl Failures {
    /// With room for so many events and bytes.
    pub(super) fn within(events: usize, bytes: usize) -> Self {
        Self { most: events, room: bytes, ..Self::default() }
    }

    /// Keeps one, or counts it where there is no room.
    pub(super) fn keep(&mut self, failure: RecordError) {
        log::warn!("recorder: {failure}");
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

    /// Those kept since the last call.
    pub(super) fn take(&mut self) -> Vec<RecordError> {
        if self.lost > 0 {
            log::warn!("recorder: {} more failed events are only in the log above", self.lost);
            self.lost = 0;
        }
        let kept = std::mem::take(&mut self.kept);
        self.room += kept.iter().map(|failure| failure.event.size()).sum::<usize>();
        kept
    }
}
