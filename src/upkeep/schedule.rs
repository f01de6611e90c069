//! When each job is due, and what its runs did.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::job::Job;
use crate::pipeline::{Condition, Incident, Signal, Trouble, panic_message};

/// What a job of the upkeep did since the collector's start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobStatus {
    /// Its name: `retention`.
    pub name: &'static str,
    /// How many runs ended without an error.
    pub runs: u64,
    /// How many runs failed.
    pub failures: u64,
    /// When the last run without an error ended; `None` if there was none.
    pub last_run: Option<SystemTime>,
    /// How long that run took.
    pub last_took: Option<Duration>,
    /// When it is due next, as far as is known.
    pub next_run: Option<SystemTime>,
    /// Why its last run failed; `None` if it did not.
    pub trouble: Option<Trouble>,
}

/// A job and its place in time.
pub(super) struct Scheduled {
    job: Box<dyn Job>,
    record: Record,
    /// After a failure: not before then.
    not_before: Option<Instant>,
}

/// What a job did. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    condition: Condition,
    counts: Arc<Mutex<JobStatus>>,
}

impl Record {
    pub(super) fn new(name: &'static str) -> Self {
        let status =
            JobStatus { name, runs: 0, failures: 0, last_run: None, last_took: None, next_run: None, trouble: None };
        Self { condition: Condition::new(name), counts: Arc::new(Mutex::new(status)) }
    }

    pub(super) fn status(&self) -> JobStatus {
        JobStatus { trouble: self.condition.trouble(), ..self.counts.lock().clone() }
    }

    pub(super) fn incidents(&self) -> Vec<Incident> {
        self.condition.incidents()
    }
}

impl Scheduled {
    pub(super) fn new(job: Box<dyn Job>, record: Record) -> Self {
        Self { job, record, not_before: None }
    }

    /// Runs the job if it is due. Returns in how long it is due next.
    pub(super) fn run_if_due(&mut self, stop: &Signal) -> Option<Duration> {
        if self.next() == Some(Duration::ZERO) {
            self.run(stop);
        }
        let next = self.next();
        self.record.counts.lock().next_run = next.map(|next| SystemTime::now() + next);
        next
    }

    fn next(&mut self) -> Option<Duration> {
        let pause = self.not_before.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        self.job.due_in().map(|due| due.max(pause))
    }

    fn run(&mut self, stop: &Signal) {
        let Self { job, record, not_before } = self;
        let began = Instant::now();
        let result = match catch_unwind(AssertUnwindSafe(|| job.run(stop))) {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(panic) => Err(format!("it panicked: {}", panic_message(&*panic))),
        };
        let took = began.elapsed();
        if stop.is_raised() {
            return;
        }
        let mut counts = record.counts.lock();
        match result {
            Ok(()) => {
                counts.runs += 1;
                (counts.last_run, counts.last_took) = (Some(SystemTime::now()), Some(took));
                *not_before = None;
                record.condition.recover();
            }
            Err(reason) => {
                counts.failures += 1;
                *not_before = Some(Instant::now() + job.retry_after());
                record.condition.degrade(reason);
            }
        }
    }
}
