//! One look as a line of JSON.

use serde::Serialize;

use super::series::Series;
use super::watch::Look;
use crate::cli::status::name_of;
use crate::cli::values::shown_time;
use crate::observe::Snapshot;
use crate::unix_time::now_us;

/// The figures of one look.
#[derive(Debug, Default, Serialize)]
pub struct FiguresLine {
    at: String,
    state: &'static str,
    pending: Option<u64>,
    queued: Option<u64>,
    behind_seconds: Option<f64>,
    received_per_second: Option<f64>,
    committed_per_second: Option<f64>,
    batch_events: Option<f64>,
    commit_p50_seconds: Option<f64>,
    commit_p99_seconds: Option<f64>,
    delay_p50_seconds: Option<f64>,
    delay_p99_seconds: Option<f64>,
    committed: Option<u64>,
    dead_letters: Option<u64>,
    wal_bytes: Option<u64>,
    file_bytes: Option<u64>,
    reason: Option<String>,
}

impl FiguresLine {
    /// The figures of a look. Before the second look at a collector, rates are those of the collector itself.
    pub fn of(look: &Look, series: &Series) -> Self {
        match &look.found {
            Ok(snapshot) => Self::of_snapshot(snapshot, series),
            Err(unanswered) => {
                let reason = Some(unanswered.summary.clone());
                Self { at: now(), state: unanswered.state, reason, ..Self::default() }
            }
        }
    }

    fn of_snapshot(snapshot: &Snapshot, series: &Series) -> Self {
        let rates = series.last();
        let (commit, delay) = (&snapshot.commit_seconds, &snapshot.publish_to_commit_seconds);
        let reason = snapshot.reasons.first().or(snapshot.troubles.first());
        Self {
            at: snapshot.at.clone(),
            state: name_of(snapshot.state),
            pending: Some(snapshot.lag.pending),
            queued: Some(snapshot.queue.events),
            behind_seconds: snapshot.lag.behind_seconds,
            received_per_second: Some(rates.map_or(snapshot.rates.received, |rates| rates.received)),
            committed_per_second: Some(rates.map_or(snapshot.rates.committed, |rates| rates.committed)),
            batch_events: rates.and_then(|rates| rates.batch_events).or(snapshot.batch_events.mean),
            commit_p50_seconds: commit.p50,
            commit_p99_seconds: commit.p99,
            delay_p50_seconds: delay.p50,
            delay_p99_seconds: delay.p99,
            committed: Some(snapshot.totals.committed),
            dead_letters: snapshot.dead_letters.stored,
            wal_bytes: Some(snapshot.database.wal_bytes),
            file_bytes: Some(snapshot.database.file_bytes),
            reason: reason.map(|trouble| format!("{}: {}", trouble.part, trouble.reason)),
        }
    }
}

fn now() -> String {
    shown_time(now_us())
}
