//! The threads of a pipeline: named, watched, joined within a deadline.

use std::any::Any;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::Signal;
use crate::error::Error;

/// Threads that belong together: when one fails, all are told to stop.
#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
    ended: (Sender<usize>, Receiver<usize>),
    stop: Signal,
}

#[derive(Debug)]
struct Member {
    name: String,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// Tells the crew that its thread ends, whichever way it ends.
struct Leaving {
    member: usize,
    ended: Sender<usize>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let _ = self.ended.send(self.member);
    }
}

impl Crew {
    /// A crew without members. `stop` is raised when a member fails.
    #[must_use]
    pub fn new(stop: Signal) -> Self {
        Self { members: Vec::new(), ended: crossbeam_channel::unbounded(), stop }
    }

    /// Starts a thread.
    ///
    /// # Panics
    ///
    /// When the operating system gives no thread.
    pub fn spawn(&mut self, name: impl Into<String>, work: impl FnOnce() -> Result<(), Error> + Send + 'static) {
        let name = name.into();
        let leaving = Leaving { member: self.members.len(), ended: self.ended.0.clone() };
        let stop = self.stop.clone();
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let _leaving = leaving;
                let failing = RaiseUnlessDone(Some(stop));
                let result = work();
                if result.is_ok() {
                    failing.done();
                }
                result
            })
            .unwrap_or_else(|e| panic!("no thread {name}: {e}"));
        self.members.push(Member { name, thread: Some(thread) });
    }

    /// Blocks until all members have ended, at most until the deadline. `true` when all have. May be called again.
    ///
    /// # Errors
    ///
    /// The first failure or panic of a member.
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

    /// The names of the members that have not ended.
    #[must_use]
    pub fn running(&self) -> String {
        let running = self.members.iter().filter(|member| member.thread.is_some());
        running.map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
    }
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
    use std::time::Duration;

    #[test]
    fn a_panic_surfaces_with_its_thread_and_stops_the_others() {
        let stop = Signal::default();
        let mut crew = Crew::new(stop.clone());
        let heard = stop.clone();
        crew.spawn("patient", move || {
            assert!(heard.wait(Duration::from_mins(1)));
            Ok(())
        });
        crew.spawn("clumsy", || panic!("dropped it"));
        let minute = || Instant::now() + Duration::from_mins(1);
        let error = crew.join_until(minute()).expect_err("the panic surfaces");
        assert_eq!(error.to_string(), "thread clumsy panicked: dropped it");
        assert!(stop.is_raised());
        assert!(crew.join_until(minute()).expect("the other one ended well"));
    }

    #[test]
    fn who_is_left_behind_is_named() {
        let mut crew = Crew::new(Signal::default());
        let forever = Signal::default();
        let kept = forever.clone();
        crew.spawn("stubborn", move || {
            assert!(kept.wait(Duration::from_mins(1)));
            Ok(())
        });
        assert!(!crew.join_until(Instant::now()).expect("no failure"));
        assert_eq!(crew.running(), "stubborn");
        forever.raise();
        assert!(crew.join_until(Instant::now() + Duration::from_mins(1)).expect("no failure"));
    }
}
