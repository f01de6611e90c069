//! What all runs of a comparison share.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::CompareError;
use super::forecast::{Forecast, Planned};
use super::options::Options;
use super::scratch_directory::ScratchDirectory;

/// How a comparison reports its progress and is stopped.
pub struct Callbacks<'a> {
    /// Called before each run.
    pub progress: &'a dyn Fn(&Step),
    /// Whether to stop. Called often.
    pub stop: &'a dyn Fn() -> bool,
}

/// A run that is about to start.
#[derive(Clone, Debug)]
pub struct Step {
    /// What runs, for people.
    pub what: String,
    /// Its number, from 0.
    pub number: u64,
    /// How many steps there will be; an estimate.
    pub of: u64,
    /// How long the comparison still takes, with this step; an estimate.
    pub left: Duration,
}

/// Options, callbacks and directory of a comparison, and how far it is.
pub(super) struct RunContext<'a> {
    pub(super) options: &'a Options,
    pub(super) callbacks: &'a Callbacks<'a>,
    pub(super) directory: ScratchDirectory,
    began: Instant,
    environments: Cell<u64>,
    forecast: RefCell<Forecast>,
}

impl<'a> RunContext<'a> {
    /// A comparison that began at `began`.
    pub(super) fn new(
        options: &'a Options,
        callbacks: &'a Callbacks<'a>,
        directory: ScratchDirectory,
        began: Instant,
    ) -> Self {
        Self { options, callbacks, directory, began, environments: Cell::new(0), forecast: RefCell::default() }
    }

    /// [`CompareError::Stopped`] if a stop was requested.
    pub(super) fn check_stop(&self) -> Result<(), CompareError> {
        if (self.callbacks.stop)() { Err(CompareError::Stopped) } else { Ok(()) }
    }

    /// A new number, for a test environment.
    pub(super) fn next_number(&self) -> u64 {
        self.environments.replace(self.environments.get() + 1)
    }

    /// Test environments so far.
    pub(super) fn environments(&self) -> u64 {
        self.environments.get()
    }

    /// Plans steps behind those that are planned already.
    pub(super) fn plan(&self, steps: usize, step: Planned) {
        self.forecast.borrow_mut().plan(steps, step);
    }

    /// Discards the plan of the steps that have not begun.
    pub(super) fn discard_plan(&self) {
        self.forecast.borrow_mut().discard_rest();
    }

    /// Reports the next step.
    pub(super) fn begin_step(&self, what: &str) {
        log::debug!("comparison: {what}");
        let step = {
            let mut forecast = self.forecast.borrow_mut();
            let number = forecast.begin();
            let left = forecast.left(self.elapsed());
            Step { what: what.into(), number: number as u64, of: forecast.len().max(number + 1) as u64, left }
        };
        (self.callbacks.progress)(&step);
    }

    /// Steps that have begun or were left out.
    pub(super) fn steps_begun(&self) -> usize {
        self.forecast.borrow().begun()
    }

    /// Continues after this many steps; those that have not begun are left out.
    pub(super) fn skip_to(&self, steps: usize) {
        self.forecast.borrow_mut().skip_to(steps);
    }

    /// Seconds since the comparison began.
    pub(super) fn elapsed(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Whether the time limit is over, so that no further axis is to begin.
    pub(super) fn is_past_limit(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.began.elapsed() >= limit)
    }
}
