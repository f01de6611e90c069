//! What a consumer has to be, what the server created, and whether the two match.

use super::api_types::{ConsumerConfig, ConsumerInfo, StreamInfo};
use super::claims::Owner;
use super::resume_point::ResumePoint;
use super::retention::Retention;
use super::unstored_deliveries::UnstoredDeliveries;
use crate::config::BrokerConfig;

/// What a consumer is created from.
pub(super) struct ConsumerRequest<'a> {
    pub(super) config: &'a BrokerConfig,
    pub(super) owner: &'a Owner,
    pub(super) stream: &'a StreamInfo,
    pub(super) resume: &'a ResumePoint,
    pub(super) retention: Retention,
    /// The configured subjects are all that the stream stores. Then the consumer may have no filters: see
    /// [`local_filter`](super::local_filter).
    pub(super) whole_stream: bool,
    /// When the pause of the previous consumer ends.
    pub(super) paused: Option<&'a str>,
}

/// A consumer that a session reads from.
pub(super) struct CreatedConsumer {
    pub(super) name: String,
    pub(super) info: ConsumerInfo,
    /// Events that it delivered before and that are not stored.
    pub(super) unstored: Option<UnstoredDeliveries>,
}

/// Whether a consumer delivers the requested events in the requested way. Limits of the server, the account and the
/// stream may have changed its other settings. The session respects those.
pub(super) fn matches_request(created: &ConsumerConfig, wanted: &ConsumerConfig, whole_stream: bool) -> bool {
    let is_everything = |filter: &Option<String>| filter.as_deref().is_none_or(|filter| filter == ">");
    let unfiltered = whole_stream && is_everything(&created.filter_subject) && created.filter_subjects.is_none();
    let same_events = unfiltered && is_everything(&wanted.filter_subject)
        || created.filter_subject == wanted.filter_subject && created.filter_subjects == wanted.filter_subjects;
    same_events
        && !created.headers_only
        && created.name == wanted.name
        && created.durable_name == wanted.durable_name
        && created.deliver_policy == wanted.deliver_policy
        && created.opt_start_seq == wanted.opt_start_seq
        && created.ack_policy == wanted.ack_policy
        && created.replay_policy == wanted.replay_policy
}
