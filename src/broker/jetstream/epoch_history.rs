//! The progress in each epoch of the stream, and which events an earlier epoch already has.

use crate::pipeline::{Epoch, EpochProgress, Gap, Gaps, Mark};

/// The epochs of one stream, the latest last.
#[derive(Debug)]
pub(super) struct EpochHistory {
    epochs: Vec<EpochProgress>,
    /// No earlier epoch with the same creation time has an event after this sequence.
    stored_up_to: u64,
}

impl EpochHistory {
    /// From these epochs, the latest last.
    pub(super) fn new(epochs: Vec<EpochProgress>) -> Self {
        Self { epochs, stored_up_to: 0 }
    }

    pub(super) fn epochs(&self) -> &[EpochProgress] {
        &self.epochs
    }

    /// The next events belong to this epoch, which was read up to `after`.
    pub(super) fn continue_epoch(&mut self, epoch: &Epoch, after: Mark) {
        match self.epochs.last_mut().filter(|progress| progress.epoch == *epoch) {
            Some(progress) => progress.mark = after,
            None => self.epochs.push(EpochProgress { epoch: epoch.clone(), mark: after, gaps: <_>::default() }),
        }
        self.stored_up_to = self.earlier().map(|progress| progress.mark.sequence).max().unwrap_or(0);
    }

    /// The current epoch was read up to this event.
    pub(super) fn reached(&mut self, mark: Mark) {
        if let Some(progress) = self.epochs.last_mut() {
            progress.mark = mark;
        }
    }

    /// The last event that was read in the current epoch.
    pub(super) fn position(&self) -> Mark {
        self.epochs.last().map_or(Mark::START, |progress| progress.mark)
    }

    /// The current epoch does not have these sequences.
    pub(super) fn add_gap(&mut self, gap: Gap) {
        if let Some(progress) = self.epochs.last_mut() {
            progress.gaps.insert(gap);
            if progress.gaps.len() > Gaps::MOST {
                progress.gaps.compact(Gaps::MOST / 2);
            }
        }
    }

    /// Whether an earlier epoch already has this event.
    pub(super) fn is_stored(&self, mark: Mark) -> bool {
        mark.sequence <= self.stored_up_to && self.earlier().any(|progress| progress.has(mark))
    }

    /// Earlier epochs with the same creation time.
    fn earlier(&self) -> impl Iterator<Item = &EpochProgress> {
        let current = self.epochs.last();
        let before = self.epochs.split_last().map_or(&[][..], |(_, before)| before);
        before
            .iter()
            .filter(move |progress| current.is_some_and(|current| current.epoch.created == progress.epoch.created))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(sequence: u64, published_ns: i64) -> Mark {
        Mark { sequence, published_ns }
    }

    fn progress(number: u32, created: &str, mark: Mark) -> EpochProgress {
        EpochProgress { epoch: Epoch::new("S", number, created), mark, gaps: <_>::default() }
    }

    #[test]
    fn what_any_earlier_epoch_of_the_creation_has_is_known() {
        let mut history = EpochHistory::new(vec![
            progress(1, "monday", mark(90, 9)),
            progress(2, "tuesday", mark(99, 8)),
            progress(3, "monday", mark(60, 5)),
        ]);
        history.epochs[0].gaps.insert(Gap::of(10, 20).expect("not empty"));
        history.continue_epoch(&Epoch::new("S", 4, "monday"), Mark::START);
        for known in [mark(1, 1), mark(90, 9), mark(15, 5)] {
            assert!(history.is_stored(known), "{known:?}");
        }
        for unknown in [mark(15, 6), mark(90, 10), mark(91, 1)] {
            assert!(!history.is_stored(unknown), "{unknown:?}");
        }
        history.continue_epoch(&Epoch::new("S", 5, "tuesday"), Mark::START);
        assert!(history.is_stored(mark(91, 1)) && !history.is_stored(mark(91, 9)));
    }

    #[test]
    fn the_current_epoch_is_no_earlier_one() {
        let mut history = EpochHistory::new(Vec::new());
        history.continue_epoch(&Epoch::new("S", 1, "monday"), Mark::START);
        history.reached(mark(5, 5));
        assert!(!history.is_stored(mark(4, 4)));
        assert_eq!(history.epochs()[0].mark, mark(5, 5));
    }
}
