//! A comparison against an earlier one with the same settings: what became worse by more than the noise of both.

use super::figures;
use super::names;
use super::overview::samples;
use crate::compare::statistics::{Interval, MINIMUM_SAMPLES, Metric, interval_of_median, metric, noise};
use crate::compare::{ArmReport, Comparison, FORMAT, Options, Settings};

/// Runs of two comparisons cannot be paired, and a machine changes more between two comparisons than during one. Differences
/// below this factor are not reported, however narrow the intervals are.
const BETWEEN_COMPARISONS: f64 = 1.02;

/// Why a comparison cannot be compared with the baseline.
#[derive(Debug, thiserror::Error)]
#[error("cannot compare with the baseline: {detail}; {remedy}")]
pub struct Incomparable {
    detail: String,
    remedy: &'static str,
}

const MEASURE_AGAIN: &str = "measure the baseline again";
const SAME_SETTINGS: &str = "measure both with the same settings";

impl Incomparable {
    pub(super) fn unreadable(error: &serde_json::Error) -> Self {
        let detail = format!("it is not the JSON of a comparison ({error})");
        Self { detail, remedy: "give the JSON of a catchment compare: --report FILE.json writes it" }
    }

    pub(super) fn format(format: u32) -> Self {
        let detail = format!("it has format {format}, but this catchment reads format {FORMAT}");
        Self { detail, remedy: MEASURE_AGAIN }
    }
}

struct JudgedMetric {
    name: &'static str,
    of: Metric,
    more_is_better: bool,
    shown: fn(f64) -> String,
}

const JUDGED: [JudgedMetric; 2] = [
    JudgedMetric { name: "throughput", of: metric::throughput, more_is_better: true, shown: figures::rate },
    JudgedMetric {
        name: "CPU of all processes for an event",
        of: metric::cpu_us_an_event,
        more_is_better: false,
        shown: figures::micros,
    },
];

/// What is worse than in the baseline, a line each; empty if nothing is. A figure is worse if the 95 % intervals of the two
/// medians do not overlap, each widened by the noise floor.
///
/// # Errors
///
/// [`Incomparable`] if the two measured different things.
pub fn regressions(now: &Comparison, baseline: &Comparison) -> Result<Vec<String>, Incomparable> {
    comparable(now, baseline)?;
    let of_arm = |arm: &ArmReport| {
        let before = baseline.arms.iter().find(|before| before.arm == arm.arm)?;
        Some(JUDGED.iter().filter_map(|judged| regression(now, baseline, (arm, before), judged)).collect::<Vec<_>>())
    };
    Ok(now.arms.iter().filter_map(of_arm).flatten().collect())
}

/// What to consider with [`regressions`]: another machine or program, arms that only the baseline has.
#[must_use]
pub fn notes(now: &Comparison, baseline: &Comparison) -> Vec<String> {
    let (here, there) = (&now.environment, &baseline.environment);
    let cores = |cores: usize| cores.to_string();
    let environments = [
        ("processor", there.processor.clone(), here.processor.clone()),
        ("cores", cores(there.cores), cores(here.cores)),
        ("kernel", there.kernel.clone(), here.kernel.clone()),
        ("file system", there.file_system.clone(), here.file_system.clone()),
        ("SQLite", there.sqlite.clone(), here.sqlite.clone()),
        ("nats-server", or_none(there.nats_server.as_ref()), or_none(here.nats_server.as_ref())),
    ];
    let differ = environments.into_iter().filter(|(_, before, after)| before != after);
    let mut notes: Vec<String> = differ
        .map(|(what, before, after)| format!("the {what} changed since the baseline: {before} then, {after} now"))
        .collect();
    if here.pragmas != there.pragmas {
        notes.push("the PRAGMAs changed since the baseline".into());
    }
    if here.broker != there.broker {
        notes.push("the settings of the broker changed since the baseline".into());
    }
    for before in baseline.arms.iter().filter(|arm| !arm.runs.is_empty()) {
        if !now.arms.iter().any(|arm| arm.arm == before.arm && !arm.runs.is_empty()) {
            notes.push(format!("{} ran in the baseline but not now, so it is not compared", names::title(before.arm)));
        }
    }
    if now.arms.iter().chain(&baseline.arms).any(|arm| (1..MINIMUM_SAMPLES).contains(&arm.runs.len())) {
        notes.push(format!(
            "arms with fewer than {MINIMUM_SAMPLES} runs in either comparison are not compared with the baseline"
        ));
    }
    notes
}

fn or_none(version: Option<&String>) -> String {
    version.map_or_else(|| "none".into(), Clone::clone)
}

/// Checks before anything is measured that a comparison with these options can be compared with the baseline.
///
/// # Errors
///
/// [`Incomparable`] if it could not: another format, other settings, no arm in common.
pub fn check_baseline(options: &Options, baseline: &Comparison) -> Result<(), Incomparable> {
    comparable_settings(&options.settings(), &baseline.settings)?;
    let common = |arm: &&ArmReport| options.arms.contains(&arm.arm) && !arm.runs.is_empty();
    let common: Vec<&ArmReport> = baseline.arms.iter().filter(common).collect();
    if common.is_empty() {
        let detail = "it has no runs of these arms".into();
        return Err(Incomparable { detail, remedy: "name an arm that it has with --arms" });
    }
    match common.into_iter().find(|arm| options.given_events(arm.arm).is_some_and(|events| events != arm.events)) {
        Some(arm) => Err(other_events(arm, options.given_events(arm.arm).unwrap_or(0))),
        None => Ok(()),
    }
}

fn other_events(before: &ArmReport, now: u64) -> Incomparable {
    let (there, here) = (figures::count(before.events), figures::count(now));
    let detail = format!("its runs of {} have {there} events, and these have {here}", names::title(before.arm));
    Incomparable { detail, remedy: "leave out --events: then each arm has the events of the baseline" }
}

fn comparable(now: &Comparison, baseline: &Comparison) -> Result<(), Incomparable> {
    if baseline.format != now.format {
        return Err(Incomparable {
            detail: format!("it has format {}, but this comparison has format {}", baseline.format, now.format),
            remedy: MEASURE_AGAIN,
        });
    }
    comparable_settings(&now.settings, &baseline.settings)?;
    for arm in now.arms.iter().filter(|arm| !arm.runs.is_empty()) {
        let before = baseline.arms.iter().find(|before| before.arm == arm.arm && !before.runs.is_empty());
        if let Some(before) = before.filter(|before| before.events != arm.events) {
            return Err(other_events(before, arm.events));
        }
    }
    Ok(())
}

fn comparable_settings(now: &Settings, before: &Settings) -> Result<(), Incomparable> {
    let differ: Vec<String> = settings(before)
        .into_iter()
        .zip(settings(now))
        .filter(|((_, before), (_, after))| before != after)
        .map(|((name, before), (_, after))| format!("{name} is {before} there and {after} here"))
        .collect();
    if !differ.is_empty() {
        let detail = format!("its settings differ: {}", differ.join(", "));
        return Err(Incomparable { detail, remedy: SAME_SETTINGS });
    }
    // The average size of generated payloads: another seed changes it a little.
    if (now.payload - before.payload).abs() > 0.01 * before.payload.abs() {
        let detail = format!("its settings differ: payload is {} bytes there and {} here", before.payload, now.payload);
        return Err(Incomparable { detail, remedy: SAME_SETTINGS });
    }
    Ok(())
}

/// The settings that must be the same: those that change what a timed run does. Pairs and seed change only the certainty. The
/// numbers of events are those of the arms.
fn settings(settings: &Settings) -> [(&'static str, String); 6] {
    [
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
    judged: &JudgedMetric,
) -> Option<String> {
    let floor = noise(&now.arms, judged.of, now.settings.seed)
        .max(noise(&baseline.arms, judged.of, baseline.settings.seed))
        .max(BETWEEN_COMPARISONS);
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
        "{}: {} was {} and is {}, {}; the intervals do not overlap, even if each is widened by the noise floor of {:.1} %",
        names::title(arm.arm),
        judged.name,
        within(old),
        within(new),
        figures::Form::of([new.median / old.median]).change(new.median / old.median),
        (floor - 1.0) * 100.0,
    ))
}

fn interval(arm: &ArmReport, judged: &JudgedMetric, seed: u64) -> Option<Interval> {
    let samples = samples(arm.arm, &arm.runs, judged.of)?;
    (samples.len() >= MINIMUM_SAMPLES).then(|| interval_of_median(&samples, seed))
}
