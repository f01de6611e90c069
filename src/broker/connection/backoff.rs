//! When to connect again.

use std::time::{Duration, Instant};

use crate::config::BrokerConfig;
use crate::pipeline::Signal;

/// The first pause before connecting again.
const FIRST: Duration = Duration::from_millis(50);

/// The pauses between one session and the next. There is none after a session that did its work. Each attempt that fails, and each
/// session that ends early without having done anything, doubles the pause, up to `broker.retry`.
#[derive(Debug)]
pub(super) struct Backoff {
    at: Instant,
    pause: Duration,
    longest: Duration,
    /// A session that ends before this age has ended early.
    early: Duration,
    opened: Instant,
    is_unproductive: bool,
}

impl Backoff {
    pub(super) fn new(config: &BrokerConfig) -> Self {
        let now = Instant::now();
        Self {
            at: now,
            pause: FIRST.min(config.retry),
            longest: config.retry,
            early: config.silence,
            opened: now,
            is_unproductive: true,
        }
    }

    /// Has every session without any result count as one that ended early.
    pub(super) fn strict(self) -> Self {
        Self { early: Duration::MAX, ..self }
    }

    /// A session was opened.
    pub(super) fn opened(&mut self) {
        self.opened = Instant::now();
        self.is_unproductive = true;
    }

    /// The session has done some of its work.
    pub(super) fn productive(&mut self) {
        self.is_unproductive = false;
    }

    /// The session is over. One that ended early and unproductive is not replaced at once: its cause may end the next one too.
    pub(super) fn ended(&mut self) {
        if self.is_unproductive && self.opened.elapsed() < self.early {
            self.failed();
        } else {
            self.at = Instant::now();
            self.pause = FIRST.min(self.longest);
        }
    }

    /// No session could be opened.
    pub(super) fn failed(&mut self) {
        self.at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(self.longest);
    }

    /// Waits until the next attempt is due, at most for `wait` and until the stop. Returns whether it is due.
    pub(super) fn wait(&self, wait: Duration, stop: &Signal) -> bool {
        let pause = self.at.saturating_duration_since(Instant::now());
        !stop.wait(pause.min(wait)) && pause <= wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(&BrokerConfig { retry: Duration::from_millis(150), ..BrokerConfig::default() })
    }

    #[test]
    fn pauses_double_and_start_again_after_a_session_that_worked() {
        let mut backoff = backoff();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            pauses.push(backoff.pause.as_millis());
            backoff.failed();
        }
        assert_eq!(pauses, [50, 100, 150, 150]);
        backoff.opened();
        backoff.productive();
        backoff.ended();
        assert_eq!(backoff.pause, FIRST);
        assert!(backoff.wait(Duration::ZERO, &Signal::default()), "there is no pause");
    }

    #[test]
    fn a_session_without_result_is_replaced_at_once_only_if_old() {
        let stop = Signal::default();
        let mut young = backoff();
        young.opened();
        young.ended();
        assert!(!young.wait(Duration::ZERO, &stop));
        let mut old = Backoff { early: Duration::ZERO, ..backoff() };
        old.opened();
        old.ended();
        assert!(old.wait(Duration::ZERO, &stop));
        let mut strict = Backoff { early: Duration::ZERO, ..backoff() }.strict();
        strict.opened();
        strict.ended();
        assert!(!strict.wait(Duration::ZERO, &stop));
    }
}
