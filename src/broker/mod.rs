//! Everything that uses NATS.
//!
//! The blocking client has calls that never return, connections that die without a sign, and messages it cannot read
//! (see ARCHITECTURE.md). So each connection lasts for one *session* only: it is used on a thread that can be left behind, it is probed
//! regularly, and it is replaced as a whole when it is dead, silent or out of step.
#![allow(deprecated)] // The whole client is deprecated. It is used in this folder only.

mod asker;
mod connection;
mod core_nats;
mod headers;
mod jetstream;
mod permission_probe;
mod permissions;
mod publisher;
mod publishing;
mod requests;
mod server;
mod status;
mod subject_use;

use std::sync::Arc;

pub use asker::{PartitionReplies, ask, ask_partitions, query_subjects};
pub(crate) use connection::Pauses;
pub use connection::{Cluster, Denial, Liveness, Reconnect, address_in};
pub use core_nats::CoreIntake;
pub use jetstream::{
    DatabasePosition, IntakeOptions, JetStreamIntake, JetStreamStatus, KnownStreams, OriginalDatabase, Owner,
    RawHeaders, Repartitioned, ReplayIntake, ReplayOptions, StreamBounds, StreamHoles, StreamMessage, StreamPart,
    StreamReader, StreamStatus, remove_stream, repartition,
};
pub use permission_probe::{Verdict, probe};
pub use permissions::{Access, BrokerUse, Permission, permissions};
pub use publisher::Publisher;
pub use publishing::{Acknowledgement, EventSource, Outgoing, PublishResult, Rejection, wire_size};
pub use requests::{
    AddressedReply, AnsweringPartition, Listener, Reply, ReplyQueue, Request, RequestHandler, ServiceError, Subjects,
    answerable,
};
pub use server::{Server, ServerPort, has_streams};
pub use status::BrokerStatus;

use crate::error::{BrokerFault, Error};
use crate::pipeline::{Condition, Counters, Peer, Progress};

/// Where an intake reports to.
#[derive(Clone, Debug)]
pub struct Reports {
    /// Counts.
    pub counters: Arc<Counters>,
    /// The condition of the broker.
    pub condition: Condition,
    /// How far the events are received and committed. Only of a stream.
    pub progress: Progress,
    /// The server that the events come from.
    pub peer: Peer,
}

fn broker_error(server: impl Into<String>, fault: BrokerFault, detail: impl Into<String>) -> Error {
    Error::Broker { fault, server: server.into(), detail: detail.into(), remedy: None }
}
