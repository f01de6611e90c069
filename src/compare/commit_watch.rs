//! Sees the commits from outside, as any reader of the database would.

use std::path::Path;
use std::time::Duration;

use super::application::{Outcome, Said};
use super::clock;
use super::driver::Session;
use super::environment::Stage;
use super::process::Process;
use super::{Failure, arms};
use crate::store::Reader;

/// Between two looks at the database in a timed run.
pub(super) const LOOK: Duration = Duration::from_micros(500);

/// How long nothing may come before core NATS is taken to have lost the rest.
const LOST: Duration = Duration::from_secs(1);

/// How long nothing may come before an arm is taken to be broken.
const BROKEN: Duration = Duration::from_secs(30);

/// Points of a timeline, at most.
const POINTS: usize = 200;

/// A reader that notices commits.
pub(super) struct Watch {
    reader: Reader,
    version: Option<i64>,
    rows: u64,
    /// When the last commit was seen, and how many rows there were.
    seen: Vec<(u64, u64)>,
}

impl Watch {
    pub(super) fn open(database: &Path) -> Result<Self, Failure> {
        Ok(Self { reader: Reader::open(database)?, version: None, rows: 0, seen: Vec::new() })
    }

    /// Looks once; whether there are more rows than before. While nobody commits this reads one number of shared memory.
    pub(super) fn look(&mut self) -> Result<bool, Failure> {
        let version = self.reader.version()?;
        if self.version.replace(version) == Some(version) {
            return Ok(false);
        }
        // Rows are only added here, so that the last one's number is their number.
        let rows = self.reader.id_before_last(0)?.unsigned_abs();
        let more = rows > self.rows;
        if more {
            self.rows = rows;
            self.seen.push((clock::now(), rows));
        }
        Ok(more)
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// When the last commit was seen.
    pub(super) fn last(&self) -> Option<u64> {
        self.seen.last().map(|(time, _)| *time)
    }

    /// Rows behind this id: see [`Reader::events_after`].
    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Seconds since `began` and rows by then.
    pub(super) fn timeline(&self, began: u64) -> Vec<(f64, u64)> {
        let step = self.seen.len().div_ceil(POINTS).max(1);
        let last = self.seen.len().saturating_sub(1);
        let points = self.seen.iter().enumerate().filter(|(at, _)| at % step == 0 || *at == last);
        points.map(|(_, (time, rows))| (clock::seconds(began, *time), *rows)).collect()
    }
}

/// An application at work, and the database watched meanwhile.
pub(super) struct Observation<'a, 's> {
    pub(super) session: &'a Session<'s>,
    pub(super) stage: &'a mut Stage<'s>,
    pub(super) application: &'a mut Process,
    pub(super) look: Duration,
}

impl Observation<'_, '_> {
    /// Until the application is done and `expected` rows are there, or no more come. `at_commit` is called at each commit
    /// seen, `meanwhile` at each look with what the application said of its end, if it did.
    pub(super) fn until_all(
        &mut self,
        watch: &mut Watch,
        expected: u64,
        mut at_commit: impl FnMut(&Watch) -> Result<(), Failure>,
        mut meanwhile: impl FnMut(&mut Stage<'_>) -> Result<(), Failure>,
    ) -> Result<Outcome, Failure> {
        let arm = self.stage.setup.arm;
        let mut outcome = None;
        let mut moved = clock::now();
        loop {
            if watch.look()? {
                at_commit(watch)?;
                moved = clock::now();
            }
            if outcome.is_none() {
                outcome = done(self.application)?;
                if outcome.is_some() {
                    moved = moved.max(clock::now());
                }
            }
            let still = Duration::from_nanos(clock::now() - moved);
            if let Some(outcome) =
                outcome.take_if(|_| watch.rows() >= expected || (arms::may_lose(arm) && still > LOST))
            {
                return Ok(outcome);
            }
            if outcome.is_some() && still > BROKEN {
                let what = format!("{} of {expected} rows are there and no more came for {BROKEN:?}", watch.rows());
                return Err(Failure::Unequal { arm: arms::name(arm).into(), what });
            }
            self.session.go_on()?;
            self.stage.stands()?;
            meanwhile(self.stage)?;
            std::thread::sleep(self.look);
        }
    }
}

/// What the application says of its end, if it has come.
pub(super) fn done(application: &mut Process) -> Result<Option<Outcome>, Failure> {
    let Some(line) = application.heard()? else { return Ok(None) };
    match serde_json::from_str(&line) {
        Ok(Said::Done(outcome)) => Ok(Some(outcome)),
        _ => Err(application.failure("said something else than that it is done")),
    }
}
