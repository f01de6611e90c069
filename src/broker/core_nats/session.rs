//! One connection with subscriptions to what is to be collected from core NATS, from its first request to its loss.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select};
use nats::{Connection, Message, Subscription};

use super::brake::Brake;
use super::pacer::Pacer;
use super::room::Room;
use crate::broker::broker_error;
use crate::broker::connection::Cluster;
use crate::broker::connection::{Link, one_line};
use crate::config::{BrokerConfig, CoreOverflow};
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Counters, Signal};

/// The longest wait for what the server has sent already, when told to end; and for the next of it.
const LAST_WORDS: Duration = Duration::from_secs(5);
const NEXT_WORD: Duration = Duration::from_millis(500);

/// How long markers are sent behind the last event.
const CALM: Duration = Duration::from_millis(100);

/// The most messages taken out of a subscription before anything else is looked at.
const MOUTHFUL: usize = 1_000;

pub(super) struct CoreSession {
    link: Link,
    config: BrokerConfig,
    brake: Arc<Brake>,
    pacer: Option<Pacer>,
    inbox: String,
    /// Dropped on the link's thread, for that can block.
    subscriptions: Vec<Subscription>,
    events: Vec<Receiver<Message>>,
    echoes: Receiver<Message>,
    /// When the server was last heard, and when the last event came.
    heard: Instant,
    last_event: Option<Instant>,
    probe: Option<Instant>,
    remarks: u64,
}

/// What a session yields.
pub(super) enum Heard {
    /// Events, which are where the caller wanted them.
    Events,
    /// Nothing, for as long as was asked.
    Nothing,
    /// The session is over; why.
    Over(String),
}

impl CoreSession {
    /// Connects and subscribes; returns when the server has taken the subscriptions.
    pub(super) fn open(
        cluster: &Arc<Cluster>,
        room: &Arc<Room>,
        counters: &Arc<Counters>,
        stop: &Signal,
    ) -> Result<Self, Error> {
        let config = cluster.config();
        let inboxes = format!("{}.catchment.", config.inbox_prefix.as_deref().unwrap_or("_INBOX"));
        let brake = Arc::new(Brake::new(room, counters, inboxes));
        let ear = Arc::clone(&brake);
        let link = Link::open_with(cluster, stop, Arc::new(move |remark: &str| ear.hear(remark)))?;
        let Subscribed { inbox, echoes, markers, events } = subscribe(&link, config, brake.inboxes(), stop)?;
        let mut session = Self {
            inbox,
            events: events.iter().map(|events| events.receiver().clone()).collect(),
            echoes: echoes.receiver().clone(),
            subscriptions: events.into_iter().chain([echoes, markers]).collect(),
            heard: Instant::now(),
            last_event: None,
            probe: None,
            remarks: 0,
            pacer: None,
            config: config.clone(),
            brake,
            link,
        };
        session.confirm(stop)?;
        if config.core.overflow == CoreOverflow::Block {
            let subject = markers_of(&session.inbox);
            session.pacer = Some(Pacer::open(cluster, &subject, &session.brake, stop)?);
        }
        Ok(session)
    }

    /// Waits for the server's answer to what stands behind the subscriptions, and sees whether it refuses one.
    fn confirm(&self, stop: &Signal) -> Result<(), Error> {
        let failed = |detail: String| broker_error(&self.link.server().address, BrokerFault::Request, detail);
        let until = Instant::now() + self.config.timeout;
        self.publish_to_self();
        while self.echoes.recv_timeout(Duration::from_millis(5)).is_err() && self.brake.remarks() == 0 {
            if stop.is_raised() || self.link.lost().is_raised() || Instant::now() >= until {
                self.link.fell_silent();
                return Err(failed(format!("no answer to the subscriptions within {:?}", self.config.timeout)));
            }
        }
        match self.brake.remark_on("violation for subscription") {
            Some(refusal) => {
                let way_out = "allow this user to subscribe to that, or change broker.subjects";
                Err(failed(format!("{refusal}; {way_out}")))
            }
            None => Ok(()),
        }
    }

    /// Hands over what has arrived. Blocks at most for `wait` where nothing has, and not past the stop.
    pub(super) fn next(&mut self, wait: Duration, stop: &Signal, take: &mut dyn FnMut(Message)) -> Heard {
        let now = Instant::now();
        if self.hand_over(MOUTHFUL, take) {
            (self.heard, self.last_event) = (now, Some(now));
        } else if self.link.lost().is_raised() {
            return Heard::Over(self.loss());
        } else if self.link.should_move() {
            let server = &self.link.server().address;
            return Heard::Over(format!("{server} goes out of service (lame duck mode); moving to another server"));
        }
        let is_busy =
            self.brake.is_on() || self.last_event.is_some_and(|event| now.saturating_duration_since(event) < CALM);
        let mut wait = wait.min(self.config.silence / 4);
        if let Some(pacer) = self.pacer.as_mut().filter(|_| is_busy) {
            if let Some(why) = pacer.pace(now, self.config.silence) {
                return Heard::Over(why);
            }
            wait = wait.min(Pacer::INTERVAL);
        }
        if self.last_event == Some(now) {
            return Heard::Events;
        }
        if let Some(why) = self.keep_up(now) {
            return Heard::Over(why);
        }
        self.wait(wait, stop);
        Heard::Nothing
    }

    fn hand_over(&self, most: usize, take: &mut dyn FnMut(Message)) -> bool {
        let mut any = false;
        for events in &self.events {
            for message in events.try_iter().take(most) {
                any = true;
                // Who collects everything would collect our own probes too, and those of others.
                if !message.subject.starts_with(self.brake.inboxes()) {
                    take(message);
                }
            }
        }
        any
    }

    /// Asks whether the server is still there where it has been silent.
    fn keep_up(&mut self, now: Instant) -> Option<String> {
        let remarks = self.brake.remarks();
        let answered = self.echoes.try_iter().count() > 0 || remarks != self.remarks;
        // With the brake on nobody listens, and nothing can be asked.
        if answered || self.brake.is_on() {
            self.remarks = remarks;
            self.heard = now;
            self.probe = None;
        }
        let silent = now.saturating_duration_since(self.heard);
        let silence = self.config.silence;
        if silent >= silence {
            self.link.fell_silent();
            let server = &self.link.server().address;
            return Some(format!("{server} has said nothing for {silent:.1?}, our questions included"));
        }
        if silent >= silence / 2 && self.probe.is_none() {
            self.probe = Some(now);
            self.publish_to_self();
        }
        None
    }

    fn wait(&self, wait: Duration, stop: &Signal) {
        let mut select = Select::new();
        for events in &self.events {
            select.recv(events);
        }
        select.recv(&self.echoes);
        select.recv(self.link.lost().channel());
        select.recv(stop.channel());
        let _ = select.ready_timeout(wait);
    }

    /// Hands over what the server had sent when this was called, as far as it comes at once, and lets go of the connection.
    pub(super) fn finish(self, take: &mut dyn FnMut(Message)) {
        let until = Instant::now() + LAST_WORDS;
        if !self.brake.is_on() {
            while self.echoes.try_recv().is_ok() {}
            let remarks = self.brake.remarks();
            self.publish_to_self();
            // The echo stands behind all that the server had for us before.
            let mut heard = Instant::now();
            while self.echoes.is_empty()
                && self.brake.remarks() == remarks
                && !self.link.lost().is_raised()
                && heard.elapsed() < NEXT_WORD
                && heard < until
            {
                if self.hand_over(MOUTHFUL, take) {
                    heard = Instant::now();
                } else {
                    self.wait(Duration::from_millis(20), &Signal::default());
                }
            }
            if heard >= until {
                log::warn!(
                    "broker: {} had more to say than could be heard in {LAST_WORDS:?}; what it has sent besides is lost",
                    self.link.server().address
                );
            }
        }
        self.brake.release();
        for events in &self.events {
            for message in events
                .try_iter()
                .take(events.len())
                .filter(|message| !message.subject.starts_with(self.brake.inboxes()))
            {
                take(message);
            }
        }
    }

    fn loss(&self) -> String {
        let server = &self.link.server().address;
        let held = self.brake.longest();
        if held > Duration::from_secs(1) {
            return format!(
                "the connection to {server} was lost: reading it was held up for {held:.1?}, and the server ends those that \
                 do not read"
            );
        }
        format!(
            "the connection to {server} was lost: the server ended it, or a message came that the NATS client cannot read"
        )
    }

    fn publish_to_self(&self) {
        let subject = echoes_of(&self.inbox);
        self.link.post(move |connection| {
            if let Err(e) = connection.publish(&subject, "") {
                log::debug!("broker: {subject}: {e}");
            }
        });
    }
}

impl Drop for CoreSession {
    fn drop(&mut self) {
        self.brake.release();
        let subscriptions = std::mem::take(&mut self.subscriptions);
        self.link.post(move |_| drop(subscriptions));
    }
}

struct Subscribed {
    inbox: String,
    echoes: Subscription,
    markers: Subscription,
    events: Vec<Subscription>,
}

fn subscribe(link: &Link, config: &BrokerConfig, inboxes: &str, stop: &Signal) -> Result<Subscribed, Error> {
    let (subjects, queue, most) = (config.subjects.clone(), config.core.queue.clone(), config.core.max_events);
    let inboxes = inboxes.to_owned();
    let subscribed = link.call(config.timeout, stop, move |connection| {
        subscribe_all(connection, &inboxes, &subjects, queue.as_deref(), most)
    });
    let failed = |why: &str| broker_error(&link.server().address, BrokerFault::Request, format!("subscribing: {why}"));
    subscribed.map_err(|gone| failed(&gone.0))?.map_err(|e| failed(&one_line(&e)))
}

fn subscribe_all(
    connection: &Connection,
    inboxes: &str,
    subjects: &[String],
    queue: Option<&str>,
    most: usize,
) -> std::io::Result<Subscribed> {
    let unique = connection.new_inbox();
    let inbox = format!("{inboxes}{}", unique.rsplit('.').next().unwrap_or_default());
    let echoes = connection.subscribe(&echoes_of(&inbox))?;
    let markers = connection.subscribe(&markers_of(&inbox))?;
    markers.set_message_limits(0);
    let mut events = Vec::new();
    for subject in subjects {
        let subscription = match queue {
            Some(queue) => connection.queue_subscribe(subject, queue)?,
            None => connection.subscribe(subject)?,
        };
        subscription.set_message_limits(most);
        events.push(subscription);
    }
    Ok(Subscribed { inbox, echoes, markers, events })
}

fn echoes_of(inbox: &str) -> String {
    format!("{inbox}.echo")
}

fn markers_of(inbox: &str) -> String {
    format!("{inbox}.brake")
}
