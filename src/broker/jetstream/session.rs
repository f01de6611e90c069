//! One connection with one consumer, from its first request to the first thing that is out of step.
//!
//! The consumer is disposable: made anew at the position reached, for the database's ledger is the only truth about
//! progress. Within its life every delivery must carry the next consumer sequence.

mod opening;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;
use nats::Message;
use serde_json::json;

use super::api::{self, Api, Consumer, Stream, Which};
use super::backlog::Backlog;
use super::consumer::{Keeping, nanoseconds};
use super::consumer_watch::{ConsumerWatch, Verdict};
use super::gaps::GapWatch;
use super::pulls::Pulls;
use super::reply::{self, Metadata};
use super::selection::Selection;
use super::stream_watch::StreamWatch;
use super::takeover::Unread;
use crate::broker::connection::{Link, LinkState, Liveness, one_line};
use crate::config::BrokerConfig;
use crate::pipeline::{Epoch, Gap, Mark, Signal};
pub(super) use opening::Setting;

/// How the reply of a question for one message begins; its sequence follows.
const WITNESS: &str = "witness-";

/// After so many messages in a row, look at everything else too.
const LOOK: u32 = 1_024;

pub(super) struct Session {
    link: Link,
    config: BrokerConfig,
    pub(super) consumer: String,
    consumer_sequence: u64,
    pulls: Pulls,
    /// None while requests are made on the same link.
    backlog: Option<Backlog>,
    liveness: Liveness,
    /// Something came since the last look at `liveness`: the clock is read once for many messages.
    hearing: bool,
    /// Deliveries since the last look at everything else.
    since_look: u32,
    gaps: GapWatch,
    stream_watch: StreamWatch,
    keeping: Keeping,
    pub(super) consumer_watch: ConsumerWatch,
    /// What the consumer had delivered before it was taken over, and nobody stored.
    unread: Option<Unread>,
    /// What it still delivers up to this sequence is stored already.
    stored_to: u64,
    /// What to collect of what comes, where the consumer does not select.
    selection: Option<Selection>,
    /// Nothing is left in the stream, by the last look.
    exhausted: bool,
    /// Gaps that no delivery carries; at first those inherited from the epoch that this one goes on from.
    pub(super) missing: Vec<Gap>,
    /// Events the stream no longer had, at most.
    pub(super) gone: u64,
    /// Where this session began, and in which epoch.
    pub(super) epoch: Arc<Epoch>,
    pub(super) after: Mark,
    pub(super) pending: u64,
    /// The stream's last sequence when the session was opened.
    pub(super) last: u64,
}

/// What a session yields.
pub(super) enum Item {
    /// A delivery, in step.
    Delivery(Delivery),
    /// Nothing, for as long as was asked.
    Nothing,
    /// The session is over; why.
    Over(String),
}

/// An event on its way, its place in the stream, and what was missing directly before it.
pub(super) struct Delivery {
    pub(super) message: Message,
    pub(super) metadata: Metadata,
    /// How many sequences directly before it the stream did not have.
    pub(super) missing: u64,
}

impl Delivery {
    /// What was missing directly before it; told once.
    pub(super) fn take_missing(&mut self) -> Option<Gap> {
        let missing = std::mem::take(&mut self.missing);
        let last = self.metadata.mark.sequence.saturating_sub(1);
        if missing == 0 { None } else { Gap::of(last + 1 - missing, last) }
    }
}

impl Session {
    /// The next delivery. Blocks at most for `wait`, and not past the stop; for a request's time-out where it reads what a consumer
    /// had delivered to nobody.
    pub(super) fn next(&mut self, wait: Duration, stop: &Signal) -> Item {
        if let Some(item) = self.read_unread(stop) {
            return item;
        }
        if self.backlog.is_none() {
            match Backlog::of(self.link.messages()) {
                Ok(backlog) => self.backlog = Some(backlog),
                Err(error) => return Item::Over(format!("no thread for what comes: {error}")),
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
                    if let Some(item) = self.sort(message) {
                        return item;
                    }
                    // A long row of what is not to be collected holds nobody up.
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
            let next_look = (until - now).min(self.config.silence / 4);
            let Some(backlog) = self.backlog.as_ref().filter(|backlog| backlog.attend()) else { continue };
            let message = crossbeam_channel::select! {
                recv(self.link.messages()) -> message => message.ok(),
                recv(self.link.lost().channel()) -> _ => None,
                recv(stop.channel()) -> _ => None,
                default(next_look) => None,
            };
            backlog.leave();
            if let Some(message) = message {
                self.stream_watch.waited();
                if let Some(item) = self.sort(message) {
                    return item;
                }
            }
        }
    }

    /// Says that nobody listened for a while, so that silence is no sign of anything.
    pub(super) fn was_away(&mut self) {
        self.liveness.restart(Instant::now());
        self.consumer_watch.was_away();
    }

    /// Whether nothing is left in the stream, by the last look.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Whether what the stream may have dropped so far has been said.
    pub(super) fn is_settled(&self) -> bool {
        self.gaps.is_settled()
    }

    /// What the stream no longer has was said up to here.
    pub(super) fn said_to(&self) -> u64 {
        self.gaps.told_to()
    }

    /// What was missing before a delivery was never stored, for no earlier epoch has the delivery.
    pub(super) fn lost(&mut self, gap: Gap) {
        self.gaps.lost(gap);
    }

    /// Whether the stream waits for acknowledgement.
    pub(super) fn acknowledges(&self) -> bool {
        self.keeping != Keeping::Limits
    }

    /// Tells the stream that the delivery of this reply subject and all before it are committed.
    pub(super) fn acknowledge(&self, reply: String) {
        self.link.post(move |connection| {
            // A lost one is made good by the next, or by the consumer that comes after this.
            if let Err(e) = connection.publish(&reply, "+ACK") {
                log::debug!("broker: an acknowledgement was lost: {}", one_line(&e));
            }
        });
    }

    /// Deletes the consumer, unless the stream keeps for it what comes while nobody collects, and closes the connection, as
    /// far as the server answers at once.
    pub(super) fn close(mut self) {
        if let Some(gone) = self.gaps.tell_all() {
            log::warn!("broker: {}", gone.news(&self.config.stream, self.stream_watch.first()));
        }
        if self.acknowledges() {
            return;
        }
        drop(self.backlog);
        let api =
            Api { link: &self.link, prefix: self.config.api_prefix(), within: Duration::from_millis(500), stop: None };
        // A paused one tells the next collector of the pause, for as long as the server keeps it. It may be paused since the last look.
        let is_paused = api.consumer(&self.config.stream, &self.consumer).is_ok_and(|consumer| consumer.paused);
        if is_paused || self.consumer_watch.paused().is_some() {
            return;
        }
        if let Err(failure) = api.delete_consumer(&self.config.stream, &self.consumer) {
            log::debug!("broker: consumer {} is left to expire: {failure}", self.consumer);
        }
    }

    /// Tells deliveries from everything else the server sends to the inbox.
    fn sort(&mut self, message: Message) -> Option<Item> {
        if let Some(metadata) = message.reply.as_deref().and_then(reply::parse) {
            self.hearing = true;
            self.pulls.arrived();
            self.consumer_watch.delivers();
            if self.pulls.has_room() {
                self.ask_for_more();
            }
            let expected = self.consumer_sequence + 1;
            if metadata.consumer_sequence != expected || metadata.delivered != 1 {
                return Some(Item::Over(format!(
                    "consumer {} is out of step: delivery {} of {} came where {expected} was due",
                    self.consumer, metadata.delivered, metadata.consumer_sequence
                )));
            }
            if self.consumer_watch.lacks_payload(&message, expected) {
                return Some(Item::Over(format!(
                    "consumer {} sends no payloads: somebody has edited it",
                    self.consumer
                )));
            }
            self.consumer_sequence = expected;
            self.pending = metadata.pending;
            self.exhausted = metadata.pending == 0;
            if metadata.mark.sequence <= self.stored_to {
                message.reply.into_iter().for_each(|reply| self.acknowledge(reply));
                return None;
            }
            if let Some(out_of_order) = self.stream_watch.delivered(metadata.mark, message.data.len()) {
                return Some(Item::Over(format!("{out_of_order}; looking whether the stream went back")));
            }
            let missing = self.gaps.delivered(metadata.mark.sequence, metadata.pending);
            if self.selection.as_mut().is_some_and(|selection| !selection.takes(&message.subject)) {
                if let Some(gap) = missing {
                    self.gaps.lost(gap);
                    self.missing.push(gap);
                }
                return None;
            }
            let missing = missing.map_or(0, |gap| gap.missing);
            return Some(Item::Delivery(Delivery { message, metadata, missing }));
        }
        let over = match message.subject.rsplit('.').next() {
            // That the stream is there is no sign that the consumer is.
            Some("stream") => self.looked(&message),
            Some(token) if token.starts_with(WITNESS) => self.testified(token, &message),
            token => {
                self.hearing = true;
                if token == Some("probe") { self.probed(&message) } else { self.status(&message) }
            }
        };
        over.map(Item::Over)
    }

    /// The answer to a probe: the consumer as the server sees it.
    fn probed(&mut self, message: &Message) -> Option<String> {
        self.liveness.probe_answered();
        if status_code(message) == Some("503") {
            return Some("the server no longer answers JetStream requests".into());
        }
        let consumer: Consumer = match api::read(&message.data) {
            Ok(consumer) => consumer,
            Err(failure) => return Some(format!("consumer {}: {failure}", self.consumer)),
        };
        if consumer.delivered.consumer_seq < self.consumer_sequence {
            return Some(format!("the server has forgotten what consumer {} was sent", self.consumer));
        }
        if consumer.delivered.consumer_seq == self.consumer_sequence {
            self.exhausted = consumer.num_pending == 0;
            self.gaps.counted(consumer.num_pending);
        }
        self.pending = consumer.num_pending;
        if let Some(over) = self.consumer_watch.look(&consumer) {
            return Some(over);
        }
        self.pulls.limit(consumer.config.pulls);
        match self.consumer_watch.judge(&consumer, self.consumer_sequence, self.config.silence) {
            // Whatever made the server forget them may have taken it and the stream back too.
            Verdict::Forgotten if self.pulls.are_outstanding() => {
                Some(format!("the server has forgotten what consumer {} was asked for", self.consumer))
            }
            Verdict::Fine | Verdict::Forgotten => None,
            Verdict::Useless(why) => Some(why),
        }
    }

    /// The answer to what the stream looks like.
    fn looked(&mut self, message: &Message) -> Option<String> {
        // Whether the stream is still there is the probes' matter.
        let stream = api::read::<Stream>(&message.data).ok()?;
        let missing = self.gaps.answered(&stream.state);
        self.missing.extend(missing.iter());
        self.consumer_watch.hear_of_stream(&self.config, &stream);
        self.stream_watch.looked(&self.config.stream, &stream)
    }

    /// The answer to whether the stream still has a message.
    fn testified(&mut self, token: &str, message: &Message) -> Option<String> {
        let sequence = token.strip_prefix(WITNESS)?.parse().ok()?;
        let stored = api::read_stored(&message.data).ok().flatten();
        self.stream_watch.testified(&self.config.stream, sequence, stored.as_ref())
    }

    /// Asks what has to be known of the stream, and tells what it no longer has.
    fn look_after_stream(&mut self) {
        if self.gaps.ask() || self.stream_watch.is_due(self.config.silence / 2) {
            self.stream_watch.asks();
            let subject = format!("{}.STREAM.INFO.{}", self.config.api_prefix(), self.config.stream);
            let details = self.gaps.wants_details().then(|| api::deleted_details().to_string());
            self.link.publish(subject, "stream", details.unwrap_or_default());
        }
        for sequence in self.stream_watch.witnesses() {
            let subject = format!("{}.STREAM.MSG.GET.{}", self.config.api_prefix(), self.config.stream);
            let reply = format!("{WITNESS}{sequence}");
            self.link.publish(subject, &reply, Which::Exactly(sequence).request().to_string());
        }
        if let Some(gone) = self.gaps.tell() {
            log::warn!("broker: {}", gone.news(&self.config.stream, self.stream_watch.first()));
            self.gone += gone.events;
        }
    }

    /// The next event that the consumer had delivered to somebody who did not store it, read from the stream itself.
    fn read_unread(&mut self, stop: &Signal) -> Option<Item> {
        let unread = self.unread.take()?;
        if unread.is_read() {
            self.acknowledge(unread.acknowledgement());
            return None;
        }
        let api =
            Api { link: &self.link, prefix: self.config.api_prefix(), within: self.config.timeout, stop: Some(stop) };
        Some(match unread.read(&api, &self.config, self.pending) {
            Ok((message, metadata, rest)) => {
                let missing = self.gaps.delivered(metadata.mark.sequence, metadata.pending);
                self.hearing = true;
                self.unread = rest;
                Item::Delivery(Delivery { message, metadata, missing: missing.map_or(0, |gap| gap.missing) })
            }
            Err(why) => Item::Over(format!("consumer {}: {why}", self.consumer)),
        })
    }

    /// A status message: <https://docs.nats.io/nats-concepts/jetstream/consumers#pull-consumers> ends a request with one.
    fn status(&mut self, message: &Message) -> Option<String> {
        let description = header(message, "Description").unwrap_or_default();
        let missing = header(message, "Nats-Pending-Messages").and_then(|count| count.parse().ok());
        match status_code(message) {
            Some("404" | "408") => {
                self.consumer_watch.ended_a_request();
                self.pulls.ended(missing);
            }
            Some("409") if self.pulls.refused(description) => {
                log::debug!("broker: consumer {} takes smaller requests: {description}", self.consumer);
            }
            Some("409") if description.contains("MaxBytes") => self.pulls.too_large(missing),
            Some("409") if description.contains("Batch Completed") => self.pulls.ended(missing),
            Some("100") => {}
            Some(code) => return Some(format!("the server ended the consumer: {code} {description}")),
            None => log::debug!("broker: a message on {:?} that is none of ours", message.subject),
        }
        None
    }

    fn ask_for_more(&mut self) {
        while let Some(pull) = self.pulls.next() {
            let mut request = json!({ "batch": pull.events, "expires": nanoseconds(pull.expires) });
            if let Some(bytes) = pull.bytes {
                request["max_bytes"] = bytes.into();
            }
            let subject =
                format!("{}.CONSUMER.MSG.NEXT.{}.{}", self.config.api_prefix(), self.config.stream, self.consumer);
            self.consumer_watch.asked_for_events();
            self.link.publish(subject, "pull", request.to_string());
        }
    }

    /// Asks for more where there is room, and whether the server is still there where it has been silent.
    fn keep_up(&mut self) -> Option<String> {
        self.since_look = 0;
        self.ask_for_more();
        if std::mem::take(&mut self.hearing) {
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
                self.link.publish(subject, "probe", String::new());
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
