//! All that speaks NATS.
//!
//! The blocking client has calls that never return, connections that die without a word, and messages it cannot read
//! (see ARCHITECTURE.md). So each connection lives for one *session* only: it is used on a thread that can be left
//! behind, asked regularly whether it is alive, and replaced as a whole when it is dead, silent or out of step.
#![allow(deprecated)] // The client is deprecated as a whole: this folder is where it is contained.

mod asker;
mod connection;
mod core_nats;
mod headers;
mod jetstream;
mod pauses;
mod publisher;
mod requests;
mod server;
mod status;

use std::sync::Arc;

pub use asker::ask;
pub use connection::Cluster;
pub use core_nats::CoreIntake;
pub use jetstream::{IntakeOptions, JetStreamIntake, KnownStreams, OriginalDatabase, Owner, remove_stream};
pub use publisher::{Outgoing, Publisher, Refused, Source, Taken, Verdict, is_denied, wire_size};
pub use requests::{
    AddressedReply, Listener, Reply, ReplyQueue, Request, RequestHandler, ServiceError, Subjects, answerable,
};
pub use server::Server;
pub use status::{BrokerStatus, DatabasePosition, JetStreamStatus, StreamStatus};

use crate::error::{BrokerFault, Error};
use crate::pipeline::{Condition, Counters};

/// What an intake reports to.
#[derive(Clone, Debug)]
pub struct Reports {
    /// Counts.
    pub counters: Arc<Counters>,
    /// How the broker is doing.
    pub condition: Condition,
}

fn broker_error(server: impl Into<String>, fault: BrokerFault, detail: impl Into<String>) -> Error {
    Error::Broker { fault, server: server.into(), detail: detail.into(), remedy: None }
}
