//! The events that the server refuses, and what of that is to be noted in the file.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How often something is noted, at most.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct RefusedEvents {
    /// Those without an outcome.
    waiting: BTreeSet<u64>,
    /// These, and those that wait for them.
    unsent: BTreeSet<u64>,
    /// Those of them that are to be noted.
    new: Vec<u64>,
    /// Others were stored while events were refused.
    others_stored: bool,
    /// That is noted.
    is_noted: bool,
    noted_at: Option<Instant>,
}

impl RefusedEvents {
    /// Adds an event that an earlier start has noted.
    pub(super) fn add_noted(&mut self, position: u64) {
        self.waiting.insert(position);
        self.unsent.insert(position);
    }

    /// Adds an event that waits, and that is not to be noted.
    pub(super) fn add_waiting(&mut self, position: u64) {
        self.unsent.insert(position);
    }

    /// Adds an event that is refused for the first time.
    pub(super) fn add(&mut self, position: u64) {
        self.waiting.insert(position);
        self.unsent.insert(position);
        self.new.push(position);
        // What was stored before says nothing of this one.
        if std::mem::take(&mut self.is_noted) {
            self.others_stored = false;
        }
    }

    /// Notes that an event has its outcome, and whether it was stored.
    pub(super) fn settled(&mut self, position: u64, is_stored: bool) {
        self.waiting.remove(&position);
        self.unsent.remove(&position);
        self.others_stored |= is_stored && !self.waiting.is_empty();
    }

    pub(super) fn waiting(&self) -> &BTreeSet<u64> {
        &self.waiting
    }

    /// The events that are refused, and those that wait for them.
    pub(super) fn unsent(&self) -> &BTreeSet<u64> {
        &self.unsent
    }

    fn has_news(&self) -> bool {
        !self.new.is_empty() || (self.others_stored && !self.is_noted)
    }

    /// How long until something is to be noted, if there is something.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.has_news().then(|| self.noted_at.map_or(Duration::ZERO, |at| PAUSE.saturating_sub(at.elapsed())))
    }

    /// What is to be noted now: events that are refused for the first time, and whether others were stored.
    pub(super) fn news(&mut self) -> (&[u64], bool) {
        // Some have their outcome already.
        self.new.retain(|position| self.waiting.contains(position));
        (&self.new, self.others_stored)
    }

    /// The news are noted.
    pub(super) fn noted(&mut self) {
        self.new.clear();
        (self.is_noted, self.others_stored, self.noted_at) = (self.others_stored, false, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(events: &mut RefusedEvents) -> (Vec<u64>, bool) {
        let (new, others_stored) = events.news();
        let news = (new.to_vec(), others_stored);
        events.noted();
        news
    }

    #[test]
    fn an_event_is_noted_once_and_that_others_are_stored_after_it() {
        let mut events = RefusedEvents::default();
        events.settled(1, true);
        assert_eq!(events.due_in(), None, "nothing was refused before");
        for position in [2, 3] {
            events.add(position);
        }
        events.settled(3, false);
        assert_eq!((events.due_in(), news(&mut events)), (Some(Duration::ZERO), (vec![2], false)));
        events.settled(4, true);
        assert!(events.due_in().is_some());
        assert_eq!(news(&mut events), (vec![], true));
        events.settled(5, true);
        assert_eq!(events.due_in(), None, "it is noted");
        events.add(6);
        assert_eq!(news(&mut events), (vec![6], false), "event 5 was stored before");
        events.settled(7, true);
        assert_eq!(news(&mut events), (vec![], true));
        events.settled(2, true);
        events.settled(6, false);
        assert!(events.waiting().is_empty());
        events.add_noted(9);
        assert!(events.due_in().is_none() && events.waiting().contains(&9));
    }
}
