//! Where the parts of a collector report their state.

use std::sync::Arc;

use super::status::Status;
use crate::pipeline::{Condition, Incident, Peer, Shared};
use crate::query::{QueryStatus, RequestCounts};
use crate::store::{DatabaseFile, RetentionFigures, RouteCounters, WalFrames};
use crate::upkeep::Upkeep;

/// Where all parts of a collector report their state.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) shared: Shared,
    pub(super) broker: Condition,
    pub(super) intake: Condition,
    pub(super) service: Condition,
    pub(super) peer: Peer,
    pub(super) routes: RouteCounters,
    pub(super) file: DatabaseFile,
    pub(super) wal: Arc<WalFrames>,
    pub(super) retention: Arc<RetentionFigures>,
}

impl Parts {
    /// The figures at this moment; those of queries and of the upkeep come from elsewhere.
    pub(super) fn status(&self, queries: Vec<QueryStatus>, requests: RequestCounts, upkeep: &Upkeep) -> Status {
        let counters = &self.shared.counters;
        // Read first: what is committed was received.
        let (committed, committed_bytes) = (counters.committed.get(), counters.committed_bytes.get());
        let (received, received_bytes) = (counters.received.get(), counters.received_bytes.get());
        let (wal_pages, wal_pages_copied) = self.wal.now();
        let conditions = [&self.broker, &self.intake, &self.shared.sink, &self.service];
        let mut incidents: Vec<Incident> = conditions.into_iter().flat_map(Condition::incidents).collect();
        incidents.extend(upkeep.incidents());
        incidents.sort_by_key(|incident| incident.at);
        Status {
            received,
            committed,
            duplicates: counters.duplicates.get(),
            dead_letters: counters.dead_letters.get(),
            unmatched_dropped: counters.unmatched_dropped.get(),
            markers_skipped: counters.markers_skipped.get(),
            confirmations_dropped: counters.confirmations_dropped.get(),
            dropped: counters.dropped.get(),
            batches: counters.batches.get(),
            lost_events: counters.lost_events.get(),
            reconnects: counters.reconnects.get(),
            pending: counters.pending.get(),
            ack_pending: counters.ack_pending.get(),
            redelivered: counters.redelivered.get(),
            queue_events: received.saturating_sub(committed),
            queue_bytes: received_bytes.saturating_sub(committed_bytes),
            received_bytes,
            committed_bytes,
            commit_failures: counters.commit_failures.get(),
            last_commit: counters.last_commit.get(),
            position: self.shared.progress.position(),
            connected: self.peer.get(),
            wal_pages,
            wal_pages_copied,
            commit_duration: counters.histograms.commits.distribution(),
            batch_events: counters.histograms.batches.distribution(),
            publish_to_commit: counters.histograms.delays.distribution(),
            routes: self.routes.now(),
            queries,
            incidents,
            broker: self.broker.trouble(),
            intake: self.intake.trouble(),
            database: self.shared.sink.trouble(),
            requests,
            service: self.service.trouble(),
            upkeep: upkeep.status(),
            retention: self.retention.now(),
        }
    }
}
