//! How long a stream keeps events: by its limits, or until its consumers have acknowledged them.

use super::api_types::StreamInfo;
use crate::config::BrokerConfig;

/// The retention of streams that keep an event until it is acknowledged.
pub(super) const INTEREST: &str = "interest";

/// Whether the stream keeps events until they are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retention {
    /// It keeps them as its limits say.
    Limits,
    /// Until every consumer has acknowledged them; so many can be under way to the database.
    Interest { unacknowledged: usize },
}

impl Retention {
    /// How this stream keeps what a collector with these settings, whose pipeline holds so many events, takes in.
    pub(super) fn of(stream: &StreamInfo, config: &BrokerConfig, pipeline_holds: usize) -> Self {
        if stream.config.retention != INTEREST {
            return Self::Limits;
        }
        Self::Interest { unacknowledged: pipeline_holds + config.prefetch.events * config.prefetch.requests }
    }

    pub(super) fn unacknowledged(self) -> Option<usize> {
        match self {
            Self::Limits => None,
            Self::Interest { unacknowledged } => Some(unacknowledged),
        }
    }
}
