//! What an application hands over: a subject, headers and a payload.

use serde::Serialize;

use crate::subject;

/// The largest event: twice what the largest server takes. SQLite takes rows of 1,000,000,000 bytes, and as JSON headers may be
/// six times as long.
const LARGEST: usize = 128 << 20;

/// Something that happened, to be recorded.
///
/// The subject is a NATS subject (tokens separated by dots); on the direct path it is stored as it stands. The payload
/// is any bytes: text is kept as text, anything else as a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    subject: String,
    id: Option<String>,
    headers: Vec<(String, String)>,
    payload: Vec<u8>,
}

impl Event {
    /// An event with this subject and payload, without headers.
    pub fn new(subject: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self { subject: subject.into(), id: None, headers: Vec::new(), payload: payload.into() }
    }

    /// An event whose payload is `value` as JSON.
    ///
    /// # Errors
    ///
    /// When `value` cannot be written as JSON, a map with keys that are no strings for instance.
    pub fn json(subject: impl Into<String>, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::new(subject, serde_json::to_vec(value)?))
    }

    /// Adds a header. A name may stand several times, each with its value.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the identity by which a stream recognises the same event sent twice (the `Nats-Msg-Id` header, see
    /// <https://docs.nats.io/using-nats/developer/develop_jetstream/model_deep_dive#message-deduplication>). Without
    /// one, a recorder makes one up, which covers its own repetitions but not those of the application.
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

    /// Bytes of subject, headers and payload: what counts against a recorder's buffer. A header counts 128 more than its name and
    /// its value are long, which it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        const HEADER: usize = 128;
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + HEADER).sum();
        self.subject.len() + self.id.as_ref().map_or(0, String::len) + headers + self.payload.len()
    }

    /// Says what a server, a client or the database would choke on: an empty or wildcard subject, white space or control
    /// characters in it, line breaks in a header (they would smuggle in headers of their own), a name that no header can have,
    /// more than 128 MiB.
    ///
    /// # Errors
    ///
    /// One line that names the part and what is wrong with it.
    pub fn validate(&self) -> Result<(), String> {
        subject::validate(&self.subject)?;
        if self.size() > LARGEST {
            return Err(format!("it has {} bytes; an event has {LARGEST} at most", self.size()));
        }
        if let Some(id) = &self.id {
            validate_header("Nats-Msg-Id", id)?;
            if id.trim() != id || id.is_empty() {
                return Err(format!("the id {id:?} is empty or has white space at its ends"));
            }
        }
        if self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Nats-Msg-Id")) {
            return Err("the header Nats-Msg-Id is the event's identity; give it with Event::id".into());
        }
        self.headers.iter().try_for_each(|(name, value)| validate_header(name, value))
    }
}

fn validate_header(name: &str, value: &str) -> Result<(), String> {
    // RFC 9110's token characters, less none: NATS takes the same (ADR-4).
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        return Err(format!("the header name {name:?} has characters that no header name can have"));
    }
    if value.contains(['\r', '\n']) {
        return Err(format!("the value of header {name} has a line break"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(event: &Event) -> String {
        event.validate().expect_err("must be refused")
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
    fn what_no_row_holds_is_refused() {
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
}
