//! Passes the queue's events to a connection, as far as the window allows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::entry::{Outcome, Sent};
use super::state::{Report, State, unlock_and_log};
use super::{SendQueue, too_large};
use crate::broker::{EventSource, Outgoing};
use crate::event_id::width;
use crate::record::FailureReason;

/// The most events that are passed to the connection at a time.
const MAX_BATCH: usize = 256;

/// The events for one connection.
pub(in crate::record) struct SendQueueSource {
    queue: Arc<SendQueue>,
    connection: u64,
}

impl SendQueue {
    /// Starts to pass events to a new connection, and to no other. Pending events that an older connection sent come first.
    pub(in crate::record) fn connect(self: &Arc<Self>, max_payload: usize) -> SendQueueSource {
        let mut state = self.state.lock();
        state.connection += 1;
        state.to_send = 0;
        state.forget_again();
        state.lines.reconnect();
        state.refused_since = None;
        state.in_flight = (0, 0);
        for pending in state.pending.values_mut() {
            pending.in_flight = false;
        }
        if max_payload < state.max_payload {
            state.fail(|pending| {
                let reason = too_large(&pending.entry.event, max_payload)?;
                // An earlier server took it, and its answer is missing.
                Some(pending.sent.map_or(reason, |sent| FailureReason::Unconfirmed(sent.first.elapsed())))
            });
        }
        state.max_payload = max_payload;
        let connection = state.connection;
        self.has_events.notify_all();
        unlock_and_log(state);
        SendQueueSource { queue: Arc::clone(self), connection }
    }

    /// The next events to send, as far as the window allows.
    fn next_batch(&self, state: &mut State) -> Vec<Outgoing> {
        let now = Instant::now();
        let mut batch = Vec::new();
        let window = state.window(&self.bounds);
        while batch.len() < MAX_BATCH && state.in_flight.0 < window {
            let Some(number) = state.next_to_send() else { break };
            // It was sent on this connection before, and refused, or another of its subject was.
            let alone = number < state.to_send;
            let Some(pending) = state.pending.get_mut(&number) else { continue };
            let size = pending.entry.event.size();
            if state.in_flight.0 > 0 && state.in_flight.1 + size > state.window_bytes {
                if alone {
                    state.ready.insert(number);
                }
                break;
            }
            state.to_send = state.to_send.max(number + 1);
            if pending.sent.is_some_and(|sent| sent.is_older_than(state.resend_window)) {
                let reason = FailureReason::Unconfirmed(state.resend_window);
                state.settle(number, Outcome::Failed(reason));
                self.notify_waiters(state);
                continue;
            }
            state.in_flight = (state.in_flight.0 + 1, state.in_flight.1 + size);
            // With several streams, a sequence does not show where the event will be.
            let last_stored = if state.last_stored.0.is_some() { state.last_stored.1 } else { 0 };
            let (first, before, after_sequence) =
                pending.sent.map_or((now, 0, last_stored), |sent| (sent.first, sent.unanswered, sent.after_sequence));
            pending.sent = Some(Sent { first, last: now, unanswered: before + 1, after_sequence });
            pending.in_flight = true;
            batch.push(Outgoing { number, event: Arc::clone(&pending.entry.event), alone });
        }
        batch
    }
}

impl EventSource for SendQueueSource {
    fn take(&mut self, before: &mut dyn FnMut()) -> Option<Vec<Outgoing>> {
        let mut state = self.queue.state.lock();
        let mut before = Some(before);
        loop {
            if state.connection != self.connection || state.is_done() {
                return None;
            }
            if let Some(before) = before.take_if(|_| state.has_unsent() || state.is_retry_due()) {
                MutexGuard::unlocked(&mut state, before);
                continue;
            }
            let now = Instant::now();
            let batch = self.queue.next_batch(&mut state);
            state.is_idle = batch.is_empty() && !state.has_unsent();
            if !batch.is_empty() || self.queue.interrupted.swap(false, Ordering::Relaxed) {
                unlock_and_log(state);
                return Some(batch);
            }
            if state.failures.has_unlogged() {
                unlock_and_log(state);
                state = self.queue.state.lock();
                continue;
            }
            let retry_at = state.retry_at;
            // A retry that was due already waits for the window, and a wider window notifies this thread.
            if state.retry.is_empty() || retry_at <= now {
                self.queue.has_events.wait(&mut state);
            } else {
                let _ = self.queue.has_events.wait_until(&mut state, retry_at);
            }
        }
    }
}

impl State {
    /// Whether there are events that this connection has not sent yet, or that it may send again.
    fn has_unsent(&self) -> bool {
        !self.ready.is_empty() || self.pending.range(self.to_send..).next().is_some()
    }

    fn is_retry_due(&self) -> bool {
        !self.retry.is_empty() && self.retry_at <= Instant::now()
    }

    /// Whether the events that were not sent yet wait for those that are refused. Events that are kept elsewhere too stay in order: where
    /// the server begins to refuse them all, later ones follow. Not for long: it may take those of other subjects.
    fn follows_refused(&self) -> bool {
        /// A stream that is about to be made is there by then.
        const LONGEST: Duration = Duration::from_secs(2);
        self.reports.is_some() && self.refused_alone_for().is_some_and(|time| time < LONGEST)
    }

    /// The next event to send, if one may be sent now.
    fn next_to_send(&mut self) -> Option<u64> {
        if self.is_retry_due() {
            self.ready.append(&mut self.retry);
        }
        loop {
            if let Some(number) = self.ready.pop_first() {
                return Some(number);
            }
            if self.follows_refused() {
                return None;
            }
            let (number, pending) = self.pending.range(self.to_send..).next()?;
            let (oldest, _) = self.pending.first_key_value()?;
            // A database keeps only so many numbers of a recorder.
            if number - oldest >= width() {
                return None;
            }
            let number = *number;
            if self.lines.is_empty() || !self.lines.join(pending.entry.event.subject(), number, &mut self.ready) {
                return Some(number);
            }
            self.to_send = number + 1;
            self.report(Report::Waits(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{self, enqueue, kept, numbers, queue, settle};
    use super::super::{Bounds, SettleResult};
    use super::*;
    use crate::broker::{PublishResult, Rejection};

    #[test]
    fn what_comes_before_events_are_taken_is_taken_with_them() {
        let queue = queue();
        enqueue(&queue, "x");
        let mut source = queue.connect(1_000);
        let mut calls = 0;
        let taken = source.take(&mut || {
            enqueue(&queue, "y");
            calls += 1;
        });
        assert_eq!((taken.expect("the connection is the current one").len(), calls), (2, 1));
        settle(&queue, vec![kept(0), kept(1)]);
        let waiting = std::thread::spawn(move || source.take(&mut || {}).map(|taken| taken.len()));
        enqueue(&queue, "z");
        assert_eq!(waiting.join().expect("no panic"), Some(1), "it is woken");
    }

    #[test]
    fn few_events_are_sent_until_the_first_is_stored() {
        let bounds = Bounds { events: 100, window: 10, first_window: 3, ..tests::bounds() };
        let queue = Arc::new(SendQueue::new(bounds, 1_000));
        for _ in 0..20 {
            enqueue(&queue, "x");
        }
        let mut source = queue.connect(1_000);
        assert_eq!(numbers(&mut source), [0, 1, 2]);
        let refused = PublishResult { number: 0, result: Err(Rejection::ByServer("no".into())) };
        settle(&queue, vec![refused]);
        assert_eq!(numbers(&mut source), [3]);
        settle(&queue, vec![kept(1)]);
        assert_eq!(numbers(&mut source), (4..12).collect::<Vec<_>>(), "with those that have no answer, ten");
        let mut source = queue.connect(1_000);
        assert_eq!(numbers(&mut source).len(), 10, "the stream is known on the next connection too");
    }

    #[test]
    fn a_connection_that_has_sent_everything_is_woken_for_what_it_has_to_do() {
        let queue = queue();
        enqueue(&queue, "x");
        let mut source = queue.connect(1_000);
        assert_eq!(numbers(&mut source), [0]);
        let waiting = std::thread::spawn(move || (source.take(&mut || {}).map(|taken| taken.len()), source));
        let until_idle = || {
            while !queue.state.lock().is_idle {
                std::thread::yield_now();
            }
        };
        until_idle();
        let refused = PublishResult { number: 0, result: Err(Rejection::ForNow("not now".into())) };
        assert!(matches!(queue.settle(vec![refused], Duration::from_secs(60)), SettleResult::Retry(_)));
        let (taken, mut source) = waiting.join().expect("no panic");
        assert_eq!(taken, Some(1), "it is sent again");
        queue.close();
        let waiting = std::thread::spawn(move || source.take(&mut || {}).is_none());
        until_idle();
        settle(&queue, vec![kept(0)]);
        assert!(waiting.join().expect("no panic"), "there is no more to come");
    }
}
