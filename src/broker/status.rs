//! The status of the broker and of the stream. Nothing is created or changed.

use std::sync::Arc;

use super::connection::{Cluster, Link};
use super::jetstream::{DatabasePosition, JetStreamStatus, stream_status};
use crate::config::{BrokerConfig, Mode};
use crate::error::Error;
use crate::pipeline::Signal;

/// The server, and `JetStream` where it is used.
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

impl BrokerStatus {
    /// Asks the broker. Blocks for a few times `timeout` at most.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`] or [`Error::Config`] where it cannot be asked. A missing stream is no error.
    pub fn ask(config: &BrokerConfig, position: DatabasePosition<'_>) -> Result<Self, Error> {
        let stop = Signal::default();
        let link = Link::open(&Arc::new(Cluster::new(config)?), &stop)?;
        let jetstream = match config.mode {
            Mode::Jetstream => Some(stream_status(&link, config, position)?),
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
