//! One connection with one consumer, from its first request to the first thing that is out of step.
//!
//! The consumer is disposable: made anew at the position reached, for the database's ledger is the only truth about
//! progress. Within its life every delivery must carry the next consumer sequence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;
use nats::Message;
use serde_json::json;

use super::api::{self, Api, Consumer, Failure, Stored, Stream, StreamState, Which, code};
use super::backlog::Backlog;
use super::claims::{Claims, Owner};
use super::consumer::{Keeping, Made, Wish, nanoseconds};
use super::consumer_watch::{ConsumerWatch, Verdict};
use super::epoch::{self, Resume};
use super::gaps::GapWatch;
use super::pulls::Pulls;
use super::reply::{self, Metadata};
use super::selection::Selection;
use super::stream_watch::StreamWatch;
use super::takeover::Unread;
use super::{consumer, facts, poison, stream};
use crate::broker::broker_error;
use crate::broker::connection::Cluster;
use crate::broker::connection::{Link, one_line};
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Epoch, Gap, Gaps, Life, Mark, Signal};

/// What a session is opened with.
pub(super) struct Setting<'a> {
    pub(super) cluster: &'a Arc<Cluster>,
    /// Whose the consumer is to be.
    pub(super) owner: &'a Owner,
    /// The consumer of the session before.
    pub(super) previous: Option<&'a str>,
    /// Until when somebody had that deliver nothing.
    pub(super) paused: Option<&'a str>,
    /// How far each epoch of the stream has been taken in, the latest last.
    pub(super) history: &'a [Life],
    /// Whether the stream may be made where it is missing.
    pub(super) may_create: bool,
    /// What the stream no longer has was said up to this sequence.
    pub(super) said_to: u64,
    /// How many events can be taken in and not committed yet.
    pub(super) under_way: usize,
    pub(super) stop: &'a Signal,
}

pub(super) struct Session {
    link: Link,
    config: BrokerConfig,
    pub(super) consumer: String,
    consumer_sequence: u64,
    pulls: Pulls,
    /// From the first look at what comes: before that, requests are made on the same link.
    backlog: Option<Backlog>,
    heard: Instant,
    /// Something came since `heard` was last looked at: the clock is asked once for many messages.
    hearing: bool,
    probe: Option<Instant>,
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
    /// What was missing on the way, and no delivery has told; at first the gaps of an earlier epoch that this one goes on from.
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
    /// Connects and makes a consumer behind the position.
    pub(super) fn open(setting: &Setting<'_>) -> Result<Self, Error> {
        let config = setting.cluster.config();
        let link = Link::open(setting.cluster, setting.stop)?;
        let api = Api { link: &link, prefix: config.api_prefix(), within: config.timeout, stop: Some(setting.stop) };
        let explain = |failure: Failure| stream::explain(&link, config, &failure);
        let stream = stream::find(&api, config, setting.may_create)?;
        let mut resume = position_in(&api, config, setting.history, setting.said_to, &stream)?;
        let whole = stream::is_whole(&config.subjects, &stream.config);
        stream::object(&api, config, &stream, resume.after.sequence)?;
        let keeping = Keeping::of(&stream, config, setting.under_way);
        // A stream with interest retention never kept what nobody wanted: what a filter leaves out is no gap.
        if resume.gone > 0 && keeping != Keeping::Limits && !whole {
            (resume.gone, resume.news) = (0, None);
        }
        let ask_for_claims = |patience| {
            let claims = Claims::ask(&api, &config.stream, setting.owner, setting.previous, patience);
            let conflict = claims.contested().map(|claim| claim.conflict(&config.stream));
            let error = |why| broker_error(&link.server().address, BrokerFault::Contested, why);
            conflict.map_or(Ok(claims), |why| Err(error(why)))
        };
        let mut claims = ask_for_claims(config.timeout)?;
        let wish = Wish {
            config,
            owner: setting.owner,
            stream: &stream,
            resume: &resume,
            keeping,
            whole,
            paused: setting.paused,
        };
        let Made { name: consumer, info: made, unread } = consumer::make(&api, &wish, &mut claims)?;
        let selection = Selection::beside(&made, config);
        // The stream may have been made anew between the two questions; then this consumer starts at the wrong place.
        let again = api.stream(&config.stream).map_err(explain)?;
        if again.created != stream.created {
            let detail = format!("stream {} was made anew just now; trying again", config.stream);
            return Err(broker_error(&link.server().address, BrokerFault::Stream, detail));
        }
        if claims.unasked.is_some() {
            claims = ask_for_claims(Duration::ZERO)?;
        }
        consumer::delete_older(&api, &config.stream, &claims, &consumer, keeping);
        if setting.previous.is_none() {
            consumer::tell(config, &made, &claims, keeping);
        }
        let gaps = gap_watch(&api, setting, &stream, &resume, keeping, made.num_pending).map_err(explain)?;
        if let Some(news) = &resume.news {
            log::warn!("broker: {news}");
        }
        let nothing_unread = unread.as_ref().is_none_or(Unread::is_read);
        let stored_to = unread.as_ref().map_or(0, |_| resume.after.sequence);
        Ok(Self {
            config: config.clone(),
            consumer_watch: ConsumerWatch::new(&consumer, &made, config, &again),
            consumer,
            unread,
            stored_to,
            consumer_sequence: made.delivered.consumer_seq,
            pulls: Pulls::new(config.ahead.clone(), made.config.pulls),
            backlog: None,
            heard: Instant::now(),
            hearing: false,
            probe: None,
            gaps,
            stream_watch: StreamWatch::new(&again, resume.after),
            keeping,
            selection,
            exhausted: made.num_pending == 0 && nothing_unread,
            missing: resume.inherited.iter().collect(),
            gone: resume.gone,
            epoch: Arc::new(resume.epoch),
            after: resume.after,
            pending: made.num_pending,
            last: stream.state.last_seq,
            link,
        })
    }

    /// The next delivery. Blocks at most for `wait`, and not past the stop.
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
        loop {
            match self.backlog.as_ref().map_or(Err(TryRecvError::Empty), Backlog::try_next) {
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
        self.heard = Instant::now();
        self.consumer_watch.was_away();
        self.probe = None;
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
    pub(super) fn close(self) {
        // A paused one tells the next collector of the pause, for as long as the server keeps it.
        if self.acknowledges() || self.consumer_watch.paused().is_some() {
            return;
        }
        drop(self.backlog);
        let api =
            Api { link: &self.link, prefix: self.config.api_prefix(), within: Duration::from_millis(500), stop: None };
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
            Some("witness") => self.testified(&message),
            token => {
                self.hearing = true;
                if token == Some("probe") { self.probed(&message) } else { self.status(&message) }
            }
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
    fn testified(&mut self, message: &Message) -> Option<String> {
        let stored = api::read_stored(&message.data).ok()?;
        self.stream_watch.testified(&self.config.stream, stored.as_ref())
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
            self.link.publish(subject, "witness", Which::Exactly(sequence).request().to_string());
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
        self.ask_for_more();
        if std::mem::take(&mut self.hearing) {
            self.heard = Instant::now();
        }
        self.consumer_watch.note_flow();
        self.look_after_stream();
        let silent = self.heard.elapsed();
        if silent >= self.config.silence {
            self.link.fell_silent();
            let server = &self.link.server().address;
            return Some(format!("{server} has said nothing for {silent:.1?}, our questions included"));
        }
        let is_silent = silent >= self.config.silence / 2;
        let probe = self.probe.is_none_or(|sent| sent.elapsed() >= self.config.silence / 2)
            && (is_silent || self.consumer_watch.is_due(self.config.silence));
        if probe {
            self.probe = Some(Instant::now());
            let subject =
                format!("{}.CONSUMER.INFO.{}.{}", self.config.api_prefix(), self.config.stream, self.consumer);
            self.link.publish(subject, "probe", String::new());
        }
        None
    }
}

/// What to make of the steps in the sequences that come.
fn gap_watch(
    api: &Api<'_>,
    setting: &Setting<'_>,
    stream: &Stream,
    resume: &Resume,
    keeping: Keeping,
    pending: u64,
) -> Result<GapWatch, Failure> {
    let config = setting.cluster.config();
    let steps = stream::steps(config, stream, keeping);
    let StreamState { first_seq: first, last_seq: last, num_deleted, .. } = stream.state;
    let first_time = setting.history.iter().all(|life| life.mark == Mark::START);
    let goes_on = resume.after != Mark::START;
    // What the stream lacks when it is collected for the first time is nobody's loss. Where it goes on, the opening tells.
    let told_to = if first_time || goes_on { setting.said_to.max(first.saturating_sub(1)) } else { setting.said_to };
    let watch = GapWatch::new(steps, resume.after.sequence + 1, last, pending, told_to);
    if !first_time {
        return Ok(watch.was_away());
    }
    match num_deleted {
        0 => Ok(watch),
        few if few <= facts::MOST_DELETED => Ok(watch.besides(api.deleted(&config.stream)?)),
        _ => Ok(watch.besides(Gap::of(1, last).map(Gaps::from).unwrap_or_default())),
    }
}

/// A message that the client cannot read, what is wrong with it, and what was missing directly before it.
pub(super) struct Unreadable {
    pub(super) stored: Stored,
    pub(super) defect: &'static str,
    pub(super) missing: Option<Gap>,
}

/// Reads the message behind the position raw: if the client could not read it, that is why the last session ended.
pub(super) fn unreadable_next(setting: &Setting<'_>) -> Result<Option<Unreadable>, Error> {
    let Some(Life { epoch, mark, .. }) = setting.history.last() else { return Ok(None) };
    let config = setting.cluster.config();
    let link = Link::open(setting.cluster, setting.stop)?;
    let api = Api { link: &link, prefix: config.api_prefix(), within: config.timeout, stop: Some(setting.stop) };
    let explain = |failure: Failure| stream::explain(&link, config, &failure);
    let stream = match api.stream(&config.stream) {
        Err(failure) if failure.is_code(code::NO_STREAM) => return Ok(None),
        found => found.map_err(explain)?,
    };
    // Another life of the stream: its messages are none of this position's.
    if position_in(&api, config, setting.history, setting.said_to, &stream)?.epoch != *epoch {
        return Ok(None);
    }
    let due = mark.sequence + 1;
    let Some(stored) = next_of(&api, config, due).map_err(explain)? else { return Ok(None) };
    let Some(defect) = poison::defect(&stored.subject, &stored.headers) else { return Ok(None) };
    let is_whole = stream::is_whole(&config.subjects, &stream.config);
    let missing = Gap::of(due, stored.mark.sequence - 1).filter(|_| is_whole);
    Ok(Some(Unreadable { stored, defect, missing }))
}

/// The first message from this sequence on that is to be collected.
pub(super) fn next_of(api: &Api<'_>, config: &BrokerConfig, from: u64) -> Result<Option<Stored>, Failure> {
    let mut next: Option<Stored> = None;
    for filter in &config.subjects {
        let found = api.message(&config.stream, &Which::NextOf(filter, from))?;
        next = next.into_iter().chain(found).min_by_key(|stored| stored.mark.sequence);
    }
    Ok(next)
}

/// Where to go on in the stream; what it no longer has was said up to `said_to`.
pub(super) fn position_in(
    api: &Api<'_>,
    config: &BrokerConfig,
    history: &[Life],
    said_to: u64,
    stream: &Stream,
) -> Result<Resume, Error> {
    let facts = facts::look(api, &config.stream, history, said_to, stream)
        .map_err(|failure| stream::explain(api.link, config, &failure))?;
    Ok(epoch::resume(&config.stream, history, &facts))
}

fn header<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    message.headers.as_ref()?.get(name).map(String::as_str)
}

fn status_code(message: &Message) -> Option<&str> {
    header(message, "Status")
}
