//! One setting varied while all else stays.

use super::context::RunContext;
use super::options::Setup;
use super::{Arm, Axis, AxisPoint, Codec, CompareError, Options, arms, run};

/// The most events of a run with small batches: enough to measure what a commit costs.
const MAX_EVENTS: u64 = 2_000;

/// The batch sizes that are tried.
const BATCHES: [usize; 4] = [1, 10, 100, 1_000];

/// An axis to measure: its points and their setups.
pub(super) struct Plan {
    setting: &'static str,
    arm: Arm,
    points: Vec<(String, Setup)>,
}

/// The axes of these arms.
pub(super) fn plans(options: &Options, arms: &[Arm]) -> Vec<Plan> {
    let several = options.several.max(2);
    let mut plans = Vec::new();
    for &arm in arms {
        let setup = options.setup(arm);
        let mut plan = |setting, points: Vec<(String, Setup)>| plans.push(Plan { setting, arm, points });
        let numbers = |vary: fn(Setup, usize) -> Setup| {
            [1, several].map(|number| (number.to_string(), vary(setup, number))).into()
        };
        if arm != Arm::JetstreamSyncAlways {
            plan("producers", numbers(|setup, producers| Setup { producers, ..setup }));
        }
        if !matches!(arm, Arm::DirectGrouped | Arm::Jetstream) {
            continue;
        }
        plan("writers", numbers(|setup, writers| Setup { writers, ..setup }));
        let batches =
            BATCHES.map(|batch| (batch.to_string(), Setup { batch, events: setup.events.min(MAX_EVENTS), ..setup }));
        plan("batch", batches.into());
        let codecs = [Codec::Json, Codec::MessagePack];
        plan("codec", codecs.map(|codec| (codec.name().to_owned(), Setup { codec, ..setup })).into());
        if arm == Arm::Jetstream {
            let producers = several;
            let connections = [1, several];
            let points =
                connections.map(|connections| (connections.to_string(), Setup { producers, connections, ..setup }));
            plan("connections", points.into());
        }
    }
    plans
}

impl Plan {
    /// Setting and arm, for people.
    pub(super) fn name(&self) -> String {
        format!("{} of {}", self.setting, arms::name(self.arm))
    }

    /// How many runs it needs.
    pub(super) fn runs(&self, rounds: usize) -> usize {
        self.points.len() * rounds
    }

    /// Makes the runs: the points in turn, in the reverse order in every second round. The axis leaves out runs that failed;
    /// `failed` gets their errors.
    pub(super) fn measure(
        &self,
        context: &RunContext<'_>,
        rounds: usize,
        mut failed: impl FnMut(String),
    ) -> Result<Axis, CompareError> {
        let mut points: Vec<AxisPoint> = Vec::new();
        for (value, setup) in &self.points {
            let payload = context.options.workload(setup, "events.chat").payload();
            points.push(AxisPoint { value: value.clone(), runs: Vec::new(), payload: Some(payload) });
        }
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..points.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let (value, setup) = &self.points[at];
                context.begin_step(&format!("{} {value}, {}", self.setting, arms::name(self.arm)));
                match run::timed(context, *setup) {
                    Ok(run) => points[at].runs.push(run),
                    Err(CompareError::Stopped) => return Err(CompareError::Stopped),
                    Err(error) => failed(format!("{} {value} of {}: {error}", self.setting, arms::name(self.arm))),
                }
            }
        }
        Ok(Axis { setting: self.setting.into(), arm: self.arm, points })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_varies_one_setting_and_nothing_else() {
        let options = Options { writers: 2, ..Options::default() };
        for plan in plans(&options, &arms::ALL) {
            let (_, first) = &plan.points[0];
            for (_, setup) in &plan.points {
                let differences = [
                    setup.producers != first.producers,
                    setup.connections != first.connections,
                    setup.writers != first.writers,
                    setup.batch != first.batch,
                    setup.codec != first.codec,
                    setup.events != first.events,
                ];
                assert!(differences.iter().filter(|differs| **differs).count() <= 1, "{}", plan.setting);
            }
        }
    }
}
