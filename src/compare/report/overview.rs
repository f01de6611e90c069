//! The main table: what the study of a chat bot that this comparison goes back to had, one row for each of its rows, and what it
//! should have had besides.

use super::figures;
use super::names;
use crate::compare::statistics::{self, Compared, Metric, metric};
use crate::compare::{Arm, ArmReport, Comparison, Quantiles, Run};

/// The table, for the arms that ran.
pub struct Overview {
    pub arms: Vec<Arm>,
    pub rows: Vec<Row>,
    /// Numbered from 1, as `[1]` in the cells.
    pub notes: Vec<String>,
}

pub struct Row {
    pub name: &'static str,
    /// One for each arm.
    pub values: Vec<String>,
    /// One for each arm: against the comparison's first, empty for itself.
    pub differences: Vec<String>,
}

struct Measure {
    name: &'static str,
    of: Of,
    shown: fn(f64) -> String,
    /// What a reason in `not_measured` would speak of.
    words: &'static [&'static str],
}

enum Of {
    /// One number a run: its median is shown, differences have intervals.
    Run(Metric),
    /// CPU of one process, where the arm has it.
    Role(&'static str),
    /// One number an arm.
    Arm(fn(&ArmReport) -> Option<f64>),
}

const MEASURES: &[Measure] = &[
    run("Total time", metric::total_s, figures::seconds, &[]),
    run("Throughput, events/s", metric::throughput, figures::amount, &[]),
    run("Instructions an event", metric::instructions, figures::amount, &["instruction", "perf"]),
    run("System calls an event", metric::syscalls, figures::amount, &["system call", "syscall"]),
    run("Voluntary switches an event", metric::voluntary_switches, figures::amount, &["switch"]),
    run("Involuntary switches an event", metric::involuntary_switches, figures::amount, &["switch"]),
    run("CPU seconds, all processes", metric::cpu_s, figures::seconds, &["cpu"]),
    run("CPU an event, all processes", metric::cpu_us_an_event, figures::micros, &["cpu"]),
    role("- application", "application"),
    role("- collector", "collector"),
    role("- broker", "broker"),
    run("CPU percent (seconds / time)", metric::cpu_percent, figures::percent, &["cpu"]),
    arm("Idle CPU, all processes", idle_percent, figures::percent, &["idle"]),
    run("Bytes written an event", metric::written, figures::bytes, &["written", "bytes", "/io"]),
    run("Syncs a thousand events", metric::syncs, figures::amount, &["sync"]),
    run("Peak memory, all processes", metric::peak_memory, figures::bytes, &["memory"]),
    run("record() flat out, p50", |_, run| told(run.record_us, |us| us.p50), figures::micros, &["record"]),
    run("record() flat out, p99", |_, run| told(run.record_us, |us| us.p99), figures::micros, &["record"]),
    run("record() flat out, max", |_, run| told(run.record_us, |us| us.max), figures::micros, &["record"]),
    arm("record() at the rate, p50", |arm| at_rate_record(arm, |us| us.p50), figures::micros, &["latency"]),
    arm("record() at the rate, p99", |arm| at_rate_record(arm, |us| us.p99), figures::micros, &["latency"]),
    arm("Commit latency, p50", |arm| at_rate_commit(arm, |us| us.p50), figures::micros, &["latency"]),
    arm("Commit latency, p90", |arm| at_rate_commit(arm, |us| us.p90), figures::micros, &["latency"]),
    arm("Commit latency, p99", |arm| at_rate_commit(arm, |us| us.p99), figures::micros, &["latency"]),
    arm("Commit latency, p99.9", |arm| at_rate_commit(arm, |us| us.p999), figures::micros, &["latency"]),
    arm("Commit latency, max", |arm| at_rate_commit(arm, |us| us.max), figures::micros, &["latency"]),
];

const fn run(name: &'static str, of: Metric, shown: fn(f64) -> String, words: &'static [&'static str]) -> Measure {
    Measure { name, of: Of::Run(of), shown, words }
}

const fn role(name: &'static str, role: &'static str) -> Measure {
    Measure { name, of: Of::Role(role), shown: figures::micros, words: &["cpu"] }
}

const fn arm(
    name: &'static str,
    of: fn(&ArmReport) -> Option<f64>,
    shown: fn(f64) -> String,
    words: &'static [&'static str],
) -> Measure {
    Measure { name, of: Of::Arm(of), shown, words }
}

/// No call takes no time: all zeros are what a run says that did not look.
fn told(quantiles: Quantiles, which: fn(Quantiles) -> f64) -> Option<f64> {
    (quantiles.max > 0.0).then(|| which(quantiles))
}

fn at_rate_record(arm: &ArmReport, which: fn(Quantiles) -> f64) -> Option<f64> {
    arm.latency.as_ref().and_then(|run| told(run.record_us, which))
}

fn at_rate_commit(arm: &ArmReport, which: fn(Quantiles) -> f64) -> Option<f64> {
    arm.latency.as_ref().and_then(|run| told(run.commit_us, which))
}

/// CPU of all processes with nothing to do, in percent of one core; none if a process is missing.
pub fn idle_percent(arm: &ArmReport) -> Option<f64> {
    let idle = arm.idle.as_ref().filter(|idle| idle.seconds > 0.0)?;
    let whole = metric::roles(arm.arm).iter().all(|role| idle.cpu_s.contains_key(*role));
    whole.then(|| idle.cpu_s.values().sum::<f64>() / idle.seconds * 100.0)
}

/// Runs of an arm have a number where each of them has it.
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
        let why = skipped.skipped.as_deref().unwrap_or("it has no runs, and why was not recorded");
        notes.said.push(format!("{} was not run: {}.", names::title(skipped.arm), why.trim_end_matches('.')));
    }
    Overview { arms: arms.iter().map(|arm| arm.arm).collect(), rows, notes: notes.said }
}

fn row(comparison: &Comparison, arms: &[&ArmReport], measure: &Measure, notes: &mut Notes) -> Row {
    let values = arms.iter().map(|arm| match value(arm, measure) {
        Some(value) => (measure.shown)(value),
        None if belongs(arm.arm, measure) => notes.absent(measure),
        None => "–".into(),
    });
    let values = values.collect();
    let differences = match measure.of {
        Of::Run(of) => differences(comparison, arms, of),
        Of::Role(_) => vec![String::new(); arms.len()],
        Of::Arm(of) => arms.iter().map(|arm| single_difference(comparison, arm, of).unwrap_or_default()).collect(),
    };
    Row { name: measure.name, values, differences }
}

fn value(arm: &ArmReport, measure: &Measure) -> Option<f64> {
    match measure.of {
        Of::Run(of) => median(arm, of),
        Of::Role(role) => {
            let samples: Option<Vec<f64>> = arm.runs.iter().map(|run| metric::cpu_us_of(role, run)).collect();
            samples.map(|samples| statistics::median(&samples))
        }
        Of::Arm(of) => of(arm),
    }
}

fn belongs(arm: Arm, measure: &Measure) -> bool {
    !matches!(measure.of, Of::Role(role) if !metric::roles(arm).contains(&role))
}

fn differences(comparison: &Comparison, arms: &[&ArmReport], of: Metric) -> Vec<String> {
    let seed = comparison.settings.seed;
    let noise = statistics::noise(&comparison.arms, of, seed);
    let one = |arm: &&ArmReport| {
        let first = comparison.arms.first().filter(|first| first.arm != arm.arm)?;
        let found = statistics::compared((arm.arm, &arm.runs), (first.arm, &first.runs), of, noise, seed)?;
        Some(figures::difference(&found))
    };
    arms.iter().map(|arm| one(arm).unwrap_or_default()).collect()
}

/// Of one run each: a ratio, and nothing that could be an interval.
fn single_difference(comparison: &Comparison, arm: &ArmReport, of: fn(&ArmReport) -> Option<f64>) -> Option<String> {
    let first = comparison.arms.first().filter(|first| first.arm != arm.arm)?;
    let below = of(first).filter(|below| *below > 0.0)?;
    Some(figures::change(of(arm)? / below))
}

fn lost(arms: &[&ArmReport]) -> Row {
    let of_runs = |arm: &&ArmReport| {
        let handed_over: u64 = arm.runs.iter().map(|run| run.events).sum();
        let committed: u64 = arm.runs.iter().map(|run| run.committed).sum();
        format!("{} of {}", figures::count(handed_over.saturating_sub(committed)), figures::count(handed_over))
    };
    Row {
        name: "Events lost, all runs",
        values: arms.iter().map(of_runs).collect(),
        differences: vec![String::new(); arms.len()],
    }
}

/// Footnotes: why something is absent, each reason once.
struct Notes<'a> {
    reasons: &'a [String],
    said: Vec<String>,
}

impl<'a> Notes<'a> {
    fn new(comparison: &'a Comparison) -> Self {
        Self { reasons: &comparison.not_measured, said: Vec::new() }
    }

    fn absent(&mut self, measure: &Measure) -> String {
        let speaks_of_it = |reason: &&String| {
            let reason = reason.to_lowercase();
            measure.words.iter().any(|word| reason.contains(word))
        };
        let why = self.reasons.iter().find(speaks_of_it).map_or_else(
            || {
                format!(
                    "{}: not measured in every run, and why was not recorded.",
                    measure.name.trim_start_matches("- ")
                )
            },
            |reason| format!("Not measured: {}.", reason.trim_end_matches('.')),
        );
        let at = self.said.iter().position(|said| *said == why).unwrap_or_else(|| {
            self.said.push(why);
            self.said.len() - 1
        });
        format!("not measured [{}]", at + 1)
    }
}
