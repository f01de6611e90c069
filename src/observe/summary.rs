//! How a collector is, in one sentence.

use super::snapshot::{Snapshot, State, Trouble};
use crate::counted;
use crate::counted::count;

/// The sentence for a snapshot.
pub(super) fn of(snapshot: &Snapshot) -> String {
    let what = what(snapshot);
    match (snapshot.state, snapshot.reasons.first().or(snapshot.troubles.first())) {
        (State::Starting, _) => format!("Starting to collect {what}."),
        (State::Stopping, _) => format!("Stopping: no more events of {what} are received."),
        (State::Failed, Some(reason)) => format!("Not ready: collecting {what} fails. {}", shown(reason)),
        (State::Degraded, Some(reason)) => format!("Collecting {what}, with trouble. {}", shown(reason)),
        _ => format!("Collecting {what}. {}", progress(snapshot)),
    }
}

fn what(snapshot: &Snapshot) -> String {
    let source = &snapshot.source;
    let from = source.shown().unwrap_or_else(|| "from core NATS".into());
    format!("{from} into {}", snapshot.database.path)
}

fn shown(trouble: &Trouble) -> String {
    let part = &trouble.part;
    let name = part.chars().next().map(|first| first.to_uppercase().collect::<String>() + &part[first.len_utf8()..]);
    format!("{}, for {}: {}.", name.unwrap_or_default(), seconds(trouble.for_seconds), trouble.reason)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are shown without fractions")]
fn progress(snapshot: &Snapshot) -> String {
    let committed = snapshot.rates.committed;
    let (pending, queue) = (snapshot.lag.pending, snapshot.queue.events);
    let rate = if committed >= 1.0 {
        format!("All is well: {} a second", counted(committed.round() as u64, "event"))
    } else {
        "All is well".into()
    };
    match pending + queue {
        0 => format!("{rate}, and nothing waits."),
        waiting => format!("{rate}, and {} still to come.", count(waiting)),
    }
}

/// A duration for people: `8 s`, `5 min`, `3 h`, `2 days`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "durations are shown in whole units")]
pub fn seconds(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::observe::Observer;

    fn snapshot(state: State) -> Snapshot {
        let mut snapshot = Observer::new(&Config::default()).snapshot();
        snapshot.state = state;
        (snapshot.reasons, snapshot.troubles) = (Vec::new(), Vec::new());
        snapshot
    }

    #[test]
    fn one_sentence_says_how_it_is() {
        assert_eq!(of(&snapshot(State::Starting)), "Starting to collect stream EVENTS into catchment.db.");
        let mut well = snapshot(State::Well);
        assert_eq!(of(&well), "Collecting stream EVENTS into catchment.db. All is well, and nothing waits.");
        (well.rates.committed, well.lag.pending) = (1_234.4, 5_000);
        let said = of(&well);
        assert!(said.ends_with("All is well: 1,234 events a second, and 5,000 still to come."), "{said}");
        let mut failed = snapshot(State::Failed);
        failed.reasons = vec![Trouble { part: "database".into(), reason: "it is locked".into(), for_seconds: 130.0 }];
        let said = of(&failed);
        assert!(said.ends_with("fails. Database, for 2 min: it is locked."), "{said}");
    }
}
