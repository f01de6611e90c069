//! Looks for events in a stream by their identity, where sending them again could store them twice.

use std::collections::HashMap;
use std::time::Instant;

use crossbeam_channel::Receiver;
use nats::Message;
use serde::Deserialize;
use serde_json::json;

use super::api::{self, Api};
use crate::broker::connection::Link;
use crate::broker::publisher::{Taken, Verdict};

/// The last sequences of a stream that are looked at, at most.
const MOST: u64 = 20_000;

/// Requests under way at a time.
const AT_ONCE: u64 = 500;

/// A search over one connection on which nothing else is under way.
pub(super) struct Search<'a> {
    pub(super) api: &'a Api<'a>,
    /// Ready when the server does not let us ask.
    pub(super) denied: &'a Receiver<()>,
    pub(super) until: Instant,
}

impl Search<'_> {
    /// Looks behind this sequence for messages with these identities; returns what it found, under the events' numbers. What is
    /// not found may still be on its way.
    pub(super) fn run(&self, stream: &str, after: u64, numbers: &HashMap<String, u64>) -> Vec<Verdict> {
        let mut found = Vec::new();
        let Ok(info) = self.api.stream(stream) else { return found };
        let last = info.state.last_seq;
        // One that was made anew begins again.
        let after = if after > last { 0 } else { after };
        let mut next = (after + 1).max(info.state.first_seq).max(last.saturating_sub(MOST) + 1);
        while next <= last && found.len() < numbers.len() {
            let end = last.min(next + AT_ONCE - 1);
            if !self.look_at(stream, next, end, numbers, &mut found) {
                break;
            }
            next = end + 1;
        }
        found
    }

    /// Looks at these sequences; `false` when it came to no end.
    fn look_at(
        &self,
        stream: &str,
        first: u64,
        last: u64,
        numbers: &HashMap<String, u64>,
        found: &mut Vec<Verdict>,
    ) -> bool {
        let Api { link, prefix, stop, .. } = self.api;
        for sequence in first..=last {
            let body = json!({ "seq": sequence }).to_string();
            link.publish(format!("{prefix}.STREAM.MSG.GET.{stream}"), &format!("get-{sequence}"), body);
        }
        let mut missing = last - first + 1;
        while missing > 0 {
            let Some(message) = self.next(link, stop.map(crate::pipeline::Signal::channel)) else { return false };
            if !message.subject.contains(".get-") {
                continue;
            }
            missing -= 1;
            let Some((sequence, id)) = identity(&message.data) else { continue };
            if let Some(number) = numbers.get(&id) {
                let taken = Taken::ByStream { stream: stream.to_owned(), sequence, duplicate: false };
                found.push(Verdict { number: *number, result: Ok(taken) });
            }
        }
        true
    }

    fn next(&self, link: &Link, stop: Option<&Receiver<std::convert::Infallible>>) -> Option<Message> {
        let never = crossbeam_channel::never();
        crossbeam_channel::select! {
            recv(link.messages()) -> message => message.ok(),
            recv(stop.unwrap_or(&never)) -> _ => None,
            recv(self.denied) -> _ => None,
            recv(link.lost().channel()) -> _ => None,
            default(self.until.saturating_duration_since(Instant::now())) => None,
        }
    }
}

/// Sequence and identity of a message, as the server gives it.
fn identity(data: &[u8]) -> Option<(u64, String)> {
    #[derive(Deserialize)]
    struct Envelope {
        message: Stored,
    }
    #[derive(Deserialize)]
    struct Stored {
        seq: u64,
        #[serde(default)]
        hdrs: String,
    }
    let stored = api::read::<Envelope>(data).ok()?.message;
    let headers = data_encoding::BASE64.decode(stored.hdrs.as_bytes()).ok()?;
    let headers = String::from_utf8_lossy(&headers);
    let id = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(nats::header::NATS_MSG_ID).then(|| value.trim().to_owned())
    })?;
    Some((stored.seq, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_a_message_is_read_from_its_headers() {
        let message = |headers: &str| {
            let hdrs = data_encoding::BASE64.encode(headers.as_bytes());
            json!({ "message": { "subject": "a", "seq": 7, "hdrs": hdrs, "time": "" } }).to_string()
        };
        let with = message("NATS/1.0\r\nTrace-Id: 1\r\nNats-Msg-Id: id-3\r\n\r\n");
        assert_eq!(identity(with.as_bytes()), Some((7, "id-3".into())));
        assert_eq!(identity(message("NATS/1.0\r\nTrace-Id: 1\r\n\r\n").as_bytes()), None);
        assert_eq!(identity(br#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#), None);
        assert_eq!(identity(br#"{"message":{"subject":"a","seq":1,"time":""}}"#), None);
    }
}
