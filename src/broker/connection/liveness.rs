//! Whether the server at the other end of a connection still answers, and how a session ends where it does not.
//!
//! A connection can die without a sign. So a server that has sent nothing for half of `broker.silence` is probed, and one that has
//! sent nothing for all of it counts as silent.

use std::fmt;
use std::time::{Duration, Instant};

use super::link::Link;

/// When a server last answered, and when it was last probed.
#[derive(Debug)]
pub struct Liveness {
    silence: Duration,
    last_answer: Instant,
    last_probe: Option<Instant>,
    /// Which of several connections to the server this is, for people.
    role: Option<&'static str>,
}

/// What to do about a connection now.
pub(in crate::broker) enum LinkState {
    /// Nothing.
    Alive,
    /// Send a probe, and report it with [`Liveness::probe_sent`].
    ProbeDue,
    /// End the session.
    Over(SessionEnd),
}

/// Why a session is over. Displayed as one line with the server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    server: String,
    reason: EndReason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum EndReason {
    Lost { cause: String },
    LameDuck,
    Silent(Duration),
    Unconfirmed(Duration),
}

/// What a session received.
pub(in crate::broker) enum Received {
    /// Messages; the caller has them.
    Messages,
    /// Nothing, within the time that the caller gave.
    Nothing,
    /// The session is over, for this reason.
    Over(String),
}

impl Liveness {
    /// A server that has just answered. It counts as silent after `silence`.
    #[must_use]
    pub fn new(silence: Duration) -> Self {
        Self { silence, last_answer: Instant::now(), last_probe: None, role: None }
    }

    /// The same for another connection to the server; errors name its role.
    pub(in crate::broker) fn with_role(self, role: &'static str) -> Self {
        Self { role: Some(role), ..self }
    }

    /// Something came from the server.
    pub fn answered(&mut self, now: Instant) {
        self.last_answer = now;
    }

    /// The probe was answered: the next one may be sent as soon as it is due.
    pub(in crate::broker) fn probe_answered(&mut self) {
        self.last_probe = None;
    }

    /// Begins again, as if the server had just answered. Called after a time in which this side received nothing: then silence is no
    /// sign of a fault.
    pub(in crate::broker) fn restart(&mut self, now: Instant) {
        self.answered(now);
        self.probe_answered();
    }

    /// A probe was sent.
    pub(in crate::broker) fn probe_sent(&mut self, now: Instant) {
        self.last_probe = Some(now);
    }

    /// What to do now. `asks_early` returns whether a probe is needed although the server is not silent. It is called only if the last
    /// probe was sent long enough ago. If the server is silent, the link is marked as silent.
    pub(in crate::broker) fn check(&self, link: &Link, now: Instant, asks_early: impl FnOnce() -> bool) -> LinkState {
        match self.silence(now, asks_early) {
            Silence::None => LinkState::Alive,
            Silence::Half => LinkState::ProbeDue,
            Silence::Full(silent) => {
                link.mark_silent();
                LinkState::Over(self.end(link, EndReason::Silent(silent)))
            }
        }
    }

    fn silence(&self, now: Instant, asks_early: impl FnOnce() -> bool) -> Silence {
        let silent = now.saturating_duration_since(self.last_answer);
        if silent >= self.silence {
            return Silence::Full(silent);
        }
        let half = self.silence / 2;
        let may_probe = self.last_probe.is_none_or(|sent| now.saturating_duration_since(sent) >= half);
        if may_probe && (silent >= half || asks_early()) { Silence::Half } else { Silence::None }
    }

    /// For a connection that publishes events and waits for a confirmation of each: whether the oldest has waited too long. One
    /// event may stay without confirmation while others get theirs, for instance one that the user may not publish. Where it has
    /// waited too long, the link is marked as silent.
    pub(in crate::broker) fn check_confirmations(&self, link: &Link, oldest_wait: Duration) -> Option<SessionEnd> {
        if !self.is_unconfirmed(oldest_wait) {
            return None;
        }
        link.mark_silent();
        Some(self.end(link, EndReason::Unconfirmed(self.silence)))
    }

    fn is_unconfirmed(&self, oldest_wait: Duration) -> bool {
        oldest_wait >= 4 * self.silence || (oldest_wait >= self.silence && self.last_answer.elapsed() >= self.silence)
    }

    /// Whether the connection was lost, or its server is about to shut down and another one is known.
    pub(in crate::broker) fn connection_end(&self, link: &Link) -> Option<SessionEnd> {
        self.loss(link, None).or_else(|| self.departure(link))
    }

    /// Whether the connection was lost; the cause, where it is known.
    pub(in crate::broker) fn loss(&self, link: &Link, cause: Option<String>) -> Option<SessionEnd> {
        let unknown = || "the server ended it, or a message came that the NATS client cannot read".to_owned();
        let is_lost = link.lost().is_raised();
        is_lost.then(|| self.end(link, EndReason::Lost { cause: cause.unwrap_or_else(unknown) }))
    }

    /// Whether the server is about to shut down and another one is known.
    pub(in crate::broker) fn departure(&self, link: &Link) -> Option<SessionEnd> {
        link.should_move().then(|| self.end(link, EndReason::LameDuck))
    }

    fn end(&self, link: &Link, reason: EndReason) -> SessionEnd {
        let address = &link.server().address;
        let server = self.role.map_or_else(|| address.clone(), |role| format!("{address} ({role})"));
        SessionEnd { server, reason }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Silence {
    /// Too short to do anything, or a probe is under way.
    None,
    /// Long enough for a probe.
    Half,
    /// Long enough to give up the server.
    Full(Duration),
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, reason } = self;
        match reason {
            EndReason::Lost { cause } => write!(f, "the connection to {server} was lost: {cause}"),
            EndReason::LameDuck => {
                write!(f, "{server} is about to shut down (lame duck mode); moving to another server")
            }
            EndReason::Silent(silent) => write!(f, "{server}: no answer for {silent:.1?}, probes included"),
            EndReason::Unconfirmed(silence) => write!(f, "{server} has not confirmed an event for {silence:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_silent_server_is_probed_at_half_the_time_and_then_given_up() {
        let mut liveness = Liveness::new(10 * SECOND);
        let start = liveness.last_answer;
        assert_eq!(liveness.silence(start + 4 * SECOND, || false), Silence::None);
        assert_eq!(liveness.silence(start + 5 * SECOND, || false), Silence::Half);
        liveness.probe_sent(start + 5 * SECOND);
        assert_eq!(liveness.silence(start + 9 * SECOND, || false), Silence::None);
        assert_eq!(liveness.silence(start + 10 * SECOND, || false), Silence::Full(10 * SECOND));
        liveness.answered(start + 9 * SECOND);
        liveness.probe_answered();
        assert_eq!(liveness.silence(start + 13 * SECOND, || false), Silence::None);
        assert_eq!(liveness.silence(start + 14 * SECOND, || false), Silence::Half);
    }

    #[test]
    fn an_early_question_is_asked_once_in_half_of_the_silence() {
        let mut liveness = Liveness::new(10 * SECOND);
        let start = liveness.last_answer;
        assert_eq!(liveness.silence(start, || true), Silence::Half);
        liveness.probe_sent(start);
        assert_eq!(liveness.silence(start + 4 * SECOND, || true), Silence::None);
        assert_eq!(liveness.silence(start + 5 * SECOND, || true), Silence::Half);
        liveness.restart(start + 6 * SECOND);
        assert_eq!(liveness.silence(start + 6 * SECOND, || true), Silence::Half);
    }

    #[test]
    fn an_event_may_wait_for_confirmation_but_not_for_ever() {
        let mut liveness = Liveness::new(10 * SECOND);
        assert!(!liveness.is_unconfirmed(39 * SECOND), "others were confirmed just now");
        assert!(liveness.is_unconfirmed(40 * SECOND));
        liveness.last_answer -= 10 * SECOND;
        assert!(!liveness.is_unconfirmed(9 * SECOND) && liveness.is_unconfirmed(10 * SECOND));
    }
}
