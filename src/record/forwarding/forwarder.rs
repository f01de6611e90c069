//! The thread that reads events from a file for the send queue, and marks in the file what is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::forward_store::ForwardStore;
use super::loaded::Loaded;
use super::progress::{ForwardProgress, ProgressCell};
use super::refused_events::RefusedEvents;
use crate::Event;
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Condition, Problem, Signal};
use crate::record::FailureReason;
use crate::record::expected_stream;
use crate::record::send_queue::{Report, SendQueue, Settled};
use crate::record::stream_outcomes::StreamOutcomes;
use crate::store::{FirstRefusal, GivenUp};

/// Events are marked as done after this time, or when there are so many.
const MARK_AFTER: Duration = Duration::from_millis(50);
const MARK_EVENTS: usize = 1_000;

/// The most events and bytes that are read at a time.
const READ_EVENTS: usize = 2_000;
const READ_BYTES: usize = 1 << 20;

/// How often events that were given up are logged, at most.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// How long to wait after an error.
const RETRY: Duration = Duration::from_millis(250);

/// The longest time between two looks without a reason.
const LONG: Duration = Duration::from_secs(3_600);

pub(super) struct Forwarder<S> {
    store: S,
    queue: Arc<SendQueue>,
    results: Receiver<Report>,
    woken: Receiver<()>,
    shown: Arc<ProgressCell>,
    pub(super) outcomes: Option<Arc<StreamOutcomes>>,
    condition: Condition,
    /// How often to look for events where nobody wakes this thread.
    pub(super) poll: Option<Duration>,
    /// The only stream that may store the events.
    pub(super) expected_stream: Option<String>,
    /// What earlier starts have noted of refusals.
    pub(super) refused_before: HashMap<u64, FirstRefusal>,
    loaded: Loaded,
    /// The last event that was read.
    read_through: u64,
    /// The last look found no further event.
    is_at_end: bool,
    /// Events to keep as dead letters.
    given_up: Vec<GivenUp>,
    /// Those that the log does not have yet: how many, the first, and why that was given up.
    unlogged: Option<(u64, u64, String)>,
    logged_at: Option<Instant>,
    refused: RefusedEvents,
    /// Events behind one that waits that are in the stream, to be marked.
    ahead: Vec<(u64, u64)>,
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
    pub(super) fn new(
        store: S,
        after: u64,
        queue: Arc<SendQueue>,
        (results, woken): (Receiver<Report>, Receiver<()>),
        shown: Arc<ProgressCell>,
        condition: Condition,
    ) -> Self {
        Self {
            store,
            queue,
            results,
            woken,
            shown,
            outcomes: None,
            condition,
            poll: None,
            expected_stream: None,
            refused_before: HashMap::new(),
            loaded: Loaded::after(after),
            read_through: after,
            is_at_end: false,
            given_up: Vec::new(),
            unlogged: None,
            logged_at: None,
            refused: RefusedEvents::default(),
            ahead: Vec::new(),
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
            recv(self.results) -> report => if let Ok(report) = report {
                self.take([report]);
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
        let note = self.refused.due_in().unwrap_or(LONG);
        let log = self.log_in().unwrap_or(LONG);
        look.min(mark).min(note).min(log)
    }

    /// How long until events that were given up are to be logged, if there are some.
    fn log_in(&self) -> Option<Duration> {
        self.unlogged
            .as_ref()
            .map(|_| self.logged_at.map_or(Duration::ZERO, |at| LOG_PAUSE.saturating_sub(at.elapsed())))
    }

    fn take_results(&mut self) {
        let results: Vec<Report> = self.results.try_iter().collect();
        self.take(results);
    }

    /// Takes outcomes of events.
    fn take(&mut self, reports: impl IntoIterator<Item = Report>) {
        let mut outcomes = Vec::new();
        for report in reports {
            let Settled { number, result } = match report {
                Report::Settled(settled) => settled,
                Report::Refused(number) => {
                    self.refused.add(number);
                    continue;
                }
                Report::Waits(number) => {
                    self.refused.add_waiting(number);
                    continue;
                }
            };
            self.refused.settled(number, result.is_ok());
            match &result {
                Ok(_) => self.progress.forwarded += 1,
                // It is not in the file any more.
                Err(FailureReason::Dropped) => {}
                Err(FailureReason::Unconfirmed(_)) if number <= self.dropped_now() => {}
                Err(reason) => {
                    let may_be_stored = reason.may_be_stored();
                    self.given_up.push(GivenUp { position: number, reason: reason.to_string(), may_be_stored });
                }
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
            self.note_given_up();
        }
        self.log_given_up(is_stopped);
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
            // One event that waits must not keep the others in the file.
            if !self.refused.waiting().is_empty() || is_stopped {
                self.ahead.extend(self.loaded.take_ahead());
            }
            if !self.ahead.is_empty() {
                self.store.done_ahead(&self.ahead)?;
                self.ahead.clear();
                self.untidy = true;
            }
            (self.unmarked, self.unmarked_since) = (0, None);
        }
        self.note_refused(is_stopped)?;
        if is_stopped {
            return Ok(());
        }
        self.look_at_refused()?;
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
            let position = stored.position;
            self.read_through = position;
            self.loaded.add(&stored);
            match stored.event.and_then(|event| self.expecting(event)) {
                Ok(event) => {
                    let refused = self.refused_before.remove(&position);
                    if refused.is_some() {
                        self.refused.add_noted(position);
                    }
                    passed_on.push((position, event, refused));
                }
                Err(reason) => {
                    self.given_up.push(GivenUp { position, reason, may_be_stored: false });
                    self.finish(position);
                }
            }
        }
        self.queue.enqueue_stored(passed_on);
        Ok(())
    }

    /// The event, for the only stream that may store it.
    fn expecting(&self, event: Event) -> Result<Event, String> {
        match &self.expected_stream {
            Some(stream) => expected_stream::set(event, stream),
            None => Ok(event),
        }
    }

    /// Notes in the file what is refused. A later start counts the time from then on.
    fn note_refused(&mut self, is_stopped: bool) -> Result<(), Problem> {
        if self.refused.due_in().is_some_and(|due| is_stopped || due.is_zero()) {
            let (positions, others_stored) = self.refused.news();
            self.store.note_refused(positions, others_stored)?;
            self.refused.noted();
        }
        Ok(())
    }

    /// Sends what has become of events in the file since they were refused, or began to wait for others that are.
    fn look_at_refused(&mut self) -> Result<(), Problem> {
        if self.refused.unsent().is_empty() {
            return Ok(());
        }
        for (position, stored) in self.store.changed(self.refused.unsent())? {
            match stored.map(|stored| stored.event.and_then(|event| self.expecting(event))) {
                Some(Ok(event)) => self.queue.replace(position, event),
                Some(Err(why)) => log::debug!("recorder: event {position} was changed, but cannot be sent: {why}"),
                None => self.queue.forget(position),
            }
        }
        Ok(())
    }

    /// Counts the events that are dead letters now.
    fn note_given_up(&mut self) {
        let count = self.given_up.len() as u64;
        self.progress.given_up += count;
        if let Some(GivenUp { position, reason, .. }) = self.given_up.drain(..).next() {
            self.unlogged.get_or_insert((0, position, reason)).0 += count;
        }
    }

    fn log_given_up(&mut self, is_stopped: bool) {
        if !self.log_in().is_some_and(|due| is_stopped || due.is_zero()) {
            return;
        }
        if let Some((count, position, why)) = self.unlogged.take() {
            self.logged_at = Some(Instant::now());
            log::warn!(
                event = "recorder.given_up", events = count, first = position, error:% = why;
                "recorder: {} became dead letters, the first because: {why}", crate::counted(count, "event")
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
        problem.at(self.store.path())
    }
}

#[cfg(test)]
mod tests;
