//! A whole comparison, from the first run to the report's data.

use std::collections::BTreeMap;
use std::time::Instant;

use super::axes::{self, Plan};
use super::context::{Callbacks, RunContext};
use super::instructions::{self, CountingMethod};
use super::machine::{self, ServerVersion};
use super::options::{Options, Setup};
use super::schedule::{self, Slot};
use super::scratch_directory::{self, ScratchDirectory};
use super::{
    Arm, ArmReport, Axis, CompareError, Comparison, FORMAT, Hotspots, Isolation, Run, Settings, Stall, Verdict, arms,
    callgrind, hotspots, isolation, latency, report, run, stall, statistics, syscalls,
};

/// Compares. Blocks for minutes. Its processes and directories are removed when it returns, also after an error.
///
/// # Errors
///
/// [`CompareError`] where nothing can be compared: options that cannot be used, no broker, a stop that was requested.
/// An arm that fails has its error in [`ArmReport::error`] and no figures.
pub fn compare(options: &Options, callbacks: &Callbacks<'_>) -> Result<Comparison, CompareError> {
    options.validate()?;
    let began = Instant::now();
    let now = time::OffsetDateTime::now_utc();
    let directory = ScratchDirectory::create(&options.directory)?;
    scratch_directory::require_disk(directory.path())?;
    let needs_server = options.server.is_none() && options.arms.iter().any(|arm| !arms::is_direct(*arm));
    let version = if needs_server { Some(ServerVersion::ask(&options.nats_server)?) } else { None };
    let environment = machine::inspect(options, directory.path(), version.as_ref())?;
    let mut driver = Driver::new(options, version.as_ref());
    let context = RunContext::new(options, callbacks, directory, began, driver.steps(options));
    driver.rounds(&context)?;
    let rate = options.rate.unwrap_or_else(|| driver.sustainable_rate());
    driver.experiments(&context, rate)?;
    driver.hotspots(&context)?;
    driver.axes(&context)?;
    if options.server.is_none() {
        log::debug!("comparison: {} test environments", context.environments());
    } else {
        driver.not_measured.push(
            "the broker's CPU, memory and context switches: this comparison used a server that was already running"
                .into(),
        );
    }
    driver.errors.extend(driver.arms.iter().filter_map(|arm| arm.error.clone()));
    let workload = options.workload(&options.setup(Arm::DirectGrouped), "events.chat");
    let ratios = statistics::ratios(&driver.arms, options.seed);
    let mut comparison = Comparison {
        format: FORMAT,
        catchment: env!("CARGO_PKG_VERSION").into(),
        began: now.truncate_to_second().format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
        took_s: began.elapsed().as_secs_f64(),
        command: options.command.clone(),
        environment,
        settings: Settings {
            events: options.events,
            payload: workload.payload(),
            pairs: driver.arms.iter().map(|arm| arm.runs.len()).max().unwrap_or(0),
            producers: options.producers,
            writers: options.writers,
            synchronous: options.synchronous_name().into(),
            codec: options.codec.name().into(),
            work: options.work.name().into(),
            batch: options.batch,
            rate,
            seed: options.seed,
            cut_short: (!driver.cut_short.is_empty()).then(|| driver.cut_short.join("; ")),
        },
        arms: driver.arms,
        ratios,
        axes: driver.axes,
        stalls: driver.stalls,
        isolations: driver.isolations,
        hotspots: driver.hotspots,
        verdict: Verdict::default(),
        not_measured: driver.not_measured,
        errors: driver.errors,
    };
    comparison.verdict = report::verdict(&comparison);
    Ok(comparison)
}

/// Makes the runs and collects what they found.
struct Driver {
    arms: Vec<ArmReport>,
    plans: Vec<Plan>,
    axes: Vec<Axis>,
    stalls: Vec<Stall>,
    hotspots: Vec<Hotspots>,
    isolations: Vec<Isolation>,
    not_measured: Vec<String>,
    errors: Vec<String>,
    cut_short: Vec<String>,
}

/// Steps of each arm besides its timed runs: idle and latency, stall, isolation, two kinds of counting, a profile.
const EXPERIMENTS: usize = 6;

/// The most events of a profiled run.
const MAX_PROFILED: f64 = 500_000.0;

impl Driver {
    fn new(options: &Options, version: Option<&ServerVersion>) -> Self {
        let report = |&arm: &Arm| ArmReport {
            arm,
            promise: arms::promise(arm, options.synchronous),
            skipped: skipped(arm, version),
            error: None,
            counted: None,
            runs: Vec::new(),
            again: Vec::new(),
            latency: None,
            idle: None,
        };
        let arms: Vec<ArmReport> = options.arms.iter().map(report).collect();
        let run: Vec<Arm> = arms.iter().filter(|arm| arm.skipped.is_none()).map(|arm| arm.arm).collect();
        let plans = if options.axis_runs == 0 { Vec::new() } else { axes::plans(options, &run) };
        let instructions = match instructions::counting_method() {
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
        let not_measured = syscalls::unavailable().into_iter().chain(instructions).collect();
        let (axes, stalls, hotspots, isolations, errors, cut_short) = Default::default();
        Self { arms, plans, axes, stalls, hotspots, isolations, not_measured, errors, cut_short }
    }

    /// The arms that were not skipped and have not failed.
    fn running(&self) -> Vec<Arm> {
        self.arms.iter().filter(|arm| arm.skipped.is_none() && arm.error.is_none()).map(|arm| arm.arm).collect()
    }

    fn steps(&self, options: &Options) -> u64 {
        let arms = self.running().len();
        let axes: usize = self.plans.iter().map(|plan| plan.runs(options.axis_runs)).sum();
        ((arms + 1) * options.pairs + arms * EXPERIMENTS + axes) as u64
    }

    fn report(&mut self, arm: Arm) -> Option<&mut ArmReport> {
        self.arms.iter_mut().find(|report| report.arm == arm)
    }

    /// The timed runs.
    fn rounds(&mut self, context: &RunContext<'_>) -> Result<(), CompareError> {
        let (began, options, arms) = (Instant::now(), context.options, self.running());
        let budget = options.budget.map(|budget| budget * u32::try_from(arms.len() + 1).unwrap_or(1));
        for (number, round) in schedule::rounds(&arms, options.pairs, options.seed).into_iter().enumerate() {
            if let Some(budget) = budget.filter(|budget| number > 0 && began.elapsed() >= *budget) {
                let pairs = options.pairs;
                self.cut_short
                    .push(format!("{number} of {pairs} pairs, because their time budget of {budget:?} was used up"));
                context.skip_to(((arms.len() + 1) * pairs) as u64);
                break;
            }
            for slot in round {
                self.timed_run(context, slot)?;
            }
        }
        Ok(())
    }

    fn timed_run(&mut self, context: &RunContext<'_>, Slot { arm, again }: Slot) -> Result<(), CompareError> {
        context.begin_step(arms::name(arm));
        if self.report(arm).is_none_or(|report| report.error.is_some()) {
            return Ok(());
        }
        let outcome = run::timed(context, context.options.setup(arm));
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
        let runs = self.arms.iter().flat_map(|report| &report.runs);
        let rates = runs.map(|run| run.committed as f64 / run.total_s.max(1e-9));
        let slowest = rates.min_by(f64::total_cmp).unwrap_or(1_000.0);
        ((slowest / 2.0) as u64).clamp(10, 1_000)
    }

    fn experiments(&mut self, context: &RunContext<'_>, rate: u64) -> Result<(), CompareError> {
        let options = context.options;
        let method = instructions::counting_method();
        let may_count = syscalls::unavailable().is_none() || method == Ok(CountingMethod::Processor);
        for arm in self.running() {
            let (name, setup) = (arms::name(arm), options.setup(arm));
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
            context.begin_step(&format!("counting, {name}"));
            if may_count {
                self.count(context, setup)?;
            }
            if method == Ok(CountingMethod::Callgrind) && options.callgrind {
                context.begin_step(&format!("counting instructions, {name}"));
                let outcome = callgrind::measure(context, setup);
                let counts = self.found("counting instructions", arm, outcome)?.unwrap_or_default();
                self.add_instructions(arm, &counts);
            }
        }
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

    fn add_instructions(&mut self, arm: Arm, counts: &BTreeMap<&'static str, u64>) {
        let Some(report) = self.report(arm) else { return };
        for run in report.runs.iter_mut().chain(&mut report.again).chain(&mut report.counted) {
            for (role, process) in &mut run.processes {
                process.instructions = counts.get(role.as_str()).copied();
            }
        }
    }

    /// What an experiment found. Its error is recorded, and the comparison continues without it; only a stop ends it.
    fn found<T>(&mut self, what: &str, arm: Arm, outcome: Result<T, CompareError>) -> Result<Option<T>, CompareError> {
        match outcome {
            Ok(found) => Ok(Some(found)),
            Err(CompareError::Stopped) => Err(CompareError::Stopped),
            Err(error) => {
                self.errors.push(format!("{what} of {}: {error}", arms::name(arm)));
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
            context.begin_step(&format!("profile, {}", arms::name(arm)));
            let setup = Setup { events: events.clamp(1.0, MAX_PROFILED) as u64, ..context.options.setup(arm) };
            let outcome = hotspots::measure(context, setup);
            let found = self.found("profile", arm, outcome)?;
            self.hotspots.extend(found.into_iter().flatten());
        }
        Ok(())
    }

    fn axes(&mut self, context: &RunContext<'_>) -> Result<(), CompareError> {
        let mut left_out = Vec::new();
        for plan in &self.plans {
            if context.is_past_limit() {
                left_out.push(plan.name());
                continue;
            }
            let errors = &mut self.errors;
            self.axes.push(plan.measure(context, context.options.axis_runs, |error| errors.push(error))?);
        }
        if !left_out.is_empty() {
            self.cut_short.push(format!("the time limit came before these were varied: {}", left_out.join(", ")));
        }
        Ok(())
    }
}

/// Copies what a tracer counted into a timed run of the same work, which the tracer did not slow down.
fn add_counts(run: &mut Run, counted: &Run) {
    for (role, process) in &mut run.processes {
        let counts = counted.processes.get(role);
        process.syscalls = counts.and_then(|counts| counts.syscalls);
        process.syncs = counts.and_then(|counts| counts.syncs);
        process.instructions = counts.and_then(|counts| counts.instructions);
    }
}

/// Why an arm cannot be run here.
fn skipped(arm: Arm, version: Option<&ServerVersion>) -> Option<String> {
    match (arm, version) {
        (Arm::JetstreamSyncAlways, None) => {
            Some("it needs sync_interval: always, and the given server has its own settings".into())
        }
        (Arm::JetstreamSyncAlways, Some(version)) if !version.syncs_always() => {
            Some(format!("nats-server {} has no sync_interval: always; use 2.10 or later", version.text))
        }
        _ => None,
    }
}
