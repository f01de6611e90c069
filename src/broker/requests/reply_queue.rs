//! Where replies wait to be published, on the connection of the moment.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender};
use nats::{Connection, Subscription};
use parking_lot::Mutex;

use super::reply::{AddressedReply, AnsweringPartition, Reply};
use crate::broker::connection::{FlushObserver, Flusher, one_line};
use crate::pipeline::Signal;

/// The most lists of replies that wait for the connection's thread. A thread that gives more has to wait.
const WAITING: usize = 8;

/// The most lists that are published before they are flushed.
const MAX_BATCH: usize = 64;

/// Takes replies. Clones lead to the same connection, and to the one that replaces it.
#[derive(Clone, Debug)]
pub struct ReplyQueue {
    channel: Arc<Mutex<Option<ReplyChannel>>>,
    /// The listener keeps its connection until all of these are dropped.
    _open: Sender<Infallible>,
}

impl ReplyQueue {
    pub(super) fn new(channel: &Arc<Mutex<Option<ReplyChannel>>>, open: Sender<Infallible>) -> Self {
        Self { channel: Arc::clone(channel), _open: open }
    }

    /// Queues these to be published. Blocks while the queue is full, at most for `timeout`; `false` where they were not queued
    /// or there is no connection: then they are not sent.
    #[must_use]
    pub fn send(&self, replies: Vec<AddressedReply>, timeout: Duration) -> bool {
        let channel = self.channel.lock().clone();
        channel.is_some_and(|channel| channel.send(replies, timeout))
    }

    /// The largest reply that the server takes; `None` while there is no connection.
    #[must_use]
    pub fn room(&self) -> Option<usize> {
        self.channel.lock().as_ref().map(|channel| channel.max_payload)
    }
}

/// Gives replies to the thread of one connection.
#[derive(Clone, Debug)]
pub(super) struct ReplyChannel {
    commands: Sender<Command>,
    closed: Signal,
    lost: Signal,
    max_payload: usize,
    /// What every reply names.
    partition: Option<AnsweringPartition>,
}

#[derive(Debug)]
enum Command {
    Publish(Vec<AddressedReply>),
    /// Drops these, which takes a call of the client.
    Unsubscribe(Vec<Subscription>),
    /// Reports this number once the server has read all before it.
    Mark(u64),
}

impl ReplyChannel {
    /// A channel, and the sender to run on the connection's thread until all senders of the channel are dropped.
    pub(super) fn new(
        lost: &Signal,
        max_payload: usize,
        partition: Option<AnsweringPartition>,
    ) -> (Self, ReplySender, Arc<FlushAcks>) {
        let (commands, received) = crossbeam_channel::bounded(WAITING);
        let acks = Arc::<FlushAcks>::default();
        let sender = ReplySender { commands: received, lost: lost.clone(), acks: Arc::clone(&acks) };
        (Self { commands, closed: Signal::default(), lost: lost.clone(), max_payload, partition }, sender, acks)
    }

    pub(super) fn send(&self, replies: Vec<AddressedReply>, timeout: Duration) -> bool {
        self.try_send(replies, timeout).is_ok()
    }

    /// As [`ReplyChannel::send`]; gives back what was not taken.
    pub(super) fn try_send(
        &self,
        mut replies: Vec<AddressedReply>,
        timeout: Duration,
    ) -> Result<(), Vec<AddressedReply>> {
        for addressed in &mut replies {
            addressed.reply.partition = self.partition;
            let size = addressed.reply.wire_size();
            if size > self.max_payload {
                // The server would close the connection.
                let reason =
                    format!("the reply has {size} bytes; the server takes {}, its max_payload", self.max_payload);
                addressed.reply = Reply { partition: self.partition, ..Reply::failure(413, reason) };
            }
        }
        self.give(Command::Publish(replies), timeout).map_err(|command| match command {
            Command::Publish(replies) => replies,
            _ => Vec::new(),
        })
    }

    /// Ends subscriptions: what comes on them from now on is dropped.
    pub(super) fn unsubscribe(&self, subscriptions: Vec<Subscription>, timeout: Duration) {
        let _ = self.give(Command::Unsubscribe(subscriptions), timeout);
    }

    /// Asks the server to confirm that it has read all before this; `false` while the queue is full.
    pub(super) fn mark(&self, number: u64) -> bool {
        self.commands.try_send(Command::Mark(number)).is_ok()
    }

    /// Releases every thread that waits for room.
    pub(super) fn close(&self) {
        self.closed.raise();
    }

    /// Gives the command back where it is not taken.
    fn give(&self, command: Command, timeout: Duration) -> Result<(), Command> {
        let mut select = Select::new();
        let ends = [self.closed.channel(), self.lost.channel()];
        let (_, _) = (select.recv(ends[0]), select.recv(ends[1]));
        let send = select.send(&self.commands);
        match select.select_timeout(timeout) {
            Ok(ready) if ready.index() == send => ready.send(&self.commands, command).map_err(|refused| refused.0),
            Ok(ready) => {
                let end = ends[ready.index()];
                let _ = ready.recv(end);
                Err(command)
            }
            Err(_) => Err(command),
        }
    }
}

/// What the flushes that the server has answered tell of it.
#[derive(Default)]
pub(super) struct FlushAcks {
    marked: AtomicU64,
    read: AtomicU64,
    answers: AtomicU64,
}

impl FlushAcks {
    /// How many flushes it has answered.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Acquire)
    }

    /// The last mark of which it is certain that the server has read all before it.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Acquire)
    }
}

/// Writes down which marks the flushes confirm.
struct MarkObserver {
    acks: Arc<FlushAcks>,
    under_way: u64,
}

impl FlushObserver for MarkObserver {
    fn begins(&mut self) {
        self.under_way = self.acks.marked.load(Ordering::Acquire);
    }

    fn answered(&mut self) {
        self.acks.read.store(self.under_way, Ordering::Release);
        self.acks.answers.fetch_add(1, Ordering::Release);
    }
}

/// Publishes replies on the connection's thread.
pub(super) struct ReplySender {
    commands: Receiver<Command>,
    lost: Signal,
    acks: Arc<FlushAcks>,
}

impl ReplySender {
    /// Works until all senders of the channel are dropped, or the connection is lost.
    pub(super) fn run(self, connection: &Connection, tls: bool, silence: Duration) {
        let observer = MarkObserver { acks: Arc::clone(&self.acks), under_way: 0 };
        let mut flusher = Flusher::start_before(connection, tls, &self.lost, silence, observer);
        while let Ok(first) = self.commands.recv() {
            for command in std::iter::once(first).chain(self.commands.try_iter().take(MAX_BATCH)) {
                if let Err(e) = self.execute(command, connection, &mut flusher) {
                    log::debug!("service: publishing replies failed: {}", one_line(&e));
                    self.lost.raise();
                    return;
                }
            }
            flusher.flush();
        }
    }

    fn execute(&self, command: Command, connection: &Connection, flusher: &mut Flusher) -> std::io::Result<()> {
        match command {
            Command::Publish(replies) => {
                for AddressedReply { to, reply } in replies {
                    flusher.before(reply.wire_size() + to.len());
                    let headers = reply.headers();
                    connection.publish_with_reply_or_headers(&to, None, headers.as_ref(), &reply.body)?;
                }
            }
            Command::Unsubscribe(subscriptions) => drop(subscriptions),
            Command::Mark(number) => self.acks.marked.store(number, Ordering::Release),
        }
        Ok(())
    }
}
