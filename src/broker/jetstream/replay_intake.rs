//! A stream as the intake of a replay: through a consumer where that changes nothing at the stream, else by its sequences.

use std::time::Duration;

use super::claims::Owner;
use super::intake::{IntakeOptions, JetStreamIntake};
use super::sequence_intake::SequenceIntake;
use crate::broker::Reports;
use crate::broker::connection::Cluster;
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Batch, Epoch, EpochProgress, Intake, IntakeState, Mark, Signal};

/// What a replay reads.
pub struct ReplayOptions {
    /// The new database as the owner of a consumer.
    pub owner: Owner,
    /// The new database's progress in each epoch of the stream, the latest last.
    pub history: Vec<EpochProgress>,
    /// The last sequence to read; `u64::MAX` for all that the stream has now.
    pub until: u64,
    /// Whether the stream keeps messages that are acknowledged.
    pub keeps_acknowledged: bool,
    /// Why not to use a consumer; `None` where one may be made.
    pub no_consumer: Option<String>,
    /// The largest number of events that the pipeline holds.
    pub pipeline_holds: usize,
}

/// Reads a stream for a replay.
pub enum ReplayIntake {
    /// Through a consumer in the server's memory, which acknowledges nothing.
    Consumer(Box<JetStreamIntake>),
    /// Message by message.
    Sequences(Box<SequenceIntake>),
}

impl ReplayIntake {
    /// Opens the stream. Blocks for a few times `broker.timeout` at most.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn open(
        config: &BrokerConfig,
        options: ReplayOptions,
        keep_going: &dyn Fn() -> bool,
        stop: &Signal,
        reports: &Reports,
    ) -> Result<Self, Error> {
        let ReplayOptions { owner, history, until, keeps_acknowledged, no_consumer, pipeline_holds } = options;
        if let Some(reason) = no_consumer.filter(|_| keeps_acknowledged) {
            without_consumer(&config.stream, &reason);
        } else if keeps_acknowledged {
            let drain_to = Some(until);
            let options = IntakeOptions { owner, history: history.clone(), drain_to, pipeline_holds };
            match JetStreamIntake::open(Cluster::new(config)?, options, keep_going, stop, reports) {
                Ok(intake) => return Ok(Self::Consumer(Box::new(intake))),
                // The number of consumers is limited, or this user may make none.
                Err(Error::Broker { fault: BrokerFault::Request | BrokerFault::Silent, detail, .. }) => {
                    without_consumer(&config.stream, &detail);
                }
                Err(error) => return Err(error),
            }
        }
        SequenceIntake::open(config, history, until, stop, reports).map(|intake| Self::Sequences(Box::new(intake)))
    }
}

fn without_consumer(stream: &str, reason: &str) {
    log::info!(
        event = "replay.without_consumer", stream = stream, reason = reason;
        "broker: reading stream {stream} message by message, without a consumer: {reason}"
    );
}

impl Intake for ReplayIntake {
    fn fill(&mut self, batch: &mut Batch, wait: Duration) -> Result<IntakeState, Error> {
        match self {
            Self::Consumer(intake) => intake.fill(batch, wait),
            Self::Sequences(intake) => intake.fill(batch, wait),
        }
    }

    fn drain(&mut self, batch: &mut Batch) -> Result<IntakeState, Error> {
        match self {
            Self::Consumer(intake) => intake.drain(batch),
            Self::Sequences(intake) => intake.drain(batch),
        }
    }

    fn committed(&mut self, epoch: &Epoch, last: Mark) {
        match self {
            Self::Consumer(intake) => intake.committed(epoch, last),
            Self::Sequences(intake) => intake.committed(epoch, last),
        }
    }
}
