//! Where a recorder's events wait: for room on the connection, and for the stream's word, or the server's in core NATS.
//!
//! Events are numbered as they are handed over, and the unsettled ones stand in one queue in that order. The front part
//! of it has been sent on the present connection, the rest has not. A new connection begins again at the front.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex};

use super::{FlushError, Overflow, Place, Reason, RecordError, Recorded};
use crate::broker::{Outgoing, Refused, Source, Taken, Verdict, wire_size};
use crate::event::Event;

/// Events handed to the connection at a time.
const HANDFUL: usize = 256;

/// Failures kept for the next flush, within the bound in bytes as well.
const MOST_FAILURES: usize = 10_000;

/// An event on its way.
#[derive(Debug)]
pub(super) struct Entry {
    number: u64,
    pub(super) event: Arc<Event>,
    pub(super) outcome: OnceLock<Outcome>,
    /// Nobody holds the receipt any more. Set and read under the desk's lock.
    released: AtomicBool,
    /// The failure was handed out by the receipt, or kept for the next flush.
    pub(super) told: AtomicBool,
}

/// What became of an event.
#[derive(Debug)]
pub(super) enum Outcome {
    Kept(Recorded),
    Failed(Reason),
}

/// The bounds of what may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) events: usize,
    pub(super) bytes: usize,
    /// Sent and not settled.
    pub(super) window: usize,
    /// Bytes sent and not settled, unless a single event is larger.
    pub(super) window_bytes: usize,
    /// Nothing is heard of what is sent until all of it has arrived, and this is how long that may take: no more is sent than
    /// a quarter of it carries. Without it each event is answered by itself, and the window stays as it is.
    pub(super) patience: Option<Duration>,
}

/// The window before anything is known of a connection that only answers when all has arrived.
const FIRST_WINDOW: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Desk {
    bounds: Bounds,
    state: Mutex<State>,
    /// There is something to send, or nothing will be.
    to_send: Condvar,
    /// There is room.
    room: Condvar,
    /// Something was settled.
    settled: Condvar,
    wake: (Sender<()>, Receiver<()>),
}

#[derive(Debug)]
struct State {
    /// Unsettled events by number, from `first` on. Settled ones stay until those before them are.
    queue: VecDeque<Waiting>,
    first: u64,
    /// How many at the front have been sent on this connection.
    sent: usize,
    /// Bytes of those among them that are not settled.
    under_way: usize,
    /// And how many they may be.
    window_bytes: usize,
    bytes: usize,
    /// The connection that may take events; older ones get none.
    connection: u64,
    limit: usize,
    closed: bool,
    /// The stream has kept an event before.
    has_kept_any: bool,
    failures: Failures,
    trouble: Option<String>,
}

#[derive(Debug)]
struct Waiting {
    entry: Arc<Entry>,
    sent: Option<Sent>,
    /// When the server first said that no stream takes it.
    no_stream: Option<Instant>,
}

/// How often an event was sent without an answer: each time it may have been stored.
#[derive(Clone, Copy, Debug)]
struct Sent {
    first: Instant,
    last: Instant,
    unanswered: u32,
}

impl Waiting {
    /// Hears that it was not stored, this time. If it was never sent but once, sending it again doubles nothing, however late.
    fn refused(&mut self) {
        self.sent = self.sent.and_then(|sent| {
            let unanswered = sent.unanswered.saturating_sub(1);
            (unanswered > 0).then_some(Sent { unanswered, ..sent })
        });
    }
}

impl Desk {
    /// `limit` is the largest event that the server takes.
    pub(super) fn new(bounds: Bounds, limit: usize) -> Self {
        Self {
            bounds,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                first: 0,
                sent: 0,
                under_way: 0,
                window_bytes: bounds.patience.map_or(bounds.window_bytes, |_| bounds.window_bytes.min(FIRST_WINDOW)),
                bytes: 0,
                connection: 0,
                limit,
                closed: false,
                has_kept_any: false,
                failures: Failures { room: bounds.bytes, ..Failures::default() },
                trouble: None,
            }),
            to_send: Condvar::new(),
            room: Condvar::new(),
            settled: Condvar::new(),
            wake: crossbeam_channel::bounded(1),
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
            let until = Instant::now() + patience;
            while !state.closed && !self.has_room(&state, size) {
                if self.room.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
        }
        if state.closed {
            return refuse(event, Reason::Closed);
        }
        if !self.has_room(&state, size) {
            let (events, bytes) = (state.queue.len(), state.bytes);
            return refuse(event, Reason::BufferFull { events, bytes });
        }
        let number = state.first + state.queue.len() as u64;
        let entry = Arc::new(Entry {
            number,
            event: Arc::new(event),
            outcome: OnceLock::new(),
            released: AtomicBool::new(false),
            told: AtomicBool::new(false),
        });
        state.queue.push_back(Waiting { entry: Arc::clone(&entry), sent: None, no_stream: None });
        state.bytes += size;
        self.to_send.notify_one();
        Ok(entry)
    }

    /// An empty buffer takes any event, however large.
    fn has_room(&self, state: &State, size: usize) -> bool {
        state.queue.is_empty() || (state.queue.len() < self.bounds.events && state.bytes + size <= self.bounds.bytes)
    }

    /// Begins to give events to a new connection, the unsettled ones first, and to no other.
    pub(super) fn connect(self: &Arc<Self>, max_payload: usize) -> ToSend {
        let mut state = self.state.lock();
        state.connection += 1;
        state.sent = 0;
        state.under_way = 0;
        if max_payload < state.limit {
            for waiting in &state.queue {
                if let Some(reason) = too_large(&waiting.entry.event, max_payload) {
                    let _ = waiting.entry.outcome.set(Outcome::Failed(reason));
                }
            }
            self.clear_away(&mut state);
        }
        state.limit = max_payload;
        self.to_send.notify_all();
        ToSend { desk: Arc::clone(self), connection: state.connection }
    }

    /// Gives no more events to the present connection.
    pub(super) fn disconnect(&self, trouble: String) {
        let mut state = self.state.lock();
        state.connection += 1;
        state.trouble = Some(trouble);
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
        let mut state = self.state.lock();
        let waited = state.oldest_wait();
        for Verdict { number, result } in verdicts {
            let Some(index) = number.checked_sub(state.first).and_then(|index| usize::try_from(index).ok()) else {
                continue;
            };
            let Some(waiting) = state.queue.get_mut(index) else { continue };
            let entry = Arc::clone(&waiting.entry);
            let outcome = match result {
                Ok(taken) => {
                    kept = true;
                    let place = match taken {
                        Taken::ByStream { stream, sequence, duplicate } => {
                            Place::Stream { stream, sequence, duplicate }
                        }
                        Taken::ByServer => Place::Broker,
                    };
                    Outcome::Kept(Recorded { place })
                }
                Err(Refused::NoStream) if waiting.no_stream.get_or_insert_with(Instant::now).elapsed() < patience => {
                    waiting.refused();
                    again.push((entry, "no stream takes the event's subject at the moment".into()));
                    continue;
                }
                Err(Refused::ForNow(what)) => {
                    waiting.refused();
                    again.push((entry, what));
                    continue;
                }
                Err(Refused::NoStream) => Outcome::Failed(Reason::NoStream),
                Err(Refused::ByServer(what)) => Outcome::Failed(Reason::Refused(what)),
            };
            if entry.outcome.set(outcome).is_ok() && index < state.sent {
                state.under_way = state.under_way.saturating_sub(entry.event.size());
                answered += entry.event.size();
            }
        }
        if let (Some(patience), Some(waited)) = (self.bounds.patience, waited) {
            state.window_bytes = carried(answered, waited, patience / 4).clamp(1, self.bounds.window_bytes);
        }
        state.has_kept_any |= kept;
        // What was refused and then taken is settled.
        let refused = again.into_iter().rev().find(|(entry, _)| entry.outcome.get().is_none());
        let settled = refused.map_or(Settled::AsSaid, |(_, reason)| Settled::Again(reason));
        match &settled {
            Settled::Again(trouble) => state.trouble = Some(trouble.clone()),
            Settled::AsSaid if kept => state.trouble = None,
            Settled::AsSaid => {}
        }
        self.clear_away(&mut state);
        self.to_send.notify_one();
        settled
    }

    /// Gives up on events that were sent first longer ago than the stream recognises a repetition, which in core NATS nobody
    /// does: called between two connections, for those events cannot be sent again.
    pub(super) fn give_up_unconfirmed(&self, window: Duration) {
        let mut state = self.state.lock();
        for waiting in &state.queue {
            let sent = waiting.sent.map(|sent| sent.first.elapsed()).filter(|sent| *sent >= window);
            if let Some(sent) = sent {
                let waited = if window.is_zero() { sent } else { window };
                let _ = waiting.entry.outcome.set(Outcome::Failed(Reason::Unconfirmed(waited)));
            }
        }
        self.clear_away(&mut state);
    }

    /// Drops what is settled from the front, and keeps failures that nobody will ask a receipt for.
    fn clear_away(&self, state: &mut State) {
        let mut cleared = false;
        while let Some(waiting) = state.queue.front() {
            let Some(outcome) = waiting.entry.outcome.get() else { break };
            let entry = &waiting.entry;
            let nobody_asks = entry.released.load(Ordering::Relaxed) && !entry.told.load(Ordering::Relaxed);
            if let (Outcome::Failed(reason), true) = (outcome, nobody_asks) {
                let failure = RecordError { event: Box::new((*waiting.entry.event).clone()), reason: reason.clone() };
                state.failures.keep(failure);
            }
            if let Some(waiting) = state.queue.pop_front() {
                state.bytes -= waiting.entry.event.size();
            }
            state.first += 1;
            state.sent = state.sent.saturating_sub(1);
            cleared = true;
        }
        self.settled.notify_all();
        if cleared {
            self.room.notify_all();
            self.to_send.notify_one();
        }
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
    }

    /// Whether the stream has ever kept an event of ours.
    pub(super) fn has_kept_any(&self) -> bool {
        self.state.lock().has_kept_any
    }

    /// Whether some of what was sent on this connection is not settled.
    pub(super) fn is_under_way(&self) -> bool {
        self.state.lock().sent > 0
    }

    /// How long the oldest event has waited for the stream's word since it was last sent.
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

    /// Takes nothing in any more. What waits goes on being sent.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.room.notify_all();
        self.to_send.notify_all();
        self.wake();
    }

    /// Fails what is left.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        for waiting in &state.queue {
            let reason = waiting.sent.map_or(Reason::Closed, |sent| Reason::Unconfirmed(sent.first.elapsed()));
            let _ = waiting.entry.outcome.set(Outcome::Failed(reason));
        }
        self.clear_away(&mut state);
    }

    /// Whether nothing waits, and nothing will.
    pub(super) fn is_done(&self) -> bool {
        let state = self.state.lock();
        state.closed && state.queue.is_empty()
    }

    fn wake(&self) {
        let _ = self.wake.0.try_send(());
    }

    /// Ready when something happened that the courier should look at.
    pub(super) fn woken(&self) -> &Receiver<()> {
        &self.wake.1
    }

    /// Blocks until this entry is settled or the time is over.
    pub(super) fn wait_for(&self, entry: &Entry, until: Instant) {
        let mut state = self.state.lock();
        while entry.outcome.get().is_none() && !self.settled.wait_until(&mut state, until).timed_out() {}
    }

    /// Blocks until everything handed in so far is settled.
    pub(super) fn flush(&self, until: Instant) -> Result<(), FlushError> {
        let mut state = self.state.lock();
        let target = state.first + state.queue.len() as u64;
        while state.first < target {
            if self.settled.wait_until(&mut state, until).timed_out() && state.first < target {
                let waiting = usize::try_from(target - state.first).unwrap_or(usize::MAX);
                return Err(FlushError::Deadline { waiting, trouble: state.trouble.clone() });
            }
        }
        drop(state);
        self.failures()
    }

    /// The failures that nobody was told of yet.
    pub(super) fn failures(&self) -> Result<(), FlushError> {
        let mut state = self.state.lock();
        let failed = state.failures.take();
        if failed.is_empty() {
            return Ok(());
        }
        Err(FlushError::Failed { failed, trouble: state.trouble.clone() })
    }
}

/// Failures for the next flush, as far as there is room.
#[derive(Debug, Default)]
struct Failures {
    kept: Vec<RecordError>,
    /// Bytes that may still be kept.
    room: usize,
    lost: usize,
}

impl Failures {
    fn keep(&mut self, failure: RecordError) {
        log::warn!("recorder: {failure}");
        let size = failure.event.size();
        if self.kept.len() < MOST_FAILURES && size <= self.room {
            self.room -= size;
            self.kept.push(failure);
        } else {
            self.lost += 1;
        }
    }

    fn take(&mut self) -> Vec<RecordError> {
        if self.lost > 0 {
            log::warn!("recorder: {} more failed events are only in the log above", self.lost);
            self.lost = 0;
        }
        let kept = std::mem::take(&mut self.kept);
        self.room += kept.iter().map(|failure| failure.event.size()).sum::<usize>();
        kept
    }
}

impl State {
    fn oldest_wait(&self) -> Option<Duration> {
        let front = self.queue.front().filter(|_| self.sent > 0)?;
        front.sent.map(|sent| sent.last.elapsed())
    }
}

/// What a connection that took `waited` for these bytes carries in another time.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "about so many"
)]
fn carried(bytes: usize, waited: Duration, time: Duration) -> usize {
    (bytes as f64 * time.as_secs_f64() / waited.as_secs_f64().max(1e-6)) as usize
}

/// What came of the stream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Written down.
    AsSaid,
    /// Some events have to be sent again, for this reason, which may pass.
    Again(String),
}

fn too_large(event: &Event, limit: usize) -> Option<Reason> {
    let size = wire_size(event);
    (size > limit).then_some(Reason::TooLarge { size, limit })
}

/// Gives one connection its events.
pub(super) struct ToSend {
    desk: Arc<Desk>,
    connection: u64,
}

impl Source for ToSend {
    fn take(&mut self) -> Option<Vec<Outgoing>> {
        let mut state = self.desk.state.lock();
        loop {
            if state.connection != self.connection || (state.closed && state.queue.is_empty()) {
                return None;
            }
            let handful = handful(&mut state, self.desk.bounds);
            if !handful.is_empty() {
                return Some(handful);
            }
            self.desk.to_send.wait(&mut state);
        }
    }
}

/// The next events to send, as far as the window lets them.
fn handful(state: &mut State, bounds: Bounds) -> Vec<Outgoing> {
    let now = Instant::now();
    let mut handful = Vec::new();
    let until = state.queue.len().min(bounds.window).min(state.sent + HANDFUL);
    while state.sent < until {
        let waiting = &mut state.queue[state.sent];
        if waiting.entry.outcome.get().is_none() {
            let size = waiting.entry.event.size();
            if state.under_way > 0 && state.under_way + size > state.window_bytes {
                break;
            }
            state.under_way += size;
            let (first, before) = waiting.sent.map_or((now, 0), |sent| (sent.first, sent.unanswered));
            waiting.sent = Some(Sent { first, last: now, unanswered: before + 1 });
            handful.push(Outgoing { number: waiting.entry.number, event: Arc::clone(&waiting.entry.event) });
        }
        state.sent += 1;
    }
    handful
}

#[cfg(test)]
mod tests;
