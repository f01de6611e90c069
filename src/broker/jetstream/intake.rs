//! A JetStream stream as the pipeline's intake: one session after the other, each where the last one ended.

mod filling;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::claims::Owner;
use super::delivery_metadata::DeliveryMetadata;
use super::epoch_history::EpochHistory;
use super::pending_acks::PendingAcks;
use super::pulls;
use super::session::{Delivery, Item, JetStreamSession};
use super::session_options::SessionOptions;
use super::unreadable_message::read_unreadable_message;
use crate::broker::Reports;
use crate::broker::connection::Cluster;
use crate::broker::pauses::Pauses;
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Batch, Epoch, EpochProgress, Gap, Intake, IntakeState, Mark, Signal};

/// How long a stream must be missing before it is made anew: whoever deleted it may be about to do that.
const MISSING: Duration = Duration::from_secs(2);

/// A call of [`Intake::fill`] this long after the one before means that the database unplaced the pipeline up.
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
pub struct IntakeOptions {
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
    session: Option<JetStreamSession>,
    /// How far each epoch of the stream has been read.
    history: EpochHistory,
    /// How far it has been handed over, in this epoch: behind the history where known deliveries were passed over. The
    /// pipeline commits that or fails, so the ledger stands here when the next batch comes.
    handed: Mark,
    epoch: Option<Arc<Epoch>>,
    /// What the stream did not have, and no batch tells yet.
    missing: Vec<Gap>,
    unplaced: Option<Delivery>,
    /// How far it is committed, in this epoch.
    committed: Mark,
    /// What the stream no longer has was said up to this sequence of this epoch.
    reported_to: u64,
    acks: PendingAcks,
    /// `--drain`: the sequence at which to end.
    drain_to: Option<u64>,
    /// Since when it has come that far.
    drained: Option<Instant>,
    ended: bool,
    last_fill: Instant,
    retry: Retry,
    /// Since when somebody else uses our consumer.
    contested: Option<Instant>,
    /// Trouble was said that is not known to be over.
    is_degraded: bool,
}

/// When and how to try again.
struct Retry {
    pauses: Pauses,
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
        options: IntakeOptions,
        wanted: &dyn Fn() -> bool,
        stop: &Signal,
        reports: &Reports,
    ) -> Result<Self, Error> {
        let IntakeOptions { owner, history, drain, pipeline_holds } = options;
        let cluster = Arc::new(cluster);
        let pauses = Pauses::new(cluster.config());
        let mut intake = Self {
            cluster: Arc::clone(&cluster),
            owner,
            consumer: None,
            paused: None,
            contested: None,
            is_degraded: false,
            stop: stop.clone(),
            reports: reports.clone(),
            session: None,
            history: EpochHistory::new(history),
            handed: Mark::START,
            epoch: None,
            missing: Vec::new(),
            unplaced: None,
            pipeline_holds,
            committed: Mark::START,
            reported_to: 0,
            acks: PendingAcks::default(),
            drain_to: None,
            drained: None,
            ended: false,
            last_fill: Instant::now(),
            retry: Retry { pauses, suspicious: false, missing_since: None },
        };
        let session = loop {
            match JetStreamSession::open(&intake.session_options(true)) {
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

    fn session_options(&self, may_create: bool) -> SessionOptions<'_> {
        SessionOptions {
            cluster: &self.cluster,
            owner: &self.owner,
            previous: self.consumer.as_deref(),
            paused: self.paused.as_deref(),
            history: self.history.epochs(),
            may_create,
            reported_to: self.reported_to,
            pipeline_holds: self.pipeline_holds,
            stop: &self.stop,
        }
    }

    fn adopt(&mut self, session: JetStreamSession) {
        if self.epoch.as_ref().is_none_or(|epoch| *epoch != session.epoch) {
            self.handed = session.after;
            self.committed = session.after;
            self.reported_to = 0;
            self.missing.clear();
        }
        self.acks = PendingAcks::new(session.acknowledges());
        self.history.continue_epoch(&session.epoch, session.after);
        self.epoch = Some(Arc::clone(&session.epoch));
        self.consumer = Some(session.consumer.clone());
        self.contested = None;
        self.reports.counters.pending.set(session.pending);
        if self.drain_to.is_some() && session.is_exhausted() {
            self.drained.get_or_insert_with(Instant::now);
        }
        self.session = Some(session);
        self.take_lost_events();
        self.retry.pauses.opened();
        self.retry.missing_since = None;
        self.is_degraded = true;
        self.report_condition();
    }

    /// Says how the session is doing. One that was opened is no recovery yet: its requests may be refused.
    fn report_condition(&mut self) {
        let Some(session) = &self.session else { return };
        self.paused = session.consumer_watch.paused().map(str::to_owned);
        if let Some(trouble) = session.consumer_watch.trouble() {
            self.reports.condition.degrade(trouble);
            self.is_degraded = true;
        } else if self.is_degraded && session.consumer_watch.is_proved() {
            self.reports.condition.recover();
            self.is_degraded = false;
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

    /// Ends the session; the next one begins where this one came to.
    fn end_session(&mut self, why: &str) {
        self.reports.condition.degrade(why);
        self.take_lost_events();
        self.session = None;
        self.retry.suspicious = true;
        self.retry.pauses.over();
    }

    /// Tries once to open a new session, if it is time; waits for that at most for `wait`.
    ///
    /// # Errors
    ///
    /// Another collector uses the same identity, and goes on doing so.
    fn reopen(&mut self, batch: &mut Batch, wait: Duration) -> Result<(), Error> {
        // The stream would drop what only the last consumer stood for: the next one begins where the database is.
        if self.acks.are_required() && self.committed != self.handed {
            let _ = self.stop.wait(wait.min(LOOK_FOR_COMMITS));
            return Ok(());
        }
        if !self.retry.pauses.due(wait, &self.stop) {
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
                if !is_contested {
                    self.reports.condition.degrade(error.to_string());
                }
                let gone = matches!(error, Error::Broker { fault: BrokerFault::Stream, .. });
                self.retry.missing_since = if gone { self.retry.missing_since.or(Some(began)) } else { None };
                self.retry.pauses.failed();
                if !is_contested {
                    self.contested = None;
                } else if !self.stop.is_raised() {
                    return self.contested_by(error);
                }
            }
        }
        Ok(())
    }

    /// A new session, or `None` and a defect in the batch where the message that is next cannot be read by the client.
    fn try_reopen(&mut self, batch: &mut Batch) -> Result<Option<JetStreamSession>, Error> {
        if self.retry.suspicious {
            if let Some(unreadable) = read_unreadable_message(&self.session_options(false))? {
                let (sequence, defect) = (unreadable.stored.mark.sequence, unreadable.defect);
                log::warn!("broker: message {sequence} of {}: {defect}; read raw", self.cluster.config().stream);
                self.push_defect(batch, &unreadable);
                return Ok(None);
            }
            self.retry.suspicious = false;
        }
        let may_create = self.retry.missing_since.is_some_and(|since| since.elapsed() >= MISSING);
        JetStreamSession::open(&self.session_options(may_create)).map(Some)
    }

    fn is_drained(&self, metadata: DeliveryMetadata) -> bool {
        self.drain_to.is_some_and(|last| metadata.pending == 0 || metadata.mark.sequence >= last)
    }
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
        if self.last_fill.elapsed() >= AWAY
            && let Some(session) = &mut self.session
        {
            session.was_away();
        }
        // All that is left is to hear what the stream dropped.
        let mut wait = if self.drained.is_some() { wait.min(LOOK_FOR_ANSWERS) } else { wait };
        while !batch.is_full() {
            let next = match (self.unplaced.take(), &mut self.session) {
                (Some(unplaced), _) => Item::Delivery(unplaced),
                (None, Some(session)) => session.next(wait, &self.stop),
                (None, None) => Item::Nothing,
            };
            match next {
                Item::Delivery(delivery) => {
                    self.retry.pauses.bore_fruit();
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
                    self.end_session(&why);
                    break;
                }
            }
        }
        self.acks.end_fill();
        self.take_lost_events();
        self.push_missing(batch);
        self.acknowledge_known();
        if let Some(session) = &mut self.session {
            self.reports.counters.pending.set(session.pending);
            if self.drain_to.is_some() && session.is_exhausted() && self.unplaced.is_none() {
                self.drained.get_or_insert_with(Instant::now);
            }
            // While events vanish all the time, there is always something left to ask.
            self.ended |= self.drained.is_some_and(|since| session.is_settled() || since.elapsed() >= SETTLING);
        }
        self.report_condition();
        self.last_fill = Instant::now();
        Ok(if self.ended { IntakeState::Drained } else { IntakeState::Open })
    }

    fn committed(&mut self, epoch: &Epoch, last: Mark) {
        if self.epoch.as_deref() != Some(epoch) {
            return;
        }
        self.committed = last;
        let reached = self.acks.take_committed(last.sequence);
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
