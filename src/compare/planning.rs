//! The steps after the trial runs, in the order in which the driver makes them, with about the time that each takes.

use std::collections::BTreeMap;

use super::calibration::{self, Trial};
use super::context::RunContext;
use super::forecast::Planned;
use super::{Arm, curve, outage, stall};

/// The most events of a run under a tracer, which makes a system call take ten times as long.
pub(super) const MAX_COUNTED: u64 = 10_000;

/// Plans them. `trials` has the speeds of the arms, where they are known; `axis_runs` is the number of runs in a round of all axes,
/// and `callgrind` whether instructions are counted with it.
pub(super) fn plan(
    context: &RunContext<'_>,
    arms: &[Arm],
    trials: &BTreeMap<Arm, Trial>,
    axis_runs: usize,
    callgrind: bool,
) {
    let options = context.options;
    let limit = options.limit.map(|limit| limit.as_secs_f64());
    let usual = calibration::seconds_of(options.run_for);
    let seconds = |arm: &Arm, events: Option<u64>| match trials.get(arm) {
        Some(trial) => trial.seconds(events.unwrap_or(trial.events)),
        None => usual,
    };
    let runs = arms.len() + 1;
    let round: f64 = arms.iter().chain(arms.first()).map(|arm| seconds(arm, None)).sum();
    let end = options.budget.map(|budget| context.elapsed() + budget.as_secs_f64() * runs as f64);
    for pair in 0..options.pairs {
        context.plan(runs, Planned { seconds: round / runs as f64, latest: end.filter(|_| pair > 0) });
    }
    let once = |seconds: f64| context.plan(1, Planned { seconds, latest: None });
    for arm in arms {
        once((options.idle_for + options.rate_for).as_secs_f64() + 1.5);
        once((options.stall_for + 2 * stall::AROUND).as_secs_f64() + 1.0);
        once(3.0 * options.away_for.as_secs_f64() + 2.5);
        if options.has_outage() {
            once((options.outage_for + outage::BEFORE).as_secs_f64() + 2.0);
        }
        once(3.0 * seconds(arm, trials.get(arm).map(|trial| trial.events.min(MAX_COUNTED))));
        if callgrind {
            once(6.0);
        }
    }
    if !options.profile_for.is_zero() {
        let seconds = options.profile_for.as_secs_f64() + 2.0;
        context.plan(arms.len(), Planned { seconds, latest: None });
    }
    for events in options.curve_events() {
        for round in 0..curve::ROUNDS {
            for arm in arms {
                let seconds = seconds(arm, Some(events));
                let is_made = round == 0 || seconds < curve::LONG;
                context.plan(1, Planned { seconds: if is_made { seconds } else { 0.0 }, latest: limit });
            }
        }
    }
    context.plan(axis_runs * options.axis_runs, Planned { seconds: usual, latest: limit });
}
