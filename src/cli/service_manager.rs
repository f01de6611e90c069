//! What `catchment run` tells systemd: ready, reloading, stopping, a line of status, and that it works.
//!
//! The watchdog follows the work. It is fed only if the threads of the collector have done something since the last time: if one hangs,
//! systemd ends the process and starts it again. Trouble that a restart does not solve is no hang: a collector whose broker is down, or
//! whose database is locked, tries again and again.
//!
//! <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>

use std::cell::Cell;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::collect::Pulse;

/// How often the line of status may change.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// How often a start that takes long asks for more time, and for how much.
const START_PAUSE: Duration = Duration::from_secs(5);
const MORE_TIME: Duration = Duration::from_secs(60);

/// The connection to systemd. Without systemd it does nothing.
pub struct ServiceManager {
    is_there: bool,
    /// How long systemd waits for a sign of work; `None` if it does not watch.
    watchdog: Option<Duration>,
    fed: Option<(Instant, Pulse)>,
    status: String,
    status_at: Option<Instant>,
    start_asked: Cell<Option<Instant>>,
}

impl ServiceManager {
    /// As the environment has it.
    pub fn of_environment() -> Self {
        Self {
            is_there: std::env::var_os("NOTIFY_SOCKET").is_some(),
            watchdog: sd_notify::watchdog_enabled().filter(|time| !time.is_zero()),
            fed: None,
            status: String::new(),
            status_at: None,
            start_asked: Cell::new(None),
        }
    }

    /// The start goes on: systemd must not give up. Call it often.
    pub fn starting(&self) {
        if self.start_asked.get().is_none_or(|asked| asked.elapsed() >= START_PAUSE) {
            self.start_asked.set(Some(Instant::now()));
            let time = u32::try_from(MORE_TIME.as_micros()).unwrap_or(u32::MAX);
            self.tell(&[NotifyState::ExtendTimeoutUsec(time), NotifyState::Status("starting")]);
        }
    }

    /// The collector has started, or a reload is over.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// A reload begins.
    pub fn reloading(&self) {
        let now = NotifyState::monotonic_usec_now();
        self.tell(&[NotifyState::Reloading, now.unwrap_or(NotifyState::MonotonicUsec(0))]);
    }

    /// The collector stops.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("stopping: committing the events received so far")]);
    }

    /// Reports the status if it has changed, and feeds the watchdog if the collector works. Call it several times a second.
    pub fn update(&mut self, pulse: Pulse, status: impl FnOnce() -> String) {
        if !self.is_there {
            return;
        }
        let now = Instant::now();
        if self.status_at.is_none_or(|at| now.duration_since(at) >= STATUS_PAUSE) {
            self.status_at = Some(now);
            let status = status();
            if status != self.status {
                self.tell(&[NotifyState::Status(&status)]);
                self.status = status;
            }
        }
        let Some(watchdog) = self.watchdog else { return };
        let is_due = |(at, fed): (Instant, Pulse)| now.duration_since(at) >= watchdog / 4 && pulse.beats_since(fed);
        if self.fed.is_none_or(is_due) {
            self.tell(&[NotifyState::Watchdog]);
            self.fed = Some((now, pulse));
        }
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if self.is_there
            && let Err(error) = sd_notify::notify(state)
        {
            log::debug!("systemd cannot be told: {error}");
        }
    }
}
