//! All that speaks NATS.
//!
//! The blocking client has calls that never return, connections that die without a word, and messages it cannot read
//! (see ARCHITECTURE.md). So each connection lives for one *session* only: it is used on a thread that can be left
//! behind, asked regularly whether it is alive, and replaced as a whole when it is dead, silent or out of step.
#![allow(deprecated)] // The client is deprecated as a whole: this folder is where it is contained.

mod access;
mod api;
mod cluster;
mod consumer;
mod epoch;
mod gaps;
mod greeting;
mod intake;
mod link;
mod poison;
mod publisher;
mod pulls;
mod reply;
mod server;
mod session;
mod stream;

pub use cluster::Cluster;
pub use intake::{Beginning, JetStreamIntake, Reports};
pub use publisher::{Outgoing, Publisher, Refused, Source, Stored, Verdict, wire_size};
pub use server::Server;

use crate::error::{BrokerFault, Error};

fn broker_error(server: impl Into<String>, fault: BrokerFault, detail: impl Into<String>) -> Error {
    Error::Broker { fault, server: server.into(), detail: detail.into() }
}
