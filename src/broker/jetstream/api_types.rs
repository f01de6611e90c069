//! What `JetStream` sends and takes: <https://docs.nats.io/reference/reference-protocols/nats_api_reference>.
//!
//! We define this JSON ourselves: the client's structs do not have all fields that matter here, and reset fields that
//! they do not have.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::pipeline::Mark;

/// The server lists deleted sequences one by one. Above this number the list is not requested.
pub(super) const MAX_LISTED_DELETES: u64 = 200_000;

/// A stream as the server describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: StreamConfig,
    /// When it was created.
    pub(super) created: String,
    pub(super) state: StreamState,
}

#[allow(clippy::struct_excessive_bools, reason = "the server's settings are what they are")]
#[derive(Clone, Debug, Deserialize)]
pub(super) struct StreamConfig {
    pub(super) retention: String,
    /// Empty if the stream is a mirror.
    #[serde(default)]
    pub(super) subjects: Vec<String>,
    #[serde(default)]
    pub(super) storage: String,
    /// Nanoseconds; 0: no limit.
    #[serde(default)]
    pub(super) max_age: u64,
    /// 0 and below: no limit. So are the next three.
    #[serde(default)]
    pub(super) max_msgs: i64,
    #[serde(default)]
    pub(super) max_bytes: i64,
    #[serde(default)]
    pub(super) max_msgs_per_subject: i64,
    #[serde(default)]
    pub(super) max_consumers: i64,
    /// Messages may have a time to live of their own. Server 2.11 and later.
    #[serde(default)]
    pub(super) allow_msg_ttl: bool,
    /// Messages cannot be deleted.
    #[serde(default)]
    pub(super) deny_delete: bool,
    /// The stream cannot be purged.
    #[serde(default)]
    pub(super) deny_purge: bool,
    /// A message may replace all others of its subject, or of the stream.
    #[serde(default)]
    pub(super) allow_rollup_hdrs: bool,
    /// Nanoseconds.
    #[serde(default)]
    pub(super) duplicate_window: u64,
    /// The stream sends no publish acknowledgements.
    #[serde(default)]
    pub(super) no_ack: bool,
    #[serde(default)]
    pub(super) consumer_limits: ConsumerLimits,
    /// `async`: the stream acknowledges events before it writes them. Server 2.12 and later.
    #[serde(default)]
    pub(super) persist_mode: String,
    /// The stream accepts fast batches. Server 2.14 and later.
    #[serde(default)]
    pub(super) allow_batched: bool,
    /// Renames the subjects of published events. Server 2.10 and later.
    #[serde(default)]
    pub(super) subject_transform: Option<SubjectTransform>,
    /// The stream that this one mirrors.
    #[serde(default)]
    pub(super) mirror: Option<UpstreamStream>,
    /// The streams that this one copies events from, in addition to its own subjects.
    #[serde(default)]
    pub(super) sources: Option<Vec<UpstreamStream>>,
}

impl StreamConfig {
    /// Whether it keeps messages until a limit is reached, and does not remove them when they are acknowledged.
    pub(super) fn keeps_acknowledged(&self) -> bool {
        self.retention == "limits"
    }

    /// Whether there may be only so many consumers. One that reads the stream for a command would take the place of another.
    pub(super) fn limits_consumers(&self) -> bool {
        self.max_consumers > 0
    }
}

/// A stream that a mirror or a stream with sources copies from.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct UpstreamStream {
    #[serde(default)]
    pub(super) filter_subject: String,
    /// Each selects events and may rename them. Server 2.10 and later.
    #[serde(default)]
    pub(super) subject_transforms: Option<Vec<SubjectTransform>>,
}

impl UpstreamStream {
    /// Whether only a part of its events is copied.
    pub(super) fn is_filtered(&self) -> bool {
        !self.filter_subject.is_empty() || self.subject_transforms.as_ref().is_some_and(|all| !all.is_empty())
    }
}

/// Renames subjects: <https://docs.nats.io/nats-concepts/subject_mapping>.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubjectTransform {
    /// Empty: all subjects.
    #[serde(default)]
    pub(super) src: String,
    /// Empty: the transform selects events and keeps their subjects.
    #[serde(default)]
    pub(super) dest: String,
}

impl SubjectTransform {
    /// The subjects that it is for.
    pub(super) fn source(&self) -> &str {
        if self.src.is_empty() { ">" } else { &self.src }
    }
}

/// A stream's limits on its consumers. Server 2.10 and later.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct ConsumerLimits {
    #[serde(default)]
    pub(super) max_ack_pending: i64,
    /// Nanoseconds; 0: no limit.
    #[serde(default)]
    pub(super) inactive_threshold: u64,
}

/// An account's `JetStream` usage and limits.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct AccountInfo {
    /// Bytes on disk.
    #[serde(default)]
    pub(super) storage: u64,
    #[serde(default)]
    pub(super) limits: AccountLimits,
}

/// An account's limits. 0 and below: no limit.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct AccountLimits {
    #[serde(default)]
    pub(super) max_storage: i64,
    #[serde(default)]
    pub(super) max_ack_pending: i64,
    /// Each stream needs a limit in bytes.
    #[serde(default, rename = "max_bytes_required")]
    pub(super) requires_max_bytes: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    /// The number of sequences without a message between the first and the last.
    #[serde(default)]
    pub(super) num_deleted: u64,
    /// These sequences, if the request asked for them.
    #[serde(default)]
    pub(super) deleted: Option<Vec<u64>>,
    #[serde(default)]
    pub(super) consumer_count: u64,
    #[serde(default)]
    pub(super) num_subjects: u64,
    /// The number of messages of each subject, if the request asked for it.
    #[serde(default)]
    pub(super) subjects: Option<BTreeMap<String, u64>>,
}

/// A consumer as the server describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ConsumerInfo {
    pub(super) config: ConsumerConfig,
    /// The number of messages still to deliver.
    pub(super) num_pending: u64,
    /// The last delivery.
    pub(super) delivered: SequencePair,
    /// The number of pull requests that wait at the consumer.
    #[serde(default)]
    pub(super) num_waiting: u64,
    /// The number of deliveries without an acknowledgement.
    #[serde(default)]
    pub(super) num_ack_pending: u64,
    /// The number of messages that were delivered more than once and are not acknowledged.
    #[serde(default)]
    pub(super) num_redelivered: u64,
    /// All deliveries up to this one are acknowledged.
    #[serde(default)]
    pub(super) ack_floor: SequencePair,
    /// The consumer is paused. Server 2.11 and later.
    #[serde(default)]
    pub(super) paused: bool,
}

impl ConsumerInfo {
    /// When the consumer's pause ends; `None` if it is not paused.
    pub(super) fn paused_until(&self) -> Option<String> {
        let until = || self.config.pause_until.clone().unwrap_or_else(|| "further notice".into());
        self.paused.then(until)
    }
}

/// A position of a consumer: the same message, numbered in two ways.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct SequencePair {
    /// Its number among the consumer's deliveries.
    pub(super) consumer_seq: u64,
    /// Its sequence in the stream.
    #[serde(default)]
    pub(super) stream_seq: u64,
}

/// A consumer's settings: sent when it is created, and compared with what the server created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ConsumerConfig {
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) durable_name: Option<String>,
    /// The process and the database that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    pub(super) deliver_policy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) opt_start_seq: Option<u64>,
    pub(super) ack_policy: String,
    /// Nanoseconds. Has no effect without acknowledgements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ack_wait: Option<u64>,
    /// Has no effect without acknowledgements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_ack_pending: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) filter_subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) filter_subjects: Option<Vec<String>>,
    pub(super) replay_policy: String,
    /// Nanoseconds; 0: no limit.
    #[serde(default)]
    pub(super) inactive_threshold: u64,
    #[serde(default)]
    pub(super) mem_storage: bool,
    /// The consumer is paused until this time, written as in RFC 3339. Server 2.11 and later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pause_until: Option<String>,
    /// The consumer delivers headers without payloads.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) headers_only: bool,
    /// The limits on pull requests. Read only: the server sets them.
    #[serde(flatten, skip_serializing)]
    pub(super) pulls: PullLimits,
}

/// The limits on a consumer's pull requests. 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct PullLimits {
    /// The number of requests that may wait at a time.
    #[serde(default, rename = "max_waiting")]
    pub(super) waiting: i64,
    /// The number of messages that a request may ask for.
    #[serde(default, rename = "max_batch")]
    pub(super) batch: i64,
    /// How long a request may wait, in nanoseconds.
    #[serde(default, rename = "max_expires")]
    pub(super) expires: i64,
    /// The number of bytes that a request may ask for.
    #[serde(default, rename = "max_bytes")]
    pub(super) bytes: i64,
}

/// A message as the stream stores it.
#[derive(Debug)]
pub(super) struct StoredMessage {
    pub(super) mark: Mark,
    pub(super) subject: String,
    pub(super) headers: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// Selects one message of a stream.
pub(super) enum MessageQuery<'a> {
    /// The message with this sequence.
    Sequence(u64),
    /// The first message that this subject filter matches, from this sequence on.
    NextBySubject(&'a str, u64),
}

impl MessageQuery<'_> {
    /// The body of the request for it.
    pub(super) fn request(&self) -> serde_json::Value {
        match self {
            Self::Sequence(sequence) => json!({ "seq": sequence }),
            Self::NextBySubject(filter, from) => json!({ "seq": from, "next_by_subj": filter }),
        }
    }
}

/// A duration in the unit of the server's JSON.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
