//! One connection that answers, from its subscriptions to its loss.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select};
use nats::{Connection, Message, Subscription};

use super::ear::Ear;
use super::reply_queue::{Pulse, Way};
use super::{Subjects, streams};
use crate::broker::broker_error;
use crate::broker::connection::{Cluster, Link, one_line};
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;

/// The most messages of a subscription that wait in the client until this thread looks, which it does at once. Those over it
/// are lost: the last resort, for the client tells nothing of them. While this thread is not run, the client reads no more than
/// some ten milliseconds' worth.
const BURST: usize = 65_536;

/// The most messages taken out of a subscription before anything else is looked at.
const MOUTHFUL: usize = 256;

pub(super) struct Session {
    link: Link,
    subjects: Subjects,
    way: Way,
    pulse: Arc<Pulse>,
    ear: Arc<Ear>,
    subscriptions: Vec<Subscription>,
    requests: Vec<Receiver<Message>>,
    silence: Duration,
    /// When the server was last heard, and what was known of it then.
    heard: Instant,
    answers: u64,
    remarks: u64,
    /// Questions to the server whether it is there: the number of the last, and whether it is open.
    mark: u64,
    probing: bool,
}

/// What a session yields.
pub(super) enum Heard {
    /// Requests, which are where the caller wanted them.
    Requests,
    /// Nothing, for as long as was asked.
    Nothing,
    /// The session is over; why.
    Over(String),
}

impl Session {
    /// Connects and subscribes; returns when the server has taken the subscriptions, or said which it does not.
    pub(super) fn open(cluster: &Arc<Cluster>, subjects: &Subjects, stop: &Signal) -> Result<Self, Error> {
        let config = cluster.config();
        let ear = Arc::new(Ear::default());
        let heard = Arc::clone(&ear);
        let link = Link::open_with(cluster, stop, Arc::new(move |remark: &str| heard.hear(remark)))?;
        let (wanted, silence) = (subjects.clone(), config.silence);
        let failed = |detail: String| broker_error(&link.server().address, BrokerFault::Request, detail);
        let subscribed = link.call(config.timeout, stop, move |connection| subscribe(connection, &wanted));
        let subscriptions = subscribed
            .map_err(|gone| failed(format!("subscribing to requests: {}", gone.0)))?
            .map_err(|e| failed(format!("subscribing to requests: {}", one_line(&e))))?;
        streams::ask(&link, config, subjects);
        let (way, carrier, pulse) = Way::new(link.lost(), link.server().max_payload);
        let tls = link.server().tls;
        link.post(move |connection| carrier.run(connection, tls, silence));
        let requests = subscriptions.iter().map(|subscription| subscription.receiver().clone()).collect();
        let heard = Instant::now();
        let mut session = Self {
            link,
            subjects: subjects.clone(),
            way,
            pulse,
            ear,
            subscriptions,
            requests,
            silence,
            heard,
            answers: 0,
            remarks: 0,
            mark: 0,
            probing: false,
        };
        if session.is_read_within(config.timeout, stop) {
            return Ok(session);
        }
        session.link.fell_silent();
        let detail = format!("no answer to the subscriptions for requests within {:?}", config.timeout);
        Err(broker_error(&session.link.server().address, BrokerFault::Silent, detail))
    }

    /// The way for replies.
    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    /// Subjects that the server does not let this user subscribe to: what it says, and what to do.
    pub(super) fn refusal(&self) -> Option<String> {
        let refusal = self.ear.refusal()?;
        Some(format!("{refusal}; allow this user to subscribe to that, or change the query's subject"))
    }

    /// Hands over what has come. Blocks at most for `wait` where nothing has, and not past the stop.
    pub(super) fn next(&mut self, wait: Duration, stop: &Signal, take: &mut dyn FnMut(Message)) -> Heard {
        let now = Instant::now();
        let any = self.hand_over(take);
        let server = &self.link.server().address;
        if !any && self.link.lost().is_raised() {
            return Heard::Over(format!(
                "the connection to {server} was lost: the server ended it, or a message came that the NATS client cannot read"
            ));
        }
        if self.link.should_move() {
            return Heard::Over(format!("{server} goes out of service (lame duck mode); moving to another server"));
        }
        if any {
            self.heard = now;
            return Heard::Requests;
        }
        for message in self.link.messages().try_iter() {
            if let Some(news) = streams::news(&message, &self.subjects) {
                log::warn!("service: {news}");
            }
        }
        if let Some(why) = self.keep_up(now) {
            return Heard::Over(why);
        }
        self.wait(wait.min(self.silence / 4), stop);
        Heard::Nothing
    }

    fn hand_over(&self, take: &mut dyn FnMut(Message)) -> bool {
        let mut any = false;
        for message in self.requests.iter().flat_map(|requests| requests.try_iter().take(MOUTHFUL)) {
            any = true;
            self.link.saw(&message);
            take(message);
        }
        any
    }

    /// Asks whether the server is still there where it has been silent.
    fn keep_up(&mut self, now: Instant) -> Option<String> {
        let (answers, remarks) = (self.pulse.answers(), self.ear.remarks());
        if (answers, remarks) != (self.answers, self.remarks) {
            (self.answers, self.remarks) = (answers, remarks);
            self.heard = now;
            self.probing = false;
        }
        let silent = now.saturating_duration_since(self.heard);
        if silent >= self.silence {
            self.link.fell_silent();
            let server = &self.link.server().address;
            return Some(format!("{server} has said nothing for {silent:.1?}, our questions included"));
        }
        if silent >= self.silence / 2 && !self.probing {
            self.probing = self.ask();
        }
        None
    }

    fn ask(&mut self) -> bool {
        self.mark += 1;
        self.way.mark(self.mark)
    }

    fn wait(&self, wait: Duration, stop: &Signal) {
        let mut select = Select::new();
        for requests in &self.requests {
            select.recv(requests);
        }
        select.recv(self.link.messages());
        select.recv(self.link.lost().channel());
        select.recv(stop.channel());
        let _ = select.ready_timeout(wait);
    }

    /// Takes no more, and hands over all that the server had for us when this began. What it sends between its word on that and
    /// the unsubscription is lost.
    pub(super) fn turn_away(&mut self, patience: Duration, quit: &Signal, take: &mut dyn FnMut(Message)) {
        // Once unsubscribed, the client passes over what was on its way to us.
        self.is_read_within(patience, quit);
        while self.hand_over(take) {}
        self.way.unsubscribe(std::mem::take(&mut self.subscriptions), patience);
        self.is_read_within(patience, quit);
        while self.hand_over(take) {}
        self.requests.clear();
    }

    /// Waits until the server has read all that was given to it, at most for `patience` and until the stop; `false` where that
    /// is not known.
    pub(super) fn is_read_within(&mut self, patience: Duration, stop: &Signal) -> bool {
        let until = Instant::now() + patience;
        let mut asked = self.ask();
        while !(asked && self.pulse.read() >= self.mark) {
            if self.link.lost().is_raised() || Instant::now() >= until || stop.wait(Duration::from_millis(2)) {
                return false;
            }
            asked = asked || self.ask();
        }
        true
    }

    /// Switched on when the connection has ended.
    pub(super) fn lost(&self) -> &Signal {
        self.link.lost()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.way.close();
        let subscriptions = std::mem::take(&mut self.subscriptions);
        self.link.post(move |_| drop(subscriptions));
    }
}

fn subscribe(connection: &Connection, subjects: &Subjects) -> std::io::Result<Vec<Subscription>> {
    let mut subscriptions = Vec::new();
    for subject in &subjects.shared {
        subscriptions.push(connection.queue_subscribe(subject, &subjects.group)?);
    }
    for subject in &subjects.everybody {
        subscriptions.push(connection.subscribe(subject)?);
    }
    for subscription in &subscriptions {
        subscription.set_message_limits(BURST);
    }
    Ok(subscriptions)
}
