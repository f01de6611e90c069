//! Where replies wait to be published, over whichever connection there is.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender};
use nats::{Connection, Subscription};
use parking_lot::Mutex;

use super::Reply;
use crate::broker::connection::{Flusher, Witness, one_line};
use crate::pipeline::Signal;

/// The most lists of replies that wait for the connection's thread. What is larger takes its giver's time.
const WAITING: usize = 8;

/// The most lists that are published before they are flushed.
const MOUTHFUL: usize = 64;

/// A reply and the subject it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressedReply {
    /// The subject: see [`answerable`](super::answerable).
    pub to: String,
    /// The reply.
    pub reply: Reply,
}

impl AddressedReply {
    /// Bytes it takes in memory.
    pub(super) fn memory(&self) -> usize {
        let reason = self.reply.failure.as_ref().map_or(0, |failure| failure.reason.len());
        size_of::<Self>() + self.to.len() + self.reply.body.len() + reason
    }
}

/// Takes replies. Clones lead to the same connection, and to the one that replaces it.
#[derive(Clone, Debug)]
pub struct ReplyQueue {
    way: Arc<Mutex<Option<Way>>>,
    /// The listener's connection is kept until all of these are gone.
    _open: Sender<Infallible>,
}

impl ReplyQueue {
    pub(super) fn new(way: &Arc<Mutex<Option<Way>>>, open: Sender<Infallible>) -> Self {
        Self { way: Arc::clone(way), _open: open }
    }

    /// Has these published. Blocks while the connection takes no more, at most for `patience`; `false` where it did not take
    /// them or there is none: then nobody gets them.
    #[must_use]
    pub fn send(&self, replies: Vec<AddressedReply>, patience: Duration) -> bool {
        let way = self.way.lock().clone();
        way.is_some_and(|way| way.send(replies, patience))
    }

    /// The largest reply that the server takes; `None` while there is none.
    #[must_use]
    pub fn room(&self) -> Option<usize> {
        self.way.lock().as_ref().map(|way| way.max_payload)
    }
}

/// The way to one connection.
#[derive(Clone, Debug)]
pub(super) struct Way {
    words: Sender<Word>,
    over: Signal,
    lost: Signal,
    max_payload: usize,
}

#[derive(Debug)]
enum Word {
    Publish(Vec<AddressedReply>),
    /// Lets go of these, which takes a call of the client.
    Unsubscribe(Vec<Subscription>),
    /// Tells when the server has read all before it.
    Mark(u64),
}

impl Way {
    /// A way, and what has to be run on the connection's thread for it: until all that leads to it is gone.
    pub(super) fn new(lost: &Signal, max_payload: usize) -> (Self, Carrier, Arc<Pulse>) {
        let (words, spoken) = crossbeam_channel::bounded(WAITING);
        let pulse = Arc::<Pulse>::default();
        let carrier = Carrier { words: spoken, lost: lost.clone(), pulse: Arc::clone(&pulse) };
        (Self { words, over: Signal::default(), lost: lost.clone(), max_payload }, carrier, pulse)
    }

    pub(super) fn send(&self, replies: Vec<AddressedReply>, patience: Duration) -> bool {
        self.try_send(replies, patience).is_ok()
    }

    /// As [`Way::send`]; gives back what was not taken.
    pub(super) fn try_send(
        &self,
        mut replies: Vec<AddressedReply>,
        patience: Duration,
    ) -> Result<(), Vec<AddressedReply>> {
        for dispatch in &mut replies {
            let size = dispatch.reply.wire_size();
            if size > self.max_payload {
                // It would break the connection.
                let reason =
                    format!("the reply has {size} bytes; the server takes {}, its max_payload", self.max_payload);
                dispatch.reply = Reply::failure(413, reason);
            }
        }
        self.give(Word::Publish(replies), patience).map_err(|word| match word {
            Word::Publish(replies) => replies,
            _ => Vec::new(),
        })
    }

    /// Lets go of subscriptions: what comes there from now on comes to nobody.
    pub(super) fn unsubscribe(&self, subscriptions: Vec<Subscription>, patience: Duration) {
        let _ = self.give(Word::Unsubscribe(subscriptions), patience);
    }

    /// Has the server asked whether it has read all before this; `false` while too much waits to be written.
    pub(super) fn mark(&self, number: u64) -> bool {
        self.words.try_send(Word::Mark(number)).is_ok()
    }

    /// Sends whoever waits away.
    pub(super) fn close(&self) {
        self.over.raise();
    }

    /// Gives the word back where it is not taken.
    fn give(&self, word: Word, patience: Duration) -> Result<(), Word> {
        let mut select = Select::new();
        let ends = [self.over.channel(), self.lost.channel()];
        let (_, _) = (select.recv(ends[0]), select.recv(ends[1]));
        let send = select.send(&self.words);
        match select.select_timeout(patience) {
            Ok(ready) if ready.index() == send => ready.send(&self.words, word).map_err(|refused| refused.0),
            Ok(ready) => {
                let end = ends[ready.index()];
                let _ = ready.recv(end);
                Err(word)
            }
            Err(_) => Err(word),
        }
    }
}

/// What is known of the server by the flushes it has answered.
#[derive(Default)]
pub(super) struct Pulse {
    marked: AtomicU64,
    read: AtomicU64,
    answers: AtomicU64,
}

impl Pulse {
    /// How many flushes it has answered.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Acquire)
    }

    /// The last mark of which it is known that the server has read all before it.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Acquire)
    }
}

/// Hears of flushes.
struct Reading {
    pulse: Arc<Pulse>,
    under_way: u64,
}

impl Witness for Reading {
    fn begins(&mut self) {
        self.under_way = self.pulse.marked.load(Ordering::Acquire);
    }

    fn answered(&mut self) {
        self.pulse.read.store(self.under_way, Ordering::Release);
        self.pulse.answers.fetch_add(1, Ordering::Release);
    }
}

/// Publishes on the connection's thread.
pub(super) struct Carrier {
    words: Receiver<Word>,
    lost: Signal,
    pulse: Arc<Pulse>,
}

impl Carrier {
    /// Works until nothing leads here any more, or the connection is lost.
    pub(super) fn run(self, connection: &Connection, tls: bool, silence: Duration) {
        let reading = Reading { pulse: Arc::clone(&self.pulse), under_way: 0 };
        let mut flusher = Flusher::start_before(connection, tls, &self.lost, silence, reading);
        while let Ok(first) = self.words.recv() {
            for word in std::iter::once(first).chain(self.words.try_iter().take(MOUTHFUL)) {
                if let Err(e) = self.carry(word, connection, &mut flusher) {
                    log::debug!("service: publishing replies broke off: {}", one_line(&e));
                    self.lost.raise();
                    return;
                }
            }
            flusher.flush();
        }
    }

    fn carry(&self, word: Word, connection: &Connection, flusher: &mut Flusher) -> std::io::Result<()> {
        match word {
            Word::Publish(replies) => {
                for AddressedReply { to, reply } in replies {
                    flusher.before(reply.wire_size() + to.len());
                    let headers = reply.headers();
                    connection.publish_with_reply_or_headers(&to, None, headers.as_ref(), &reply.body)?;
                }
            }
            Word::Unsubscribe(subscriptions) => drop(subscriptions),
            Word::Mark(number) => self.pulse.marked.store(number, Ordering::Release),
        }
        Ok(())
    }
}
