//! The paragraphs of a report.

use super::figures;
use super::names::{self, phrase};
use super::overview::{median, that_ran};
use super::tables;
use crate::compare::statistics::{MINIMUM_SAMPLES, RESAMPLES, metric};
use crate::compare::{ArmReport, Comparison};

/// The rows of an earlier study, their counterparts here, and what these show.
pub const COUNTERPARTS: [(&str, &str, &str); 9] = [
    (
        "total time",
        "Total time for 10,000 events",
        "the time until the last commit is seen in the database, not until publishing ends; runs differ in length",
    ),
    ("throughput", "Throughput", "events in the database, divided by the time of the run"),
    ("function calls", "Instructions", "the work itself, without a tracer that slows the program"),
    ("event-loop iterations", "Voluntary switches", "a thread had to wait, as the event loop had to"),
    ("context runs", "Involuntary switches", "a thread could run, but another one got the processor"),
    ("I/O polls", "System calls", "every call of the kernel, polls included"),
    ("top three hotspots", "Hotspots", "sampled in a run of its own, so that sampling does not slow the timed runs"),
    ("share of NATS-specific work", "Shares of samples", "what the thread was doing in each sample"),
    ("CPU percent", "CPU seconds, CPU percent and idle CPU", "three rows, because they answer three questions"),
];

/// How it was measured.
pub fn method(comparison: &Comparison) -> Vec<String> {
    let settings = &comparison.settings;
    vec![
        format!(
            "Every arm does the same work for each event ({}) in a SQLite file with synchronous = {}. The file is on a disk, so \
             every arm pays for durability.",
            names::work(&settings.work),
            settings.synchronous
        ),
        "A run lasts from the first recorded event to the last commit seen in the database. It has no fixed wait. The rows are \
         counted afterwards. A run that stored fewer events than were recorded is an error; core NATS may lose events, and the \
         report counts them."
            .into(),
        length(comparison),
        format!(
            "The arms take turns, {} of each. Every round has a new random order (from the seed), so a disturbance of the machine \
             affects all arms. CPU seconds are those of all processes, including the broker. Idle CPU is measured separately.",
            figures::counted(settings.pairs as u64, "run")
        ),
        format!(
            "A difference is the median of the ratios of two runs of the same round, with the 95 % percentile interval of {} \
             bootstrap resamples. The first arm also runs against itself. The noise floor is how far that interval reaches from 1. \
             All other intervals of differences are shown widened by it, and a difference is reported only if the interval excludes \
             1. \"No difference shown\" is a result. With fewer than {MINIMUM_SAMPLES} runs there is no 95 % interval: the range of \
             the runs is shown, and nothing is concluded from it.",
            figures::count(RESAMPLES as u64)
        ),
        format!(
            "Latency is measured in separate runs at {} events/s. Each event's time counts from when it was due, so a late event \
             does not hide the delay of the next ones. There is one such run of each arm, so its figures have no interval.",
            figures::count(settings.rate)
        ),
    ]
}

/// How long the runs were, and why.
fn length(comparison: &Comparison) -> String {
    let arms: Vec<String> = that_ran(comparison)
        .iter()
        .map(|arm| format!("{} for {}", figures::count(arm.events), phrase(arm.arm)))
        .collect();
    let settings = &comparison.settings;
    let what = match settings.events {
        Some(_) => "The number of events of a run was given".to_string(),
        None => format!(
            "Trial runs chose the number of events of each arm, so that a run takes at least {}: in a shorter one, starting and \
             ending would be a large part of it",
            figures::seconds(settings.run_for_s)
        ),
    };
    format!(
        "{what}. It is {}. So rates and costs of an event are compared, never the times of whole runs.",
        names::listed(&arms)
    )
}

/// About the runs of different lengths.
pub fn costs() -> &'static str {
    "Here all arms have the same numbers of events. Time and CPU of the whole run, starting and ending included, are divided by them. \
     The medians have the range of their runs in brackets; a figure without one comes from one run, because it took long. Where \
     the cost of an event stays the same from one line to the next, it no longer depends on the number of events."
}

/// About the outages.
pub fn outages() -> &'static str {
    "The broker was killed while events came at a fixed rate, and was started again later with its streams. The last event was due when \
     it was back. The direct arms have no broker: their runs took the same time and show what it costs without one. \"Only in memory\" \
     are the events whose receipts were not resolved when the broker was back: if the application had crashed then, they would have \
     been lost. With core NATS an event is lost too if no collector is connected when it is sent. There is one such run of \
     each arm, so its figures have no interval."
}

/// About the axes.
pub fn axes() -> &'static str {
    "Each round has one run with the arm's own settings and one for every other value, so that all values are compared with the \
     same runs. Differences are medians of the ratios of runs of the same round."
}

/// Why percent and seconds disagree, with an example from this comparison if it has one.
pub fn cpu(comparison: &Comparison) -> Vec<String> {
    let mut paragraphs = vec![cpu_sentence().to_string()];
    paragraphs.extend(example(comparison));
    paragraphs.push(
        "Idle CPU is a third figure. Connections and their monitoring use it as long as a process runs, with or without events. \
         In a busy run it is too small to be seen. As a percentage of a quiet period it makes the side with more connections \
         look expensive. So it has a row of its own."
            .into(),
    );
    paragraphs
}

/// The short form, for a terminal.
pub fn cpu_sentence() -> &'static str {
    "CPU percent is CPU seconds divided by total time. The same work in half the time shows twice the percentage. So the \
     percentage shows how busy the machine was, and the seconds show what the events cost."
}

/// Two arms of which one has the higher percent and the other the higher cost.
fn example(comparison: &Comparison) -> Option<String> {
    let ran = that_ran(comparison);
    let both = |arm: &&&ArmReport| median(arm, metric::cpu_percent).zip(median(arm, metric::cpu_us_an_event));
    for one in &ran {
        for other in &ran {
            let ((percent, cost), (other_percent, other_cost)) = both(&one).zip(both(&other))?;
            if percent > other_percent * 1.1 && cost * 1.1 < other_cost {
                return Some(format!(
                    "Here {} uses {} of CPU and {} uses {}, but an event costs {} of CPU time with the first and {} with the second.",
                    phrase(one.arm),
                    figures::percent(percent),
                    figures::percent(other_percent),
                    phrase(other.arm),
                    figures::micros(cost),
                    figures::micros(other_cost),
                ));
            }
        }
    }
    None
}

/// The share of NATS-specific work in the profiles.
pub fn nats_share(comparison: &Comparison) -> Vec<String> {
    let through_nats = tables::profiles(comparison).filter(|hotspots| metric::through_nats(hotspots.arm));
    through_nats
        .filter_map(|hotspots| {
            let nats = hotspots.shares.get("nats")?;
            let json = hotspots.shares.get("json").map_or_else(String::new, |share| {
                format!(" and {} in encoding and decoding", figures::percent(share * 100.0))
            });
            Some(format!(
                "In {}, the {} spends {} of its samples in the NATS client{json}.",
                phrase(hotspots.arm),
                hotspots.role,
                figures::percent(nats * 100.0)
            ))
        })
        .collect()
}
