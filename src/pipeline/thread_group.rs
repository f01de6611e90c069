//! Named threads that are joined within a deadline.

use std::any::Any;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::Signal;
use crate::error::Error;

/// Threads that stop together: when one fails, the stop signal of all is raised.
#[derive(Debug)]
pub struct ThreadGroup {
    members: Vec<Member>,
    ended: (Sender<usize>, Receiver<usize>),
    stop: Signal,
}

#[derive(Debug)]
struct Member {
    name: String,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// Reports to the group that its thread has ended, panics included.
struct EndNotice {
    member: usize,
    ended: Sender<usize>,
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        let _ = self.ended.send(self.member);
    }
}

impl ThreadGroup {
    /// A group without threads. `stop` is raised when one of its threads fails.
    #[must_use]
    pub fn new(stop: Signal) -> Self {
        Self { members: Vec::new(), ended: crossbeam_channel::unbounded(), stop }
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
        let end_notice = EndNotice { member: self.members.len(), ended: self.ended.0.clone() };
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
            .map_err(|source| Error::Thread { name: name.clone(), source });
        // Added even without a thread: dropping its closure has sent the end notice, which has this member's index.
        let (thread, refused) = match thread {
            Ok(thread) => (Some(thread), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.members.push(Member { name, thread });
        refused
    }

    /// Blocks until all threads have ended, at most until the deadline. Returns whether all have ended. Can be called again.
    ///
    /// # Errors
    ///
    /// The first error or panic of a thread.
    pub fn join_until(&mut self, deadline: Instant) -> Result<bool, Error> {
        while self.members.iter().any(|member| member.thread.is_some()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(member) = self.ended.1.recv_timeout(left) else { return Ok(false) };
            self.join(member)?;
        }
        Ok(true)
    }

    fn join(&mut self, member: usize) -> Result<(), Error> {
        let Member { name, thread } = &mut self.members[member];
        match thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => Err(Error::Panicked { thread: name.clone(), message: panic_message(panic.as_ref()) }),
        }
    }

    /// The names of the threads that have not ended.
    #[must_use]
    pub fn running(&self) -> String {
        let running = self.members.iter().filter(|member| member.thread.is_some());
        running.map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
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
    const PATIENCE: Duration = Duration::from_millis(100);
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
    let until = Instant::now() + PATIENCE;
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

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
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
        assert!(thread_group.join_until(minute()).expect("the other one ended well"));
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
}
