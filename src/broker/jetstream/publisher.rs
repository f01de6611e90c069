//! Publishes events to streams and receives the result of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use log::Level;
use nats::{Connection, Message};
use parking_lot::Mutex;

use super::ack_verifier::{AckVerifier, ApiRequest, Response};
use super::api::Api;
use super::fast_batch::{BatchNames, BatchPlace};
use super::known_streams::{KnownStreams, Traits};
use super::message_search::MessageSearch;
use crate::broker::connection::{Cluster, Denial, Flusher, Link, ServerRemark, one_line};
use crate::broker::headers;
use crate::broker::publishing::{EventSource, Outgoing, PublishResult, publish_all};
use crate::error::Error;
use crate::event_id::{self, EventIds, Identity, in_payload};
use crate::pipeline::Signal;

/// A live connection that publishes to streams.
pub(in crate::broker) struct StreamPublisher {
    link: Link,
    denials: Arc<Mutex<Vec<Denial>>>,
    denied: Receiver<()>,
    verifier: Arc<Mutex<AckVerifier>>,
    known: Arc<KnownStreams>,
    prefix: String,
    /// How long to wait for the answer to a request.
    answer_timeout: Duration,
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
        let (denied_in, denied_out) = crossbeam_channel::bounded(1);
        let kept = Arc::clone(&denials);
        let listener = move |remark: &ServerRemark| {
            let denial = if let ServerRemark::PublishDenied(denial) = remark { Some(denial) } else { None };
            // The recorder reports the denial of an event, and works without permission to ask.
            let level = if denial.is_some() { Level::Debug } else { Level::Warn };
            log::log!(level, event = "server.remark", remark:% = remark; "broker: the server reports: {remark}");
            if let Some(denial) = denial {
                kept.lock().push(denial.clone());
                // Full: the receiver is about to look already.
                let _ = denied_in.try_send(());
            }
        };
        // Results may wait for an answer. The connection must not count as silent before.
        let answer_timeout = config.timeout.min(config.silence / 2);
        let verifier = Arc::new(Mutex::new(AckVerifier::new(Arc::clone(known), prefix.clone(), answer_timeout)));
        let link = Link::open_with(cluster, stop, Arc::new(listener))?;
        let (known, timeout) = (Arc::clone(known), config.timeout);
        Ok(Self { link, denials, denied: denied_out, verifier, known, prefix, answer_timeout, timeout })
    }

    pub(in crate::broker) fn link(&self) -> &Link {
        &self.link
    }

    /// Publishes the events of `source` in the background until there are no more. Another source may follow. `ids` makes the headers
    /// and numbers by which repeated events are recognised.
    pub(in crate::broker) fn start(&self, source: impl EventSource, ids: &EventIds) {
        let (ids, names) = (ids.clone(), BatchNames::new(ids.recorder()));
        let known = Arc::clone(&self.known);
        let lost = self.link.lost().clone();
        let inbox = self.link.inbox().to_owned();
        let tls = self.link.server().tls;
        let verifier = Arc::clone(&self.verifier);
        self.link.post(move |connection| {
            let flusher = Flusher::start(connection, tls, &lost);
            let before = || send_requests(connection, &inbox, &verifier);
            let forms = |round: &[Outgoing]| forms(round, &known, &ids);
            let mut reply = String::new();
            publish_all(source, flusher, &lost, before, forms, |outgoing, form| {
                reply.clear();
                reply.push_str(&inbox);
                reply.push('.');
                match form.place {
                    Some(place) => names.push_token(place, &mut reply),
                    None => reply.push_str(&outgoing.number.to_string()),
                }
                publish(connection, &reply, &ids, &outgoing, form)
            });
        });
    }

    /// Subjects that this user may not publish events to, as the server reported since the last call. Denials of the recorder's own
    /// requests are left for [`StreamPublisher::results`], also where they arrive between two calls.
    pub(in crate::broker) fn denials(&self) -> Vec<Denial> {
        let request_prefix = quoted_request_prefix(&self.prefix);
        let is_of_events = |denial: &mut Denial| !denial.quoted_subject().starts_with(&request_prefix);
        self.denials.lock().extract_if(.., is_of_events).collect()
    }

    /// Requests the settings of the known streams, and the streams of these subjects. Blocks until all answers are
    /// received, the connection has ended or `stop` is raised, but not longer than the time-out of an answer.
    pub(in crate::broker) fn ask_streams(&self, subjects: &[String], stop: &Signal) {
        let until = Instant::now() + self.answer_timeout;
        loop {
            self.verifier.lock().request_streams(subjects);
            self.await_answers(until, stop);
            // The request to a server that has just started is repeated.
            let again = self.verifier.lock().needs_retry() && !self.link.lost().is_raised() && Instant::now() < until;
            if !again || stop.wait(Duration::from_millis(50)) {
                return;
            }
        }
    }

    /// Searches the known streams for these events, which were published before with the headers that `ids` makes.
    /// `after` is a stream and a sequence up to which it has none of them. Blocks for twice the configured time-out at
    /// most. Nothing may have been published on this connection.
    pub(in crate::broker) fn search(
        &self,
        events: &[Outgoing],
        ids: &EventIds,
        after: Option<&(String, u64)>,
        stop: &Signal,
    ) -> Vec<PublishResult> {
        let own = |Outgoing { number, event, .. }: &Outgoing| {
            let (given, number) = (event.given_id(), *number);
            // The number alone tells which event it is; others may have been given the same identity.
            Some((ids.of_database(number, given).or_else(|| ids.of_stream(number, given))?, number))
        };
        let numbers: HashMap<String, u64> = events.iter().filter_map(own).collect();
        let api = Api { link: &self.link, prefix: self.prefix.clone(), timeout: self.timeout, stop: Some(stop) };
        let search = MessageSearch { api: &api, denied: &self.denied, until: Instant::now() + self.timeout };
        search.run(&self.known.names(), after, &numbers)
    }

    /// Has the requests sent and handles the answers, until all are received.
    fn await_answers(&self, until: Instant, stop: &Signal) {
        while self.verifier.lock().is_open() && !self.link.lost().is_raised() && Instant::now() < until {
            if stop.is_raised() {
                return;
            }
            let (inbox, verifier) = (self.link.inbox().to_owned(), Arc::clone(&self.verifier));
            self.link.post(move |connection| {
                if let Err(e) = send_requests(connection, &inbox, &verifier) {
                    log::debug!("broker: cannot send a request about streams: {}", one_line(&e));
                }
            });
            // Nothing was published on this connection yet.
            let _none = self.results(Duration::from_millis(100).min(self.answer_timeout), stop.channel(), &|_| None);
        }
    }

    /// Waits for results, at most for `wait` or until `wake` is ready, and returns all that there are. `subject_of`
    /// returns the subject of an event by its number.
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
            default(wait.min(self.answer_timeout)) => {}
        }
        let mut results = Vec::new();
        let mut verifier = self.verifier.lock();
        for message in first.into_iter().chain(self.link.messages().try_iter()) {
            results.extend(verifier.handle(&response(&message, self.link.inbox()), subject_of));
        }
        self.denials.lock().retain(|denial| match verifier.handle_denial(denial.quoted_subject()) {
            Some(released) => {
                results.extend(released);
                false
            }
            None => true,
        });
        results.extend(verifier.expire());
        results
    }

    /// Whether there are requests to send. The publishing thread sends them before it takes more events.
    pub(in crate::broker) fn has_questions(&self) -> bool {
        self.verifier.lock().has_requests()
    }

    /// The warning about answers that are not a stream's, once per connection.
    pub(in crate::broker) fn remark(&self) -> Option<String> {
        self.verifier.lock().take_notice()
    }
}

/// The prefix of our requests' subjects, quoted as in the server's errors.
fn quoted_request_prefix(prefix: &str) -> String {
    format!("\"{prefix}.STREAM.")
}

fn send_requests(connection: &Connection, inbox: &str, verifier: &Mutex<AckVerifier>) -> std::io::Result<()> {
    let questions = verifier.lock().take_requests();
    questions.into_iter().try_for_each(|ApiRequest { subject, reply, body }| {
        connection.publish_request(&subject, &format!("{inbox}.{reply}"), body)
    })
}

/// The form in which an event is sent.
#[derive(Clone, Copy)]
struct Form {
    /// Its place, where it is sent in a batch.
    place: Option<BatchPlace>,
    /// Whether its number is in the payload, if the payload can hold one.
    number_in_payload: bool,
}

/// The form of each event of a round.
fn forms(round: &[Outgoing], known: &KnownStreams, ids: &EventIds) -> Vec<Form> {
    let traits: Vec<Traits> = match ids.identity() {
        // The stream's answer to a batch does not tell which of its events it had already, so the stream must not look.
        Identity::Stream | Identity::Both => vec![Traits::default(); round.len()],
        Identity::Database | Identity::Payload => traits_of(round, known),
    };
    let can_be_batched = |(outgoing, traits): (&Outgoing, &Traits)| {
        traits.takes_batches && !outgoing.alone && outgoing.event.given_id().is_none()
    };
    let places = BatchPlace::of_round(round, round.iter().zip(&traits).map(can_be_batched));
    let form = |((place, outgoing), traits): ((_, &Outgoing), Traits)| Form {
        place,
        number_in_payload: ids.identity() == Identity::Payload
            && traits.keeps_subjects
            && outgoing.event.given_id().is_none()
            && outgoing.event.headers().is_empty(),
    };
    places.into_iter().zip(round).zip(traits).map(form).collect()
}

/// How the stream of each event takes events.
fn traits_of<'r>(round: &'r [Outgoing], known: &KnownStreams) -> Vec<Traits> {
    // Most events of a round have the same subject.
    let mut last: Option<(&str, Traits)> = None;
    let of = |outgoing: &'r Outgoing| {
        let subject = outgoing.event.subject();
        let same = last.filter(|(same, _)| *same == subject);
        let traits = same.map_or_else(|| known.traits(subject), |(_, traits)| traits);
        last = Some((subject, traits));
        traits
    };
    round.iter().map(of).collect()
}

fn publish(
    connection: &Connection,
    reply: &str,
    ids: &EventIds,
    outgoing: &Outgoing,
    form: Form,
) -> std::io::Result<()> {
    let event = &outgoing.event;
    let of_database = ids.of_database(outgoing.number, event.given_id());
    if form.number_in_payload
        && let Some(number) = &of_database
        && let Some(payload) = in_payload::add(number, event.subject(), event.payload())
    {
        return connection.publish_with_reply_or_headers(event.subject(), Some(reply), None, payload);
    }
    let mut headers = headers::of(event);
    let of_stream = ids.of_stream(outgoing.number, event.given_id());
    for (name, value) in [(event_id::HEADER, of_stream), (event_id::NUMBER_HEADER, of_database)] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    connection.publish_with_reply_or_headers(event.subject(), Some(reply), Some(&headers), event.payload())
}

fn response<'a>(message: &'a Message, inbox: &str) -> Response<'a> {
    // The client stores the server's status as a header. An answer with a payload has no status.
    let status = message.headers.as_ref().and_then(|headers| headers.get(nats::header::STATUS)).map(String::as_str);
    Response {
        token: message.subject.strip_prefix(inbox).and_then(|rest| rest.strip_prefix('.')).unwrap_or_default(),
        status: status.filter(|_| message.data.is_empty()),
        data: &message.data,
    }
}
