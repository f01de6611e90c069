//! One connection with subscriptions to the collected subjects, from its first request to its loss.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select};
use nats::{Connection, Message, Subscription};

use super::marker_publisher::MarkerPublisher;
use super::read_throttle::ReadThrottle;
use super::receive_buffer::ReceiveBuffer;
use crate::broker::broker_error;
use crate::broker::connection::{Cluster, Link, LinkState, Liveness, Received, one_line};
use crate::config::{BrokerConfig, CoreOverflow};
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Counters, Signal};

/// At the end: how long to receive what the server had sent already, and how long to wait for more of it.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
const DRAIN_IDLE: Duration = Duration::from_millis(500);

/// How long markers are sent after the last event.
const CALM: Duration = Duration::from_millis(100);

/// The most messages taken out of a subscription before anything else is looked at.
const MAX_BATCH: usize = 1_000;

pub(super) struct CoreSession {
    link: Link,
    config: BrokerConfig,
    throttle: Arc<ReadThrottle>,
    marker_publisher: Option<MarkerPublisher>,
    inbox: String,
    /// Dropped on the link's thread, because dropping them can block.
    subscriptions: Vec<Subscription>,
    events: Vec<Receiver<Message>>,
    /// Probes that came back.
    echoes: Receiver<Message>,
    liveness: Liveness,
    last_event: Option<Instant>,
    /// How many remarks of the server have counted as answers.
    remarks: u64,
}

impl CoreSession {
    /// Connects and subscribes; returns when the server has accepted the subscriptions.
    pub(super) fn open(
        cluster: &Arc<Cluster>,
        buffer: &Arc<ReceiveBuffer>,
        counters: &Arc<Counters>,
        stop: &Signal,
    ) -> Result<Self, Error> {
        let config = cluster.config();
        let inboxes = format!("{}.catchment.", config.inbox_prefix.as_deref().unwrap_or("_INBOX"));
        let throttle = Arc::new(ReadThrottle::new(buffer, counters, inboxes));
        let listener = Arc::<ReadThrottle>::clone(&throttle);
        let link = Link::open_with(cluster, stop, listener)?;
        let Subscribed { inbox, echoes, markers, events } = subscribe(&link, config, throttle.inboxes(), stop)?;
        let mut session = Self {
            inbox,
            events: events.iter().map(|events| events.receiver().clone()).collect(),
            echoes: echoes.receiver().clone(),
            subscriptions: events.into_iter().chain([echoes, markers]).collect(),
            liveness: Liveness::new(config.silence),
            last_event: None,
            remarks: 0,
            marker_publisher: None,
            config: config.clone(),
            throttle,
            link,
        };
        session.confirm(stop)?;
        if config.core.overflow == CoreOverflow::Block {
            let subject = markers_of(&session.inbox);
            session.marker_publisher = Some(MarkerPublisher::open(cluster, &subject, &session.throttle, stop)?);
        }
        Ok(session)
    }

    /// The server's address, without secrets.
    pub(super) fn server(&self) -> &str {
        &self.link.server().address
    }

    /// Waits for the echo behind the subscriptions, and checks whether the server refuses one.
    fn confirm(&self, stop: &Signal) -> Result<(), Error> {
        let failed = |detail: String| broker_error(&self.link.server().address, BrokerFault::Request, detail);
        let until = Instant::now() + self.config.timeout;
        self.publish_to_self();
        loop {
            if let Ok(echo) = self.echoes.recv_timeout(Duration::from_millis(5)) {
                self.link.keep_sample(&echo);
                break;
            }
            if self.throttle.remarks() > 0 {
                break;
            }
            if stop.is_raised() || self.link.lost().is_raised() || Instant::now() >= until {
                self.link.mark_silent();
                return Err(failed(format!("no answer to the subscriptions within {:?}", self.config.timeout)));
            }
        }
        match self.throttle.refusal() {
            Some(refusal) => {
                Err(failed(refusal).with_remedy("allow this user to subscribe to that, or change broker.subjects"))
            }
            None => Ok(()),
        }
    }

    /// Passes on what has arrived. Blocks at most for `wait` where nothing has, and not past the stop.
    pub(super) fn next(&mut self, wait: Duration, stop: &Signal, take: &mut dyn FnMut(Message)) -> Received {
        let now = Instant::now();
        if self.pass_on(MAX_BATCH, take) {
            self.liveness.answered(now);
            self.last_event = Some(now);
        } else if let Some(end) =
            self.liveness.loss(&self.link, self.cause_of_loss()).or_else(|| self.liveness.departure(&self.link))
        {
            return Received::Over(end.to_string());
        }
        let is_busy =
            self.throttle.is_on() || self.last_event.is_some_and(|event| now.saturating_duration_since(event) < CALM);
        let mut wait = wait.min(self.config.silence / 4);
        if let Some(marker_publisher) = self.marker_publisher.as_mut().filter(|_| is_busy) {
            if let Some(end) = marker_publisher.keep_up(now, self.config.silence) {
                return Received::Over(end.to_string());
            }
            wait = wait.min(MarkerPublisher::INTERVAL);
        }
        if self.last_event == Some(now) {
            return Received::Messages;
        }
        match self.check(now) {
            LinkState::Alive => {}
            LinkState::ProbeDue => {
                self.publish_to_self();
                self.liveness.probe_sent(now);
            }
            LinkState::Over(end) => return Received::Over(end.to_string()),
        }
        self.wait(wait, stop);
        Received::Nothing
    }

    fn pass_on(&self, most: usize, take: &mut dyn FnMut(Message)) -> bool {
        let mut any = false;
        for events in &self.events {
            for message in events.try_iter().take(most) {
                any = true;
                // A subscription to everything receives our own probes too, and those of others.
                if !message.subject.starts_with(self.throttle.inboxes()) {
                    take(message);
                }
            }
        }
        any
    }

    fn check(&mut self, now: Instant) -> LinkState {
        let remarks = self.throttle.remarks();
        let answered = self.echoes.try_iter().count() > 0 || remarks != self.remarks;
        // With the throttle on nothing is read, and nothing can be asked.
        if answered || self.throttle.is_on() {
            self.remarks = remarks;
            self.liveness.restart(now);
        }
        self.liveness.check(&self.link, now, || false)
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

    /// Passes on what the server had sent when this was called, as far as it comes at once, and closes the connection.
    pub(super) fn finish(self, take: &mut dyn FnMut(Message)) {
        let until = Instant::now() + DRAIN_LIMIT;
        if !self.throttle.is_on() {
            while self.echoes.try_recv().is_ok() {}
            let remarks = self.throttle.remarks();
            self.publish_to_self();
            // The echo comes after everything that the server had sent before.
            let mut last_event = Instant::now();
            while self.echoes.is_empty()
                && self.throttle.remarks() == remarks
                && !self.link.lost().is_raised()
                && last_event.elapsed() < DRAIN_IDLE
                && last_event < until
            {
                if self.pass_on(MAX_BATCH, take) {
                    last_event = Instant::now();
                } else {
                    self.wait(Duration::from_millis(20), &Signal::default());
                }
            }
            if last_event >= until {
                let server = &self.link.server().address;
                log::warn!(
                    event = "events.abandoned", server = server;
                    "broker: {server} had sent more than could be received in {DRAIN_LIMIT:?}; the rest of it is lost"
                );
            }
        }
        self.throttle.release();
        for events in &self.events {
            for message in events
                .try_iter()
                .take(events.len())
                .filter(|message| !message.subject.starts_with(self.throttle.inboxes()))
            {
                take(message);
            }
        }
    }

    fn cause_of_loss(&self) -> Option<String> {
        let held = self.throttle.longest();
        let is_long = held > Duration::from_secs(1);
        is_long
            .then(|| format!("reading was stopped for {held:.1?}, and the server disconnects clients that do not read"))
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
        self.throttle.release();
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
    let (subjects, queue, most) = (config.filters(), config.core.queue.clone(), config.core.max_events);
    let inboxes = inboxes.to_owned();
    let subscribed = link.call(config.timeout, stop, move |connection| {
        subscribe_all(connection, &inboxes, &subjects, queue.as_deref(), most)
    });
    let failed = |why: &str| broker_error(&link.server().address, BrokerFault::Request, format!("subscribing: {why}"));
    subscribed.map_err(|error| failed(&error.0))?.map_err(|e| failed(&one_line(&e)))
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
    format!("{inbox}.marker")
}
