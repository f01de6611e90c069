//! The event that an application records: a subject, headers and a payload.

use std::fmt;

use serde::Serialize;

use crate::{event_id, printable, subject};

/// The largest event in bytes: twice the largest that a server accepts. SQLite accepts rows of 1,000,000,000 bytes, and headers
/// can be six times as long when they are stored as JSON.
const LARGEST: usize = 128 << 20;

/// An event to be recorded.
///
/// The subject is a NATS subject: tokens separated by dots. A direct recorder stores it unchanged. The payload is any bytes: UTF-8
/// is stored as text, anything else as a blob.
///
/// `Debug` shows the payload's beginning and its size.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Event {
    subject: String,
    id: Option<String>,
    headers: Vec<(String, String)>,
    payload: Vec<u8>,
}

impl Event {
    /// An event with this subject and payload, without headers. Nothing is checked here: a recorder checks the event when it is
    /// recorded, and [`Event::validate`] does at any time.
    pub fn new(subject: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self { subject: subject.into(), id: None, headers: Vec::new(), payload: payload.into() }
    }

    /// An event whose payload is `value` as JSON. The subject is checked when the event is recorded.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when `value` cannot be written as JSON, for instance a map whose keys are not strings.
    pub fn json(subject: impl Into<String>, value: &impl Serialize) -> Result<Self, InvalidEvent> {
        let subject = subject.into();
        match serde_json::to_vec(value) {
            Ok(payload) => Ok(Self::new(subject, payload)),
            Err(error) => {
                Err(InvalidEvent::new(format!("the payload for {subject:?} cannot be written as JSON: {error}")))
            }
        }
    }

    /// Adds a header. A name may be added several times, each time with a value of its own. `Nats-Msg-Id` is refused here: set it
    /// with [`Event::id`].
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the identity by which a stream recognises that an event was sent twice (the `Nats-Msg-Id` header, see
    /// <https://docs.nats.io/using-nats/developer/develop_jetstream/model_deep_dive#message-deduplication>). Without it, a
    /// recorder makes an identity: then the stream recognises what the recorder sends twice, but not what the application records
    /// twice.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The subject.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The identity given with [`Event::id`].
    #[must_use]
    pub fn given_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The headers, in the order they were added, without the identity.
    #[must_use]
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The size in bytes that counts against a recorder's buffer: subject, payload and headers, the identity among them. Each header
    /// counts 128 bytes more than its name and value, for the memory it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        size(&self.subject, self.all_headers(), &self.payload)
    }

    /// The headers as they are stored: the identity too, where one was given.
    pub(crate) fn all_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let id = self.id.as_deref().map(|id| (event_id::HEADER, id));
        id.into_iter().chain(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Checks for everything that a server, a client or the database could not process. Recorders call this. Does not block. Refused are:
    ///
    /// - a subject that is empty, contains wildcards, white space or control characters, or begins with `$JS.` or `$SYS.`;
    /// - a header name with characters that no header name can have, and the headers `Nats-Msg-Id` (see [`Event::id`]) and
    ///   `Catchment-Event`, which is the recorder's own;
    /// - an identity that is empty, or has white space at its ends;
    /// - a line break in a header, which could add other headers;
    /// - more than 128 MiB.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`], which names the part and what is wrong with it.
    pub fn validate(&self) -> Result<(), InvalidEvent> {
        subject::validate(&self.subject).map_err(|invalid| InvalidEvent::new(invalid.to_string()))?;
        if self.size() > LARGEST {
            let detail = format!("it has {} bytes; an event has {LARGEST} at most", self.size());
            return Err(InvalidEvent::new(detail));
        }
        if let Some(id) = &self.id {
            validate_header(event_id::HEADER, id)?;
            if id.is_empty() {
                return Err(InvalidEvent::new("the id is empty"));
            }
            if id.trim() != id {
                return Err(InvalidEvent::new(format!("the id {id:?} has white space at its ends")));
            }
        }
        let has = |header: &str| self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header));
        if has(event_id::HEADER) {
            let invalid = InvalidEvent::new("the header Nats-Msg-Id is the event's identity");
            return Err(InvalidEvent { remedy: Some("give it with Event::id"), ..invalid });
        }
        // A second event with the same number would be taken for the first one sent again.
        if has(event_id::NUMBER_HEADER) {
            let invalid = InvalidEvent::new("the header Catchment-Event is the recorder's number of the event");
            return Err(InvalidEvent { remedy: Some("leave it out"), ..invalid });
        }
        self.headers.iter().try_for_each(|(name, value)| validate_header(name, value))
    }
}

/// The size of an event with these parts.
pub(crate) fn size<'h>(subject: &str, headers: impl Iterator<Item = (&'h str, &'h str)>, payload: &[u8]) -> usize {
    const HEADER: usize = 128;
    let headers: usize = headers.map(|(name, value)| name.len() + value.len() + HEADER).sum();
    subject.len() + headers + payload.len()
}

/// Not the whole payload: errors have events in them, and programs log errors.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        let Self { subject, id, headers, payload } = self;
        let begin = &payload[..payload.len().min(SHOWN)];
        let more = if payload.len() > SHOWN { "…" } else { "" };
        let shown = format!("{:?}{more} ({} bytes)", String::from_utf8_lossy(begin), payload.len());
        let mut event = f.debug_struct("Event");
        event.field("subject", subject).field("id", id).field("headers", headers);
        event.field("payload", &format_args!("{shown}")).finish()
    }
}

/// Why an event cannot be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidEvent {
    detail: String,
    remedy: Option<&'static str>,
}

impl InvalidEvent {
    pub(crate) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), remedy: None }
    }

    /// The part that is not valid, and what is wrong with it: one line.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What to do about it, where the detail does not already say it. The message contains it too.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.remedy
    }
}

impl fmt::Display for InvalidEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.detail))?;
        self.remedy.map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

impl std::error::Error for InvalidEvent {}

fn validate_header(name: &str, value: &str) -> Result<(), InvalidEvent> {
    // The token characters of RFC 9110. NATS accepts the same (ADR-4).
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() {
        return Err(InvalidEvent::new(format!("the header with the value {value:?} has no name")));
    }
    if !name.chars().all(is_token) {
        let detail = format!("the header name {name:?} has characters that no header name can have");
        return Err(InvalidEvent::new(detail));
    }
    if value.contains(['\r', '\n']) {
        return Err(InvalidEvent::new(format!("the value of header {name} has a line break")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(event: &Event) -> String {
        event.validate().expect_err("must be refused").to_string()
    }

    #[test]
    fn a_plain_event_is_valid() {
        assert_eq!(Event::new("events.hello", "x").header("Trace-Id", "a b").id("17").validate(), Ok(()));
    }

    #[test]
    fn subjects_that_no_event_can_have_are_refused() {
        for subject in ["", ".", "a..b", "a.", "a b", "a\tb", "a.*", ">", "a.\r\nPUB x", "$JS.API.STREAM.DELETE.EVENTS"]
        {
            assert!(Event::new(subject, "").validate().is_err(), "{subject:?}");
        }
        assert!(refusal(&Event::new("x".repeat(3000), "")).contains("longer than 2048"));
    }

    #[test]
    fn an_event_too_large_for_a_row_is_refused() {
        let refused = refusal(&Event::new("a", vec![0; LARGEST]));
        assert_eq!(refused, "it has 134217729 bytes; an event has 134217728 at most");
        assert_eq!(Event::new("a", vec![0; LARGEST - 1]).validate(), Ok(()));
    }

    #[test]
    fn a_header_cannot_smuggle_in_another() {
        assert!(refusal(&Event::new("a", "").header("X", "1\r\nNats-Msg-Id: 2")).contains("line break"));
        assert!(refusal(&Event::new("a", "").header("X: 1\r\nY", "1")).contains("header name"));
        assert!(refusal(&Event::new("a", "").id("1\n2")).contains("line break"));
    }

    #[test]
    fn headers_by_which_events_are_recognised_are_refused() {
        for (name, remedy) in [("Nats-Msg-Id", "give it with Event::id"), ("catchment-event", "leave it out")] {
            let refused = Event::new("a", "").header(name, "mine-5").validate().expect_err("must be refused");
            assert_eq!(refused.remedy(), Some(remedy), "{refused}");
        }
    }

    #[test]
    fn debug_shows_the_beginning_of_a_payload() {
        let shown = format!("{:?}", Event::new("a.b", "x".repeat(100)).id("7"));
        let begin = "x".repeat(64);
        let expected =
            format!("Event {{ subject: \"a.b\", id: Some(\"7\"), headers: [], payload: \"{begin}\"… (100 bytes) }}");
        assert_eq!(shown, expected);
        assert!(format!("{:?}", Event::new("a", "x")).ends_with("payload: \"x\" (1 bytes) }"));
    }

    #[test]
    fn a_value_that_is_no_json_is_refused_with_its_subject() {
        let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
        let refused = Event::json("a.b", &keys).expect_err("must be refused").to_string();
        assert_eq!(refused, "the payload for \"a.b\" cannot be written as JSON: key must be a string");
        assert_eq!(Event::json("a.b", &[1, 2]).expect("JSON").payload(), b"[1,2]");
    }

    #[test]
    fn an_identity_is_no_header() {
        let invalid = Event::new("a", "").header("nats-msg-id", "1").validate().expect_err("must be refused");
        assert_eq!(invalid.remedy(), Some("give it with Event::id"));
        assert_eq!(invalid.to_string(), format!("{}; give it with Event::id", invalid.detail()));
    }
}
