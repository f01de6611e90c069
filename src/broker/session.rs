//! One connection with one consumer, from its first request to the first thing that is out of step.
//!
//! The consumer is disposable: made anew at the position reached, with ack policy none, for the database's ledger is the
//! only truth about progress. Within its life every delivery must carry the next consumer sequence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;
use nats::Message;
use serde_json::json;

use super::api::{self, Api, Consumer, Failure, Stored, Which, code};
use super::cluster::Cluster;
use super::epoch::{self, Facts};
use super::link::Link;
use super::pulls::Pulls;
use super::reply::{self, Metadata};
use super::{broker_error, consumer, poison, stream};
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Epoch, Mark, Position, Signal};

/// How long the server keeps a pull request before it ends it with a status.
const EXPIRES_NS: u64 = 30_000_000_000;

/// What a session is opened with.
pub(super) struct Setting<'a> {
    pub(super) cluster: &'a Arc<Cluster>,
    /// Names the database.
    pub(super) identity: &'a str,
    /// How far the stream has been taken in.
    pub(super) position: Option<&'a Position>,
    /// Whether the stream may be made where it is missing.
    pub(super) may_create: bool,
    pub(super) stop: &'a Signal,
}

pub(super) struct Session {
    link: Link,
    config: BrokerConfig,
    consumer: String,
    consumer_sequence: u64,
    pulls: Pulls,
    heard: Instant,
    /// Something came since `heard` was last looked at: the clock is asked once for many messages.
    hearing: bool,
    probe: Option<Instant>,
    stalls: u32,
    /// Where this session began, and in which epoch.
    pub(super) epoch: Arc<Epoch>,
    pub(super) after: Mark,
    pub(super) known: Option<Mark>,
    pub(super) pending: u64,
    /// The stream's last sequence when the session was opened.
    pub(super) last: u64,
}

/// What a session yields.
pub(super) enum Item {
    /// A delivery, in step.
    Delivery(Message, Metadata),
    /// Nothing, for as long as was asked.
    Nothing,
    /// The session is over; why.
    Over(String),
}

impl Session {
    /// Connects and makes a consumer behind the position.
    pub(super) fn open(setting: &Setting<'_>) -> Result<Self, Error> {
        let config = setting.cluster.config();
        let link = Link::open(setting.cluster, setting.stop)?;
        let api = Api { link: &link, prefix: config.api_prefix(), within: config.timeout, stop: Some(setting.stop) };
        let explain = |failure: Failure| stream::explain(&link, config, &failure);
        let stream = stream::find(&api, config, setting.may_create)?;
        let time_there = match setting.position {
            // Before its first event there is nothing to ask for: the server refuses sequence 0.
            Some(position) if position.mark != Mark::START && position.epoch.created == stream.created => {
                let there = api.message(&config.stream, &Which::Exactly(position.mark.sequence)).map_err(explain)?;
                there.map(|stored| stored.mark.published_ns)
            }
            _ => None,
        };
        let facts =
            Facts { created: &stream.created, first: stream.state.first_seq, last: stream.state.last_seq, time_there };
        let resume = epoch::resume(&config.stream, setting.position, &facts);
        if let Some(news) = &resume.news {
            log::warn!("broker: {news}");
        }

        let (consumer, made) = consumer::make(&api, config, setting.identity, &resume)?;
        // The stream may have been made anew between the two questions; then this consumer starts at the wrong place.
        let again = api.stream(&config.stream).map_err(explain)?;
        if again.created != stream.created {
            let detail = format!("stream {} was made anew just now; trying again", config.stream);
            return Err(broker_error(&link.server().address, BrokerFault::Stream, detail));
        }
        consumer::delete_older(&api, &config.stream, setting.identity, &consumer);
        Ok(Self {
            config: config.clone(),
            consumer,
            consumer_sequence: 0,
            pulls: Pulls::new(config.ahead.clone()),
            heard: Instant::now(),
            hearing: false,
            probe: None,
            stalls: 0,
            epoch: Arc::new(resume.epoch),
            after: resume.after,
            known: resume.known,
            pending: made.num_pending,
            last: stream.state.last_seq,
            link,
        })
    }

    /// The next delivery. Blocks at most for `wait`, and not past the stop.
    pub(super) fn next(&mut self, wait: Duration, stop: &Signal) -> Item {
        let mut until = None;
        loop {
            match self.link.messages().try_recv() {
                Ok(message) => match self.sort(message) {
                    Some(item) => return item,
                    None => continue,
                },
                Err(TryRecvError::Disconnected) => return Item::Over("the client dropped the subscription".into()),
                Err(TryRecvError::Empty) => {}
            }
            if self.link.lost().is_raised() {
                return Item::Over(format!("the connection to {} was lost", self.link.server().address));
            }
            if self.link.should_move() {
                let server = &self.link.server().address;
                return Item::Over(format!("{server} goes out of service (lame duck mode); moving to another server"));
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
            crossbeam_channel::select! {
                recv(self.link.messages()) -> message => {
                    if let Ok(message) = message && let Some(item) = self.sort(message) {
                        return item;
                    }
                }
                recv(self.link.lost().channel()) -> _ => {}
                recv(stop.channel()) -> _ => {}
                default(next_look) => {}
            }
        }
    }

    /// Says that nobody listened for a while, so that silence is no sign of anything.
    pub(super) fn was_away(&mut self) {
        self.heard = Instant::now();
        self.probe = None;
    }

    /// Deletes the consumer and closes the connection, as far as the server answers at once.
    pub(super) fn close(self) {
        let api =
            Api { link: &self.link, prefix: self.config.api_prefix(), within: Duration::from_millis(500), stop: None };
        if let Err(failure) = api.delete_consumer(&self.config.stream, &self.consumer) {
            log::debug!("broker: consumer {} is left to expire: {failure}", self.consumer);
        }
    }

    /// Tells deliveries from everything else the server sends to the inbox.
    fn sort(&mut self, message: Message) -> Option<Item> {
        self.hearing = true;
        if let Some(metadata) = message.reply.as_deref().and_then(reply::parse) {
            self.pulls.arrived();
            if self.pulls.has_room() {
                self.ask_for_more();
            }
            self.stalls = 0;
            let expected = self.consumer_sequence + 1;
            if metadata.consumer_sequence != expected || metadata.delivered != 1 {
                return Some(Item::Over(format!(
                    "consumer {} is out of step: delivery {} of {} came where {expected} was due",
                    self.consumer, metadata.delivered, metadata.consumer_sequence
                )));
            }
            self.consumer_sequence = expected;
            self.pending = metadata.pending;
            return Some(Item::Delivery(message, metadata));
        }
        let over = if message.subject.rsplit('.').next() == Some("probe") {
            self.probed(&message)
        } else {
            self.status(&message)
        };
        over.map(Item::Over)
    }

    /// The answer to a probe: the consumer as the server sees it.
    fn probed(&mut self, message: &Message) -> Option<String> {
        self.probe = None;
        if status_code(message) == Some("503") {
            return Some("the server does no longer answer JetStream requests".into());
        }
        let consumer: Consumer = match api::read(&message.data) {
            Ok(consumer) => consumer,
            Err(failure) => return Some(format!("consumer {}: {failure}", self.consumer)),
        };
        self.pending = consumer.num_pending;
        if consumer.num_waiting == 0 {
            self.pulls.forgotten();
        } else if consumer.num_pending > 0 {
            self.stalls += 1;
            if self.stalls >= 3 {
                let pending = consumer.num_pending;
                return Some(format!("consumer {} has {pending} messages and sends none", self.consumer));
            }
        }
        None
    }

    /// A status message: <https://docs.nats.io/nats-concepts/jetstream/consumers#pull-consumers> ends a request with one.
    fn status(&mut self, message: &Message) -> Option<String> {
        let description = header(message, "Description").unwrap_or_default();
        let missing = header(message, "Nats-Pending-Messages").and_then(|count| count.parse().ok());
        match status_code(message) {
            Some("404" | "408") => self.pulls.ended(missing),
            Some("409") if description.contains("MaxBytes") => self.pulls.too_large(missing),
            Some("409") if description.contains("Batch Completed") => self.pulls.ended(missing),
            Some("100") => {}
            Some(code) => return Some(format!("the server ended the consumer: {code} {description}")),
            None => log::debug!("broker: a message on {} that is none of ours", message.subject),
        }
        None
    }

    fn ask_for_more(&mut self) {
        while let Some(pull) = self.pulls.next() {
            let mut request = json!({ "batch": pull.events, "expires": EXPIRES_NS });
            if let Some(bytes) = pull.bytes {
                request["max_bytes"] = bytes.into();
            }
            let subject =
                format!("{}.CONSUMER.MSG.NEXT.{}.{}", self.config.api_prefix(), self.config.stream, self.consumer);
            self.link.publish(subject, "pull", request.to_string());
        }
    }

    /// Asks for more where there is room, and whether the server is still there where it has been silent.
    fn keep_up(&mut self) -> Option<String> {
        self.ask_for_more();
        if std::mem::take(&mut self.hearing) {
            self.heard = Instant::now();
        }
        let silent = self.heard.elapsed();
        if silent >= self.config.silence {
            self.link.fell_silent();
            let server = &self.link.server().address;
            return Some(format!("{server} has said nothing for {silent:.1?}, our questions included"));
        }
        if silent >= self.config.silence / 2 && self.probe.is_none_or(|sent| sent.elapsed() >= self.config.silence / 2)
        {
            self.probe = Some(Instant::now());
            let subject =
                format!("{}.CONSUMER.INFO.{}.{}", self.config.api_prefix(), self.config.stream, self.consumer);
            self.link.publish(subject, "probe", String::new());
        }
        None
    }
}

/// Reads the message behind the position raw: if the client could not read it, that is why the last session ended.
pub(super) fn unreadable_next(setting: &Setting<'_>) -> Result<Option<(Stored, &'static str)>, Error> {
    let Some(position) = setting.position else { return Ok(None) };
    let config = setting.cluster.config();
    let link = Link::open(setting.cluster, setting.stop)?;
    let api = Api { link: &link, prefix: config.api_prefix(), within: config.timeout, stop: Some(setting.stop) };
    let explain = |failure: Failure| stream::explain(&link, config, &failure);
    match api.stream(&config.stream) {
        Ok(stream) if stream.created == position.epoch.created => {}
        // Another life of the stream: its messages are none of this position's.
        Ok(_) => return Ok(None),
        Err(failure) if failure.is_code(code::NO_STREAM) => return Ok(None),
        Err(failure) => return Err(explain(failure)),
    }
    let mut next: Option<Stored> = None;
    for filter in &config.subjects {
        let which = Which::NextOf(filter, position.mark.sequence + 1);
        let found = api.message(&config.stream, &which).map_err(explain)?;
        next = next.into_iter().chain(found).min_by_key(|stored| stored.mark.sequence);
    }
    Ok(next.and_then(|stored| poison::defect(&stored.subject, &stored.headers).map(|defect| (stored, defect))))
}

fn header<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    message.headers.as_ref()?.get(name).map(String::as_str)
}

fn status_code(message: &Message) -> Option<&str> {
    header(message, "Status")
}
