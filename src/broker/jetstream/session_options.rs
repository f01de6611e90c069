//! What a session is opened with.

use std::sync::Arc;

use super::claims::Owner;
use crate::broker::connection::Cluster;
use crate::pipeline::{EpochProgress, Signal};

/// What a session is opened with.
pub(super) struct SessionOptions<'a> {
    pub(super) cluster: &'a Arc<Cluster>,
    /// The owner of the consumer.
    pub(super) owner: &'a Owner,
    /// The consumer of the previous session.
    pub(super) previous: Option<&'a str>,
    /// When that consumer's pause ends.
    pub(super) paused: Option<&'a str>,
    /// Another collector seemed to use a consumer of ours.
    pub(super) is_contested: bool,
    /// The progress in each epoch of the stream, the latest last.
    pub(super) history: &'a [EpochProgress],
    /// Whether a missing stream may be created.
    pub(super) may_create: bool,
    /// What the previous session collected.
    pub(super) subjects: Option<&'a [String]>,
    /// Lost events were reported up to this sequence.
    pub(super) reported_to: u64,
    /// The largest number of events in the pipeline that are not committed.
    pub(super) pipeline_holds: usize,
    pub(super) stop: &'a Signal,
}
