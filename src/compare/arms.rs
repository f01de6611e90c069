//! The arms: their names and their promises.

use super::Arm;
use crate::config::{Mode, Synchronous};

/// All arms, in the order of a report.
pub const ALL: [Arm; 6] =
    [Arm::DirectPerEvent, Arm::DirectGrouped, Arm::CoreNats, Arm::Jetstream, Arm::JetstreamSyncAlways, Arm::Spooled];

/// The name on the command line and in the report.
#[must_use]
pub fn name(arm: Arm) -> &'static str {
    match arm {
        Arm::DirectPerEvent => "direct-per-event",
        Arm::DirectGrouped => "direct-grouped",
        Arm::CoreNats => "core-nats",
        Arm::Jetstream => "jetstream",
        Arm::JetstreamSyncAlways => "jetstream-sync-always",
        Arm::Spooled => "spooled",
    }
}

/// The arm in words, as the title of a column.
#[must_use]
pub fn title(arm: Arm) -> &'static str {
    match arm {
        Arm::DirectPerEvent => "direct, per event",
        Arm::DirectGrouped => "direct, grouped",
        Arm::CoreNats => "core NATS",
        Arm::Jetstream => "JetStream",
        Arm::JetstreamSyncAlways => "JetStream, sync always",
        Arm::Spooled => "spooled",
    }
}

/// The arm of this name.
#[must_use]
pub fn named(wanted: &str) -> Option<Arm> {
    ALL.into_iter().find(|&arm| name(arm) == wanted)
}

/// Whether the application writes the database itself.
pub(super) fn is_direct(arm: Arm) -> bool {
    matches!(arm, Arm::DirectPerEvent | Arm::DirectGrouped)
}

/// Whether events may be lost although nothing failed.
pub(super) fn may_lose(arm: Arm) -> bool {
    arm == Arm::CoreNats
}

pub(super) fn mode(arm: Arm) -> Mode {
    if arm == Arm::CoreNats { Mode::Core } else { Mode::Jetstream }
}

/// What a recorded event survives.
pub(super) fn promise(arm: Arm, synchronous: Synchronous) -> String {
    let commit = match synchronous {
        Synchronous::Full => "survives a power cut",
        Synchronous::Normal => "survives a crash of the process; a power cut may take the last commits",
    };
    match arm {
        Arm::DirectPerEvent => format!("committed when record() returns: {commit}"),
        Arm::DirectGrouped => {
            format!("committed when the receipt resolves: {commit}; until then a crash of the application loses it")
        }
        Arm::CoreNats => "nothing: at most once; an event is lost when no collector receives it or there is no room for it".into(),
        Arm::Jetstream => {
            "acknowledged by the stream: survives a crash of application, collector or broker; a power cut may take the \
             events that the broker has not synced yet, by default those of the last two minutes"
                .into()
        }
        Arm::JetstreamSyncAlways => "acknowledged by the stream after a sync to disk: survives a power cut".into(),
        Arm::Spooled => {
            "kept in the spool when the receipt resolves: survives a power cut, and an outage of the broker of any length; until then a \
             crash of the application loses it"
                .into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_report() {
        for arm in ALL {
            assert_eq!(serde_json::to_value(arm).expect("JSON"), name(arm));
            assert_eq!(named(name(arm)), Some(arm));
        }
        assert_eq!(named("direct"), None);
    }
}
