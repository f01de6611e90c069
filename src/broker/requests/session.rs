//! One connection that answers requests, from its subscriptions to its loss.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select};
use nats::{Connection, Message, Subscription};

use super::remark_log::RemarkLog;
use super::reply::AnsweringPartition;
use super::reply_queue::{FlushAcks, ReplyChannel};
use super::{Subjects, streams};
use crate::broker::broker_error;
use crate::broker::connection::{Cluster, Link, LinkState, Liveness, Received, one_line};
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;

/// The most messages of a subscription that wait in the client until this thread takes them. It takes them at once; while it does not
/// run, the client reads only what comes in some ten milliseconds. Messages beyond the limit are lost, and the client does not
/// report which.
const BURST: usize = 65_536;

/// The most messages taken out of a subscription before anything else is looked at.
const MAX_BATCH: usize = 256;

pub(super) struct RequestSession {
    link: Link,
    subjects: Subjects,
    channel: ReplyChannel,
    acks: Arc<FlushAcks>,
    remark_log: Arc<RemarkLog>,
    subscriptions: Vec<Subscription>,
    requests: Vec<Receiver<Message>>,
    silence: Duration,
    liveness: Liveness,
    /// The answers to flushes and the remarks that have counted as answers.
    answers: u64,
    remarks: u64,
    /// The number of the last flush. Its answer shows that the server has read everything before it, so a flush is also the probe.
    last_flush: u64,
}

impl RequestSession {
    /// Connects and subscribes; returns when the server has accepted the subscriptions, or reported which it refuses.
    pub(super) fn open(cluster: &Arc<Cluster>, subjects: &Subjects, stop: &Signal) -> Result<Self, Error> {
        let config = cluster.config();
        let remark_log = Arc::new(RemarkLog::default());
        let listener = Arc::<RemarkLog>::clone(&remark_log);
        let link = Link::open_with(cluster, stop, listener)?;
        let (wanted, silence) = (subjects.clone(), config.silence);
        let failed = |detail: String| broker_error(&link.server().address, BrokerFault::Request, detail);
        let subscribed = link.call(config.timeout, stop, move |connection| subscribe(connection, &wanted));
        let subscriptions = subscribed
            .map_err(|error| failed(format!("subscribing to requests: {}", error.0)))?
            .map_err(|e| failed(format!("subscribing to requests: {}", one_line(&e))))?;
        streams::ask(&link, config, subjects);
        let (channel, sender, acks) =
            ReplyChannel::new(link.lost(), link.server().max_payload, AnsweringPartition::of_settings(config));
        let tls = link.server().tls;
        link.post(move |connection| sender.run(connection, tls, silence));
        let requests = subscriptions.iter().map(|subscription| subscription.receiver().clone()).collect();
        let mut session = Self {
            link,
            subjects: subjects.clone(),
            channel,
            acks,
            remark_log,
            subscriptions,
            requests,
            silence,
            liveness: Liveness::new(silence),
            answers: 0,
            remarks: 0,
            last_flush: 0,
        };
        if session.is_read_within(config.timeout, stop) {
            return Ok(session);
        }
        session.link.mark_silent();
        let detail = format!("no answer to the subscriptions for requests within {:?}", config.timeout);
        Err(broker_error(&session.link.server().address, BrokerFault::Silent, detail))
    }

    /// The channel for replies.
    pub(super) fn channel(&self) -> &ReplyChannel {
        &self.channel
    }

    /// A subscription that the server refuses to this user, if there is one: its remark, and the remedy.
    pub(super) fn refusal(&self) -> Option<String> {
        let refusal = self.remark_log.refusal()?;
        Some(format!("{refusal}; allow this user to subscribe to that, or change the query's subject"))
    }

    /// Passes on what has come. Blocks at most for `wait` where nothing has, and not past the stop.
    pub(super) fn next(&mut self, wait: Duration, stop: &Signal, take: &mut dyn FnMut(Message)) -> Received {
        let now = Instant::now();
        let any = self.pass_on(take);
        let end = if any { self.liveness.departure(&self.link) } else { self.liveness.connection_end(&self.link) };
        if let Some(end) = end {
            return Received::Over(end.to_string());
        }
        if any {
            self.liveness.answered(now);
            return Received::Messages;
        }
        for message in self.link.messages().try_iter() {
            if let Some(warning) = streams::warning(&message, &self.subjects) {
                log::warn!(event = "requests.stored", warning:% = warning; "service: {warning}");
            }
        }
        match self.check(now) {
            LinkState::Alive => {}
            LinkState::ProbeDue => {
                if self.probe() {
                    self.liveness.probe_sent(now);
                }
            }
            LinkState::Over(end) => return Received::Over(end.to_string()),
        }
        self.wait(wait.min(self.silence / 4), stop);
        Received::Nothing
    }

    fn pass_on(&self, take: &mut dyn FnMut(Message)) -> bool {
        let mut any = false;
        for message in self.requests.iter().flat_map(|requests| requests.try_iter().take(MAX_BATCH)) {
            any = true;
            self.link.keep_sample(&message);
            take(message);
        }
        any
    }

    fn check(&mut self, now: Instant) -> LinkState {
        let (answers, remarks) = (self.acks.answers(), self.remark_log.count());
        if (answers, remarks) != (self.answers, self.remarks) {
            (self.answers, self.remarks) = (answers, remarks);
            self.liveness.restart(now);
        }
        self.liveness.check(&self.link, now, || false)
    }

    fn probe(&mut self) -> bool {
        self.last_flush += 1;
        self.channel.mark(self.last_flush)
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

    /// Unsubscribes, and passes on everything that the server had sent when this began. What it sends between its answer to that and
    /// the unsubscription is lost.
    pub(super) fn unsubscribe(&mut self, timeout: Duration, quit: &Signal, take: &mut dyn FnMut(Message)) {
        // Once unsubscribed, the client drops what was under way.
        self.is_read_within(timeout, quit);
        while self.pass_on(take) {}
        self.channel.unsubscribe(std::mem::take(&mut self.subscriptions), timeout);
        self.is_read_within(timeout, quit);
        while self.pass_on(take) {}
        self.requests.clear();
    }

    /// Waits until the server has read everything that was sent to it, at most for `timeout` and until the stop; `false` where that
    /// is not certain.
    pub(super) fn is_read_within(&mut self, timeout: Duration, stop: &Signal) -> bool {
        let until = Instant::now() + timeout;
        let mut is_sent = self.probe();
        while !(is_sent && self.acks.read() >= self.last_flush) {
            if self.link.lost().is_raised() || Instant::now() >= until || stop.wait(Duration::from_millis(2)) {
                return false;
            }
            is_sent = is_sent || self.probe();
        }
        true
    }

    /// Raised when the connection has ended.
    pub(super) fn lost(&self) -> &Signal {
        self.link.lost()
    }
}

impl Drop for RequestSession {
    fn drop(&mut self) {
        self.channel.close();
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
