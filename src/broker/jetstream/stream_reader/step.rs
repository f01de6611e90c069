//! How many sequences of a stream to read at a time.

use std::ops::RangeInclusive;

use super::StreamMessage;

const FIRST: u64 = 256;
const MOST: u64 = 4_096;

/// The bytes that one reading should have at most.
const BYTES: usize = 8 << 20;

/// How many sequences the next reading has: more after small messages, fewer after large ones.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::broker::jetstream) struct Step(u64);

impl Step {
    /// Nothing is known about the messages yet.
    pub(in crate::broker::jetstream) const INITIAL: Self = Self(FIRST);

    /// The sequences to read from `next` on, up to `last` at most.
    pub(in crate::broker::jetstream) fn range(&self, next: u64, last: u64) -> RangeInclusive<u64> {
        next..=last.min(next.saturating_add(self.0 - 1))
    }

    /// Adapts the next reading to the messages of this one.
    pub(in crate::broker::jetstream) fn adapt(&mut self, read: &[StreamMessage]) {
        self.adapt_to(read.iter().map(StreamMessage::size).sum());
    }

    fn adapt_to(&mut self, bytes: usize) {
        self.0 = match bytes {
            _ if bytes > BYTES => (self.0 / 2).max(1),
            _ if bytes < BYTES / 4 => (self.0 * 2).min(MOST),
            _ => self.0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_follows_the_size_of_the_messages() {
        let mut step = Step::INITIAL;
        let mut after = |bytes| {
            step.adapt_to(bytes);
            step.0
        };
        assert_eq!((0..5).map(|_| after(0)).collect::<Vec<_>>(), [512, 1_024, 2_048, 4_096, 4_096]);
        assert_eq!([after(BYTES), after(BYTES / 4), after(BYTES + 1)], [4_096, 4_096, 2_048]);
        assert_eq!((0..20).map(|_| after(BYTES + 1)).last(), Some(1));
    }

    #[test]
    fn a_step_ends_with_the_range() {
        assert_eq!(Step::INITIAL.range(10, 1_000), 10..=265);
        assert_eq!(Step::INITIAL.range(10, 20), 10..=20);
        assert_eq!(Step::INITIAL.range(u64::MAX, u64::MAX), u64::MAX..=u64::MAX);
        assert_eq!(Step(1).range(10, 20), 10..=10);
    }
}
