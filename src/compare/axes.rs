//! One setting varied while all else stays.
//!
//! An arm's own settings are the *control*. Each round has one run of the control and one of every point, so all points of an arm
//! are compared with the same control, run by run.

use super::context::RunContext;
use super::options::Setup;
use super::{Arm, Axis, AxisPoint, Codec, CompareError, Options, Run, arms, calibration, run};
use crate::config::Mode;

/// The batch sizes that are tried, besides the arm's own.
const BATCHES: [usize; 4] = [1, 10, 100, 1_000];

/// The axes of an arm: the setups that are run, the control first.
pub(super) struct Plan {
    arm: Arm,
    setups: Vec<Setup>,
    axes: Vec<PlannedAxis>,
}

struct PlannedAxis {
    setting: &'static str,
    /// Values, and which setup is theirs.
    points: Vec<(String, usize)>,
    /// The setup that the others are compared with.
    control: usize,
}

impl Plan {
    /// The axes of the arm with this setup; none if nothing is varied.
    pub(super) fn new(options: &Options, control: Setup) -> Option<Self> {
        let mut plan = Self { arm: control.arm, setups: vec![control], axes: Vec::new() };
        if !options.only_partitions {
            plan.vary(options, control);
        }
        if arms::mode(control.arm) == Mode::Jetstream && !arms::is_direct(control.arm) && !options.partitions.is_empty()
        {
            let others: Vec<usize> = options.partitions.iter().map(|number| *number as usize).collect();
            let setup = |number: usize| Setup { partitions: number as u32, ..control };
            plan.number("partitions", 1, &others, setup);
        }
        (!plan.axes.is_empty()).then_some(plan)
    }

    /// The axes of settings of collector and application.
    fn vary(&mut self, options: &Options, control: Setup) {
        let plan = self;
        let several = options.several.max(2);
        if control.arm != Arm::JetstreamSyncAlways {
            plan.number("producers", control.producers, &[1, several], |producers| Setup { producers, ..control });
        }
        if matches!(control.arm, Arm::DirectGrouped | Arm::Jetstream) {
            plan.number("writers", control.writers, &[1, several], |writers| Setup { writers, ..control });
            plan.number("batch", control.batch, &BATCHES, |batch| Setup { batch, ..control });
            let codecs = [Codec::Json, Codec::MessagePack];
            let codecs = codecs.map(|codec| (codec.name().to_owned(), Setup { codec, ..control }));
            plan.add("codec", codecs.into(), control);
        }
        if control.arm == Arm::Jetstream {
            // Several connections need several producers, and are compared with these on one connection.
            let base = Setup { producers: several.max(control.producers), ..control };
            let points = [1, several].map(|connections| (connections.to_string(), Setup { connections, ..base }));
            plan.add("connections", points.into(), base);
        }
    }

    /// An axis of a number, whose own value is the control.
    fn number(&mut self, setting: &'static str, own: usize, others: &[usize], setup: impl Fn(usize) -> Setup) {
        let mut values = others.to_vec();
        values.push(own);
        values.sort_unstable();
        values.dedup();
        self.add(setting, values.into_iter().map(|value| (value.to_string(), setup(value))).collect(), setup(own));
    }

    fn add(&mut self, setting: &'static str, points: Vec<(String, Setup)>, control: Setup) {
        let points = points.into_iter().map(|(value, setup)| (value, self.index(setup))).collect();
        let control = self.index(control);
        self.axes.push(PlannedAxis { setting, points, control });
    }

    /// Which setup this is; it is added if no axis has it yet.
    fn index(&mut self, setup: Setup) -> usize {
        self.setups.iter().position(|known| *known == setup).unwrap_or_else(|| {
            self.setups.push(setup);
            self.setups.len() - 1
        })
    }

    /// The arm, for people.
    pub(super) fn name(&self) -> &'static str {
        arms::title(self.arm)
    }

    /// How many runs a round has.
    pub(super) fn runs(&self) -> usize {
        self.setups.len()
    }

    /// Makes the runs: every setup in turn, in the reverse order in every second round. A setup that fails has no runs; `failed`
    /// gets its error.
    pub(super) fn measure(
        mut self,
        context: &RunContext<'_>,
        rounds: usize,
        mut failed: impl FnMut(String),
    ) -> Result<Vec<Axis>, CompareError> {
        let mut runs: Vec<Result<Vec<Run>, ()>> = self.setups.iter().map(|_| Ok(Vec::new())).collect();
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..self.setups.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let what = self.what(at);
                context.begin_step(&format!("{what}, {}", self.name()));
                let Ok(done) = &mut runs[at] else { continue };
                if round == 0 {
                    self.setups[at].events = match self.events(context, at) {
                        Err(CompareError::Stopped) => return Err(CompareError::Stopped),
                        // The run below fails as well, and reports it.
                        outcome => outcome.unwrap_or(self.setups[at].events),
                    };
                }
                match run::timed(context, self.setups[at]) {
                    Ok(run) => done.push(run),
                    Err(CompareError::Stopped) => return Err(CompareError::Stopped),
                    Err(error) => {
                        failed(format!("{what} of {}: {error}", self.name()));
                        runs[at] = Err(());
                    }
                }
            }
        }
        let runs: Vec<Vec<Run>> = runs.into_iter().map(Result::unwrap_or_default).collect();
        let point = |setting: &str, control: usize, (value, at): &(String, usize)| AxisPoint {
            value: value.clone(),
            control: *at == control,
            runs: runs[*at].clone(),
            payload: (setting == "codec").then(|| context.options.workload(&self.setups[*at], "events.chat").payload()),
        };
        let axis = |axis: &PlannedAxis| Axis {
            setting: axis.setting.into(),
            arm: self.arm,
            points: axis.points.iter().map(|it| point(axis.setting, axis.control, it)).collect(),
        };
        Ok(self.axes.iter().map(axis).collect())
    }

    /// Events of a setup's runs: the arm's own number, except for batches, whose speed differs a hundredfold.
    fn events(&self, context: &RunContext<'_>, at: usize) -> Result<u64, CompareError> {
        let (control, setup) = (self.setups[0], self.setups[at]);
        if setup.batch == control.batch {
            return Ok(setup.events);
        }
        let events = calibration::find(context, setup, context.options.run_for)?.events;
        // If the number of events is given, the slow batches may have fewer, and none has more.
        Ok(context.options.given_events(self.arm).map_or(events, |given| events.min(given)))
    }

    /// What a setup is, for the progress.
    fn what(&self, at: usize) -> String {
        let axis = self.axes.iter().find_map(|axis| Some((axis, axis.points.iter().find(|(_, index)| *index == at)?)));
        match axis {
            Some((axis, (value, _))) if at > 0 => format!("{} {value}", axis.setting),
            _ => "the control".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_varies_one_setting_and_nothing_else() {
        let options = Options { writers: 2, partitions: vec![2, 4], ..Options::default() };
        for arm in arms::ALL {
            let Some(plan) = Plan::new(&options, options.setup(arm, 1_000)) else { continue };
            for axis in &plan.axes {
                let control = plan.setups[axis.control];
                assert!(axis.points.iter().any(|(_, at)| *at == axis.control), "{}", axis.setting);
                for (_, at) in &axis.points {
                    let setup = plan.setups[*at];
                    let differences = [
                        setup.producers != control.producers,
                        setup.connections != control.connections,
                        setup.writers != control.writers,
                        setup.batch != control.batch,
                        setup.codec != control.codec,
                        setup.partitions != control.partitions,
                    ];
                    let differs = differences.iter().filter(|differs| **differs).count();
                    assert_eq!(differs, usize::from(*at != axis.control), "{}", axis.setting);
                }
            }
        }
    }

    #[test]
    fn partitions_are_compared_with_a_stream_without_them() {
        let options = Options { partitions: vec![4, 1, 2], only_partitions: true, ..Options::default() };
        for arm in arms::ALL {
            let plan = Plan::new(&options, options.setup(arm, 1_000));
            let settings: Vec<&str> = plan.iter().flat_map(|plan| &plan.axes).map(|axis| axis.setting).collect();
            let has_stream = matches!(arm, Arm::Jetstream | Arm::JetstreamSyncAlways | Arm::Spooled);
            assert_eq!(settings, if has_stream { vec!["partitions"] } else { vec![] }, "{arm:?}");
            let Some(plan) = plan else { continue };
            let points: Vec<_> =
                plan.axes[0].points.iter().map(|(value, at)| (&**value, plan.setups[*at].partitions)).collect();
            assert_eq!((points, plan.axes[0].control), (vec![("1", 1), ("2", 2), ("4", 4)], 0));
        }
    }

    #[test]
    fn all_axes_of_an_arm_have_the_same_control() {
        let options = Options::default();
        let plan = Plan::new(&options, options.setup(Arm::Jetstream, 1_000)).expect("axes");
        let controls: Vec<usize> = plan.axes.iter().map(|axis| axis.control).collect();
        // Connections are compared with several producers on one connection, which the axis of producers has too.
        assert_eq!(controls, [0, 0, 0, 0, plan.axes[0].points[1].1]);
        assert_eq!(plan.runs(), 9);
        assert!(Plan::new(&options, options.setup(Arm::JetstreamSyncAlways, 1_000)).is_none());
    }
}
