//! What is sent in reply to a request.

use nats::HeaderMap;

use crate::broker::headers;
use crate::config::BrokerConfig;

/// A reply: an answer, or the reason why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The payload.
    pub body: Vec<u8>,
    /// Why there is no answer, if there is none.
    pub failure: Option<ServiceError>,
    /// The partition whose collector answers; `None` without partitions.
    pub partition: Option<AnsweringPartition>,
}

/// The partition whose collector answers, as the header `Catchment-Partition` has it: `1/4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweringPartition {
    /// Its number, from 0.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl AnsweringPartition {
    pub(in crate::broker) const HEADER: &str = "Catchment-Partition";

    /// That of a collector with these settings.
    pub(super) fn of_settings(config: &BrokerConfig) -> Option<Self> {
        config.partition.zip(config.partitions).map(|(number, of)| Self { number, of })
    }

    /// Reads the header.
    pub(in crate::broker) fn read(header: &str) -> Option<Self> {
        let (number, of) = header.split_once('/')?;
        Some(Self { number: number.parse().ok()?, of: of.parse().ok()? })
    }
}

/// Why there is no answer. ADR-32 defines the headers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceError {
    /// A code as in HTTP.
    pub code: u16,
    /// For people.
    pub reason: String,
}

/// A reply and the subject it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressedReply {
    /// The subject: see [`answerable`](super::answerable).
    pub to: String,
    /// The reply.
    pub reply: Reply,
}

impl ServiceError {
    /// The header of its reason: <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md>.
    pub(in crate::broker) const REASON: &str = "Nats-Service-Error";
    /// The header of its code.
    pub(in crate::broker) const CODE: &str = "Nats-Service-Error-Code";
}

impl Reply {
    /// An answer.
    #[must_use]
    pub fn answer(body: Vec<u8>) -> Self {
        Self { body, failure: None, partition: None }
    }

    /// A failure. The payload has it too, for clients that do not read headers: `{"code":404,"error":"…"}`.
    #[must_use]
    pub fn failure(code: u16, reason: impl Into<String>) -> Self {
        let reason = one_line(&reason.into());
        let body = serde_json::json!({ "code": code, "error": reason }).to_string().into_bytes();
        Self { body, failure: Some(ServiceError { code, reason }), partition: None }
    }

    pub(super) fn headers(&self) -> Option<HeaderMap> {
        let mut headers = Vec::new();
        if let Some(failure) = &self.failure {
            headers.push((ServiceError::CODE, failure.code.to_string()));
            headers.push((ServiceError::REASON, one_line(&failure.reason)));
        }
        if let Some(AnsweringPartition { number, of }) = self.partition {
            headers.push((AnsweringPartition::HEADER, format!("{number}/{of}")));
        }
        (!headers.is_empty()).then(|| headers.iter().map(|(name, value)| (*name, value.as_str())).collect())
    }

    /// The bytes that count against the server's `max_payload`.
    pub(super) fn wire_size(&self) -> usize {
        /// `NATS/1.0`, its line end, and the one behind the last header.
        const FRAME: usize = 12;
        let headers = self.headers();
        let lines = headers::pairs(headers.as_ref()).map(|(name, value)| name.len() + value.len() + 3).sum::<usize>();
        self.body.len() + if headers.is_some() { FRAME + lines } else { 0 }
    }
}

impl AddressedReply {
    /// Bytes it takes in memory.
    pub(super) fn memory(&self) -> usize {
        let reason = self.reply.failure.as_ref().map_or(0, |failure| failure.reason.len());
        size_of::<Self>() + self.to.len() + self.reply.body.len() + reason
    }
}

/// The text as the value of a header: without line breaks and other control characters, and not too long.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 1_000;
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_adds_no_header() {
        let reply = Reply::failure(400, "no\r\nNats-Msg-Id: 7\u{1b}[2J");
        let headers = reply.headers().expect("there are some");
        assert_eq!(headers.get(ServiceError::REASON).map(String::as_str), Some("no Nats-Msg-Id: 7 [2J"));
        assert_eq!(headers.get(ServiceError::CODE).map(String::as_str), Some("400"));
        assert_eq!(reply.body, br#"{"code":400,"error":"no Nats-Msg-Id: 7 [2J"}"#);
        let written = "NATS/1.0\r\nNats-Service-Error:no Nats-Msg-Id: 7 [2J\r\nNats-Service-Error-Code:400\r\n\r\n";
        assert!((written.len() + reply.body.len()..=reply.wire_size()).contains(&reply.wire_size()));
        assert_eq!(Reply::answer(b"[]".to_vec()).wire_size(), 2);
    }

    #[test]
    fn a_reply_names_its_partition() {
        let partition = AnsweringPartition { number: 2, of: 4 };
        let reply = Reply { partition: Some(partition), ..Reply::answer(b"[]".to_vec()) };
        let headers = reply.headers().expect("there is one");
        let header = headers.get(AnsweringPartition::HEADER).expect("it is there");
        assert_eq!((header.as_str(), AnsweringPartition::read(header)), ("2/4", Some(partition)));
        assert!(reply.wire_size() >= "NATS/1.0\r\nCatchment-Partition:2/4\r\n\r\n[]".len());
        assert_eq!((AnsweringPartition::read("2"), AnsweringPartition::read("x/4")), (None, None));
    }
}
