//! Names of arms in a report, and helpers for sentences.

use crate::compare::Arm;

/// The arm as the title of a column.
pub fn title(arm: Arm) -> &'static str {
    match arm {
        Arm::DirectPerEvent => "direct, per event",
        Arm::DirectGrouped => "direct, grouped",
        Arm::CoreNats => "core NATS",
        Arm::Jetstream => "JetStream",
        Arm::JetstreamSyncAlways => "JetStream, sync always",
    }
}

/// The arm in a sentence.
pub fn phrase(arm: Arm) -> &'static str {
    match arm {
        Arm::DirectPerEvent => "committing one by one",
        Arm::DirectGrouped => "committing in groups",
        Arm::CoreNats => "core NATS",
        Arm::Jetstream => "JetStream",
        Arm::JetstreamSyncAlways => "JetStream with sync always",
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
