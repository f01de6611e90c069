//! Requests in, replies out: a connection that answers, made anew whenever it is lost.
//!
//! Whoever answers takes requests from a [`RequestHandler`] and gives replies to an [`ReplyQueue`]. At most once: a request that comes while
//! there is no connection meets nobody, and a reply that cannot be sent is gone. Whoever asks has a time-out.

mod ear;
mod listener;
mod reply_queue;
mod session;
mod streams;
mod unsent;

use nats::{HeaderMap, Message};

pub use listener::Listener;
pub use reply_queue::{AddressedReply, ReplyQueue};

use super::headers;
use crate::subject;

/// Which requests to listen for.
#[derive(Clone, Debug, Default)]
pub struct Subjects {
    /// Each request here is for one of all who listen in the same group.
    pub shared: Vec<String>,
    /// The group.
    pub group: String,
    /// Each request here is for everybody who listens.
    pub everybody: Vec<String>,
}

/// A message that asks for a reply.
#[derive(Debug)]
pub struct Request {
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Where its reply goes: one subject, none of the server's own.
    pub reply: String,
    headers: Option<HeaderMap>,
}

impl Request {
    /// What a message asks.
    fn of(message: Message) -> Result<Self, String> {
        let Message { subject, headers, data: payload, reply, .. } = message;
        let reply = reply.ok_or("it names no subject for the reply")?;
        answerable(&reply)?;
        Ok(Self { subject, payload, reply, headers })
    }

    /// Its headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        headers::pairs(self.headers.as_ref())
    }

    /// How many headers it has.
    #[must_use]
    pub fn count_headers(&self) -> usize {
        self.headers().count()
    }

    /// Bytes it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        /// Allocations, lengths, its place in a channel.
        const OVERHEAD: usize = 256;
        OVERHEAD + self.subject.len() + self.reply.len() + self.payload.len() + headers::memory(self.headers.as_ref())
    }
}

/// Takes requests. Called on the thread that listens, so it does not block.
pub trait RequestHandler {
    /// Keeps the request for somebody who answers it later, or answers it at once.
    fn handle(&mut self, request: Request) -> Option<AddressedReply>;
}

/// What is said in reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The payload.
    pub body: Vec<u8>,
    /// Why this is no answer.
    pub failure: Option<ServiceError>,
}

/// Why there is no answer: what ADR-32 has headers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceError {
    /// As HTTP's.
    pub code: u16,
    /// For people.
    pub reason: String,
}

impl ServiceError {
    /// The header of its reason: <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md>.
    pub(super) const REASON: &str = "Nats-Service-Error";
    /// The header of its code.
    pub(super) const CODE: &str = "Nats-Service-Error-Code";
}

impl Reply {
    /// An answer.
    #[must_use]
    pub fn answer(body: Vec<u8>) -> Self {
        Self { body, failure: None }
    }

    /// A failure, which stands in the payload too for those who do not look at headers: `{"code":404,"error":"…"}`.
    #[must_use]
    pub fn failure(code: u16, reason: impl Into<String>) -> Self {
        let reason = one_line(&reason.into());
        let body = serde_json::json!({ "code": code, "error": reason }).to_string().into_bytes();
        Self { body, failure: Some(ServiceError { code, reason }) }
    }

    fn headers(&self) -> Option<HeaderMap> {
        let failure = self.failure.as_ref()?;
        let (code, reason) = (failure.code.to_string(), one_line(&failure.reason));
        Some([(ServiceError::CODE, code.as_str()), (ServiceError::REASON, reason.as_str())].into_iter().collect())
    }

    /// What it counts against the server's `max_payload`.
    fn wire_size(&self) -> usize {
        /// `NATS/1.0`, its line end, and the one behind the last header.
        const FRAME: usize = 12;
        let headers = self.headers();
        let lines = headers::pairs(headers.as_ref()).map(|(name, value)| name.len() + value.len() + 3).sum::<usize>();
        self.body.len() + if headers.is_some() { FRAME + lines } else { 0 }
    }
}

/// Fit for a header: no line breaks nor other control characters, and not too long.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 1_000;
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}

/// Whether a reply may be published there. Never where the server itself listens: it would take our word for an order.
///
/// # Errors
///
/// One line that says why not.
pub fn answerable(reply: &str) -> Result<(), String> {
    subject::validate(reply).map_err(|error| error.to_string())?;
    if reply.starts_with('$') {
        return Err(format!("the subject {reply:?} is the server's own"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reply_goes_where_the_server_listens_nor_to_many() {
        for reply in ["_INBOX.a.b", "_R_.x", "inbox.me.1"] {
            assert_eq!(answerable(reply), Ok(()), "{reply}");
        }
        for reply in
            ["$JS.API.STREAM.DELETE.EVENTS", "$SYS.REQ.SERVER.PING", "$SRV.PING", "a.*", ">", "", "a..b", "a b\r\nPUB"]
        {
            assert!(answerable(reply).is_err(), "{reply}");
            let message = Message::new("q", Some(reply), "", None);
            assert!(Request::of(message).is_err());
        }
        assert!(Request::of(Message::new("q", None, "", None)).is_err());
    }

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
}
