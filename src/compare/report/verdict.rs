//! When to stay direct and when to go through NATS on this machine: sentences with the figures of the comparison.
//!
//! Figures of several runs differ only if the interval shows it. Figures of single runs have no interval and must differ by the
//! factor [`CLEAR`]. Figures without a difference, and what was not measured, go to the caveats.

use super::figures;
use super::names::{self, capital, listed, phrase};
use super::overview::{against, idle_percent, median, that_ran};
use super::variations;
use crate::compare::statistics::{Compared, Finding, MINIMUM_SAMPLES, metric};
use crate::compare::{Arm, ArmReport, Comparison, Isolation, Outage, Quantiles, Verdict};

/// The least factor between the figures of two single runs that counts as a difference.
const CLEAR: f64 = 1.5;

/// The verdict of a comparison.
#[must_use]
pub fn verdict(comparison: &Comparison) -> Verdict {
    let mut verdict = Verdict { headline: headline(comparison), ..Verdict::default() };
    speed(comparison, &mut verdict);
    latency(comparison, &mut verdict);
    waiting(comparison, &mut verdict);
    stalls(comparison, &mut verdict);
    isolations(comparison, &mut verdict);
    outages(comparison, &mut verdict);
    idle(comparison, &mut verdict);
    caveats(comparison, &mut verdict);
    verdict
}

fn headline(comparison: &Comparison) -> String {
    let ran = that_ran(comparison);
    let fastest = |of_kind: fn(Arm) -> bool| {
        let of_kind = ran.iter().filter(|arm| of_kind(arm.arm));
        let rated = of_kind.filter_map(|arm| Some((*arm, median(arm, metric::throughput)?)));
        rated.max_by(|(_, one), (_, other)| one.total_cmp(other))
    };
    let Some((direct, direct_rate)) = fastest(|arm| !metric::through_nats(arm)) else {
        return "No direct arm was measured, so direct and NATS cannot be compared.".into();
    };
    // Core NATS may lose events, so it stands for NATS only if no other such arm ran.
    let keeps = |arm| metric::through_nats(arm) && arm != Arm::CoreNats;
    let Some((nats, nats_rate)) = fastest(keeps).or_else(|| fastest(metric::through_nats)) else {
        return "No arm through NATS was measured, so direct and NATS cannot be compared.".into();
    };
    let Some(speed) = against(comparison, nats, direct, metric::throughput) else {
        return "No two runs could be paired, so direct and NATS cannot be compared.".into();
    };
    let (by, through) = (phrase(direct.arm), phrase(nats.arm));
    let (direct_rate, nats_rate) = (figures::rate(direct_rate), figures::rate(nats_rate));
    let cpu = match (median(direct, metric::cpu_us_an_event), median(nats, metric::cpu_us_an_event)) {
        (Some(direct), Some(nats)) => format!(
            ". An event costs {} of CPU directly and {} through NATS, including the broker",
            figures::micros(direct),
            figures::micros(nats)
        ),
        _ => String::new(),
    };
    match speed.finding {
        Finding::Lower => format!(
            "For speed, stay direct: {by} stored {direct_rate} here, and {through} stored {nats_rate}{cpu}. Use NATS if you need \
             its other advantages."
        ),
        Finding::Higher => {
            format!("NATS was faster here: {through} stored {nats_rate}, and {by} stored {direct_rate}{cpu}.")
        }
        Finding::TooFewPairs => format!(
            "Too few runs to decide ({} of each arm; {MINIMUM_SAMPLES} are needed): {by} stored {direct_rate} here, and {through} \
             stored {nats_rate}{cpu}.",
            speed.ratio.samples
        ),
        Finding::NoDifferenceShown => format!(
            "Speed does not decide here: no difference is shown between {by} ({direct_rate}) and {through} ({nats_rate}){cpu}."
        ),
    }
}

/// Throughput and CPU: each arm through NATS against each direct arm.
fn speed(comparison: &Comparison, verdict: &mut Verdict) {
    let ran = that_ran(comparison);
    let (mut through_nats, direct): (Vec<_>, Vec<_>) = ran.into_iter().partition(|arm| metric::through_nats(arm.arm));
    // Core NATS may lose events, so it comes last: a summary takes the first sentence.
    through_nats.sort_by_key(|arm| arm.arm == Arm::CoreNats);
    for nats in through_nats {
        for direct in &direct {
            let Some(speed) = against(comparison, nats, direct, metric::throughput) else { continue };
            let sentence = speed_of(comparison, nats, direct, &speed);
            match speed.finding {
                Finding::Lower => verdict.direct_when.push(sentence),
                Finding::Higher => verdict.nats_when.push(sentence),
                Finding::NoDifferenceShown | Finding::TooFewPairs => verdict.caveats.push(sentence),
            }
        }
    }
}

fn speed_of(comparison: &Comparison, nats: &ArmReport, direct: &ArmReport, speed: &Compared) -> String {
    let rate = |arm| median(arm, metric::throughput).map_or_else(|| "–".into(), figures::amount);
    let outcome = match speed.finding {
        Finding::NoDifferenceShown | Finding::TooFewPairs => "",
        Finding::Higher => " is faster",
        Finding::Lower => " is slower",
    };
    let cpu = match against(comparison, nats, direct, metric::cpu_us_an_event) {
        Some(cpu) => {
            let of = |arm| median(arm, metric::cpu_us_an_event).map_or_else(|| "–".into(), figures::micros);
            format!(
                " CPU of all processes for an event: {} against {}, {}.",
                of(nats),
                of(direct),
                figures::finding(&cpu)
            )
        }
        None => " The CPU of all processes was not measured for both.".into(),
    };
    format!(
        "{}{outcome}{} {}: {} against {} events/s, {}.{cpu}",
        capital(phrase(nats.arm)),
        if outcome.is_empty() { " against" } else { " than" },
        phrase(direct.arm),
        rate(nats),
        rate(direct),
        figures::finding(speed),
    )
}

/// A figure with a single run for each arm; less is better.
struct SingleRun {
    opening: String,
    of: Vec<(Arm, f64)>,
    shown: fn(f64) -> String,
    ending: String,
}

impl SingleRun {
    fn add_to(self, verdict: &mut Verdict) {
        let least = |through_nats: bool| {
            let of_kind = self.of.iter().filter(|(arm, _)| metric::through_nats(*arm) == through_nats);
            of_kind.map(|(_, figure)| *figure).min_by(f64::total_cmp)
        };
        let (Some(direct), Some(nats)) = (least(false), least(true)) else { return };
        let each = |(arm, figure): &(Arm, f64)| format!("{} {}", phrase(*arm), (self.shown)(*figure));
        let figures = listed(&self.of.iter().map(each).collect::<Vec<_>>());
        let sentence = format!("{}: {figures}{}", self.opening, self.ending);
        if nats * CLEAR < direct {
            verdict.nats_when.push(format!("{sentence}. (One run of each arm.)"));
        } else if direct * CLEAR < nats {
            verdict.direct_when.push(format!("{sentence}. (One run of each arm.)"));
        } else {
            verdict.caveats.push(format!(
                "{sentence}. (One run of each arm. The best of both sides differ by less than a factor of {CLEAR}, which decides nothing.)"
            ));
        }
    }
}

/// The quantiles of the latency runs at the rate of the settings; runs at other rates cannot be compared with them.
fn at_the_rate(comparison: &Comparison, which: fn(&crate::compare::LatencyRun) -> Quantiles) -> Vec<(Arm, Quantiles)> {
    let rate = comparison.settings.rate;
    let of_arm = |arm: &ArmReport| arm.latency.as_ref().filter(|run| run.rate == rate).map(|run| (arm.arm, which(run)));
    comparison.arms.iter().filter_map(of_arm).filter(|(_, quantiles)| quantiles.max > 0.0).collect()
}

fn latency(comparison: &Comparison, verdict: &mut Verdict) {
    let runs = at_the_rate(comparison, |run| run.commit_us);
    let medians: Vec<String> =
        runs.iter().map(|(arm, us)| format!("{} {}", phrase(*arm), figures::micros(us.p50))).collect();
    SingleRun {
        opening: format!(
            "At {} events/s, 99 of 100 events were in the database within",
            figures::count(comparison.settings.rate)
        ),
        of: runs.iter().map(|(arm, us)| (*arm, us.p99)).collect(),
        shown: figures::micros,
        ending: format!(" (half of them within: {})", listed(&medians)),
    }
    .add_to(verdict);
}

fn waiting(comparison: &Comparison, verdict: &mut Verdict) {
    let runs = at_the_rate(comparison, |run| run.record_us);
    SingleRun {
        opening: "99 of 100 calls of record() took no longer than".into(),
        of: runs.iter().map(|(arm, us)| (*arm, us.p99)).collect(),
        shown: figures::micros,
        ending: String::new(),
    }
    .add_to(verdict);
}

fn stalls(comparison: &Comparison, verdict: &mut Verdict) {
    let Some(first) = comparison.stalls.first() else {
        verdict.caveats.push("How a locked database affects the caller was not measured.".into());
        return;
    };
    let missing = comparison.stalls.iter().filter(|stall| stall.missing > 0);
    let missing: Vec<String> =
        missing.map(|stall| format!("{} {}", phrase(stall.arm), figures::counted(stall.missing, "event"))).collect();
    let ending = match missing.as_slice() {
        [] => "; no event was missing afterwards".into(),
        some => format!("; missing afterwards: {}", listed(some)),
    };
    SingleRun {
        opening: format!(
            "While the database was locked for {}, the longest call of record() took",
            figures::seconds(first.held_s)
        ),
        of: comparison.stalls.iter().map(|stall| (stall.arm, stall.record_us.max)).collect(),
        shown: figures::micros,
        ending,
    }
    .add_to(verdict);
}

fn isolations(comparison: &Comparison, verdict: &mut Verdict) {
    if comparison.isolations.is_empty() {
        verdict.caveats.push("What happens to events while the database side is dead was not measured.".into());
    }
    for isolation in &comparison.isolations {
        let kept = isolation.committed >= isolation.events && isolation.handed_over > 0;
        let sentence = isolation_of(isolation);
        if metric::through_nats(isolation.arm) && kept {
            verdict.nats_when.push(sentence);
        } else {
            verdict.caveats.push(sentence);
        }
    }
}

fn isolation_of(isolation: &Isolation) -> String {
    let recorded = match isolation.handed_over {
        0 => "no event could be recorded meanwhile".into(),
        some => format!("the application recorded {} meanwhile", figures::counted(some, "event")),
    };
    let lost = isolation.events.saturating_sub(isolation.committed);
    let end = if lost == 0 {
        format!("at the end all {} were in the database", figures::count(isolation.events))
    } else {
        format!(
            "at the end {} of {} were missing in the database",
            figures::count(lost),
            figures::count(isolation.events)
        )
    };
    let live = isolation.seen_live.map_or_else(String::new, |seen| {
        format!("; another subscriber received {} of {} live", figures::count(seen), figures::count(isolation.events))
    });
    format!(
        "The database side was dead for {} ({}): {recorded}, and {end}{live}. The application {}.",
        figures::seconds(isolation.away_s),
        phrase(isolation.arm),
        isolation.application.trim_end_matches('.'),
    )
}

/// An outage is a risk that only the arms with a broker have, so it speaks for none of them.
fn outages(comparison: &Comparison, verdict: &mut Verdict) {
    let with_broker: Vec<&Outage> = comparison.outages.iter().filter(|outage| outage.has_broker).collect();
    if with_broker.is_empty() && that_ran(comparison).iter().any(|arm| metric::through_nats(arm.arm)) {
        verdict.caveats.push("What happens to events while the broker is away was not measured.".into());
    }
    verdict.caveats.extend(with_broker.into_iter().map(outage_of));
}

fn outage_of(outage: &Outage) -> String {
    let in_memory = match outage.unsettled {
        0 => "every event had its receipt when the broker was back".into(),
        some => format!(
            "{} {} only in the application's memory when the broker was back",
            figures::counted(some, "event"),
            if some == 1 { "was" } else { "were" }
        ),
    };
    let end = if outage.missing == 0 {
        format!("all {} were in the database", figures::count(outage.events))
    } else {
        format!(
            "the last row was in the database, and {} of {} were missing",
            figures::count(outage.missing),
            figures::count(outage.events)
        )
    };
    format!(
        "The broker was away for {} ({}): the longest call of record() took {}, {in_memory}, and {} after its return {end}.",
        figures::seconds(outage.away_s),
        phrase(outage.arm),
        figures::micros(outage.record_us.max),
        figures::seconds(outage.recovery_s),
    )
}

fn idle(comparison: &Comparison, verdict: &mut Verdict) {
    SingleRun {
        opening: "CPU of all processes while no event comes, of one core".into(),
        of: comparison.arms.iter().filter_map(|arm| Some((arm.arm, idle_percent(arm)?))).collect(),
        shown: figures::percent,
        ending: String::new(),
    }
    .add_to(verdict);
}

fn caveats(comparison: &Comparison, verdict: &mut Verdict) {
    let caveats = &mut verdict.caveats;
    let promises = that_ran(comparison).into_iter().filter(|arm| !arm.promise.is_empty());
    let promises: Vec<String> =
        promises.map(|arm| format!("{}: {}", names::title(arm.arm), arm.promise.trim_end_matches('.'))).collect();
    if !promises.is_empty() {
        caveats.push(format!("The arms have different promises. {}.", promises.join("; ")));
    }
    for arm in that_ran(comparison) {
        let events: u64 = arm.runs.iter().map(|run| run.events).sum();
        let committed: u64 = arm.runs.iter().map(|run| run.committed).sum();
        if committed < events {
            caveats.push(format!(
                "{} lost {} of {} in the timed runs; its throughput counts only stored events.",
                capital(phrase(arm.arm)),
                figures::count(events - committed),
                figures::counted(events, "event"),
            ));
        }
        if metric::through_nats(arm.arm) && median(arm, metric::cpu_s).is_none() {
            caveats.push(format!(
                "The CPU of a process of {} was not measured, so there is no sum for that arm.",
                phrase(arm.arm)
            ));
        }
    }
    caveats.push(noise_of(comparison));
    caveats.extend(variations::disagreement(comparison));
    caveats.extend(short_runs(comparison));
    caveats.extend(pairs_of(comparison));
    caveats
        .extend(comparison.settings.cut_short.iter().map(|why| format!("Fewer runs were made than requested: {why}.")));
    for arm in comparison.arms.iter().filter(|arm| arm.runs.is_empty()) {
        let why = arm.skipped.as_deref().unwrap_or("the reason was not recorded");
        caveats.push(format!("{} was not run: {}.", capital(phrase(arm.arm)), why.trim_end_matches('.')));
    }
    caveats.extend(comparison.not_measured.iter().map(|what| format!("Not measured: {}.", what.trim_end_matches('.'))));
    if that_ran(comparison).iter().any(|arm| metric::through_nats(arm.arm)) {
        caveats.push(format!(
            "Application, collector and broker shared one machine with {}. On separate machines they do not share it, and the \
             network adds time.",
            figures::counted(comparison.environment.cores as u64, "core"),
        ));
    }
}

fn noise_of(comparison: &Comparison) -> String {
    let floors: Vec<_> = comparison.ratios.iter().filter(|ratio| ratio.noise_floor).collect();
    if floors.is_empty() {
        return "No arm ran against itself, so the noise floor is unknown, and noise of the machine may cause differences."
            .into();
    }
    let each = floors.iter().map(|ratio| {
        let far = ratio.high.max(1.0 / ratio.low).max(1.0);
        let outside = if ratio.pairs < MINIMUM_SAMPLES {
            " (the range of few pairs)"
        } else if ratio.low > 1.0 || ratio.high < 1.0 {
            " (this interval excludes 1: the machine was not quiet)"
        } else {
            ""
        };
        format!("{} by up to {:.1} %{outside}", names::metric(&ratio.of), (far - 1.0) * 100.0)
    });
    format!(
        "Two series of the same arm differ in {}. Smaller differences are not reported.",
        listed(&each.collect::<Vec<_>>())
    )
}

/// A timed run shorter than this has a large part of starting and ending.
const SHORT: f64 = 1.0;

fn short_runs(comparison: &Comparison) -> Option<String> {
    let short = that_ran(comparison).into_iter().filter_map(|arm| {
        let shortest = arm.runs.iter().chain(&arm.again).map(|run| run.total_s).min_by(f64::total_cmp)?;
        (shortest < SHORT).then(|| format!("{} {}", phrase(arm.arm), figures::seconds(shortest)))
    });
    let short: Vec<String> = short.collect();
    (!short.is_empty()).then(|| {
        format!(
            "In runs shorter than a second, starting and ending are a large part of the figures. The shortest run took: {}.",
            listed(&short)
        )
    })
}

fn pairs_of(comparison: &Comparison) -> Option<String> {
    let pairs = that_ran(comparison).iter().map(|arm| arm.runs.len()).min()?;
    let found = figures::counted(pairs as u64, "run");
    (pairs < MINIMUM_SAMPLES).then(|| {
        format!("With {found} of an arm nothing is concluded: that needs {MINIMUM_SAMPLES}. Ranges are shown.")
    })
}
