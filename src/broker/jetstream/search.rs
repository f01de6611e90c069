//! Looks for events in a stream by their identity, where sending them again could store them twice.

use std::collections::HashMap;
use std::time::Instant;

use crossbeam_channel::Receiver;
use nats::Message;

use super::api::{self, Api, Which};
use crate::broker::connection::Link;
use crate::broker::publishing::{Acknowledgement, PublishResult};

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
    /// Looks in these streams for messages with these identities; returns what it found, under the events' numbers. Only in the
    /// stream that `after` names are the sequences up to that one left out. What is not found may still be on its way.
    pub(super) fn run(
        &self,
        streams: &[String],
        after: Option<&(String, u64)>,
        numbers: &HashMap<String, u64>,
    ) -> Vec<PublishResult> {
        let mut found = Vec::new();
        for (index, stream) in streams.iter().enumerate() {
            let mut lookup = Lookup { stream, token: format!("get-{index}-"), numbers, missing: 0, found: Vec::new() };
            self.look_through(&mut lookup, after_in(stream, after));
            found.append(&mut lookup.found);
        }
        found
    }

    /// Looks in one stream, behind this sequence.
    fn look_through(&self, lookup: &mut Lookup<'_>, after: u64) {
        let Ok(info) = self.api.stream(lookup.stream) else { return };
        let last = info.state.last_seq;
        // One that was made anew begins again.
        let after = if after > last { 0 } else { after };
        let mut next = (after + 1).max(info.state.first_seq).max(last.saturating_sub(MOST) + 1);
        while next <= last && lookup.found.len() < lookup.numbers.len() {
            let end = last.min(next + AT_ONCE - 1);
            if !self.look_at(lookup, next, end) {
                break;
            }
            next = end + 1;
        }
    }

    /// Looks at these sequences; `false` when it came to no end.
    fn look_at(&self, lookup: &mut Lookup<'_>, first: u64, last: u64) -> bool {
        let Api { link, prefix, stop, .. } = self.api;
        for sequence in first..=last {
            let subject = format!("{prefix}.STREAM.MSG.GET.{}", lookup.stream);
            let body = Which::Exactly(sequence).request().to_string();
            link.publish(subject, &format!("{}{sequence}", lookup.token), body);
        }
        lookup.missing = last - first + 1;
        while lookup.missing > 0 {
            let Some(message) = self.next(link, stop.map(crate::pipeline::Signal::channel)) else { return false };
            lookup.hear(&message.subject, &message.data);
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

/// The sequence of this stream up to which nothing has to be looked at.
fn after_in(stream: &str, after: Option<&(String, u64)>) -> u64 {
    after.filter(|(of, _)| of == stream).map_or(0, |(_, sequence)| *sequence)
}

/// The requests to one stream, and what they found.
struct Lookup<'a> {
    stream: &'a str,
    /// What the last token of their replies begins with. Each stream has its own: where the search of one broke off, its answers
    /// may come during the search of the next.
    token: String,
    numbers: &'a HashMap<String, u64>,
    /// Requests without an answer.
    missing: u64,
    found: Vec<PublishResult>,
}

impl Lookup<'_> {
    /// Hears a message to this subject; one that answers none of its requests is passed over.
    fn hear(&mut self, subject: &str, data: &[u8]) {
        if !subject.rsplit('.').next().is_some_and(|token| token.starts_with(&self.token)) {
            return;
        }
        self.missing = self.missing.saturating_sub(1);
        let Some((sequence, id)) = identity(data) else { return };
        if let Some(number) = self.numbers.get(&id) {
            let taken = Acknowledgement::ByStream { stream: self.stream.to_owned(), sequence, duplicate: false };
            self.found.push(PublishResult { number: *number, result: Ok(taken) });
        }
    }
}

/// Sequence and identity of a message, as the server gives it.
fn identity(data: &[u8]) -> Option<(u64, String)> {
    let stored = api::read_stored(data).ok()??;
    let headers = String::from_utf8_lossy(&stored.headers);
    let id = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(nats::header::NATS_MSG_ID).then(|| value.trim().to_owned())
    })?;
    Some((stored.mark.sequence, id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(headers: &str) -> String {
        let hdrs = data_encoding::BASE64.encode(headers.as_bytes());
        let time = "2026-01-01T00:00:00Z";
        json!({ "message": { "subject": "a", "seq": 7, "hdrs": hdrs, "time": time } }).to_string()
    }

    #[test]
    fn late_answers_of_one_stream_say_nothing_of_the_next() {
        let numbers = HashMap::from([("id-3".to_owned(), 3)]);
        let mut lookup =
            Lookup { stream: "B", token: "get-1-".into(), numbers: &numbers, missing: 2, found: Vec::new() };
        let data = message("NATS/1.0\r\nNats-Msg-Id: id-3\r\n\r\n");
        for other in ["_INBOX.get-1-x.get-0-7", "_INBOX.x.get-11-7", "_INBOX.x.stream-E"] {
            lookup.hear(other, data.as_bytes());
        }
        assert_eq!((lookup.missing, lookup.found.len()), (2, 0));
        lookup.hear("_INBOX.x.get-1-7", data.as_bytes());
        let taken = Acknowledgement::ByStream { stream: "B".into(), sequence: 7, duplicate: false };
        assert_eq!((lookup.missing, &lookup.found[0].result), (1, &Ok(taken)));
    }

    #[test]
    fn a_sequence_of_one_stream_says_nothing_of_another() {
        let after = ("A".to_owned(), 100);
        assert_eq!((after_in("A", Some(&after)), after_in("B", Some(&after)), after_in("A", None)), (100, 0, 0));
    }

    #[test]
    fn the_identity_of_a_message_is_read_from_its_headers() {
        let with = message("NATS/1.0\r\nTrace-Id: 1\r\nNats-Msg-Id: id-3\r\n\r\n");
        assert_eq!(identity(with.as_bytes()), Some((7, "id-3".into())));
        assert_eq!(identity(message("NATS/1.0\r\nTrace-Id: 1\r\n\r\n").as_bytes()), None);
        assert_eq!(identity(br#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#), None);
        assert_eq!(identity(br#"{"message":{"subject":"a","seq":1,"time":"2026-01-01T00:00:00Z"}}"#), None);
    }
}
