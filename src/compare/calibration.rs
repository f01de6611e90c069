//! How many events a run needs to take long enough.
//!
//! The fast arms store ten thousand events in a few hundredths of a second. Such a run measures how it starts and ends, so each
//! arm gets as many events as it needs. Rates and costs an event are compared, never the times of runs of different lengths.

use std::time::Duration;

use super::context::RunContext;
use super::options::Setup;
use super::{CompareError, run};

/// Events of the first trial run.
const FIRST: u64 = 1_000;

/// A run is to take this many times as long as it must: the machine's speed varies.
const MARGIN: f64 = 1.5;

/// The most times a trial run may be longer than the one before it. A short run shows the speed badly.
const MOST_GROWTH: u64 = 20;

/// The most trial runs.
const MOST_TRIALS: usize = 6;

/// The most events of a run.
const MOST: u64 = 5_000_000;

/// What trial runs found. They have no figures in the report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    /// Events for the timed runs.
    pub(super) events: u64,
    /// Events a second, about.
    pub(super) rate: f64,
}

impl Trial {
    /// About how many seconds a run with this many events takes, with what is done before and after it.
    pub(super) fn seconds(self, events: u64) -> f64 {
        events as f64 / self.rate.max(1.0) + AROUND_A_RUN
    }
}

/// Seconds of a run in which it is not timed: its processes start, its rows are checked.
const AROUND_A_RUN: f64 = 0.8;

/// About how many seconds a run takes whose number of events is chosen for `run_for`.
pub(super) fn seconds_of(run_for: Duration) -> f64 {
    run_for.as_secs_f64() * MARGIN + AROUND_A_RUN
}

/// One trial run, for an arm whose number of events is given.
pub(super) fn given(context: &RunContext<'_>, setup: Setup) -> Result<Trial, CompareError> {
    let run = run::timed(context, Setup { events: setup.events.min(FIRST), ..setup })?;
    Ok(Trial { events: setup.events, rate: run.events as f64 / run.total_s.max(1e-6) })
}

/// Finds the number of events for runs of this setup that take at least `run_for`.
pub(super) fn find(context: &RunContext<'_>, setup: Setup, run_for: Duration) -> Result<Trial, CompareError> {
    let aim = run_for.as_secs_f64() * MARGIN;
    let mut trial = Trial { events: FIRST, rate: 0.0 };
    for _ in 0..MOST_TRIALS {
        let events = trial.events;
        let total_s = run::timed(context, Setup { events, ..setup })?.total_s;
        let needed = needed(events, total_s, aim);
        trial = Trial { events: needed, rate: events as f64 / total_s.max(1e-6) };
        if total_s * 3.0 >= aim {
            break;
        }
        trial.events = needed.min(events.saturating_mul(MOST_GROWTH));
    }
    Ok(trial)
}

/// What a run took that had this many events, turned into the number for the time `aim`: two digits, rounded up.
fn needed(events: u64, total_s: f64, aim: f64) -> u64 {
    let exact = events as f64 * aim / total_s.max(1e-6);
    let digit = 10_f64.powf(exact.max(1.0).log10().floor() - 1.0).max(1.0);
    ((exact / digit).ceil() * digit).clamp(1.0, MOST as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gets_as_many_events_as_it_needs_in_two_digits() {
        assert_eq!(needed(1_000, 0.2, 1.5), 7_500);
        assert_eq!(needed(1_000, 0.207, 1.5), 7_300);
        assert_eq!(needed(20_000, 0.055, 1.5), 550_000);
        assert_eq!(needed(1_000, 400.0, 1.5), 4);
        assert_eq!(needed(1_000, 0.0, 1.5), MOST);
    }
}
