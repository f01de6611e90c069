//! The progress of a long operation on a terminal: the step, how far it is, and its rate.

use std::cell::RefCell;
use std::ops::ControlFlow;

use super::progress::Progress as Bar;
use super::signals::Signals;
use crate::maintenance::Progress;

/// Shows the steps of one operation, and cancels it when a signal came.
pub struct StepProgress<'s> {
    signals: &'s Signals,
    shown: RefCell<Option<(&'static str, Bar)>>,
}

impl<'s> StepProgress<'s> {
    pub fn new(signals: &'s Signals) -> Self {
        Self { signals, shown: RefCell::new(None) }
    }

    /// Shows the progress. Breaks when a signal came.
    pub fn show(&self, progress: Progress) -> ControlFlow<()> {
        let Progress { step, done, total, unit } = progress;
        let mut shown = self.shown.borrow_mut();
        if shown.as_ref().is_none_or(|(name, _)| *name != step) {
            if let Some((_, bar)) = shown.take() {
                bar.clear();
            }
            let noun = unit.strip_suffix('s').unwrap_or(unit);
            *shown = Some((step, Bar::new(total.filter(|total| *total > 0), noun, "")));
        }
        if let Some((name, bar)) = &*shown {
            bar.show(done, (*name).to_owned());
        }
        if self.signals.end_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Removes the line, so that something else can be printed there.
    pub fn clear(&self) {
        if let Some((_, bar)) = self.shown.take() {
            bar.clear();
        }
    }
}
