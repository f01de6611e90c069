//! Forwards the rows of a table to a stream.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::config::must_have_streams;
use super::forwarding::{ForwardOptions, ForwardStore, Forwarding};
use super::{Identity, NatsRecorderConfig};
use crate::config::BrokerConfig;
use crate::deadline;
use crate::error::Error;
use crate::pipeline::{Condition, Health, Problem};
use crate::store::{GivenUp, Outbox, OutboxOptions, StoredEvent};

/// What to forward, and how.
pub(crate) struct TableForwardingConfig {
    pub(crate) outbox: OutboxOptions,
    pub(crate) broker: BrokerConfig,
    /// The only stream that may store the rows.
    pub(crate) expected_stream: Option<String>,
    pub(crate) identity: Identity,
    /// How long a row that the server refuses is sent again, while others are stored.
    pub(crate) give_up_after: Duration,
    /// How often to look for new rows.
    pub(crate) poll: Duration,
}

/// Forwards rows until it is stopped.
#[derive(Debug)]
pub(crate) struct TableForwarding {
    forwarding: Forwarding,
    conditions: [Condition; 2],
}

impl ForwardStore for Outbox {
    fn read(&mut self, after: u64, events: usize, bytes: usize) -> Result<Vec<StoredEvent>, Problem> {
        self.after(after, events, bytes)
    }

    fn done_through(&mut self, position: u64) -> Result<(), Problem> {
        Outbox::done_through(self, position)
    }

    fn give_up(&mut self, events: &[GivenUp]) -> Result<(), Problem> {
        Outbox::give_up(self, events)
    }

    fn note_refused(&mut self, positions: &[u64], others_stored: bool) -> Result<(), Problem> {
        Outbox::note_refused(self, positions, others_stored)
    }

    fn changed(&mut self, positions: &BTreeSet<u64>) -> Result<Vec<(u64, Option<StoredEvent>)>, Problem> {
        Outbox::changed(self, positions)
    }

    fn tidy(&mut self) -> Result<bool, Problem> {
        Ok(false)
    }

    fn path(&self) -> &Path {
        self.path()
    }
}

impl TableForwarding {
    /// Opens the table and starts to forward. Does not wait for the broker.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Database`], [`Error::Locked`] or [`Error::Thread`].
    pub(crate) fn start(config: TableForwardingConfig) -> Result<Self, Error> {
        let TableForwardingConfig { outbox, broker, expected_stream, identity, give_up_after, poll } = config;
        must_have_streams(&broker)?;
        let outbox = Outbox::open(&outbox)?;
        let mut publishing = NatsRecorderConfig::new(broker);
        (publishing.identity, publishing.expected_stream) = (identity, expected_stream);
        publishing.validate()?;
        let conditions = ["database", "broker"].map(Condition::new);
        let [of_file, of_broker] = conditions.clone();
        let (names, refused, after) = (outbox.names(), outbox.refused(), outbox.position());
        let poll = Some(poll);
        let options =
            ForwardOptions { config: publishing, names, refused, after, give_up_after, poll, of_file, of_broker };
        Ok(Self { forwarding: Forwarding::start(options, outbox, None)?, conditions })
    }

    /// How many events were forwarded, and how many rows were given up.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let progress = self.forwarding.progress();
        (progress.forwarded, progress.given_up)
    }

    /// Blocks until all rows are forwarded or given up, at most for `timeout`. Returns whether they are.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> bool {
        self.forwarding.wait(deadline::after(timeout), |progress| progress.is_idle)
    }

    /// Why it has ended, if it has.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.forwarding.failure()
    }

    /// What prevents forwarding at the moment.
    pub(crate) fn health(&self) -> Health {
        Health::of(&self.conditions)
    }

    /// Sends no more, and ends.
    pub(crate) fn stop(&self, timeout: Duration) {
        self.forwarding.stop(Instant::now() + timeout);
    }
}
