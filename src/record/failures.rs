//! What a recorder could not keep and nobody holds a receipt for, until somebody asks.

use super::RecordError;

/// Failures kept for the next flush, within the bound in bytes as well.
const MOST_FAILURES: usize = 10_000;

/// Failures for the next flush, as far as there is room.
#[derive(Debug, Default)]
pub(super) struct Failures {
    kept: Vec<RecordError>,
    /// Bytes that may still be kept.
    room: usize,
    lost: usize,
}

impl Failures {
    /// With room for so many bytes.
    pub(super) fn within(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    /// Keeps one, or counts it where there is no room.
    pub(super) fn keep(&mut self, failure: RecordError) {
        log::warn!("recorder: {failure}");
        let size = failure.event.size();
        if self.kept.len() < MOST_FAILURES && size <= self.room {
            self.room -= size;
            self.kept.push(failure);
        } else {
            self.lost += 1;
        }
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
