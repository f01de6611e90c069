//! Names of arms in a report, and helpers for sentences.

use super::figures::count;
use crate::compare::Arm;
pub use crate::compare::arms::title;

/// The arm in a sentence.
pub fn phrase(arm: Arm) -> &'static str {
    match arm {
        Arm::DirectPerEvent => "committing one by one",
        Arm::DirectGrouped => "committing in groups",
        Arm::CoreNats => "core NATS",
        Arm::Jetstream => "JetStream",
        Arm::JetstreamSyncAlways => "JetStream with sync always",
        Arm::Spooled => "a spool",
    }
}

/// What a ratio of a comparison is of.
pub fn metric(key: &str) -> &str {
    match key {
        "throughput" => "throughput",
        "cpu_us_an_event" => "CPU an event",
        key => key,
    }
}

/// A setting that an axis varies.
pub fn setting(key: &str) -> &str {
    match key {
        "producers" => "Producer threads",
        "writers" => "Writer threads",
        "batch" => "Most events of a transaction",
        "codec" => "Encoding",
        "connections" => "Connections",
        "partitions" => "Partitions, each with a collector",
        key => key,
    }
}

/// A value of such a setting.
pub fn value(value: &str) -> String {
    match value {
        "json" => "JSON".into(),
        "messagepack" => "MessagePack".into(),
        value => value.parse().map_or_else(|_| value.into(), count),
    }
}

/// What the database does for each event.
pub fn work(key: &str) -> &str {
    match key {
        "insert" => "insert a row",
        "insert+stats" => "insert a row and count it by subject",
        "insert+stats+prune" => "insert a row, count it by subject, and keep a log of the latest thousand",
        key => key,
    }
}

/// The text with a capital letter first.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// `a`, `a and b`, `a, b and c`.
pub fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [some @ .., last] => format!("{} and {last}", some.join(", ")),
    }
}
