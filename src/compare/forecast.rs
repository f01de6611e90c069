//! The steps of a comparison, and how much longer it takes.

use std::time::Duration;

/// A step that is planned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    /// About how many seconds it takes.
    pub(super) seconds: f64,
    /// It is left out if it is not begun this many seconds after the start of the comparison.
    pub(super) latest: Option<f64>,
}

/// The plan, and how far it is. Times are in seconds since the start of the comparison.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    steps: Vec<Planned>,
    /// Steps that have begun or were left out.
    begun: usize,
    /// Seconds that the finished steps were planned to take.
    planned: f64,
}

/// Before this many planned seconds have passed, the steps' real times say little about the rest.
const ENOUGH: f64 = 10.0;

impl Forecast {
    /// Adds steps to the plan.
    pub(super) fn plan(&mut self, steps: usize, step: Planned) {
        self.steps.resize(self.steps.len() + steps, step);
    }

    /// Discards the steps that have not begun, so that they can be planned anew.
    pub(super) fn discard_rest(&mut self) {
        self.steps.truncate(self.begun);
    }

    /// Begins the next step; returns its number, from 0.
    pub(super) fn begin(&mut self) -> usize {
        self.planned +=
            self.begun.checked_sub(1).and_then(|before| self.steps.get(before)).map_or(0.0, |step| step.seconds);
        self.begun += 1;
        self.begun - 1
    }

    /// Continues after this many steps; those that have not begun are left out.
    pub(super) fn skip_to(&mut self, steps: usize) {
        self.begun = self.begun.max(steps.min(self.steps.len()));
    }

    /// Steps that have begun, or were left out.
    pub(super) fn begun(&self) -> usize {
        self.begun
    }

    /// How many steps there are.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// The time until the end, counted from the beginning of the current step. If the finished steps took longer than planned, the
    /// rest is expected to do so too.
    pub(super) fn left(&self, elapsed: f64) -> Duration {
        let factor = if self.planned < ENOUGH { 1.0 } else { (elapsed / self.planned).clamp(0.5, 3.0) };
        let rest = self.steps.get(self.begun.saturating_sub(1)..).unwrap_or_default();
        let end = rest.iter().fold(elapsed, |at, step| match step.latest {
            Some(latest) if at >= latest => at,
            _ => at + step.seconds * factor,
        });
        Duration::from_secs_f64((end - elapsed).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(forecast: &Forecast, elapsed: f64) -> f64 {
        forecast.left(elapsed).as_secs_f64()
    }

    #[test]
    fn what_is_left_follows_the_time_that_steps_take() {
        let mut forecast = Forecast::default();
        forecast.plan(4, Planned { seconds: 10.0, latest: None });
        assert_eq!((forecast.begin(), seconds(&forecast, 0.0)), (0, 40.0));
        // The first step took twice as long as planned.
        assert_eq!((forecast.begin(), seconds(&forecast, 20.0)), (1, 60.0));
        forecast.skip_to(3);
        assert_eq!((forecast.begin(), forecast.len()), (3, 4));
        assert!(seconds(&forecast, 30.0) <= 30.0);
    }

    #[test]
    fn steps_that_would_begin_too_late_do_not_count() {
        let mut forecast = Forecast::default();
        forecast.plan(2, Planned { seconds: 5.0, latest: None });
        forecast.plan(10, Planned { seconds: 5.0, latest: Some(18.0) });
        forecast.begin();
        // Those that begin after 10 and 15 s, but none after 20 s.
        assert_eq!(seconds(&forecast, 0.0), 20.0);
    }
}
