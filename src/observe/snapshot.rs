//! The figures of a running collector at one moment: what `/status` serves as JSON, and what `catchment status` shows.
//!
//! Times are text in RFC 3339 and UTC, with milliseconds. Durations are numbers of seconds, in fields that end in `_seconds`. Sizes are
//! bytes, in fields that end in `_bytes`. Totals count from the start of the collector. Later versions add fields and remove none;
//! `format` changes if a field gets another meaning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pipeline::Distribution;

/// The figures of a running collector at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The version of this format: 1.
    pub format: u32,
    /// When it was made.
    pub at: String,
    /// How the collector is.
    pub state: State,
    /// How it is, in one sentence.
    pub summary: String,
    /// Whether it makes progress: what `/readyz` answers.
    pub ready: bool,
    /// Why it is not ready; empty if it is.
    pub reasons: Vec<Trouble>,
    /// What is wrong now, also if it is still ready.
    pub troubles: Vec<Trouble>,
    /// The program.
    pub program: Program,
    /// Where events come from.
    pub source: Source,
    /// How far the stream is committed; null before the first session, and in mode `core`.
    pub position: Option<Position>,
    /// How much is still to come.
    pub lag: Lag,
    /// When the last batch was committed; null before the first.
    pub last_commit: Option<String>,
    /// The same in seconds since 1970.
    pub last_commit_unix_seconds: Option<f64>,
    /// How long ago that was.
    pub last_commit_seconds: Option<f64>,
    /// What was counted since the start.
    pub totals: Totals,
    /// How fast these counts grow.
    pub rates: Rates,
    /// Events that are received and not committed.
    pub queue: Queue,
    /// How long the successful commits took, in seconds.
    pub commit_seconds: Figures,
    /// How many events the committed batches had.
    pub batch_events: Figures,
    /// How long after its publishing each event was committed, in seconds. In mode `core`: after it was received.
    pub publish_to_commit_seconds: Figures,
    /// The database.
    pub database: StorageFigures,
    /// Dead letters that are stored.
    pub dead_letters: DeadLetters,
    /// The routes, in their order; the last entry is for events that no route takes.
    pub routes: Vec<RouteFigures>,
    /// The queries.
    pub queries: Vec<QueryFigures>,
    /// What the collector does beside collecting, from time to time.
    #[serde(default)]
    pub upkeep: Vec<JobFigures>,
    /// What retention has deleted.
    #[serde(default)]
    pub retention: RetentionFigures,
    /// The process.
    pub process: ProcessFigures,
    /// What was wrong lately, the latest first; also what is over.
    pub incidents: Vec<IncidentLine>,
}

/// How a collector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has not started yet: it opens the database, or waits for the broker.
    Starting,
    /// Nothing is wrong.
    Well,
    /// Something is wrong, and it makes progress or has not been stopped by it for long.
    Degraded,
    /// It makes no progress.
    Failed,
    /// It was asked to stop.
    Stopping,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// The part: `broker`, `intake`, `database`, `service`, `stall`, `lag`, `dead letters`, `collector`, `observer`, or a task of the upkeep.
    pub part: String,
    /// What is wrong: one line.
    pub reason: String,
    /// For how long.
    pub for_seconds: f64,
}

/// The program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// The version of SQLite in it.
    pub sqlite: String,
    /// The number of its process.
    pub pid: u32,
    /// When the collector started.
    pub started: String,
    /// How long ago that was.
    pub up_seconds: f64,
}

impl Source {
    /// The stream for people: `stream CHAT`, `partition 1 of 4 of stream CHAT`; `None` in mode `core`.
    pub fn shown(&self) -> Option<String> {
        let stream = self.stream.as_ref()?;
        Some(match (self.partition, self.partitions) {
            (Some(partition), Some(partitions)) => format!("partition {partition} of {partitions} of stream {stream}"),
            _ => format!("stream {stream}"),
        })
    }
}

/// Where events come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Source {
    /// `jetstream` or `core`.
    pub mode: String,
    /// The stream; null in mode `core`.
    pub stream: Option<String>,
    /// Which partition of it, from 0; null for all of it.
    #[serde(default)]
    pub partition: Option<u32>,
    /// How many partitions it has; null without partitions.
    #[serde(default)]
    pub partitions: Option<u32>,
    /// Filters for the events that are collected.
    pub subjects: Vec<String>,
    /// The configured servers, without secrets.
    pub servers: String,
    /// The server that it is connected to; null while there is no connection.
    pub connected: Option<String>,
    /// Since when.
    pub connected_since: Option<String>,
    /// How many times a connection or a consumer was made again.
    pub reconnects: u64,
}

/// How far a stream is committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Position {
    /// The number of the stream's epoch in this database, from 1.
    pub epoch: u32,
    /// The sequence of the last committed event.
    pub sequence: u64,
    /// When the stream stored it; null before the first event.
    pub published: Option<String>,
}

/// How much is still to come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lag {
    /// Events that the stream has still to deliver, as the broker last reported.
    pub pending: u64,
    /// Deliveries without an acknowledgement, as the broker last reported.
    pub ack_pending: u64,
    /// Deliveries without an acknowledgement that were sent again, as the broker last reported.
    pub redelivered: u64,
    /// How long ago the last committed event was published, if events wait; 0 if none do. Null if it is not known.
    pub behind_seconds: Option<f64>,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Events received.
    pub received: u64,
    /// Bytes of their subjects, headers and payloads.
    pub received_bytes: u64,
    /// Events committed, dead letters included.
    pub committed: u64,
    /// Bytes of their subjects, headers and payloads.
    pub committed_bytes: u64,
    /// Events skipped because they are stored already: an earlier epoch had them, or a recorder sent them twice.
    pub duplicates: u64,
    /// Events committed as dead letters.
    pub dead_letters: u64,
    /// Events dropped because no route takes them. They count as committed.
    pub unmatched_dropped: u64,
    /// Delete markers skipped. They count as committed.
    pub markers_skipped: u64,
    /// Events of core NATS dropped because the receive buffer was full.
    pub dropped: u64,
    /// Events that the stream deleted before they were collected.
    pub lost: u64,
    /// Confirmations that were not sent.
    pub confirmations_dropped: u64,
    /// Batches committed.
    pub batches: u64,
    /// Attempts to commit that failed and were made again.
    pub commit_failures: u64,
    /// Requests of queries that were answered with rows.
    pub requests_answered: u64,
    /// Requests of queries that were answered with an error.
    pub requests_failed: u64,
}

/// How fast counts grow, each per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Over how many seconds they are computed: at most ten.
    pub over_seconds: f64,
    /// Events received.
    pub received: f64,
    /// Events committed.
    pub committed: f64,
    /// Dead letters.
    pub dead_letters: f64,
    /// Batches committed.
    pub batches: f64,
}

/// Events that are received and not committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// How many.
    pub events: u64,
    /// Bytes of their subjects, headers and payloads.
    pub bytes: u64,
}

/// Values of one kind: all since the start, and those of the last minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// All values since the start.
    pub all: Distribution,
    /// How many values the last minute had.
    pub recent_count: u64,
    /// Their mean; null without a value.
    pub mean: Option<f64>,
    /// Half of them are at most this.
    pub p50: Option<f64>,
    /// Nine of ten are at most this.
    pub p90: Option<f64>,
    /// All but one of a hundred are at most this.
    pub p99: Option<f64>,
}

/// The database.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StorageFigures {
    /// Its path.
    pub path: String,
    /// Size of the file.
    pub file_bytes: u64,
    /// Size of the file `-wal`.
    pub wal_bytes: u64,
    /// Pages in the WAL after the last commit.
    pub wal_pages: u32,
    /// How many of them are copied into the database.
    pub wal_pages_copied: u32,
    /// Size of a page; 0 if it is not known yet.
    pub page_bytes: u64,
    /// Pages of the database.
    pub pages: u64,
    /// Pages that are in use for nothing.
    pub free_pages: u64,
    /// Free space on its disk that this user can use; null if it is not known.
    pub disk_free_bytes: Option<u64>,
}

/// Dead letters that are stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DeadLetters {
    /// How many, at most 100,000: further ones are not counted. Null if they cannot be read.
    pub stored: Option<u64>,
    /// The last ones, the latest first; without payloads.
    pub last: Vec<DeadLetterLine>,
}

/// A dead letter, without its payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterLine {
    /// Its number in the database.
    pub id: i64,
    /// When it was stored.
    pub at: String,
    /// Its event's subject.
    pub subject: String,
    /// Its event's sequence in the stream.
    pub sequence: Option<u64>,
    /// The route that it was for.
    pub route: Option<String>,
    /// Why it could not be stored.
    pub error: String,
}

/// What the events of a route did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteFigures {
    /// Its name; null for events that no route takes.
    pub name: Option<String>,
    /// Events committed, dead letters included.
    pub events: u64,
    /// Events committed as dead letters.
    pub dead_letters: u64,
    /// Time spent in its statements.
    pub spent_seconds: f64,
}

/// What the requests of a query did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryFigures {
    /// Its name.
    pub name: String,
    /// Requests that were answered, errors included.
    pub requests: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
    /// The last error, after its status code; null without one.
    pub last_error: Option<String>,
    /// How long the answers took, in seconds, since the start.
    pub duration_seconds: Distribution,
}

/// What a task of the upkeep did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobFigures {
    /// Its name: `retention`, `optimize`, `quick_check`, `wal_size`, `backup`.
    pub name: String,
    /// Runs without an error.
    pub runs: u64,
    /// Runs that failed.
    pub failures: u64,
    /// When the last run without an error ended; null without one.
    pub last: Option<String>,
    /// The same in seconds since 1970.
    pub last_unix_seconds: Option<f64>,
    /// How long that run took.
    pub took_seconds: Option<f64>,
    /// When it is due next; null if it is not known.
    pub next: Option<String>,
    /// Why the last run failed; null if it did not.
    pub error: Option<String>,
}

/// What retention has deleted since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RetentionFigures {
    /// Deleted rows of each table, by its name in the settings.
    pub rows: BTreeMap<String, u64>,
    /// Rows that were added to an archive before.
    pub archived_rows: u64,
    /// Bytes of pages that became free.
    pub freed_bytes: u64,
    /// Bytes of pages that were given back to the file system.
    pub returned_bytes: u64,
    /// How long the longest transaction took.
    pub longest_transaction_seconds: f64,
}

/// The process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessFigures {
    /// CPU time that it has used, in user and system mode.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Virtual memory.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub open_files: u64,
    /// The most that it may have open.
    pub max_open_files: Option<u64>,
    /// When it started, in seconds since 1970; 0 if it is not known.
    pub started_unix_seconds: f64,
}

/// Something that was wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentLine {
    /// When it was first noticed.
    pub at: String,
    /// The part: `broker`, `intake`, `database` or `service`, or a task of the upkeep.
    pub part: String,
    /// What was wrong: one line.
    pub reason: String,
    /// How long it lasted; null while it does.
    pub lasted_seconds: Option<f64>,
}
