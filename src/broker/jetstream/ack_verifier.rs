//! Which answers to a published event are a stream's own.
//!
//! Other programs may listen on an event's subject and answer it. Only an answer with the form of a publish acknowledgement
//! counts, and only if the stream that it names exists: the server is asked for a stream that is not known yet, and its
//! verdicts wait for the response. All other answers are passed over, and the stream's own is still waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::api;
use super::api_error::{ApiError, ErrorBody, code};
use super::api_types::StreamInfo;
use super::known_streams::KnownStreams;
use crate::broker::publisher::{Refused, Taken, Verdict};
use crate::config::is_stream_name;

/// Names that were found to be no stream's, at most.
const MAX_REJECTED_NAMES: usize = 100;

/// How the tokens of replies begin to which the server answers our requests.
const STREAM: &str = "stream-";
const BOUND: &str = "bound-";
const SUBJECT: &str = "subject-";

/// An identical event is being stored: <https://github.com/nats-io/nats-server/blob/main/server/errors.json>.
const DUPLICATE_IN_PROCESS: u64 = 10158;

/// Something to publish: a question to the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiRequest {
    pub(super) subject: String,
    /// The last token of its reply.
    pub(super) reply: String,
    pub(super) body: String,
}

/// An answer to an event or to a question.
pub(super) struct Response<'a> {
    /// The last token of the reply that it came to.
    pub(super) token: &'a str,
    /// A status of the server's instead of a payload: `503` when nobody listens.
    pub(super) status: Option<&'a str>,
    pub(super) data: &'a [u8],
}

/// What was asked on one connection and what waits for it.
pub(super) struct AckVerifier {
    known: Arc<KnownStreams>,
    /// What `JetStream`'s requests begin with.
    prefix: String,
    /// How long an answer is waited for.
    timeout: Duration,
    /// Questions to send.
    requests: Vec<ApiRequest>,
    /// Questions without an answer yet: the token of the reply, and when they were asked.
    open: BTreeMap<String, Instant>,
    /// Verdicts that wait until it is known whether their stream is one.
    waiting: BTreeMap<String, Vec<Verdict>>,
    rejected_names: BTreeSet<String>,
    /// Nobody answered some question for now: the server may be just starting.
    needs_retry: bool,
    /// What answered and is no stream, until somebody asks.
    notice: Option<String>,
    noticed: bool,
}

impl AckVerifier {
    pub(super) fn new(known: Arc<KnownStreams>, prefix: String, timeout: Duration) -> Self {
        Self {
            known,
            prefix,
            timeout,
            requests: Vec::new(),
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            rejected_names: BTreeSet::new(),
            needs_retry: false,
            notice: None,
            noticed: false,
        }
    }

    /// Asks the known streams for their settings again, and who takes these subjects: a stream may not be known yet.
    pub(super) fn request_streams(&mut self, subjects: &[String]) {
        self.needs_retry = false;
        for name in self.known.names() {
            self.request_stream_info(&name);
        }
        for (at, subject) in subjects.iter().enumerate() {
            self.request("STREAM.NAMES", format!("{SUBJECT}{at}"), json!({ "subject": subject }).to_string());
        }
    }

    /// Whether some requests have no answer yet.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether to begin again a moment later, for nobody was there to response.
    pub(super) fn needs_retry(&self) -> bool {
        self.needs_retry
    }

    /// Whether there are requests to send.
    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// The requests to send now.
    pub(super) fn requests(&mut self) -> Vec<ApiRequest> {
        std::mem::take(&mut self.requests)
    }

    /// What to say of answers that are no stream's, once.
    pub(super) fn notice(&mut self) -> Option<String> {
        self.notice.take()
    }

    /// Hears an response; returns the verdicts that are certain by now. `subject_of` tells the subject of an event by its
    /// number.
    pub(super) fn handle(
        &mut self,
        response: &Response<'_>,
        subject_of: &dyn Fn(u64) -> Option<String>,
    ) -> Vec<Verdict> {
        if let Ok(number) = response.token.parse() {
            return self.event_result(number, response).into_iter().collect();
        }
        if self.open.remove(response.token).is_none() {
            return Vec::new();
        }
        self.needs_retry |= response.status.is_some();
        if let Some(name) = response.token.strip_prefix(STREAM) {
            self.handle_stream_info(name, response, subject_of)
        } else if let Some(name) = response.token.strip_prefix(BOUND) {
            self.handle_bound_streams(name, response)
        } else {
            for name in bound_streams(response).unwrap_or_default() {
                if !self.known.contains(&name) {
                    self.request_stream_info(&name);
                }
            }
            Vec::new()
        }
    }

    /// What an answer says of the event of this number.
    fn event_result(&mut self, number: u64, response: &Response<'_>) -> Option<Verdict> {
        let refused = |refused| Some(Verdict { number, result: Err(refused) });
        match response.status {
            Some("503") => return refused(Refused::NoStream),
            // Too many requests at the moment, for instance.
            Some(status) => return refused(Refused::ForNow(format!("the server answers with status {status}"))),
            None => {}
        }
        let Some((stream, result)) = parse_ack(response.data) else {
            self.ignore(|| "something that is no stream answers the events".into());
            return None;
        };
        let verdict = Verdict { number, result };
        if self.known.contains(&stream) {
            return Some(verdict);
        }
        if self.rejected_names.contains(&stream) || !is_stream_name(&stream) || self.waiting.len() >= MAX_REJECTED_NAMES
        {
            return None;
        }
        if !self.waiting.contains_key(&stream) {
            self.request_stream_info(&stream);
        }
        self.waiting.entry(stream).or_default().push(verdict);
        None
    }

    fn handle_stream_info(
        &mut self,
        name: &str,
        response: &Response<'_>,
        subject_of: &dyn Fn(u64) -> Option<String>,
    ) -> Vec<Verdict> {
        match parse_response::<StreamInfo>(response) {
            Ok(stream) => {
                self.known.update(name, &stream.config);
                self.release(name)
            }
            Err(failure) if failure.is_code(code::NO_STREAM) && !self.known.contains(name) => {
                let mut waiting = self.waiting.get(name).into_iter().flatten();
                match waiting.find_map(|verdict| subject_of(verdict.number)) {
                    // It may be a stream of another account, if none of this one takes the subject.
                    Some(subject) => {
                        let body = json!({ "subject": subject }).to_string();
                        self.request("STREAM.NAMES", format!("{BOUND}{name}"), body);
                    }
                    None => drop(self.waiting.remove(name)),
                }
                Vec::new()
            }
            Err(failure) => self.accept_unverified(name, &failure.to_string()),
        }
    }

    fn handle_bound_streams(&mut self, name: &str, response: &Response<'_>) -> Vec<Verdict> {
        match bound_streams(response) {
            Ok(bound_streams) if bound_streams.is_empty() => self.accept_unverified(name, "it is not in this account"),
            // It was made a moment ago.
            Ok(bound_streams) if bound_streams.iter().any(|taker| taker == name) => {
                self.accept_unverified(name, "it is new")
            }
            Ok(bound_streams) => {
                self.waiting.remove(name);
                if self.rejected_names.len() < MAX_REJECTED_NAMES {
                    self.rejected_names.insert(name.to_owned());
                }
                let bound_streams = bound_streams.join(", ");
                self.ignore(|| {
                    format!("something answers in the name of stream {name}, which is none ({bound_streams} is)")
                });
                Vec::new()
            }
            Err(failure) => self.accept_unverified(name, &failure.to_string()),
        }
    }

    /// Hears that the server does not let us publish here. Returns whether it was a question of ours, and the verdicts that
    /// waited for its response.
    pub(super) fn handle_denial(&mut self, subject: &str) -> Option<Vec<Verdict>> {
        let question = subject.trim_matches('"').strip_prefix(&self.prefix)?.strip_prefix(".STREAM.")?;
        let of_stream = question.strip_prefix("INFO.").map(|name| format!("{STREAM}{name}"));
        let is_denied = |token: &str| of_stream.as_ref().map_or(!token.starts_with(STREAM), |denied| denied == token);
        Some(self.abandon(|token, _| is_denied(token), "no permission"))
    }

    /// Gives up requests that were not answered in time; returns the verdicts that waited for them.
    pub(super) fn expire(&mut self) -> Vec<Verdict> {
        let timeout = self.timeout;
        if self.open.values().all(|asked| asked.elapsed() < timeout) {
            return Vec::new();
        }
        self.abandon(|_, asked| asked.elapsed() >= timeout, "no answer")
    }

    fn abandon(&mut self, which: impl Fn(&str, &Instant) -> bool, why: &str) -> Vec<Verdict> {
        let given_up = self.open.iter().filter(|(token, asked)| which(token, asked));
        let given_up: Vec<String> = given_up.map(|(token, _)| token.clone()).collect();
        let mut verdicts = Vec::new();
        for token in given_up {
            self.open.remove(&token);
            let name = token.strip_prefix(STREAM).or_else(|| token.strip_prefix(BOUND));
            verdicts.extend(name.map(|name| self.accept_unverified(name, why)).unwrap_or_default());
        }
        verdicts
    }

    fn accept_unverified(&mut self, name: &str, why: &str) -> Vec<Verdict> {
        self.known.insert_unverified(name, why);
        self.release(name)
    }

    fn release(&mut self, name: &str) -> Vec<Verdict> {
        self.waiting.remove(name).unwrap_or_default()
    }

    fn ignore(&mut self, what: impl Fn() -> String) {
        if !std::mem::replace(&mut self.noticed, true) {
            self.notice = Some(format!("{}; only a stream's answers count, and they are waited for", what()));
        }
    }

    fn request_stream_info(&mut self, name: &str) {
        self.request(&format!("STREAM.INFO.{name}"), format!("{STREAM}{name}"), "{}".into());
    }

    fn request(&mut self, what: &str, reply: String, body: String) {
        self.open.insert(reply.clone(), Instant::now());
        self.requests.push(ApiRequest { subject: format!("{}.{what}", self.prefix), reply, body });
    }
}

/// The answer to a question.
fn parse_response<T: serde::de::DeserializeOwned>(response: &Response<'_>) -> Result<T, ApiError> {
    if response.status == Some("503") {
        return Err(ApiError::NoResponders);
    }
    api::parse(response.data)
}

/// The streams that take a subject.
fn bound_streams(response: &Response<'_>) -> Result<Vec<String>, ApiError> {
    #[derive(Deserialize)]
    struct Names {
        #[serde(default)]
        streams: Option<Vec<String>>,
    }
    parse_response::<Names>(response).map(|names| names.streams.unwrap_or_default())
}

/// Reads a publish acknowledgement: <https://docs.nats.io/nats-concepts/jetstream/streams>. `None` for what is none. A refusal
/// names its stream too.
fn parse_ack(data: &[u8]) -> Option<(String, Result<Taken, Refused>)> {
    #[derive(Deserialize)]
    struct Acknowledgement {
        stream: String,
        #[serde(default)]
        seq: u64,
        #[serde(default)]
        duplicate: bool,
        error: Option<ErrorBody>,
    }
    let Acknowledgement { stream, seq, duplicate, error } = serde_json::from_slice(data).ok()?;
    let Some(error) = error else {
        // A cluster says so of a repetition whose first copy it has not stored yet.
        if duplicate && seq == 0 {
            return Some((stream, Err(Refused::ForNow("the stream has not stored its first copy yet".into()))));
        }
        let taken = Taken::ByStream { stream: stream.clone(), sequence: seq, duplicate };
        return (seq > 0).then_some((stream, Ok(taken)));
    };
    if error.code == 0 {
        return None;
    }
    let failure = ApiError::from(error);
    let is_temporary = failure.is_temporary() || failure.is_code(DUPLICATE_IN_PROCESS);
    let refused = if is_temporary { Refused::ForNow } else { Refused::ByServer }(failure.to_string());
    Some((stream, Err(refused)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;

    const MINUTE: Duration = Duration::from_secs(60);

    fn verifier(timeout: Duration) -> AckVerifier {
        AckVerifier::new(Arc::new(KnownStreams::new(&BrokerConfig::default())), "$JS.API".into(), timeout)
    }

    fn handle(verifier: &mut AckVerifier, token: &str, data: &str) -> Vec<Verdict> {
        verifier.handle(&Response { token, status: None, data: data.as_bytes() }, &|_| Some("events.a".into()))
    }

    fn asked(verifier: &mut AckVerifier) -> Vec<String> {
        verifier.requests().into_iter().map(|question| question.subject).collect()
    }

    const INFO: &str = r#"{"config":{"name":"E","retention":"limits","duplicate_window":120000000000},
        "created":"2026-01-01T00:00:00Z","state":{"messages":1,"first_seq":1,"last_seq":1}}"#;
    const NO_STREAM: &str = r#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;

    #[test]
    fn a_streams_verdict_counts_once_the_stream_is_found() {
        let mut verifier = verifier(MINUTE);
        assert!(handle(&mut verifier, "7", r#"{"stream":"E","seq":3}"#).is_empty());
        assert!(handle(&mut verifier, "8", r#"{"stream":"E","seq":4,"duplicate":true}"#).is_empty());
        assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.INFO.E"], "once");
        let numbers: Vec<u64> = handle(&mut verifier, "stream-E", INFO).iter().map(|verdict| verdict.number).collect();
        assert_eq!(numbers, [7, 8]);
        assert_eq!(handle(&mut verifier, "9", r#"{"stream":"E","seq":5}"#).len(), 1);
        assert!(asked(&mut verifier).is_empty() && !verifier.is_open());
    }

    #[test]
    fn answers_that_are_no_streams_are_passed_over() {
        let mut verifier = verifier(MINUTE);
        for answer in [
            "",
            "+ACK",
            "7",
            "{}",
            r#"{"status":"ok"}"#,
            r#"{"error":"busy"}"#,
            r#"{"stream":"E"}"#,
            r#"{"stream":"E","seq":0}"#,
            r#"{"error":{"code":500}}"#,
            r#"{"stream":"E","error":{}}"#,
            r#"{"stream":"a b\r\n","seq":1}"#,
            r#"{"stream":7,"seq":1}"#,
        ] {
            assert!(handle(&mut verifier, "7", answer).is_empty(), "{answer}");
        }
        assert!(asked(&mut verifier).is_empty(), "nothing names a stream");
        assert!(verifier.notice().is_some_and(|notice| notice.contains("no stream")));
        assert!(verifier.notice().is_none(), "said once");
    }

    #[test]
    fn a_name_that_is_no_streams_while_another_takes_the_subject_is_a_strangers() {
        let mut verifier = verifier(MINUTE);
        assert!(handle(&mut verifier, "7", r#"{"stream":"X","seq":7}"#).is_empty());
        assert!(handle(&mut verifier, "stream-X", NO_STREAM).is_empty());
        assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.INFO.X", "$JS.API.STREAM.NAMES"]);
        assert!(handle(&mut verifier, "bound-X", r#"{"streams":["E"]}"#).is_empty());
        assert!(handle(&mut verifier, "8", r#"{"stream":"X","seq":8}"#).is_empty());
        assert!(asked(&mut verifier).is_empty());
        assert!(verifier.notice().is_some_and(|notice| notice.contains("stream X")));
    }

    #[test]
    fn a_stream_of_another_account_counts_where_none_of_this_one_takes_the_subject() {
        let mut verifier = verifier(MINUTE);
        assert!(handle(&mut verifier, "7", r#"{"stream":"X","seq":7}"#).is_empty());
        assert!(handle(&mut verifier, "stream-X", NO_STREAM).is_empty());
        assert_eq!(handle(&mut verifier, "bound-X", r#"{"streams":null}"#).len(), 1);
        assert_eq!(handle(&mut verifier, "8", r#"{"stream":"X","seq":8}"#).len(), 1);
    }

    #[test]
    fn who_may_not_ask_or_gets_no_answer_takes_the_acknowledgement_as_it_is() {
        let mut denied = verifier(MINUTE);
        assert!(handle(&mut denied, "7", r#"{"stream":"E","seq":7}"#).is_empty());
        assert!(denied.handle_denial("\"events.a\"").is_none(), "that is an event's");
        assert_eq!(denied.handle_denial("\"$JS.API.STREAM.INFO.E\"").map(|verdicts| verdicts.len()), Some(1));
        let mut unanswered = verifier(Duration::ZERO);
        assert!(handle(&mut unanswered, "7", r#"{"stream":"E","seq":7}"#).is_empty());
        assert_eq!(unanswered.expire().len(), 1);
        let nobody = Response { token: "8", status: Some("503"), data: b"" };
        let verdicts = unanswered.handle(&nobody, &|_| None);
        assert_eq!(verdicts[0].result, Err(Refused::NoStream));
    }

    #[test]
    fn a_refusal_says_whether_it_may_pass() {
        let refusal = |code: u64, err_code: u64, description: &str| {
            let error = json!({ "code": code, "err_code": err_code, "description": description });
            parse_ack(json!({ "error": error, "stream": "E", "seq": 0 }).to_string().as_bytes())
                .map(|(_, result)| result)
        };
        for (code, err_code, description) in
            [(503, 10077, "insufficient resources"), (409, 10158, "duplicate message id is in process")]
        {
            assert!(matches!(refusal(code, err_code, description), Some(Err(Refused::ForNow(_)))), "{description}");
        }
        let in_process = parse_ack(br#"{"stream":"E","seq":0,"duplicate":true}"#).map(|(_, result)| result);
        assert!(matches!(in_process, Some(Err(Refused::ForNow(_)))));
        let lasting = refusal(400, 10054, "message size exceeds maximum allowed");
        assert!(matches!(lasting, Some(Err(Refused::ByServer(_)))));
    }

    #[test]
    fn before_anything_is_sent_again_the_streams_are_asked() {
        let mut verifier = verifier(MINUTE);
        verifier.request_streams(&["events.a".into()]);
        assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.NAMES"]);
        handle(&mut verifier, "subject-0", r#"{"streams":["E"]}"#);
        assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.INFO.E"]);
        assert!(verifier.is_open());
        handle(&mut verifier, "stream-E", INFO);
        assert!(!verifier.is_open());
        verifier.request_streams(&["events.b".into()]);
        assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.INFO.E", "$JS.API.STREAM.NAMES"], "the known one again");
        assert!(verifier.handle_denial("\"$JS.API.STREAM.NAMES\"").is_some_and(|verdicts| verdicts.is_empty()));
        assert!(verifier.is_open(), "it may ask the stream");
        verifier.handle(&Response { token: "stream-E", status: Some("503"), data: b"" }, &|_| None);
        assert!(verifier.needs_retry() && !verifier.is_open(), "a server that has just started");
    }
}
