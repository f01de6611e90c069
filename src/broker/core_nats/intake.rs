//! Core NATS as the pipeline's intake: at most once, bounded by our own count.
//!
//! A thread of its own receives, one session after the other, and puts events into a buffer; the intake takes them from there. So the
//! connection is read and replaced whatever the database does.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError};
use nats::Message;

use super::drop_reporter::DropReporter;
use super::receive_buffer::{Arrival, ReceiveBuffer};
use super::session::CoreSession;
use crate::broker::Reports;
use crate::broker::connection::{Cluster, Received, Reconnect};
use crate::error::Error;
use crate::event_id::in_payload;
use crate::pipeline::{Batch, Condition, Confirmation, Epoch, Intake, IntakeState, Mark, Signal, panic_message};
use crate::unix_time::now_ns;

/// How often the receiving thread checks everything else while nothing comes, and while events are dropped.
const IDLE: Duration = Duration::from_secs(1);
const DROPPING: Duration = Duration::from_millis(100);

const THREAD: &str = "catchment-listener";

/// Takes in what is published while it has a connection.
pub struct CoreIntake {
    buffer: Arc<ReceiveBuffer>,
    /// These events come from no stream, so they are numbered here.
    epoch: Arc<Epoch>,
    handed: Mark,
    held: Option<Arrival>,
    stop: Signal,
    receiver: Option<JoinHandle<()>>,
    /// Disconnected when the receiving thread has ended.
    ended: Receiver<()>,
}

impl CoreIntake {
    /// Connects and subscribes, so that faults of the broker are reported now. `confirms` tells on which subjects events are confirmed
    /// to their publishers: those events keep their message's subject for a reply. `epoch` is where the ledger counts; `drop_condition`
    /// is degraded when events have to be dropped. Blocks at most a few times the configured time-out.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn open(
        cluster: Cluster,
        confirms: impl Fn(&str) -> bool + Send + 'static,
        epoch: Epoch,
        stop: &Signal,
        reports: &Reports,
        drop_condition: &Condition,
    ) -> Result<Self, Error> {
        let cluster = Arc::new(cluster);
        let config = cluster.config();
        let buffer = Arc::new(ReceiveBuffer::new(&config.core));
        let session = CoreSession::open(&cluster, &buffer, &reports.counters, stop)?;
        reports.peer.connected(session.server());
        let (alive, ended) = crossbeam_channel::bounded(0);
        let listener = CoreListener {
            cluster: Arc::clone(&cluster),
            confirms: Box::new(confirms),
            buffer: Arc::clone(&buffer),
            stop: stop.clone(),
            reports: reports.clone(),
            drop_reporter: DropReporter::new(&reports.counters, drop_condition),
            reconnect: Reconnect::new(config, &reports.condition, stop),
            _alive: alive,
        };
        let receiver = thread::Builder::new().name(THREAD.into()).spawn(move || listener.run(session));
        let no_thread = |source| Error::Thread { name: THREAD.into(), source };
        Ok(Self {
            buffer,
            epoch: Arc::new(epoch),
            handed: Mark::START,
            held: None,
            stop: stop.clone(),
            receiver: Some(receiver.map_err(no_thread)?),
            ended,
        })
    }

    /// Moves waiting events into the batch, as far as it has room.
    fn move_into(&mut self, batch: &mut Batch) {
        while !batch.is_full() {
            let Some(mut arrival) = self.held.take().or_else(|| self.buffer.take()) else { break };
            if !batch.has_room_for(arrival.size()) {
                self.held = Some(arrival);
                batch.seal();
                break;
            }
            if batch.is_empty() {
                batch.begin(Arc::clone(&self.epoch), self.handed);
            }
            self.handed = Mark { sequence: self.handed.sequence + 1, published_ns: arrival.received_ns };
            let Arrival { subject, headers, payload, .. } = &mut arrival;
            // Without a stream nothing repeats an event, so its number says nothing.
            let (_, payload) = in_payload::take(subject, || headers.pairs(), payload);
            batch.push(self.handed, subject, headers.pairs(), payload);
        }
    }

    fn wait(&self, wait: Duration) {
        let mut select = Select::new();
        select.recv(self.buffer.channel());
        select.recv(&self.ended);
        select.recv(self.stop.channel());
        let _ = select.ready_timeout(wait);
    }

    /// Joins the receiving thread when it has ended, and returns its panic as an error.
    fn watch(&mut self) -> Result<(), Error> {
        if self.ended.try_recv() == Err(TryRecvError::Disconnected)
            && let Some(Err(panic)) = self.receiver.take().map(JoinHandle::join)
        {
            let message = panic_message(panic.as_ref()).to_owned();
            return Err(Error::Panicked { thread: THREAD.into(), message });
        }
        Ok(())
    }
}

impl Intake for CoreIntake {
    fn fill(&mut self, batch: &mut Batch, wait: Duration) -> Result<IntakeState, Error> {
        let until = Instant::now() + wait;
        loop {
            self.move_into(batch);
            let left = until.saturating_duration_since(Instant::now());
            if !batch.is_empty() || left.is_zero() || self.stop.is_raised() {
                return Ok(IntakeState::Open);
            }
            self.watch()?;
            self.wait(left);
        }
    }

    fn drain(&mut self, batch: &mut Batch) -> Result<IntakeState, Error> {
        // The receiving thread gets the stop too and ends within a second. What it puts into the buffer until then must be stored.
        loop {
            self.watch()?;
            let is_last = self.receiver.is_none();
            self.move_into(batch);
            if !batch.is_empty() {
                return Ok(IntakeState::Open);
            }
            if is_last {
                return Ok(IntakeState::Drained);
            }
            let mut select = Select::new();
            select.recv(self.buffer.channel());
            select.recv(&self.ended);
            select.ready();
        }
    }
}

impl Drop for CoreIntake {
    fn drop(&mut self) {
        // Nothing is taken out of the buffer any more.
        self.stop.raise();
    }
}

/// Receives on a thread of its own.
struct CoreListener {
    cluster: Arc<Cluster>,
    confirms: Box<dyn Fn(&str) -> bool + Send>,
    buffer: Arc<ReceiveBuffer>,
    stop: Signal,
    reports: Reports,
    drop_reporter: DropReporter,
    reconnect: Reconnect,
    _alive: Sender<()>,
}

impl CoreListener {
    fn run(mut self, first: CoreSession) {
        let mut session = first;
        self.reconnect.opened();
        while let Some(why) = self.listen(&mut session) {
            drop(session);
            let lost = Instant::now();
            self.reconnect.ended(why);
            self.reports.peer.lost();
            let Some(next) = self.reopen() else { return };
            session = next;
            self.reports.peer.connected(session.server());
            self.reports.counters.reconnects.add(1);
            self.reports.condition.recover();
            let away = lost.elapsed();
            log::warn!(
                event = "events.missed", seconds = away.as_secs_f64();
                "broker: no connection for {away:.1?}: what was published or under way then is lost"
            );
        }
        session.finish(&mut |message| self.store(message));
    }

    /// Receives until the stop, or until the session is over: then it returns why.
    fn listen(&mut self, session: &mut CoreSession) -> Option<String> {
        while !self.stop.is_raised() {
            let wait = if self.drop_reporter.is_dropping() { DROPPING } else { IDLE };
            let received = session.next(wait, &self.stop, &mut |message| self.store(message));
            self.drop_reporter.look();
            match received {
                Received::Messages => self.reconnect.productive(),
                Received::Nothing => {}
                Received::Over(why) => return Some(why),
            }
        }
        None
    }

    /// Tries until there is a session; `None` after a stop.
    fn reopen(&mut self) -> Option<CoreSession> {
        while !self.stop.is_raised() {
            self.drop_reporter.look();
            let open = || CoreSession::open(&self.cluster, &self.buffer, &self.reports.counters, &self.stop);
            if let Ok(Some(session)) = self.reconnect.attempt(IDLE, open) {
                return Some(session);
            }
        }
        None
    }

    /// Puts a message into the buffer, or counts it as dropped.
    fn store(&self, mut message: Message) {
        if message.reply.is_some() && (self.confirms)(&message.subject) {
            keep_reply(&mut message);
        }
        if !self.buffer.offer(Arrival::of(message, now_ns())) {
            self.reports.counters.dropped.add(1);
        }
    }
}

/// Moves the subject for the reply to the header where messages from a stream have it. A header that is there already stays.
fn keep_reply(message: &mut Message) {
    let Some(reply) = message.reply.take() else { return };
    let headers = message.headers.get_or_insert_default();
    if !headers.keys().any(|name| name.eq_ignore_ascii_case(Confirmation::HEADER)) {
        headers.insert(Confirmation::HEADER, reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::headers;

    #[test]
    fn the_subject_for_a_reply_becomes_a_header_unless_there_is_one() {
        let kept = |headers: Option<nats::HeaderMap>| {
            let mut message = Message::new("events.a", Some("_INBOX.a"), "", headers);
            keep_reply(&mut message);
            let pairs = headers::pairs(message.headers.as_ref());
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(kept(None), [("Catchment-Reply-To".to_owned(), "_INBOX.a".to_owned())]);
        let given = nats::HeaderMap::from_iter([("catchment-reply-to", "_INBOX.b")]);
        assert_eq!(kept(Some(given)), [("catchment-reply-to".to_owned(), "_INBOX.b".to_owned())]);
    }
}
