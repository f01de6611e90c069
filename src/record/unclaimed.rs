//! Events whose receipts were dropped before the events were committed: whoever flushes gets those back that are not kept.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::event::Event;

/// Events by their numbers, roughly in order. Never more than wait and are being committed, twice at most.
#[derive(Debug, Default)]
pub(super) struct UnclaimedEvents(Mutex<VecDeque<(u64, Event)>>);

impl UnclaimedEvents {
    /// Keeps an event that is not committed yet, and frees a few that are, on the thread that made them.
    pub(super) fn keep(&self, number: u64, event: Event, committed: u64) {
        let mut events = self.0.lock();
        events.push_back((number, event));
        let mut freed = || match events.front() {
            Some((first, _)) if *first <= committed => events.pop_front(),
            _ => None,
        };
        // More than one, so that none pile up.
        let freed = [freed(), freed()];
        drop(events);
        drop(freed);
    }

    /// Frees what is committed.
    pub(super) fn forget(&self, committed: u64) {
        self.0.lock().retain(|(number, _)| *number > committed);
    }

    /// Gives back what is not committed, in the order in which it was recorded.
    pub(super) fn take(&self, committed: u64) -> Vec<(u64, Event)> {
        let events = std::mem::take(&mut *self.0.lock());
        let mut lost: Vec<_> = events.into_iter().filter(|(number, _)| *number > committed).collect();
        lost.sort_by_key(|(number, _)| *number);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Event {
        Event::new("a", number.to_string())
    }

    #[test]
    fn what_is_committed_is_freed_and_the_rest_comes_back_once() {
        let released = UnclaimedEvents::default();
        for number in [2, 1, 3, 5, 4] {
            released.keep(number, event(number), 0);
        }
        // 2 and 1 are freed for the new one.
        released.keep(6, event(6), 2);
        assert_eq!(released.0.lock().len(), 4);
        released.forget(3);
        assert_eq!(released.0.lock().len(), 3);
        assert_eq!(released.take(4), [(5, event(5)), (6, event(6))]);
        assert_eq!(released.take(4), []);
    }
}
