//! What a report says in whole sentences beside its tables.

use super::figures;
use super::names::phrase;
use super::overview::{median, that_ran};
use crate::compare::statistics::{RESAMPLES, metric};
use crate::compare::{ArmReport, Comparison};

/// The rows of the study that this comparison goes back to, and what stands in their place.
pub const COUNTERPARTS: [(&str, &str, &str); 9] = [
    ("total time", "Total time", "until the last commit was seen in the database, not until publishing ended"),
    ("throughput", "Throughput", "events that stood in the database, divided by that same time"),
    ("function calls", "Instructions", "the work itself, without a tracer that slows what it counts"),
    ("event-loop iterations", "Voluntary switches", "a thread that had to wait, as the loop did"),
    ("context runs", "Involuntary switches", "a thread that could have gone on and was put off"),
    ("I/O polls", "System calls", "each time the kernel was asked for something, polls included"),
    ("top three hotspots", "Hotspots", "sampled in a run of its own, so that the timed runs pay nothing for it"),
    ("share of NATS-specific work", "Shares of samples", "by what the stack was doing"),
    ("CPU percent", "CPU seconds, CPU percent and idle CPU", "three lines, for they answer three questions"),
];

/// How it was measured.
pub fn method(comparison: &Comparison) -> Vec<String> {
    let settings = &comparison.settings;
    vec![
        format!(
            "Every arm does the same work for each event ({}), into a SQLite file with synchronous = {}. The database is a file, \
             so everyone pays for durability.",
            settings.work, settings.synchronous
        ),
        "A run lasts from the first event handed over to the last commit seen in the database. There is no fixed wait in it. Rows \
         are counted afterwards: a run that stored fewer events than were handed over is an error, except in core NATS, where what \
         was lost is reported."
            .into(),
        format!(
            "Arms take turns, {} of each, in an order drawn anew for every round from a seed, so that what disturbs the machine \
             disturbs all of them. CPU seconds are those of all processes, the broker among them; idle CPU is measured by itself.",
            figures::counted(settings.pairs as u64, "run")
        ),
        format!(
            "A difference is the median of the ratios of runs of the same round, with the 95 % percentile interval of {} bootstrap \
             resamples. The first arm is also run against itself: how far that interval reaches from 1 is the noise floor, and \
             intervals are widened by it before a difference is called one. \"No difference shown\" is a result.",
            figures::count(RESAMPLES as u64)
        ),
        format!(
            "Latency is measured in runs of their own at {} events/s. Each event's time counts from when it was due, so one that is \
             late delays no other's clock. Such runs are made once, and their figures have no interval.",
            figures::count(settings.rate)
        ),
    ]
}

/// Why percent and seconds disagree, with this comparison's own example if it has one.
pub fn cpu(comparison: &Comparison) -> Vec<String> {
    let mut said = vec![cpu_sentence().to_string()];
    said.extend(example(comparison));
    said.push(
        "Idle CPU is a third thing: connections and their monitoring cost it for as long as a process lives, whether or not \
         events come. Charged to a busy run it hides; measured over a quiet window as percent it makes the side with more \
         connections look costly. It is therefore on a line of its own."
            .into(),
    );
    said
}

/// The short form, for a terminal.
pub fn cpu_sentence() -> &'static str {
    "CPU percent is CPU seconds divided by total time, so the same work done in half the time shows twice the percent: percent \
     says how busy the machine was, seconds say what the events cost."
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
                    "Here {} shows {} against {} of {}, and yet an event costs {} of CPU against {}.",
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

/// What the profile says of NATS-specific work.
pub fn nats_share(comparison: &Comparison) -> Vec<String> {
    let of_nats = comparison.hotspots.iter().filter(|hotspots| metric::through_nats(hotspots.arm));
    of_nats
        .filter_map(|hotspots| {
            let nats = hotspots.shares.get("nats")?;
            let json = hotspots.shares.get("json").map_or_else(String::new, |share| {
                format!(", encoding and decoding {}", figures::percent(share * 100.0))
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
