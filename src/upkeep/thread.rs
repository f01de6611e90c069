//! The thread `catchment-upkeep`, which runs the jobs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use super::job::Job;
use super::schedule::{JobStatus, Record, Scheduled};
use crate::error::Error;
use crate::pipeline::{Incident, Signal, ThreadGroup, Trouble};

const NAME: &str = "catchment-upkeep";

/// How often each job is asked when it is due: its answer may depend on files, and on a clock that was set.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The shortest pause between two runs of a job that is always due.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a collector that is dropped waits for the thread.
const LEAVE: Duration = Duration::from_secs(5);

/// The jobs of a collector, and the thread that runs them. There is no thread while there is no job.
pub(crate) struct Upkeep {
    records: Mutex<Vec<(&'static str, Record)>>,
    state: Mutex<State>,
    /// Held by the thread that runs jobs: after a reload the new one begins when the old one has ended.
    turn: Arc<Mutex<()>>,
}

struct State {
    threads: ThreadGroup,
    /// Stops the current jobs.
    stop: Signal,
    is_closed: bool,
}

/// Jobs whose thread was started and waits. It ends if this is dropped.
pub(crate) struct Prepared {
    names: Vec<&'static str>,
    records: Vec<Record>,
    stop: Signal,
    begin: Option<Sender<()>>,
}

impl std::fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let jobs: Vec<&str> = self.records.lock().iter().map(|(name, _)| *name).collect();
        f.debug_struct("Upkeep").field("jobs", &jobs).finish_non_exhaustive()
    }
}

impl Upkeep {
    /// Without jobs.
    pub(crate) fn new() -> Self {
        let state = State { threads: ThreadGroup::new(Signal::default()), stop: Signal::default(), is_closed: false };
        Self { records: Mutex::default(), state: Mutex::new(state), turn: Arc::default() }
    }

    /// Makes everything that other jobs need. They replace the present ones with [`Upkeep::use_jobs`].
    ///
    /// # Errors
    ///
    /// [`Error::Thread`] when the operating system refuses the thread.
    pub(crate) fn prepare(&self, jobs: Vec<Box<dyn Job>>) -> Result<Prepared, Error> {
        let names: Vec<&'static str> = jobs.iter().map(|job| job.name()).collect();
        let records: Vec<Record> = {
            let known = self.records.lock();
            let record = |name: &&'static str| {
                let same = known.iter().find(|(known, _)| known == name);
                same.map_or_else(|| Record::new(name), |(_, record)| record.clone())
            };
            names.iter().map(record).collect()
        };
        let stop = Signal::default();
        let mut begin = None;
        if !jobs.is_empty() {
            let scheduled = jobs.into_iter().zip(records.clone()).map(|(job, record)| Scheduled::new(job, record));
            let scheduled: Vec<Scheduled> = scheduled.collect();
            let (sender, until_used) = crossbeam_channel::bounded(1);
            let (stop, turn) = (stop.clone(), Arc::clone(&self.turn));
            self.state.lock().threads.spawn(NAME, move || {
                run(scheduled, &stop, &until_used, &turn);
                Ok(())
            })?;
            begin = Some(sender);
        }
        Ok(Prepared { names, records, stop, begin })
    }

    /// Puts these jobs in the place of the present ones. A job that runs ends early. Does not block. Does nothing after
    /// [`Upkeep::close`].
    pub(crate) fn use_jobs(&self, prepared: Prepared) {
        let Prepared { names, records, stop, begin } = prepared;
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        std::mem::replace(&mut state.stop, stop).raise();
        *self.records.lock() = names.into_iter().zip(records).collect();
        if let Some(begin) = begin {
            // There is room for one, and the thread waits for it.
            let _ = begin.try_send(());
        }
    }

    /// What each job did. Does not block.
    pub(crate) fn status(&self) -> Vec<JobStatus> {
        self.records.lock().iter().map(|(_, record)| record.status()).collect()
    }

    /// What is wrong now.
    pub(crate) fn troubles(&self) -> Vec<Trouble> {
        self.status().into_iter().filter_map(|job| job.trouble).collect()
    }

    /// What was wrong lately.
    pub(crate) fn incidents(&self) -> Vec<Incident> {
        self.records.lock().iter().flat_map(|(_, record)| record.incidents()).collect()
    }

    /// Ends the jobs. Does not block.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.stop.raise();
    }

    /// Waits until the thread has ended, at most until the deadline. Returns its name if it has not. Can be called again.
    pub(crate) fn finish(&self, until: Instant) -> Option<String> {
        // Not under the lock: nothing that does not block may wait for it.
        let threads = self.state.lock().threads.clone();
        threads.join_all_until(until);
        let running = threads.running();
        (!running.is_empty()).then_some(running)
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.close();
        if self.finish(Instant::now() + LEAVE).is_some() {
            log::debug!("thread {NAME} has not ended");
        }
    }
}

/// The thread: runs each job when it is due.
fn run(mut jobs: Vec<Scheduled>, stop: &Signal, until_used: &Receiver<()>, turn: &Mutex<()>) {
    if until_used.recv().is_err() {
        return;
    }
    let _turn = turn.lock();
    loop {
        let mut wait = ASK_AGAIN;
        for job in &mut jobs {
            if stop.is_raised() {
                return;
            }
            wait = job.run_if_due(stop).map_or(wait, |due| due.min(wait));
        }
        if stop.wait(wait.max(PAUSE)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// What a job of the tests does when it runs.
    type Work = Box<dyn FnMut(&Signal) -> Result<(), Error> + Send>;

    struct Often(&'static str, Work);

    impl Job for Often {
        fn name(&self) -> &'static str {
            self.0
        }

        fn due_in(&mut self) -> Option<Duration> {
            Some(Duration::ZERO)
        }

        fn run(&mut self, stop: &Signal) -> Result<(), Error> {
            (self.1)(stop)
        }

        fn retry_after(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn job(name: &'static str, work: impl FnMut(&Signal) -> Result<(), Error> + Send + 'static) -> Box<dyn Job> {
        Box::new(Often(name, Box::new(work)))
    }

    fn upkeep(jobs: Vec<Box<dyn Job>>) -> Upkeep {
        let upkeep = Upkeep::new();
        upkeep.use_jobs(upkeep.prepare(jobs).expect("a thread"));
        upkeep
    }

    fn wait_until(upkeep: &Upkeep, is_so: impl Fn(&[JobStatus]) -> bool) -> Vec<JobStatus> {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let status = upkeep.status();
            if is_so(&status) {
                return status;
            }
            assert!(Instant::now() < until, "{status:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn minute() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    #[test]
    fn a_close_does_not_wait_for_one_that_waits_for_a_job() {
        let (release, until_released) = crossbeam_channel::bounded::<()>(0);
        let (began, has_begun) = crossbeam_channel::bounded::<()>(1);
        let hangs = move |_: &Signal| {
            let _ = (began.try_send(()), until_released.recv());
            Ok(())
        };
        let upkeep = upkeep(vec![job("hangs", hangs)]);
        has_begun.recv().expect("it runs");
        std::thread::scope(|scope| {
            let long = scope.spawn(|| upkeep.finish(minute()));
            std::thread::sleep(Duration::from_millis(20));
            upkeep.close();
            assert_eq!((upkeep.finish(Instant::now()).as_deref(), long.is_finished()), (Some(NAME), false));
            drop(release);
            assert_eq!(long.join().expect("no panic"), None);
        });
    }

    #[test]
    fn errors_and_panics_are_counted_and_the_other_jobs_run() {
        let mut turn = 0;
        let fails = job("fails", move |_| {
            turn += 1;
            match turn {
                1 => Err(Error::config("x", "is gone")),
                2 => panic!("dropped it"),
                _ => Ok(()),
            }
        });
        let upkeep = upkeep(vec![fails, job("works", |_| Ok(()))]);
        let status = wait_until(&upkeep, |jobs| jobs.iter().all(|job| job.runs > 0));
        assert_eq!(status.iter().map(|job| (job.name, job.failures)).collect::<Vec<_>>(), [("fails", 2), ("works", 0)]);
        assert!(status.iter().all(|job| job.last_run.is_some() && job.last_took.is_some()), "{status:?}");
        let reasons: Vec<String> = upkeep.incidents().into_iter().map(|incident| incident.reason).collect();
        assert_eq!(reasons, ["configuration: x: is gone", "it panicked: dropped it"]);
        wait_until(&upkeep, |jobs| jobs.iter().all(|job| job.trouble.is_none()));
        upkeep.close();
        assert_eq!(upkeep.finish(minute()), None);
    }

    #[test]
    fn a_job_that_runs_is_ended_by_a_stop_and_by_other_jobs() {
        let (ended, begun) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let long = || {
            let (ended, begun) = (Arc::clone(&ended), Arc::clone(&begun));
            job("long", move |stop| {
                begun.fetch_add(1, Ordering::SeqCst);
                assert!(stop.wait(Duration::from_mins(1)));
                ended.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        };
        let upkeep = upkeep(vec![long()]);
        wait_until(&upkeep, |_| begun.load(Ordering::SeqCst) == 1);
        upkeep.use_jobs(upkeep.prepare(vec![long(), job("other", |_| Ok(()))]).expect("a thread"));
        wait_until(&upkeep, |_| begun.load(Ordering::SeqCst) == 2);
        assert_eq!(ended.load(Ordering::SeqCst), 1, "one at a time");
        assert_eq!(upkeep.status()[0].runs, 0, "a run that was ended early does not count");
        drop(upkeep.prepare(vec![long()]).expect("a thread"));
        upkeep.close();
        assert_eq!(upkeep.finish(minute()), None);
        assert_eq!((begun.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (2, 2), "the last was never used");
        let names: Vec<&str> = upkeep.status().iter().map(|job| job.name).collect();
        assert_eq!(names, ["long", "other"]);
    }

    #[test]
    fn there_is_no_thread_without_a_job() {
        let upkeep = upkeep(Vec::new());
        assert_eq!(upkeep.finish(Instant::now()), None);
        assert!(upkeep.status().is_empty() && upkeep.troubles().is_empty());
    }
}
