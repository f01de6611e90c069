//! What the threads of a pipeline share.

use std::sync::Arc;

use super::condition::Condition;
use super::counters::Counters;
use super::epoch::{Epoch, Mark};
use super::progress::Progress;
use super::signal::Signal;

/// What all threads of a pipeline share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// When raised: receive no more, commit what was received, and end.
    pub stop: Signal,
    /// When raised: end at once, without committing the rest.
    pub quit: Signal,
    /// The pipeline's counters.
    pub counters: Arc<Counters>,
    /// How far the events are committed.
    pub progress: Progress,
    /// The condition of the sink.
    pub sink: Condition,
}

impl Shared {
    /// The state of a pipeline that has not started. `sink` is the name of the sink in the log.
    #[must_use]
    pub fn new(sink: &'static str) -> Self {
        Self {
            stop: Signal::default(),
            quit: Signal::default(),
            counters: Arc::default(),
            progress: Progress::default(),
            sink: Condition::new(sink),
        }
    }
}

/// From a writer to the intake: the epoch is committed up to this mark.
pub(super) type CommitNotice = (Arc<Epoch>, Mark);
