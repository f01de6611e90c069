//! What arms and roles are called.

use crate::compare::Arm;

/// Over a column.
pub fn title(arm: Arm) -> &'static str {
    match arm {
        Arm::DirectPerEvent => "direct, per event",
        Arm::DirectGrouped => "direct, grouped",
        Arm::CoreNats => "core NATS",
        Arm::Jetstream => "JetStream",
        Arm::JetstreamSyncAlways => "JetStream, sync always",
    }
}

/// Within a sentence, as what was done.
pub fn phrase(arm: Arm) -> &'static str {
    match arm {
        Arm::DirectPerEvent => "committing one by one",
        Arm::DirectGrouped => "committing in groups",
        Arm::CoreNats => "core NATS",
        Arm::Jetstream => "JetStream",
        Arm::JetstreamSyncAlways => "JetStream that syncs always",
    }
}

/// A sentence that begins with a phrase.
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
