//! The epochs of a stream, and positions in them.

use super::gaps::Gaps;

/// One epoch of a stream: from its creation, or from a rollback of its sequences, to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The stream's name; see [`Epoch::origin`] for events that come from no stream.
    pub stream: String,
    /// Counts the epochs of this stream in this database, from 1.
    pub number: u32,
    /// When the stream was created, as the server writes it: compared, never parsed.
    pub created: String,
    /// The epoch begins after this mark. Where it continues an earlier epoch, that is the last event of the earlier one.
    /// [`Mark::START`] for most epochs, and for every epoch that has an entry in the ledger already.
    pub begins: Mark,
}

/// Takes the place of the stream's name for events that come from no stream. The name of a stream cannot contain a dot.
const LOCAL: &str = ".local";

impl Epoch {
    /// An epoch that begins at the stream's start.
    #[must_use]
    pub fn new(stream: impl Into<String>, number: u32, created: impl Into<String>) -> Self {
        Self { stream: stream.into(), number, created: created.into(), begins: Mark::START }
    }

    /// The epoch of events that come from no stream. It lasts from one start of their intake to the next, and the intake numbers
    /// them from 1. The ledger has an entry for it too: it shows whether a commit without an answer succeeded.
    #[must_use]
    pub fn local(number: u32, created: String) -> Self {
        Self::new(LOCAL, number, created)
    }

    /// The stream name under which the ledger has local epochs.
    #[must_use]
    pub fn local_name() -> &'static str {
        LOCAL
    }

    /// The stream that its events came from; `None` for a local epoch.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        (self.stream != LOCAL).then_some(self.stream.as_str())
    }
}

/// A position in an epoch: the stream sequence of an event and the time at which the stream stored it.
///
/// A sequence alone does not identify an event, because sequences can be used again. The time beside it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The stream sequence; 0 before the first event.
    pub sequence: u64,
    /// Publish time in nanoseconds since 1970.
    pub published_ns: i64,
}

impl Mark {
    /// Before the first event of an epoch.
    pub const START: Self = Self { sequence: 0, published_ns: 0 };
}

/// How far one epoch was read, and which sequences were missing on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochProgress {
    /// The epoch.
    pub epoch: Epoch,
    /// Its last event that was received.
    pub mark: Mark,
    /// Sequences up to there that the stream did not have when they were read. They are not in the database.
    pub gaps: Gaps,
}

impl EpochProgress {
    /// Whether the event at this mark was received, as far as its position shows.
    #[must_use]
    pub fn has(&self, mark: Mark) -> bool {
        let reached = mark.sequence <= self.mark.sequence && mark.published_ns <= self.mark.published_ns;
        reached && !self.gaps.contains(mark.sequence)
    }
}
