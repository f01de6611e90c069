//! Where a recorder's events wait: for room on the connection, and for the stream's word, or the server's in core NATS.
//!
//! Events are numbered as they are handed over; the unsettled ones stand here by their numbers and are sent in that order,
//! as far as the window lets them. One that is refused for now is sent again a moment later, alone; a new connection
//! begins again with all of them.

mod closing;
mod entry;
mod source;
mod unconfirmed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex, MutexGuard};

use entry::Waiting;
pub(super) use entry::{Entry, Outcome};
use source::{SendQueueSource, carried};

use super::failures::Failures;
use super::{Destination, FailureReason, Overflow, RecordError, RecordMetadata, RecorderCounts};
use crate::broker::{Refused, Taken, Verdict, is_denied, wire_size};
use crate::deadline;
use crate::event::Event;

/// How long to wait before sending again what was refused for now.
const AGAIN_PAUSE: Duration = Duration::from_millis(250);

/// The bounds of what may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) events: usize,
    pub(super) bytes: usize,
    /// Sent and not settled.
    pub(super) window: usize,
    /// Bytes sent and not settled, unless a single event is larger.
    pub(super) window_bytes: usize,
    /// How long after it was sent first an event may be sent again, until [`SendQueue::give_up_unconfirmed`] says otherwise.
    pub(super) repeatable: Duration,
    /// Nothing is heard of what is sent until all of it has arrived, and this is how long that may take: no more is sent than
    /// a quarter of it carries. Without it each event is answered by itself, and the window stays as it is.
    pub(super) patience: Option<Duration>,
}

/// The window before anything is known of a connection that only answers when all has arrived.
const FIRST_WINDOW: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct SendQueue {
    bounds: Bounds,
    state: Mutex<State>,
    /// There is something to send, or nothing will be.
    to_send: Condvar,
    /// There is room.
    room: Condvar,
    /// Something was settled.
    settled: Condvar,
    wake: (Sender<()>, Receiver<()>),
    /// The connection has something else to do than to send events. Set under the lock.
    interrupted: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// Unsettled events by number.
    waiting: BTreeMap<u64, Waiting>,
    /// The number of the next event that comes.
    next: u64,
    /// Those before this have been sent on this connection, but for those in `again`.
    to_send: u64,
    /// What was refused for now, and from when on to send it again.
    again: BTreeSet<u64>,
    again_from: Instant,
    /// Events and bytes sent on this connection and not settled.
    under_way: (usize, usize),
    /// And how many bytes that may be.
    window_bytes: usize,
    /// The connection has nothing to send and sleeps until there is something.
    starved: bool,
    bytes: usize,
    /// The connection that may take events; older ones get none.
    connection: u64,
    /// How long after it was sent first an event may be sent again.
    repeatable: Duration,
    limit: usize,
    closed: bool,
    /// The stream has kept an event before.
    has_kept_any: bool,
    /// Where the stream has kept the last one: its name, which is `None` once there are several, and the highest sequence.
    reached: (Option<String>, u64),
    failures: Failures,
    /// What became of the events that are settled.
    counts: RecorderCounts,
    trouble: Option<String>,
}

impl SendQueue {
    /// `limit` is the largest event that the server takes.
    pub(super) fn new(bounds: Bounds, limit: usize) -> Self {
        Self {
            bounds,
            state: Mutex::new(State {
                waiting: BTreeMap::new(),
                next: 0,
                to_send: 0,
                again: BTreeSet::new(),
                again_from: Instant::now(),
                under_way: (0, 0),
                window_bytes: bounds.patience.map_or(bounds.window_bytes, |_| bounds.window_bytes.min(FIRST_WINDOW)),
                starved: false,
                bytes: 0,
                connection: 0,
                repeatable: bounds.repeatable,
                limit,
                closed: false,
                has_kept_any: false,
                reached: (None, 0),
                failures: Failures::within(bounds.events, bounds.bytes),
                counts: RecorderCounts::default(),
                trouble: None,
            }),
            to_send: Condvar::new(),
            room: Condvar::new(),
            settled: Condvar::new(),
            wake: crossbeam_channel::bounded(1),
            interrupted: AtomicBool::new(false),
        }
    }

    /// Takes an event in, waiting for room as `overflow` says.
    pub(super) fn hand_in(&self, event: Event, overflow: Overflow) -> Result<Arc<Entry>, RecordError> {
        let refuse = |event, reason| Err(RecordError { event: Box::new(event), reason });
        let size = event.size();
        let mut state = self.state.lock();
        if let Some(reason) = too_large(&event, state.limit) {
            return refuse(event, reason);
        }
        if let Overflow::Block(patience) = overflow {
            let until = deadline::after(patience);
            while !state.closed && !self.has_room(&state, size) {
                if self.room.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
        }
        if state.closed {
            return refuse(event, FailureReason::Closed);
        }
        if !self.has_room(&state, size) {
            let (events, bytes) = (state.waiting.len(), state.bytes);
            return refuse(event, FailureReason::BufferFull { events, bytes });
        }
        let number = state.next;
        state.next += 1;
        let entry = Arc::new(Entry {
            event: Arc::new(event),
            outcome: OnceLock::new(),
            released: AtomicBool::new(false),
            told: AtomicBool::new(false),
        });
        let waiting = Waiting { entry: Arc::clone(&entry), sent: None, under_way: false, no_stream: None };
        state.waiting.insert(number, waiting);
        state.bytes += size;
        if std::mem::take(&mut state.starved) {
            self.to_send.notify_one();
        }
        Ok(entry)
    }

    /// An empty buffer takes any event, however large.
    fn has_room(&self, state: &State, size: usize) -> bool {
        state.waiting.is_empty()
            || (state.waiting.len() < self.bounds.events && state.bytes + size <= self.bounds.bytes)
    }

    /// Begins to give events to a new connection, the unsettled ones first, and to no other.
    pub(super) fn connect(self: &Arc<Self>, max_payload: usize) -> SendQueueSource {
        let mut state = self.state.lock();
        state.connection += 1;
        state.to_send = 0;
        state.again.clear();
        state.under_way = (0, 0);
        for waiting in state.waiting.values_mut() {
            waiting.under_way = false;
        }
        if max_payload < state.limit {
            Self::fail(&mut state, |waiting| too_large(&waiting.entry.event, max_payload));
        }
        state.limit = max_payload;
        let connection = state.connection;
        self.to_send.notify_all();
        leave(state);
        SendQueueSource { queue: Arc::clone(self), connection }
    }

    /// Gives no more events to the present connection.
    pub(super) fn disconnect(&self, trouble: String) {
        let mut state = self.state.lock();
        state.connection += 1;
        // An end that was asked for is no trouble.
        if !state.is_done() {
            state.trouble = Some(trouble);
        }
        self.to_send.notify_all();
    }

    /// Writes down what the stream says. That no stream takes an event is believed after `patience`: a server that has
    /// just started says so too.
    pub(super) fn settle(&self, verdicts: Vec<Verdict>, patience: Duration) -> Settled {
        if verdicts.is_empty() {
            return Settled::AsSaid;
        }
        let mut again = Vec::new();
        let mut kept = false;
        let mut answered = 0;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let waited = state.oldest_wait();
        for Verdict { number, result } in verdicts {
            let Some(waiting) = state.waiting.get_mut(&number) else { continue };
            let outcome = match result {
                Ok(taken) => {
                    kept = true;
                    let destination = match taken {
                        Taken::ByStream { stream, sequence, duplicate } => {
                            unconfirmed::reached(&mut state.reached, &stream, sequence);
                            Destination::Stream { stream, sequence, duplicate }
                        }
                        Taken::ByServer => Destination::Broker,
                    };
                    Outcome::Kept(RecordMetadata { destination })
                }
                Err(Refused::NoStream) if waiting.no_stream.get_or_insert_with(Instant::now).elapsed() < patience => {
                    state.send_again(number);
                    again.push((number, "no stream takes the event's subject at the moment".into()));
                    continue;
                }
                Err(Refused::ForNow(what)) => {
                    state.send_again(number);
                    again.push((number, what));
                    continue;
                }
                Err(Refused::NoStream) => Outcome::Failed(waiting.reason(FailureReason::NoStream)),
                Err(Refused::ByServer(what)) => Outcome::Failed(waiting.reason(FailureReason::Refused(what))),
            };
            answered += if waiting.under_way { waiting.entry.event.size() } else { 0 };
            Self::settle_one(state, number, outcome);
        }
        if let (Some(patience), Some(waited)) = (self.bounds.patience, waited) {
            state.window_bytes = carried(answered, waited, patience / 4).clamp(1, self.bounds.window_bytes);
        }
        state.has_kept_any |= kept;
        // What was refused and then taken is settled.
        let refused = again.into_iter().rev().find(|(number, _)| state.waiting.contains_key(number));
        let settled = refused.map_or(Settled::AsSaid, |(_, reason)| Settled::Again(reason));
        match &settled {
            Settled::Again(trouble) => state.trouble = Some(trouble.clone()),
            Settled::AsSaid if kept => state.trouble = None,
            Settled::AsSaid => {}
        }
        self.tell();
        leave(guard);
        settled
    }

    /// Gives up on events that were sent first longer ago than the stream recognises a repetition, which in core NATS nobody
    /// does: called between two connections, for those events cannot be sent again.
    pub(super) fn give_up_unconfirmed(&self, window: Duration) {
        let mut state = self.state.lock();
        state.repeatable = window;
        Self::fail(&mut state, |waiting| {
            let sent = waiting.sent.filter(|sent| sent.is_beyond(window))?;
            Some(FailureReason::Unconfirmed(if window.is_zero() { sent.first.elapsed() } else { window }))
        });
        self.tell();
        leave(state);
    }

    /// Has the connection look what else there is to do.
    pub(super) fn interrupt(&self) {
        let _state = self.state.lock();
        self.interrupted.store(true, Ordering::Relaxed);
        self.to_send.notify_all();
    }

    /// Hears what keeps events from being confirmed.
    pub(super) fn is_troubled_by(&self, trouble: String) {
        self.state.lock().trouble = Some(trouble);
    }

    /// Hears that the server does not let this user publish to some subject: what is under way there is refused.
    pub(super) fn deny(&self, remark: &str) {
        let mut state = self.state.lock();
        Self::fail(&mut state, |waiting| {
            let denied = waiting.under_way && is_denied(remark, waiting.entry.event.subject());
            denied.then(|| waiting.reason(FailureReason::Refused(remark.to_owned())))
        });
        self.tell();
        leave(state);
    }

    /// Fails those for which there is a reason.
    fn fail(state: &mut State, reason: impl Fn(&Waiting) -> Option<FailureReason>) {
        let failed: Vec<_> =
            state.waiting.iter().filter_map(|(number, waiting)| Some((*number, reason(waiting)?))).collect();
        for (number, reason) in failed {
            Self::settle_one(state, number, Outcome::Failed(reason));
        }
    }

    /// Writes down what became of an event, and keeps a failure that nobody will ask a receipt for. [`leave`] the state afterwards.
    fn settle_one(state: &mut State, number: u64, outcome: Outcome) {
        if let Some(failure) = Self::settle_without_keeping(state, number, outcome) {
            state.failures.keep(failure);
        }
    }

    /// Writes down what became of an event. Returns a failure that nobody will ask a receipt for.
    fn settle_without_keeping(state: &mut State, number: u64, outcome: Outcome) -> Option<RecordError> {
        let waiting = state.waiting.remove(&number)?;
        let size = waiting.entry.event.size();
        state.bytes -= size;
        state.again.remove(&number);
        if waiting.under_way {
            state.under_way = (state.under_way.0 - 1, state.under_way.1 - size);
        }
        conclude(&mut state.counts, waiting.entry, outcome)
    }

    /// Wakes whoever waits for what has changed.
    fn tell(&self) {
        self.settled.notify_all();
        self.room.notify_all();
        self.to_send.notify_one();
    }

    /// Hears that an entry's receipt is gone: a failure that it did not hand out is kept for the next flush.
    pub(super) fn release(&self, entry: &Entry) {
        let mut state = self.state.lock();
        entry.released.store(true, Ordering::Relaxed);
        if let Some(Outcome::Failed(reason)) = entry.outcome.get()
            && !entry.told.swap(true, Ordering::Relaxed)
        {
            let failure = RecordError { event: Box::new((*entry.event).clone()), reason: reason.clone() };
            state.failures.keep(failure);
        }
        leave(state);
    }

    /// Whether the stream has ever kept an event of ours.
    pub(super) fn has_kept_any(&self) -> bool {
        self.state.lock().has_kept_any
    }

    /// Whether some of what was sent on this connection is not settled.
    pub(super) fn is_under_way(&self) -> bool {
        self.state.lock().under_way.0 > 0
    }

    /// How long the oldest event under way has waited for the stream's word.
    pub(super) fn oldest_wait(&self) -> Option<Duration> {
        self.state.lock().oldest_wait()
    }

    /// Hears that what is under way was too much for the connection, or that nobody is there.
    pub(super) fn fell_silent(&self) {
        if self.bounds.patience.is_some() {
            let mut state = self.state.lock();
            state.window_bytes = (state.window_bytes / 4).max(1);
        }
    }

    /// What became of the events that are settled.
    pub(super) fn counts(&self) -> RecorderCounts {
        self.state.lock().counts
    }

    /// Whether nothing waits, and nothing will.
    pub(super) fn is_done(&self) -> bool {
        self.state.lock().is_done()
    }

    fn wake(&self) {
        let _ = self.wake.0.try_send(());
    }

    /// Ready when something happened that the sender should look at.
    pub(super) fn woken(&self) -> &Receiver<()> {
        &self.wake.1
    }

    /// Blocks until this entry is settled or the time is over.
    pub(super) fn wait_for(&self, entry: &Entry, until: Instant) {
        let mut state = self.state.lock();
        while entry.outcome.get().is_none() && !self.settled.wait_until(&mut state, until).timed_out() {}
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.closed && self.waiting.is_empty()
    }

    fn is_waiting_below(&self, number: u64) -> bool {
        self.waiting.first_key_value().is_some_and(|(first, _)| *first < number)
    }

    /// Has an event sent again a moment later: it was refused for now.
    fn send_again(&mut self, number: u64) {
        let Some(waiting) = self.waiting.get_mut(&number) else { return };
        waiting.refused();
        if std::mem::take(&mut waiting.under_way) {
            self.under_way = (self.under_way.0 - 1, self.under_way.1 - waiting.entry.event.size());
        }
        self.again.insert(number);
        self.again_from = Instant::now() + AGAIN_PAUSE;
    }
}

impl State {
    fn oldest_wait(&self) -> Option<Duration> {
        // They are sent in order, but for the few that are sent again.
        let oldest = self.waiting.values().find(|waiting| waiting.under_way)?;
        oldest.sent.map(|sent| sent.last.elapsed())
    }
}

/// Unlocks the state, then logs the failures that were kept meanwhile: while the log blocks, events can still be handed in.
fn leave(mut state: MutexGuard<'_, State>) {
    let lines = state.failures.unlogged();
    drop(state);
    for line in lines {
        log::warn!("recorder: {line}");
    }
}

/// What came of the stream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Written down.
    AsSaid,
    /// Some events have to be sent again, for this reason, which may pass.
    Again(String),
}

/// Writes down what became of an event that waits no more. Returns a failure that nobody will ask a receipt for.
fn conclude(counts: &mut RecorderCounts, entry: Arc<Entry>, outcome: Outcome) -> Option<RecordError> {
    counts.add(&outcome);
    let nobody_asks = entry.released.load(Ordering::Relaxed) && !entry.told.load(Ordering::Relaxed);
    let reason = match &outcome {
        Outcome::Failed(reason) if nobody_asks => Some(reason.clone()),
        _ => None,
    };
    let _ = entry.outcome.set(outcome);
    reason.map(|reason| RecordError { event: Box::new(take_event(entry)), reason })
}

/// The event of an entry, without a copy of it where nobody else holds it.
fn take_event(entry: Arc<Entry>) -> Event {
    let event = match Arc::try_unwrap(entry) {
        Ok(entry) => entry.event,
        Err(entry) => Arc::clone(&entry.event),
    };
    Arc::unwrap_or_clone(event)
}

fn too_large(event: &Event, limit: usize) -> Option<FailureReason> {
    let size = wire_size(event);
    (size > limit).then_some(FailureReason::TooLarge { size, limit })
}

#[cfg(test)]
mod tests;
