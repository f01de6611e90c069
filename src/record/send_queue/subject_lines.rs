//! The order of the events of a subject that the server refuses for now.
//!
//! A stream that is full takes an event as soon as another one leaves it, and a stream that was missing is made at some moment: then a later
//! event would be stored before one that was refused a moment earlier. So the events of such a subject wait in a line for the first. Once
//! that is stored, the others follow: where the stream was full, only a few at a time.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The first so many events of a line are stored one at a time. Then two may be in flight, and so on, with twice as many each time.
const STORED_AT_A_TIME: usize = 64;

/// A line that may have more than so many in flight is one no more.
const MOST_IN_FLIGHT: usize = 1_024;

/// How long a refusal counts as the latest news of a line, while events of it are stored.
const LATELY: Duration = Duration::from_secs(1);

/// The lines. An event that may be sent is put into `ready`.
#[derive(Debug, Default)]
pub(super) struct SubjectLines {
    by_subject: HashMap<String, Line>,
    refused_at: Option<Instant>,
}

#[derive(Debug)]
struct Line {
    /// Those that wait for those before them.
    waiting: BTreeSet<u64>,
    /// Those that may be sent, or are.
    released: BTreeSet<u64>,
    /// How many may be released.
    width: usize,
    /// How many were stored since `width` changed.
    stored: usize,
    /// The last refusal was because the stream is full.
    is_full: bool,
    /// Since when no stream takes the events, and none is stored.
    refused_since: Option<Instant>,
}

impl SubjectLines {
    /// The server refuses this event: because the stream is full (`None`), or because no stream takes it, since this time. Returns the
    /// event of this subject to send again later, if none is sent at the moment.
    pub(super) fn refuse(
        &mut self,
        subject: &str,
        number: u64,
        without_stream: Option<Instant>,
        ready: &mut BTreeSet<u64>,
    ) -> Option<u64> {
        self.refused_at = Some(Instant::now());
        let line = self.by_subject.entry(subject.to_owned()).or_insert_with(Line::new);
        (line.width, line.stored) = (1, 0);
        line.is_full = without_stream.is_none();
        line.refused_since = line.refused_since.or(without_stream);
        line.released.remove(&number);
        line.waiting.insert(number);
        // They were released, but not sent yet.
        let unsent: Vec<u64> = line.released.iter().copied().filter(|released| ready.remove(released)).collect();
        for released in unsent {
            line.released.remove(&released);
            line.waiting.insert(released);
        }
        line.next()
    }

    /// Puts an event that was not sent yet into the line of its subject. Returns `false` where there is none.
    pub(super) fn join(&mut self, subject: &str, number: u64, ready: &mut BTreeSet<u64>) -> bool {
        let Some(line) = self.by_subject.get_mut(subject) else { return false };
        line.waiting.insert(number);
        line.release(ready);
        true
    }

    /// Removes an event that has its outcome, or another subject. Returns those that no longer wait, because a stream takes them now.
    pub(super) fn leave(
        &mut self,
        subject: &str,
        number: u64,
        is_stored: bool,
        ready: &mut BTreeSet<u64>,
    ) -> BTreeSet<u64> {
        let mut freed = BTreeSet::new();
        let Some(line) = self.by_subject.get_mut(subject) else { return freed };
        line.waiting.remove(&number);
        line.released.remove(&number);
        if is_stored {
            line.stored += 1;
            line.refused_since = None;
            if !line.is_full {
                line.width = usize::MAX;
            }
        }
        if line.stored / STORED_AT_A_TIME >= line.width {
            (line.width, line.stored) = (2 * line.width, 0);
        }
        if line.width > MOST_IN_FLIGHT {
            freed = std::mem::take(&mut line.waiting);
            ready.extend(&freed);
        }
        line.release(ready);
        if line.waiting.is_empty() && (line.released.is_empty() || line.width > MOST_IN_FLIGHT) {
            self.by_subject.remove(subject);
        }
        freed
    }

    /// On a new connection all events join again. How many of a subject may be in flight stays.
    pub(super) fn reconnect(&mut self) {
        for line in self.by_subject.values_mut() {
            line.waiting.clear();
            line.released.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_subject.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_subject.is_empty()
    }

    /// Whether events wait because the server refused one of them a moment ago.
    pub(super) fn was_refused_lately(&self) -> bool {
        !self.is_empty() && self.refused_at.is_some_and(|at| at.elapsed() < LATELY)
    }

    /// Whether events of this subject wait for one that is refused.
    pub(super) fn has(&self, subject: &str) -> bool {
        self.by_subject.contains_key(subject)
    }

    /// Since when no stream takes the events of this subject.
    pub(super) fn refused_since(&self, subject: &str) -> Option<Instant> {
        self.by_subject.get(subject)?.refused_since
    }
}

impl Line {
    fn new() -> Self {
        Self {
            waiting: BTreeSet::new(),
            released: BTreeSet::new(),
            width: 1,
            stored: 0,
            is_full: true,
            refused_since: None,
        }
    }

    /// Releases the next event, if it may be.
    fn next(&mut self) -> Option<u64> {
        let next = if self.released.len() < self.width { self.waiting.pop_first() } else { None };
        self.released.extend(next);
        next
    }

    fn release(&mut self, ready: &mut BTreeSet<u64>) {
        ready.extend(std::iter::from_fn(|| self.next()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_full_stream_are_sent_one_by_one_in_order() {
        let (mut lines, mut ready) = (SubjectLines::default(), BTreeSet::new());
        assert!(!lines.join("a", 1, &mut ready), "there is room");
        assert_eq!(lines.refuse("a", 2, None, &mut ready), Some(2));
        assert_eq!(lines.refuse("a", 3, None, &mut ready), None, "it is behind another");
        assert!(lines.join("a", 4, &mut ready) && !lines.join("b", 5, &mut ready) && ready.is_empty());
        assert_eq!(lines.refuse("a", 2, None, &mut ready), Some(2));
        for number in [2, 3] {
            lines.leave("a", number, true, &mut ready);
            assert_eq!(ready.pop_first(), Some(number + 1));
        }
        lines.leave("a", 4, true, &mut ready);
        assert!(ready.is_empty() && lines.is_empty(), "nothing waits");
    }

    #[test]
    fn once_there_is_a_stream_all_follow_and_until_then_one_at_a_time_is_given_up() {
        let (mut lines, mut ready) = (SubjectLines::default(), BTreeSet::new());
        let since = Instant::now();
        assert_eq!(lines.refuse("a", 1, Some(since), &mut ready), Some(1));
        assert!((2..=9).all(|number| lines.join("a", number, &mut ready)) && ready.is_empty());
        lines.leave("a", 1, false, &mut ready);
        assert_eq!((ready.pop_first(), ready.len(), lines.refused_since("a")), (Some(2), 0, Some(since)));
        lines.leave("a", 2, true, &mut ready);
        assert!(ready.iter().copied().eq(3..=9) && lines.is_empty());
    }

    #[test]
    fn while_events_are_stored_more_of_them_are_in_flight() {
        let (mut lines, mut ready) = (SubjectLines::default(), BTreeSet::new());
        let mut in_flight: BTreeSet<u64> = lines.refuse("a", 0, None, &mut ready).into_iter().collect();
        let (mut sent, mut stored, mut widths) = (1, 0, Vec::new());
        while !lines.is_empty() {
            if lines.join("a", sent, &mut ready) {
                sent += 1;
            }
            in_flight.append(&mut ready);
            if widths.last() != Some(&in_flight.len()) {
                widths.push(in_flight.len());
            }
            if sent % 3 > 0 || sent - stored > 3_000 {
                lines.leave("a", in_flight.pop_first().expect("one is sent"), true, &mut ready);
                stored += 1;
            }
            assert!(in_flight.is_empty() || in_flight.first() == Some(&stored), "in order: {stored}");
        }
        assert!(widths.contains(&1) && widths.iter().max() > Some(&500), "{widths:?}");
        assert!(stored > 60_000, "it took {stored}");
    }

    #[test]
    fn after_a_refusal_nothing_behind_it_is_sent() {
        let (mut lines, mut ready) = (SubjectLines::default(), BTreeSet::new());
        assert_eq!(lines.refuse("a", 0, None, &mut ready), Some(0));
        for number in 1..=200 {
            lines.join("a", number, &mut ready);
        }
        for number in 0..100 {
            lines.leave("a", number, true, &mut ready);
        }
        assert_eq!(ready.pop_first(), Some(1));
        ready.retain(|number| *number >= 100);
        assert_eq!(ready, BTreeSet::from([100, 101]), "two may be in flight");
        ready.remove(&100);
        assert_eq!(lines.refuse("a", 100, None, &mut ready), Some(100), "the one behind it was not sent");
        assert!(ready.is_empty());
        lines.reconnect();
        assert!(lines.join("a", 100, &mut ready) && lines.join("a", 101, &mut ready));
        assert_eq!(ready, BTreeSet::from([100]));
        lines.leave("a", 101, false, &mut ready);
        lines.leave("a", 100, false, &mut ready);
        assert!(lines.is_empty());
    }
}
