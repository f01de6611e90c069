//! Events whose receipts were dropped before the events were committed. A flush gives back those that are not committed.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::event::Event;

/// Events with their numbers, roughly in order. At most twice as many as are buffered or being committed.
#[derive(Debug, Default)]
pub(super) struct UnclaimedEvents(Mutex<VecDeque<(u64, Event)>>);

impl UnclaimedEvents {
    /// Keeps an event that is not committed yet. Frees up to two that are committed, on the thread that allocated them.
    pub(super) fn keep(&self, number: u64, event: Event, committed: u64) {
        let mut events = self.0.lock();
        events.push_back((number, event));
        let mut freed = || match events.front() {
            Some((first, _)) if *first <= committed => events.pop_front(),
            _ => None,
        };
        // Two for each one that is added, so that they do not accumulate.
        let freed = [freed(), freed()];
        drop(events);
        drop(freed);
    }

    /// Frees the committed events.
    pub(super) fn forget(&self, committed: u64) {
        self.0.lock().retain(|(number, _)| *number > committed);
    }

    /// Removes all events and returns those that are not committed, in the order of their numbers.
    pub(super) fn take(&self, committed: u64) -> Vec<(u64, Event)> {
        let events = std::mem::take(&mut *self.0.lock());
        let mut uncommitted: Vec<_> = events.into_iter().filter(|(number, _)| *number > committed).collect();
        uncommitted.sort_by_key(|(number, _)| *number);
        uncommitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Event {
        Event::new("a", number.to_string())
    }

    #[test]
    fn committed_events_are_freed_and_the_rest_comes_back_once() {
        let unclaimed = UnclaimedEvents::default();
        for number in [2, 1, 3, 5, 4] {
            unclaimed.keep(number, event(number), 0);
        }
        // 2 and 1 are freed for the new one.
        unclaimed.keep(6, event(6), 2);
        assert_eq!(unclaimed.0.lock().len(), 4);
        unclaimed.forget(3);
        assert_eq!(unclaimed.0.lock().len(), 3);
        assert_eq!(unclaimed.take(4), [(5, event(5)), (6, event(6))]);
        assert_eq!(unclaimed.take(4), []);
    }
}
