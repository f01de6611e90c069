//! What an event costs in short and in long runs.

use super::context::RunContext;
use super::options::Setup;
use super::{Arm, CompareError, CostPoint, Costs, Run, arms, run};

/// Runs of each arm and number of events.
pub(super) const ROUNDS: usize = 3;

/// A run that took this many seconds is not repeated.
pub(super) const LONG: f64 = 5.0;

/// The runs of all arms, the smallest numbers of events first. The arms take turns.
pub(super) struct Curve {
    costs: Vec<Costs>,
    /// What was left out because the time limit was over.
    pub(super) left_out: Vec<String>,
    /// What failed.
    pub(super) errors: Vec<String>,
}

impl Curve {
    pub(super) fn new(arms: &[Arm]) -> Self {
        let costs = arms.iter().map(|&arm| Costs { arm, points: Vec::new() }).collect();
        Self { costs, left_out: Vec::new(), errors: Vec::new() }
    }

    /// Makes the runs with this number of events. Only a stop is an error.
    pub(super) fn measure(
        &mut self,
        context: &RunContext<'_>,
        events: u64,
        setup: impl Fn(Arm) -> Setup,
    ) -> Result<(), CompareError> {
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); self.costs.len()];
        let mut over = vec![false; self.costs.len()];
        for round in 0..ROUNDS {
            for step in 0..self.costs.len() {
                // Another arm begins each round.
                let at = (step + round) % self.costs.len();
                let arm = self.costs[at].arm;
                context.begin_step(&format!("{events} events, {}", arms::title(arm)));
                if over[at] {
                    continue;
                }
                if context.is_past_limit() {
                    over[at] = true;
                    if runs[at].is_empty() {
                        self.left_out.push(format!("{events} events of {}", arms::title(arm)));
                    }
                    continue;
                }
                match run::timed(context, Setup { events, ..setup(arm) }) {
                    Ok(run) => {
                        over[at] = run.total_s > LONG;
                        runs[at].push(run);
                    }
                    Err(CompareError::Stopped) => return Err(CompareError::Stopped),
                    Err(error) => {
                        over[at] = true;
                        self.errors.push(format!("{events} events of {}: {error}", arms::title(arm)));
                    }
                }
            }
        }
        for (costs, runs) in self.costs.iter_mut().zip(runs) {
            if !runs.is_empty() {
                costs.points.push(CostPoint { events, runs });
            }
        }
        Ok(())
    }

    /// What was measured.
    pub(super) fn into_costs(self) -> Vec<Costs> {
        self.costs.into_iter().filter(|costs| !costs.points.is_empty()).collect()
    }
}
