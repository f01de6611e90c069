//! Named threads that are joined within a deadline.

use std::any::Any;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Signal;
use crate::error::Error;

/// Threads that stop together: when one fails, the stop signal of all is raised. Several callers may wait for them at a time.
#[derive(Clone, Debug)]
pub struct ThreadGroup {
    members: Arc<Members>,
    stop: Signal,
}

#[derive(Debug, Default)]
struct Members {
    state: Mutex<State>,
    /// A thread has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    /// The first error or panic of a thread.
    failure: Option<Error>,
}

#[derive(Debug)]
struct Member {
    name: String,
    /// `None` where there was no thread, or it was joined.
    thread: Option<JoinHandle<Result<(), Error>>>,
    /// The thread is about to end, and joining it does not block.
    has_ended: bool,
}

/// Reports to the group that its thread has ended, panics included.
struct EndNotice {
    member: usize,
    members: Arc<Members>,
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        if let Some(member) = self.members.state.lock().members.get_mut(self.member) {
            member.has_ended = true;
        }
        self.members.ended.notify_all();
    }
}

impl ThreadGroup {
    /// A group without threads. `stop` is raised when one of its threads fails.
    #[must_use]
    pub fn new(stop: Signal) -> Self {
        Self { members: Arc::default(), stop }
    }

    /// Starts a thread. `stop` is raised if it returns an error or panics.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`] when the operating system refuses the thread.
    pub fn spawn(
        &mut self,
        name: impl Into<String>,
        work: impl FnOnce() -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let name = name.into();
        let member = {
            let members = &mut self.members.state.lock().members;
            members.push(Member { name: name.clone(), thread: None, has_ended: false });
            members.len() - 1
        };
        let end_notice = EndNotice { member, members: Arc::clone(&self.members) };
        let stop = self.stop.clone();
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let _end_notice = end_notice;
                let stop_others = RaiseUnlessDone(Some(stop));
                let result = work();
                if result.is_ok() {
                    stop_others.done();
                }
                result
            })
            .map_err(|source| Error::Thread { name, source })?;
        self.members.state.lock().members[member].thread = Some(thread);
        Ok(())
    }

    /// Blocks until all threads have ended or one of them has failed, at most until the deadline. Returns whether all have ended.
    ///
    /// # Errors
    ///
    /// The first error or panic of a thread, in each call.
    pub fn join_until(&self, deadline: Instant) -> Result<bool, Error> {
        let mut state = self.members.state.lock();
        loop {
            let all_ended = state.join_ended();
            if let Some(failure) = &mut state.failure {
                let copy = failure.copied();
                return Err(std::mem::replace(failure, copy));
            }
            if all_ended || self.members.ended.wait_until(&mut state, deadline).timed_out() {
                return Ok(state.join_ended());
            }
        }
    }

    /// Blocks until all threads have ended, failed or not, at most until the deadline.
    pub fn join_all_until(&self, deadline: Instant) {
        let mut state = self.members.state.lock();
        while !state.join_ended() && !self.members.ended.wait_until(&mut state, deadline).timed_out() {}
    }

    /// The names of the threads that have not ended.
    #[must_use]
    pub fn running(&self) -> String {
        let mut state = self.members.state.lock();
        state.join_ended();
        let running = state.members.iter().filter(|member| member.thread.is_some());
        running.map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl State {
    /// Joins the threads that have ended. Returns whether those are all.
    fn join_ended(&mut self) -> bool {
        let mut all_ended = true;
        for Member { name, thread, has_ended } in &mut self.members {
            if !*has_ended {
                all_ended &= thread.is_none();
                continue;
            }
            let error = match thread.take().map(JoinHandle::join) {
                None | Some(Ok(Ok(()))) => continue,
                Some(Ok(Err(error))) => error,
                Some(Err(panic)) => {
                    Error::Panicked { thread: name.clone(), message: panic_message(panic.as_ref()).to_owned() }
                }
            };
            self.failure.get_or_insert(error);
        }
        all_ended
    }
}

/// Checks that the operating system allows this many more threads. Call it before code of a library that panics where a thread is
/// refused: the caller gets an error instead. Takes a fraction of a millisecond.
///
/// # Errors
///
/// [`Error::Thread`], with `what` as the name.
pub fn room_for_threads(count: usize, what: &str) -> Result<(), Error> {
    /// How long to wait until the system no longer counts the ended probes.
    const TIMEOUT: Duration = Duration::from_millis(100);
    let running = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let before = running();
    let (release, until_released) = crossbeam_channel::bounded::<()>(0);
    let probe = || {
        let until_released = until_released.clone();
        thread::Builder::new().name("catchment-probe".into()).spawn(move || until_released.recv().is_ok())
    };
    let probes: Result<Vec<_>, _> = (0..count).map(|_| probe()).collect();
    drop(release);
    let probes = probes.map_err(|source| Error::Thread { name: what.to_owned(), source })?;
    for probe in probes {
        let _ = probe.join();
    }
    let until = Instant::now() + TIMEOUT;
    while running() > before && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

struct RaiseUnlessDone(Option<Signal>);

impl RaiseUnlessDone {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for RaiseUnlessDone {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.raise();
        }
    }
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_surfaces_with_its_thread_and_stops_the_others() {
        let stop = Signal::default();
        let mut thread_group = ThreadGroup::new(stop.clone());
        let stop_of_thread = stop.clone();
        thread_group
            .spawn("patient", move || {
                assert!(stop_of_thread.wait(Duration::from_mins(1)));
                Ok(())
            })
            .expect("a thread");
        thread_group.spawn("clumsy", || panic!("dropped it")).expect("a thread");
        let minute = || Instant::now() + Duration::from_mins(1);
        let error = thread_group.join_until(minute()).expect_err("the panic surfaces");
        assert_eq!(error.to_string(), "thread clumsy panicked: dropped it");
        assert!(stop.is_raised());
        thread_group.join_all_until(minute());
        assert_eq!(thread_group.running(), "", "the other one has ended too");
        let again = thread_group.join_until(minute()).expect_err("each caller gets the panic");
        assert_eq!(again.to_string(), error.to_string());
    }

    #[test]
    fn a_thread_that_has_not_ended_is_named() {
        let mut thread_group = ThreadGroup::new(Signal::default());
        let forever = Signal::default();
        let kept = forever.clone();
        thread_group
            .spawn("stubborn", move || {
                assert!(kept.wait(Duration::from_mins(1)));
                Ok(())
            })
            .expect("a thread");
        assert!(!thread_group.join_until(Instant::now()).expect("no failure"));
        assert_eq!(thread_group.running(), "stubborn");
        forever.raise();
        assert!(thread_group.join_until(Instant::now() + Duration::from_mins(1)).expect("no failure"));
    }

    #[test]
    fn several_callers_wait_at_a_time() {
        let (forever, stop) = (Signal::default(), Signal::default());
        let mut thread_group = ThreadGroup::new(stop);
        let kept = forever.clone();
        let work = move || {
            assert!(kept.wait(Duration::from_mins(1)));
            Err(Error::config("x", "is gone"))
        };
        thread_group.spawn("one", work).expect("a thread");
        std::thread::scope(|scope| {
            let wait = || thread_group.join_until(Instant::now() + Duration::from_mins(1));
            let waiting = [scope.spawn(wait), scope.spawn(wait)];
            forever.raise();
            for caller in waiting {
                let error = caller.join().expect("no panic").expect_err("each gets the error");
                assert_eq!(error.to_string(), "configuration: x: is gone");
            }
        });
    }
}
