//! One connection with one consumer, from its first request to the first irregularity.
//!
//! The consumer is disposable: each session creates one at the position reached, because only the database's ledger
//! decides what the progress is. Within a session every delivery must have the next consumer sequence.

mod item;
mod opening;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;
use nats::Message;
use serde_json::json;

pub(super) use self::item::{Delivery, Item, NotCollected};
use super::api::{self, Api};
use super::api_types::{ConsumerInfo, MessageQuery, StreamInfo, nanoseconds};
use super::backlog::Backlog;
use super::consumer_watch::{ConsumerState, ConsumerWatch};
use super::delivery_metadata;
use super::gaps::GapWatch;
use super::local_filter::LocalFilter;
use super::partition;
use super::pulls::Pulls;
use super::retention::Retention;
use super::stored_subjects;
use super::stream_watch::StreamWatch;
use super::unstored_deliveries::UnstoredDeliveries;
use crate::broker::connection::{Link, LinkState, Liveness, one_line};
use crate::config::BrokerConfig;
use crate::pipeline::{Epoch, Gap, Mark, Signal};

/// The prefix of the reply token of a request for one message. Its sequence follows.
const CHECK: &str = "check-";

/// The prefixes of the reply tokens of requests for the state of the stream and of the consumer. What had been delivered when the
/// request was sent follows: the server may deliver more between reading the state and sending it.
const STREAM: &str = "stream-";
const PROBE: &str = "probe-";

/// After this many messages in a row, everything else is checked too.
const LOOK: u32 = 1_024;

/// A connection with a consumer.
pub(super) struct JetStreamSession {
    link: Link,
    config: BrokerConfig,
    pub(super) consumer: String,
    consumer_sequence: u64,
    pulls: Pulls,
    /// `None` while requests are made on the same link.
    backlog: Option<Backlog>,
    liveness: Liveness,
    /// Something came since the last look at `liveness`: the clock is read once for many messages.
    received_any: bool,
    /// Deliveries since everything else was checked.
    since_look: u32,
    gaps: GapWatch,
    stream_watch: StreamWatch,
    retention: Retention,
    pub(super) consumer_watch: ConsumerWatch,
    /// Events that the consumer delivered before it was taken over, and that were not stored.
    unstored: Option<UnstoredDeliveries>,
    /// Deliveries up to this sequence are stored already.
    stored_up_to: u64,
    /// Filters the deliveries if the consumer has no filters.
    local_filter: Option<LocalFilter>,
    /// The consumer had nothing more to deliver at the last check.
    exhausted: bool,
    /// Gaps that no delivery contains. At first those inherited from the epoch that this one continues.
    pub(super) missing: Vec<Gap>,
    /// The largest number of events that the stream may have lost.
    pub(super) lost_events: u64,
    /// The epoch and the position in which this session began.
    pub(super) epoch: Arc<Epoch>,
    pub(super) after: Mark,
    pub(super) pending: u64,
    /// Deliveries without an acknowledgement, and deliveries that were sent again, as the server last reported.
    pub(super) ack_pending: u64,
    pub(super) redelivered: u64,
    /// Filters for the events that are collected. If the settings say everything, the subjects that the stream stores, if these are
    /// known.
    pub(super) subjects: Vec<String>,
    /// The stream's last sequence when the session was opened.
    pub(super) last: u64,
    /// Every event up to this sequence that is to be collected was delivered and returned by [`JetStreamSession::next`].
    pub(super) passed: u64,
}

impl JetStreamSession {
    /// The next delivery. Its message is put into `received`, because a message is large, and moving it about costs more than handling it.
    /// Blocks at most for `wait`, and not past the stop. While it reads earlier deliveries that were not stored, it blocks for the
    /// time-out of a request.
    pub(super) fn next(&mut self, received: &mut Option<Message>, wait: Duration, stop: &Signal) -> Item {
        if let Some(item) = self.next_unstored(received, stop) {
            return item;
        }
        if self.backlog.is_none() {
            match Backlog::of(self.link.messages()) {
                Ok(backlog) => self.backlog = Some(backlog),
                Err(error) => return Item::Over(format!("the system gives no thread for the deliveries: {error}")),
            }
        }
        let mut until = None;
        let mut passed_over = 0_u32;
        self.since_look += 1;
        if self.since_look >= LOOK
            && let Some(over) = self.keep_up()
        {
            return Item::Over(over);
        }
        loop {
            match self.backlog.as_ref().map_or(Err(TryRecvError::Empty), Backlog::try_next) {
                Ok(message) => {
                    if let Some(item) = self.receive(message, received) {
                        return item;
                    }
                    // Many skipped events in a row must not delay everything else.
                    passed_over += 1;
                    if !passed_over.is_multiple_of(LOOK) {
                        continue;
                    }
                }
                Err(TryRecvError::Disconnected) => return Item::Over("the client dropped the subscription".into()),
                Err(TryRecvError::Empty) => {}
            }
            if let Some(end) = self.liveness.connection_end(&self.link) {
                return Item::Over(end.to_string());
            }
            if let Some(over) = self.keep_up() {
                return Item::Over(over);
            }
            let now = Instant::now();
            let until = *until.get_or_insert(now + wait);
            if now >= until || stop.is_raised() {
                return Item::Nothing;
            }
            let next_poll = self.pulls.next_poll_in().unwrap_or(Duration::MAX);
            let next_look = (until - now).min(self.config.silence / 4).min(next_poll);
            let Some(backlog) = self.backlog.as_ref().filter(|backlog| backlog.begin_wait()) else { continue };
            let message = crossbeam_channel::select! {
                recv(self.link.messages()) -> message => message.ok(),
                recv(self.link.lost().channel()) -> _ => None,
                recv(stop.channel()) -> _ => None,
                default(next_look) => None,
            };
            backlog.end_wait();
            if let Some(message) = message {
                self.stream_watch.note_wait();
                if let Some(item) = self.receive(message, received) {
                    return item;
                }
            }
        }
    }

    /// Called after a time in which this side received nothing: then silence is no sign of a fault.
    pub(super) fn was_away(&mut self) {
        self.liveness.restart(Instant::now());
        self.consumer_watch.was_away();
    }

    /// Whether the consumer had nothing more to deliver at the last check.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Whether all losses so far are detected and reported.
    pub(super) fn is_settled(&self) -> bool {
        self.gaps.is_settled()
    }

    /// Lost events were reported up to this sequence.
    pub(super) fn reported_to(&self) -> u64 {
        self.gaps.reported_to()
    }

    /// Adds missing sequences that were never stored: no earlier epoch has the delivery after them.
    pub(super) fn add_lost(&mut self, gap: Gap) {
        self.gaps.add_lost(gap);
    }

    /// The server's address, without secrets.
    pub(super) fn server(&self) -> &str {
        &self.link.server().address
    }

    /// Whether the stream needs acknowledgements.
    pub(super) fn acknowledges(&self) -> bool {
        self.retention != Retention::Limits
    }

    /// Acknowledges the delivery with this reply subject and all before it. They are committed.
    pub(super) fn acknowledge(&self, reply: String) {
        self.link.post(move |connection| {
            // The next acknowledgement, or the next consumer, replaces a lost one.
            if let Err(e) = connection.publish(&reply, "+ACK") {
                log::debug!("broker: an acknowledgement was lost: {}", one_line(&e));
            }
        });
    }

    /// Deletes the consumer and closes the connection, if the server answers at once. If the stream keeps events for
    /// the consumer, the consumer remains, and the last acknowledgement is at the server.
    pub(super) fn close(mut self) {
        if let Some(lost) = self.gaps.take_final_report() {
            lost.log(&self.config.stream, self.stream_watch.first());
        }
        let acknowledges = self.acknowledges();
        drop(self.backlog);
        let api =
            Api { link: &self.link, prefix: self.config.api_prefix(), timeout: Duration::from_millis(500), stop: None };
        let consumer = api.consumer(&self.config.stream, &self.consumer);
        if acknowledges {
            // The answer shows that the server has the last acknowledgement too. The process may end before it would be sent otherwise,
            // and the stream would keep the events.
            return;
        }
        // A paused consumer remains, so that the next collector continues the pause. It may have been paused since the
        // last check.
        let is_paused = consumer.is_ok_and(|consumer| consumer.paused);
        if is_paused || self.consumer_watch.paused().is_some() {
            return;
        }
        if let Err(failure) = api.delete_consumer(&self.config.stream, &self.consumer) {
            log::debug!("broker: consumer {} cannot be deleted, and expires later: {failure}", self.consumer);
        }
    }

    /// Handles a message, and keeps it in `received` if it belongs to the item.
    fn receive(&mut self, message: Message, received: &mut Option<Message>) -> Option<Item> {
        let item = self.handle(received.insert(message));
        if item.is_none() {
            *received = None;
        }
        item
    }

    /// Handles a message sent to the inbox: a delivery, or an answer of the server.
    fn handle(&mut self, message: &mut Message) -> Option<Item> {
        if let Some(metadata) = message.reply.as_deref().and_then(delivery_metadata::parse) {
            self.received_any = true;
            self.pulls.arrived(metadata.pending);
            self.consumer_watch.note_delivery();
            if self.pulls.has_room() {
                self.ask_for_more();
            }
            let expected = self.consumer_sequence + 1;
            if metadata.consumer_sequence != expected || metadata.delivered != 1 {
                return Some(Item::Over(format!(
                    "consumer {} is out of order: received delivery {} of message {} instead of message {expected}",
                    self.consumer, metadata.delivered, metadata.consumer_sequence
                )));
            }
            if self.consumer_watch.is_payload_missing(message, expected) {
                return Some(Item::Over(format!("consumer {} was edited: it sends no payloads", self.consumer)));
            }
            self.consumer_sequence = expected;
            self.pending = metadata.pending;
            self.exhausted = metadata.pending == 0;
            if metadata.mark.sequence <= self.stored_up_to {
                message.reply.take().into_iter().for_each(|reply| self.acknowledge(reply));
                return None;
            }
            if let Some(out_of_order) = self.stream_watch.delivered(metadata.mark, message.data.len()) {
                return Some(Item::Over(format!("{out_of_order}; checking whether the stream went back")));
            }
            let missing = self.gaps.delivered(metadata.mark.sequence, metadata.pending);
            self.passed = metadata.mark.sequence;
            if self.local_filter.as_mut().is_some_and(|filter| !filter.matches(&message.subject)) {
                if self.acknowledges() {
                    return Some(Item::NotCollected(NotCollected { metadata, missing, reply: message.reply.take() }));
                }
                if let Some(gap) = missing {
                    self.gaps.add_lost(gap);
                    self.missing.push(gap);
                }
                return None;
            }
            let missing = missing.map_or(0, |gap| gap.missing);
            partition::remove_from(&mut message.subject, &self.config);
            return Some(Item::Delivery(Delivery { metadata, missing }));
        }
        let over = match message.subject.rsplit('.').next() {
            // An answer about the stream does not prove that the consumer exists.
            Some(token) if token.starts_with(STREAM) => self.handle_stream_info(token, message),
            Some(token) if token.starts_with(CHECK) => self.handle_stored_message(token, message),
            token => {
                self.received_any = true;
                match token.and_then(|token| token.strip_prefix(PROBE)?.parse().ok()) {
                    Some(delivered) => self.probed(delivered, message),
                    None => self.handle_status(message),
                }
            }
        };
        over.map(Item::Over)
    }

    /// The answer to a probe: the consumer as the server sees it. `delivered` is the last consumer sequence before the probe.
    fn probed(&mut self, delivered: u64, message: &Message) -> Option<String> {
        self.liveness.probe_answered();
        if status_code(message) == Some("503") {
            return Some("the server no longer answers JetStream requests".into());
        }
        let consumer: ConsumerInfo = match api::parse(&message.data) {
            Ok(consumer) => consumer,
            Err(failure) => return Some(format!("consumer {}: {failure}", self.consumer)),
        };
        if consumer.delivered.consumer_seq < delivered {
            return Some(format!("the server has lost the deliveries of consumer {}", self.consumer));
        }
        if consumer.delivered.consumer_seq == self.consumer_sequence {
            // Where nothing is left to deliver, the server counts the events that the consumer's filters omit.
            self.passed = self.passed.max(consumer.delivered.stream_seq);
            self.exhausted = consumer.num_pending == 0;
            self.gaps.note_pending(consumer.num_pending);
        }
        self.pending = consumer.num_pending;
        (self.ack_pending, self.redelivered) = (consumer.num_ack_pending, consumer.num_redelivered);
        if let Some(over) = self.consumer_watch.update_consumer(&consumer) {
            return Some(over);
        }
        self.pulls.limit(consumer.config.pulls);
        match self.consumer_watch.check_deliveries(&consumer, self.consumer_sequence, self.config.silence) {
            // A server that lost the requests may have lost events of the stream too.
            ConsumerState::NoRequests if self.pulls.are_outstanding() => {
                Some(format!("the server has lost the pull requests at consumer {}", self.consumer))
            }
            ConsumerState::Healthy | ConsumerState::NoRequests => None,
            ConsumerState::Unusable(why) => Some(why),
        }
    }

    /// Handles the answer to a request for the stream's state.
    fn handle_stream_info(&mut self, token: &str, message: &Message) -> Option<String> {
        let reached = token.strip_prefix(STREAM)?.parse().ok()?;
        // The probes detect a deleted stream.
        let stream = api::parse::<StreamInfo>(&message.data).ok()?;
        let missing = self.gaps.handle_stream_state(&stream.state);
        self.missing.extend(missing.iter());
        self.consumer_watch.update_stream(&self.config, &stream);
        self.subjects = stored_subjects::collected(&self.config, &stream.config);
        self.stream_watch.check_info(&self.config.stream, &stream, reached)
    }

    /// Handles the answer to a request for one message.
    fn handle_stored_message(&mut self, token: &str, message: &Message) -> Option<String> {
        let sequence = token.strip_prefix(CHECK)?.parse().ok()?;
        let stored = api::parse_stored_message(&message.data).ok().flatten();
        self.stream_watch.check_answer(&self.config.stream, sequence, stored.as_ref())
    }

    /// Requests the stream's state and messages if they are due, and reports lost events.
    fn look_after_stream(&mut self) {
        if self.gaps.take_query_due() || self.stream_watch.is_due(self.config.silence / 2) {
            let reply = format!("{STREAM}{}", self.stream_watch.note_query());
            let subject = format!("{}.STREAM.INFO.{}", self.config.api_prefix(), self.config.stream);
            let details = self.gaps.needs_deleted_list().then(|| api::deleted_details().to_string());
            self.link.publish(subject, &reply, details.unwrap_or_default());
        }
        for sequence in self.stream_watch.take_messages_to_check() {
            let subject = format!("{}.STREAM.MSG.GET.{}", self.config.api_prefix(), self.config.stream);
            let reply = format!("{CHECK}{sequence}");
            self.link.publish(subject, &reply, MessageQuery::Sequence(sequence).request().to_string());
        }
        if let Some(lost) = self.gaps.take_report() {
            lost.log(&self.config.stream, self.stream_watch.first());
            self.lost_events += lost.events;
        }
    }

    /// The next of the earlier deliveries that were not stored, read from the stream.
    fn next_unstored(&mut self, received: &mut Option<Message>, stop: &Signal) -> Option<Item> {
        let unstored = self.unstored.take()?;
        if unstored.is_stored() {
            self.acknowledge(unstored.into_ack_reply());
            return None;
        }
        let api =
            Api { link: &self.link, prefix: self.config.api_prefix(), timeout: self.config.timeout, stop: Some(stop) };
        Some(match unstored.read(&api, &self.config, self.pending) {
            Ok(None) => {
                self.acknowledge(unstored.into_ack_reply());
                return None;
            }
            Ok(Some((message, metadata, rest))) => {
                let missing = self.gaps.delivered(metadata.mark.sequence, metadata.pending);
                self.received_any = true;
                self.unstored = rest;
                *received = Some(message);
                Item::Delivery(Delivery { metadata, missing: missing.map_or(0, |gap| gap.missing) })
            }
            Err(why) => Item::Over(format!("consumer {}: {why}", self.consumer)),
        })
    }

    /// Handles a status message. It ends a pull request:
    /// <https://docs.nats.io/nats-concepts/jetstream/consumers#pull-consumers>.
    fn handle_status(&mut self, message: &Message) -> Option<String> {
        let description = header(message, "Description").unwrap_or_default();
        let missing = header(message, "Nats-Pending-Messages").and_then(|count| count.parse().ok());
        match status_code(message) {
            Some("404" | "408") => {
                self.consumer_watch.note_request_end();
                self.pulls.ended(missing);
            }
            Some("409") if self.pulls.refused(description) => {
                log::debug!("broker: consumer {} requires smaller requests: {description}", self.consumer);
            }
            Some("409") if description.contains("MaxBytes") => self.pulls.too_large(missing),
            Some("409") if description.contains("Batch Completed") => self.pulls.ended(missing),
            Some("100") => {}
            Some(code) => return Some(format!("the server ended the consumer: {code} {description}")),
            None => log::debug!("broker: ignored an unknown message on {:?}", message.subject),
        }
        None
    }

    fn ask_for_more(&mut self) {
        while let Some(pull) = self.pulls.next() {
            let mut request = json!({ "batch": pull.events });
            match pull.expires {
                Some(expires) => request["expires"] = nanoseconds(expires).into(),
                None => request["no_wait"] = true.into(),
            }
            if let Some(bytes) = pull.bytes {
                request["max_bytes"] = bytes.into();
            }
            let subject =
                format!("{}.CONSUMER.MSG.NEXT.{}.{}", self.config.api_prefix(), self.config.stream, self.consumer);
            self.consumer_watch.note_pull();
            self.link.publish(subject, "pull", request.to_string());
        }
    }

    /// Asks for more where there is room, and whether the server is still there where it has been silent.
    fn keep_up(&mut self) -> Option<String> {
        self.since_look = 0;
        self.ask_for_more();
        if std::mem::take(&mut self.received_any) {
            self.liveness.answered(Instant::now());
        }
        self.consumer_watch.note_flow();
        self.look_after_stream();
        let now = Instant::now();
        let asks_early = || self.consumer_watch.is_due(self.config.silence);
        match self.liveness.check(&self.link, now, asks_early) {
            LinkState::Alive => None,
            LinkState::ProbeDue => {
                self.liveness.probe_sent(now);
                let subject =
                    format!("{}.CONSUMER.INFO.{}.{}", self.config.api_prefix(), self.config.stream, self.consumer);
                self.link.publish(subject, &format!("{PROBE}{}", self.consumer_sequence), String::new());
                None
            }
            LinkState::Over(end) => Some(end.to_string()),
        }
    }
}

fn header<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    message.headers.as_ref()?.get(name).map(String::as_str)
}

fn status_code(message: &Message) -> Option<&str> {
    header(message, "Status")
}
