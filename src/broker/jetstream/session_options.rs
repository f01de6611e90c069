//! What a session is opened with.

use std::sync::Arc;

use super::claims::Owner;
use crate::broker::connection::Cluster;
use crate::pipeline::{EpochProgress, Signal};

/// What a session is opened with.
pub(super) struct SessionOptions<'a> {
    pub(super) cluster: &'a Arc<Cluster>,
    /// Ownership the consumer is to be.
    pub(super) owner: &'a Owner,
    /// The consumer of the session before.
    pub(super) previous: Option<&'a str>,
    /// Until when somebody had that deliver nothing.
    pub(super) paused: Option<&'a str>,
    /// How far each epoch of the stream has been taken in, the latest last.
    pub(super) history: &'a [EpochProgress],
    /// Whether the stream may be made where it is missing.
    pub(super) may_create: bool,
    /// What the stream no longer has was said up to this sequence.
    pub(super) reported_to: u64,
    /// How many events can be taken in and not committed yet.
    pub(super) under_way: usize,
    pub(super) stop: &'a Signal,
}
