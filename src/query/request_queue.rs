//! Requests without an answer yet: those that wait for a thread, and those that a thread runs.
//!
//! Each has an answer by its time-out, even where SQLite does not stop: a single step of a statement, such as `trim` of a huge
//! text, cannot be interrupted. So a watchdog checks the clock. It answers requests that have waited too long, and interrupts
//! statements at their time-out. If a statement does not end soon after that, the watchdog answers in place of the thread. Such a
//! thread is called stuck. It takes no request until the step ends. While all threads are stuck, requests are refused at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::endpoint::Endpoint;
use crate::broker::{AddressedReply, Reply, ReplyQueue, Request};
use crate::pipeline::Signal;
use crate::store::{Interrupter, QueryError};

/// The most bytes that wait, unless a single request is larger.
pub(super) const MAX_BYTES: usize = 32 << 20;

/// How long an interrupted statement may take to end after its time-out.
const GRACE: Duration = Duration::from_millis(100);

/// The shortest and the longest sleep of the watchdog. A request that begins while it sleeps ends no earlier than the shortest
/// time-out.
const SLEEPS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long the watchdog's replies wait while the connection is full.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long interrupted statements may take to end when the service quits.
const QUIT_GRACE: Duration = Duration::from_millis(30);

/// A request that waits for a thread.
pub(super) struct QueuedRequest {
    pub(super) request: Request,
    /// The number of the query that answers it.
    pub(super) endpoint: usize,
    pub(super) since: Instant,
    /// When it was received, in nanoseconds since 1970.
    pub(super) received_ns: i64,
}

/// Why a request is not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueRejection {
    /// The most requests wait already.
    Full,
    /// The waiting requests have the most bytes already.
    FullOfBytes,
    /// All threads are stuck.
    Stuck,
    /// The service ends.
    Closed,
}

/// The state that the listener, the threads that answer and the watchdog share.
pub(super) struct RequestQueue {
    endpoints: Arc<[Endpoint]>,
    capacity: usize,
    state: Mutex<State>,
    /// A request was queued, or the queue was closed.
    request_or_close: Condvar,
    /// A thread ended, or all must end.
    thread_end: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<QueuedRequest>,
    bytes: usize,
    closed: bool,
    workers: Vec<WorkerState>,
}

/// A thread that answers.
struct WorkerState {
    interrupter: Interrupter,
    running: Option<RunningRequest>,
    has_ended: bool,
}

/// The request that a thread runs.
struct RunningRequest {
    reply: String,
    endpoint: usize,
    since: Instant,
    /// The watchdog has answered it: the thread is stuck.
    answered: bool,
}

impl RequestQueue {
    /// A queue in which at most so many requests wait.
    pub(super) fn new(endpoints: &Arc<[Endpoint]>, capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            endpoints: Arc::clone(endpoints),
            capacity,
            state: Mutex::default(),
            request_or_close: Condvar::new(),
            thread_end: Condvar::new(),
        })
    }

    /// How many requests may wait.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds a thread that answers. `interrupter` interrupts its statement.
    pub(super) fn add_worker(self: &Arc<Self>, interrupter: Interrupter) -> QueueWorker {
        let mut state = self.state.lock();
        state.workers.push(WorkerState { interrupter, running: None, has_ended: false });
        QueueWorker { queue: Arc::clone(self), number: state.workers.len() - 1 }
    }

    /// Queues a request for a thread. Returns it with the reason if it cannot wait.
    pub(super) fn offer(&self, queued: QueuedRequest) -> Option<(QueuedRequest, QueueRejection)> {
        let mut state = self.state.lock();
        let size = queued.request.size();
        if state.closed {
            return Some((queued, QueueRejection::Closed));
        }
        if state.workers.iter().all(WorkerState::is_stuck) {
            return Some((queued, QueueRejection::Stuck));
        }
        if state.waiting.len() >= self.capacity {
            return Some((queued, QueueRejection::Full));
        }
        if state.bytes > 0 && state.bytes + size > MAX_BYTES {
            return Some((queued, QueueRejection::FullOfBytes));
        }
        state.bytes += size;
        state.waiting.push_back(queued);
        self.request_or_close.notify_one();
        None
    }

    /// Accepts no more requests. Those that wait are answered.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.request_or_close.notify_all();
    }

    /// Wakes the watchdog after the quit was raised.
    pub(super) fn quit(&self) {
        let _state = self.state.lock();
        self.thread_end.notify_all();
    }

    /// Runs until all threads have ended, or the quit. Then running statements are interrupted, and every request without an
    /// answer gets an error.
    pub(super) fn run_watchdog(&self, reply_queue: &ReplyQueue, quit: &Signal) {
        let shortest = self.endpoints.iter().map(|endpoint| endpoint.timeout).min().unwrap_or(SLEEPS.1);
        let longest = shortest.clamp(SLEEPS.0, SLEEPS.1);
        let mut state = self.state.lock();
        while !quit.is_raised() && !state.workers.iter().all(|worker| worker.has_ended) {
            let now = Instant::now();
            let Due { replies, stuck, next } = self.check(&mut state, now);
            if !replies.is_empty() {
                MutexGuard::unlocked(&mut state, || send(reply_queue, replies, &stuck));
            }
            let until = next.unwrap_or(now + longest).clamp(now + SLEEPS.0, now + longest);
            let _ = self.thread_end.wait_until(&mut state, until);
        }
        // Threads that wait for a request end.
        state.closed = true;
        self.request_or_close.notify_all();
        state.bytes = 0;
        let waiting = std::mem::take(&mut state.waiting);
        state.workers.iter().for_each(|worker| worker.interrupter.interrupt());
        let is_running = |state: &mut State| state.workers.iter().any(|worker| worker.running.is_some());
        let _ = self.thread_end.wait_while_for(&mut state, is_running, QUIT_GRACE);
        let running = state.workers.iter_mut().filter_map(|worker| worker.running.as_mut());
        let unanswered = running.filter(|running| !running.answered);
        let mut replies: Vec<_> = unanswered
            .map(|running| running.answer(self.stopping(running.endpoint, running.since.elapsed())))
            .collect();
        drop(state);
        replies.extend(waiting.into_iter().map(|QueuedRequest { request, endpoint, .. }| AddressedReply {
            to: request.reply,
            reply: self.stopping(endpoint, Duration::ZERO),
        }));
        let _ = replies.is_empty() || reply_queue.send(replies, QUIT_GRACE);
    }

    /// Answers and interrupts what has reached its time-out, and finds the time of the next check.
    fn check(&self, state: &mut State, now: Instant) -> Due {
        let (mut replies, mut stuck, mut next) = (Vec::new(), Vec::new(), None::<Instant>);
        let mut at = |due: Instant| next = Some(next.map_or(due, |next| next.min(due)));
        let State { waiting, bytes, workers, .. } = state;
        if waiting.iter().any(|queued| self.is_late(queued, now)) {
            waiting.retain_mut(|queued| {
                let is_late = self.is_late(queued, now);
                if is_late {
                    *bytes -= queued.request.size();
                    let to = std::mem::take(&mut queued.request.reply);
                    replies.push(AddressedReply { to, reply: self.no_thread(queued.endpoint) });
                }
                !is_late
            });
        }
        waiting.iter().filter_map(|queued| self.timeout(queued.endpoint, queued.since)).for_each(&mut at);
        for WorkerState { interrupter, running, .. } in workers {
            let Some(running) = running else { continue };
            let Some(timeout) = self.timeout(running.endpoint, running.since) else { continue };
            if now < timeout {
                at(timeout);
                continue;
            }
            // At each check again: an interrupt is lost if no statement runs, for instance just before it begins.
            interrupter.interrupt();
            if now < timeout + GRACE {
                at(timeout + GRACE);
                continue;
            }
            if !running.answered {
                let reason = self.too_slow(running.endpoint, now - running.since);
                replies.push(running.answer(Reply::failure(504, reason.clone())));
                stuck.push(reason);
            }
        }
        Due { replies, stuck, next }
    }

    fn is_late(&self, queued: &QueuedRequest, now: Instant) -> bool {
        self.timeout(queued.endpoint, queued.since).is_some_and(|timeout| now >= timeout)
    }

    fn timeout(&self, endpoint: usize, since: Instant) -> Option<Instant> {
        since.checked_add(self.endpoints[endpoint].timeout)
    }

    /// The error of a request that waited for its time-out: its requester has given up or soon will, so a thread takes a later one.
    fn no_thread(&self, endpoint: usize) -> Reply {
        let Endpoint { timeout, counters, .. } = &self.endpoints[endpoint];
        let reason = format!("busy: no thread was free within {timeout:?}, the query's timeout; ask again later");
        counters.failed(Duration::ZERO, 503, &reason);
        Reply::failure(503, reason)
    }

    fn too_slow(&self, endpoint: usize, took: Duration) -> String {
        let Endpoint { query, timeout, counters, .. } = &self.endpoints[endpoint];
        let reason = format!("query {query} took longer than its timeout, {timeout:?}");
        counters.failed(took, 504, &reason);
        reason
    }

    fn stopping(&self, endpoint: usize, took: Duration) -> Reply {
        let reason = QueryError::stopping().to_string();
        self.endpoints[endpoint].counters.failed(took, 503, &reason);
        Reply::failure(503, reason)
    }
}

/// The result of one check of the clock.
struct Due {
    replies: Vec<AddressedReply>,
    /// The reasons of those replies that are sent in place of stuck threads.
    stuck: Vec<String>,
    /// When to check again.
    next: Option<Instant>,
}

/// Sends the watchdog's replies. Call it without the lock: writing to the log may block too.
fn send(reply_queue: &ReplyQueue, replies: Vec<AddressedReply>, stuck: &[String]) {
    if !reply_queue.send(replies, TIMEOUT) {
        log::debug!("service: time-out errors were not sent: the connection is lost or full");
    }
    for reason in stuck {
        log::warn!(
            event = "query.stuck", reason = reason;
            "service: {reason}, and cannot be interrupted: its thread takes no other request until it ends"
        );
    }
}

impl RunningRequest {
    /// The watchdog's answer in place of the thread.
    fn answer(&mut self, reply: Reply) -> AddressedReply {
        self.answered = true;
        AddressedReply { to: std::mem::take(&mut self.reply), reply }
    }
}

impl WorkerState {
    fn is_stuck(&self) -> bool {
        self.has_ended || self.running.as_ref().is_some_and(|running| running.answered)
    }
}

/// A thread's access to the queue.
pub(super) struct QueueWorker {
    queue: Arc<RequestQueue>,
    number: usize,
}

impl QueueWorker {
    /// The request that has waited longest; its time begins now. Blocks until there is one. `None` once the queue is closed and
    /// empty.
    pub(super) fn take(&self) -> Option<QueuedRequest> {
        let mut state = self.queue.state.lock();
        loop {
            if let Some(queued) = state.waiting.pop_front() {
                state.bytes -= queued.request.size();
                state.workers[self.number].running = Some(RunningRequest {
                    reply: queued.request.reply.clone(),
                    endpoint: queued.endpoint,
                    since: Instant::now(),
                    answered: false,
                });
                return Some(queued);
            }
            if state.closed {
                return None;
            }
            self.queue.request_or_close.wait(&mut state);
        }
    }

    /// Ends the request that was taken last. `false` if the watchdog has answered it: the thread must not answer it too.
    pub(super) fn finish(&self) -> bool {
        let mut state = self.queue.state.lock();
        let running = state.workers[self.number].running.take();
        if state.closed {
            // The watchdog may wait for the last request to end.
            self.queue.thread_end.notify_all();
        }
        running.is_some_and(|running| !running.answered)
    }
}

impl Drop for QueueWorker {
    fn drop(&mut self) {
        self.queue.state.lock().workers[self.number].has_ended = true;
        self.queue.thread_end.notify_all();
    }
}
