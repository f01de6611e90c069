//! Events that a consumer delivered to a collector that did not store them.

use nats::{HeaderMap, Message};

use super::api::Api;
use super::delivery_metadata::DeliveryMetadata;
use super::{partition, poison};
use crate::config::BrokerConfig;

/// The range of stream sequences that the consumer delivered and that are not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnstoredDeliveries {
    /// The first sequence to read.
    next: u64,
    /// The last sequence that the consumer delivered.
    last: u64,
    /// The reply subject of the last delivery: acknowledges all of them.
    ack_reply: String,
    /// One of them was read in this session. It may not be committed yet.
    is_begun: bool,
}

impl UnstoredDeliveries {
    pub(super) fn new(next: u64, last: u64, ack_reply: String) -> Self {
        Self { next, last, ack_reply, is_begun: false }
    }

    /// Whether all of them are stored. Only then may they be acknowledged.
    pub(super) fn is_stored(&self) -> bool {
        self.next > self.last
    }

    /// The reply subject of the last delivery.
    pub(super) fn into_ack_reply(self) -> String {
        self.ack_reply
    }

    /// Reads the next message from the stream, as a delivery, and returns it with the remaining range. `None` if none of them
    /// is collected, so all of them may be acknowledged. `pending` is the number of messages that the consumer still has to
    /// deliver. An error is the reason why the session ends.
    pub(super) fn read(
        &self,
        api: &Api<'_>,
        config: &BrokerConfig,
        pending: u64,
    ) -> Result<Option<(Message, DeliveryMetadata, Option<Self>)>, String> {
        let Self { next, last, .. } = *self;
        let stored = match api.next_message(&config.stream, &partition::stored_filters(config), next) {
            Ok(Some(stored)) if stored.mark.sequence <= last => stored,
            Ok(_) if !self.is_begun => return Ok(None),
            // The next session acknowledges them, once they are committed.
            Ok(_) => return Err("all its earlier deliveries are read".into()),
            Err(failure) => return Err(failure.to_string()),
        };
        let sequence = stored.mark.sequence;
        let headers = match (&stored.headers[..], poison::defect(&stored.subject, &stored.headers)) {
            // The next session stores it as a dead letter.
            (_, Some(defect)) => return Err(format!("message {sequence}: {defect}")),
            ([], None) => None,
            (raw, None) => HeaderMap::try_from(raw).ok(),
        };
        let reply = (sequence == last).then_some(self.ack_reply.as_str());
        let message = Message::new(partition::published(config, &stored.subject), reply, stored.payload, headers);
        let pending = pending + (last - sequence);
        let metadata = DeliveryMetadata { delivered: 1, mark: stored.mark, consumer_sequence: 0, pending };
        let rest = || Self { next: sequence + 1, is_begun: true, ..self.clone() };
        Ok(Some((message, metadata, (sequence < last).then(rest))))
    }
}
