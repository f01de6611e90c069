//! Which answers to a published event are a stream's own.
//!
//! Other programs may listen on an event's subject and answer it. Only an answer with the form of a publish acknowledgement
//! counts, and only if the stream that it names exists: the server is asked for a stream that is not known yet, and its
//! verdicts wait for the answer. All other answers are passed over, and the stream's own is still waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::api::{self, ErrorBody, Failure, Stream, code};
use super::known_streams::KnownStreams;
use crate::broker::publishing::{Acknowledgement, PublishResult, Rejection};
use crate::config::is_stream_name;

/// Names that were found to be no stream's, at most.
const MOST_STRANGERS: usize = 100;

/// How the tokens of replies begin to which the server answers our questions.
const STREAM: &str = "stream-";
const TAKERS: &str = "takers-";
const SUBJECT: &str = "subject-";

/// An identical event is being stored: <https://github.com/nats-io/nats-server/blob/main/server/errors.json>.
const DUPLICATE_IN_PROCESS: u64 = 10158;

/// Something to publish: a question to the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) subject: String,
    /// The last token of its reply.
    pub(super) reply: String,
    pub(super) body: String,
}

/// An answer to an event or to a question.
pub(super) struct Answer<'a> {
    /// The last token of the reply that it came to.
    pub(super) token: &'a str,
    /// A status of the server's instead of a payload: `503` when nobody listens.
    pub(super) status: Option<&'a str>,
    pub(super) data: &'a [u8],
}

/// What was asked on one connection and what waits for it.
pub(super) struct Inquiry {
    known: Arc<KnownStreams>,
    /// What `JetStream`'s requests begin with.
    prefix: String,
    /// How long an answer is waited for.
    patience: Duration,
    /// Questions to send.
    questions: Vec<Question>,
    /// Questions without an answer yet: the token of the reply, and when they were asked.
    open: BTreeMap<String, Instant>,
    /// Verdicts that wait until it is known whether their stream is one.
    parked: BTreeMap<String, Vec<PublishResult>>,
    strangers: BTreeSet<String>,
    /// Nobody answered some question for now: the server may be just starting.
    unready: bool,
    /// What answered and is no stream, until somebody asks.
    remark: Option<String>,
    remarked: bool,
}

impl Inquiry {
    pub(super) fn new(known: Arc<KnownStreams>, prefix: String, patience: Duration) -> Self {
        Self {
            known,
            prefix,
            patience,
            questions: Vec::new(),
            open: BTreeMap::new(),
            parked: BTreeMap::new(),
            strangers: BTreeSet::new(),
            unready: false,
            remark: None,
            remarked: false,
        }
    }

    /// Asks the known streams for their settings again, and who takes these subjects: a stream may not be known yet.
    pub(super) fn begin(&mut self, subjects: &[String]) {
        self.unready = false;
        for name in self.known.names() {
            self.ask_stream(&name);
        }
        for (at, subject) in subjects.iter().enumerate() {
            self.ask("STREAM.NAMES", format!("{SUBJECT}{at}"), json!({ "subject": subject }).to_string());
        }
    }

    /// Whether some questions have no answer yet.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether to begin again a moment later, for nobody was there to answer.
    pub(super) fn is_unready(&self) -> bool {
        self.unready
    }

    /// Whether there are questions to send.
    pub(super) fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }

    /// The questions to send now.
    pub(super) fn questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.questions)
    }

    /// What to say of answers that are no stream's, once.
    pub(super) fn remark(&mut self) -> Option<String> {
        self.remark.take()
    }

    /// Hears an answer; returns the verdicts that are certain by now. `subject_of` tells the subject of an event by its
    /// number.
    pub(super) fn hear(
        &mut self,
        answer: &Answer<'_>,
        subject_of: &dyn Fn(u64) -> Option<String>,
    ) -> Vec<PublishResult> {
        if let Ok(number) = answer.token.parse() {
            return self.judge(number, answer).into_iter().collect();
        }
        if self.open.remove(answer.token).is_none() {
            return Vec::new();
        }
        self.unready |= answer.status.is_some();
        if let Some(name) = answer.token.strip_prefix(STREAM) {
            self.hear_of_stream(name, answer, subject_of)
        } else if let Some(name) = answer.token.strip_prefix(TAKERS) {
            self.hear_takers(name, answer)
        } else {
            for name in takers(answer).unwrap_or_default() {
                if !self.known.knows(&name) {
                    self.ask_stream(&name);
                }
            }
            Vec::new()
        }
    }

    /// What an answer says of the event of this number.
    fn judge(&mut self, number: u64, answer: &Answer<'_>) -> Option<PublishResult> {
        let refused = |refused| Some(PublishResult { number, result: Err(refused) });
        match answer.status {
            Some("503") => return refused(Rejection::NoStream),
            // Too many requests at the moment, for instance.
            Some(status) => return refused(Rejection::ForNow(format!("the server answers with status {status}"))),
            None => {}
        }
        let Some((stream, result)) = read(answer.data) else {
            self.pass_over(|| "something that is no stream answers the events".into());
            return None;
        };
        let verdict = PublishResult { number, result };
        if self.known.knows(&stream) {
            return Some(verdict);
        }
        if self.strangers.contains(&stream) || !is_stream_name(&stream) || self.parked.len() >= MOST_STRANGERS {
            return None;
        }
        if !self.parked.contains_key(&stream) {
            self.ask_stream(&stream);
        }
        self.parked.entry(stream).or_default().push(verdict);
        None
    }

    fn hear_of_stream(
        &mut self,
        name: &str,
        answer: &Answer<'_>,
        subject_of: &dyn Fn(u64) -> Option<String>,
    ) -> Vec<PublishResult> {
        match answered::<Stream>(answer) {
            Ok(stream) => {
                self.known.learn(name, &stream.config);
                self.release(name)
            }
            Err(failure) if failure.is_code(code::NO_STREAM) && !self.known.knows(name) => {
                let mut parked = self.parked.get(name).into_iter().flatten();
                match parked.find_map(|verdict| subject_of(verdict.number)) {
                    // It may be a stream of another account, if none of this one takes the subject.
                    Some(subject) => {
                        let body = json!({ "subject": subject }).to_string();
                        self.ask("STREAM.NAMES", format!("{TAKERS}{name}"), body);
                    }
                    None => drop(self.parked.remove(name)),
                }
                Vec::new()
            }
            Err(failure) => self.trust(name, &failure.to_string()),
        }
    }

    fn hear_takers(&mut self, name: &str, answer: &Answer<'_>) -> Vec<PublishResult> {
        match takers(answer) {
            Ok(takers) if takers.is_empty() => self.trust(name, "it is not in this account"),
            // It was made a moment ago.
            Ok(takers) if takers.iter().any(|taker| taker == name) => self.trust(name, "it is new"),
            Ok(takers) => {
                self.parked.remove(name);
                if self.strangers.len() < MOST_STRANGERS {
                    self.strangers.insert(name.to_owned());
                }
                let takers = takers.join(", ");
                self.pass_over(|| {
                    format!("something answers in the name of stream {name}, which is none ({takers} is)")
                });
                Vec::new()
            }
            Err(failure) => self.trust(name, &failure.to_string()),
        }
    }

    /// Hears that the server does not let us publish here. Returns whether it was a question of ours, and the verdicts that
    /// waited for its answer.
    pub(super) fn denied(&mut self, subject: &str) -> Option<Vec<PublishResult>> {
        let question = subject.trim_matches('"').strip_prefix(&self.prefix)?.strip_prefix(".STREAM.")?;
        let of_stream = question.strip_prefix("INFO.").map(|name| format!("{STREAM}{name}"));
        let is_denied = |token: &str| of_stream.as_ref().map_or(!token.starts_with(STREAM), |denied| denied == token);
        Some(self.give_up(|token, _| is_denied(token), "no permission"))
    }

    /// Gives up questions that were not answered in time; returns the verdicts that waited for them.
    pub(super) fn expire(&mut self) -> Vec<PublishResult> {
        let patience = self.patience;
        if self.open.values().all(|asked| asked.elapsed() < patience) {
            return Vec::new();
        }
        self.give_up(|_, asked| asked.elapsed() >= patience, "no answer")
    }

    fn give_up(&mut self, which: impl Fn(&str, &Instant) -> bool, why: &str) -> Vec<PublishResult> {
        let given_up = self.open.iter().filter(|(token, asked)| which(token, asked));
        let given_up: Vec<String> = given_up.map(|(token, _)| token.clone()).collect();
        let mut verdicts = Vec::new();
        for token in given_up {
            self.open.remove(&token);
            let name = token.strip_prefix(STREAM).or_else(|| token.strip_prefix(TAKERS));
            verdicts.extend(name.map(|name| self.trust(name, why)).unwrap_or_default());
        }
        verdicts
    }

    fn trust(&mut self, name: &str, why: &str) -> Vec<PublishResult> {
        self.known.trust(name, why);
        self.release(name)
    }

    fn release(&mut self, name: &str) -> Vec<PublishResult> {
        self.parked.remove(name).unwrap_or_default()
    }

    fn pass_over(&mut self, what: impl Fn() -> String) {
        if !std::mem::replace(&mut self.remarked, true) {
            self.remark = Some(format!("{}; only a stream's answers count, and they are waited for", what()));
        }
    }

    fn ask_stream(&mut self, name: &str) {
        self.ask(&format!("STREAM.INFO.{name}"), format!("{STREAM}{name}"), "{}".into());
    }

    fn ask(&mut self, what: &str, reply: String, body: String) {
        self.open.insert(reply.clone(), Instant::now());
        self.questions.push(Question { subject: format!("{}.{what}", self.prefix), reply, body });
    }
}

/// The answer to a question.
fn answered<T: serde::de::DeserializeOwned>(answer: &Answer<'_>) -> Result<T, Failure> {
    if answer.status == Some("503") {
        return Err(Failure::NoResponders);
    }
    api::read(answer.data)
}

/// The streams that take a subject.
fn takers(answer: &Answer<'_>) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    struct Names {
        #[serde(default)]
        streams: Option<Vec<String>>,
    }
    answered::<Names>(answer).map(|names| names.streams.unwrap_or_default())
}

/// Reads a publish acknowledgement: <https://docs.nats.io/nats-concepts/jetstream/streams>. `None` for what is none. A refusal
/// names its stream too.
fn read(data: &[u8]) -> Option<(String, Result<Acknowledgement, Rejection>)> {
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
        // A cluster says so of a repetition whose first copy it has not stored yet.
        if duplicate && seq == 0 {
            return Some((stream, Err(Rejection::ForNow("the stream has not stored its first copy yet".into()))));
        }
        let taken = Acknowledgement::ByStream { stream: stream.clone(), sequence: seq, duplicate };
        return (seq > 0).then_some((stream, Ok(taken)));
    };
    if error.code == 0 {
        return None;
    }
    let failure = Failure::from(error);
    let is_temporary = failure.is_temporary() || failure.is_code(DUPLICATE_IN_PROCESS);
    let refused = if is_temporary { Rejection::ForNow } else { Rejection::ByServer }(failure.to_string());
    Some((stream, Err(refused)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;

    const MINUTE: Duration = Duration::from_secs(60);

    fn inquiry(patience: Duration) -> Inquiry {
        Inquiry::new(Arc::new(KnownStreams::new(&BrokerConfig::default())), "$JS.API".into(), patience)
    }

    fn hear(inquiry: &mut Inquiry, token: &str, data: &str) -> Vec<PublishResult> {
        inquiry.hear(&Answer { token, status: None, data: data.as_bytes() }, &|_| Some("events.a".into()))
    }

    fn asked(inquiry: &mut Inquiry) -> Vec<String> {
        inquiry.questions().into_iter().map(|question| question.subject).collect()
    }

    const INFO: &str = r#"{"config":{"name":"E","retention":"limits","duplicate_window":120000000000},
        "created":"2026-01-01T00:00:00Z","state":{"messages":1,"first_seq":1,"last_seq":1}}"#;
    const NO_STREAM: &str = r#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;

    #[test]
    fn a_streams_verdict_counts_once_the_stream_is_found() {
        let mut inquiry = inquiry(MINUTE);
        assert!(hear(&mut inquiry, "7", r#"{"stream":"E","seq":3}"#).is_empty());
        assert!(hear(&mut inquiry, "8", r#"{"stream":"E","seq":4,"duplicate":true}"#).is_empty());
        assert_eq!(asked(&mut inquiry), ["$JS.API.STREAM.INFO.E"], "once");
        let numbers: Vec<u64> = hear(&mut inquiry, "stream-E", INFO).iter().map(|verdict| verdict.number).collect();
        assert_eq!(numbers, [7, 8]);
        assert_eq!(hear(&mut inquiry, "9", r#"{"stream":"E","seq":5}"#).len(), 1);
        assert!(asked(&mut inquiry).is_empty() && !inquiry.is_open());
    }

    #[test]
    fn answers_that_are_no_streams_are_passed_over() {
        let mut inquiry = inquiry(MINUTE);
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
            assert!(hear(&mut inquiry, "7", answer).is_empty(), "{answer}");
        }
        assert!(asked(&mut inquiry).is_empty(), "nothing names a stream");
        assert!(inquiry.remark().is_some_and(|remark| remark.contains("no stream")));
        assert!(inquiry.remark().is_none(), "said once");
    }

    #[test]
    fn an_unknown_stream_name_means_a_foreign_answer() {
        let mut inquiry = inquiry(MINUTE);
        assert!(hear(&mut inquiry, "7", r#"{"stream":"X","seq":7}"#).is_empty());
        assert!(hear(&mut inquiry, "stream-X", NO_STREAM).is_empty());
        assert_eq!(asked(&mut inquiry), ["$JS.API.STREAM.INFO.X", "$JS.API.STREAM.NAMES"]);
        assert!(hear(&mut inquiry, "takers-X", r#"{"streams":["E"]}"#).is_empty());
        assert!(hear(&mut inquiry, "8", r#"{"stream":"X","seq":8}"#).is_empty());
        assert!(asked(&mut inquiry).is_empty());
        assert!(inquiry.remark().is_some_and(|remark| remark.contains("stream X")));
    }

    #[test]
    fn a_foreign_accounts_stream_counts_if_ours_has_none() {
        let mut inquiry = inquiry(MINUTE);
        assert!(hear(&mut inquiry, "7", r#"{"stream":"X","seq":7}"#).is_empty());
        assert!(hear(&mut inquiry, "stream-X", NO_STREAM).is_empty());
        assert_eq!(hear(&mut inquiry, "takers-X", r#"{"streams":null}"#).len(), 1);
        assert_eq!(hear(&mut inquiry, "8", r#"{"stream":"X","seq":8}"#).len(), 1);
    }

    #[test]
    fn an_acknowledgement_counts_if_it_cannot_be_checked() {
        let mut denied = inquiry(MINUTE);
        assert!(hear(&mut denied, "7", r#"{"stream":"E","seq":7}"#).is_empty());
        assert!(denied.denied("\"events.a\"").is_none(), "that is an event's");
        assert_eq!(denied.denied("\"$JS.API.STREAM.INFO.E\"").map(|verdicts| verdicts.len()), Some(1));
        let mut unanswered = inquiry(Duration::ZERO);
        assert!(hear(&mut unanswered, "7", r#"{"stream":"E","seq":7}"#).is_empty());
        assert_eq!(unanswered.expire().len(), 1);
        let nobody = Answer { token: "8", status: Some("503"), data: b"" };
        let verdicts = unanswered.hear(&nobody, &|_| None);
        assert_eq!(verdicts[0].result, Err(Rejection::NoStream));
    }

    #[test]
    fn a_refusal_says_whether_it_may_pass() {
        let refusal = |code: u64, err_code: u64, description: &str| {
            let error = json!({ "code": code, "err_code": err_code, "description": description });
            read(json!({ "error": error, "stream": "E", "seq": 0 }).to_string().as_bytes()).map(|(_, result)| result)
        };
        for (code, err_code, description) in
            [(503, 10077, "insufficient resources"), (409, 10158, "duplicate message id is in process")]
        {
            assert!(matches!(refusal(code, err_code, description), Some(Err(Rejection::ForNow(_)))), "{description}");
        }
        let in_process = read(br#"{"stream":"E","seq":0,"duplicate":true}"#).map(|(_, result)| result);
        assert!(matches!(in_process, Some(Err(Rejection::ForNow(_)))));
        let lasting = refusal(400, 10054, "message size exceeds maximum allowed");
        assert!(matches!(lasting, Some(Err(Rejection::ByServer(_)))));
    }

    #[test]
    fn before_anything_is_sent_again_the_streams_are_asked() {
        let mut inquiry = inquiry(MINUTE);
        inquiry.begin(&["events.a".into()]);
        assert_eq!(asked(&mut inquiry), ["$JS.API.STREAM.NAMES"]);
        hear(&mut inquiry, "subject-0", r#"{"streams":["E"]}"#);
        assert_eq!(asked(&mut inquiry), ["$JS.API.STREAM.INFO.E"]);
        assert!(inquiry.is_open());
        hear(&mut inquiry, "stream-E", INFO);
        assert!(!inquiry.is_open());
        inquiry.begin(&["events.b".into()]);
        assert_eq!(asked(&mut inquiry), ["$JS.API.STREAM.INFO.E", "$JS.API.STREAM.NAMES"], "the known one again");
        assert!(inquiry.denied("\"$JS.API.STREAM.NAMES\"").is_some_and(|verdicts| verdicts.is_empty()));
        assert!(inquiry.is_open(), "it may ask the stream");
        inquiry.hear(&Answer { token: "stream-E", status: Some("503"), data: b"" }, &|_| None);
        assert!(inquiry.is_unready() && !inquiry.is_open(), "a server that has just started");
    }
}
