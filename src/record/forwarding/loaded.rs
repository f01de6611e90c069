//! The events of a file that were read and are not done: the oldest first.

use std::collections::VecDeque;

use crate::event_id::width;
use crate::store::StoredEvent;

/// The most events in memory.
const MAX_EVENTS: usize = 32_768;

/// The most bytes in memory, unless a single event is larger.
const MAX_BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct Loaded {
    events: VecDeque<Item>,
    /// Events without an outcome, and their bytes.
    open: (usize, usize),
    /// All events up to this position are done.
    done_through: u64,
}

#[derive(Debug)]
struct Item {
    position: u64,
    recorded_us: i64,
    size: usize,
    is_done: bool,
    /// It was taken by [`Loaded::take_ahead`].
    is_taken: bool,
}

impl Loaded {
    pub(super) fn after(position: u64) -> Self {
        Self { done_through: position, ..Self::default() }
    }

    /// How many further events and bytes may be read.
    pub(super) fn room(&self) -> Option<(usize, usize)> {
        let (events, bytes) = self.open;
        // Further ones would not be sent before the first is done.
        let is_in_width = self.events.len() < usize::try_from(width()).unwrap_or(usize::MAX);
        (events < MAX_EVENTS && bytes < MAX_BYTES && is_in_width).then(|| (MAX_EVENTS - events, MAX_BYTES - bytes))
    }

    /// Adds an event that was read.
    pub(super) fn add(&mut self, event: &StoredEvent) {
        let StoredEvent { position, recorded_us, .. } = *event;
        let size = event.size();
        self.events.push_back(Item { position, recorded_us, size, is_done: false, is_taken: false });
        self.open = (self.open.0 + 1, self.open.1 + size);
    }

    /// Notes that an event is done.
    pub(super) fn done(&mut self, position: u64) {
        let Ok(at) = self.events.binary_search_by_key(&position, |item| item.position) else { return };
        let item = &mut self.events[at];
        if !std::mem::replace(&mut item.is_done, true) {
            self.open = (self.open.0 - 1, self.open.1 - item.size);
        }
        while let Some(first) = self.events.front().filter(|first| first.is_done) {
            self.done_through = first.position;
            self.events.pop_front();
        }
    }

    /// The ranges of events that are done behind the first that is not, each event once.
    pub(super) fn take_ahead(&mut self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut continues = false;
        for item in &mut self.events {
            let is_new = item.is_done && !std::mem::replace(&mut item.is_taken, true);
            match ranges.last_mut().filter(|_| continues) {
                Some((_, last)) if is_new => *last = item.position,
                _ if is_new => ranges.push((item.position, item.position)),
                _ => {}
            }
            continues = is_new;
        }
        ranges
    }

    pub(super) fn done_through(&self) -> u64 {
        self.done_through
    }

    /// Whether all that were read are done.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// When the oldest was recorded.
    pub(super) fn oldest_us(&self) -> Option<i64> {
        self.events.front().map(|first| first.recorded_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;
    use crate::event_id::WIDTH;

    fn stored(position: u64, bytes: usize) -> StoredEvent {
        let recorded_us = i64::try_from(position).expect("small") * 10;
        StoredEvent { position, recorded_us, event: Ok(Event::new("", vec![0; bytes])) }
    }

    #[test]
    fn what_is_done_is_marked_up_to_the_first_that_is_not() {
        let mut loaded = Loaded::after(4);
        for position in [5, 6, 9, 10] {
            loaded.add(&stored(position, 100));
        }
        assert_eq!((loaded.open, loaded.oldest_us(), loaded.done_through()), ((4, 400), Some(50), 4));
        for (position, through, oldest) in [(6, 4, 50), (9, 4, 50), (9, 4, 50), (7, 4, 50), (5, 9, 100)] {
            loaded.done(position);
            assert_eq!((loaded.done_through(), loaded.oldest_us()), (through, Some(oldest)), "{position}");
        }
        loaded.done(10);
        assert!(loaded.is_empty());
        assert_eq!((loaded.open, loaded.done_through()), ((0, 0), 10));
    }

    #[test]
    fn what_is_done_behind_the_first_that_is_not_is_taken_once() {
        let mut loaded = Loaded::after(0);
        for position in 1..=9 {
            loaded.add(&stored(position, 1));
        }
        for position in [2, 3, 5, 8, 9] {
            loaded.done(position);
        }
        assert_eq!(loaded.take_ahead(), [(2, 3), (5, 5), (8, 9)]);
        for position in [4, 6] {
            loaded.done(position);
        }
        assert_eq!(loaded.take_ahead(), [(4, 4), (6, 6)]);
        assert_eq!((loaded.take_ahead(), loaded.done_through()), (vec![], 0));
        loaded.done(1);
        assert_eq!(loaded.done_through(), 6);
    }

    #[test]
    fn memory_is_bounded_in_events_and_bytes_and_by_the_width() {
        let mut loaded = Loaded::after(0);
        assert_eq!(loaded.room(), Some((MAX_EVENTS, MAX_BYTES)));
        loaded.add(&stored(1, MAX_BYTES - 1));
        assert_eq!(loaded.room(), Some((MAX_EVENTS - 1, 1)));
        loaded.add(&stored(2, 1_000));
        assert_eq!(loaded.room(), None);
        let mut loaded = Loaded::after(0);
        for position in 0..WIDTH {
            loaded.add(&stored(position + 1, 1));
            if position > 0 {
                loaded.done(position + 1);
            }
        }
        assert_eq!((loaded.open, loaded.room()), ((1, 1), None), "the first is stuck");
        loaded.done(1);
        assert!(loaded.room().is_some());
    }
}
