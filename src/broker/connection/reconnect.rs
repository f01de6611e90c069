//! One session after the other: when to open the next, and what is reported meanwhile.

use std::time::Duration;

use super::backoff::Backoff;
use crate::config::BrokerConfig;
use crate::error::Error;
use crate::pipeline::{Condition, Signal};

/// Decides when the next session is opened, and reports on the condition why there is none. The caller reports the recovery: for
/// some callers, an open connection does not prove that all works again.
#[derive(Debug)]
pub struct Reconnect {
    backoff: Backoff,
    condition: Condition,
    stop: Signal,
}

impl Reconnect {
    /// The first attempt is due at once. The stop ends every wait.
    #[must_use]
    pub fn new(config: &BrokerConfig, condition: &Condition, stop: &Signal) -> Self {
        Self { backoff: Backoff::new(config), condition: condition.clone(), stop: stop.clone() }
    }

    /// A session without any result is followed by a pause, even if the session lasted long.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { backoff: self.backoff.strict(), ..self }
    }

    /// Opens a session if an attempt is due, for which it waits at most for `wait`; `None` where none was due, or where a stop
    /// ended the attempt.
    ///
    /// # Errors
    ///
    /// What `open` returned. It has been reported.
    pub fn attempt<T>(&mut self, wait: Duration, open: impl FnOnce() -> Result<T, Error>) -> Result<Option<T>, Error> {
        if !self.wait(wait) {
            return Ok(None);
        }
        match open() {
            Ok(session) => {
                self.opened();
                Ok(Some(session))
            }
            Err(_) if self.stop.is_raised() => Ok(None),
            Err(error) => {
                self.failed(&error);
                Err(error)
            }
        }
    }

    /// Waits until an attempt is due, at most for `wait` and until the stop. Returns whether it is due.
    pub fn wait(&self, wait: Duration) -> bool {
        self.backoff.wait(wait, &self.stop)
    }

    /// A session was opened.
    pub fn opened(&mut self) {
        self.backoff.opened();
    }

    /// Called when a session was opened: within what time other clients of the server that have these settings, and lost it at the
    /// same time, have opened theirs. Zero if they need not have lost it.
    pub fn others_need(&self) -> Duration {
        self.backoff.others_need()
    }

    /// The session has done some of its work.
    pub fn productive(&mut self) {
        self.backoff.productive();
    }

    /// The session is over.
    pub fn ended(&mut self, why: impl Into<String>) {
        self.condition.degrade(why);
        self.backoff.ended();
    }

    /// No session could be opened.
    pub fn failed(&mut self, error: &Error) {
        self.condition.degrade(error.to_string());
        self.backoff.failed();
    }

    /// No session could be opened, and the caller reports why.
    pub fn postpone(&mut self) {
        self.backoff.failed();
    }
}
