//! A whole comparison, from the first run to the report's data.

use std::collections::BTreeMap;
use std::time::Instant;

use super::axes::Plan;
use super::calibration::{self, Trial};
use super::context::{Callbacks, RunContext};
use super::curve::Curve;
use super::forecast::Planned;
use super::instructions::{self, CountingMethod};
use super::machine::{self, ServerVersion};
use super::options::{Options, Setup};
use super::planning::{self, MAX_COUNTED};
use super::schedule::{self, Slot};
use super::scratch_directory::{self, ScratchDirectory};
use super::{
    Arm, ArmReport, Axis, CompareError, Comparison, Costs, FORMAT, Hotspots, Isolation, Outage, Run, Settings, Stall,
    Verdict, arms, callgrind, hotspots, isolation, latency, outage, report, run, stall, statistics, syscalls,
};

/// Compares. Blocks for minutes. Its processes and directories are removed when it returns, also after an error. If it is stopped
/// when every arm has figures, it returns what was measured until then: see [`Comparison::stopped`].
///
/// # Errors
///
/// [`CompareError`] where nothing can be compared: options that cannot be used, no broker, an arm that cannot be started, a stop
/// before there are figures. An arm that fails later, or that lost an event, has its error in [`ArmReport::error`] and no figures.
pub fn compare(options: &Options, callbacks: &Callbacks<'_>) -> Result<Comparison, CompareError> {
    options.validate()?;
    let began = Instant::now();
    let now = time::OffsetDateTime::now_utc();
    let directory = ScratchDirectory::create(&options.directory)?;
    scratch_directory::require_disk(directory.path())?;
    let version = machine::server(options)?;
    let environment = machine::inspect(options, directory.path(), version.as_ref())?;
    let mut driver = Driver::new(options, version.as_ref())?;
    let available = Options {
        partitions: if partitions_unavailable(options, version.as_ref()).is_some() {
            Vec::new()
        } else {
            options.partitions.clone()
        },
        ..options.clone()
    };
    let context = RunContext::new(&available, callbacks, directory, began);
    match driver.measure(&context) {
        Err(CompareError::Stopped) if driver.has_figures() => {
            driver.stopped = true;
            driver.cut_short.push("it was stopped before it was done".into());
        }
        outcome => outcome?,
    }
    log::debug!("comparison: {} test environments", context.environments());
    if options.server.is_some() {
        driver.not_measured.push(
            "the broker's CPU, memory and context switches: this comparison used a server that was already running"
                .into(),
        );
        if !options.outage_for.is_zero() {
            driver.not_measured.push("an outage of the broker: a server that was already running is left alone".into());
        }
    }
    driver.errors.extend(driver.arms.iter().filter_map(|arm| arm.error.clone()));
    let ratios = statistics::ratios(&driver.arms, options.seed);
    let mut comparison = Comparison {
        format: FORMAT,
        catchment: env!("CARGO_PKG_VERSION").into(),
        began: now.truncate_to_second().format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
        took_s: began.elapsed().as_secs_f64(),
        command: options.command.clone(),
        environment,
        settings: Settings {
            pairs: driver.arms.iter().map(|arm| arm.runs.len()).max().unwrap_or(0),
            rate: driver.rate,
            cut_short: (!driver.cut_short.is_empty()).then(|| driver.cut_short.join("; ")),
            ..options.settings()
        },
        arms: driver.arms,
        ratios,
        costs: driver.costs,
        axes: driver.axes,
        stalls: driver.stalls,
        isolations: driver.isolations,
        outages: driver.outages,
        hotspots: driver.hotspots,
        verdict: Verdict::default(),
        not_measured: driver.not_measured,
        errors: driver.errors,
        stopped: driver.stopped,
    };
    comparison.verdict = report::verdict(&comparison);
    Ok(comparison)
}

/// Makes the runs and collects what they found.
struct Driver {
    arms: Vec<ArmReport>,
    trials: BTreeMap<Arm, Trial>,
    /// How instructions are counted.
    method: Result<CountingMethod, String>,
    /// Events a second where events come at a rate.
    rate: u64,
    costs: Vec<Costs>,
    axes: Vec<Axis>,
    stalls: Vec<Stall>,
    hotspots: Vec<Hotspots>,
    isolations: Vec<Isolation>,
    outages: Vec<Outage>,
    not_measured: Vec<String>,
    errors: Vec<String>,
    cut_short: Vec<String>,
    stopped: bool,
}

/// The most events of a profiled run.
const MAX_PROFILED: f64 = 1_000_000.0;

impl Driver {
    fn new(options: &Options, version: Option<&ServerVersion>) -> Result<Self, CompareError> {
        let report = |&arm: &Arm| ArmReport {
            arm,
            promise: arms::promise(arm, options.synchronous),
            events: 0,
            skipped: skipped(arm, options, version),
            error: None,
            counted: None,
            runs: Vec::new(),
            again: Vec::new(),
            latency: None,
            idle: None,
        };
        let arms: Vec<ArmReport> = options.arms.iter().map(report).collect();
        if let Some(why) = arms.iter().map(|arm| arm.skipped.clone()).collect::<Option<Vec<_>>>() {
            let detail = format!("none of them can be run here: {}", why.join("; "));
            return Err(CompareError::Option { option: "arms", detail, remedy: "name another arm".into() });
        }
        let method = instructions::counting_method();
        let instructions = match &method {
            Ok(CountingMethod::Processor) => None,
            Ok(CountingMethod::Callgrind) if options.callgrind => Some(
                "instructions of the broker: no hardware counter may be read here, and callgrind is not used on the broker"
                    .into(),
            ),
            Ok(CountingMethod::Callgrind) => Some(
                "instructions: no hardware counter may be read here, and --quick leaves out counting by callgrind".into(),
            ),
            Err(why) => Some(format!("instructions: {why}")),
        };
        let partitions = partitions_unavailable(options, version);
        let not_measured = syscalls::unavailable().into_iter().chain(instructions).chain(partitions).collect();
        let (costs, axes, stalls, hotspots, isolations, outages, errors, cut_short) = Default::default();
        let (trials, rate, stopped) = (BTreeMap::new(), options.rate.unwrap_or(0), false);
        Ok(Self {
            arms,
            trials,
            method,
            rate,
            costs,
            axes,
            stalls,
            hotspots,
            isolations,
            outages,
            not_measured,
            errors,
            cut_short,
            stopped,
        })
    }

    fn measure(&mut self, context: &RunContext<'_>) -> Result<(), CompareError> {
        self.trials(context)?;
        self.plan(context);
        self.rounds(context)?;
        self.rate = context.options.rate.unwrap_or_else(|| self.sustainable_rate());
        self.experiments(context)?;
        self.hotspots(context)?;
        self.curve(context)?;
        self.axes(context)
    }

    /// Whether every arm that ran has a timed run.
    fn has_figures(&self) -> bool {
        let mut running = self.arms.iter().filter(|arm| arm.skipped.is_none() && arm.error.is_none()).peekable();
        running.peek().is_some() && running.all(|arm| !arm.runs.is_empty())
    }

    fn setup(&self, context: &RunContext<'_>, arm: Arm) -> Setup {
        let events = self.arms.iter().find(|report| report.arm == arm).map_or(0, |report| report.events);
        context.options.setup(arm, events)
    }

    /// Finds the number of events of each arm's runs. The arms through NATS come first: if one cannot be started, the comparison
    /// ends here, before minutes of measuring.
    fn trials(&mut self, context: &RunContext<'_>) -> Result<(), CompareError> {
        let options = context.options;
        let mut arms = self.running();
        arms.sort_by_key(|arm| arms::is_direct(*arm));
        let seconds = 2.0 * options.run_for.as_secs_f64() + 2.0;
        context.plan(arms.len(), Planned { seconds, latest: None });
        self.plan(context);
        for arm in arms {
            context.begin_step(&format!("trial runs, {}", arms::title(arm)));
            let outcome = match options.given_events(arm) {
                Some(events) => calibration::given(context, options.setup(arm, events)),
                None => calibration::find(context, options.setup(arm, 0), options.run_for),
            };
            let Some(report) = self.report(arm) else { continue };
            match outcome {
                Ok(trial) => {
                    report.events = trial.events;
                    self.trials.insert(arm, trial);
                }
                Err(error @ CompareError::Mismatch { .. }) => report.error = Some(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        context.discard_plan();
        Ok(())
    }

    /// The arms that were not skipped and have not failed.
    fn running(&self) -> Vec<Arm> {
        self.arms.iter().filter(|arm| arm.skipped.is_none() && arm.error.is_none()).map(|arm| arm.arm).collect()
    }

    fn report(&mut self, arm: Arm) -> Option<&mut ArmReport> {
        self.arms.iter_mut().find(|report| report.arm == arm)
    }

    /// The timed runs.
    fn rounds(&mut self, context: &RunContext<'_>) -> Result<(), CompareError> {
        let (began, options, arms) = (Instant::now(), context.options, self.running());
        let (first, runs) = (context.steps_begun(), arms.len() + 1);
        let budget = options.budget.map(|budget| budget * u32::try_from(runs).unwrap_or(1));
        for (number, round) in schedule::rounds(&arms, options.pairs, options.seed).into_iter().enumerate() {
            if let Some(budget) = budget.filter(|budget| number > 0 && began.elapsed() >= *budget) {
                let pairs = options.pairs;
                self.cut_short
                    .push(format!("{number} of {pairs} pairs, because their time budget of {budget:?} was used up"));
                context.skip_to(first + runs * pairs);
                break;
            }
            for slot in round {
                self.timed_run(context, slot)?;
            }
        }
        Ok(())
    }

    fn timed_run(&mut self, context: &RunContext<'_>, Slot { arm, again }: Slot) -> Result<(), CompareError> {
        context.begin_step(&format!("timed run, {}", arms::title(arm)));
        if self.report(arm).is_none_or(|report| report.error.is_some()) {
            return Ok(());
        }
        let outcome = run::timed(context, self.setup(context, arm));
        let Some(report) = self.report(arm) else { return Ok(()) };
        match outcome {
            Ok(run) if again => report.again.push(run),
            Ok(run) => report.runs.push(run),
            Err(CompareError::Stopped) => return Err(CompareError::Stopped),
            Err(error) => {
                report.error = Some(error.to_string());
                report.runs.clear();
                report.again.clear();
            }
        }
        Ok(())
    }

    /// Half of what the slowest run of all arms reached: a rate that every arm sustains.
    fn sustainable_rate(&self) -> u64 {
        rate_below(self.arms.iter().flat_map(|report| &report.runs))
    }

    /// Half of what the slowest run of this arm reached, at most 1,000.
    fn sustainable_rate_of(&self, arm: Arm) -> u64 {
        let runs = self.arms.iter().filter(|report| report.arm == arm).flat_map(|report| &report.runs);
        rate_below(runs)
    }

    fn experiments(&mut self, context: &RunContext<'_>) -> Result<(), CompareError> {
        let (options, rate) = (context.options, self.rate);
        let may_count = syscalls::unavailable().is_none() || self.method == Ok(CountingMethod::Processor);
        for arm in self.running() {
            let (name, setup) = (arms::title(arm), self.setup(context, arm));
            context.begin_step(&format!("idle and latency, {name}"));
            let outcome = latency::measure(context, setup.at(rate, options.rate_for));
            if let Some((idle, latency)) = self.found("latency", arm, outcome)?
                && let Some(report) = self.report(arm)
            {
                (report.idle, report.latency) = (Some(idle), Some(latency));
            }
            context.begin_step(&format!("stall, {name}"));
            let outcome = stall::measure(context, setup.at(rate, options.stall_for + 2 * stall::AROUND));
            let stall = self.found("stall", arm, outcome)?;
            self.stalls.extend(stall);
            context.begin_step(&format!("isolation, {name}"));
            let outcome = isolation::measure(context, setup.at(rate, 3 * options.away_for));
            let isolation = self.found("isolation", arm, outcome)?;
            self.isolations.extend(isolation);
            self.outage(context, setup)?;
            context.begin_step(&format!("counting, {name}"));
            if may_count {
                self.count(context, Setup { events: setup.events.min(MAX_COUNTED), ..setup })?;
            }
            if self.counts_with_callgrind(options) {
                context.begin_step(&format!("counting instructions, {name}"));
                let outcome = callgrind::measure(context, setup);
                let counts = self.found("counting instructions", arm, outcome)?.unwrap_or_default();
                self.add_instructions(arm, setup.events, &counts);
            }
        }
        Ok(())
    }

    fn outage(&mut self, context: &RunContext<'_>, setup: Setup) -> Result<(), CompareError> {
        let options = context.options;
        if !options.has_outage() {
            return Ok(());
        }
        context.begin_step(&format!("outage of the broker, {}", arms::title(setup.arm)));
        let rate = options.rate.unwrap_or_else(|| self.sustainable_rate_of(setup.arm));
        let outcome = outage::measure(context, setup.at(rate, outage::BEFORE + options.outage_for));
        let outage = self.found("outage", setup.arm, outcome)?;
        self.outages.extend(outage);
        Ok(())
    }

    fn count(&mut self, context: &RunContext<'_>, setup: Setup) -> Result<(), CompareError> {
        let outcome = syscalls::measure(context, setup);
        let counted = self.found("counting system calls", setup.arm, outcome)?;
        if let Some(report) = self.report(setup.arm) {
            if let Some(counted) = &counted {
                report.runs.iter_mut().chain(&mut report.again).for_each(|run| add_counts(run, counted));
            }
            report.counted = counted;
        }
        Ok(())
    }

    /// Adds the instructions that were counted for this many events.
    fn add_instructions(&mut self, arm: Arm, events: u64, counts: &BTreeMap<&'static str, u64>) {
        let Some(report) = self.report(arm) else { return };
        for run in report.runs.iter_mut().chain(&mut report.again).chain(&mut report.counted) {
            for (role, process) in &mut run.processes {
                process.instructions = counts.get(role.as_str()).map(|count| scaled(*count, events, run.events));
            }
        }
    }

    /// What an experiment found. Its error is recorded, and the comparison continues without it; only a stop ends it.
    fn found<T>(&mut self, what: &str, arm: Arm, outcome: Result<T, CompareError>) -> Result<Option<T>, CompareError> {
        match outcome {
            Ok(found) => Ok(Some(found)),
            Err(CompareError::Stopped) => Err(CompareError::Stopped),
            Err(error) => {
                self.errors.push(format!("{what} of {}: {error}", arms::title(arm)));
                Ok(None)
            }
        }
    }

    /// A profile of each arm, over as many events as take about the time that a profile is given.
    fn hotspots(&mut self, context: &RunContext<'_>) -> Result<(), CompareError> {
        if context.options.profile_for.is_zero() {
            return Ok(());
        }
        for arm in self.running() {
            let rates: Vec<f64> = self.report(arm).map_or_else(Vec::new, |report| {
                report.runs.iter().map(|run| run.committed as f64 / run.total_s.max(1e-9)).collect()
            });
            let events = statistics::median(&rates) * context.options.profile_for.as_secs_f64();
            context.begin_step(&format!("profile, {}", arms::title(arm)));
            let setup = Setup { events: events.clamp(1.0, MAX_PROFILED) as u64, ..self.setup(context, arm) };
            let outcome = hotspots::measure(context, setup);
            let found = self.found("profile", arm, outcome)?;
            self.hotspots.extend(found.into_iter().flatten());
        }
        Ok(())
    }

    fn curve(&mut self, context: &RunContext<'_>) -> Result<(), CompareError> {
        let mut curve = Curve::new(&self.running());
        let outcome = context
            .options
            .curve_events()
            .into_iter()
            .try_for_each(|events| curve.measure(context, events, |arm| self.setup(context, arm)));
        if !curve.left_out.is_empty() {
            let what = curve.left_out.join(", ");
            self.cut_short.push(format!("the time limit came before these runs of the cost curve: {what}"));
        }
        self.errors.append(&mut curve.errors);
        self.costs = curve.into_costs();
        outcome
    }

    fn axes(&mut self, context: &RunContext<'_>) -> Result<(), CompareError> {
        let mut left_out = Vec::new();
        for plan in self.axis_plans(context) {
            if context.is_past_limit() {
                left_out.push(plan.name());
                continue;
            }
            let errors = &mut self.errors;
            let axes = plan.measure(context, context.options.axis_runs, |error| errors.push(error))?;
            self.axes.extend(axes);
        }
        if !left_out.is_empty() {
            self.cut_short.push(format!(
                "the time limit came before the settings of these arms were varied: {}",
                left_out.join("; ")
            ));
        }
        Ok(())
    }

    fn axis_plans(&self, context: &RunContext<'_>) -> Vec<Plan> {
        let options = context.options;
        let arms = if options.axis_runs == 0 { Vec::new() } else { self.running() };
        arms.into_iter().filter_map(|arm| Plan::new(options, self.setup(context, arm))).collect()
    }

    /// Plans the steps after the trial runs.
    fn plan(&self, context: &RunContext<'_>) {
        let axis_runs = self.axis_plans(context).iter().map(Plan::runs).sum();
        let callgrind = self.counts_with_callgrind(context.options);
        planning::plan(context, &self.running(), &self.trials, axis_runs, callgrind);
    }

    fn counts_with_callgrind(&self, options: &Options) -> bool {
        options.callgrind && self.method == Ok(CountingMethod::Callgrind)
    }
}

/// Half of what the slowest of these runs reached, from 10 to 1,000 events a second.
fn rate_below<'a>(runs: impl Iterator<Item = &'a Run>) -> u64 {
    let rates = runs.map(|run| run.committed as f64 / run.total_s.max(1e-9));
    let slowest = rates.min_by(f64::total_cmp).unwrap_or(1_000.0);
    ((slowest / 2.0) as u64).clamp(10, 1_000)
}

/// A count of a run with `events` events, for a run with `others`.
fn scaled(count: u64, events: u64, others: u64) -> u64 {
    if events == others { count } else { (count as f64 * others as f64 / events.max(1) as f64).round() as u64 }
}

/// Copies what a tracer counted into a timed run of the same work, which the tracer did not slow down.
fn add_counts(run: &mut Run, counted: &Run) {
    let of_run = |count: Option<u64>| count.map(|count| scaled(count, counted.events, run.events));
    for (role, process) in &mut run.processes {
        let counts = counted.processes.get(role);
        process.syscalls = counts.and_then(|counts| of_run(counts.syscalls));
        process.syncs = counts.and_then(|counts| of_run(counts.syncs));
        process.instructions = counts.and_then(|counts| of_run(counts.instructions));
    }
}

/// Why no partitions can be measured, if they were asked for.
fn partitions_unavailable(options: &Options, version: Option<&ServerVersion>) -> Option<String> {
    let version = version.filter(|version| !options.partitions.is_empty() && !version.transforms_subjects())?;
    Some(format!("partitions: nats-server {} has no subject transforms; use 2.10 or later", version.text))
}

/// Why an arm cannot be run here.
fn skipped(arm: Arm, options: &Options, version: Option<&ServerVersion>) -> Option<String> {
    if arm != Arm::JetstreamSyncAlways {
        return None;
    }
    if options.server.is_some() {
        return Some("it needs sync_interval: always, and the given server has its own settings".into());
    }
    let version = version.filter(|version| !version.syncs_always())?;
    Some(format!("nats-server {} has no sync_interval: always; use 2.10 or later", version.text))
}
