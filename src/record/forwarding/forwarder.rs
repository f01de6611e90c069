//! The thread that reads events from a file for the send queue, and marks in the file what is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::forward_store::ForwardStore;
use super::loaded::Loaded;
use super::progress::{ForwardProgress, ProgressCell};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Condition, Problem, Signal};
use crate::record::FailureReason;
use crate::record::send_queue::{SendQueue, Settled};
use crate::record::stream_outcomes::StreamOutcomes;

/// Events are marked as done after this time, or when there are so many.
const MARK_AFTER: Duration = Duration::from_millis(50);
const MARK_EVENTS: usize = 1_000;

/// The most events and bytes that are read at a time.
const READ_EVENTS: usize = 2_000;
const READ_BYTES: usize = 1 << 20;

/// How long to wait after an error.
const RETRY: Duration = Duration::from_millis(250);

/// The longest time between two looks without a reason.
const LONG: Duration = Duration::from_secs(3_600);

pub(super) struct Forwarder<S> {
    store: S,
    queue: Arc<SendQueue>,
    results: Receiver<Settled>,
    woken: Receiver<()>,
    shown: Arc<ProgressCell>,
    outcomes: Option<Arc<StreamOutcomes>>,
    condition: Condition,
    poll: Option<Duration>,
    loaded: Loaded,
    /// The last event that was read.
    read_through: u64,
    /// The last look found no further event.
    is_at_end: bool,
    /// Events to keep as dead letters.
    given_up: Vec<(u64, String)>,
    /// All events up to this one are marked in the file.
    marked_through: u64,
    /// Events that are done and not marked, and since when.
    unmarked: usize,
    unmarked_since: Option<Instant>,
    /// There may be work that has time.
    untidy: bool,
    dropped_through: u64,
    progress: ForwardProgress,
}

impl<S: ForwardStore> Forwarder<S> {
    #[allow(clippy::too_many_arguments, reason = "one caller")]
    pub(super) fn new(
        store: S,
        after: u64,
        queue: Arc<SendQueue>,
        (results, woken): (Receiver<Settled>, Receiver<()>),
        shown: Arc<ProgressCell>,
        outcomes: Option<Arc<StreamOutcomes>>,
        condition: Condition,
        poll: Option<Duration>,
    ) -> Self {
        Self {
            store,
            queue,
            results,
            woken,
            shown,
            outcomes,
            condition,
            poll,
            loaded: Loaded::after(after),
            read_through: after,
            is_at_end: false,
            given_up: Vec::new(),
            marked_through: after,
            unmarked: 0,
            unmarked_since: None,
            untidy: true,
            dropped_through: 0,
            progress: ForwardProgress { done_through: after, ..ForwardProgress::default() },
        }
    }

    /// Runs until it is stopped. Ends early where the file is not what it was.
    pub(super) fn run(mut self, stop: &Signal) -> Result<(), Error> {
        loop {
            self.take_results();
            let is_stopped = stop.is_raised();
            let worked = self.work(is_stopped);
            self.show();
            if is_stopped {
                return worked.or_else(|problem| {
                    // What is not marked is sent again, and recognised.
                    log::debug!("recorder: the last mark is missing: {problem}");
                    Ok(())
                });
            }
            let wait = match worked {
                Ok(()) => {
                    self.condition.recover();
                    self.next_look()
                }
                Err(problem) if problem.fault == DatabaseFault::Conflict => return Err(self.ended(problem)),
                Err(problem) => {
                    self.condition.degrade(problem.to_string());
                    RETRY
                }
            };
            self.wait(wait, stop);
        }
    }

    /// Waits for something to do.
    fn wait(&mut self, wait: Duration, stop: &Signal) {
        crossbeam_channel::select! {
            recv(self.results) -> settled => if let Ok(settled) = settled {
                self.take([settled]);
            },
            recv(self.woken) -> _ => self.is_at_end = false,
            recv(stop.channel()) -> _ => {}
            default(wait) => self.is_at_end = false,
        }
    }

    /// How long nothing is to be done, unless something comes.
    fn next_look(&self) -> Duration {
        if self.untidy || (!self.is_at_end && self.loaded.room().is_some()) {
            return Duration::ZERO;
        }
        let look = if self.loaded.room().is_some() { self.poll.unwrap_or(LONG) } else { LONG };
        let mark = self.unmarked_since.map_or(LONG, |since| MARK_AFTER.saturating_sub(since.elapsed()));
        look.min(mark)
    }

    fn take_results(&mut self) {
        let results: Vec<Settled> = self.results.try_iter().collect();
        self.take(results);
    }

    /// Takes outcomes of events.
    fn take(&mut self, results: impl IntoIterator<Item = Settled>) {
        let mut outcomes = Vec::new();
        for Settled { number, result } in results {
            match &result {
                Ok(_) => self.progress.forwarded += 1,
                // It is not in the file any more.
                Err(FailureReason::Dropped | FailureReason::Unconfirmed(_)) if number <= self.dropped_now() => {}
                Err(reason) => self.given_up.push((number, reason.to_string())),
            }
            self.finish(number);
            if self.outcomes.is_some() {
                outcomes.push((number, result));
            }
        }
        if let Some(watched) = self.outcomes.as_ref().filter(|_| !outcomes.is_empty()) {
            watched.set(outcomes);
        }
    }

    fn dropped_now(&self) -> u64 {
        self.store.dropped_through()
    }

    fn finish(&mut self, position: u64) {
        self.loaded.done(position);
        self.unmarked += 1;
        self.unmarked_since.get_or_insert_with(Instant::now);
    }

    /// One round: dead letters, marks, further events, and what has time.
    fn work(&mut self, is_stopped: bool) -> Result<(), Problem> {
        let dropped = self.dropped_now();
        if dropped > self.dropped_through {
            self.dropped_through = dropped;
            // After the outcomes of those that were in flight.
            self.take_results();
            if let Some(outcomes) = &self.outcomes {
                outcomes.drop_through(dropped);
            }
        }
        if !self.given_up.is_empty() {
            self.store.give_up(&self.given_up)?;
            self.progress.given_up += self.given_up.len() as u64;
            self.log_given_up();
            self.given_up.clear();
        }
        let is_due = self.unmarked >= MARK_EVENTS
            || is_stopped
            || self.unmarked_since.is_some_and(|since| since.elapsed() >= MARK_AFTER);
        if is_due && self.unmarked > 0 {
            let through = self.loaded.done_through();
            if through > self.marked_through {
                self.store.done_through(through)?;
                self.marked_through = through;
                self.untidy = true;
            }
            (self.unmarked, self.unmarked_since) = (0, None);
        }
        if is_stopped {
            return Ok(());
        }
        self.load()?;
        if self.untidy && self.results.is_empty() {
            self.untidy = self.store.tidy()?;
        }
        Ok(())
    }

    /// Reads further events and passes them on.
    fn load(&mut self) -> Result<(), Problem> {
        let Some((events, bytes)) = self.loaded.room().filter(|_| !self.is_at_end) else { return Ok(()) };
        let after = self.read_through.max(self.dropped_through);
        let read = self.store.read(after, events.min(READ_EVENTS), bytes.min(READ_BYTES))?;
        self.is_at_end = read.is_empty();
        let mut passed_on = Vec::with_capacity(read.len());
        for stored in read {
            self.read_through = stored.position;
            self.loaded.add(&stored);
            match stored.event {
                Ok(event) => passed_on.push((stored.position, event)),
                Err(why) => {
                    self.given_up.push((stored.position, why));
                    self.finish(stored.position);
                }
            }
        }
        self.queue.enqueue_stored(passed_on);
        Ok(())
    }

    fn log_given_up(&self) {
        let count = self.given_up.len();
        if let Some((position, why)) = self.given_up.first() {
            log::warn!(
                event = "recorder.given_up", events = count, first = position, error:% = why;
                "recorder: {} became dead letters, the first because: {why}", crate::counted(count as u64, "event")
            );
        }
    }

    fn show(&mut self) {
        let is_idle = self.is_at_end && self.loaded.is_empty() && self.unmarked == 0 && self.given_up.is_empty();
        let done_through = self.loaded.done_through().max(self.dropped_through);
        let oldest_us = self.loaded.oldest_us();
        self.progress = ForwardProgress { done_through, is_idle, oldest_us, ..self.progress };
        self.shown.set(self.progress);
    }

    fn ended(&self, problem: Problem) -> Error {
        self.condition.degrade(problem.to_string());
        self.store.error(problem)
    }
}

#[cfg(test)]
mod tests;
