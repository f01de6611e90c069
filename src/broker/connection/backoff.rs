//! When to connect again.

use std::time::{Duration, Instant};

use crate::config::BrokerConfig;
use crate::pipeline::Signal;

/// The first pause before connecting again.
const FIRST: Duration = Duration::from_millis(50);

/// The longest pause while an outage is young. A server that restarts is back within seconds, and an attempt costs little.
const YOUNG_PAUSE: Duration = Duration::from_millis(250);

/// An outage is young for this long.
const YOUNG: Duration = Duration::from_secs(30);

/// How long a client may take from the beginning of its attempt until it has connected and subscribed.
const OPENING: Duration = Duration::from_millis(250);

/// The pauses between attempts that fail. Each is twice the one before: up to 250 ms in the first 30 s of an outage, then up to
/// `broker.retry`.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// No pause is longer than `longest`.
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: FIRST.min(longest), longest }
    }

    /// The pause after an attempt that failed when the outage had lasted for `outage`.
    pub(crate) fn next(&mut self, outage: Duration) -> Duration {
        let pause = self.next.min(self.limit(outage));
        self.next = (pause * 2).min(self.longest);
        pause
    }

    fn limit(&self, outage: Duration) -> Duration {
        if outage < YOUNG { YOUNG_PAUSE.min(self.longest) } else { self.longest }
    }

    /// The pauses begin again.
    fn restart(&mut self) {
        self.next = FIRST.min(self.longest);
    }
}

/// The pause, made shorter by up to a quarter: clients that lost their server together must not all come back in the same moment.
fn shortened(pause: Duration, random: u8) -> Duration {
    const WHOLE: u32 = 4 * u8::MAX as u32;
    pause * (WHOLE - u32::from(random)) / WHOLE
}

/// A random number; 0 where the system has none, for then a pause is not shortened.
fn random() -> u8 {
    let mut random = [0];
    if getrandom::fill(&mut random).is_ok() { random[0] } else { 0 }
}

/// When the next session may be opened: at once after one that did its work, and after a pause where an attempt failed, or where a
/// session ended early without having done anything.
#[derive(Debug)]
pub(super) struct Backoff {
    at: Instant,
    pauses: Pauses,
    /// A session that ends before this age has ended early.
    early: Duration,
    opened: Instant,
    is_unproductive: bool,
    /// When the last session ended.
    ended: Instant,
    /// An attempt has failed since then.
    has_failed: bool,
}

impl Backoff {
    pub(super) fn new(config: &BrokerConfig) -> Self {
        let now = Instant::now();
        Self {
            at: now,
            pauses: Pauses::up_to(config.retry),
            early: config.silence,
            opened: now,
            is_unproductive: true,
            ended: now,
            has_failed: false,
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

    /// The session is over. One that ended early and unproductive is not replaced at once: its cause may end the next one too. A
    /// session costs more than an attempt that fails, so this pause may have its full length from the beginning.
    pub(super) fn ended(&mut self) {
        let now = Instant::now();
        (self.ended, self.has_failed) = (now, false);
        if self.is_unproductive && self.opened.elapsed() < self.early {
            self.at = now + shortened(self.pauses.next(Duration::MAX), random());
        } else {
            self.at = now;
            self.pauses.restart();
        }
    }

    /// No session could be opened.
    pub(super) fn failed(&mut self) {
        self.has_failed = true;
        self.at = Instant::now() + shortened(self.pauses.next(self.ended.elapsed()), random());
    }

    /// Called when a session was opened: within what time other clients of the server that have these settings, and lost it at the
    /// same time, have opened theirs. Zero where no attempt failed: then the others need not have lost it.
    pub(super) fn others_need(&self) -> Duration {
        let outage = self.opened.saturating_duration_since(self.ended);
        if self.has_failed { self.pauses.limit(outage) + OPENING } else { Duration::ZERO }
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

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff() -> Backoff {
        Backoff::new(&BrokerConfig { retry: Duration::from_millis(150), ..BrokerConfig::default() })
    }

    /// The pauses of an outage of this length, in milliseconds, where each attempt fails at once.
    fn pauses_of(outage: Duration, longest: Duration) -> Vec<u128> {
        let (mut pauses, mut age, mut all) = (Pauses::up_to(longest), Duration::ZERO, Vec::new());
        while age < outage {
            let pause = pauses.next(age);
            age += pause;
            all.push(pause.as_millis());
        }
        all
    }

    #[test]
    fn pauses_stay_short_in_a_young_outage_and_grow_in_an_old_one() {
        let of_a_minute = pauses_of(60 * SECOND, 2 * SECOND);
        let (young, old) = of_a_minute.split_at(of_a_minute.iter().position(|pause| *pause > 250).expect("grows"));
        assert_eq!(young[..5], [50, 100, 200, 250, 250]);
        assert!(young[3..].iter().all(|pause| *pause == 250));
        assert!((30_000..30_250).contains(&young.iter().sum::<u128>()), "{young:?}");
        assert_eq!(old[..4], [500, 1_000, 2_000, 2_000]);
        assert!(old[2..].iter().all(|pause| *pause == 2_000));
    }

    #[test]
    fn no_pause_is_longer_than_the_settings_allow() {
        assert_eq!(pauses_of(SECOND / 2, SECOND / 10), [50, 100, 100, 100, 100, 100]);
        assert_eq!(pauses_of(SECOND / 20, SECOND / 100), [10; 5]);
    }

    #[test]
    fn a_pause_is_shortened_by_a_quarter_at_most() {
        let shortened = |random| shortened(Duration::from_millis(255), random).as_micros();
        assert_eq!([0, 128, 255].map(shortened), [255_000, 223_000, 191_250]);
    }

    #[test]
    fn pauses_start_again_after_a_session_that_worked() {
        let mut backoff = backoff();
        for next in [100, 150, 150] {
            backoff.failed();
            assert_eq!(backoff.pauses.next.as_millis(), next);
        }
        backoff.opened();
        backoff.productive();
        backoff.ended();
        assert_eq!(backoff.pauses.next, FIRST);
        assert!(backoff.wait(Duration::ZERO, &Signal::default()), "there is no pause");
    }

    #[test]
    fn sessions_without_result_have_longer_pauses_than_failed_attempts() {
        let mut backoff = Backoff::new(&BrokerConfig::default());
        for next in [100, 200, 400, 800, 1_600, 2_000, 2_000] {
            backoff.opened();
            backoff.ended();
            assert_eq!(backoff.pauses.next.as_millis(), next);
        }
        backoff.failed();
        assert_eq!(backoff.pauses.next, 2 * YOUNG_PAUSE);
    }

    #[test]
    fn other_clients_need_one_pause_of_theirs_where_the_server_was_away() {
        let mut backoff = Backoff::new(&BrokerConfig::default());
        let mut reopened_after = |attempts: u32, outage: Duration| {
            backoff.ended();
            (0..attempts).for_each(|_| backoff.failed());
            backoff.opened = backoff.ended + outage;
            backoff.others_need()
        };
        assert_eq!(reopened_after(0, SECOND), Duration::ZERO, "only this client has lost the server");
        assert_eq!(reopened_after(1, 29 * SECOND), YOUNG_PAUSE + OPENING);
        assert_eq!(reopened_after(1, 30 * SECOND), 2 * SECOND + OPENING);
        assert_eq!(reopened_after(0, 30 * SECOND), Duration::ZERO);
    }

    #[test]
    fn a_session_without_result_is_replaced_at_once_only_if_old() {
        let mut young = backoff();
        young.opened();
        young.ended();
        assert!(young.at > young.ended);
        let mut old = Backoff { early: Duration::ZERO, ..backoff() };
        old.opened();
        old.ended();
        assert_eq!(old.at, old.ended);
        let mut strict = Backoff { early: Duration::ZERO, ..backoff() }.strict();
        strict.opened();
        strict.ended();
        assert!(strict.at > strict.ended);
    }
}
