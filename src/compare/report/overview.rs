//! The main table: the rows of an earlier study of a chat bot, and rows that the study lacked.

use super::figures::{self, Form, Quantity};
use super::names;
use crate::compare::statistics::{self, Compared, Metric, metric};
use crate::compare::{Arm, ArmReport, Comparison, Quantiles, Run};

/// The table, for the arms that ran.
pub struct Overview {
    pub arms: Vec<Arm>,
    pub rows: Vec<Row>,
    /// Footnotes, numbered from 1: `[1]` in the cells.
    pub notes: Vec<String>,
}

pub struct Row {
    /// With the unit of its values.
    pub name: String,
    /// Without it.
    pub measure: &'static str,
    /// One for each arm.
    pub values: Vec<String>,
    /// One for each arm: against the first arm of the comparison; empty for that arm.
    pub differences: Vec<String>,
}

struct Measure {
    name: &'static str,
    of: Source,
    quantity: Quantity,
    /// Words that a reason in `not_measured` has if it is about this row.
    words: &'static [&'static str],
}

enum Source {
    /// One number for each run: the median is shown, and differences have intervals.
    Run(Metric),
    /// Counted in one run of the arm, whose counts all its runs have.
    Counted(Metric),
    /// CPU of one process, if the arm has it.
    Role(&'static str),
    /// One number for each arm.
    Arm(fn(&ArmReport) -> Option<f64>),
}

use Quantity::{Bytes, Micros, Number, Percent, Rate, Seconds};

const MEASURES: &[Measure] = &[
    run("Total time for 10,000 events", metric::stated_s, Seconds, &[]),
    run("Throughput", metric::throughput, Rate, &[]),
    counted("Instructions an event", metric::instructions, Number, &["instruction", "perf"]),
    counted("System calls an event", metric::syscalls, Number, &["system call", "syscall"]),
    run("Voluntary switches an event", metric::voluntary_switches, Number, &["switch"]),
    run("Involuntary switches an event", metric::involuntary_switches, Number, &["switch"]),
    run("CPU for 10,000 events", metric::stated_cpu_s, Seconds, &["cpu"]),
    run("CPU an event, all processes", metric::cpu_us_an_event, Micros, &["cpu"]),
    role("- application", "application"),
    role("- collector", "collector"),
    role("- broker", "broker"),
    run("CPU percent (seconds / time)", metric::cpu_percent, Percent, &["cpu"]),
    arm("Idle CPU, all processes", idle_percent, Percent, &["idle"]),
    run("Bytes written an event", metric::written, Bytes, &["written", "bytes", "/io"]),
    counted("Syncs a thousand events", metric::syncs, Number, &["sync"]),
    run("Peak memory, all processes", metric::peak_memory, Bytes, &["memory"]),
    run("record() at full speed, p50", |_, run| measured(run.record_us, |us| us.p50), Micros, &["record"]),
    run("record() at full speed, p99", |_, run| measured(run.record_us, |us| us.p99), Micros, &["record"]),
    run("record() at full speed, max", |_, run| measured(run.record_us, |us| us.max), Micros, &["record"]),
    arm("record() at a fixed rate, p50", |arm| at_rate_record(arm, |us| us.p50), Micros, &["latency"]),
    arm("record() at a fixed rate, p99", |arm| at_rate_record(arm, |us| us.p99), Micros, &["latency"]),
    arm("Commit latency, p50", |arm| at_rate_commit(arm, |us| us.p50), Micros, &["latency"]),
    arm("Commit latency, p90", |arm| at_rate_commit(arm, |us| us.p90), Micros, &["latency"]),
    arm("Commit latency, p99", |arm| at_rate_commit(arm, |us| us.p99), Micros, &["latency"]),
    arm("Commit latency, p99.9", |arm| at_rate_commit(arm, |us| us.p999), Micros, &["latency"]),
    arm("Commit latency, max", |arm| at_rate_commit(arm, |us| us.max), Micros, &["latency"]),
];

const fn run(name: &'static str, of: Metric, quantity: Quantity, words: &'static [&'static str]) -> Measure {
    Measure { name, of: Source::Run(of), quantity, words }
}

const fn counted(name: &'static str, of: Metric, quantity: Quantity, words: &'static [&'static str]) -> Measure {
    Measure { name, of: Source::Counted(of), quantity, words }
}

const fn role(name: &'static str, role: &'static str) -> Measure {
    Measure { name, of: Source::Role(role), quantity: Micros, words: &["cpu"] }
}

const fn arm(
    name: &'static str,
    of: fn(&ArmReport) -> Option<f64>,
    quantity: Quantity,
    words: &'static [&'static str],
) -> Measure {
    Measure { name, of: Source::Arm(of), quantity, words }
}

/// A quantile, if it was measured: no call takes 0 µs, so zeros mean that nothing was measured.
fn measured(quantiles: Quantiles, which: fn(Quantiles) -> f64) -> Option<f64> {
    (quantiles.max > 0.0).then(|| which(quantiles))
}

fn at_rate_record(arm: &ArmReport, which: fn(Quantiles) -> f64) -> Option<f64> {
    arm.latency.as_ref().and_then(|run| measured(run.record_us, which))
}

fn at_rate_commit(arm: &ArmReport, which: fn(Quantiles) -> f64) -> Option<f64> {
    arm.latency.as_ref().and_then(|run| measured(run.commit_us, which))
}

/// CPU of all processes while no event comes, in percent of one core; none if a process is missing.
pub fn idle_percent(arm: &ArmReport) -> Option<f64> {
    let idle = arm.idle.as_ref().filter(|idle| idle.seconds > 0.0)?;
    let whole = metric::roles(arm.arm).iter().all(|role| idle.cpu_s.contains_key(*role));
    whole.then(|| idle.cpu_s.values().sum::<f64>() / idle.seconds * 100.0)
}

/// The metric of each run; none if a run does not have it.
pub fn samples(arm: Arm, runs: &[Run], of: Metric) -> Option<Vec<f64>> {
    let samples: Option<Vec<f64>> = runs.iter().map(|run| of(arm, run)).collect();
    samples.filter(|samples| !samples.is_empty())
}

/// Median of an arm's timed runs.
pub fn median(arm: &ArmReport, of: Metric) -> Option<f64> {
    samples(arm.arm, &arm.runs, of).map(|samples| statistics::median(&samples))
}

/// `arm` against `below`, with the noise floor of this comparison.
pub fn against(comparison: &Comparison, arm: &ArmReport, below: &ArmReport, of: Metric) -> Option<Compared> {
    let seed = comparison.settings.seed;
    let noise = statistics::noise(&comparison.arms, of, seed);
    statistics::compared((arm.arm, &arm.runs), (below.arm, &below.runs), of, noise, seed)
}

/// The arms that ran.
pub fn that_ran(comparison: &Comparison) -> Vec<&ArmReport> {
    comparison.arms.iter().filter(|arm| !arm.runs.is_empty()).collect()
}

pub fn overview(comparison: &Comparison) -> Overview {
    let arms = that_ran(comparison);
    let mut notes = Notes::new(comparison);
    let mut rows: Vec<Row> = MEASURES.iter().map(|measure| row(comparison, &arms, measure, &mut notes)).collect();
    rows.push(lost(&arms));
    for skipped in comparison.arms.iter().filter(|arm| arm.runs.is_empty()) {
        let why = skipped.skipped.as_deref().unwrap_or("it has no runs, and the reason was not recorded");
        notes.texts.push(format!("{} was not run: {}.", names::title(skipped.arm), why.trim_end_matches('.')));
    }
    Overview { arms: arms.iter().map(|arm| arm.arm).collect(), rows, notes: notes.texts }
}

fn row(comparison: &Comparison, arms: &[&ArmReport], measure: &Measure, notes: &mut Notes) -> Row {
    let found: Vec<Option<f64>> = arms.iter().map(|arm| value(arm, measure)).collect();
    let unit = measure.quantity.unit(&found.iter().flatten().copied().collect::<Vec<_>>());
    let values = arms.iter().zip(&found).map(|(arm, value)| match value {
        Some(value) => unit.shown(*value),
        None if belongs(arm.arm, measure) => notes.absent(measure),
        None => "–".into(),
    });
    let values = values.collect();
    let differences = match measure.of {
        Source::Run(of) => differences(comparison, arms, of),
        Source::Role(_) => vec![String::new(); arms.len()],
        Source::Counted(of) => single_differences(comparison, arms, |arm| median(arm, of)),
        Source::Arm(of) => single_differences(comparison, arms, of),
    };
    Row { name: unit.label(measure.name), measure: measure.name, values, differences }
}

fn value(arm: &ArmReport, measure: &Measure) -> Option<f64> {
    match measure.of {
        Source::Run(of) | Source::Counted(of) => median(arm, of),
        Source::Role(role) => {
            let samples: Option<Vec<f64>> = arm.runs.iter().map(|run| metric::cpu_us_of(role, run)).collect();
            samples.map(|samples| statistics::median(&samples))
        }
        Source::Arm(of) => of(arm),
    }
}

fn belongs(arm: Arm, measure: &Measure) -> bool {
    !matches!(measure.of, Source::Role(role) if !metric::roles(arm).contains(&role))
}

fn differences(comparison: &Comparison, arms: &[&ArmReport], of: Metric) -> Vec<String> {
    let seed = comparison.settings.seed;
    let noise = statistics::noise(&comparison.arms, of, seed);
    let one = |arm: &&ArmReport| {
        let first = comparison.arms.first().filter(|first| first.arm != arm.arm)?;
        statistics::compared((arm.arm, &arm.runs), (first.arm, &first.runs), of, noise, seed)
    };
    let found: Vec<Option<Compared>> = arms.iter().map(one).collect();
    let form = Form::of_all(found.iter().flatten());
    found.iter().map(|compared| compared.as_ref().map_or_else(String::new, |it| form.difference(it))).collect()
}

/// The differences of single runs: ratios without intervals.
fn single_differences(
    comparison: &Comparison,
    arms: &[&ArmReport],
    of: impl Fn(&ArmReport) -> Option<f64>,
) -> Vec<String> {
    let one = |arm: &&ArmReport| {
        let first = comparison.arms.first().filter(|first| first.arm != arm.arm)?;
        let below = of(first).filter(|below| *below > 0.0)?;
        Some(of(arm)? / below)
    };
    let found: Vec<Option<f64>> = arms.iter().map(one).collect();
    let form = Form::of(found.iter().flatten().copied());
    found.iter().map(|ratio| ratio.map_or_else(String::new, |ratio| form.change(ratio))).collect()
}

fn lost(arms: &[&ArmReport]) -> Row {
    let of_runs = |arm: &&ArmReport| {
        let recorded: u64 = arm.runs.iter().map(|run| run.events).sum();
        let committed: u64 = arm.runs.iter().map(|run| run.committed).sum();
        format!("{} of {}", figures::count(recorded.saturating_sub(committed)), figures::count(recorded))
    };
    Row {
        name: "Events lost, all runs".into(),
        measure: "Events lost, all runs",
        values: arms.iter().map(of_runs).collect(),
        differences: vec![String::new(); arms.len()],
    }
}

/// Footnotes: why a figure is absent, each reason once.
struct Notes<'a> {
    reasons: &'a [String],
    texts: Vec<String>,
}

impl<'a> Notes<'a> {
    fn new(comparison: &'a Comparison) -> Self {
        Self { reasons: &comparison.not_measured, texts: Vec::new() }
    }

    fn absent(&mut self, measure: &Measure) -> String {
        let is_about_it = |reason: &&String| {
            let reason = reason.to_lowercase();
            measure.words.iter().any(|word| reason.contains(word))
        };
        let why = self.reasons.iter().find(is_about_it).map_or_else(
            || {
                format!(
                    "{}: not measured in every run, and the reason was not recorded.",
                    measure.name.trim_start_matches("- ")
                )
            },
            |reason| format!("Not measured: {}.", reason.trim_end_matches('.')),
        );
        let at = self.texts.iter().position(|text| *text == why).unwrap_or_else(|| {
            self.texts.push(why);
            self.texts.len() - 1
        });
        format!("not measured [{}]", at + 1)
    }
}
