//! The way out: which events the connection gets next, as far as the window lets them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::entry::{Outcome, Sent};
use super::{SendQueue, State, leave};
use crate::broker::{Outgoing, Source};
use crate::record::FailureReason;

/// Events handed to the connection at a time.
const MAX_BATCH: usize = 256;

/// Gives one connection its events.
pub(in crate::record) struct SendQueueSource {
    pub(super) queue: Arc<SendQueue>,
    pub(super) connection: u64,
}

impl Source for SendQueueSource {
    fn take(&mut self) -> Option<Vec<Outgoing>> {
        let mut state = self.queue.state.lock();
        loop {
            if state.connection != self.connection || (state.closed && state.waiting.is_empty()) {
                return None;
            }
            let before = Instant::now();
            let next_batch = self.queue.next_batch(&mut state);
            state.starved = next_batch.is_empty() && state.waiting.range(state.to_send..).next().is_none();
            if !next_batch.is_empty() || self.queue.interrupted.swap(false, Ordering::Relaxed) {
                leave(state);
                return Some(next_batch);
            }
            if state.failures.has_unlogged() {
                leave(state);
                state = self.queue.state.lock();
                continue;
            }
            let from = state.again_from;
            // What was due already waits for room, and whoever makes room says so.
            if state.again.is_empty() || from <= before {
                self.queue.to_send.wait(&mut state);
            } else {
                let _ = self.queue.to_send.wait_until(&mut state, from);
            }
        }
    }
}

impl SendQueue {
    /// The next events to send, as far as the window lets them.
    fn next_batch(&self, state: &mut State) -> Vec<Outgoing> {
        let now = Instant::now();
        let mut next_batch = Vec::new();
        while next_batch.len() < MAX_BATCH && state.under_way.0 < self.bounds.window {
            let Some(number) = state.next_to_send() else { break };
            let Some(waiting) = state.waiting.get_mut(&number) else { continue };
            let size = waiting.entry.event.size();
            if state.under_way.0 > 0 && state.under_way.1 + size > state.window_bytes {
                if number < state.to_send {
                    state.again.insert(number);
                }
                break;
            }
            state.to_send = state.to_send.max(number + 1);
            if waiting.sent.is_some_and(|sent| sent.is_beyond(state.repeatable)) {
                let reason = FailureReason::Unconfirmed(state.repeatable);
                Self::settle_one(state, number, Outcome::Failed(reason));
                self.tell();
                continue;
            }
            state.under_way = (state.under_way.0 + 1, state.under_way.1 + size);
            // Of several streams no sequence says where the event will be.
            let reached = if state.reached.0.is_some() { state.reached.1 } else { 0 };
            let (first, before, behind) =
                waiting.sent.map_or((now, 0, reached), |sent| (sent.first, sent.unanswered, sent.behind));
            waiting.sent = Some(Sent { first, last: now, unanswered: before + 1, behind });
            waiting.under_way = true;
            next_batch.push(Outgoing { number, event: Arc::clone(&waiting.entry.event) });
        }
        next_batch
    }
}

impl State {
    /// The next event to send, if one may be sent now.
    fn next_to_send(&mut self) -> Option<u64> {
        if self.again_from <= Instant::now()
            && let Some(number) = self.again.pop_first()
        {
            return Some(number);
        }
        let (number, _) = self.waiting.range(self.to_send..).next()?;
        Some(*number)
    }
}

/// What a connection that took `waited` for these bytes carries in another time.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "about so many"
)]
pub(super) fn carried(bytes: usize, waited: Duration, time: Duration) -> usize {
    (bytes as f64 * time.as_secs_f64() / waited.as_secs_f64().max(1e-6)) as usize
}
