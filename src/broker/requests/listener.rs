//! Receives requests, one session after the other.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use nats::Message;
use parking_lot::Mutex;

use super::Subjects;
use super::reply::AddressedReply;
use super::reply_queue::{ReplyChannel, ReplyQueue};
use super::request::{Request, RequestHandler};
use super::session::RequestSession;
use super::unsent::Unsent;
use crate::broker::connection::{Cluster, Received, Reconnect};
use crate::pipeline::{Condition, Signal};

/// How often the listener checks everything else while nothing comes.
const IDLE: Duration = Duration::from_secs(1);

/// The same while replies of this thread wait for the connection.
const BRIEFLY: Duration = Duration::from_millis(1);

/// How long an orderly end waits for each answer of the server: to the unsubscription, and to the last replies.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The same when told to quit.
const QUIT_WAIT: Duration = Duration::from_millis(100);

/// Keeps a connection that answers requests.
pub struct Listener {
    cluster: Arc<Cluster>,
    subjects: Subjects,
    condition: Condition,
    stop: Signal,
    quit: Signal,
    reconnect: Reconnect,
    session: Option<RequestSession>,
    channel: Arc<Mutex<Option<ReplyChannel>>>,
    unsent: Unsent,
    /// Disconnected when all reply queues are dropped.
    reply_queues: Receiver<Infallible>,
}

impl Listener {
    /// Connects and subscribes. Where that fails, it degrades the condition and [`Listener::run`] tries again. `stop` asks for an
    /// orderly end, `quit` for one at once. Blocks at most a few times the configured time-out.
    #[must_use]
    pub fn open(
        cluster: Cluster,
        subjects: Subjects,
        condition: &Condition,
        [stop, quit]: [&Signal; 2],
    ) -> (Self, ReplyQueue) {
        let reconnect = Reconnect::new(cluster.config(), condition, stop);
        let channel = Arc::default();
        let (open, reply_queues) = crossbeam_channel::bounded(0);
        let reply_queue = ReplyQueue::new(&channel, open);
        let mut listener = Self {
            cluster: Arc::new(cluster),
            subjects,
            condition: condition.clone(),
            stop: stop.clone(),
            quit: quit.clone(),
            reconnect,
            session: None,
            channel,
            unsent: Unsent::default(),
            reply_queues,
        };
        listener.open_session(Duration::ZERO);
        (listener, reply_queue)
    }

    /// Passes requests to the handler until the stop. After it, only replies are sent, until all reply queues are dropped.
    pub fn run(mut self, mut handler: impl RequestHandler) {
        while !self.stop.is_raised() {
            if self.session.is_some() {
                self.listen(&mut handler);
            } else {
                self.open_session(IDLE);
            }
        }
        let Some(mut session) = self.session.take() else { return };
        let mut unsent = std::mem::take(&mut self.unsent);
        session.unsubscribe(LAST_WAIT, &self.quit, &mut |message| unsent.add(handle(&mut handler, message)));
        unsent.send_all(session.channel(), LAST_WAIT);
        // The answering threads see by this that no more requests come.
        drop(handler);
        crossbeam_channel::select! {
            recv(self.reply_queues) -> _ => {}
            recv(session.lost().channel()) -> _ => {}
            recv(self.quit.channel()) -> _ => {
                // Requests that are aborted get a reply too.
                let _ = self.reply_queues.recv_timeout(QUIT_WAIT);
            }
        }
        let (timeout, end) =
            if self.quit.is_raised() { (QUIT_WAIT, Signal::default()) } else { (LAST_WAIT, self.quit.clone()) };
        if !session.is_read_within(timeout, &end) {
            log::warn!(event = "replies.unconfirmed"; "service: the last replies may not have reached the server");
        }
        *self.channel.lock() = None;
    }

    fn listen(&mut self, handler: &mut impl RequestHandler) {
        let Some(session) = &mut self.session else { return };
        let wait = if self.unsent.is_empty() { IDLE } else { BRIEFLY };
        let unsent = &mut self.unsent;
        let received = session.next(wait, &self.stop, &mut |message| unsent.add(handle(handler, message)));
        self.unsent.send(session.channel());
        if let Some(refusal) = session.refusal() {
            self.condition.degrade(refusal);
        }
        match received {
            Received::Messages => self.reconnect.productive(),
            Received::Nothing => {}
            Received::Over(why) => {
                *self.channel.lock() = None;
                self.session = None;
                self.unsent = Unsent::default();
                self.reconnect.ended(why);
            }
        }
    }

    fn open_session(&mut self, wait: Duration) {
        let open = || RequestSession::open(&self.cluster, &self.subjects, &self.stop);
        if let Ok(Some(session)) = self.reconnect.attempt(wait, open) {
            *self.channel.lock() = Some(session.channel().clone());
            match session.refusal() {
                Some(refusal) => self.condition.degrade(refusal),
                None => self.condition.recover(),
            }
            self.session = Some(session);
        }
    }
}

fn handle(handler: &mut impl RequestHandler, message: Message) -> Result<Option<AddressedReply>, String> {
    Ok(handler.handle(Request::of(message)?))
}
