//! How much room a spool has, counting the events that are not committed yet.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::{FailureReason, Overflow};
use crate::deadline;
use crate::pipeline::Condition;
use crate::store::{SpoolLimits, SpoolTotals};

#[derive(Debug)]
pub(super) struct SpoolRoom {
    limits: SpoolLimits,
    state: Mutex<State>,
    changed: Condvar,
    /// The spool's: degraded while it is full.
    condition: Condition,
}

#[derive(Debug, Default)]
struct State {
    /// What is committed.
    totals: SpoolTotals,
    /// Events that are not committed, and their bytes.
    queued: (u64, u64),
    closed: bool,
    is_full: bool,
}

impl State {
    fn events(&self) -> u64 {
        self.totals.events + self.queued.0
    }

    fn bytes(&self) -> u64 {
        self.totals.bytes + self.queued.1
    }
}

impl SpoolRoom {
    pub(super) fn new(limits: SpoolLimits, condition: Condition) -> Self {
        Self { limits, state: Mutex::default(), changed: Condvar::new(), condition }
    }

    /// Takes room for an event of so many bytes. Where there is none, waits as `overflow` sets. An empty spool has room for any event, and
    /// one that drops its oldest events always has.
    pub(super) fn take(&self, bytes: u64, overflow: Overflow) -> Result<(), FailureReason> {
        let mut state = self.state.lock();
        if overflow != Overflow::DropOldest && !self.fits(&state, bytes) {
            self.note_full(&mut state);
            if let Overflow::Block(timeout) = overflow {
                let until = deadline::after(timeout);
                while !state.closed && !self.fits(&state, bytes) {
                    if self.changed.wait_until(&mut state, until).timed_out() {
                        break;
                    }
                }
            }
            if !state.closed && !self.fits(&state, bytes) {
                return Err(FailureReason::SpoolFull { events: state.events(), bytes: state.bytes() });
            }
        }
        if state.closed {
            return Err(FailureReason::Closed);
        }
        state.queued.0 += 1;
        state.queued.1 += bytes;
        Ok(())
    }

    fn fits(&self, state: &State, bytes: u64) -> bool {
        let SpoolLimits { events: most_events, bytes: most_bytes } = self.limits;
        state.events() == 0 || (state.events() < most_events && state.bytes().saturating_add(bytes) <= most_bytes)
    }

    fn note_full(&self, state: &mut State) {
        if !std::mem::replace(&mut state.is_full, true) {
            let SpoolLimits { events, bytes } = self.limits;
            self.condition.degrade(format!("the spool is full: it may keep {events} events, {bytes} bytes"));
        }
    }

    /// Gives room back: these events are committed and counted in the totals, or they were not taken.
    pub(super) fn give_back(&self, events: u64, bytes: u64) {
        let mut state = self.state.lock();
        state.queued.0 = state.queued.0.saturating_sub(events);
        state.queued.1 = state.queued.1.saturating_sub(bytes);
        drop(state);
        self.changed.notify_all();
    }

    /// Notes what is committed.
    pub(super) fn set(&self, totals: SpoolTotals) {
        let mut state = self.state.lock();
        state.totals = totals;
        // A spool that has just a little room is full again with the next event.
        let SpoolLimits { events, bytes } = self.limits;
        let has_room = state.events() <= events - events / 10 && state.bytes() <= bytes - bytes / 10;
        if has_room && std::mem::take(&mut state.is_full) {
            self.condition.recover();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Notes that events were dropped to make room.
    pub(super) fn note_dropping(&self) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.is_full, true) {
            self.condition.degrade("the spool is full: its oldest events are dropped");
        }
    }

    /// What is committed.
    pub(super) fn totals(&self) -> SpoolTotals {
        self.state.lock().totals
    }

    /// Accepts no more events.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Blocks until nothing is in the spool, until then at the latest. `gives_up` is asked several times a second.
    pub(super) fn wait_empty(&self, until: Instant, gives_up: impl Fn() -> bool) {
        const LOOK: std::time::Duration = std::time::Duration::from_millis(50);
        let mut state = self.state.lock();
        while state.totals.events > 0 && Instant::now() < until && !gives_up() {
            let _ = self.changed.wait_until(&mut state, until.min(Instant::now() + LOOK));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn room(events: u64, bytes: u64) -> (SpoolRoom, Condition) {
        let condition = Condition::new("spool");
        (SpoolRoom::new(SpoolLimits { events, bytes }, condition.clone()), condition)
    }

    fn full(events: u64, bytes: u64) -> Result<(), FailureReason> {
        Err(FailureReason::SpoolFull { events, bytes })
    }

    #[test]
    fn events_that_are_not_committed_count_too() {
        let (room, condition) = room(3, 100);
        assert_eq!(room.take(500, Overflow::Refuse), Ok(()), "an empty spool takes any event");
        assert_eq!(room.take(1, Overflow::Refuse), full(1, 500));
        assert!(condition.trouble().expect("full").reason.contains("3 events, 100 bytes"));
        room.set(SpoolTotals { events: 1, bytes: 500, ..SpoolTotals::default() });
        room.give_back(1, 500);
        assert_eq!(room.take(1, Overflow::Refuse), full(1, 500));
        room.set(SpoolTotals::default());
        assert!(condition.trouble().is_none());
        for _ in 0..3 {
            assert_eq!(room.take(10, Overflow::Refuse), Ok(()));
        }
        assert_eq!(room.take(10, Overflow::Block(Duration::ZERO)), full(3, 30));
        assert_eq!(room.take(10, Overflow::DropOldest), Ok(()));
        room.close();
        assert_eq!(room.take(10, Overflow::DropOldest), Err(FailureReason::Closed));
    }

    #[test]
    fn whoever_waits_gets_the_room_that_is_given_back() {
        let (room, _) = room(1, 100);
        let room = Arc::new(room);
        assert_eq!(room.take(10, Overflow::Refuse), Ok(()));
        let waiting = Arc::clone(&room);
        let waiter = std::thread::spawn(move || waiting.take(10, Overflow::Block(Duration::from_secs(60))));
        room.give_back(1, 10);
        assert_eq!(waiter.join().expect("no panic"), Ok(()));
    }
}
