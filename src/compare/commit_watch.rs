//! Sees commits from outside, as any reader of the database does.

use std::path::Path;
use std::time::Duration;

use super::application::{ApplicationMessage, Outcome};
use super::clock;
use super::context::RunContext;
use super::environment::TestEnvironment;
use super::process::ChildProcess;
use super::{CompareError, arms};
use crate::store::Reader;

/// How often a timed run polls the database.
pub(super) const POLL_INTERVAL: Duration = Duration::from_micros(500);

/// After this long without a new row, core NATS has lost the rest.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// After this long without a new row, an arm that may lose nothing has failed.
const FAILED_AFTER: Duration = Duration::from_secs(30);

/// The most points of a timeline.
const POINTS: usize = 200;

/// Readers that notice commits.
pub(super) struct CommitWatch {
    /// One for each database. There is at least one.
    databases: Vec<Watched>,
    rows: u64,
    /// The time of each commit seen, and the rows by then.
    commits: Vec<(u64, u64)>,
}

struct Watched {
    reader: Reader,
    version: Option<i64>,
    rows: u64,
}

impl Watched {
    /// Whether there may be more rows. Without a new commit it reads one number of shared memory.
    fn poll(&mut self) -> Result<(), CompareError> {
        let version = self.reader.version()?;
        if self.version.replace(version) != Some(version) {
            // Rows are only added here, so the last row's number is the number of rows.
            self.rows = self.reader.id_before_last(0)?.unsigned_abs();
        }
        Ok(())
    }
}

impl CommitWatch {
    pub(super) fn open(database: &Path) -> Result<Self, CompareError> {
        Self::over([database])
    }

    /// Of several databases together.
    pub(super) fn over<'p>(databases: impl IntoIterator<Item = &'p Path>) -> Result<Self, CompareError> {
        let open = |database| Ok(Watched { reader: Reader::open(database)?, version: None, rows: 0 });
        let databases = databases.into_iter().map(open).collect::<Result<_, CompareError>>()?;
        Ok(Self { databases, rows: 0, commits: Vec::new() })
    }

    /// Polls once; returns whether there are more rows than before.
    pub(super) fn poll(&mut self) -> Result<bool, CompareError> {
        self.databases.iter_mut().try_for_each(Watched::poll)?;
        let rows = self.databases.iter().map(|database| database.rows).sum();
        let more = rows > self.rows;
        if more {
            self.rows = rows;
            self.commits.push((clock::now(), rows));
        }
        Ok(more)
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// When the last commit was seen.
    pub(super) fn last_commit(&self) -> Option<u64> {
        self.commits.last().map(|(time, _)| *time)
    }

    /// Of the first database, for rows after an id: see [`Reader::events_after`].
    pub(super) fn reader(&self) -> &Reader {
        &self.databases[0].reader
    }

    /// Seconds since `began`, and rows by then.
    pub(super) fn timeline(&self, began: u64) -> Vec<(f64, u64)> {
        let step = self.commits.len().div_ceil(POINTS).max(1);
        let last = self.commits.len().saturating_sub(1);
        let points = self.commits.iter().enumerate().filter(|(at, _)| at % step == 0 || *at == last);
        points.map(|(_, (time, rows))| (clock::seconds(began, *time), *rows)).collect()
    }
}

/// A running application and the test environment that it runs in.
pub(super) struct Observation<'a, 'c> {
    context: &'a RunContext<'c>,
    environment: &'a mut TestEnvironment<'c>,
    application: &'a mut ChildProcess,
    poll_interval: Duration,
}

impl<'a, 'c> Observation<'a, 'c> {
    pub(super) fn new(
        context: &'a RunContext<'c>,
        environment: &'a mut TestEnvironment<'c>,
        application: &'a mut ChildProcess,
        poll_interval: Duration,
    ) -> Self {
        Self { context, environment, application, poll_interval }
    }

    /// Waits until the application is done and `expected` rows are there, or no more come. Calls `at_commit` after each commit
    /// seen and `at_poll` after each poll.
    pub(super) fn wait_for_all(
        &mut self,
        watch: &mut CommitWatch,
        expected: u64,
        mut at_commit: impl FnMut(&CommitWatch) -> Result<(), CompareError>,
        mut at_poll: impl FnMut(&mut TestEnvironment<'_>) -> Result<(), CompareError>,
    ) -> Result<Outcome, CompareError> {
        let arm = self.environment.setup.arm;
        let mut outcome = None;
        let mut last_progress = clock::now();
        loop {
            if watch.poll()? {
                at_commit(watch)?;
                last_progress = clock::now();
            }
            if outcome.is_none() {
                outcome = done(self.application)?;
                if outcome.is_some() {
                    last_progress = last_progress.max(clock::now());
                }
            }
            let idle = Duration::from_nanos(clock::now() - last_progress);
            if let Some(outcome) =
                outcome.take_if(|_| watch.rows() >= expected || (arms::may_lose(arm) && idle > LOST_AFTER))
            {
                return Ok(outcome);
            }
            if outcome.is_some() && idle > FAILED_AFTER {
                let detail =
                    format!("{} of {expected} rows are there, and no more came for {FAILED_AFTER:?}", watch.rows());
                return Err(CompareError::Mismatch { arm: arms::name(arm).into(), detail });
            }
            if let Err(stopped) = self.context.check_stop() {
                // Nothing of this run is kept, so nothing has to be drained.
                self.application.kill();
                self.environment.kill_collector();
                return Err(stopped);
            }
            self.environment.check_processes()?;
            at_poll(self.environment)?;
            std::thread::sleep(self.poll_interval);
        }
    }
}

/// The application's outcome, once it is done.
fn done(application: &mut ChildProcess) -> Result<Option<Outcome>, CompareError> {
    let Some(line) = application.try_next_line()? else { return Ok(None) };
    match serde_json::from_str(&line) {
        Ok(ApplicationMessage::Done(outcome)) => Ok(Some(outcome)),
        _ => Err(application.error("wrote a line that is not its outcome")),
    }
}
