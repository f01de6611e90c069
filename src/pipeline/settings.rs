//! What a pipeline is run with.

use std::time::Duration;

use super::batch::Limits;
use crate::config::BatchConfig;

/// What a pipeline is run with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The size of a batch.
    pub limits: Limits,
    /// How long a batch waits for more deliveries once a writer is free.
    pub linger: Duration,
}

impl From<&BatchConfig> for Settings {
    fn from(config: &BatchConfig) -> Self {
        let bytes = usize::try_from(config.max_bytes.as_u64()).unwrap_or(usize::MAX);
        Self { limits: Limits { events: config.max_events, bytes }, linger: config.linger }
    }
}
