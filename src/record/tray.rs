//! Where a direct recorder's events wait for a writer: laid out as the batch that they will be.
//!
//! An event is copied into the open batch under one short lock and has a number from then on. The pipeline's intake takes
//! the whole batch at once and leaves an empty one; while the writers are busy it fills up, and then `record` waits.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{FlushError, Overflow, Reason};
use crate::deadline;
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::{Batch, Committed, Epoch, Intake, Limits, Mark, Refusal, Sink, Supply};

/// Bytes of a name that an identity is stored under.
const ID: &str = "Nats-Msg-Id";

#[derive(Debug)]
pub(super) struct Tray {
    epoch: Arc<Epoch>,
    state: Mutex<State>,
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
    committed: u64,
    dead_letters: usize,
    unmatched_dropped: usize,
    /// Takes nothing in any more.
    closed: bool,
    /// The pipeline has ended.
    over: bool,
    /// Why it failed.
    failure: Option<String>,
}

impl Tray {
    pub(super) fn new(epoch: Epoch, limits: Limits) -> Self {
        let state = State {
            open: Batch::new(limits),
            last: Mark::START,
            committed: 0,
            dead_letters: 0,
            unmatched_dropped: 0,
            closed: false,
            over: false,
            failure: None,
        };
        Self {
            epoch: Arc::new(epoch),
            state: Mutex::new(state),
            arrived: Condvar::new(),
            room: Condvar::new(),
            settled: Condvar::new(),
        }
    }

    /// Takes an event in, waiting for room as `overflow` says; its number.
    pub(super) fn hand_in(&self, event: &Event, overflow: Overflow) -> Result<u64, Reason> {
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
            return Err(state.why_over());
        }
        if !state.open.has_room_for(size) {
            let (events, bytes) = (state.open.len(), state.open.bytes());
            return Err(Reason::BufferFull { events, bytes });
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

    fn take(&self, batch: &mut Batch, wait: Duration) -> Supply {
        let mut state = self.state.lock();
        if state.open.is_empty() && !state.closed && !wait.is_zero() {
            let _ = self.arrived.wait_for(&mut state, wait);
        }
        if !state.open.is_empty() {
            if batch.is_empty() {
                std::mem::swap(batch, &mut state.open);
            } else if !batch.append(&mut state.open) {
                return Supply::Flowing;
            }
            self.room.notify_all();
        }
        if state.closed && state.open.is_empty() { Supply::Ended } else { Supply::Flowing }
    }

    fn committed(&self, number: u64, done: &Committed) {
        let mut state = self.state.lock();
        state.committed = number;
        state.dead_letters += done.dead_letters;
        state.unmatched_dropped += done.unmatched_dropped;
        drop(state);
        self.settled.notify_all();
    }

    fn fail(&self, why: String) {
        self.state.lock().failure.get_or_insert(why);
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

    /// Whether it is known what became of an event.
    pub(super) fn is_settled(&self, number: u64) -> bool {
        let state = self.state.lock();
        state.committed >= number || state.over
    }

    /// Blocks until the event is committed, or known not to be; `None` when the time is over.
    pub(super) fn wait_for(&self, number: u64, until: Instant) -> Option<Result<(), Reason>> {
        let mut state = self.state.lock();
        while state.committed < number && !state.over {
            if self.settled.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        if state.committed >= number {
            return Some(Ok(()));
        }
        state.over.then(|| Err(state.why_over()))
    }

    /// Blocks until everything handed in so far is committed.
    pub(super) fn flush(&self, until: Instant, trouble: impl FnOnce() -> Option<String>) -> Result<(), FlushError> {
        let last = self.state.lock().last.sequence;
        match self.wait_for(last, until) {
            Some(Ok(())) => Ok(()),
            other => {
                let waiting = usize::try_from(last - self.state.lock().committed).unwrap_or(usize::MAX);
                let trouble = other.and_then(Result::err).map(|reason| reason.to_string()).or_else(trouble);
                Err(FlushError::Deadline { waiting, trouble })
            }
        }
    }
}

impl State {
    fn why_over(&self) -> Reason {
        self.failure.clone().map_or(Reason::Closed, Reason::Database)
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

/// The pipeline's end of a tray.
pub(super) struct FromTray(pub(super) Arc<Tray>);

impl Intake for FromTray {
    fn fill(&mut self, batch: &mut Batch, wait: Duration) -> Result<Supply, Error> {
        Ok(self.0.take(batch, wait))
    }

    fn rest(&mut self, batch: &mut Batch) -> Result<Supply, Error> {
        self.0.close();
        Ok(self.0.take(batch, Duration::ZERO))
    }
}

/// Whichever way the pipeline ends, nobody waits for it any more.
impl Drop for FromTray {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A sink that tells a tray what it committed, at once.
pub(super) struct Telling<S> {
    pub(super) sink: S,
    pub(super) tray: Arc<Tray>,
}

impl<S: Sink> Sink for Telling<S> {
    fn prepare(&mut self, batch: &Batch) {
        self.sink.prepare(batch);
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        let done = self.sink.commit(batch);
        match &done {
            Ok(done) => self.tray.committed(batch.after().sequence, done),
            Err(Refusal::Fatal(error)) => self.tray.fail(error.to_string()),
            Err(Refusal::Retry(_)) => {}
        }
        done
    }
}
