//! What all runs of a comparison share.

use std::cell::Cell;
use std::time::Instant;

use super::CompareError;
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
}

/// Options, callbacks and directory of a comparison, and how far it is.
pub(super) struct RunContext<'a> {
    pub(super) options: &'a Options,
    pub(super) callbacks: &'a Callbacks<'a>,
    pub(super) directory: ScratchDirectory,
    began: Instant,
    environments: Cell<u64>,
    step: Cell<u64>,
    steps: u64,
}

impl<'a> RunContext<'a> {
    /// A comparison of about this many steps that began at `began`.
    pub(super) fn new(
        options: &'a Options,
        callbacks: &'a Callbacks<'a>,
        directory: ScratchDirectory,
        began: Instant,
        steps: u64,
    ) -> Self {
        Self { options, callbacks, directory, began, environments: Cell::new(0), step: Cell::new(0), steps }
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

    /// Reports the next step.
    pub(super) fn begin_step(&self, what: &str) {
        log::debug!("comparison: {what}");
        let number = self.step.replace(self.step.get() + 1);
        (self.callbacks.progress)(&Step { what: what.into(), number, of: self.steps });
    }

    /// Continues at this step, after steps that are left out.
    pub(super) fn skip_to(&self, step: u64) {
        self.step.set(step);
    }

    /// Whether the time limit is over, so that no further axis is to begin.
    pub(super) fn is_past_limit(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.began.elapsed() >= limit)
    }
}
