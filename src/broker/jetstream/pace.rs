//! Decides when events come so fast that it is cheaper to poll for them.
//!
//! While a request waits at the consumer, the server sends each event as soon as it is stored, and both sides wake up for it. While many
//! events come, it costs both of them less if no request waits, and each few milliseconds a request takes what is stored by then.

use std::time::{Duration, Instant};

/// So many deliveries are counted before the clock is read.
const WINDOW: u32 = 1_000;

/// Polling begins when this many events a second come, and ends when fewer than half as many do.
const MANY: f64 = 10_000.0;

/// So many polls in a row find few events before polling ends.
const FEW_POLLS: u32 = 5;

/// How requests are made: whether they wait at the consumer, or poll it.
#[derive(Debug)]
pub(super) struct Pace {
    /// The time between two polls. Zero: never polls.
    interval: Duration,
    polls: bool,
    /// Deliveries since then.
    deliveries: u32,
    since: Instant,
    /// Polls in a row that found few events.
    few: u32,
}

impl Pace {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, polls: false, deliveries: 0, since: now, few: 0 }
    }

    /// Whether requests poll the consumer.
    pub(super) fn polls(&self) -> bool {
        self.polls
    }

    /// Notes a delivery. `is_behind`: the stream has more than one request takes, so waiting requests are served without a pause.
    pub(super) fn delivered(&mut self, is_behind: bool, now: impl FnOnce() -> Instant) {
        self.deliveries = self.deliveries.saturating_add(1);
        if self.polls || self.interval.is_zero() || self.deliveries < WINDOW {
            return;
        }
        let now = now();
        self.polls = !is_behind && self.rate(now) >= MANY;
        if self.polls {
            log::debug!("broker: many events come: requesting them every {:?}", self.interval);
        }
        self.restart(now);
    }

    /// How long to wait with the next poll.
    pub(super) fn due_in(&self, now: Instant) -> Duration {
        self.interval.saturating_sub(now.saturating_duration_since(self.since))
    }

    /// Notes that the next poll is due now. Ends polling if the last ones found few events.
    pub(super) fn poll_due(&mut self, now: Instant) {
        self.few = if self.rate(now) < MANY / 2.0 { self.few + 1 } else { 0 };
        self.polls = self.few < FEW_POLLS;
        if !self.polls {
            log::debug!("broker: few events come: each is sent as it is stored");
        }
        self.restart(now);
    }

    /// Notes that the stream has more than a poll takes.
    pub(super) fn fell_behind(&mut self, now: Instant) {
        self.polls = false;
        self.restart(now);
    }

    fn rate(&self, now: Instant) -> f64 {
        // A window of no time is no reason to poll.
        f64::from(self.deliveries) / now.saturating_duration_since(self.since).as_secs_f64().max(1e-3)
    }

    fn restart(&mut self, now: Instant) {
        (self.deliveries, self.since) = (0, now);
        if !self.polls {
            self.few = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(10);

    struct Deliveries {
        pace: Pace,
        now: Instant,
    }

    impl Deliveries {
        fn new(interval: Duration) -> Self {
            let now = Instant::now();
            Self { pace: Pace::new(interval, now), now }
        }

        /// Delivers this many events, evenly, within this time.
        fn deliver(&mut self, events: u32, within: Duration, is_behind: bool) {
            self.now += within;
            for _ in 0..events {
                self.pace.delivered(is_behind, || self.now);
            }
        }

        /// Polls several times, and gets so many events each time.
        fn poll(&mut self, times: u32, events: u32) {
            for _ in 0..times {
                assert_eq!(self.pace.due_in(self.now), INTERVAL);
                self.deliver(events, INTERVAL, false);
                assert_eq!(self.pace.due_in(self.now), Duration::ZERO);
                self.pace.poll_due(self.now);
            }
        }
    }

    #[test]
    fn it_polls_while_many_events_come() {
        let mut stream = Deliveries::new(INTERVAL);
        stream.deliver(WINDOW, Duration::from_millis(101), false);
        assert!(!stream.pace.polls(), "just below the rate");
        stream.deliver(WINDOW, Duration::from_millis(100), false);
        assert!(stream.pace.polls());
        stream.poll(50, 50);
        assert!(stream.pace.polls(), "half the rate is enough to go on");
        stream.poll(4, 0);
        stream.poll(1, 100);
        stream.poll(4, 49);
        assert!(stream.pace.polls());
        stream.poll(1, 0);
        assert!(!stream.pace.polls());
        stream.deliver(WINDOW - 1, Duration::ZERO, false);
        assert!(!stream.pace.polls(), "the window is not full");
    }

    #[test]
    fn it_does_not_poll_for_what_is_stored_already() {
        let mut stream = Deliveries::new(INTERVAL);
        stream.deliver(20 * WINDOW, Duration::from_millis(1), true);
        assert!(!stream.pace.polls());
        stream.deliver(WINDOW, Duration::from_millis(1), false);
        assert!(stream.pace.polls());
        stream.pace.fell_behind(stream.now);
        assert!(!stream.pace.polls());
    }

    #[test]
    fn without_an_interval_it_never_polls() {
        let mut stream = Deliveries::new(Duration::ZERO);
        stream.deliver(20 * WINDOW, Duration::from_millis(1), false);
        assert!(!stream.pace.polls());
    }
}
