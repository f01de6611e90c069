//! Progress and cancellation of a long operation of the library.

use std::cell::RefCell;
use std::ops::ControlFlow;

use super::failure::Interrupted;
use super::progress::Progress;
use super::signals::Signals;
use crate::error::{DatabaseFault, Error};
use crate::maintenance;

/// Shows each step of an operation on a terminal, and cancels it at a signal.
pub struct TaskProgress {
    signals: Signals,
    shown: RefCell<Option<(&'static str, Progress)>>,
}

impl TaskProgress {
    /// Catches the signals from now on.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { signals: Signals::catch()?, shown: RefCell::default() })
    }

    /// To be called with the operation's progress.
    pub fn report(&self, progress: maintenance::Progress) -> ControlFlow<()> {
        let maintenance::Progress { step, done, total, unit } = progress;
        let mut shown = self.shown.borrow_mut();
        if shown.as_ref().is_none_or(|(before, _)| *before != step) {
            if let Some((_, line)) = shown.take() {
                line.clear();
            }
            let line = match (unit, total, done) {
                ("bytes", ..) => Progress::of_bytes(total, step),
                (_, None, 0) if unit == "pages" => Progress::of_work(step),
                _ => Progress::new(total, unit.trim_end_matches('s'), step),
            };
            *shown = Some((step, line));
        }
        if let Some((_, line)) = shown.as_ref() {
            line.show(done, String::new());
        }
        if self.signals.end_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Removes the line. An operation that a signal cancelled is an interruption with this message.
    pub fn end<T>(self, ended: Result<T, Error>, interrupted: impl FnOnce() -> String) -> anyhow::Result<T> {
        if let Some((_, line)) = self.shown.take() {
            line.clear();
        }
        let is_cancelled = |error: &Error| {
            matches!(
                error,
                Error::Cancelled { .. }
                    | Error::Database { fault: DatabaseFault::Interrupted | DatabaseFault::Busy, .. }
            )
        };
        match (ended, self.signals.interrupted()) {
            (Err(error), Some(status)) if is_cancelled(&error) => {
                Err(Interrupted { message: interrupted(), status }.into())
            }
            (ended, _) => ended.map_err(Into::into),
        }
    }
}
