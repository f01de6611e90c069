//! Publishes to streams and hears what they say of each event.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use log::Level;
use nats::{Connection, Message};
use parking_lot::Mutex;

use super::api::Api;
use super::inquiry::{Answer, Inquiry, Question};
use super::known_streams::KnownStreams;
use super::search::Search;
use crate::broker::connection::{Cluster, Denial, Flusher, Link, ServerRemark, one_line};
use crate::broker::headers;
use crate::broker::publishing::{EventSource, Outgoing, PublishResult, publish_all};
use crate::error::Error;
use crate::pipeline::Signal;

/// A live connection that publishes to streams.
pub(in crate::broker) struct StreamPublisher {
    link: Link,
    denials: Arc<Mutex<Vec<Denial>>>,
    denied: Receiver<()>,
    inquiry: Arc<Mutex<Inquiry>>,
    known: Arc<KnownStreams>,
    prefix: String,
    /// How long an answer to a question is waited for.
    patience: Duration,
    timeout: Duration,
}

impl StreamPublisher {
    /// Connects. Blocks at most for the configured time-out.
    pub(in crate::broker) fn open(
        cluster: &Arc<Cluster>,
        stop: &Signal,
        known: &Arc<KnownStreams>,
    ) -> Result<Self, Error> {
        let (prefix, config) = (cluster.config().api_prefix(), cluster.config());
        let denials = Arc::new(Mutex::new(Vec::new()));
        let (heard, denied_out) = crossbeam_channel::bounded(1);
        let kept = Arc::clone(&denials);
        let asked = questions_on(&prefix);
        let listener = move |remark: &ServerRemark| {
            let denial = if let ServerRemark::PublishDenied(denial) = remark { Some(denial) } else { None };
            // A recorder works without permission to ask.
            let is_question = denial.is_some_and(|denial| denial.quoted_subject().starts_with(&asked));
            let level = if is_question { Level::Debug } else { Level::Warn };
            log::log!(level, "broker: the server reports: {remark}");
            if let Some(denial) = denial {
                kept.lock().push(denial.clone());
                // Full: the receiver is about to look already.
                let _ = heard.try_send(());
            }
        };
        // Verdicts may wait for an answer, and the connection must not count as silent before.
        let patience = config.timeout.min(config.silence / 2);
        let inquiry = Arc::new(Mutex::new(Inquiry::new(Arc::clone(known), prefix.clone(), patience)));
        let link = Link::open_with(cluster, stop, Arc::new(listener))?;
        let (known, timeout) = (Arc::clone(known), config.timeout);
        Ok(Self { link, denials, denied: denied_out, inquiry, known, prefix, patience, timeout })
    }

    pub(in crate::broker) fn link(&self) -> &Link {
        &self.link
    }

    /// Publishes what `source` gives, in the background, until it gives no more; another source comes after it. `nonce` makes
    /// the identities of events that were given none.
    pub(in crate::broker) fn start(&self, source: impl EventSource, nonce: &str) {
        let nonce = nonce.to_owned();
        let lost = self.link.lost().clone();
        let inbox = self.link.inbox().to_owned();
        let tls = self.link.server().tls;
        let inquiry = Arc::clone(&self.inquiry);
        self.link.post(move |connection| {
            let flusher = Flusher::start(connection, tls, &lost);
            let ask = || ask(connection, &inbox, &inquiry);
            publish_all(source, flusher, &lost, ask, |outgoing| publish(connection, &inbox, &nonce, &outgoing));
        });
    }

    /// What the server has said since the last call of subjects that this user may not publish events to. What it says of our
    /// questions is left for [`StreamPublisher::results`], also where it comes between two calls.
    pub(in crate::broker) fn denials(&self) -> Vec<Denial> {
        let asked = questions_on(&self.prefix);
        let is_of_events = |denial: &mut Denial| !denial.quoted_subject().starts_with(&asked);
        self.denials.lock().extract_if(.., is_of_events).collect()
    }

    /// Asks the known streams for their settings, and who takes these subjects. Blocks until all is
    /// answered, the connection has ended or `stop` is raised, and not for longer than an answer may take.
    pub(in crate::broker) fn ask_streams(&self, subjects: &[String], stop: &Signal) {
        let until = Instant::now() + self.patience;
        loop {
            self.inquiry.lock().begin(subjects);
            self.await_answers(until, stop);
            // A server that has just started is asked again.
            let again = self.inquiry.lock().is_unready() && !self.link.lost().is_raised() && Instant::now() < until;
            if !again || stop.wait(Duration::from_millis(50)) {
                return;
            }
        }
    }

    /// Looks in the known streams for these events, sent before under identities made of this nonce. `after` names a stream
    /// and a sequence up to which it has none of them. Blocks for twice the configured time-out at most. For a connection on which nothing was published.
    pub(in crate::broker) fn search(
        &self,
        events: &[Outgoing],
        nonce: &str,
        after: Option<&(String, u64)>,
        stop: &Signal,
    ) -> Vec<PublishResult> {
        let numbers: HashMap<String, u64> =
            events.iter().map(|outgoing| (identity(outgoing, nonce), outgoing.number)).collect();
        let api = Api { link: &self.link, prefix: self.prefix.clone(), within: self.timeout, stop: Some(stop) };
        let search = Search { api: &api, denied: &self.denied, until: Instant::now() + self.timeout };
        search.run(&self.known.names(), after, &numbers)
    }

    /// Has the questions sent and hears the answers, until all are there.
    fn await_answers(&self, until: Instant, stop: &Signal) {
        while self.inquiry.lock().is_open() && !self.link.lost().is_raised() && Instant::now() < until {
            if stop.is_raised() {
                return;
            }
            let (inbox, inquiry) = (self.link.inbox().to_owned(), Arc::clone(&self.inquiry));
            self.link.post(move |connection| {
                if let Err(e) = ask(connection, &inbox, &inquiry) {
                    log::debug!("broker: asking broke off: {}", one_line(&e));
                }
            });
            // Nothing was published on this connection yet.
            let _none = self.results(Duration::from_millis(100).min(self.patience), stop.channel(), &|_| None);
        }
    }

    /// Waits for verdicts, at most for `wait` or until something wakes it, and returns all there are. `subject_of` tells the
    /// subject of an event by its number.
    pub(in crate::broker) fn results<T>(
        &self,
        wait: Duration,
        wake: &Receiver<T>,
        subject_of: &dyn Fn(u64) -> Option<String>,
    ) -> Vec<PublishResult> {
        let mut first = None;
        crossbeam_channel::select! {
            recv(self.link.messages()) -> message => {
                if let Ok(message) = message {
                    self.link.keep_sample(&message);
                    first = Some(message);
                }
            }
            recv(wake) -> _ => {}
            recv(self.denied) -> _ => {}
            recv(self.link.lost().channel()) -> _ => {}
            default(wait.min(self.patience)) => {}
        }
        let mut verdicts = Vec::new();
        let mut inquiry = self.inquiry.lock();
        for message in first.into_iter().chain(self.link.messages().try_iter()) {
            verdicts.extend(inquiry.hear(&answer(&message), subject_of));
        }
        self.denials.lock().retain(|denial| match inquiry.denied(denial.quoted_subject()) {
            Some(released) => {
                verdicts.extend(released);
                false
            }
            None => true,
        });
        verdicts.extend(inquiry.expire());
        verdicts
    }

    /// Whether there are questions to send, which the publishing thread does before it takes more events.
    pub(in crate::broker) fn has_questions(&self) -> bool {
        self.inquiry.lock().has_questions()
    }

    /// What to say of answers that are no stream's, once a connection.
    pub(in crate::broker) fn remark(&self) -> Option<String> {
        self.inquiry.lock().remark()
    }
}

/// How the subjects of our questions begin, as the server quotes them.
fn questions_on(prefix: &str) -> String {
    format!("\"{prefix}.STREAM.")
}

fn ask(connection: &Connection, inbox: &str, inquiry: &Mutex<Inquiry>) -> std::io::Result<()> {
    let questions = inquiry.lock().questions();
    questions.into_iter().try_for_each(|Question { subject, reply, body }| {
        connection.publish_request(&subject, &format!("{inbox}.{reply}"), body)
    })
}

/// By which the stream recognises an event.
fn identity(outgoing: &Outgoing, nonce: &str) -> String {
    outgoing.event.given_id().map_or_else(|| format!("{nonce}-{}", outgoing.number), str::to_owned)
}

fn publish(connection: &Connection, inbox: &str, nonce: &str, outgoing: &Outgoing) -> std::io::Result<()> {
    let event = &outgoing.event;
    let mut headers = headers::of(event);
    if event.given_id().is_none() {
        headers.insert(nats::header::NATS_MSG_ID, identity(outgoing, nonce));
    }
    let reply = format!("{inbox}.{}", outgoing.number);
    connection.publish_with_reply_or_headers(event.subject(), Some(&reply), Some(&headers), event.payload())
}

fn answer(message: &Message) -> Answer<'_> {
    // The client puts a status of the server's among the headers; an answer with a payload has none.
    let status = message.headers.as_ref().and_then(|headers| headers.get(nats::header::STATUS)).map(String::as_str);
    Answer {
        token: message.subject.rsplit('.').next().unwrap_or_default(),
        status: status.filter(|_| message.data.is_empty()),
        data: &message.data,
    }
}
