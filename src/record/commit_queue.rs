//! The events of a [`DirectRecorder`](super::DirectRecorder) or a [`SpooledRecorder`](super::SpooledRecorder) that are not committed yet,
//! in the batch that a writer will commit.
//!
//! An event is copied into the open batch under one short lock and gets a number. The pipeline's intake takes the whole batch
//! and leaves an empty one. While the writers are busy the open batch fills up; when it is full, `record` waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::unclaimed::UnclaimedEvents;
use super::{FailureReason, FlushError, Overflow, RecordError};
use crate::deadline;
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::{Batch, Committed, Condition, Epoch, Intake, IntakeState, Limits, Mark, Problem, Refusal, Sink};
use crate::unix_time::now_ns;

pub(super) struct CommitQueue {
    epoch: Arc<Epoch>,
    state: Mutex<State>,
    /// All events up to this number are committed. Written under the state's lock.
    committed: AtomicU64,
    /// Events whose receipts were dropped.
    unclaimed: UnclaimedEvents,
    /// The open batch has an event, or no more will come.
    has_events: Condvar,
    /// The open batch was taken.
    has_room: Condvar,
    /// Events were committed, or no more will be.
    settled: Condvar,
}

#[derive(Debug)]
struct State {
    open: Batch,
    /// The mark of the last event that was enqueued.
    last: Mark,
    dead_letters: usize,
    unmatched_dropped: usize,
    /// No more events are accepted.
    closed: bool,
    /// How many of the pipeline's parts have not ended: the intake and the sinks.
    parts: usize,
    /// The pipeline has ended, or no thread waits for it any more.
    ended: bool,
    /// The events that are not committed were given up. Of them, only those of the current attempt may still be committed.
    abandoned: bool,
    /// Why the pipeline failed.
    failure: Option<Problem>,
    /// Why the last attempt to commit failed, while it will be repeated.
    trouble: Option<Problem>,
    /// An attempt to commit that has not returned: the number of its last event, and when it began.
    attempt: Option<(u64, Instant)>,
    /// How many of the events that are not committed were given back.
    given_back: u64,
}

/// Not its events: a receipt's `Debug` would show those of all others.
impl fmt::Debug for CommitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitQueue").field("committed", &self.committed).finish_non_exhaustive()
    }
}

impl CommitQueue {
    pub(super) fn new(epoch: Epoch, limits: Limits) -> Self {
        let state = State {
            open: Batch::new(limits),
            last: Mark::START,
            dead_letters: 0,
            unmatched_dropped: 0,
            closed: false,
            parts: 0,
            ended: false,
            abandoned: false,
            failure: None,
            trouble: None,
            attempt: None,
            given_back: 0,
        };
        Self {
            epoch: Arc::new(epoch),
            state: Mutex::new(state),
            committed: AtomicU64::new(0),
            unclaimed: UnclaimedEvents::default(),
            has_events: Condvar::new(),
            has_room: Condvar::new(),
            settled: Condvar::new(),
        }
    }

    /// Adds an event and returns its number. Where there is no room, waits as `overflow` sets. Calls `taken` with the number, before
    /// the event can be committed.
    pub(super) fn enqueue(
        &self,
        event: &Event,
        overflow: Overflow,
        taken: impl FnOnce(u64),
    ) -> Result<u64, FailureReason> {
        let size = event.size();
        let mut state = self.state.lock();
        if let (Overflow::Block(timeout), false) = (overflow, state.open.has_room_for(size)) {
            let until = deadline::after(timeout);
            while !state.closed && !state.ended && !state.open.has_room_for(size) {
                if self.has_room.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
        }
        if state.closed || state.ended {
            return Err(state.closed_reason());
        }
        if !state.open.has_room_for(size) {
            let (events, bytes) = (state.open.len(), state.open.bytes());
            return Err(FailureReason::BufferFull { events, bytes });
        }
        let State { open, last, .. } = &mut *state;
        let first = open.is_empty();
        if first {
            open.begin(Arc::clone(&self.epoch), *last);
        }
        *last = Mark { sequence: last.sequence + 1, published_ns: now_ns() };
        open.push(*last, event.subject(), event.all_headers(), event.payload());
        let number = last.sequence;
        taken(number);
        drop(state);
        if first {
            self.has_events.notify_one();
        }
        Ok(number)
    }

    /// Moves the open batch's events into `batch`. Where there are none, waits for the first, at most for `wait`.
    fn take_batch(&self, batch: &mut Batch, wait: Duration) -> IntakeState {
        let mut state = self.state.lock();
        if state.open.is_empty() && !state.closed && !wait.is_zero() {
            let _ = self.has_events.wait_for(&mut state, wait);
        }
        if !state.open.is_empty() {
            if batch.is_empty() {
                std::mem::swap(batch, &mut state.open);
            } else if !batch.append(&mut state.open) {
                return IntakeState::Open;
            }
            self.has_room.notify_all();
        }
        if state.closed && state.open.is_empty() { IntakeState::Drained } else { IntakeState::Open }
    }

    /// Notes that a writer begins to commit the events up to this number. `false` where it must not: they were given back as not stored.
    #[must_use]
    fn attempt_started(&self, number: u64) -> bool {
        let mut state = self.state.lock();
        if !state.abandoned {
            state.attempt = Some((number, Instant::now()));
        }
        !state.abandoned
    }

    /// Notes the result of an attempt to commit the events up to this number.
    fn attempt_finished(&self, number: u64, result: &Result<Committed, Refusal>) {
        let mut state = self.state.lock();
        state.attempt = None;
        match result {
            Ok(done) => {
                self.committed.store(number, Ordering::Release);
                state.trouble = None;
                state.dead_letters += done.dead_letters;
                state.unmatched_dropped += done.unmatched_dropped + done.markers_skipped;
                let is_idle = state.last.sequence == number;
                drop(state);
                self.settled.notify_all();
                if is_idle {
                    self.unclaimed.forget(number);
                }
            }
            Err(Refusal::Fatal(error)) => {
                state.failure.get_or_insert_with(|| Problem::from(error));
            }
            Err(Refusal::Retry(problem)) => state.trouble = Some(problem.clone()),
            Err(Refusal::Closed) => {}
        }
    }

    /// Notes why the pipeline ended.
    pub(super) fn set_failure(&self, error: &Error) {
        self.state.lock().failure.get_or_insert_with(|| Problem::from(error));
    }

    /// Notes that an event's receipt was dropped. If the event is not committed, a flush gives it back.
    pub(super) fn receipt_dropped(&self, number: u64, event: Event) {
        let committed = self.committed.load(Ordering::Acquire);
        if number > committed {
            self.unclaimed.keep(number, event, committed);
        }
    }

    /// The intake of the pipeline that commits the events.
    pub(super) fn intake(self: &Arc<Self>) -> CommitQueueIntake {
        CommitQueueIntake { queue: Arc::clone(self), _part: PipelinePart::of(self) }
    }

    /// A sink of that pipeline, which notifies the queue of each attempt to commit.
    pub(super) fn notified_by<S>(self: &Arc<Self>, sink: S, condition: &Condition) -> NotifyingSink<S> {
        NotifyingSink { sink, queue: Arc::clone(self), condition: condition.clone(), _part: PipelinePart::of(self) }
    }

    /// Accepts no more events. The events in the queue are still committed.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.notify_waiters(&state);
    }

    fn notify_waiters(&self, _locked: &MutexGuard<'_, State>) {
        self.has_events.notify_all();
        self.has_room.notify_all();
        self.settled.notify_all();
    }

    /// What prevents events from being committed, if anything.
    pub(super) fn trouble(&self) -> Option<String> {
        self.state.lock().trouble()
    }

    /// How many of the committed events are dead letters.
    pub(super) fn dead_letters(&self) -> u64 {
        self.state.lock().dead_letters as u64
    }

    /// How many of the committed events were dropped because no route takes them.
    pub(super) fn unmatched_dropped(&self) -> u64 {
        self.state.lock().unmatched_dropped as u64
    }

    fn is_committed(&self, number: u64) -> bool {
        self.committed.load(Ordering::Acquire) >= number
    }

    /// Whether the event is committed, or will not be.
    pub(super) fn is_settled(&self, number: u64) -> bool {
        self.is_committed(number) || self.state.lock().ended
    }

    /// Blocks until the event is committed, or will not be. `None` when the time is over.
    pub(super) fn wait_for(&self, number: u64, until: Instant) -> Option<Result<(), FailureReason>> {
        let mut state = self.state.lock();
        while !self.is_committed(number) && !state.ended {
            if self.settled.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        if self.is_committed(number) {
            return Some(Ok(()));
        }
        state.ended.then(|| Err(state.failure_reason(number)))
    }

    /// Notes that a receipt gave its event back.
    pub(super) fn given_back(&self) {
        self.state.lock().given_back += 1;
    }

    /// The number of the last event that was enqueued; 0 before the first.
    pub(super) fn last_number(&self) -> u64 {
        self.state.lock().last.sequence
    }

    /// Why no more events are accepted.
    pub(super) fn closed_reason(&self) -> FailureReason {
        self.state.lock().closed_reason()
    }

    /// Blocks until every event enqueued so far is committed, or will not be.
    pub(super) fn flush(&self, until: Instant) -> Result<(), FlushError> {
        let last = self.state.lock().last.sequence;
        let _ = self.wait_for(last, until);
        self.outcome(last)
    }

    /// Gives up the events that are not committed. No thread waits for them any more.
    pub(super) fn abandon(&self) -> Result<(), FlushError> {
        let mut state = self.state.lock();
        (state.closed, state.abandoned, state.ended) = (true, true, true);
        self.notify_waiters(&state);
        let last = state.last.sequence;
        drop(state);
        self.outcome(last)
    }

    /// The outcome of the events up to this number.
    fn outcome(&self, last: u64) -> Result<(), FlushError> {
        let mut state = self.state.lock();
        let committed = self.committed.load(Ordering::Acquire);
        if state.ended {
            let uncommitted = self.unclaimed.take(committed).into_iter();
            let failed: Vec<_> =
                uncommitted.map(|(number, event)| RecordError::new(event, state.failure_reason(number))).collect();
            state.given_back += failed.len() as u64;
            if !failed.is_empty() {
                return Err(FlushError::Failed { failed, trouble: None });
            }
        }
        let waiting = last.saturating_sub(committed).saturating_sub(state.given_back);
        if waiting == 0 {
            return Ok(());
        }
        let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        let reason = || state.ended.then(|| state.failure_reason(last).to_string());
        let trouble = state.trouble().or_else(reason);
        Err(FlushError::Deadline { waiting, trouble })
    }
}

impl State {
    /// What prevents events from being committed, if anything.
    fn trouble(&self) -> Option<String> {
        self.failure.as_ref().or(self.trouble.as_ref()).map(Problem::to_string)
    }

    /// Why no more events are accepted.
    fn closed_reason(&self) -> FailureReason {
        self.failure.clone().map_or(FailureReason::Closed, FailureReason::from)
    }

    /// Why an event was not committed.
    fn failure_reason(&self, number: u64) -> FailureReason {
        match (&self.failure, &self.attempt, &self.trouble) {
            (Some(failure), _, _) => FailureReason::from(failure.clone()),
            (None, Some((last, began)), _) if number <= *last => FailureReason::Unconfirmed(began.elapsed()),
            (None, _, Some(trouble)) => FailureReason::from(trouble.clone()),
            (None, _, None) => FailureReason::Closed,
        }
    }
}

/// Dropped when the intake or a sink has ended, panics included. After the last one nothing more is committed, and no thread goes on
/// waiting for a commit. The intake alone may end before: at the end of a stop its writers still commit what they have.
struct PipelinePart(Arc<CommitQueue>);

impl PipelinePart {
    fn of(queue: &Arc<CommitQueue>) -> Self {
        queue.state.lock().parts += 1;
        Self(Arc::clone(queue))
    }
}

impl Drop for PipelinePart {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.parts -= 1;
        state.closed = true;
        state.ended |= state.parts == 0;
        self.0.notify_waiters(&state);
    }
}

/// The intake of a pipeline that commits the queue's events.
pub(super) struct CommitQueueIntake {
    queue: Arc<CommitQueue>,
    _part: PipelinePart,
}

impl Intake for CommitQueueIntake {
    fn fill(&mut self, batch: &mut Batch, wait: Duration) -> Result<IntakeState, Error> {
        Ok(self.queue.take_batch(batch, wait))
    }

    fn drain(&mut self, batch: &mut Batch) -> Result<IntakeState, Error> {
        self.queue.close();
        Ok(self.queue.take_batch(batch, Duration::ZERO))
    }
}

/// A sink that notifies a commit queue of each attempt to commit.
pub(super) struct NotifyingSink<S> {
    sink: S,
    queue: Arc<CommitQueue>,
    condition: Condition,
    _part: PipelinePart,
}

impl<S: Sink> Sink for NotifyingSink<S> {
    fn prepare(&mut self, batch: &Batch) {
        self.sink.prepare(batch);
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        let last = batch.after().sequence;
        if !self.queue.attempt_started(last) {
            return Err(Refusal::Closed);
        }
        let result = self.sink.commit(batch);
        // The pipeline ends with this error, and the recorder stays as it is.
        if let Err(Refusal::Fatal(error)) = &result {
            self.condition.degrade(error.to_string());
        }
        self.queue.attempt_finished(last, &result);
        result
    }
}

#[cfg(test)]
mod tests;
