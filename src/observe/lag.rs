//! How far the database is behind the stream.

use std::time::SystemTime;

use super::snapshot::Lag;
use crate::Status;

impl Lag {
    /// The lag that a collector's status shows.
    pub(super) fn of(status: &Status) -> Self {
        Self {
            pending: status.pending,
            ack_pending: status.ack_pending,
            redelivered: status.redelivered,
            behind_seconds: behind(status),
        }
    }
}

/// Whether events wait to be delivered or to be committed.
pub(super) fn is_behind(status: &Status) -> bool {
    status.pending > 0 || status.queue_events > 0
}

/// How long ago the last committed event was published, if events wait.
fn behind(status: &Status) -> Option<f64> {
    if !is_behind(status) {
        return Some(0.0);
    }
    let published = status.position?.published?;
    Some(SystemTime::now().duration_since(published).unwrap_or_default().as_secs_f64())
}
