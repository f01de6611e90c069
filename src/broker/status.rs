//! What a broker says of itself and of the stream, for whoever wants to know how things are: nothing is made or changed.

use std::sync::Arc;
use std::time::Duration;

use super::connection::{Cluster, Link};
use super::jetstream::{Owner, SubjectMismatch, stream_status};
use crate::config::{BrokerConfig, Mode};
use crate::error::Error;
use crate::pipeline::{EpochProgress, Signal};

/// The server, and with `JetStream` what it has for us.
#[derive(Clone, Debug)]
pub struct BrokerStatus {
    /// Its address, without secrets.
    pub server: String,
    /// Its version.
    pub version: String,
    /// The largest event it takes, in bytes, headers included.
    pub max_payload: usize,
    /// `None` in mode `core`.
    pub jetstream: Option<JetStreamStatus>,
}

/// What `JetStream` has for us.
#[derive(Clone, Debug)]
pub struct JetStreamStatus {
    /// Bytes that the account's streams have on disk.
    pub stored: u64,
    /// Bytes that they may have, if there is a limit.
    pub most_stored: Option<u64>,
    /// `None` where there is no such stream.
    pub stream: Option<StreamStatus>,
}

/// The stream.
#[derive(Clone, Debug)]
pub struct StreamStatus {
    /// Its subjects; none where it mirrors another.
    pub subjects: Vec<String>,
    /// How it decides what to keep: `limits`, `interest` or `workqueue`.
    pub retention: String,
    /// Where it keeps it: `file` or `memory`.
    pub storage: String,
    /// After this long it drops an event, if there is a limit.
    pub max_age: Option<Duration>,
    /// For this long it recognises a publisher's repetition.
    pub duplicate_window: Duration,
    /// Whether it answers whoever publishes.
    pub acknowledges: bool,
    /// Whether it acknowledges events before they are written (`persist_mode: async`): a kill of its server loses them.
    pub loses_what_it_acknowledges: bool,
    /// What it does not store of the configured subjects, as its settings say.
    pub mismatch: Option<SubjectMismatch>,
    /// That it has events and none on the configured subjects, where its settings do not tell what it stores.
    pub silent: Option<SubjectMismatch>,
    /// Whether the configured subjects are all that it has.
    pub is_whole: bool,
    /// How many events it has.
    pub messages: u64,
    /// How many of them are behind the position, at most: those of other subjects count too.
    pub behind: u64,
    /// What the next start from the position would have to say: that the stream was made anew, or what it no longer has.
    pub news: Option<String>,
    /// Why it cannot be collected, if it cannot.
    pub refusal: Option<String>,
    /// How many events may be unacknowledged, where a limit of the stream or of the account lets our consumer have fewer than
    /// it would: the limit, and what it would have.
    pub unacknowledged: Option<(u64, u64)>,
    /// After this long without a collector the stream forgets our consumer and drops what it keeps for it, if it does.
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
    /// Events it has still to deliver.
    pub pending: u64,
    /// Somebody pulls from it, or did a few seconds ago.
    pub in_use: bool,
    /// Until when somebody has it deliver nothing.
    pub paused: Option<String>,
    /// Who made it, for people.
    pub maker: String,
}

/// How far a database is, to compare.
#[derive(Clone, Copy, Debug)]
pub struct DatabasePosition<'a> {
    /// The database as the owner of consumers, if there is one.
    pub owner: Option<&'a Owner>,
    /// How far it has each epoch of the stream, the latest last.
    pub history: &'a [EpochProgress],
    /// How many events a collector with these settings holds, at most.
    pub pipeline_holds: usize,
}

impl BrokerStatus {
    /// Asks the broker. Blocks for a few times `timeout` at most.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`], [`Error::Config`]: whatever keeps it from being asked. That there is no stream is none.
    pub fn make(config: &BrokerConfig, standing: DatabasePosition<'_>) -> Result<Self, Error> {
        let stop = Signal::default();
        let link = Link::open(&Arc::new(Cluster::new(config)?), &stop)?;
        let jetstream = match config.mode {
            Mode::Jetstream => Some(stream_status(&link, config, standing)?),
            Mode::Core => None,
        };
        let server = link.server();
        Ok(Self {
            server: server.address.clone(),
            version: server.version.clone(),
            max_payload: server.max_payload,
            jetstream,
        })
    }
}
