//! Verifies that an answer to a published event comes from a stream.
//!
//! Other programs may subscribe to an event's subject and answer it. An answer counts only if it has the form of a
//! publish acknowledgement and the stream that it names exists. The server is asked for streams that are not known yet;
//! their results wait for that answer. All other answers are ignored, and the event still waits for the stream's
//! answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::api;
use super::api_error::{ApiError, ErrorBody, code};
use super::api_types::StreamInfo;
use super::fast_batch::{BatchAnswer, BatchPlace};
use super::known_streams::KnownStreams;
use super::subject_streams::SubjectStreams;
use crate::broker::publishing::{Acknowledgement, PublishResult, Rejection};
use crate::config::is_stream_name;

/// The number of names to keep that are not a stream's.
const MAX_REJECTED_NAMES: usize = 100;

/// The prefixes of the reply tokens of our requests.
const STREAM: &str = "stream-";
const BOUND: &str = "bound-";
const SUBJECT: &str = "subject-";

/// The error code while an identical event is being stored:
/// <https://github.com/nats-io/nats-server/blob/main/server/errors.json>.
const DUPLICATE_IN_PROCESS: u64 = 10158;

/// A request to the server, to be published.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiRequest {
    pub(super) subject: String,
    /// The last token of its reply subject.
    pub(super) reply: String,
    pub(super) body: String,
}

/// An answer to an event or to a request.
pub(super) struct Response<'a> {
    /// What follows the inbox in the subject that it was sent to.
    pub(super) token: &'a str,
    /// A status of the server instead of a payload: `503` if there is no subscriber.
    pub(super) status: Option<&'a str>,
    pub(super) data: &'a [u8],
}

/// The requests of one connection, and the results that wait for their answers.
pub(super) struct AckVerifier {
    known: Arc<KnownStreams>,
    /// The prefix of `JetStream`'s request subjects.
    prefix: String,
    /// How long to wait for an answer.
    timeout: Duration,
    /// Requests to send.
    requests: Vec<ApiRequest>,
    /// Requests without an answer: the reply token, and when the request was made.
    open: BTreeMap<String, Instant>,
    subjects: SubjectStreams,
    /// The subject of each open request for the streams of a subject, by its reply token.
    asked_subjects: BTreeMap<String, String>,
    /// How many such requests there were.
    subject_requests: u64,
    /// Results that wait until it is known whether their stream exists, by the stream's name.
    waiting: BTreeMap<String, Vec<PublishResult>>,
    rejected_names: BTreeSet<String>,
    /// The first numbers of the last batches that were not stored whole.
    incomplete_batches: BTreeSet<u64>,
    /// Nobody answered some request: the server may be just starting.
    needs_retry: bool,
    /// The warning about answers that are not a stream's, until it is taken.
    notice: Option<String>,
    has_noticed: bool,
}

impl AckVerifier {
    pub(super) fn new(known: Arc<KnownStreams>, prefix: String, timeout: Duration) -> Self {
        Self {
            known,
            prefix,
            timeout,
            requests: Vec::new(),
            open: BTreeMap::new(),
            subjects: SubjectStreams::default(),
            asked_subjects: BTreeMap::new(),
            subject_requests: 0,
            waiting: BTreeMap::new(),
            rejected_names: BTreeSet::new(),
            incomplete_batches: BTreeSet::new(),
            needs_retry: false,
            notice: None,
            has_noticed: false,
        }
    }

    /// Requests the settings of the known streams again, and the streams of these subjects: they may not be known yet.
    pub(super) fn request_streams(&mut self, subjects: &[String]) {
        self.needs_retry = false;
        for name in self.known.names() {
            self.request_stream_info(&name);
        }
        for subject in subjects {
            self.subjects.want(subject);
        }
        self.request_subject_streams();
    }

    /// Whether requests have no answer yet.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether to repeat the requests a moment later, because there was no answer.
    pub(super) fn needs_retry(&self) -> bool {
        self.needs_retry
    }

    /// Whether there are requests to send.
    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// The requests to send now.
    pub(super) fn take_requests(&mut self) -> Vec<ApiRequest> {
        std::mem::take(&mut self.requests)
    }

    /// The warning about answers that are not a stream's, once.
    pub(super) fn take_notice(&mut self) -> Option<String> {
        self.notice.take()
    }

    /// Handles an answer. Returns the results that are verified now. `subject_of` returns the subject of an event by
    /// its number.
    pub(super) fn handle(
        &mut self,
        response: &Response<'_>,
        subject_of: &dyn Fn(u64) -> Option<String>,
    ) -> Vec<PublishResult> {
        if let Ok(number) = response.token.parse() {
            return self.event_result(number, response, subject_of).into_iter().collect();
        }
        if let Some(place) = BatchPlace::parse(response.token) {
            return self.batch_results(place, response);
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
            self.handle_subject_streams(response);
            Vec::new()
        }
    }

    /// The result that an answer contains for the event with this number.
    fn event_result(
        &mut self,
        number: u64,
        response: &Response<'_>,
        subject_of: &dyn Fn(u64) -> Option<String>,
    ) -> Option<PublishResult> {
        let refused = |refused| Some(PublishResult { number, result: Err(refused) });
        match response.status {
            Some("503") => {
                let may_have_a_stream = subject_of(number).is_some_and(|subject| {
                    self.subjects.want(&subject);
                    self.request_subject_streams();
                    self.subjects.may_have(&subject)
                });
                return refused(if may_have_a_stream { Rejection::NoLeader } else { Rejection::NoStream });
            }
            // For instance too many requests at the moment.
            Some(status) => return refused(Rejection::ForNow(format!("the server answers with status {status}"))),
            None => {}
        }
        let Some((stream, result)) = parse_ack(response.data) else {
            self.ignore(|| "a program that is not a stream answers the events".into());
            return None;
        };
        self.once_known(stream, Some(PublishResult { number, result })).flatten()
    }

    /// These results of a stream, if it is known. Else they wait until it is known that the stream exists.
    fn once_known<R: IntoIterator<Item = PublishResult>>(&mut self, stream: String, results: R) -> Option<R> {
        if self.known.contains(&stream) {
            return Some(results);
        }
        if self.rejected_names.contains(&stream) || !is_stream_name(&stream) || self.waiting.len() >= MAX_REJECTED_NAMES
        {
            return None;
        }
        if !self.waiting.contains_key(&stream) {
            self.request_stream_info(&stream);
        }
        self.waiting.entry(stream).or_default().extend(results);
        None
    }

    /// The results that an answer contains for the events of a batch. A batch is only sent to a known stream, but another may have taken its
    /// place.
    fn batch_results(&mut self, place: BatchPlace, response: &Response<'_>) -> Vec<PublishResult> {
        let BatchPlace { first, last, number } = place;
        let not_stored = |number, why: &str| PublishResult { number, result: Err(Rejection::ForNow(why.into())) };
        if let Some(status) = response.status {
            // Sent for itself, the event gets an answer that says why.
            return vec![not_stored(number, &format!("the server answers an event of a batch with status {status}"))];
        }
        match BatchAnswer::parse(response.data) {
            Some(BatchAnswer::Progress) => Vec::new(),
            Some(BatchAnswer::Ended { stream, stored, sequence }) => {
                let next = first.saturating_add(stored).min(last + 1);
                if next <= last {
                    self.note_incomplete(first);
                }
                let stored = |number| {
                    let sequence = (number + 1 == next).then_some(sequence);
                    let stream = stream.clone();
                    PublishResult {
                        number,
                        result: Ok(Acknowledgement::ByStream { stream, sequence, duplicate: false }),
                    }
                };
                let rest =
                    (next..=number).map(|number| not_stored(number, "the stream ended a batch before this event"));
                let results = (first..next).map(stored).chain(rest).collect();
                self.once_known(stream, results).unwrap_or_default()
            }
            Some(BatchAnswer::Refused { stream, code, description }) => {
                if code == code::BATCHES_DISABLED {
                    self.known.stop_batches(&stream);
                }
                // Without an answer that ended the batch, the server has forgotten it, and the earlier events may be stored.
                let from = if self.note_incomplete(first) { first } else { number };
                let results = (from..=number).map(|number| not_stored(number, &description)).collect();
                self.once_known(stream, results).unwrap_or_default()
            }
            None => {
                self.ignore(|| "a program that is not a stream answers a batch of events".into());
                Vec::new()
            }
        }
    }

    /// Notes that a batch was not stored whole. Returns `false` where that was known.
    fn note_incomplete(&mut self, first: u64) -> bool {
        /// More than there are in flight.
        const MOST: usize = 10_000;
        if self.incomplete_batches.len() >= MOST {
            self.incomplete_batches.pop_first();
        }
        self.incomplete_batches.insert(first)
    }

    /// Handles an answer to [`AckVerifier::request_subject_streams`].
    fn handle_subject_streams(&mut self, response: &Response<'_>) {
        let names = bound_streams(response);
        if let Some(subject) = self.asked_subjects.remove(response.token) {
            let has_none = match &names {
                Ok(names) => Some(names.is_empty()),
                Err(failure) => {
                    let no_jetstream = [code::NO_JETSTREAM, code::NO_JETSTREAM_FOR_ACCOUNT];
                    let is_final = !failure.is_temporary() || no_jetstream.iter().any(|code| failure.is_code(*code));
                    is_final.then_some(true)
                }
            };
            self.subjects.answered(&subject, has_none);
            self.request_subject_streams();
        }
        for name in names.unwrap_or_default() {
            if !self.known.contains(&name) {
                self.request_stream_info(&name);
            }
        }
    }

    fn handle_stream_info(
        &mut self,
        name: &str,
        response: &Response<'_>,
        subject_of: &dyn Fn(u64) -> Option<String>,
    ) -> Vec<PublishResult> {
        match parse_response::<StreamInfo>(response) {
            Ok(stream) => {
                let is_new = !self.known.contains(name);
                self.known.update(name, &stream.config);
                let outdated = if is_new { self.known.outdated_by(name) } else { Vec::new() };
                for other in outdated {
                    self.request_stream_info(&other);
                }
                self.release(name)
            }
            Err(failure) if failure.is_code(code::NO_STREAM) && !self.known.contains(name) => {
                let mut waiting = self.waiting.get(name).into_iter().flatten();
                match waiting.find_map(|result| subject_of(result.number)) {
                    // It may be a stream of another account, if no stream of this account has the subject.
                    Some(subject) => {
                        let body = json!({ "subject": subject }).to_string();
                        self.request("STREAM.NAMES", format!("{BOUND}{name}"), body);
                    }
                    None => drop(self.waiting.remove(name)),
                }
                Vec::new()
            }
            Err(failure) => {
                if failure.is_code(code::NO_STREAM) {
                    self.known.forget_subjects(name);
                }
                self.accept_unverified(name, &failure.to_string())
            }
        }
    }

    fn handle_bound_streams(&mut self, name: &str, response: &Response<'_>) -> Vec<PublishResult> {
        match bound_streams(response) {
            Ok(bound_streams) if bound_streams.is_empty() => self.accept_unverified(name, "it is not in this account"),
            // It was created a moment ago.
            Ok(bound_streams) if bound_streams.iter().any(|bound| bound == name) => {
                self.accept_unverified(name, "it is new")
            }
            Ok(bound_streams) => {
                self.waiting.remove(name);
                if self.rejected_names.len() < MAX_REJECTED_NAMES {
                    self.rejected_names.insert(name.to_owned());
                }
                let bound_streams = bound_streams.join(", ");
                self.ignore(|| {
                    format!("a program answers as stream {name}, which does not exist (the subject's: {bound_streams})")
                });
                Vec::new()
            }
            Err(failure) => self.accept_unverified(name, &failure.to_string()),
        }
    }

    /// Handles a denied publication. `None` if it was not one of our requests, else the results that waited for its answer.
    pub(super) fn handle_denial(&mut self, subject: &str) -> Option<Vec<PublishResult>> {
        let request = subject.trim_matches('"').strip_prefix(&self.prefix)?.strip_prefix(".STREAM.")?;
        let of_stream = request.strip_prefix("INFO.").map(|name| format!("{STREAM}{name}"));
        let is_denied = |token: &str| of_stream.as_ref().map_or(!token.starts_with(STREAM), |denied| denied == token);
        if request == "NAMES" {
            self.subjects.deny();
        }
        Some(self.abandon(|token, _| is_denied(token), "no permission"))
    }

    /// Abandons requests without an answer in time. Returns the results that waited for them.
    pub(super) fn expire(&mut self) -> Vec<PublishResult> {
        let timeout = self.timeout;
        if self.open.values().all(|sent| sent.elapsed() < timeout) {
            return Vec::new();
        }
        self.abandon(|_, sent| sent.elapsed() >= timeout, "no answer")
    }

    fn abandon(&mut self, which: impl Fn(&str, &Instant) -> bool, why: &str) -> Vec<PublishResult> {
        let abandoned = self.open.iter().filter(|(token, sent)| which(token, sent));
        let abandoned: Vec<String> = abandoned.map(|(token, _)| token.clone()).collect();
        let mut results = Vec::new();
        for token in abandoned {
            self.open.remove(&token);
            if let Some(subject) = self.asked_subjects.remove(&token) {
                // Where nobody answers, a cluster may have no leader at all.
                self.subjects.answered(&subject, None);
            }
            let name = token.strip_prefix(STREAM).or_else(|| token.strip_prefix(BOUND));
            results.extend(name.map(|name| self.accept_unverified(name, why)).unwrap_or_default());
        }
        results
    }

    fn accept_unverified(&mut self, name: &str, why: &str) -> Vec<PublishResult> {
        self.known.insert_unverified(name, why);
        self.release(name)
    }

    fn release(&mut self, name: &str) -> Vec<PublishResult> {
        self.waiting.remove(name).unwrap_or_default()
    }

    fn ignore(&mut self, what: impl Fn() -> String) {
        if !std::mem::replace(&mut self.has_noticed, true) {
            self.notice = Some(format!("{}; such answers are ignored, and the stream's answer is awaited", what()));
        }
    }

    /// Asks which streams have the next subjects that are to be asked for.
    fn request_subject_streams(&mut self) {
        while let Some(subject) = self.subjects.next_to_ask() {
            let reply = format!("{SUBJECT}{}", self.subject_requests);
            self.subject_requests += 1;
            self.request("STREAM.NAMES", reply.clone(), json!({ "subject": subject }).to_string());
            self.asked_subjects.insert(reply, subject);
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

/// Parses the answer to a request.
fn parse_response<T: serde::de::DeserializeOwned>(response: &Response<'_>) -> Result<T, ApiError> {
    if response.status == Some("503") {
        return Err(ApiError::NoResponders);
    }
    api::parse(response.data)
}

/// The streams that have a subject.
fn bound_streams(response: &Response<'_>) -> Result<Vec<String>, ApiError> {
    #[derive(Deserialize)]
    struct Names {
        #[serde(default)]
        streams: Option<Vec<String>>,
    }
    parse_response::<Names>(response).map(|names| names.streams.unwrap_or_default())
}

/// Parses a publish acknowledgement: <https://docs.nats.io/nats-concepts/jetstream/streams>. `None` for anything else. A
/// rejection names its stream too.
fn parse_ack(data: &[u8]) -> Option<(String, Result<Acknowledgement, Rejection>)> {
    #[derive(Deserialize)]
    struct PublishAck {
        stream: String,
        #[serde(default)]
        seq: u64,
        #[serde(default)]
        duplicate: bool,
        error: Option<ErrorBody>,
    }
    let PublishAck { stream, seq, duplicate, error } = serde_json::from_slice(data).ok()?;
    let Some(error) = error else {
        // This is a cluster's answer to a repetition whose first copy it has not stored yet.
        if duplicate && seq == 0 {
            return Some((stream, Err(Rejection::ForNow("the stream has not stored its first copy yet".into()))));
        }
        let taken = Acknowledgement::ByStream { stream: stream.clone(), sequence: Some(seq), duplicate };
        return (seq > 0).then_some((stream, Ok(taken)));
    };
    if error.code == 0 {
        return None;
    }
    let failure = ApiError::from(error);
    let is_temporary = failure.is_temporary() || failure.is_code(DUPLICATE_IN_PROCESS);
    let refused = if is_temporary { Rejection::ForNow } else { Rejection::ByServer }(failure.to_string());
    Some((stream, Err(refused)))
}

#[cfg(test)]
mod tests;
