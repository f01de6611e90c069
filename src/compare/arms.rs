//! The arms: what they are called and what they promise.

use super::Arm;
use crate::config::{Mode, Synchronous};

/// All of them, in the order in which they are told.
pub const ALL: [Arm; 5] =
    [Arm::DirectPerEvent, Arm::DirectGrouped, Arm::CoreNats, Arm::Jetstream, Arm::JetstreamSyncAlways];

/// The name on the command line and in the report.
#[must_use]
pub fn name(arm: Arm) -> &'static str {
    match arm {
        Arm::DirectPerEvent => "direct-per-event",
        Arm::DirectGrouped => "direct-grouped",
        Arm::CoreNats => "core-nats",
        Arm::Jetstream => "jetstream",
        Arm::JetstreamSyncAlways => "jetstream-sync-always",
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

/// Whether events may be lost without anything having failed.
pub(super) fn may_lose(arm: Arm) -> bool {
    arm == Arm::CoreNats
}

pub(super) fn mode(arm: Arm) -> Mode {
    if arm == Arm::CoreNats { Mode::Core } else { Mode::Jetstream }
}

/// What an event that was reported kept survives.
pub(super) fn promise(arm: Arm, synchronous: Synchronous) -> String {
    let commit = match synchronous {
        Synchronous::Full => "survives a power cut",
        Synchronous::Normal => "survives a crash of the process; a power cut may take the last commits",
    };
    match arm {
        Arm::DirectPerEvent => format!("committed when record() returns: {commit}"),
        Arm::DirectGrouped => {
            format!("committed when the receipt says so: {commit}; until then a crash of the application loses it")
        }
        Arm::CoreNats => "nothing: at most once, lost where nobody listens or anything is in the way".into(),
        Arm::Jetstream => {
            "acknowledged by the stream: survives a crash of application, collector or broker; a power cut may take what \
             the broker has not synced yet, two minutes' worth by default"
                .into()
        }
        Arm::JetstreamSyncAlways => "acknowledged by the stream, which synced it first: survives a power cut".into(),
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
