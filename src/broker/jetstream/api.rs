//! `JetStream`'s requests: <https://docs.nats.io/reference/reference-protocols/nats_api_reference>.
//!
//! In JSON of our own, for the client's structs leave out what matters here and reset what they do not know.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::broker::connection::Link;
use crate::pipeline::{Gap, Gaps, Mark, Signal};
use crate::printable;

/// Error codes of the server: <https://github.com/nats-io/nats-server/blob/main/server/errors.json>.
pub(super) mod code {
    pub(in crate::broker) const NO_ROOM_FOR_CONSUMERS: u64 = 10026;
    pub(in crate::broker) const NO_MESSAGE: u64 = 10037;
    pub(in crate::broker) const NO_JETSTREAM_FOR_ACCOUNT: u64 = 10039;
    pub(in crate::broker) const NO_STREAM: u64 = 10059;
    pub(in crate::broker) const NO_JETSTREAM: u64 = 10076;
    pub(in crate::broker) const STORE_FAILED: u64 = 10077;
    pub(in crate::broker) const FILTER_OUTSIDE: u64 = 10093;
    pub(in crate::broker) const TOO_MANY_UNACKNOWLEDGED: u64 = 10121;
}

/// Why a request was not answered as hoped.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The connection is of no further use.
    NoAnswer(String),
    /// Nobody answers such requests here: no `JetStream`, or not at the moment.
    NoResponders,
    /// The server's answer is no.
    Refused { code: u64, status: u64, description: String },
    /// The server's answer cannot be read.
    Unreadable(String),
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnswer(what) => f.write_str(what),
            Self::NoResponders => f.write_str("nobody answers JetStream requests"),
            Self::Refused { code, description, .. } => write!(f, "{} (error {code})", printable(description)),
            Self::Unreadable(what) => write!(f, "an answer that cannot be read: {what}"),
        }
    }
}

impl ApiError {
    /// Whether the server may say something else soon: its storage is full, its cluster has no leader, it is just starting.
    /// That a stream which discards new messages is full, or a message too large for it, goes by the same status, and is an
    /// answer.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Refused { code: code::STORE_FAILED, description, .. } => {
                !["maximum", "too large"].iter().any(|lasting| description.contains(lasting))
            }
            Self::Refused { status, .. } => *status == 503,
            Self::NoResponders | Self::NoAnswer(_) | Self::Unreadable(_) => false,
        }
    }

    pub(super) fn is_code(&self, wanted: u64) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }
}

/// Requests over a link.
pub(super) struct Api<'a> {
    pub(super) link: &'a Link,
    /// What their subjects begin with: `$JS.API`, or what stands in for it.
    pub(super) prefix: String,
    pub(super) within: Duration,
    /// Breaks off waiting for an answer.
    pub(super) stop: Option<&'a Signal>,
}

/// A stream as the server describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: StreamConfig,
    /// When it was created.
    pub(super) created: String,
    pub(super) state: StreamState,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StreamConfig {
    pub(super) retention: String,
    /// None where it mirrors another.
    #[serde(default)]
    pub(super) subjects: Vec<String>,
    #[serde(default)]
    pub(super) storage: String,
    /// Nanoseconds; 0 for ever.
    #[serde(default)]
    pub(super) max_age: u64,
    /// Nanoseconds.
    #[serde(default)]
    pub(super) duplicate_window: u64,
    /// Whoever publishes to it is not answered.
    #[serde(default)]
    pub(super) no_ack: bool,
    #[serde(default)]
    pub(super) consumer_limits: ConsumerLimits,
    /// `async` where it acknowledges what it has not written yet; server 2.12 and later.
    #[serde(default)]
    pub(super) persist_mode: String,
    /// Renames what is published to it; server 2.10 and later.
    #[serde(default)]
    pub(super) subject_transform: Option<SubjectTransform>,
    /// The stream that it copies.
    #[serde(default)]
    pub(super) mirror: Option<UpstreamStream>,
    /// The streams that it copies from, beside its own subjects.
    #[serde(default)]
    pub(super) sources: Option<Vec<UpstreamStream>>,
}

/// Where a mirror or a stream with sources takes events from.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct UpstreamStream {
    #[serde(default)]
    pub(super) filter_subject: String,
    /// Each is_filtered and renames; server 2.10 and later.
    #[serde(default)]
    pub(super) subject_transforms: Option<Vec<SubjectTransform>>,
}

impl UpstreamStream {
    /// Whether only some of its events are taken.
    pub(super) fn is_filtered(&self) -> bool {
        !self.filter_subject.is_empty() || self.subject_transforms.as_ref().is_some_and(|all| !all.is_empty())
    }
}

/// Renames subjects: <https://docs.nats.io/nats-concepts/subject_mapping>.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct SubjectTransform {
    /// Empty for all.
    #[serde(default)]
    pub(super) src: String,
    /// Empty where it only is_filtered.
    #[serde(default)]
    pub(super) dest: String,
}

/// What a stream grants its consumers; server 2.10 and later.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct ConsumerLimits {
    #[serde(default)]
    pub(super) max_ack_pending: i64,
    /// Nanoseconds; 0 for no limit.
    #[serde(default)]
    pub(super) inactive_threshold: u64,
}

/// What an account has of `JetStream`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct AccountInfo {
    /// Bytes on disk.
    #[serde(default)]
    pub(super) storage: u64,
    #[serde(default)]
    pub(super) limits: AccountLimits,
}

/// What it may have; not above 0 where there is no limit.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct AccountLimits {
    #[serde(default)]
    pub(super) max_storage: i64,
    #[serde(default)]
    pub(super) max_ack_pending: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    /// How many sequences between the first and the last have no message.
    #[serde(default)]
    pub(super) num_deleted: u64,
    /// Which these are, where that was asked for.
    #[serde(default)]
    pub(super) deleted: Option<Vec<u64>>,
    #[serde(default)]
    pub(super) num_subjects: u64,
    /// How many messages each subject has, where that was asked for.
    #[serde(default)]
    pub(super) subjects: Option<BTreeMap<String, u64>>,
}

/// A consumer as the server describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ConsumerInfo {
    pub(super) config: ConsumerConfig,
    /// What it has still to deliver.
    pub(super) num_pending: u64,
    /// What it has sent.
    pub(super) delivered: SequencePair,
    /// Pull requests the server has of us.
    #[serde(default)]
    pub(super) num_waiting: u64,
    /// What it has delivered and nobody has acknowledged.
    #[serde(default)]
    pub(super) num_ack_pending: u64,
    /// How far all that it has delivered is acknowledged.
    #[serde(default)]
    pub(super) ack_floor: SequencePair,
    /// Somebody has it deliver nothing for a while; server 2.11 and later.
    #[serde(default)]
    pub(super) paused: bool,
}

impl ConsumerInfo {
    /// Until when somebody has it deliver nothing; `None` where it delivers.
    pub(super) fn paused_until(&self) -> Option<String> {
        let until = || self.config.pause_until.clone().unwrap_or_else(|| "further notice".into());
        self.paused.then(until)
    }
}

/// How far a consumer has come.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct SequencePair {
    /// How many messages it has sent.
    pub(super) consumer_seq: u64,
    /// The last one's sequence in the stream.
    #[serde(default)]
    pub(super) stream_seq: u64,
}

/// The settings we make a consumer with, and compare with what the server made of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ConsumerConfig {
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) durable_name: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    pub(super) deliver_policy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) opt_start_seq: Option<u64>,
    pub(super) ack_policy: String,
    /// Nanoseconds. Means nothing without acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ack_wait: Option<u64>,
    /// Means nothing without acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_ack_pending: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) filter_subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) filter_subjects: Option<Vec<String>>,
    pub(super) replay_policy: String,
    /// Nanoseconds; 0 for ever.
    #[serde(default)]
    pub(super) inactive_threshold: u64,
    #[serde(default)]
    pub(super) mem_storage: bool,
    /// It delivers nothing until then: a time of RFC 3339. Server 2.11 and later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pause_until: Option<String>,
    /// It delivers no payloads.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) headers_only: bool,
    /// What a pull request may be; we leave it to the server.
    #[serde(flatten, skip_serializing)]
    pub(super) pulls: PullLimits,
}

/// The limits on a consumer's pull requests; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct PullLimits {
    /// How many may wait at a time.
    #[serde(default, rename = "max_waiting")]
    pub(super) waiting: i64,
    /// How many messages one may ask for.
    #[serde(default, rename = "max_batch")]
    pub(super) batch: i64,
    /// How long one may wait, in nanoseconds.
    #[serde(default, rename = "max_expires")]
    pub(super) expires: i64,
    /// How many bytes one may ask for.
    #[serde(default, rename = "max_bytes")]
    pub(super) bytes: i64,
}

/// A message as it lies in the stream.
#[derive(Debug)]
pub(super) struct StoredMessage {
    pub(super) mark: Mark,
    pub(super) subject: String,
    pub(super) headers: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// Which message of a stream.
pub(super) enum MessageQuery<'a> {
    /// That of this sequence.
    Sequence(u64),
    /// The first of this subject filter from this sequence on.
    NextBySubject(&'a str, u64),
}

impl MessageQuery<'_> {
    /// The body of a request for it.
    pub(super) fn request(&self) -> serde_json::Value {
        match self {
            Self::Sequence(sequence) => json!({ "seq": sequence }),
            Self::NextBySubject(filter, from) => json!({ "seq": from, "next_by_subj": filter }),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Response<T> {
    Error { error: ErrorBody },
    Ok(T),
}

/// An error as the server describes it.
#[derive(Deserialize)]
pub(super) struct ErrorBody {
    #[serde(default)]
    err_code: u64,
    /// The status: 0 where there is none, which the server never says.
    #[serde(default)]
    pub(super) code: u64,
    #[serde(default)]
    description: String,
}

impl From<ErrorBody> for ApiError {
    fn from(error: ErrorBody) -> Self {
        let code = if error.err_code == 0 { error.code } else { error.err_code };
        Self::Refused { code, status: error.code, description: error.description }
    }
}

/// Reads an answer of the server.
pub(super) fn read<T: DeserializeOwned>(data: &[u8]) -> Result<T, ApiError> {
    match serde_json::from_slice(data).map_err(|e| ApiError::Unreadable(e.to_string()))? {
        Response::Ok(value) => Ok(value),
        Response::Error { error } => Err(error.into()),
    }
}

/// Asks the server, in a request for a stream's description, to list the sequences that are deleted.
pub(super) fn deleted_details() -> serde_json::Value {
    json!({ "deleted_details": true })
}

/// Reads the answer to a request for a message. `None` where there is none.
pub(super) fn parse_stored_message(data: &[u8]) -> Result<Option<StoredMessage>, ApiError> {
    stored(read(data))
}

fn stored(answer: Result<Envelope, ApiError>) -> Result<Option<StoredMessage>, ApiError> {
    let message = match answer {
        Ok(envelope) => envelope.message,
        Err(failure) if failure.is_code(code::NO_MESSAGE) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let decode = |text: &str| {
        data_encoding::BASE64.decode(text.as_bytes()).map_err(|e| ApiError::Unreadable(format!("base64: {e}")))
    };
    let time = OffsetDateTime::parse(&message.time, &Rfc3339).map_err(|e| ApiError::Unreadable(e.to_string()))?;
    Ok(Some(StoredMessage {
        mark: Mark {
            sequence: message.seq,
            published_ns: i64::try_from(time.unix_timestamp_nanos()).unwrap_or_default(),
        },
        subject: message.subject,
        headers: decode(&message.hdrs)?,
        payload: decode(&message.data)?,
    }))
}

#[derive(Deserialize)]
struct Envelope {
    message: EncodedMessage,
}

#[derive(Deserialize)]
struct EncodedMessage {
    subject: String,
    seq: u64,
    time: String,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl Api<'_> {
    fn request<T: DeserializeOwned>(&self, what: &str, body: &serde_json::Value) -> Result<T, ApiError> {
        let subject = format!("{}.{what}", self.prefix);
        let answer = self
            .link
            .request(subject, body.to_string(), self.within, self.stop)
            .map_err(|gone| ApiError::NoAnswer(gone.0))?;
        if answer.is_no_responders() {
            return Err(ApiError::NoResponders);
        }
        read(&answer.data)
    }

    pub(super) fn account(&self) -> Result<AccountInfo, ApiError> {
        self.request("INFO", &json!({}))
    }

    pub(super) fn stream(&self, name: &str) -> Result<StreamInfo, ApiError> {
        self.request(&format!("STREAM.INFO.{name}"), &json!({}))
    }

    /// The subjects of the messages that the stream has. `None` where there are more than `most`.
    pub(super) fn subjects(&self, name: &str, most: u64) -> Result<Option<Vec<String>>, ApiError> {
        let stream: StreamInfo = self.request(&format!("STREAM.INFO.{name}"), &json!({ "subjects_filter": ">" }))?;
        let few = stream.state.num_subjects <= most;
        Ok(few.then(|| stream.state.subjects.into_iter().flatten().map(|(subject, _)| subject).collect()))
    }

    /// Which sequences from the first to the last have no message, beside the state that this is true of.
    pub(super) fn deleted(&self, name: &str) -> Result<(StreamState, Gaps), ApiError> {
        let mut stream: StreamInfo = self.request(&format!("STREAM.INFO.{name}"), &deleted_details())?;
        let deleted = stream.state.deleted.take().unwrap_or_default();
        Ok((stream.state, deleted.into_iter().filter_map(|sequence| Gap::of(sequence, sequence)).collect()))
    }

    /// Makes a stream kept on disk, with the server's defaults for the rest.
    pub(super) fn create_stream(&self, name: &str, subjects: &[String]) -> Result<StreamInfo, ApiError> {
        let config = json!({
            "name": name, "subjects": subjects, "storage": "file", "retention": "limits", "discard": "old",
            "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msg_size": -1, "num_replicas": 1,
        });
        self.request(&format!("STREAM.CREATE.{name}"), &config)
    }

    pub(super) fn delete_stream(&self, name: &str) -> Result<(), ApiError> {
        let _: serde_json::Value = self.request(&format!("STREAM.DELETE.{name}"), &json!({}))?;
        Ok(())
    }

    pub(super) fn create_consumer(
        &self,
        stream: &str,
        name: &str,
        config: &ConsumerConfig,
    ) -> Result<ConsumerInfo, ApiError> {
        let body = json!({ "stream_name": stream, "config": config, "action": "create" });
        self.request(&format!("CONSUMER.CREATE.{stream}.{name}"), &body)
    }

    pub(super) fn consumer(&self, stream: &str, name: &str) -> Result<ConsumerInfo, ApiError> {
        self.request(&format!("CONSUMER.INFO.{stream}.{name}"), &json!({}))
    }

    /// Has a consumer deliver from this sequence on, as if it were new, and stand for what it has not delivered before; server
    /// 2.14 and later. An older one does not answer.
    pub(super) fn reset_consumer(&self, stream: &str, name: &str, next: u64) -> Result<ConsumerInfo, ApiError> {
        self.request(&format!("CONSUMER.RESET.{stream}.{name}"), &json!({ "seq": next }))
    }

    pub(super) fn delete_consumer(&self, stream: &str, name: &str) -> Result<(), ApiError> {
        let _: serde_json::Value = self.request(&format!("CONSUMER.DELETE.{stream}.{name}"), &json!({}))?;
        Ok(())
    }

    /// The names of all consumers of a stream.
    pub(super) fn consumer_names(&self, stream: &str) -> Result<Vec<String>, ApiError> {
        #[derive(Deserialize)]
        struct Page {
            total: usize,
            #[serde(default)]
            consumers: Option<Vec<String>>,
        }
        let mut names = Vec::new();
        loop {
            let offset = json!({ "offset": names.len() });
            let page: Page = self.request(&format!("CONSUMER.NAMES.{stream}"), &offset)?;
            let found = page.consumers.unwrap_or_default();
            let ended = found.is_empty();
            names.extend(found);
            if ended || names.len() >= page.total {
                return Ok(names);
            }
        }
    }

    /// A message as it lies in the stream, read without the client touching its headers. `None` where there is none.
    pub(super) fn message(&self, stream: &str, which: &MessageQuery<'_>) -> Result<Option<StoredMessage>, ApiError> {
        let body = which.request();
        stored(self.request(&format!("STREAM.MSG.GET.{stream}"), &body))
    }
}
