//! A JetStream stream as the pipeline's intake: one session after the other, each where the last one ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nats::Message;

use super::claims::Owner;
use super::gaps::Gone;
use super::history::History;
use super::pulls;
use super::reply::Metadata;
use super::session::{Delivery, Item, Session, Setting};
use super::unreadable::{Unreadable, unreadable_next};
use crate::broker::connection::{Cluster, Reconnect};
use crate::broker::{Reports, headers};
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Batch, Defect, Epoch, EpochProgress, Gap, Gaps, Intake, IntakeState, Mark, Signal};

/// How long a stream must be missing before it is made anew: whoever deleted it may be about to do that.
const MISSING: Duration = Duration::from_secs(2);

/// A call of [`Intake::fill`] this long after the one before means that the database held the pipeline up.
const AWAY: Duration = Duration::from_millis(100);

/// How often to look whether what was handed over is committed.
const LOOK_FOR_COMMITS: Duration = Duration::from_millis(10);

/// How often to look, at the end of a drain, whether all questions are answered.
const LOOK_FOR_ANSWERS: Duration = Duration::from_millis(10);

/// How long a drain waits at its end for what the stream says it dropped.
const SETTLING: Duration = Duration::from_secs(3);

/// How often to look whether somebody else still uses our consumer.
const LOOK_FOR_RIVALS: Duration = Duration::from_millis(100);

/// How long a server may take to notice that somebody has hung up, without a word of it in the log.
const HANGING_UP: Duration = Duration::from_secs(1);

/// For the server's own delays, on top of the time that a dead process's last request lasts.
const GRACE: Duration = Duration::from_secs(2);

/// What an intake is opened with.
#[derive(Debug)]
pub struct Beginning {
    /// The database, as the owner of consumers.
    pub owner: Owner,
    /// How far the database has each epoch of the stream, the latest last.
    pub history: Vec<EpochProgress>,
    /// End when what is in the stream now has been handed over.
    pub drain: bool,
    /// How many events the pipeline holds, at most.
    pub pipeline_holds: usize,
}

/// Reads a stream from a position on, for as long as it takes.
pub struct JetStreamIntake {
    cluster: Arc<Cluster>,
    owner: Owner,
    /// The consumer of the last session.
    consumer: Option<String>,
    /// Until when somebody had it deliver nothing.
    paused: Option<String>,
    pipeline_holds: usize,
    stop: Signal,
    reports: Reports,
    session: Option<Session>,
    /// How far each epoch of the stream has been read.
    history: History,
    /// How far it has been handed over, in this epoch: behind the history where known deliveries were passed over. The
    /// pipeline commits that or fails, so the ledger stands here when the next batch comes.
    handed: Mark,
    epoch: Option<Arc<Epoch>>,
    /// What the stream did not have, and no batch tells yet.
    missing: Vec<Gap>,
    held: Option<Delivery>,
    /// How far it is committed, in this epoch.
    committed: Mark,
    /// What the stream no longer has was said up to this sequence of this epoch.
    said_to: u64,
    acks: Acks,
    /// `--drain`: the sequence at which to end.
    drain_to: Option<u64>,
    /// Since when it has come that far.
    drained: Option<Instant>,
    ended: bool,
    left: Instant,
    retry: Retry,
    /// Since when somebody else uses our consumer.
    contested: Option<Instant>,
    /// Trouble was said that is not known to be over.
    unwell: bool,
}

/// What is to be acknowledged once it is committed, on a stream that waits for that: the last delivery of each call of
/// [`Intake::fill`], for a batch ends with such a one. An acknowledgement counts for all deliveries before it.
#[derive(Default)]
struct Acks {
    /// The last session's stream waits for acknowledgement.
    wanted: bool,
    latest: Option<(u64, String)>,
    /// The last delivery that an earlier epoch had.
    known: Option<String>,
    due: VecDeque<(u64, String)>,
}

/// When and how to try again.
struct Retry {
    reconnect: Reconnect,
    /// The last session ended in a way that an unreadable message could have caused.
    suspicious: bool,
    missing_since: Option<Instant>,
}

impl JetStreamIntake {
    /// Opens the first session, so that what is wrong with broker or stream is said now. Blocks at most a few times the
    /// configured time-out, and 12 seconds more where somebody else seems to use the consumer, as long as it is `wanted`.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn open(
        cluster: Cluster,
        beginning: Beginning,
        wanted: &dyn Fn() -> bool,
        stop: &Signal,
        reports: &Reports,
    ) -> Result<Self, Error> {
        let Beginning { owner, history, drain, pipeline_holds } = beginning;
        let cluster = Arc::new(cluster);
        let reconnect = Reconnect::new(cluster.config(), &reports.condition, stop);
        let mut intake = Self {
            cluster: Arc::clone(&cluster),
            owner,
            consumer: None,
            paused: None,
            contested: None,
            unwell: false,
            stop: stop.clone(),
            reports: reports.clone(),
            session: None,
            history: History::new(history),
            handed: Mark::START,
            epoch: None,
            missing: Vec::new(),
            held: None,
            pipeline_holds,
            committed: Mark::START,
            said_to: 0,
            acks: Acks::default(),
            drain_to: None,
            drained: None,
            ended: false,
            left: Instant::now(),
            retry: Retry { reconnect, suspicious: false, missing_since: None },
        };
        let session = loop {
            match Session::open(&intake.setting(true)) {
                Ok(session) => break session,
                Err(error) if !wanted() => return Err(error),
                Err(error) => intake.contested_by(error)?,
            }
            let _ = stop.wait(LOOK_FOR_RIVALS);
        };
        if drain {
            intake.drain_to = Some(session.last);
        }
        intake.adopt(session);
        Ok(intake)
    }

    fn setting(&self, may_create: bool) -> Setting<'_> {
        Setting {
            cluster: &self.cluster,
            owner: &self.owner,
            previous: self.consumer.as_deref(),
            paused: self.paused.as_deref(),
            history: self.history.lives(),
            may_create,
            said_to: self.said_to,
            under_way: self.pipeline_holds,
            stop: &self.stop,
        }
    }

    fn adopt(&mut self, session: Session) {
        if self.epoch.as_ref().is_none_or(|epoch| *epoch != session.epoch) {
            self.handed = session.after;
            self.committed = session.after;
            self.said_to = 0;
            self.missing.clear();
        }
        self.acks = Acks { wanted: session.acknowledges(), ..Acks::default() };
        self.history.go_on(&session.epoch, session.after);
        self.epoch = Some(Arc::clone(&session.epoch));
        self.consumer = Some(session.consumer.clone());
        self.contested = None;
        self.reports.counters.pending.set(session.pending);
        if self.drain_to.is_some() && session.is_exhausted() {
            self.drained.get_or_insert_with(Instant::now);
        }
        self.session = Some(session);
        self.account_for_gone();
        self.retry.reconnect.opened();
        self.retry.missing_since = None;
        self.unwell = true;
        self.tell();
    }

    /// Says how the session is doing. One that was opened is no recovery yet: its requests may be refused.
    fn tell(&mut self) {
        let Some(session) = &self.session else { return };
        self.paused = session.consumer_watch.paused().map(str::to_owned);
        if let Some(trouble) = session.consumer_watch.trouble() {
            self.reports.condition.degrade(trouble);
            self.unwell = true;
        } else if self.unwell && session.consumer_watch.is_proved() {
            self.reports.condition.recover();
            self.unwell = false;
        }
    }

    /// Hears why no session could be opened. Where somebody else uses our consumer, that may be what a process that died has
    /// left: so it is an error only once it has lasted longer than that can.
    fn contested_by(&mut self, error: Error) -> Result<(), Error> {
        if !matches!(error, Error::Broker { fault: BrokerFault::Contested, .. }) {
            self.contested = None;
            return Err(error);
        }
        let since = *self.contested.get_or_insert_with(Instant::now);
        // A process that has just ended may have hung up and not been noticed yet.
        if since.elapsed() > HANGING_UP {
            self.reports.condition.degrade(error.to_string());
        }
        if since.elapsed() < pulls::EXPIRES + GRACE && !self.stop.is_raised() { Ok(()) } else { Err(error) }
    }

    /// Takes over from the session what the stream no longer had.
    fn account_for_gone(&mut self) {
        let Some(session) = &mut self.session else { return };
        let gone = std::mem::take(&mut session.gone);
        self.reports.counters.gone.add(usize::try_from(gone).unwrap_or(usize::MAX));
        self.said_to = self.said_to.max(session.said_to());
        for gap in std::mem::take(&mut session.missing) {
            self.history.lacks(gap);
            self.missing.push(gap);
        }
    }

    /// The stream did not have these when the delivery behind them came. The next batch tells the ledger. Where an earlier epoch
    /// has that delivery, it passed them too.
    fn lacks(&mut self, missing: Option<Gap>, is_known: bool) {
        let Some(gap) = missing else { return };
        self.history.lacks(gap);
        self.missing.push(gap);
        match &mut self.session {
            _ if is_known => {}
            Some(session) => session.lost(gap),
            // Read raw, between two sessions.
            None => {
                let news = Gaps::from(gap).without(&Gaps::default(), self.said_to);
                if !news.is_empty() {
                    let gone = Gone::of(news);
                    log::warn!("broker: {}", gone.news(&self.cluster.config().stream, gap.first));
                    self.reports.counters.gone.add(usize::try_from(gone.events).unwrap_or(usize::MAX));
                }
            }
        }
    }

    /// Adds to the batch what was missing. A batch may have nothing else, once the ledger knows the epoch.
    fn tell_missing(&mut self, batch: &mut Batch) {
        let Some(epoch) = self.epoch.as_ref().filter(|epoch| !self.missing.is_empty() && self.handed != epoch.begins)
        else {
            return;
        };
        if batch.is_empty() {
            batch.begin(Arc::clone(epoch), self.handed);
        }
        self.missing.drain(..).for_each(|gap| batch.push_gap(gap));
    }

    /// Ends the session; the next one begins where this one came to.
    fn lose(&mut self, why: &str) {
        self.retry.reconnect.ended(why);
        self.account_for_gone();
        self.session = None;
        self.retry.suspicious = true;
    }

    /// Tries once to open a new session, if it is time; waits for that at most for `wait`.
    ///
    /// # Errors
    ///
    /// Another collector uses the same identity, and goes on doing so.
    fn reopen(&mut self, batch: &mut Batch, wait: Duration) -> Result<(), Error> {
        // The stream would drop what only the last consumer stood for: the next one begins where the database is.
        if self.acks.wanted && self.committed != self.handed {
            let _ = self.stop.wait(wait.min(LOOK_FOR_COMMITS));
            return Ok(());
        }
        if !self.retry.reconnect.wait(wait) {
            return Ok(());
        }
        let began = Instant::now();
        match self.try_reopen(batch) {
            Ok(None) => {}
            Ok(Some(session)) => {
                self.reports.counters.rebuilds.add(1);
                self.adopt(session);
            }
            Err(error) => {
                let is_contested = matches!(error, Error::Broker { fault: BrokerFault::Contested, .. });
                let gone = matches!(error, Error::Broker { fault: BrokerFault::Stream, .. });
                self.retry.missing_since = if gone { self.retry.missing_since.or(Some(began)) } else { None };
                if is_contested {
                    self.retry.reconnect.postpone();
                    if !self.stop.is_raised() {
                        return self.contested_by(error);
                    }
                } else {
                    self.retry.reconnect.failed(&error);
                    self.contested = None;
                }
            }
        }
        Ok(())
    }

    /// A new session, or `None` and a defect in the batch where the message that is next cannot be read by the client.
    fn try_reopen(&mut self, batch: &mut Batch) -> Result<Option<Session>, Error> {
        if self.retry.suspicious {
            if let Some(unreadable) = unreadable_next(&self.setting(false))? {
                let (sequence, defect) = (unreadable.stored.mark.sequence, unreadable.defect);
                log::warn!("broker: message {sequence} of {}: {defect}; read raw", self.cluster.config().stream);
                self.push_defect(batch, &unreadable);
                return Ok(None);
            }
            self.retry.suspicious = false;
        }
        let may_create = self.retry.missing_since.is_some_and(|since| since.elapsed() >= MISSING);
        Session::open(&self.setting(may_create)).map(Some)
    }

    /// Adds a message that was read raw; the next session begins behind it.
    fn push_defect(&mut self, batch: &mut Batch, unreadable: &Unreadable) {
        let Unreadable { stored, defect, missing, is_loss } = unreadable;
        let Some(epoch) = self.epoch.clone() else { return };
        let is_known = self.history.is_known(stored.mark);
        self.lacks(*missing, is_known || !is_loss);
        self.history.reached(stored.mark);
        self.ended |= self.drain_to.is_some_and(|last| stored.mark.sequence >= last);
        if is_known {
            self.reports.counters.duplicates.add(1);
            return;
        }
        if batch.is_empty() {
            batch.begin(epoch, self.handed);
        }
        self.missing.drain(..).for_each(|gap| batch.push_gap(gap));
        let defect = Defect { reason: defect, raw_headers: &stored.headers };
        batch.push_defect(stored.mark, &stored.subject, defect, &stored.payload);
        self.handed = stored.mark;
    }

    /// Adds a delivery, unless an earlier epoch had it; `false` when the batch has no room for it.
    fn push(&mut self, batch: &mut Batch, mut delivery: Delivery) -> bool {
        let mark = delivery.metadata.mark;
        let is_known = self.history.is_known(mark);
        if let Some(gap) = delivery.take_missing() {
            self.lacks(Some(gap), is_known);
        }
        if is_known {
            self.reports.counters.duplicates.add(1);
            self.history.reached(mark);
            self.acks.known = delivery.message.reply.filter(|_| self.acks.wanted);
            return true;
        }
        if !batch.has_room_for(size(&delivery.message)) {
            self.held = Some(delivery);
            batch.seal();
            return false;
        }
        let Some(epoch) = &self.epoch else { return true };
        if batch.is_empty() {
            batch.begin(Arc::clone(epoch), self.handed);
        }
        self.missing.drain(..).for_each(|gap| batch.push_gap(gap));
        let message = delivery.message;
        batch.push(mark, &message.subject, headers::pairs(message.headers.as_ref()), &message.data);
        self.history.reached(mark);
        self.handed = mark;
        if self.acks.wanted {
            self.acks.latest = message.reply.map(|reply| (mark.sequence, reply));
        }
        true
    }

    /// What an earlier epoch had already is committed, once all that came before it is: nothing but an acknowledgement makes room
    /// for more of it.
    fn acknowledge_known(&mut self) {
        let settled = self.committed == self.handed;
        let reply = self.acks.known.take_if(|_| settled);
        if let (Some(reply), Some(session)) = (reply, &self.session) {
            session.acknowledge(reply);
        }
    }

    fn is_drained(&self, metadata: Metadata) -> bool {
        self.drain_to.is_some_and(|last| metadata.pending == 0 || metadata.mark.sequence >= last)
    }
}

/// Bytes it takes in a batch.
fn size(message: &Message) -> usize {
    message.subject.len() + message.data.len() + headers::size(message.headers.as_ref())
}

impl Intake for JetStreamIntake {
    fn fill(&mut self, batch: &mut Batch, wait: Duration) -> Result<IntakeState, Error> {
        if self.ended {
            return Ok(IntakeState::Drained);
        }
        if self.session.is_none() {
            if batch.is_empty() {
                self.reopen(batch, wait)?;
            }
            return Ok(IntakeState::Open);
        }
        if self.left.elapsed() >= AWAY
            && let Some(session) = &mut self.session
        {
            session.was_away();
        }
        // All that is left is to hear what the stream dropped.
        let mut wait = if self.drained.is_some() { wait.min(LOOK_FOR_ANSWERS) } else { wait };
        while !batch.is_full() {
            let next = match (self.held.take(), &mut self.session) {
                (Some(held), _) => Item::Delivery(held),
                (None, Some(session)) => session.next(wait, &self.stop),
                (None, None) => Item::Nothing,
            };
            match next {
                Item::Delivery(delivery) => {
                    self.retry.reconnect.productive();
                    let metadata = delivery.metadata;
                    if !self.push(batch, delivery) {
                        break;
                    }
                    if self.is_drained(metadata) {
                        self.drained.get_or_insert_with(Instant::now);
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
        self.acks.due.extend(self.acks.latest.take());
        self.account_for_gone();
        self.tell_missing(batch);
        self.acknowledge_known();
        if let Some(session) = &mut self.session {
            self.reports.counters.pending.set(session.pending);
            if self.drain_to.is_some() && session.is_exhausted() && self.held.is_none() {
                self.drained.get_or_insert_with(Instant::now);
            }
            // While events vanish all the time, there is always something left to ask.
            self.ended |= self.drained.is_some_and(|since| session.is_settled() || since.elapsed() >= SETTLING);
        }
        self.tell();
        self.left = Instant::now();
        Ok(if self.ended { IntakeState::Drained } else { IntakeState::Open })
    }

    fn committed(&mut self, epoch: &Epoch, last: Mark) {
        if self.epoch.as_deref() != Some(epoch) {
            return;
        }
        self.committed = last;
        let mut reached = None;
        while self.acks.due.front().is_some_and(|(sequence, _)| *sequence <= last.sequence) {
            reached = self.acks.due.pop_front().map(|(_, reply)| reply);
        }
        if let (Some(reply), Some(session)) = (reached, &self.session) {
            session.acknowledge(reply);
        }
        self.acknowledge_known();
    }
}

impl Drop for JetStreamIntake {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.close();
        }
    }
}
