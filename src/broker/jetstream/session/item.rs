//! What a session yields.

use crate::broker::jetstream::delivery_metadata::DeliveryMetadata;
use crate::pipeline::Gap;

/// What comes next in a session.
pub(in crate::broker::jetstream) enum Item {
    /// The next delivery in order. Its message was received.
    Delivery(Delivery),
    /// The next delivery in order, which the configured subjects do not include. It only has to be acknowledged.
    NotCollected(NotCollected),
    /// Nothing was received within the wait.
    Nothing,
    /// The session has ended. The text says why.
    Over(String),
}

/// A received event that is not collected.
pub(in crate::broker::jetstream) struct NotCollected {
    pub(in crate::broker::jetstream) metadata: DeliveryMetadata,
    /// The missing sequences directly before it.
    pub(in crate::broker::jetstream) missing: Option<Gap>,
    /// Acknowledges it.
    pub(in crate::broker::jetstream) reply: Option<String>,
}

/// What is known of a received event beside its message.
pub(in crate::broker::jetstream) struct Delivery {
    pub(in crate::broker::jetstream) metadata: DeliveryMetadata,
    /// The number of missing sequences directly before it.
    pub(in crate::broker::jetstream) missing: u64,
}

impl Delivery {
    /// The missing sequences directly before it. Returned once.
    pub(in crate::broker::jetstream) fn take_missing(&mut self) -> Option<Gap> {
        let missing = std::mem::take(&mut self.missing);
        let last = self.metadata.mark.sequence.saturating_sub(1);
        if missing == 0 { None } else { Gap::of(last + 1 - missing, last) }
    }
}
