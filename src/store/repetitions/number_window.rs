//! Which numbers of one recorder are stored.
//!
//! A recorder sends a number only when the number [`WIDTH`] below it has an outcome. So whatever is further behind than that is a
//! repetition, and the rest fits a few kilobytes. Numbers that arrive in order need eight bytes.

use std::collections::VecDeque;

use rusqlite::types::{FromSqlError, FromSqlResult};

use crate::event_id::{WIDTH, width};

/// The numbers in one word.
const WORD: u64 = u64::BITS as u64;

const _: () = assert!(WIDTH.is_multiple_of(WORD));

/// Words that contain any [`width`] successive numbers, wherever they begin.
fn most_words() -> u64 {
    width() / WORD + 1
}

/// Which numbers of one recorder are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct NumberWindow {
    /// Below it, every number counts as stored. A multiple of [`WORD`].
    base: u64,
    /// One bit for each number from `base` on, the lowest bit first. The first word is not complete, and the last one is not empty.
    words: VecDeque<u64>,
}

impl NumberWindow {
    /// From the columns of a row.
    pub(super) fn from_row(base: u64, stored: &[u8]) -> FromSqlResult<Self> {
        let (words, rest) = stored.as_chunks();
        if !base.is_multiple_of(WORD) || !rest.is_empty() || words.len() as u64 > most_words() {
            return Err(FromSqlError::Other("catchment_recorders has a row that catchment has not written".into()));
        }
        Ok(Self { base, words: words.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect() })
    }

    /// Below it, every number counts as stored.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The numbers from the base on: one bit each, the lowest bit of the first byte first.
    pub(super) fn to_blob(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Adds a number. Returns `false` if it is stored already.
    pub(in crate::store) fn insert(&mut self, number: u64) -> bool {
        let Some(ahead) = number.checked_sub(self.base) else { return false };
        let word = (ahead / WORD).min(most_words() - 1);
        self.advance(ahead / WORD - word);
        let word = usize::try_from(word).expect("is small");
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (ahead % WORD);
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        while self.words.front() == Some(&u64::MAX) {
            self.advance(1);
        }
        is_new
    }

    /// Moves the base up by this many words.
    fn advance(&mut self, words: u64) {
        self.base += words * WORD;
        let gone = usize::try_from(words).map_or(self.words.len(), |words| words.min(self.words.len()));
        self.words.drain(..gone);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const MOST_WORDS: usize = 1_025;

    fn saved(window: &NumberWindow) -> NumberWindow {
        NumberWindow::from_row(window.base(), &window.to_blob()).expect("a row")
    }

    #[test]
    fn numbers_in_order_need_eight_bytes() {
        let mut window = NumberWindow::default();
        for number in 0..100_000 {
            assert!(window.insert(number) && !window.insert(number));
            assert!(window.to_blob().len() <= 8);
        }
        assert_eq!(window.base(), 99_968);
        assert!((0..100_000).all(|number| !window.insert(number)));
        assert!(window.insert(100_000));
    }

    #[test]
    fn every_second_number_needs_eight_kilobytes() {
        let mut window = NumberWindow::default();
        for number in (0..1_000_000).step_by(2) {
            assert!(window.insert(number));
        }
        assert_eq!(window.to_blob().len(), MOST_WORDS * 8);
        assert_eq!(saved(&window), window);
        let oldest = 999_998 - WIDTH + 1;
        assert!(window.insert(oldest + 1 - oldest % 2), "a number within the width that did not come yet");
        assert!(!window.insert(oldest - WORD * 2), "too far behind: it had its outcome before");
    }

    #[test]
    fn the_last_number_of_all_is_no_problem() {
        let mut window = NumberWindow::default();
        let last = u64::try_from(i64::MAX).expect("positive");
        assert!(window.insert(last) && !window.insert(last) && window.insert(last - 1) && !window.insert(17));
    }

    #[test]
    fn what_catchment_has_not_written_is_an_error() {
        for (base, stored) in [(1, &[0; 8][..]), (0, &[0; 7]), (0, &[0; MOST_WORDS * 8 + 8])] {
            assert!(NumberWindow::from_row(base, stored).is_err(), "{base} {}", stored.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The same recorder, over a stream whose partitions have a database each: each database sees only some of the numbers, and
        /// exactly the first copy of each number is new in the one that it comes to.
        #[test]
        fn exactly_the_first_copy_is_new_in_its_partition(
            partitions in 2u64..9,
            steps in prop::collection::vec((0u64..300, 0u32..10, any::<bool>()), 1..60),
        ) {
            let partition = |number: u64| {
                let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
                usize::try_from(mixed % partitions).expect("small")
            };
            let mut windows = vec![NumberWindow::default(); usize::try_from(partitions).expect("small")];
            let (mut arrived, mut settled, mut next) = (HashSet::new(), 0u64, 0u64);
            for (by, kind, is_saved) in steps {
                let arriving: Vec<u64> = match kind {
                    0..5 => {
                        let number = (next + by * 200).min(settled + WIDTH);
                        next = next.max(number + 1);
                        vec![number]
                    }
                    // One that was sent before, however long ago: acknowledged ones are in the stream already.
                    5..8 => vec![next.saturating_sub(1 + by * 500)],
                    // The oldest ones are acknowledged: those that were lost were sent again, and arrived.
                    _ => {
                        let until = (settled + by * 5).min(next);
                        let missing = (settled..until).filter(|number| !arrived.contains(number)).collect();
                        settled = until;
                        missing
                    }
                };
                for number in arriving {
                    next = next.max(number + 1);
                    let window = &mut windows[partition(number)];
                    prop_assert_eq!(window.insert(number), arrived.insert(number), "{} of {}", number, next);
                    prop_assert!(window.words.len() <= MOST_WORDS);
                    if is_saved {
                        prop_assert_eq!(&saved(window), &*window);
                    }
                }
            }
        }

        /// A recorder that keeps the rule, over a stream that repeats and loses what it likes, with a window that is saved and read at
        /// any time: exactly the first copy of each number is new.
        #[test]
        fn exactly_the_first_copy_is_new(
            steps in prop::collection::vec((0u64..300, 0u32..10, any::<bool>()), 1..200),
        ) {
            let (mut window, mut arrived) = (NumberWindow::default(), HashSet::new());
            // The lowest number without an outcome, and the next one that was never sent.
            let (mut settled, mut next) = (0u64, 0u64);
            for (by, kind, is_saved) in steps {
                let number = match kind {
                    // A new number, as far ahead as the rule allows. Those between are on their way or lost.
                    0..5 => (next + by * 200).min(settled + WIDTH),
                    // One that was sent before, however long ago.
                    5..8 => next.saturating_sub(1 + by * 500),
                    // The oldest ones have their outcome: acknowledged, so they arrived, or given up.
                    _ => {
                        let until = (settled + by * 50).min(next);
                        for number in settled..until {
                            if number % 3 == 0 {
                                prop_assert_eq!(window.insert(number), arrived.insert(number));
                            }
                        }
                        settled = until;
                        continue;
                    }
                };
                // An event that was given up may still arrive, and counts as either.
                if number < settled && !arrived.contains(&number) {
                    continue;
                }
                next = next.max(number + 1);
                prop_assert_eq!(window.insert(number), arrived.insert(number), "{} of {}", number, next);
                prop_assert!(window.words.len() <= MOST_WORDS);
                if is_saved {
                    prop_assert_eq!(&saved(&window), &window);
                }
            }
        }
    }
}
