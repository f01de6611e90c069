//! Listens for requests, one session after the other.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use nats::Message;
use parking_lot::Mutex;

use super::reply_queue::{AddressedReply, ReplyQueue, Way};
use super::session::{Heard, Session};
use super::unsent::Unsent;
use super::{Request, RequestHandler, Subjects};
use crate::broker::connection::Cluster;
use crate::broker::pauses::Pauses;
use crate::pipeline::{Condition, Signal};

/// How often the listener looks up while nothing comes.
const IDLE: Duration = Duration::from_secs(1);

/// The same while replies of this thread wait for the connection.
const BRIEFLY: Duration = Duration::from_millis(1);

/// How long an orderly end waits for one thing of the server's: that it hears of it, or has read the last replies.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The same when told to quit.
const PARTING: Duration = Duration::from_millis(100);

/// Keeps a connection that answers.
pub struct Listener {
    cluster: Arc<Cluster>,
    subjects: Subjects,
    condition: Condition,
    stop: Signal,
    quit: Signal,
    pauses: Pauses,
    session: Option<Session>,
    way: Arc<Mutex<Option<Way>>>,
    unsent: Unsent,
    /// Disconnected when all outboxes are gone.
    reply_queues: Receiver<Infallible>,
}

impl Listener {
    /// Connects and subscribes; where that fails, the condition says so and [`Listener::run`] goes on trying. `stop` asks for an
    /// orderly end, `quit` for one at once. Blocks at most a few times the configured time-out.
    #[must_use]
    pub fn open(
        cluster: Cluster,
        subjects: Subjects,
        condition: &Condition,
        [stop, quit]: [&Signal; 2],
    ) -> (Self, ReplyQueue) {
        let pauses = Pauses::new(cluster.config());
        let way = Arc::default();
        let (open, reply_queues) = crossbeam_channel::bounded(0);
        let reply_queue = ReplyQueue::new(&way, open);
        let mut listener = Self {
            cluster: Arc::new(cluster),
            subjects,
            condition: condition.clone(),
            stop: stop.clone(),
            quit: quit.clone(),
            pauses,
            session: None,
            way,
            unsent: Unsent::default(),
            reply_queues,
        };
        listener.open_session();
        (listener, reply_queue)
    }

    /// Hands requests over until the stop; then, until all outboxes are gone, only replies are sent.
    pub fn run(mut self, mut handler: impl RequestHandler) {
        while !self.stop.is_raised() {
            if self.session.is_some() {
                self.listen(&mut handler);
            } else if self.pauses.due(IDLE, &self.stop) {
                self.open_session();
            }
        }
        let Some(mut session) = self.session.take() else { return };
        let mut unsent = std::mem::take(&mut self.unsent);
        session.turn_away(LAST_WORDS, &self.quit, &mut |message| unsent.add(take(&mut handler, message)));
        unsent.send_all(session.way(), LAST_WORDS);
        // Who answers hears by this that there is no more.
        drop(handler);
        crossbeam_channel::select! {
            recv(self.reply_queues) -> _ => {}
            recv(session.lost().channel()) -> _ => {}
            recv(self.quit.channel()) -> _ => {
                // What is broken off gets a word too.
                let _ = self.reply_queues.recv_timeout(PARTING);
            }
        }
        let (patience, end) =
            if self.quit.is_raised() { (PARTING, Signal::default()) } else { (LAST_WORDS, self.quit.clone()) };
        if !session.is_read_within(patience, &end) {
            log::warn!("service: whether the server has the last replies is not known");
        }
        *self.way.lock() = None;
    }

    fn listen(&mut self, handler: &mut impl RequestHandler) {
        let Some(session) = &mut self.session else { return };
        let wait = if self.unsent.is_empty() { IDLE } else { BRIEFLY };
        let unsent = &mut self.unsent;
        let heard = session.next(wait, &self.stop, &mut |message| unsent.add(take(handler, message)));
        self.unsent.send(session.way());
        if let Some(refusal) = session.refusal() {
            self.condition.degrade(refusal);
        }
        match heard {
            Heard::Requests => self.pauses.bore_fruit(),
            Heard::Nothing => {}
            Heard::Over(why) => {
                *self.way.lock() = None;
                self.session = None;
                self.unsent = Unsent::default();
                self.condition.degrade(why);
                self.pauses.over();
            }
        }
    }

    fn open_session(&mut self) {
        match Session::open(&self.cluster, &self.subjects, &self.stop) {
            Ok(session) => {
                self.pauses.opened();
                *self.way.lock() = Some(session.way().clone());
                match session.refusal() {
                    Some(refusal) => self.condition.degrade(refusal),
                    None => self.condition.recover(),
                }
                self.session = Some(session);
            }
            Err(_) if self.stop.is_raised() => {}
            Err(error) => {
                self.condition.degrade(error.to_string());
                self.pauses.failed();
            }
        }
    }
}

fn take(handler: &mut impl RequestHandler, message: Message) -> Result<Option<AddressedReply>, String> {
    Ok(handler.handle(Request::of(message)?))
}
