//! Progress and cancellation of a long operation of the library.

use std::cell::RefCell;
use std::ops::ControlFlow;

use super::failure;
use super::progress::Progress;
use super::signals::Signals;
use crate::error::Error;
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
        self.end_as(ended, interrupted, Into::into)
    }

    /// As [`TaskProgress::end`], with a function that explains another error.
    pub fn end_as<T>(
        self,
        ended: Result<T, Error>,
        interrupted: impl FnOnce() -> String,
        explain: impl FnOnce(Error) -> anyhow::Error,
    ) -> anyhow::Result<T> {
        if let Some((_, line)) = self.shown.take() {
            line.clear();
        }
        ended.map_err(|error| failure::or_interrupted(error, self.signals.interrupted(), interrupted, explain))
    }
}
