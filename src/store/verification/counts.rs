//! How many messages and rows of each kind a verification has found.

use std::ops::AddAssign;

/// Messages of a stream, and rows of its database, by what a comparison has found of them. None of these is a fault, except for
/// `unaccounted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyCounts {
    /// Messages of the stream that were compared.
    pub messages: u64,
    /// How many of them are stored: as rows of table `events`, or under a key of a routed table.
    pub stored: u64,
    /// How many are dead letters.
    pub dead_letters: u64,
    /// How many the routes drop.
    pub dropped: u64,
    /// How many a recorder has sent before. They are stored once.
    pub repeated: u64,
    /// How many were lost when they were due, and are in the stream again. The next start of the collector stores them.
    pub returned: u64,
    /// How many have no row because it was deleted on purpose, or may have been.
    pub pruned: u64,
    /// How many belong to routes without a key: only their number was compared.
    pub counted: u64,
    /// Sequences that neither the stream nor the database has, although the database has collected them. Known only if every event goes
    /// to table `events`, the whole stream is collected, and no recorder has sent an event twice.
    pub unaccounted: u64,
    /// Rows of table `events` whose message the stream no longer has.
    pub only_stored: u64,
    /// Rows of table `events` of earlier streams of the same name.
    pub of_earlier_epochs: u64,
}

impl AddAssign for VerifyCounts {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.stored += other.stored;
        self.dead_letters += other.dead_letters;
        self.dropped += other.dropped;
        self.repeated += other.repeated;
        self.returned += other.returned;
        self.pruned += other.pruned;
        self.counted += other.counted;
        self.unaccounted += other.unaccounted;
        self.only_stored += other.only_stored;
        self.of_earlier_epochs += other.of_earlier_epochs;
    }
}
