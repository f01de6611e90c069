//! How far each epoch of the stream has been taken in, and which events an earlier one has already.

use crate::pipeline::{Epoch, EpochProgress, Gap, Gaps, Mark};

/// The epochs of one stream, the latest last.
#[derive(Debug)]
pub(super) struct EpochHistory {
    epochs: Vec<EpochProgress>,
    /// No event behind this sequence is in an earlier epoch of the stream's creation.
    known_up_to: u64,
}

impl EpochHistory {
    /// Of these epochs, the latest last.
    pub(super) fn new(epochs: Vec<EpochProgress>) -> Self {
        Self { epochs, known_up_to: 0 }
    }

    pub(super) fn epochs(&self) -> &[EpochProgress] {
        &self.epochs
    }

    /// What comes belongs to this epoch, which is read up to `after`.
    pub(super) fn continue_epoch(&mut self, epoch: &Epoch, after: Mark) {
        match self.epochs.last_mut().filter(|life| life.epoch == *epoch) {
            Some(life) => life.mark = after,
            None => self.epochs.push(EpochProgress { epoch: epoch.clone(), mark: after, gaps: <_>::default() }),
        }
        self.known_up_to = self.earlier().map(|life| life.mark.sequence).max().unwrap_or(0);
    }

    /// The current epoch is read up to here.
    pub(super) fn reached(&mut self, mark: Mark) {
        if let Some(life) = self.epochs.last_mut() {
            life.mark = mark;
        }
    }

    /// The current epoch does not have these.
    pub(super) fn add_gap(&mut self, gap: Gap) {
        if let Some(life) = self.epochs.last_mut() {
            life.gaps.insert(gap);
            if life.gaps.len() > Gaps::MOST {
                life.gaps.compact(Gaps::MOST / 2);
            }
        }
    }

    /// Whether an earlier epoch has this event of the current one.
    pub(super) fn is_known(&self, mark: Mark) -> bool {
        mark.sequence <= self.known_up_to && self.earlier().any(|life| life.has(mark))
    }

    /// Earlier epochs of the same creation.
    fn earlier(&self) -> impl Iterator<Item = &EpochProgress> {
        let current = self.epochs.last();
        let before = self.epochs.split_last().map_or(&[][..], |(_, before)| before);
        before.iter().filter(move |life| current.is_some_and(|current| current.epoch.created == life.epoch.created))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(sequence: u64, published_ns: i64) -> Mark {
        Mark { sequence, published_ns }
    }

    fn life(number: u32, created: &str, mark: Mark) -> EpochProgress {
        EpochProgress { epoch: Epoch::new("S", number, created), mark, gaps: <_>::default() }
    }

    #[test]
    fn what_any_earlier_epoch_of_the_creation_has_is_known() {
        let mut history = EpochHistory::new(vec![
            life(1, "monday", mark(90, 9)),
            life(2, "tuesday", mark(99, 8)),
            life(3, "monday", mark(60, 5)),
        ]);
        history.epochs[0].gaps.insert(Gap::of(10, 20).expect("not empty"));
        history.continue_epoch(&Epoch::new("S", 4, "monday"), Mark::START);
        for known in [mark(1, 1), mark(90, 9), mark(15, 5)] {
            assert!(history.is_known(known), "{known:?}");
        }
        for unknown in [mark(15, 6), mark(90, 10), mark(91, 1)] {
            assert!(!history.is_known(unknown), "{unknown:?}");
        }
        history.continue_epoch(&Epoch::new("S", 5, "tuesday"), Mark::START);
        assert!(history.is_known(mark(91, 1)) && !history.is_known(mark(91, 9)));
    }

    #[test]
    fn the_current_epoch_is_no_earlier_one() {
        let mut history = EpochHistory::new(Vec::new());
        history.continue_epoch(&Epoch::new("S", 1, "monday"), Mark::START);
        history.reached(mark(5, 5));
        assert!(!history.is_known(mark(4, 4)));
        assert_eq!(history.epochs()[0].mark, mark(5, 5));
    }
}
