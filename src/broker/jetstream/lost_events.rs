//! Events that a stream dropped before they were collected, as they are reported.

use crate::counted;
use crate::pipeline::{Gap, Gaps};

/// Sequences that the stream no longer has and that were never collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LostEvents {
    pub(super) gaps: Gaps,
    /// Their largest possible number. Some may have had other subjects.
    pub(super) events: u64,
}

impl LostEvents {
    /// From the sequence that was next to the stream's first.
    pub(super) fn before(due: u64, first: u64) -> Option<Self> {
        Gap::of(due, first.saturating_sub(1)).map(|gap| Self::of(gap.into()))
    }

    /// All sequences in these gaps.
    pub(super) fn of(gaps: Gaps) -> Self {
        Self { events: gaps.missing(), gaps }
    }

    /// Logs them for the operator. `begins` is the stream's first sequence.
    pub(super) fn log(&self, stream: &str, begins: u64) {
        let (first, last) =
            self.gaps.iter().fold((u64::MAX, 0), |(first, last), gap| (gap.first.min(first), gap.last.max(last)));
        log::warn!(
            event = "events.lost", stream = stream, events = self.events, first = first, last = last;
            "broker: {}", self.report(stream, begins)
        );
    }

    /// The message for the operator. `begins` is the stream's first sequence.
    pub(super) fn report(&self, stream: &str, begins: u64) -> String {
        let Self { gaps, events } = self;
        let inside = gaps.iter().any(|gap| gap.last >= begins);
        let start = if inside { "" } else { &format!(" begins at {begins}: it") };
        let (events, were) = (counted(*events, "event"), if *events == 1 { "was" } else { "were" });
        format!("stream {stream}{start} no longer has {gaps}, up to {events} that {were} never stored")
    }
}
