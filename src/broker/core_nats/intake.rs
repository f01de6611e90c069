//! Core NATS as the pipeline's intake: at most once, bounded by our own count.
//!
//! A thread of its own listens, one session after the other, and puts what comes into a room; the intake takes it from there.
//! So the connection is read, and made anew, whatever the database does.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError};
use nats::Message;

use super::losses::Losses;
use super::room::{Arrival, Room};
use super::session::{CoreSession, Heard};
use crate::broker::Reports;
use crate::broker::broker_error;
use crate::broker::connection::Cluster;
use crate::broker::pauses::Pauses;
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Batch, Condition, Confirmation, Epoch, Intake, IntakeState, Mark, Signal};

/// How often the listener looks up while nothing comes; while events are dropped it does so more often.
const IDLE: Duration = Duration::from_secs(1);
const LOSING: Duration = Duration::from_millis(100);

const LISTENER: &str = "catchment-listener";

/// Takes in what is published while it listens.
pub struct CoreIntake {
    room: Arc<Room>,
    /// These events come from no stream: they are numbered here.
    epoch: Arc<Epoch>,
    handed: Mark,
    held: Option<Arrival>,
    stop: Signal,
    listener: Option<JoinHandle<()>>,
    /// Disconnected when the listener has ended, however it did.
    ended: Receiver<()>,
}

impl CoreIntake {
    /// Connects and subscribes, so that what is wrong with the broker is said now. `confirms` says on which subjects events are
    /// confirmed to whoever asks: those keep the subject that their message named for a reply. `epoch` is where the ledger
    /// counts; `losses` is told when events have to be dropped. Blocks at most a few times the configured time-out.
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
        losses: &Condition,
    ) -> Result<Self, Error> {
        let cluster = Arc::new(cluster);
        let config = cluster.config();
        let room = Arc::new(Room::new(&config.core));
        let session = CoreSession::open(&cluster, &room, &reports.counters, stop)?;
        let (alive, ended) = crossbeam_channel::bounded(0);
        let listener = Listener {
            cluster: Arc::clone(&cluster),
            confirms: Box::new(confirms),
            room: Arc::clone(&room),
            stop: stop.clone(),
            reports: reports.clone(),
            losses: Losses::new(&reports.counters, losses),
            pauses: Pauses::new(config),
            _alive: alive,
        };
        let listener = thread::Builder::new().name(LISTENER.into()).spawn(move || listener.run(session));
        let no_thread = |e| broker_error(config.shown_servers(), BrokerFault::Request, format!("no thread: {e}"));
        Ok(Self {
            room,
            epoch: Arc::new(epoch),
            handed: Mark::START,
            held: None,
            stop: stop.clone(),
            listener: Some(listener.map_err(no_thread)?),
            ended,
        })
    }

    /// Moves what waits into the batch, as far as it has room.
    fn move_into(&mut self, batch: &mut Batch) {
        while !batch.is_full() {
            let Some(arrival) = self.held.take().or_else(|| self.room.take()) else { break };
            if !batch.has_room_for(arrival.size()) {
                self.held = Some(arrival);
                batch.seal();
                break;
            }
            if batch.is_empty() {
                batch.begin(Arc::clone(&self.epoch), self.handed);
            }
            self.handed = Mark { sequence: self.handed.sequence + 1, published_ns: arrival.received_ns };
            batch.push(self.handed, &arrival.subject, arrival.headers.pairs(), &arrival.payload);
        }
    }

    fn wait(&self, wait: Duration) {
        let mut select = Select::new();
        select.recv(self.room.channel());
        select.recv(&self.ended);
        select.recv(self.stop.channel());
        let _ = select.ready_timeout(wait);
    }

    /// Joins the listener when it has ended, and surfaces its panic.
    fn watch(&mut self) -> Result<(), Error> {
        if self.ended.try_recv() == Err(TryRecvError::Disconnected)
            && let Some(Err(_)) = self.listener.take().map(JoinHandle::join)
        {
            let message = "what it was doing is on standard error".into();
            return Err(Error::Panicked { thread: LISTENER.into(), message });
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
        // The listener hears the stop too and ends within a second; what it puts into the room until then is ours to store.
        loop {
            self.watch()?;
            let is_last = self.listener.is_none();
            self.move_into(batch);
            if !batch.is_empty() {
                return Ok(IntakeState::Open);
            }
            if is_last {
                return Ok(IntakeState::Drained);
            }
            let mut select = Select::new();
            select.recv(self.room.channel());
            select.recv(&self.ended);
            select.ready();
        }
    }
}

impl Drop for CoreIntake {
    fn drop(&mut self) {
        // Nobody takes anything out of the room any more.
        self.stop.raise();
    }
}

/// The thread that listens.
struct Listener {
    cluster: Arc<Cluster>,
    confirms: Box<dyn Fn(&str) -> bool + Send>,
    room: Arc<Room>,
    stop: Signal,
    reports: Reports,
    losses: Losses,
    pauses: Pauses,
    _alive: Sender<()>,
}

impl Listener {
    fn run(mut self, first: CoreSession) {
        let mut session = first;
        loop {
            self.pauses.opened();
            let Some(why) = self.listen(&mut session) else { break };
            drop(session);
            let lost = Instant::now();
            self.reports.condition.degrade(why);
            self.pauses.over();
            let Some(next) = self.reopen() else { return };
            session = next;
            self.reports.counters.rebuilds.add(1);
            self.reports.condition.recover();
            let away = lost.elapsed();
            log::warn!("broker: nobody listened for {away:.1?}: what was published then, or was on its way, is lost");
        }
        session.finish(&mut |message| self.store(message));
    }

    /// Listens until the stop, or until the session is over: why.
    fn listen(&mut self, session: &mut CoreSession) -> Option<String> {
        while !self.stop.is_raised() {
            let wait = if self.losses.is_losing() { LOSING } else { IDLE };
            let heard = session.next(wait, &self.stop, &mut |message| self.store(message));
            self.losses.look();
            match heard {
                Heard::Events => self.pauses.bore_fruit(),
                Heard::Nothing => {}
                Heard::Over(why) => return Some(why),
            }
        }
        None
    }

    /// Tries for as long as it takes; `None` when told to stop.
    fn reopen(&mut self) -> Option<CoreSession> {
        while !self.stop.is_raised() {
            self.losses.look();
            if !self.pauses.due(IDLE, &self.stop) {
                continue;
            }
            match CoreSession::open(&self.cluster, &self.room, &self.reports.counters, &self.stop) {
                Ok(session) => return Some(session),
                Err(_) if self.stop.is_raised() => {}
                Err(error) => {
                    self.reports.condition.degrade(error.to_string());
                    self.pauses.failed();
                }
            }
        }
        None
    }

    /// Puts a message into the room, or counts it as dropped.
    fn store(&self, mut message: Message) {
        if message.reply.is_some() && (self.confirms)(&message.subject) {
            keep_reply(&mut message);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let received_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        if !self.room.offer(Arrival::of(message, received_ns)) {
            self.reports.counters.dropped.add(1);
        }
    }
}

/// Has the subject for the reply stand where that of a message from a stream does; one that stands there counts.
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
