//! How long a stream keeps events: by its limits, or until its consumers have acknowledged them.

use super::api_types::StreamInfo;
use crate::config::BrokerConfig;

/// The retention of streams that keep an event until it is acknowledged.
pub(super) const INTEREST: &str = "interest";

/// What decides how long the stream keeps an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retention {
    /// The stream's limits.
    Limits,
    /// The acknowledgements of its consumers. The collector may have so many events delivered and not committed.
    Interest { unacknowledged: usize },
}

impl Retention {
    /// The retention of this stream, for a collector with these settings whose pipeline holds so many events.
    pub(super) fn of(stream: &StreamInfo, config: &BrokerConfig, pipeline_holds: usize) -> Self {
        if stream.config.retention != INTEREST {
            return Self::Limits;
        }
        Self::Interest { unacknowledged: pipeline_holds + config.prefetch.events * config.prefetch.requests }
    }

    /// The number of unacknowledged events that the collector needs; `None` if it acknowledges nothing.
    pub(super) fn unacknowledged(self) -> Option<usize> {
        match self {
            Self::Limits => None,
            Self::Interest { unacknowledged } => Some(unacknowledged),
        }
    }
}
