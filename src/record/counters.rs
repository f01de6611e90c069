//! The counters of a recorder.

use std::sync::Arc;

use super::counts::RecorderCounts;
use super::send_queue::SendQueue;

/// Counts the events of a [`NatsRecorder`](super::NatsRecorder) by their outcome. Clones share the counters.
#[derive(Clone, Debug)]
pub struct RecorderCounters(Arc<SendQueue>);

impl RecorderCounters {
    pub(super) fn of(queue: Arc<SendQueue>) -> Self {
        Self(queue)
    }

    /// The numbers at this moment. Does not block.
    #[must_use]
    pub fn counts(&self) -> RecorderCounts {
        self.0.counts()
    }
}
