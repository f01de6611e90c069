//! Parts of a snapshot from the collector's own types.

use super::snapshot::{IncidentLine, QueryFigures, RouteFigures, Totals};
use super::time::shown;
use crate::{Incident, QueryStatus, RouteStatus, Status};

impl Totals {
    pub(super) fn of(status: &Status) -> Self {
        Self {
            received: status.received,
            received_bytes: status.received_bytes,
            committed: status.committed,
            committed_bytes: status.committed_bytes,
            duplicates: status.duplicates,
            dead_letters: status.dead_letters,
            unmatched_dropped: status.unmatched_dropped,
            markers_skipped: status.markers_skipped,
            dropped: status.dropped,
            lost: status.lost_events,
            confirmations_dropped: status.confirmations_dropped,
            batches: status.batches,
            commit_failures: status.commit_failures,
            requests_answered: status.requests.answered,
            requests_failed: status.requests.failed,
        }
    }
}

impl RouteFigures {
    pub(super) fn of(route: &RouteStatus) -> Self {
        Self {
            name: route.name.clone(),
            events: route.events,
            dead_letters: route.dead_letters,
            spent_seconds: route.time.as_secs_f64(),
        }
    }
}

impl QueryFigures {
    pub(super) fn of(query: &QueryStatus) -> Self {
        Self {
            name: query.name.clone(),
            requests: query.requests,
            errors: query.errors,
            last_error: Some(query.last_error.clone()).filter(|error| !error.is_empty()),
            duration_seconds: query.duration.clone(),
        }
    }
}

impl IncidentLine {
    pub(super) fn of(incident: &Incident) -> Self {
        Self {
            at: shown(incident.at),
            part: incident.part.into(),
            reason: incident.reason.clone(),
            lasted_seconds: incident.lasted.map(|lasted| lasted.as_secs_f64()),
        }
    }
}
