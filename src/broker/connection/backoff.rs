//! When to connect again.

use std::time::{Duration, Instant};

use crate::config::BrokerConfig;
use crate::pipeline::Signal;

/// The first pause before connecting again.
const FIRST: Duration = Duration::from_millis(50);

/// The pauses between one session and the next: none behind one that did its work, longer ones behind attempts that failed
/// and sessions that died young without having delivered anything.
pub(in crate::broker) struct Backoff {
    at: Instant,
    pause: Duration,
    longest: Duration,
    /// A session that lives for this long is not young any more.
    young: Duration,
    opened: Instant,
    fruitless: bool,
}

impl Backoff {
    pub(in crate::broker) fn new(config: &BrokerConfig) -> Self {
        let now = Instant::now();
        Self {
            at: now,
            pause: FIRST.min(config.retry),
            longest: config.retry,
            young: config.silence,
            opened: now,
            fruitless: true,
        }
    }

    /// Hears that a session was opened.
    pub(in crate::broker) fn opened(&mut self) {
        self.opened = Instant::now();
        self.fruitless = true;
    }

    /// Hears that the session has delivered something.
    pub(in crate::broker) fn bore_fruit(&mut self) {
        self.fruitless = false;
    }

    /// Hears that the session is over. One that died young and fruitless is not replaced at once: what ended it may be about
    /// to end the next one too.
    pub(in crate::broker) fn over(&mut self) {
        if self.fruitless && self.opened.elapsed() < self.young {
            self.failed();
        } else {
            self.at = Instant::now();
            self.pause = FIRST.min(self.longest);
        }
    }

    /// Hears that no session could be opened.
    pub(in crate::broker) fn failed(&mut self) {
        self.at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(self.longest);
    }

    /// Waits until it is time for another attempt, at most for `wait` and until the stop; says whether it is.
    pub(in crate::broker) fn due(&self, wait: Duration, stop: &Signal) -> bool {
        let pause = self.at.saturating_duration_since(Instant::now());
        !stop.wait(pause.min(wait)) && pause <= wait
    }
}
