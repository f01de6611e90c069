//! Where a direct recorder's events wait for a writer: laid out as the batch that they will be.
//!
//! An event is copied into the open batch under one short lock and has a number from then on. The pipeline's intake takes
//! the whole batch at once and leaves an empty one; while the writers are busy it fills up, and then `record` waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::unclaimed::UnclaimedEvents;
use super::{FailureReason, FlushError, Overflow, RecordError};
use crate::deadline;
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::{Batch, Committed, Epoch, Intake, IntakeState, Limits, Mark, Refusal, Sink};

/// Bytes of a name that an identity is stored under.
const ID: &str = "Nats-Msg-Id";

#[derive(Debug)]
pub(super) struct CommitQueue {
    epoch: Arc<Epoch>,
    state: Mutex<State>,
    /// The number up to which all is committed. Written under the state's lock.
    committed: AtomicU64,
    /// Events that nobody holds a receipt for.
    released: UnclaimedEvents,
    /// The open batch has something in it, or nothing will come.
    arrived: Condvar,
    /// It was taken.
    room: Condvar,
    /// Something was committed, or nothing will be.
    settled: Condvar,
}

#[derive(Debug)]
struct State {
    open: Batch,
    /// Where the last event stands that was handed in.
    last: Mark,
    dead_letters: usize,
    unmatched_dropped: usize,
    /// Takes nothing in any more.
    closed: bool,
    /// The pipeline has ended.
    over: bool,
    /// Why it failed.
    failure: Option<String>,
    /// Why the last try at a commit failed, while it is to be tried again.
    trouble: Option<String>,
    /// A try that has not returned: the number of its last event, and when it began.
    trying: Option<(u64, Instant)>,
    /// How many of those that are not kept were given back.
    given_back: u64,
}

impl CommitQueue {
    pub(super) fn new(epoch: Epoch, limits: Limits) -> Self {
        let state = State {
            open: Batch::new(limits),
            last: Mark::START,
            dead_letters: 0,
            unmatched_dropped: 0,
            closed: false,
            over: false,
            failure: None,
            trouble: None,
            trying: None,
            given_back: 0,
        };
        Self {
            epoch: Arc::new(epoch),
            state: Mutex::new(state),
            committed: AtomicU64::new(0),
            released: UnclaimedEvents::default(),
            arrived: Condvar::new(),
            room: Condvar::new(),
            settled: Condvar::new(),
        }
    }

    /// Takes an event in, waiting for room as `overflow` says; its number.
    pub(super) fn hand_in(&self, event: &Event, overflow: Overflow) -> Result<u64, FailureReason> {
        let size = event.size();
        let mut state = self.state.lock();
        if let (Overflow::Block(patience), false) = (overflow, state.open.has_room_for(size)) {
            let until = deadline::after(patience);
            while !state.closed && !state.over && !state.open.has_room_for(size) {
                if self.room.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
        }
        if state.closed || state.over {
            return Err(state.why_not(u64::MAX));
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
        open.push(*last, event.subject(), headers(event), event.payload());
        let number = last.sequence;
        drop(state);
        if first {
            self.arrived.notify_one();
        }
        Ok(number)
    }

    fn take(&self, batch: &mut Batch, wait: Duration) -> IntakeState {
        let mut state = self.state.lock();
        if state.open.is_empty() && !state.closed && !wait.is_zero() {
            let _ = self.arrived.wait_for(&mut state, wait);
        }
        if !state.open.is_empty() {
            if batch.is_empty() {
                std::mem::swap(batch, &mut state.open);
            } else if !batch.append(&mut state.open) {
                return IntakeState::Open;
            }
            self.room.notify_all();
        }
        if state.closed && state.open.is_empty() { IntakeState::Drained } else { IntakeState::Open }
    }

    fn begins(&self, number: u64) {
        self.state.lock().trying = Some((number, Instant::now()));
    }

    /// Hears what came of a try at the events up to this number.
    fn ends(&self, number: u64, came: &Result<Committed, Refusal>) {
        let mut state = self.state.lock();
        state.trying = None;
        match came {
            Ok(done) => {
                self.committed.store(number, Ordering::Release);
                state.trouble = None;
                state.dead_letters += done.dead_letters;
                state.unmatched_dropped += done.unmatched_dropped;
                let is_idle = state.last.sequence == number;
                drop(state);
                self.settled.notify_all();
                if is_idle {
                    self.released.forget(number);
                }
            }
            Err(Refusal::Fatal(error)) => drop(state.failure.get_or_insert_with(|| error.to_string())),
            Err(Refusal::Retry(reason)) => state.trouble = Some(reason.clone()),
        }
    }

    /// Hears why the pipeline ended.
    pub(super) fn fail(&self, error: &Error) {
        self.state.lock().failure.get_or_insert_with(|| error.to_string());
    }

    /// Hears that the receipt of an event is gone.
    pub(super) fn release(&self, number: u64, event: Event) {
        let committed = self.committed.load(Ordering::Acquire);
        if number > committed {
            self.released.keep(number, event, committed);
        }
    }

    fn end(&self) {
        let mut state = self.state.lock();
        state.over = true;
        state.closed = true;
        self.wake(&state);
    }

    /// Takes nothing in any more. What is in it is still committed.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.wake(&state);
    }

    fn wake(&self, _state: &MutexGuard<'_, State>) {
        self.arrived.notify_all();
        self.room.notify_all();
        self.settled.notify_all();
    }

    /// How many of what was committed are dead letters.
    pub(super) fn dead_letters(&self) -> u64 {
        self.state.lock().dead_letters as u64
    }

    /// How many of what was committed were dropped, for no route takes them.
    pub(super) fn unmatched_dropped(&self) -> u64 {
        self.state.lock().unmatched_dropped as u64
    }

    fn is_committed(&self, number: u64) -> bool {
        self.committed.load(Ordering::Acquire) >= number
    }

    /// Whether it is known what became of an event.
    pub(super) fn is_settled(&self, number: u64) -> bool {
        self.is_committed(number) || self.state.lock().over
    }

    /// Blocks until the event is committed, or known not to be; `None` when the time is over.
    pub(super) fn wait_for(&self, number: u64, until: Instant) -> Option<Result<(), FailureReason>> {
        let mut state = self.state.lock();
        while !self.is_committed(number) && !state.over {
            if self.settled.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        if self.is_committed(number) {
            return Some(Ok(()));
        }
        state.over.then(|| Err(state.why_not(number)))
    }

    /// Hears that a receipt gave its event back.
    pub(super) fn gave_back(&self) {
        self.state.lock().given_back += 1;
    }

    /// Blocks until everything handed in so far is committed, or known not to be.
    pub(super) fn flush(&self, until: Instant) -> Result<(), FlushError> {
        let last = self.state.lock().last.sequence;
        let _ = self.wait_for(last, until);
        self.outcome(last)
    }

    /// Gives up what is not committed: nobody waits for it any more.
    pub(super) fn abandon(&self) -> Result<(), FlushError> {
        self.end();
        let last = self.state.lock().last.sequence;
        self.outcome(last)
    }

    /// What became of the events up to this number.
    fn outcome(&self, last: u64) -> Result<(), FlushError> {
        let mut state = self.state.lock();
        let committed = self.committed.load(Ordering::Acquire);
        if state.over {
            let unkept = self.released.take(committed).into_iter();
            let failed: Vec<_> = unkept
                .map(|(number, event)| RecordError { event: Box::new(event), reason: state.why_not(number) })
                .collect();
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
        let over = || state.over.then(|| state.why_not(last).to_string());
        let trouble = state.failure.clone().or_else(|| state.trouble.clone()).or_else(over);
        Err(FlushError::Deadline { waiting, trouble })
    }
}

impl State {
    /// Why an event was not committed.
    fn why_not(&self, number: u64) -> FailureReason {
        match (&self.failure, &self.trying, &self.trouble) {
            (Some(failure), _, _) => FailureReason::Database(failure.clone()),
            (None, Some((last, began)), _) if number <= *last => FailureReason::Unconfirmed(began.elapsed()),
            (None, _, Some(trouble)) => FailureReason::Database(trouble.clone()),
            (None, _, None) => FailureReason::Closed,
        }
    }
}

/// Now, in nanoseconds since 1970.
pub(super) fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// The headers as they are stored: with the identity, where one was given.
pub(super) fn headers(event: &Event) -> impl Iterator<Item = (&str, &str)> {
    let id = event.given_id().map(|id| (ID, id));
    id.into_iter().chain(event.headers().iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The pipeline's end of a queue.
pub(super) struct CommitQueueIntake(pub(super) Arc<CommitQueue>);

impl Intake for CommitQueueIntake {
    fn fill(&mut self, batch: &mut Batch, wait: Duration) -> Result<IntakeState, Error> {
        Ok(self.0.take(batch, wait))
    }

    fn drain(&mut self, batch: &mut Batch) -> Result<IntakeState, Error> {
        self.0.close();
        Ok(self.0.take(batch, Duration::ZERO))
    }
}

/// Whichever way the pipeline ends, nobody waits for it any more.
impl Drop for CommitQueueIntake {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A sink that tells a queue what it committed, at once.
pub(super) struct NotifyingSink<S> {
    pub(super) sink: S,
    pub(super) queue: Arc<CommitQueue>,
}

impl<S: Sink> Sink for NotifyingSink<S> {
    fn prepare(&mut self, batch: &Batch) {
        self.sink.prepare(batch);
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        let last = batch.after().sequence;
        self.queue.begins(last);
        let came = self.sink.commit(batch);
        self.queue.ends(last, &came);
        came
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Pipeline, Settings, Shared};
    use crossbeam_channel::{Receiver, Sender};

    /// Says when a commit begins, and goes on when it is told what comes of it.
    struct Told {
        begun: Sender<usize>,
        outcome: Receiver<Result<Committed, Refusal>>,
    }

    impl Sink for Told {
        fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
            self.begun.send(batch.len()).expect("heard");
            self.outcome.recv().unwrap_or(Err(Refusal::Retry("nobody says".into())))
        }
    }

    struct Scene {
        queue: Arc<CommitQueue>,
        pipeline: Pipeline,
        begun: Receiver<usize>,
        outcomes: Sender<Result<Committed, Refusal>>,
    }

    fn scene() -> Scene {
        let settings = Settings { limits: Limits { events: 10, bytes: 1_000 }, linger: Duration::ZERO };
        let queue = Arc::new(CommitQueue::new(Epoch::local(1, "now".into()), settings.limits));
        let (to_test, begun) = crossbeam_channel::unbounded();
        let (outcomes, from_test) = crossbeam_channel::unbounded();
        let sinks =
            vec![NotifyingSink { sink: Told { begun: to_test, outcome: from_test }, queue: Arc::clone(&queue) }];
        let pipeline = Pipeline::start(CommitQueueIntake(Arc::clone(&queue)), sinks, settings, Shared::new("sink"))
            .expect("starts");
        Scene { queue, pipeline, begun, outcomes }
    }

    impl Scene {
        /// Hands an event in whose receipt nobody keeps.
        fn record(&self, payload: &str) -> u64 {
            let event = Event::new("a", payload);
            let number = self.queue.hand_in(&event, Overflow::Refuse).expect("there is room");
            self.queue.release(number, event);
            number
        }
    }

    /// Payloads and reasons.
    fn failed(error: FlushError) -> Vec<(String, FailureReason)> {
        let FlushError::Failed { failed, .. } = error else { panic!("{error}") };
        let payload = |event: &Event| String::from_utf8_lossy(event.payload()).into_owned();
        failed.into_iter().map(|error| (payload(&error.event), error.reason)).collect()
    }

    #[test]
    fn what_a_hanging_commit_has_comes_back_as_unconfirmed() {
        let scene = scene();
        scene.record("hangs");
        assert_eq!(scene.begun.recv(), Ok(1));
        scene.record("waits");
        let until = Instant::now() + Duration::from_millis(20);
        assert!(matches!(scene.queue.flush(until), Err(FlushError::Deadline { waiting: 2, trouble: None })));
        scene.queue.close();
        assert!(scene.pipeline.stop(Duration::from_millis(600)).is_err(), "it hangs");
        let came_back = failed(scene.queue.abandon().expect_err("not all is committed"));
        let [(hangs, FailureReason::Unconfirmed(_)), (waits, FailureReason::Closed)] = &came_back[..] else {
            panic!("{came_back:?}")
        };
        assert_eq!((hangs.as_str(), waits.as_str()), ("hangs", "waits"));
        // It has succeeded after all.
        scene.outcomes.send(Ok(Committed::default())).expect("it waits");
        // Its receipt says so as soon as the writer has.
        let until = Instant::now() + Duration::from_mins(1);
        while scene.queue.wait_for(1, until) != Some(Ok(())) {
            assert!(Instant::now() < until, "it stays unconfirmed");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_failed_comes_back_once_with_the_cause() {
        let scene = scene();
        let kept = scene.record("kept");
        scene.outcomes.send(Ok(Committed::default())).expect("it works");
        assert_eq!(scene.queue.wait_for(kept, Instant::now() + Duration::from_mins(1)), Some(Ok(())));
        scene.record("one");
        let held = scene.queue.hand_in(&Event::new("a", "held"), Overflow::Refuse).expect("there is room");
        scene.record("two");
        scene.outcomes.send(Err(Refusal::Retry("it is locked".into()))).expect("it works");
        scene.outcomes.send(Err(Refusal::Fatal(Error::config("x", "is gone")))).expect("it works");
        let reason = || FailureReason::Database("configuration: x: is gone".into());
        let lost = scene.queue.flush(Instant::now() + Duration::from_mins(1)).expect_err("it is gone");
        assert_eq!(failed(lost), [("one".into(), reason()), ("two".into(), reason())]);
        // The receipt of the third has it.
        let again = scene.queue.flush(Instant::now() + Duration::from_mins(1)).expect_err("it is gone").to_string();
        assert_eq!(again, "1 events not confirmed yet: configuration: x: is gone");
        assert_eq!(scene.queue.wait_for(held, Instant::now()), Some(Err(reason())));
        scene.queue.release(held, Event::new("a", "held"));
        let dropped = scene.queue.flush(Instant::now()).expect_err("it is gone");
        assert_eq!(failed(dropped), [("held".into(), reason())]);
        assert!(scene.queue.flush(Instant::now()).is_ok(), "all was given back");
    }
}
