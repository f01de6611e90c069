//! A JetStream stream as the pipeline's intake. It opens one session after another, each where the last one ended.

mod filling;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nats::Message;

use super::claims::Owner;
use super::delivery_metadata::DeliveryMetadata;
use super::epoch_history::EpochHistory;
use super::pending_acks::PendingAcks;
use super::pulls;
use super::session::{Delivery, Item, JetStreamSession};
use super::session_options::SessionOptions;
use super::unreadable_message::read_unreadable_message;
use crate::broker::Reports;
use crate::broker::connection::{Cluster, Reconnect};
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Batch, Epoch, EpochProgress, Gap, Intake, IntakeState, Mark, Signal};

/// How long a stream must be missing before it is created again. The program that deleted it may be about to do that.
const MISSING: Duration = Duration::from_secs(2);

/// If a call of [`Intake::fill`] is this late after the one before, the database delayed the pipeline.
const AWAY: Duration = Duration::from_millis(100);

/// How often to check whether everything that was handed over is committed.
const COMMIT_CHECK: Duration = Duration::from_millis(10);

/// How often to check, at the end of a drain, whether all requests are answered.
const ANSWER_CHECK: Duration = Duration::from_millis(10);

/// How long a drain waits at its end for the stream's answer about lost events.
const DRAIN_GRACE: Duration = Duration::from_secs(3);

/// How often to check whether another collector still uses our consumer.
const CONTEST_CHECK: Duration = Duration::from_millis(100);

/// How long a server may take to notice a closed connection before this is logged.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// For the server's own delays, in addition to the time until a dead process's last pull request expires.
const EXPIRY_GRACE: Duration = Duration::from_secs(2);

/// What an intake is opened with.
#[derive(Debug)]
pub struct IntakeOptions {
    /// The database as the owner of consumers.
    pub owner: Owner,
    /// The database's progress in each epoch of the stream, the latest last.
    pub history: Vec<EpochProgress>,
    /// End when all events up to this sequence that are in the stream now are handed over; `u64::MAX` for all.
    pub drain_to: Option<u64>,
    /// The largest number of events that the pipeline holds.
    pub pipeline_holds: usize,
}

/// Reads a stream from a position on, across lost connections.
pub struct JetStreamIntake {
    cluster: Arc<Cluster>,
    owner: Owner,
    /// The consumer of the last session.
    consumer: Option<String>,
    /// When that consumer's pause ends.
    paused: Option<String>,
    /// What that session collected.
    subjects: Vec<String>,
    pipeline_holds: usize,
    stop: Signal,
    reports: Reports,
    session: Option<JetStreamSession>,
    /// The progress in reading each epoch of the stream.
    history: EpochHistory,
    /// The last event handed over in this epoch. The history is ahead of it after events that are stored already. The
    /// pipeline commits what is handed over, or fails. So this is the ledger's position when the next batch is written.
    handed: Mark,
    epoch: Option<Arc<Epoch>>,
    /// Missing sequences that are in no batch yet.
    missing: Vec<Gap>,
    /// The message that the session received last.
    received: Option<Message>,
    /// It is a delivery that did not fit into the last batch.
    unplaced: Option<Delivery>,
    /// The last event committed in this epoch.
    committed: Mark,
    /// Lost events were reported up to this sequence of this epoch.
    reported_to: u64,
    acks: PendingAcks,
    /// The sequence at which a drain ends.
    drain_to: Option<u64>,
    /// No event after this sequence is handed over.
    until: Option<u64>,
    /// When the drain reached it.
    drained: Option<Instant>,
    ended: bool,
    last_fill: Instant,
    retry: Retry,
    /// Since when another collector uses our consumer.
    contested: Option<Instant>,
    /// A problem was reported that may still exist.
    is_degraded: bool,
}

/// When and how to try again.
struct Retry {
    reconnect: Reconnect,
    /// The last session ended in a way that an unreadable message could have caused.
    suspicious: bool,
    missing_since: Option<Instant>,
}

impl JetStreamIntake {
    /// Opens the first session, so that errors of broker or stream are returned now. Blocks for a few times the
    /// configured time-out at most. If another collector seems to use the consumer, it blocks for 12 seconds more, while
    /// `keep_going` returns `true`.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn open(
        cluster: Cluster,
        options: IntakeOptions,
        keep_going: &dyn Fn() -> bool,
        stop: &Signal,
        reports: &Reports,
    ) -> Result<Self, Error> {
        let IntakeOptions { owner, history, drain_to, pipeline_holds } = options;
        let cluster = Arc::new(cluster);
        let reconnect = Reconnect::new(cluster.config(), &reports.condition, stop);
        let mut intake = Self {
            cluster: Arc::clone(&cluster),
            owner,
            consumer: None,
            paused: None,
            subjects: Vec::new(),
            contested: None,
            is_degraded: false,
            stop: stop.clone(),
            reports: reports.clone(),
            session: None,
            history: EpochHistory::new(history),
            handed: Mark::START,
            epoch: None,
            missing: Vec::new(),
            received: None,
            unplaced: None,
            pipeline_holds,
            committed: Mark::START,
            reported_to: 0,
            acks: PendingAcks::default(),
            drain_to: None,
            until: drain_to.filter(|last| *last < u64::MAX),
            drained: None,
            ended: false,
            last_fill: Instant::now(),
            retry: Retry { reconnect, suspicious: false, missing_since: None },
        };
        let session = loop {
            match JetStreamSession::open(&intake.session_options(true)) {
                Ok(session) => break session,
                Err(error) if !keep_going() => return Err(error),
                Err(error) => intake.contested_by(error)?,
            }
            let _ = stop.wait(CONTEST_CHECK);
        };
        intake.drain_to = drain_to.map(|last| session.last.min(last));
        intake.adopt(session);
        Ok(intake)
    }

    /// Filters for the events that are collected. If the settings say everything, the subjects that the stream stores, or `>` if
    /// these are not known.
    #[must_use]
    pub fn subjects(&self) -> &[String] {
        &self.subjects
    }

    fn session_options(&self, may_create: bool) -> SessionOptions<'_> {
        SessionOptions {
            cluster: &self.cluster,
            owner: &self.owner,
            previous: self.consumer.as_deref(),
            paused: self.paused.as_deref(),
            is_contested: self.contested.is_some(),
            history: self.history.epochs(),
            may_create,
            subjects: (!self.subjects.is_empty()).then_some(&self.subjects),
            reported_to: self.reported_to,
            pipeline_holds: self.pipeline_holds,
            stop: &self.stop,
        }
    }

    /// Makes this session the current one.
    fn adopt(&mut self, session: JetStreamSession) {
        if self.epoch.as_ref().is_none_or(|epoch| *epoch != session.epoch) {
            self.handed = session.after;
            self.committed = session.after;
            self.reported_to = 0;
            self.missing.clear();
        }
        self.acks = PendingAcks::new(session.acknowledges());
        self.history.continue_epoch(&session.epoch, session.after);
        self.reports.progress.begin(session.epoch.number, session.after);
        self.reports.peer.connected(session.server());
        self.epoch = Some(Arc::clone(&session.epoch));
        self.consumer = Some(session.consumer.clone());
        self.subjects.clone_from(&session.subjects);
        self.contested = None;
        self.reports.counters.pending.set(session.pending);
        if self.drain_to.is_some() && session.is_exhausted() {
            self.drained.get_or_insert_with(Instant::now);
        }
        self.session = Some(session);
        self.take_lost_events();
        self.report_progress();
        self.retry.reconnect.opened();
        self.retry.missing_since = None;
        self.is_degraded = true;
        self.report_condition();
    }

    /// Reports how far events were passed on. Every event up to `seen` was passed on, or is not to be stored: an earlier epoch has it,
    /// the stream does not have it, or it is not among the configured subjects.
    fn report_progress(&self) {
        let seen = match (&self.unplaced, &self.session) {
            (Some(unplaced), _) => unplaced.metadata.mark.sequence - 1,
            (None, session) => {
                let passed = session.as_ref().map_or(0, |session| session.passed);
                let drained = self.drained.and(self.drain_to).unwrap_or(0);
                self.history.position().sequence.max(passed).max(drained)
            }
        };
        self.reports.progress.received(self.handed.sequence, seen);
    }

    /// Reports the session's condition. An opened session has not recovered yet: its pull requests may be refused.
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

    /// Decides whether to try again after this error. If another collector seems to use our consumer, it may be the pull
    /// request of a dead process. So this is an error only after that request must have expired.
    fn contested_by(&mut self, error: Error) -> Result<(), Error> {
        if !matches!(error, Error::Broker { fault: BrokerFault::Contested, .. }) {
            self.contested = None;
            return Err(error);
        }
        let since = *self.contested.get_or_insert_with(Instant::now);
        // The server may not have noticed yet that a process has closed its connection.
        if since.elapsed() > CLOSE_GRACE {
            self.reports.condition.degrade(error.to_string());
        }
        if since.elapsed() < pulls::EXPIRES + EXPIRY_GRACE && !self.stop.is_raised() { Ok(()) } else { Err(error) }
    }

    /// Ends the session. The next one begins at the position reached.
    fn end_session(&mut self, why: &str) {
        self.retry.reconnect.ended(why);
        self.reports.peer.lost();
        self.take_lost_events();
        if let Some(session) = self.session.take() {
            self.subjects = session.subjects;
        }
        self.retry.suspicious = true;
    }

    /// Tries once to open a new session, if it is time; waits for that at most for `wait`.
    ///
    /// # Errors
    ///
    /// Another collector uses the same identity, and goes on doing so.
    fn reopen(&mut self, batch: &mut Batch, wait: Duration) -> Result<(), Error> {
        // The stream would drop what only the last consumer stood for: the next one begins where the database is.
        if self.acks.are_required() && self.committed != self.handed {
            let _ = self.stop.wait(wait.min(COMMIT_CHECK));
            return Ok(());
        }
        if !self.retry.reconnect.wait(wait) {
            return Ok(());
        }
        let began = Instant::now();
        match self.try_reopen(batch) {
            Ok(None) => {}
            Ok(Some(session)) => {
                self.reports.counters.reconnects.add(1);
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

    /// A new session; or `None` and a defect in the batch, if the client cannot parse the next message.
    fn try_reopen(&mut self, batch: &mut Batch) -> Result<Option<JetStreamSession>, Error> {
        if self.retry.suspicious {
            if let Some(unreadable) = read_unreadable_message(&self.session_options(false))? {
                let (sequence, defect) = (unreadable.stored.mark.sequence, unreadable.defect);
                let stream = &self.cluster.config().stream;
                log::warn!(
                    event = "message.unreadable", stream = stream, sequence = sequence;
                    "broker: message {sequence} of {stream}: {defect}; read raw"
                );
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
                self.report_progress();
            }
            return Ok(IntakeState::Open);
        }
        if self.last_fill.elapsed() >= AWAY
            && let Some(session) = &mut self.session
        {
            session.was_away();
        }
        // Only the stream's answer about lost events is missing.
        let mut wait = if self.drained.is_some() { wait.min(ANSWER_CHECK) } else { wait };
        while !batch.is_full() {
            let next = match (self.unplaced.take(), &mut self.session) {
                (Some(unplaced), _) => Item::Delivery(unplaced),
                (None, Some(session)) => session.next(&mut self.received, wait, &self.stop),
                (None, None) => Item::Nothing,
            };
            let metadata = match next {
                Item::Delivery(delivery) if self.until.is_some_and(|last| delivery.metadata.mark.sequence > last) => {
                    self.drained.get_or_insert_with(Instant::now);
                    break;
                }
                Item::Delivery(delivery) => {
                    self.retry.reconnect.productive();
                    let metadata = delivery.metadata;
                    if !self.push(batch, delivery) {
                        break;
                    }
                    metadata
                }
                Item::NotCollected(delivery) => {
                    self.retry.reconnect.productive();
                    let metadata = delivery.metadata;
                    self.skip(delivery);
                    metadata
                }
                Item::Nothing => break,
                Item::Over(why) => {
                    self.end_session(&why);
                    break;
                }
            };
            // It may be large: it must not wait beside the next one.
            self.received = None;
            if self.is_drained(metadata) {
                self.drained.get_or_insert_with(Instant::now);
                break;
            }
            // Events that are stored already or not collected fill no batch. Many of them in a row must not delay a stop.
            if batch.is_empty() && self.stop.is_raised() {
                break;
            }
            wait = Duration::ZERO;
        }
        if self.unplaced.is_none() {
            // Not to be stored: it would keep the connection open.
            self.received = None;
        }
        self.acks.end_fill();
        self.take_lost_events();
        self.push_missing(batch);
        self.acknowledge_stored();
        if let Some(session) = &mut self.session {
            self.reports.counters.pending.set(session.pending);
            self.reports.counters.ack_pending.set(session.ack_pending);
            self.reports.counters.redelivered.set(session.redelivered);
            if self.drain_to.is_some() && session.is_exhausted() && self.unplaced.is_none() {
                self.drained.get_or_insert_with(Instant::now);
            }
            // While events are lost all the time, there is always another request.
            self.ended |= self.drained.is_some_and(|since| session.is_settled() || since.elapsed() >= DRAIN_GRACE);
        }
        self.report_condition();
        self.report_progress();
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
        self.acknowledge_stored();
    }
}

impl Drop for JetStreamIntake {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.close();
        }
    }
}
