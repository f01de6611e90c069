//! Searches a stream for events by their identity. Used where sending an event again could store it twice.

use std::collections::HashMap;
use std::time::Instant;

use crossbeam_channel::Receiver;
use nats::Message;

use super::api::{self, Api};
use super::api_types::MessageQuery;
use crate::broker::connection::Link;
use crate::broker::publishing::{Acknowledgement, PublishResult};
use crate::event_id::{self, in_payload};

/// The number of sequences at the stream's end that are searched.
const MAX_SEQUENCES: u64 = 20_000;

/// The number of requests without an answer at a time.
const MAX_REQUESTS: u64 = 500;

/// A search on a connection that is used for nothing else.
pub(super) struct MessageSearch<'a> {
    pub(super) api: &'a Api<'a>,
    /// Ready when the server denies a request.
    pub(super) denied: &'a Receiver<()>,
    pub(super) until: Instant,
}

impl MessageSearch<'_> {
    /// Searches these streams for messages with these identities. Returns the events found, by their numbers. In the
    /// stream of `after`, sequences up to that one are skipped. An event that is not found may still be in transit.
    pub(super) fn run(
        &self,
        streams: &[String],
        after: Option<&(String, u64)>,
        numbers: &HashMap<String, u64>,
    ) -> Vec<PublishResult> {
        let mut found = Vec::new();
        for (index, stream) in streams.iter().enumerate() {
            let mut search =
                StreamSearch { stream, token: format!("get-{index}-"), numbers, missing: 0, found: Vec::new() };
            self.search_stream(&mut search, after_in(stream, after));
            found.append(&mut search.found);
        }
        found
    }

    /// Searches one stream after this sequence.
    fn search_stream(&self, search: &mut StreamSearch<'_>, after: u64) {
        let Ok(info) = self.api.stream(search.stream) else { return };
        let last = info.state.last_seq;
        // A stream that was created again starts at sequence 1.
        let after = if after > last { 0 } else { after };
        let mut next = (after + 1).max(info.state.first_seq).max(last.saturating_sub(MAX_SEQUENCES) + 1);
        while next <= last && search.found.len() < search.numbers.len() {
            let end = last.min(next + MAX_REQUESTS - 1);
            if !self.search_range(search, next, end) {
                break;
            }
            next = end + 1;
        }
    }

    /// Searches these sequences. `false` if not all answers were received.
    fn search_range(&self, search: &mut StreamSearch<'_>, first: u64, last: u64) -> bool {
        let Api { link, prefix, stop, .. } = self.api;
        for sequence in first..=last {
            let subject = format!("{prefix}.STREAM.MSG.GET.{}", search.stream);
            let body = MessageQuery::Sequence(sequence).request().to_string();
            link.publish(subject, &format!("{}{sequence}", search.token), body);
        }
        search.missing = last - first + 1;
        while search.missing > 0 {
            let Some(message) = self.next(link, stop.map(crate::pipeline::Signal::channel)) else { return false };
            search.handle(&message.subject, &message.data);
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

/// The sequence of this stream up to which nothing must be searched.
fn after_in(stream: &str, after: Option<&(String, u64)>) -> u64 {
    after.filter(|(of, _)| of == stream).map_or(0, |(_, sequence)| *sequence)
}

/// The requests to one stream, and the events found.
struct StreamSearch<'a> {
    stream: &'a str,
    /// The prefix of the last token of their reply subjects. Each stream has its own: after an incomplete search, its
    /// answers may be received during the search of the next stream.
    token: String,
    numbers: &'a HashMap<String, u64>,
    /// Requests without an answer.
    missing: u64,
    found: Vec<PublishResult>,
}

impl StreamSearch<'_> {
    /// Handles a message sent to this subject. Ignores it if it does not answer one of these requests.
    fn handle(&mut self, subject: &str, data: &[u8]) {
        if !subject.rsplit('.').next().is_some_and(|token| token.starts_with(&self.token)) {
            return;
        }
        self.missing = self.missing.saturating_sub(1);
        let Some((sequence, ids)) = identities(data) else { return };
        if let Some(number) = ids.iter().find_map(|id| self.numbers.get(id)) {
            let (stream, sequence) = (self.stream.to_owned(), Some(sequence));
            let taken = Acknowledgement::ByStream { stream, sequence, duplicate: false };
            self.found.push(PublishResult { number: *number, result: Ok(taken) });
        }
    }
}

/// Sequence of a message in the server's JSON, and what may identify it: its identity, and the number of its recorder.
fn identities(data: &[u8]) -> Option<(u64, Vec<String>)> {
    let mut stored = api::parse_stored_message(data).ok()??;
    let headers = String::from_utf8_lossy(&stored.headers);
    let headers = || headers.lines().filter_map(|line| line.split_once(':'));
    let (in_payload, _) = in_payload::take(&stored.subject, headers, &mut stored.payload);
    // The server deduplicates by exactly this name.
    let in_headers = headers().filter(|(name, _)| matches!(*name, event_id::HEADER | event_id::NUMBER_HEADER));
    let ids = in_headers.map(|(_, value)| value.trim()).chain(in_payload);
    Some((stored.mark.sequence, ids.map(str::to_owned).collect()))
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
        let mut search =
            StreamSearch { stream: "B", token: "get-1-".into(), numbers: &numbers, missing: 2, found: Vec::new() };
        let data = message("NATS/1.0\r\nNats-Msg-Id: id-3\r\n\r\n");
        for other in ["_INBOX.get-1-x.get-0-7", "_INBOX.x.get-11-7", "_INBOX.x.stream-E"] {
            search.handle(other, data.as_bytes());
        }
        assert_eq!((search.missing, search.found.len()), (2, 0));
        search.handle("_INBOX.x.get-1-7", data.as_bytes());
        let taken = Acknowledgement::ByStream { stream: "B".into(), sequence: Some(7), duplicate: false };
        assert_eq!((search.missing, &search.found[0].result), (1, &Ok(taken)));
    }

    #[test]
    fn a_sequence_of_one_stream_says_nothing_of_another() {
        let after = ("A".to_owned(), 100);
        assert_eq!((after_in("A", Some(&after)), after_in("B", Some(&after)), after_in("A", None)), (100, 0, 0));
    }

    #[test]
    fn the_identity_of_a_message_is_read_from_its_headers() {
        let with = message("NATS/1.0\r\nTrace-Id: 1\r\nnats-msg-id: other\r\nNats-Msg-Id: id-3\r\n\r\n");
        assert_eq!(identities(with.as_bytes()), Some((7, vec!["id-3".into()])));
        let with = message("NATS/1.0\r\nNats-Msg-Id: id-3\r\nCatchment-Event: r-4\r\n\r\n");
        assert_eq!(identities(with.as_bytes()), Some((7, vec!["id-3".into(), "r-4".into()])));
        assert_eq!(identities(message("NATS/1.0\r\nTrace-Id: 1\r\n\r\n").as_bytes()), Some((7, Vec::new())));
        assert_eq!(identities(br#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#), None);
        let bare = br#"{"message":{"subject":"a","seq":1,"time":"2026-01-01T00:00:00Z"}}"#;
        assert_eq!(identities(bare), Some((1, Vec::new())));
    }

    #[test]
    fn the_number_of_a_message_is_read_from_its_payload() {
        let with = |published: &str| {
            let payload = in_payload::add("r-4", published, br#"{"a":1}"#).expect("an object");
            let data = data_encoding::BASE64.encode(&payload);
            json!({ "message": { "subject": "a", "seq": 7, "data": data, "time": "2026-01-01T00:00:00Z" } }).to_string()
        };
        assert_eq!(identities(with("a").as_bytes()), Some((7, vec!["r-4".into()])));
        assert_eq!(identities(with("b").as_bytes()), Some((7, Vec::new())), "a copy of an event of another subject");
    }
}
