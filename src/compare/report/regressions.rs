//! A comparison against an earlier one of the same settings: what got worse beyond the noise of both.

use super::figures;
use super::names;
use super::overview::samples;
use crate::compare::statistics::{Interval, MINIMUM_PAIRS, Metric, interval_of_median, metric, noise};
use crate::compare::{ArmReport, Comparison, FORMAT, Settings};

/// Two sessions are never paired: between them a machine differs from itself by more than within one. Differences below
/// this factor are not told, however narrow the intervals.
const BETWEEN_SESSIONS: f64 = 1.02;

/// Why a baseline cannot be compared with: a line for the user.
#[derive(Debug, thiserror::Error)]
#[error("the baseline cannot be compared with: {0}")]
pub struct Incomparable(String);

impl Incomparable {
    pub(super) fn unreadable(error: &serde_json::Error) -> Self {
        Self(format!("it is not the JSON of a comparison ({error})"))
    }

    pub(super) fn format(format: u32) -> Self {
        Self(format!("it has format {format}, this catchment reads format {FORMAT}; measure the baseline again"))
    }
}

struct Judged {
    name: &'static str,
    of: Metric,
    more_is_better: bool,
    shown: fn(f64) -> String,
}

const JUDGED: [Judged; 3] = [
    Judged { name: "total time", of: metric::total_s, more_is_better: false, shown: figures::seconds },
    Judged { name: "throughput", of: metric::throughput, more_is_better: true, shown: figures::rate },
    Judged { name: "CPU seconds of all processes", of: metric::cpu_s, more_is_better: false, shown: figures::seconds },
];

/// What is worse than in the baseline, a line each; empty if nothing is. Worse means that the 95 % intervals of the two
/// medians, each widened by the noise floor, have nothing in common.
///
/// # Errors
///
/// If the two measured different things.
pub fn regressions(now: &Comparison, baseline: &Comparison) -> Result<Vec<String>, Incomparable> {
    comparable(now, baseline)?;
    let of_arm = |arm: &ArmReport| {
        let before = baseline.arms.iter().find(|before| before.arm == arm.arm)?;
        Some(JUDGED.iter().filter_map(|judged| regression(now, baseline, (arm, before), judged)).collect::<Vec<_>>())
    };
    Ok(now.arms.iter().filter_map(of_arm).flatten().collect())
}

/// What a reader of [`regressions`] has to know: other machines or programs, arms that only one of the two has.
#[must_use]
pub fn notes(now: &Comparison, baseline: &Comparison) -> Vec<String> {
    let (here, there) = (&now.environment, &baseline.environment);
    let cores = |cores: usize| cores.to_string();
    let surroundings = [
        ("processor", there.processor.clone(), here.processor.clone()),
        ("cores", cores(there.cores), cores(here.cores)),
        ("kernel", there.kernel.clone(), here.kernel.clone()),
        ("file system", there.file_system.clone(), here.file_system.clone()),
        ("SQLite", there.sqlite.clone(), here.sqlite.clone()),
        ("nats-server", or_none(there.nats_server.as_ref()), or_none(here.nats_server.as_ref())),
    ];
    let differ = surroundings.into_iter().filter(|(_, before, after)| before != after);
    let mut notes: Vec<String> = differ
        .map(|(what, before, after)| format!("not the same {what} as in the baseline: {before} then, {after} now"))
        .collect();
    if here.pragmas != there.pragmas {
        notes.push("not the same PRAGMAs as in the baseline".into());
    }
    if here.broker != there.broker {
        notes.push("not the same settings of the broker as in the baseline".into());
    }
    for before in baseline.arms.iter().filter(|arm| !arm.runs.is_empty()) {
        if !now.arms.iter().any(|arm| arm.arm == before.arm && !arm.runs.is_empty()) {
            notes.push(format!("{} ran in the baseline and not now: it is not compared", names::title(before.arm)));
        }
    }
    if now.arms.iter().chain(&baseline.arms).any(|arm| (1..MINIMUM_PAIRS).contains(&arm.runs.len())) {
        notes.push(format!("an arm with fewer than {MINIMUM_PAIRS} runs is not judged"));
    }
    notes
}

fn or_none(version: Option<&String>) -> String {
    version.map_or_else(|| "none".into(), Clone::clone)
}

fn comparable(now: &Comparison, baseline: &Comparison) -> Result<(), Incomparable> {
    if baseline.format != now.format {
        return Err(Incomparable(format!(
            "it has format {}, this comparison has format {}",
            baseline.format, now.format
        )));
    }
    let (after, before) = (settings(&now.settings), settings(&baseline.settings));
    let differ: Vec<String> = before
        .into_iter()
        .zip(after)
        .filter(|((_, before), (_, after))| before != after)
        .map(|((name, before), (_, after))| format!("{name} is {before} there and {after} here"))
        .collect();
    if !differ.is_empty() {
        return Err(Incomparable(format!("its settings are others: {}", differ.join("; "))));
    }
    // An average of generated payloads, which another seed moves by a little.
    let (after, before) = (now.settings.payload, baseline.settings.payload);
    if (after - before).abs() > 0.01 * before.abs() {
        return Err(Incomparable(format!("its settings are others: payload is {before} bytes there and {after} here")));
    }
    Ok(())
}

/// What must be the same: all that changes what a timed run does. Pairs and seed change only how sure one can be.
fn settings(settings: &Settings) -> [(&'static str, String); 7] {
    [
        ("events", settings.events.to_string()),
        ("producers", settings.producers.to_string()),
        ("writers", settings.writers.to_string()),
        ("synchronous", settings.synchronous.clone()),
        ("codec", settings.codec.clone()),
        ("work", settings.work.clone()),
        ("batch", settings.batch.to_string()),
    ]
}

fn regression(
    now: &Comparison,
    baseline: &Comparison,
    (arm, before): (&ArmReport, &ArmReport),
    judged: &Judged,
) -> Option<String> {
    let floor = noise(&now.arms, judged.of, now.settings.seed)
        .max(noise(&baseline.arms, judged.of, baseline.settings.seed))
        .max(BETWEEN_SESSIONS);
    let new = interval(arm, judged, now.settings.seed)?;
    let old = interval(before, judged, baseline.settings.seed)?;
    let worse = if judged.more_is_better { new.median < old.median } else { new.median > old.median };
    if !worse || new.widened(floor).overlaps(old.widened(floor)) {
        return None;
    }
    let within = |interval: Interval| {
        let [median, low, high] = [interval.median, interval.low, interval.high].map(judged.shown);
        format!("{median} ({low} to {high})")
    };
    Some(format!(
        "{}: {} was {}, is {}, {}: the intervals do not meet even when each is widened by the noise floor of {:.1} %",
        names::title(arm.arm),
        judged.name,
        within(old),
        within(new),
        figures::change(new.median / old.median),
        (floor - 1.0) * 100.0,
    ))
}

fn interval(arm: &ArmReport, judged: &Judged, seed: u64) -> Option<Interval> {
    let samples = samples(arm.arm, &arm.runs, judged.of)?;
    (samples.len() >= MINIMUM_PAIRS).then(|| interval_of_median(&samples, seed))
}
