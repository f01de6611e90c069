//! `JetStream`'s requests: <https://docs.nats.io/reference/reference-protocols/nats_api_reference>.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::api_error::{ApiError, ErrorBody, code};
use super::api_types::{
    AccountInfo, ConsumerConfig, ConsumerInfo, MessageQuery, StoredMessage, StreamInfo, StreamState, SubjectTransform,
};
use crate::broker::connection::Link;
use crate::pipeline::{Gap, Gaps, Mark, Signal};

/// The first server with fast batches.
const FAST_BATCHES: (u32, u32) = (2, 14);

/// Requests over a link.
pub(super) struct Api<'a> {
    pub(super) link: &'a Link,
    /// The prefix of the request subjects: `$JS.API` or the configured one.
    pub(super) prefix: String,
    pub(super) timeout: Duration,
    /// Ends the wait for an answer.
    pub(super) stop: Option<&'a Signal>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Response<T> {
    Error { error: ErrorBody },
    Ok(T),
}

/// Parses an answer of the server.
pub(super) fn parse<T: DeserializeOwned>(data: &[u8]) -> Result<T, ApiError> {
    match serde_json::from_slice(data).map_err(|e| ApiError::Unreadable(e.to_string()))? {
        Response::Ok(value) => Ok(value),
        Response::Error { error } => Err(error.into()),
    }
}

/// The body of a stream info request that asks for the list of deleted sequences.
pub(super) fn deleted_details() -> serde_json::Value {
    json!({ "deleted_details": true })
}

/// Parses the answer to a request for a message. `None` if the stream has no such message.
pub(super) fn parse_stored_message(data: &[u8]) -> Result<Option<StoredMessage>, ApiError> {
    to_stored_message(parse(data))
}

fn to_stored_message(answer: Result<Envelope, ApiError>) -> Result<Option<StoredMessage>, ApiError> {
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
            .request(subject, body.to_string(), self.timeout, self.stop)
            .map_err(|gone| ApiError::NoAnswer(gone.0))?;
        if answer.is_no_responders() {
            return Err(ApiError::NoResponders);
        }
        parse(&answer.data)
    }

    pub(super) fn account(&self) -> Result<AccountInfo, ApiError> {
        self.request("INFO", &json!({}))
    }

    pub(super) fn stream(&self, name: &str) -> Result<StreamInfo, ApiError> {
        self.request(&format!("STREAM.INFO.{name}"), &json!({}))
    }

    /// The subjects of the stream's messages. `None` if there are more than `most`.
    pub(super) fn subjects(&self, name: &str, most: u64) -> Result<Option<Vec<String>>, ApiError> {
        let stream: StreamInfo = self.request(&format!("STREAM.INFO.{name}"), &json!({ "subjects_filter": ">" }))?;
        let few = stream.state.num_subjects <= most;
        Ok(few.then(|| stream.state.subjects.into_iter().flatten().map(|(subject, _)| subject).collect()))
    }

    /// The names of the streams that store events published on this subject, or on some of its subjects if it has wildcards.
    pub(super) fn streams_with(&self, subject: &str) -> Result<Vec<String>, ApiError> {
        #[derive(Deserialize)]
        struct Names {
            #[serde(default)]
            streams: Option<Vec<String>>,
        }
        let names: Names = self.request("STREAM.NAMES", &json!({ "subject": subject }))?;
        Ok(names.streams.unwrap_or_default())
    }

    /// The names of all streams of the account; of many, the first page.
    pub(super) fn stream_names(&self) -> Result<Vec<String>, ApiError> {
        #[derive(Deserialize)]
        struct Names {
            #[serde(default)]
            streams: Option<Vec<String>>,
        }
        let names: Names = self.request("STREAM.NAMES", &json!({}))?;
        Ok(names.streams.unwrap_or_default())
    }

    /// The stream's state, and the sequences without a message between its first and last.
    pub(super) fn deleted(&self, name: &str) -> Result<(StreamState, Gaps), ApiError> {
        let mut stream: StreamInfo = self.request(&format!("STREAM.INFO.{name}"), &deleted_details())?;
        let deleted = stream.state.deleted.take().unwrap_or_default();
        Ok((stream.state, deleted.into_iter().filter_map(|sequence| Gap::of(sequence, sequence)).collect()))
    }

    /// Creates a stream on disk that accepts batches, if the server has them; with the server's defaults for everything else.
    pub(super) fn create_stream(
        &self,
        name: &str,
        subjects: &[String],
        transform: Option<&SubjectTransform>,
    ) -> Result<StreamInfo, ApiError> {
        let mut config = json!({
            "name": name, "subjects": subjects, "storage": "file", "retention": "limits", "discard": "old",
            "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msg_size": -1, "num_replicas": 1,
        });
        if let Some(transform) = transform {
            config["subject_transform"] = json!(transform);
        }
        // A server refuses settings that it does not have. The stream may be made by another server than this one.
        if self.link.server().is_at_least(FAST_BATCHES) {
            let mut batched = config.clone();
            batched["allow_batched"] = true.into();
            match self.request(&format!("STREAM.CREATE.{name}"), &batched) {
                Err(ApiError::Refused { .. }) => {}
                answered => return answered,
            }
        }
        self.request(&format!("STREAM.CREATE.{name}"), &config)
    }

    /// Replaces the stream's transform of subjects. Its other settings stay, those too that this program does not have.
    pub(super) fn transform_subjects(&self, name: &str, transform: &SubjectTransform) -> Result<StreamInfo, ApiError> {
        let mut stream: serde_json::Value = self.request(&format!("STREAM.INFO.{name}"), &json!({}))?;
        let mut config = stream["config"].take();
        config["subject_transform"] = json!(transform);
        self.request(&format!("STREAM.UPDATE.{name}"), &config)
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

    /// Resets a consumer: it delivers from this sequence on, like a new one. The stream keeps events for it from there.
    /// Server 2.14 and later; an older server does not answer.
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

    /// A message as the stream stores it. The client does not parse its headers. `None` if there is no such message.
    pub(super) fn message(&self, stream: &str, which: &MessageQuery<'_>) -> Result<Option<StoredMessage>, ApiError> {
        let body = which.request();
        to_stored_message(self.request(&format!("STREAM.MSG.GET.{stream}"), &body))
    }

    /// The first message from this sequence on whose subject one of these filters matches.
    pub(super) fn next_message(
        &self,
        stream: &str,
        filters: &[String],
        from: u64,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let mut next: Option<StoredMessage> = None;
        for filter in filters {
            let found = self.message(stream, &MessageQuery::NextBySubject(filter, from))?;
            next = next.into_iter().chain(found).min_by_key(|stored| stored.mark.sequence);
        }
        Ok(next)
    }
}
