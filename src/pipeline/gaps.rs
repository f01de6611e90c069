//! Sequences of a stream that were skipped because the stream did not have them.
//!
//! The ledger's mark shows how far a stream was read. It does not show that everything before it was stored: some events were
//! missing when they were due. A restored copy of the stream can contain them again. So they are recorded, as ranges.

/// A range of sequences of which all or some were missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first sequence.
    pub first: u64,
    /// The last sequence.
    pub last: u64,
    /// How many of the range were missing. Less than its length where ranges were joined to save memory.
    pub missing: u64,
}

impl Gap {
    /// The range from `first` to `last`, all missing. `None` where it is empty.
    #[must_use]
    pub fn of(first: u64, last: u64) -> Option<Self> {
        (first <= last).then(|| Self { first, last, missing: last - first + 1 })
    }

    /// Whether all of the range was missing.
    #[must_use]
    pub fn is_exact(self) -> bool {
        self.missing == self.length()
    }

    fn length(self) -> u64 {
        self.last - self.first + 1
    }

    /// The part between these sequences. If the range is not exact, `missing` is the least that must be in this part.
    #[must_use]
    pub fn within(self, first: u64, last: u64) -> Option<Self> {
        let part = Self::of(self.first.max(first), self.last.min(last))?;
        Some(Self { missing: self.missing.saturating_sub(self.length() - part.length()), ..part })
    }

    /// One range over both, and over what lies between them.
    fn joined(self, other: Self) -> Self {
        let whole = Self { first: self.first.min(other.first), last: self.last.max(other.last), missing: 0 };
        let overlap = (self.last.min(other.last) + 1).saturating_sub(self.first.max(other.first));
        let missing = (self.missing + other.missing).saturating_sub(overlap);
        Self { missing: missing.max(self.missing).max(other.missing), ..whole }
    }
}

/// Ranges in ascending order that neither overlap nor adjoin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps(Vec<Gap>);

impl Gaps {
    /// The most ranges that an epoch keeps; beyond that, the closest ones are joined.
    pub const MOST: usize = 10_000;

    /// Adds a range, and joins it with ranges that it overlaps or adjoins.
    pub fn insert(&mut self, mut gap: Gap) {
        let from = self.0.partition_point(|known| known.last.saturating_add(1) < gap.first);
        let mut to = from;
        while let Some(known) = self.0.get(to).filter(|known| known.first <= gap.last.saturating_add(1)) {
            gap = gap.joined(*known);
            to += 1;
        }
        self.0.splice(from..to, [gap]);
    }

    /// Whether this sequence may have been missing.
    #[must_use]
    pub fn contains(&self, sequence: u64) -> bool {
        let at = self.0.partition_point(|gap| gap.last < sequence);
        self.0.get(at).is_some_and(|gap| gap.first <= sequence)
    }

    /// The ranges, in ascending order.
    #[must_use = "an iterator does nothing by itself"]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Gap> + '_ {
        self.0.iter().copied()
    }

    /// How many ranges there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many sequences were missing.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.0.iter().map(|gap| gap.missing).sum()
    }

    /// How many sequences from `first` to `last` were missing, at least.
    #[must_use]
    pub fn missing_between(&self, first: u64, last: u64) -> u64 {
        let from = self.0.partition_point(|gap| gap.last < first);
        let within = self.0[from..].iter().map_while(|gap| gap.within(first, last));
        within.map(|gap| gap.missing).sum()
    }

    /// The sequences in both. Exact where both are exact.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let mut common = Self::default();
        let mut others = other.0.iter().peekable();
        for gap in &self.0 {
            while others.next_if(|other| other.last < gap.first).is_some() {}
            let mut rest = others.clone();
            while let Some(other) = rest.next_if(|other| other.first <= gap.last) {
                common.0.extend(gap.within(other.first, other.last));
            }
        }
        common
    }

    /// The sequences after `reported_to` that are not in `others`. Exact where both are exact.
    #[must_use]
    pub fn without(&self, others: &Self, reported_to: u64) -> Self {
        let mut left = Vec::new();
        for gap in &self.0 {
            let mut from = gap.first.max(reported_to.saturating_add(1));
            let others = &others.0[others.0.partition_point(|other| other.last < from)..];
            for other in others.iter().take_while(|other| other.first <= gap.last) {
                left.extend(gap.within(from, other.first.saturating_sub(1)));
                from = other.last + 1;
            }
            left.extend(gap.within(from, gap.last));
        }
        Self(left)
    }

    /// Joins ranges until there are no more than `most`, the closest ones first. The sequences between two joined ranges then count
    /// as possibly missing, and a restored event there may be stored twice rather than lost.
    pub fn compact(&mut self, most: usize) {
        let surplus = self.0.len().saturating_sub(most.max(1));
        if surplus == 0 {
            return;
        }
        let mut distances: Vec<u64> = self.0.windows(2).map(|pair| pair[1].first - pair[0].last).collect();
        distances.sort_unstable();
        let limit = distances[surplus - 1];
        let mut left = surplus;
        let mut joined: Vec<Gap> = Vec::with_capacity(most);
        for gap in self.0.drain(..) {
            match joined.last_mut() {
                Some(last) if left > 0 && gap.first - last.last <= limit => {
                    *last = last.joined(gap);
                    left -= 1;
                }
                _ => joined.push(gap),
            }
        }
        self.0 = joined;
    }
}

impl From<Gap> for Gaps {
    fn from(gap: Gap) -> Self {
        Self(vec![gap])
    }
}

impl FromIterator<Gap> for Gaps {
    fn from_iter<I: IntoIterator<Item = Gap>>(gaps: I) -> Self {
        let mut all = Self::default();
        gaps.into_iter().for_each(|gap| all.insert(gap));
        all
    }
}

/// Readable text: `3, 7 to 9 and 2 more ranges up to 30`.
impl std::fmt::Display for Gaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// The number of ranges that are listed.
        const LISTED: usize = 5;
        for (index, gap) in self.0.iter().take(LISTED).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", gap.first)?;
            if gap.last > gap.first {
                write!(f, " to {}", gap.last)?;
            }
        }
        match (self.0.len().saturating_sub(LISTED), self.0.last()) {
            (0, _) | (_, None) => Ok(()),
            (1, Some(last)) => write!(f, " and another range up to {}", last.last),
            (more, Some(last)) => write!(f, " and {more} more ranges up to {}", last.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn gaps(ranges: &[(u64, u64)]) -> Gaps {
        ranges.iter().filter_map(|(first, last)| Gap::of(*first, *last)).collect()
    }

    fn sequences(gaps: &Gaps) -> BTreeSet<u64> {
        gaps.iter().flat_map(|gap| gap.first..=gap.last).collect()
    }

    #[test]
    fn adjoining_ranges_become_one() {
        assert_eq!(gaps(&[(5, 6), (1, 2), (3, 4)]), gaps(&[(1, 6)]));
        assert_eq!(gaps(&[(1, 2), (4, 4)]).len(), 2);
        assert_eq!(gaps(&[(4, 3)]), Gaps::default(), "an empty range is none");
    }

    #[test]
    fn few_ranges_are_named_and_the_rest_counted() {
        assert_eq!(gaps(&[(3, 3), (7, 9)]).to_string(), "3, 7 to 9");
        let many = gaps(&[(1, 1), (3, 3), (5, 5), (7, 7), (9, 9), (11, 12), (20, 30)]);
        assert_eq!(many.to_string(), "1, 3, 5, 7, 9 and 2 more ranges up to 30");
    }

    #[test]
    fn the_closest_ranges_are_joined_to_save_memory() {
        let mut many = gaps(&[(1, 10), (12, 20), (100, 200), (300, 300)]);
        many.compact(3);
        let joined = Gap { first: 1, last: 20, missing: 19 };
        assert_eq!(many.iter().next(), Some(joined));
        assert!(!joined.is_exact() && many.contains(11), "possibly missing");
        assert_eq!((many.len(), many.missing()), (3, 19 + 101 + 1));
    }

    #[test]
    fn a_part_of_a_joined_range_has_at_least_what_must_be_in_it() {
        let joined = Gap { first: 1, last: 20, missing: 19 };
        assert_eq!(joined.within(11, 30), Some(Gap { first: 11, last: 20, missing: 9 }));
        assert_eq!(joined.within(21, 30), None);
    }

    proptest! {
        #[test]
        fn gaps_are_a_set_of_numbers(ranges in prop::collection::vec((1u64..60, 0u64..6), 0..20), others in prop::collection::vec((1u64..60, 0u64..6), 0..20)) {
            let made = |ranges: &[(u64, u64)]| gaps(&ranges.iter().map(|(first, length)| (*first, first + length)).collect::<Vec<_>>());
            let set = |ranges: &[(u64, u64)]| -> BTreeSet<u64> { ranges.iter().flat_map(|(first, length)| *first..=first + length).collect() };
            let (ours, theirs) = (made(&ranges), made(&others));
            prop_assert_eq!(sequences(&ours), set(&ranges));
            prop_assert_eq!(ours.missing(), set(&ranges).len() as u64);
            prop_assert!(ours.iter().all(Gap::is_exact));
            for sequence in 0..80 {
                prop_assert_eq!(ours.contains(sequence), set(&ranges).contains(&sequence));
            }
            let between = set(&others).iter().filter(|number| (10..=30).contains(*number)).count();
            prop_assert_eq!(theirs.missing_between(10, 30), between as u64);
            let both: BTreeSet<u64> = set(&ranges).intersection(&set(&others)).copied().collect();
            prop_assert_eq!(sequences(&ours.common(&theirs)), both);
            let left: BTreeSet<u64> = set(&ranges).difference(&set(&others)).copied().filter(|number| *number > 9).collect();
            prop_assert_eq!(sequences(&ours.without(&theirs, 9)), left);
        }

        #[test]
        fn compacting_loses_no_sequence(ranges in prop::collection::vec((1u64..500, 0u64..6), 0..60), most in 1usize..20) {
            let before: Gaps = ranges.iter().filter_map(|(first, length)| Gap::of(*first, first + length)).collect();
            let mut after = before.clone();
            after.compact(most);
            prop_assert!(after.len() <= most && after.missing() == before.missing());
            prop_assert!(sequences(&before).is_subset(&sequences(&after)));
        }
    }
}
