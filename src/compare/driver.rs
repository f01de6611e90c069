//! A whole comparison, from the first run to the report's data.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Instant;

use super::instructions::{self, Way};
use super::machine::{self, ServerVersion};
use super::options::{Options, Setup};
use super::schedule::{self, Slot};
use super::scratch_directory::{self, Folder};
use super::stall;
use super::{
    Arm, ArmReport, Comparison, FORMAT, Failure, Run, Settings, Verdict, arms, axes, hotspots, isolation, latency,
    report, run, statistics, syscalls,
};

/// Who watches a comparison, and may end it.
pub struct Surroundings<'a> {
    /// Is told of each run before it is made.
    pub progress: &'a dyn Fn(&Step),
    /// Whether to end. Asked often.
    pub stop: &'a dyn Fn() -> bool,
}

/// A run that is about to be made.
#[derive(Clone, Debug)]
pub struct Step {
    /// In words.
    pub what: String,
    /// Its number, from 0.
    pub number: u64,
    /// How many there will be, as far as is known.
    pub of: u64,
}

/// What all runs of a comparison share.
pub(super) struct Session<'a> {
    pub(super) options: &'a Options,
    pub(super) surroundings: &'a Surroundings<'a>,
    pub(super) folder: Folder,
    began: Instant,
    stages: Cell<u64>,
    steps: Cell<u64>,
    of: u64,
}

impl Session<'_> {
    /// [`Failure::Stopped`] when somebody asked for an end.
    pub(super) fn go_on(&self) -> Result<(), Failure> {
        if (self.surroundings.stop)() { Err(Failure::Stopped) } else { Ok(()) }
    }

    /// A number for each stage.
    pub(super) fn number(&self) -> u64 {
        self.stages.replace(self.stages.get() + 1)
    }

    /// Says what comes next.
    pub(super) fn step(&self, what: &str) {
        log::debug!("comparison: {what}");
        let number = self.steps.replace(self.steps.get() + 1);
        (self.surroundings.progress)(&Step { what: what.into(), number, of: self.of });
    }

    /// Whether nothing more is to be begun.
    fn is_late(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.began.elapsed() >= limit)
    }

    fn skip_to(&self, step: u64) {
        self.steps.set(step);
    }
}

/// Compares. Blocks for minutes. Processes and directories that it makes are gone when it returns, whatever it returns.
///
/// # Errors
///
/// [`Failure`] where there is nothing to compare with: settings that cannot be used, no broker, an end that was asked for.
/// An arm that fails is told in [`ArmReport::error`], and its figures are left out.
pub fn compare(options: &Options, surroundings: &Surroundings<'_>) -> Result<Comparison, Failure> {
    options.validate()?;
    let began = Instant::now();
    let now = time::OffsetDateTime::now_utc();
    let folder = Folder::make(&options.directory)?;
    scratch_directory::on_a_disk(folder.path())?;
    let needs_server = options.server.is_none() && options.arms.iter().any(|arm| !arms::is_direct(*arm));
    let version = if needs_server { Some(ServerVersion::ask(&options.nats_server)?) } else { None };
    let environment = machine::look(options, folder.path(), version.as_ref())?;
    let mut work = Work::new(options, version.as_ref());
    let session = Session {
        options,
        surroundings,
        folder,
        began,
        stages: Cell::new(0),
        steps: Cell::new(0),
        of: work.steps(options),
    };
    work.rounds(&session)?;
    let rate = options.rate.unwrap_or_else(|| work.bearable_rate());
    work.experiments(&session, rate)?;
    work.hotspots(&session)?;
    work.axes(&session)?;
    if needs_server || options.server.is_none() {
        log::debug!("comparison: {} stages", session.stages.get());
    } else {
        work.not_measured.push("the broker's CPU, memory and context switches: it ran already and is not ours".into());
    }
    work.errors.extend(work.arms.iter().filter_map(|arm| arm.error.clone()));
    let workload = options.workload(&options.setup(Arm::DirectGrouped), "events.chat");
    let ratios = statistics::ratios(&work.arms, options.seed);
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
            pairs: work.arms.iter().map(|arm| arm.runs.len()).max().unwrap_or(0),
            producers: options.producers,
            writers: options.writers,
            synchronous: options.synchronous_name().into(),
            codec: options.codec.name().into(),
            work: options.work.name().into(),
            batch: options.batch,
            rate,
            seed: options.seed,
            cut_short: (!work.cut_short.is_empty()).then(|| work.cut_short.join("; ")),
        },
        arms: work.arms,
        ratios,
        axes: work.axes,
        stalls: work.stalls,
        isolations: work.isolations,
        hotspots: work.hotspots,
        verdict: Verdict::default(),
        not_measured: work.not_measured,
        errors: work.errors,
    };
    comparison.verdict = report::verdict(&comparison);
    Ok(comparison)
}

/// What has been found so far.
struct Work {
    arms: Vec<ArmReport>,
    plans: Vec<axes::Plan>,
    axes: Vec<super::Axis>,
    stalls: Vec<super::Stall>,
    hotspots: Vec<super::Hotspots>,
    isolations: Vec<super::Isolation>,
    not_measured: Vec<String>,
    errors: Vec<String>,
    cut_short: Vec<String>,
}

/// Experiments an arm: idle and latency, stall, isolation, two ways of counting, a profile.
const EXPERIMENTS: usize = 6;

/// Events of a profiled run, at most.
const MANY: f64 = 500_000.0;

impl Work {
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
        let instructions = match instructions::way() {
            Ok(Way::Processor) => None,
            Ok(Way::Callgrind) if options.callgrind => Some(
                "instructions of the broker: no hardware counter may be read here, and callgrind is not run on it"
                    .into(),
            ),
            Ok(Way::Callgrind) => Some(
                "instructions: no hardware counter may be read here, and counting by callgrind is left out of --quick"
                    .into(),
            ),
            Err(why) => Some(format!("instructions: {why}")),
        };
        let not_measured = syscalls::why_not().into_iter().chain(instructions).collect();
        let (axes, stalls, hotspots, isolations, errors, cut_short) = Default::default();
        Self { arms, plans, axes, stalls, hotspots, isolations, not_measured, errors, cut_short }
    }

    /// The arms that are still of use.
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
    fn rounds(&mut self, session: &Session<'_>) -> Result<(), Failure> {
        let (began, options, arms) = (Instant::now(), session.options, self.running());
        let budget = options.budget.map(|budget| budget * u32::try_from(arms.len() + 1).unwrap_or(1));
        for (number, round) in schedule::rounds(&arms, options.pairs, options.seed).into_iter().enumerate() {
            if let Some(budget) = budget.filter(|budget| number > 0 && began.elapsed() >= *budget) {
                let pairs = options.pairs;
                self.cut_short.push(format!("{number} of {pairs} pairs: their time budget of {budget:?} was used up"));
                session.skip_to(((arms.len() + 1) * pairs) as u64);
                break;
            }
            for slot in round {
                self.slot(session, slot)?;
            }
        }
        Ok(())
    }

    fn slot(&mut self, session: &Session<'_>, Slot { arm, again }: Slot) -> Result<(), Failure> {
        session.step(arms::name(arm));
        if self.report(arm).is_none_or(|report| report.error.is_some()) {
            return Ok(());
        }
        let made = run::timed(session, session.options.setup(arm));
        let Some(report) = self.report(arm) else { return Ok(()) };
        match made {
            Ok(run) if again => report.again.push(run),
            Ok(run) => report.runs.push(run),
            Err(Failure::Stopped) => return Err(Failure::Stopped),
            Err(failure) => {
                report.error = Some(failure.to_string());
                report.runs.clear();
                report.again.clear();
            }
        }
        Ok(())
    }

    /// Half of what the slowest run of all arms managed: a rate that all can bear.
    fn bearable_rate(&self) -> u64 {
        let runs = self.arms.iter().flat_map(|report| &report.runs);
        let rates = runs.map(|run| run.committed as f64 / run.total_s.max(1e-9));
        let slowest = rates.min_by(f64::total_cmp).unwrap_or(1_000.0);
        ((slowest / 2.0) as u64).clamp(10, 1_000)
    }

    fn experiments(&mut self, session: &Session<'_>, rate: u64) -> Result<(), Failure> {
        let options = session.options;
        let way = instructions::way();
        let may_count = syscalls::why_not().is_none() || way == Ok(Way::Processor);
        for arm in self.running() {
            let (name, setup) = (arms::name(arm), options.setup(arm));
            session.step(&format!("idle and latency, {name}"));
            let found = latency::measure(session, setup.at(rate, options.rate_for));
            if let Some((idle, latency)) = self.kept("latency", arm, found)?
                && let Some(report) = self.report(arm)
            {
                (report.idle, report.latency) = (Some(idle), Some(latency));
            }
            session.step(&format!("stall, {name}"));
            let stalling = setup.at(rate, options.stall_for + 2 * stall::AROUND);
            let found = stall::measure(session, stalling);
            let stall = self.kept("stall", arm, found)?;
            self.stalls.extend(stall);
            session.step(&format!("isolation, {name}"));
            let found = isolation::measure(session, setup.at(rate, 3 * options.away_for));
            let isolation = self.kept("isolation", arm, found)?;
            self.isolations.extend(isolation);
            session.step(&format!("counting, {name}"));
            if may_count {
                self.count(session, setup)?;
            }
            if way == Ok(Way::Callgrind) && options.callgrind {
                session.step(&format!("counting instructions, {name}"));
                let found = instructions::by_callgrind(session, setup);
                let counts = self.kept("counting instructions", arm, found)?.unwrap_or_default();
                self.adopt_instructions(arm, &counts);
            }
        }
        Ok(())
    }

    fn count(&mut self, session: &Session<'_>, setup: Setup) -> Result<(), Failure> {
        let counted = syscalls::measure(session, setup);
        let counted = self.kept("counting system calls", setup.arm, counted)?;
        if let Some(report) = self.report(setup.arm) {
            if let Some(counted) = &counted {
                report.runs.iter_mut().chain(&mut report.again).for_each(|run| adopt(run, counted));
            }
            report.counted = counted;
        }
        Ok(())
    }

    fn adopt_instructions(&mut self, arm: Arm, counts: &BTreeMap<&'static str, u64>) {
        let Some(report) = self.report(arm) else { return };
        for run in report.runs.iter_mut().chain(&mut report.again).chain(&mut report.counted) {
            for (role, process) in &mut run.processes {
                process.instructions = counts.get(role.as_str()).copied();
            }
        }
    }

    /// What an experiment found. One that failed is told, and the rest goes on.
    fn kept<T>(&mut self, what: &str, arm: Arm, found: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(Failure::Stopped) => Err(Failure::Stopped),
            Err(failure) => {
                self.errors.push(format!("{what} of {}: {failure}", arms::name(arm)));
                Ok(None)
            }
        }
    }

    /// As many events as take the time that a profile is given, for each arm.
    fn hotspots(&mut self, session: &Session<'_>) -> Result<(), Failure> {
        if session.options.profile_for.is_zero() {
            return Ok(());
        }
        for arm in self.running() {
            let rates: Vec<f64> = self.report(arm).map_or_else(Vec::new, |report| {
                report.runs.iter().map(|run| run.committed as f64 / run.total_s.max(1e-9)).collect()
            });
            let events = statistics::median(&rates) * session.options.profile_for.as_secs_f64();
            session.step(&format!("profile, {}", arms::name(arm)));
            let setup = Setup { events: events.clamp(1.0, MANY) as u64, ..session.options.setup(arm) };
            let found = hotspots::measure(session, setup);
            let found = self.kept("profile", arm, found)?;
            self.hotspots.extend(found.into_iter().flatten());
        }
        Ok(())
    }

    fn axes(&mut self, session: &Session<'_>) -> Result<(), Failure> {
        let mut left_out = Vec::new();
        for plan in &self.plans {
            if session.is_late() {
                left_out.push(plan.name());
                continue;
            }
            let errors = &mut self.errors;
            self.axes.push(plan.measure(session, session.options.axis_runs, |error| errors.push(error))?);
        }
        if !left_out.is_empty() {
            self.cut_short.push(format!("the time was up before these were varied: {}", left_out.join(", ")));
        }
        Ok(())
    }
}

/// Writes what a tracer counted into a run of the same work that it did not slow down.
fn adopt(run: &mut Run, counted: &Run) {
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
        (Arm::JetstreamSyncAlways, None) => Some("the server is not ours to set sync_interval on".into()),
        (Arm::JetstreamSyncAlways, Some(version)) if !version.syncs_always() => {
            Some(format!("nats-server {} has no sync_interval: always, 2.10 and later have", version.text))
        }
        _ => None,
    }
}
