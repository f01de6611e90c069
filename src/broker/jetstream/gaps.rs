//! What a stream dropped before it was collected: by its limits, or because somebody purged it.
//!
//! A consumer says nothing of it, it goes on behind. What shows is a step in the stream's sequences, or a number of pending
//! messages that falls without a delivery. Neither is proof: a filter passes over messages, single ones are deleted. So
//! the stream is asked where it begins now, and what lies before that and was passed over is gone.

use std::time::{Duration, Instant};

/// How often to ask, at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Steps remembered until the stream is asked.
const MOST_STEPS: usize = 64;

/// Looks for what is gone within a session.
#[derive(Debug)]
pub(super) struct Gaps {
    /// The consumer has every subject of the stream: every step is a message that was there once.
    whole: bool,
    /// Sequences passed over, first and last, that have not been asked about.
    steps: Vec<(u64, u64)>,
    suspicious: bool,
    asked: Option<Instant>,
    /// The answer has not come yet.
    open: bool,
    /// The next sequence that can come.
    next: u64,
    pending: u64,
}

/// Sequences that the stream no longer has and that were never taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    first: u64,
    last: u64,
    /// How many there were, at most: some may have been deleted by themselves, or be none of ours.
    pub(super) events: u64,
}

impl Gone {
    /// Between the sequence that was due and the stream's first.
    pub(super) fn before(due: u64, first: u64) -> Option<Self> {
        (first > due).then(|| Self { first: due, last: first - 1, events: first - due })
    }

    /// For an operator.
    pub(super) fn news(&self, stream: &str, begins: u64) -> String {
        let Self { first, last, events } = self;
        format!(
            "stream {stream} begins at {begins}: it no longer has {first} to {last}, up to {events} events that were \
             never stored"
        )
    }
}

impl Gaps {
    /// For a consumer that begins at `next` with so many messages.
    pub(super) fn new(whole: bool, next: u64, pending: u64) -> Self {
        Self { whole, steps: Vec::new(), suspicious: false, asked: None, open: false, next, pending }
    }

    /// A delivery came.
    pub(super) fn delivered(&mut self, sequence: u64, pending: u64) {
        let fell = pending + 1 < self.pending;
        self.pending = pending;
        if sequence > self.next && (self.whole || fell) {
            self.step(sequence);
        }
        self.next = sequence + 1;
    }

    #[cold]
    fn step(&mut self, sequence: u64) {
        self.suspicious = true;
        let full = self.steps.len() >= MOST_STEPS;
        match self.steps.last_mut().filter(|_| full) {
            Some(last) => last.1 = sequence - 1,
            None => self.steps.push((self.next, sequence - 1)),
        }
    }

    /// All that was sent has come, and the consumer has so many messages.
    pub(super) fn counted(&mut self, pending: u64) {
        self.suspicious |= pending < self.pending;
        self.pending = pending;
    }

    /// Whether to ask the stream now.
    pub(super) fn ask(&mut self) -> bool {
        let due = self.suspicious && self.asked.is_none_or(|asked| asked.elapsed() >= PAUSE);
        if due {
            self.suspicious = false;
            self.open = true;
            self.asked = Some(Instant::now());
        }
        due
    }

    /// Whether all that looked like a gap has been asked about.
    pub(super) fn is_settled(&self) -> bool {
        !self.suspicious && !self.open
    }

    /// The stream begins at `first` now.
    pub(super) fn answered(&mut self, first: u64) -> Option<Gone> {
        self.open = false;
        let mut gone: Option<Gone> = None;
        let mut add = |from: u64, to: u64| {
            let last = to.min(first.saturating_sub(1));
            if last < from {
                return;
            }
            let gone = gone.get_or_insert(Gone { first: from, last, events: 0 });
            gone.last = last;
            gone.events += last - from + 1;
        };
        for (from, to) in self.steps.drain(..) {
            add(from, to);
        }
        if first > self.next {
            add(self.next, first - 1);
            self.next = first;
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_streams_start_has_passed_is_gone() {
        let mut gaps = Gaps::new(true, 1, 10);
        gaps.delivered(1, 9);
        assert!(!gaps.ask());
        gaps.delivered(5, 5);
        assert!(gaps.ask() && !gaps.ask());
        assert_eq!(gaps.answered(5), Some(Gone { first: 2, last: 4, events: 3 }));
        assert_eq!(gaps.answered(5), None, "said once");
    }

    #[test]
    fn what_is_deleted_behind_the_streams_start_is_nobodys_loss() {
        let mut gaps = Gaps::new(true, 1, 10);
        gaps.delivered(4, 9);
        assert!(gaps.ask());
        assert_eq!(gaps.answered(1), None);
    }

    #[test]
    fn a_filter_passes_messages_over_but_not_those_it_counted() {
        let mut gaps = Gaps::new(false, 1, 10);
        gaps.delivered(4, 9);
        assert!(!gaps.ask());
        gaps.delivered(9, 5);
        assert!(gaps.ask());
        assert_eq!(gaps.answered(8), Some(Gone { first: 5, last: 7, events: 3 }));
    }

    #[test]
    fn a_purge_shows_before_the_next_delivery() {
        let mut gaps = Gaps::new(true, 1, 10);
        gaps.counted(10);
        assert!(!gaps.ask());
        gaps.counted(0);
        assert!(gaps.ask());
        assert!(!gaps.is_settled());
        assert_eq!(gaps.answered(11), Some(Gone { first: 1, last: 10, events: 10 }));
        assert!(gaps.is_settled());
        gaps.delivered(11, 0);
        assert_eq!(gaps.answered(11), None, "said once");
    }
}
