//! What is reported of a stream and of its consumers, and of a database to compare them with.

use std::time::Duration;

use super::claims::Owner;
use super::obstacle::Obstacle;
use crate::pipeline::EpochProgress;

/// `JetStream` in our account.
#[derive(Clone, Debug)]
pub struct JetStreamStatus {
    /// Bytes that the account's streams have on disk.
    pub stored: u64,
    /// The limit of that, if there is one.
    pub most_stored: Option<u64>,
    /// `None` where there is no such stream.
    pub stream: Option<StreamStatus>,
    /// If there is none: the subjects with which the next start creates it, or why it does not.
    pub new_stream: Option<Result<Vec<String>, Obstacle>>,
}

/// The stream.
#[derive(Clone, Debug)]
pub struct StreamStatus {
    /// Its subjects; none where it mirrors another.
    pub subjects: Vec<String>,
    /// Filters for what is collected from it: the configured ones, or if none are configured what it stores, if that is known.
    pub collected: Vec<String>,
    /// The number of filters that a consumer needs for that.
    pub consumer_filters: usize,
    /// Its retention policy: `limits`, `interest` or `workqueue`.
    pub retention: String,
    /// Its storage: `file` or `memory`.
    pub storage: String,
    /// The age at which it drops an event, if there is a limit.
    pub max_age: Option<Duration>,
    /// How long it recognises an event that is published again.
    pub duplicate_window: Duration,
    /// Whether it acknowledges events to their publishers.
    pub acknowledges: bool,
    /// Whether it acknowledges events before they are written (`persist_mode: async`): a kill of its server loses them.
    pub loses_what_it_acknowledges: bool,
    /// The configured subjects that it does not store, by its settings.
    pub mismatch: Option<Obstacle>,
    /// Where its settings do not tell what it stores: that it has events, but none on the configured subjects.
    pub silent: Option<Obstacle>,
    /// Whether it has no other subjects than the configured ones.
    pub is_whole: bool,
    /// How many events it has.
    pub messages: u64,
    /// How many of them come after the position, at most: events on other subjects count too.
    pub behind: u64,
    /// What the next start from the position would report: that the stream was deleted and created again, or what it no longer has.
    pub news: Option<String>,
    /// Why it cannot be collected, if it cannot.
    pub refusal: Option<String>,
    /// Where a limit of the stream or of the account lets our consumer have fewer unacknowledged events than it would ask for: the
    /// limit, and what it would ask for.
    pub unacknowledged: Option<(u64, u64)>,
    /// How long after the last collector the stream deletes our consumer and drops what it keeps for it, if it does.
    pub forgets: Option<Duration>,
    /// The consumer of the database, while a collector has one.
    pub consumer: Option<ConsumerStatus>,
    /// Consumers of copies of the database, or of its original.
    pub others: Vec<ConsumerStatus>,
}

/// The consumer of a collector.
#[derive(Clone, Debug)]
pub struct ConsumerStatus {
    /// Its name.
    pub name: String,
    /// Events that it has not delivered yet.
    pub pending: u64,
    /// Whether a process pulls from it, or did a few seconds ago.
    pub in_use: bool,
    /// The end of its pause, if it is paused.
    pub paused: Option<String>,
    /// What created it, for people.
    pub maker: String,
}

/// The position of a database, to compare.
#[derive(Clone, Copy, Debug)]
pub struct DatabasePosition<'a> {
    /// The database as the owner of consumers, if there is one.
    pub owner: Option<&'a Owner>,
    /// Its position in each epoch of the stream, the latest last.
    pub history: &'a [EpochProgress],
    /// The most events that a collector with these settings holds.
    pub pipeline_holds: usize,
}
