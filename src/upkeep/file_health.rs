//! Keeps the database file healthy: statistics, damage, the size of the `-wal` file.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::every::Every;
use super::job::Job;
use crate::error::{DatabaseFault, Error};
use crate::pipeline::Signal;
use crate::store::{FileSizes, Optimizer, quick_check};

/// The job that looks for damage. A collector with a damaged database is not ready.
pub(crate) const QUICK_CHECK: &str = "quick_check";

/// How long after the start the first of these jobs is due: the start itself is busy enough.
const AFTER_START: Duration = Duration::from_secs(60);

/// How often the size of the `-wal` file is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The job `optimize`.
pub(crate) struct OptimizeJob {
    optimizer: Optimizer,
    every: Every,
}

/// The job `quick_check`.
pub(crate) struct QuickCheckJob {
    path: PathBuf,
    every: Every,
}

/// The job `wal_size`.
pub(crate) struct WalSizeJob {
    path: PathBuf,
    most: ByteSize,
    /// Another program runs the checkpoints.
    is_external: bool,
    every: Every,
}

impl OptimizeJob {
    pub(crate) fn new(optimizer: Optimizer, every: Duration) -> Self {
        Self { optimizer, every: Every::after(AFTER_START.min(every), every) }
    }
}

impl QuickCheckJob {
    pub(crate) fn new(path: PathBuf, every: Duration) -> Self {
        Self { path, every: Every::after(AFTER_START.min(every), every) }
    }
}

impl WalSizeJob {
    pub(crate) fn new(path: PathBuf, most: ByteSize, is_external: bool) -> Self {
        Self { path, most, is_external, every: Every::at_once(LOOK) }
    }
}

impl Job for OptimizeJob {
    fn name(&self) -> &'static str {
        "optimize"
    }

    fn due_in(&mut self) -> Option<Duration> {
        Some(self.every.due_in())
    }

    fn run(&mut self, stop: &Signal) -> Result<(), Error> {
        self.every.begin();
        let analysed = self.optimizer.run(stop)?;
        log::debug!("database: statistics of {analysed} tables brought up to date");
        Ok(())
    }
}

impl Job for QuickCheckJob {
    fn name(&self) -> &'static str {
        QUICK_CHECK
    }

    fn due_in(&mut self) -> Option<Duration> {
        Some(self.every.due_in())
    }

    fn run(&mut self, stop: &Signal) -> Result<(), Error> {
        self.every.begin();
        let found = quick_check(&self.path, stop)?;
        if found.is_empty() {
            return Ok(());
        }
        let (path, detail) = (self.path.clone(), format!("it is damaged: {}", found.join("; ")));
        let error = Error::database(DatabaseFault::Corrupt, path, detail);
        Err(error.with_remedy("restore a copy; the collector then reads what it lacks from the stream"))
    }
}

impl Job for WalSizeJob {
    fn name(&self) -> &'static str {
        "wal_size"
    }

    fn due_in(&mut self) -> Option<Duration> {
        Some(self.every.due_in())
    }

    fn run(&mut self, _: &Signal) -> Result<(), Error> {
        self.every.begin();
        let size = FileSizes::of(&self.path).wal;
        if size <= self.most.as_u64() {
            return Ok(());
        }
        let (size, most, path) = (ByteSize::b(size), self.most, self.path.clone());
        // Without the exact size: a trouble is logged once for each reason.
        log::debug!("database {}: its -wal file has {size}", path.display());
        let (detail, remedy) = if self.is_external {
            ("the program that runs the checkpoints does not", "start it, or set database.checkpoint to auto")
        } else {
            ("a program that reads the database has not ended its transaction", "end it")
        };
        let detail = format!("its -wal file is larger than {most} (upkeep.max_wal): {detail}");
        let error = Error::database(DatabaseFault::Other, path, detail);
        Err(error.with_remedy(remedy))
    }

    fn retry_after(&self) -> Duration {
        LOOK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wal_that_is_too_large_is_trouble_until_it_is_small() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let wal = folder.path().join("a.db-wal");
        let mut job = WalSizeJob::new(path.clone(), ByteSize::b(9), false);
        assert_eq!(job.due_in(), Some(Duration::ZERO));
        job.run(&Signal::default()).expect("there is none");
        std::fs::write(&wal, "0123456789").expect("writes");
        let error = job.run(&Signal::default()).expect_err("is too large").to_string();
        assert!(error.contains("its -wal file is larger than 9 B (upkeep.max_wal): a program that reads"), "{error}");
        assert!(job.due_in() > Some(Duration::ZERO));
        let mut external = WalSizeJob::new(path, ByteSize::b(9), true);
        let error = external.run(&Signal::default()).expect_err("is too large").to_string();
        assert!(error.contains("the program that runs the checkpoints does not; start it"), "{error}");
        std::fs::write(&wal, "").expect("writes");
        job.run(&Signal::default()).expect("is small");
    }
}
