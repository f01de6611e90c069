//! Requests that are not answered yet: those that wait for a thread, and those that a thread is at.
//!
//! Each of them has an answer by its time-out, whatever SQLite does: a single step of a statement, `trim` of a huge text say,
//! cannot be interrupted. So a watchdog looks at the clock. It answers what has waited for too long, interrupts a statement at its
//! time-out, and answers in the thread's place where that does not help. A thread in such a step is called stuck. It takes no
//! request until the step ends, and while all threads are stuck requests are refused at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::endpoint::Endpoint;
use crate::broker::{AddressedReply, Reply, ReplyQueue, Request};
use crate::pipeline::Signal;
use crate::store::{Breaker, Unanswered};

/// The most bytes that wait, unless a single request is larger.
pub(super) const MOST_BYTES: usize = 32 << 20;

/// How long behind its time-out a statement that was interrupted is left to end by itself.
const GRACE: Duration = Duration::from_millis(100);

/// The shortest and the longest sleep of the watchdog. What begins while it sleeps ends no earlier than the shortest time-out.
const SLEEPS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long the watchdog's replies wait for a connection that takes no more.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same as [`GRACE`] at the quit.
const PARTING: Duration = Duration::from_millis(30);

/// A request that waits for a thread.
pub(super) struct Waiting {
    pub(super) request: Request,
    /// The number of the query that takes it.
    pub(super) endpoint: usize,
    pub(super) since: Instant,
    /// When it came, in nanoseconds since 1970.
    pub(super) received_ns: i64,
}

/// Why a request cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// As many wait as may.
    Full,
    /// Those that wait take as many bytes as they may.
    FullOfBytes,
    /// No thread can take it: all are stuck.
    Stuck,
    /// The service ends.
    Closed,
}

/// What the listener, the threads that answer and the watchdog share.
pub(super) struct Work {
    endpoints: Arc<[Endpoint]>,
    most: usize,
    state: Mutex<State>,
    /// Something waits, or nothing more will.
    wanted: Condvar,
    /// A thread has ended, or all are to.
    ending: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    closed: bool,
    threads: Vec<Thread>,
}

/// A thread that answers.
struct Thread {
    breaker: Breaker,
    running: Option<Running>,
    is_gone: bool,
}

/// What it is at.
struct Running {
    reply: String,
    endpoint: usize,
    since: Instant,
    /// Answered by the watchdog: the thread is stuck.
    answered: bool,
}

impl Work {
    /// At most so many requests wait.
    pub(super) fn new(endpoints: &Arc<[Endpoint]>, most: usize) -> Arc<Self> {
        Arc::new(Self {
            endpoints: Arc::clone(endpoints),
            most,
            state: Mutex::default(),
            wanted: Condvar::new(),
            ending: Condvar::new(),
        })
    }

    /// The most that wait.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// One more thread answers. `breaker` interrupts what it runs.
    pub(super) fn join(self: &Arc<Self>, breaker: Breaker) -> Place {
        let mut state = self.state.lock();
        state.threads.push(Thread { breaker, running: None, is_gone: false });
        Place { work: Arc::clone(self), number: state.threads.len() - 1 }
    }

    /// Keeps a request for a thread; gives it back, with the reason, where it cannot wait.
    pub(super) fn offer(&self, waiting: Waiting) -> Option<(Waiting, NoRoom)> {
        let mut state = self.state.lock();
        let size = waiting.request.size();
        if state.closed {
            return Some((waiting, NoRoom::Closed));
        }
        if state.threads.iter().all(Thread::is_stuck) {
            return Some((waiting, NoRoom::Stuck));
        }
        if state.waiting.len() >= self.most {
            return Some((waiting, NoRoom::Full));
        }
        if state.bytes > 0 && state.bytes + size > MOST_BYTES {
            return Some((waiting, NoRoom::FullOfBytes));
        }
        state.bytes += size;
        state.waiting.push_back(waiting);
        self.wanted.notify_one();
        None
    }

    /// No more requests come. Those that wait are answered.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wanted.notify_all();
    }

    /// The quit was raised: the watchdog looks at once.
    pub(super) fn quit(&self) {
        let _state = self.state.lock();
        self.ending.notify_all();
    }

    /// Watches until all threads have ended, or the quit. Then what is still run is interrupted, and all that is not answered
    /// gets an error.
    pub(super) fn watch(&self, reply_queue: &ReplyQueue, quit: &Signal) {
        let shortest = self.endpoints.iter().map(|endpoint| endpoint.timeout).min().unwrap_or(SLEEPS.1);
        let longest = shortest.clamp(SLEEPS.0, SLEEPS.1);
        let mut state = self.state.lock();
        while !quit.is_raised() && !state.threads.iter().all(|thread| thread.is_gone) {
            let now = Instant::now();
            let Due { replies, stuck, next } = self.look(&mut state, now);
            if !replies.is_empty() {
                MutexGuard::unlocked(&mut state, || tell(reply_queue, replies, &stuck));
            }
            let until = next.unwrap_or(now + longest).clamp(now + SLEEPS.0, now + longest);
            let _ = self.ending.wait_until(&mut state, until);
        }
        // Threads that wait for work end.
        state.closed = true;
        self.wanted.notify_all();
        state.bytes = 0;
        let waiting = std::mem::take(&mut state.waiting);
        state.threads.iter().for_each(|thread| thread.breaker.break_off());
        let _ =
            self.ending.wait_while_for(&mut state, |state| state.threads.iter().any(|t| t.running.is_some()), PARTING);
        let left = state.threads.iter_mut().filter_map(|thread| thread.running.as_mut()).filter(|it| !it.answered);
        let mut replies: Vec<_> =
            left.map(|running| running.answer(self.stopping(running.endpoint, running.since.elapsed()))).collect();
        drop(state);
        replies.extend(waiting.into_iter().map(|Waiting { request, endpoint, .. }| AddressedReply {
            to: request.reply,
            reply: self.stopping(endpoint, Duration::ZERO),
        }));
        let _ = replies.is_empty() || reply_queue.send(replies, PARTING);
    }

    /// Answers and interrupts what is due; says when to look again.
    fn look(&self, state: &mut State, now: Instant) -> Due {
        let (mut replies, mut stuck, mut next) = (Vec::new(), Vec::new(), None::<Instant>);
        let mut at = |due: Instant| next = Some(next.map_or(due, |next| next.min(due)));
        let State { waiting, bytes, threads, .. } = state;
        if waiting.iter().any(|waiting| self.is_late(waiting, now)) {
            waiting.retain_mut(|waiting| {
                let is_late = self.is_late(waiting, now);
                if is_late {
                    *bytes -= waiting.request.size();
                    let to = std::mem::take(&mut waiting.request.reply);
                    replies.push(AddressedReply { to, reply: self.no_thread(waiting.endpoint) });
                }
                !is_late
            });
        }
        waiting.iter().filter_map(|waiting| self.timeout(waiting.endpoint, waiting.since)).for_each(&mut at);
        for Thread { breaker, running, .. } in threads {
            let Some(running) = running else { continue };
            let Some(timeout) = self.timeout(running.endpoint, running.since) else { continue };
            if now < timeout {
                at(timeout);
                continue;
            }
            // Again at each look: an interrupt between two steps of the work, before the statement begins say, is lost.
            breaker.break_off();
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

    fn is_late(&self, waiting: &Waiting, now: Instant) -> bool {
        self.timeout(waiting.endpoint, waiting.since).is_some_and(|timeout| now >= timeout)
    }

    fn timeout(&self, endpoint: usize, since: Instant) -> Option<Instant> {
        since.checked_add(self.endpoints[endpoint].timeout)
    }

    /// Whoever asked has given up by now, or soon will; those behind it have not.
    fn no_thread(&self, endpoint: usize) -> Reply {
        let Endpoint { timeout, counts, .. } = &self.endpoints[endpoint];
        let reason = format!("busy: no thread was free within {timeout:?}, the query's timeout; ask again later");
        counts.failed(Duration::ZERO, 503, &reason);
        Reply::failure(503, reason)
    }

    fn too_slow(&self, endpoint: usize, took: Duration) -> String {
        let Endpoint { query, timeout, counts, .. } = &self.endpoints[endpoint];
        let reason = format!("query {query} took longer than its timeout, {timeout:?}");
        counts.failed(took, 504, &reason);
        reason
    }

    fn stopping(&self, endpoint: usize, took: Duration) -> Reply {
        let reason = Unanswered::Quitting.to_string();
        self.endpoints[endpoint].counts.failed(took, 503, &reason);
        Reply::failure(503, reason)
    }
}

/// What a look at the clock finds.
struct Due {
    replies: Vec<AddressedReply>,
    /// Why some of them are sent in the place of threads that are stuck.
    stuck: Vec<String>,
    /// When to look again.
    next: Option<Instant>,
}

/// Sends the watchdog's replies. Not under the lock: writing to the log may block, too.
fn tell(reply_queue: &ReplyQueue, replies: Vec<AddressedReply>, stuck: &[String]) {
    if !reply_queue.send(replies, PATIENCE) {
        log::debug!("service: answers to requests that took too long found no connection");
    }
    for reason in stuck {
        log::warn!("service: {reason}, and cannot be interrupted: its thread takes no other request until it ends");
    }
}

impl Running {
    /// The watchdog's answer, in the thread's place.
    fn answer(&mut self, reply: Reply) -> AddressedReply {
        self.answered = true;
        AddressedReply { to: std::mem::take(&mut self.reply), reply }
    }
}

impl Thread {
    fn is_stuck(&self) -> bool {
        self.is_gone || self.running.as_ref().is_some_and(|running| running.answered)
    }
}

/// A thread's place at the work.
pub(super) struct Place {
    work: Arc<Work>,
    number: usize,
}

impl Place {
    /// The request that has waited longest; its time begins now. Blocks until there is one; `None` when there will be none.
    pub(super) fn take(&self) -> Option<Waiting> {
        let mut state = self.work.state.lock();
        loop {
            if let Some(waiting) = state.waiting.pop_front() {
                state.bytes -= waiting.request.size();
                state.threads[self.number].running = Some(Running {
                    reply: waiting.request.reply.clone(),
                    endpoint: waiting.endpoint,
                    since: Instant::now(),
                    answered: false,
                });
                return Some(waiting);
            }
            if state.closed {
                return None;
            }
            self.work.wanted.wait(&mut state);
        }
    }

    /// The request that was taken last is done with; `false` where the watchdog has answered it.
    pub(super) fn is_mine_to_answer(&self) -> bool {
        let mut state = self.work.state.lock();
        let running = state.threads[self.number].running.take();
        if state.closed {
            // The watchdog may wait for the last one.
            self.work.ending.notify_all();
        }
        running.is_some_and(|running| !running.answered)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.work.state.lock().threads[self.number].is_gone = true;
        self.work.ending.notify_all();
    }
}
