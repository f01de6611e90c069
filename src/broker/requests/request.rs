//! A request, and what handles it.

use nats::{HeaderMap, Message};

use super::reply::AddressedReply;
use crate::broker::headers;
use crate::subject;

/// A message that asks for a reply.
#[derive(Debug)]
pub struct Request {
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// The subject for its reply: a single one, and none of the server's own.
    pub reply: String,
    headers: Option<HeaderMap>,
}

impl Request {
    /// Reads a message as a request; the error is the reason, on one line, why it is not a request.
    pub(super) fn of(message: Message) -> Result<Self, String> {
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
        headers::count(self.headers.as_ref())
    }

    /// Bytes it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        /// Allocations, lengths, its place in a channel.
        const OVERHEAD: usize = 256;
        OVERHEAD + self.subject.len() + self.reply.len() + self.payload.len() + headers::memory(self.headers.as_ref())
    }
}

/// Handles requests. It is called on the thread that receives them, so it must not block.
pub trait RequestHandler {
    /// Queues the request for another thread, or answers it at once.
    fn handle(&mut self, request: Request) -> Option<AddressedReply>;
}

/// Whether a reply may be published on this subject. Never on a subject of the server's own: the server would execute it as a
/// request of ours.
///
/// # Errors
///
/// The reason why not, on one line.
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
    fn no_reply_goes_to_the_server_itself_or_to_many_subjects() {
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
}
