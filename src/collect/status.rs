//! The figures of a collector at one moment.

use std::time::SystemTime;

use crate::pipeline::{Connected, Distribution, Incident, Position, Trouble};
use crate::query::{QueryStatus, RequestCounts};
use crate::store::{RetentionStatus, RouteStatus};
use crate::upkeep::JobStatus;

/// The figures of a collector, from its start, and the condition of its parts.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Status {
    /// Deliveries received.
    pub received: u64,
    /// Deliveries committed, dead letters included.
    pub committed: u64,
    /// Deliveries skipped because they are stored already: an earlier epoch of the stream had delivered them, or a recorder had sent
    /// them twice. The latter count as committed too.
    pub duplicates: u64,
    /// Deliveries committed as dead letters.
    pub dead_letters: u64,
    /// Deliveries dropped because no route takes them and `unmatched` is `drop`. They count as committed.
    pub unmatched_dropped: u64,
    /// Delete markers skipped, as `delete_markers` sets. They count as committed.
    pub markers_skipped: u64,
    /// Deliveries committed whose publisher requested a confirmation that was not sent: there were too many requests at a time,
    /// the connection was lost, or the reply subject is not an inbox.
    pub confirmations_dropped: u64,
    /// Events of core NATS dropped because the receive buffer was full.
    pub dropped: u64,
    /// Batches committed, each in one transaction.
    pub batches: u64,
    /// Events that the stream deleted before they were collected. The true number may be smaller. The log has their sequences.
    pub lost_events: u64,
    /// How many times a connection or a consumer was made again.
    pub reconnects: u64,
    /// Events still to be delivered, as the broker last reported. Always 0 in mode `core`.
    pub pending: u64,
    /// Deliveries that the consumer sent and that are not acknowledged, as the broker last reported. Always 0 where the stream needs
    /// no acknowledgements.
    pub ack_pending: u64,
    /// Deliveries without an acknowledgement that the consumer sent again, as the broker last reported.
    pub redelivered: u64,
    /// Events that were received and are not committed yet.
    pub queue_events: u64,
    /// The bytes of these events: subjects, headers and payloads.
    pub queue_bytes: u64,
    /// Bytes received: subjects, headers and payloads.
    pub received_bytes: u64,
    /// Bytes committed, counted in the same way.
    pub committed_bytes: u64,
    /// Attempts to commit a batch that failed and were made again.
    pub commit_failures: u64,
    /// When the last batch was committed.
    pub last_commit: Option<SystemTime>,
    /// How far the stream is committed; `None` in mode `core`.
    pub position: Option<Position>,
    /// The server that events come from; `None` while there is no connection.
    pub connected: Option<Connected>,
    /// Pages in the database's WAL after the last commit.
    pub wal_pages: u32,
    /// How many of them are copied into the database. The WAL is used anew when all are.
    pub wal_pages_copied: u32,
    /// How long the successful commits took, in seconds.
    pub commit_duration: Distribution,
    /// How many events the committed batches had.
    pub batch_events: Distribution,
    /// How long after its publishing each event was committed, in seconds. In mode `core`: after it was received.
    pub publish_to_commit: Distribution,
    /// What the events of each route did. The last one is for events that no route takes.
    pub routes: Vec<RouteStatus>,
    /// What the requests of each query did.
    pub queries: Vec<QueryStatus>,
    /// What was wrong lately with any part, the latest last; also what is over.
    pub incidents: Vec<Incident>,
    /// What is wrong with the broker, if anything.
    pub broker: Option<Trouble>,
    /// Why events are being dropped, if they are.
    pub intake: Option<Trouble>,
    /// What is wrong with the database, if anything.
    pub database: Option<Trouble>,
    /// How many requests of queries were answered with rows, and how many with an error.
    pub requests: RequestCounts,
    /// What prevents queries from being answered, if anything.
    pub service: Option<Trouble>,
    /// What the jobs did that the collector does beside collecting, such as `retention`. Empty if the settings have none.
    pub upkeep: Vec<JobStatus>,
    /// What `[retention]` has deleted.
    pub retention: RetentionStatus,
}
