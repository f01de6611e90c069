//! A JetStream stream as the pipeline's intake: one session after the other, each where the last one ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nats::Message;

use super::api::Stored;
use super::cluster::Cluster;
use super::headers;
use super::pauses::Pauses;
use super::reply::Metadata;
use super::session::{self, Item, Session, Setting};
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Batch, Condition, Defect, Epoch, Intake, Mark, Position, Signal, Supply, Tally};

/// How long a stream must be missing before it is made anew: whoever deleted it may be about to do that.
const MISSING: Duration = Duration::from_secs(2);

/// A call of [`Intake::fill`] this long after the one before means that the database held the pipeline up.
const AWAY: Duration = Duration::from_millis(100);

/// What an intake reports to.
#[derive(Clone, Debug)]
pub struct Reports {
    /// Counts.
    pub tally: Arc<Tally>,
    /// How the broker is doing.
    pub condition: Condition,
}

/// Reads a stream from a position on, for as long as it takes.
pub struct JetStreamIntake {
    cluster: Arc<Cluster>,
    identity: String,
    stop: Signal,
    reports: Reports,
    session: Option<Session>,
    /// How far the stream has been read.
    position: Option<Position>,
    /// How far it has been handed over, in this epoch: behind `position` where known deliveries were passed over. The
    /// pipeline commits that or fails, so the ledger stands here when the next batch comes.
    handed: Mark,
    epoch: Option<Arc<Epoch>>,
    /// What an earlier epoch had already, after a rollback of the stream.
    known: Option<Mark>,
    held: Option<(Message, Metadata)>,
    /// `--drain`: the sequence at which to end.
    drain_to: Option<u64>,
    ended: bool,
    left: Instant,
    retry: Retry,
}

/// When and how to try again.
struct Retry {
    pauses: Pauses,
    /// The last session ended in a way that an unreadable message could have caused.
    suspicious: bool,
    missing_since: Option<Instant>,
}

impl JetStreamIntake {
    /// Opens the first session, so that what is wrong with broker or stream is said now. `position` is how far the
    /// database has the stream; `identity` names the database. With `drain` the intake ends when it has handed over what
    /// is in the stream now. Blocks at most a few times the configured time-out.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn open(
        cluster: Cluster,
        identity: &str,
        position: Option<Position>,
        drain: bool,
        stop: &Signal,
        reports: &Reports,
    ) -> Result<Self, Error> {
        let pauses = Pauses::new(cluster.config());
        let mut intake = Self {
            cluster: Arc::new(cluster),
            identity: identity.to_owned(),
            stop: stop.clone(),
            reports: reports.clone(),
            session: None,
            position,
            handed: Mark::START,
            epoch: None,
            known: None,
            held: None,
            drain_to: None,
            ended: false,
            left: Instant::now(),
            retry: Retry { pauses, suspicious: false, missing_since: None },
        };
        let session = Session::open(&intake.setting(true))?;
        if drain {
            intake.drain_to = Some(session.last);
        }
        intake.adopt(session);
        Ok(intake)
    }

    fn setting(&self, may_create: bool) -> Setting<'_> {
        Setting {
            cluster: &self.cluster,
            identity: &self.identity,
            position: self.position.as_ref(),
            may_create,
            stop: &self.stop,
        }
    }

    fn adopt(&mut self, session: Session) {
        if session.known.is_some() || self.epoch.as_ref().is_some_and(|epoch| *epoch != session.epoch) {
            self.known = session.known;
        }
        if self.epoch.as_ref().is_none_or(|epoch| *epoch != session.epoch) {
            self.handed = session.after;
        }
        self.position = Some(Position { epoch: Epoch::clone(&session.epoch), mark: session.after });
        self.epoch = Some(Arc::clone(&session.epoch));
        self.reports.tally.pending.set(session.pending);
        self.ended |= self.drain_to.is_some() && session.pending == 0;
        self.session = Some(session);
        self.retry.pauses.opened();
        self.retry.missing_since = None;
        self.reports.condition.recover();
    }

    /// Ends the session; the next one begins where this one came to.
    fn lose(&mut self, why: &str) {
        self.reports.condition.degrade(why);
        self.session = None;
        self.retry.suspicious = true;
        self.retry.pauses.over();
    }

    /// Tries once to open a new session, if it is time; waits for that at most for `wait`.
    fn reopen(&mut self, batch: &mut Batch, wait: Duration) {
        if !self.retry.pauses.due(wait, &self.stop) {
            return;
        }
        let began = Instant::now();
        match self.try_reopen(batch) {
            Ok(None) => {}
            Ok(Some(session)) => {
                self.reports.tally.rebuilds.add(1);
                self.adopt(session);
            }
            Err(error) => {
                self.reports.condition.degrade(error.to_string());
                let gone = matches!(error, Error::Broker { fault: BrokerFault::Stream, .. });
                self.retry.missing_since = if gone { self.retry.missing_since.or(Some(began)) } else { None };
                self.retry.pauses.failed();
            }
        }
    }

    /// A new session, or `None` and a defect in the batch where the message that is next cannot be read by the client.
    fn try_reopen(&mut self, batch: &mut Batch) -> Result<Option<Session>, Error> {
        if self.retry.suspicious {
            if let Some((stored, defect)) = session::unreadable_next(&self.setting(false))? {
                log::warn!(
                    "broker: message {} of {}: {defect}; read raw",
                    stored.mark.sequence,
                    self.cluster.config().stream
                );
                self.push_defect(batch, &stored, defect);
                return Ok(None);
            }
            self.retry.suspicious = false;
        }
        let may_create = self.retry.missing_since.is_some_and(|since| since.elapsed() >= MISSING);
        Session::open(&self.setting(may_create)).map(Some)
    }

    /// Adds a message that was read raw; the next session begins behind it.
    fn push_defect(&mut self, batch: &mut Batch, stored: &Stored, defect: &'static str) {
        let (Some(epoch), Some(position)) = (&self.epoch, &mut self.position) else { return };
        position.mark = stored.mark;
        self.ended |= self.drain_to.is_some_and(|last| stored.mark.sequence >= last);
        if self.known.is_some_and(|known| is_known(known, stored.mark)) {
            self.reports.tally.duplicates.add(1);
            return;
        }
        if batch.is_empty() {
            batch.begin(Arc::clone(epoch), self.handed);
        }
        let defect = Defect { reason: defect, raw_headers: &stored.headers };
        batch.push_defect(stored.mark, &stored.subject, defect, &stored.payload);
        self.handed = stored.mark;
    }

    /// Adds a delivery, unless an earlier epoch had it; `false` when the batch has no room for it.
    fn push(&mut self, batch: &mut Batch, message: Message, metadata: Metadata) -> bool {
        let (Some(epoch), Some(position)) = (&self.epoch, &mut self.position) else { return true };
        if self.known.is_some_and(|known| is_known(known, metadata.mark)) {
            self.reports.tally.duplicates.add(1);
            position.mark = metadata.mark;
            return true;
        }
        if !batch.has_room_for(size(&message)) {
            self.held = Some((message, metadata));
            return false;
        }
        if batch.is_empty() {
            batch.begin(Arc::clone(epoch), self.handed);
        }
        batch.push(metadata.mark, &message.subject, headers::pairs(message.headers.as_ref()), &message.data);
        position.mark = metadata.mark;
        self.handed = metadata.mark;
        true
    }

    fn drained(&self, metadata: Metadata) -> bool {
        self.drain_to.is_some_and(|last| metadata.pending == 0 || metadata.mark.sequence >= last)
    }
}

/// Bytes it takes in a batch.
fn size(message: &Message) -> usize {
    message.subject.len() + message.data.len() + headers::size(message.headers.as_ref())
}

/// Whether an earlier epoch that came to `known` had this message.
fn is_known(known: Mark, mark: Mark) -> bool {
    mark.sequence <= known.sequence && mark.published_ns <= known.published_ns
}

impl Intake for JetStreamIntake {
    fn fill(&mut self, batch: &mut Batch, wait: Duration) -> Result<Supply, Error> {
        if self.ended {
            return Ok(Supply::Ended);
        }
        if self.session.is_none() {
            if batch.is_empty() {
                self.reopen(batch, wait);
            }
            return Ok(Supply::Flowing);
        }
        if self.left.elapsed() >= AWAY
            && let Some(session) = &mut self.session
        {
            session.was_away();
        }
        let mut wait = wait;
        while !batch.is_full() {
            let next = match (self.held.take(), &mut self.session) {
                (Some((message, metadata)), _) => Item::Delivery(message, metadata),
                (None, Some(session)) => session.next(wait, &self.stop),
                (None, None) => Item::Nothing,
            };
            match next {
                Item::Delivery(message, metadata) => {
                    self.retry.pauses.bore_fruit();
                    if !self.push(batch, message, metadata) {
                        break;
                    }
                    if self.drained(metadata) {
                        self.ended = true;
                        break;
                    }
                    // Known ones fill no batch: a long row of them must not hold up a stop.
                    if batch.is_empty() && self.stop.is_raised() {
                        break;
                    }
                    wait = Duration::ZERO;
                }
                Item::Nothing => break,
                Item::Over(why) => {
                    self.lose(&why);
                    break;
                }
            }
        }
        if let Some(session) = &self.session {
            self.reports.tally.pending.set(session.pending);
        }
        self.left = Instant::now();
        Ok(if self.ended { Supply::Ended } else { Supply::Flowing })
    }
}

impl Drop for JetStreamIntake {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.close();
        }
    }
}
