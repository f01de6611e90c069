//! Parts of a snapshot from the collector's own types.

use super::snapshot::{IncidentLine, JobFigures, QueryFigures, RetentionFigures, RouteFigures, Totals};
use super::time::{shown, unix_seconds};
use crate::{Incident, JobStatus, QueryStatus, RetentionStatus, RouteStatus, Status};

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

impl JobFigures {
    pub(super) fn of(job: &JobStatus) -> Self {
        Self {
            name: job.name.into(),
            runs: job.runs,
            failures: job.failures,
            last: job.last_run.map(shown),
            last_unix_seconds: job.last_run.map(unix_seconds),
            took_seconds: job.last_took.map(|took| took.as_secs_f64()),
            next: job.next_run.map(shown),
            error: job.trouble.as_ref().map(|trouble| trouble.reason.clone()),
        }
    }
}

impl RetentionFigures {
    pub(super) fn of(status: &RetentionStatus) -> Self {
        Self {
            rows: status.tables.clone(),
            archived_rows: status.archived_rows,
            freed_bytes: status.freed_bytes,
            returned_bytes: status.returned_bytes,
            longest_transaction_seconds: status.longest_transaction.as_secs_f64(),
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
