//! The jobs that a collector does beside collecting.

use std::sync::Arc;

use crate::config::{Checkpoints, Config};
use crate::store::{Database, RetentionFigures};
use crate::upkeep::{Job, OptimizeJob, QuickCheckJob, RetentionJob, WalSizeJob};

/// The jobs for these settings.
pub(super) fn jobs(config: &Config, database: &Database, retention: &Arc<RetentionFigures>) -> Vec<Box<dyn Job>> {
    let mut jobs: Vec<Box<dyn Job>> = Vec::new();
    let (upkeep, path) = (&config.upkeep, &config.database.path);
    if !config.retention.is_empty() {
        let retention = database.retention(&config.retention, Arc::clone(retention));
        jobs.push(Box::new(RetentionJob::new(retention, upkeep.retain_every)));
    }
    if !upkeep.optimize_every.is_zero() {
        jobs.push(Box::new(OptimizeJob::new(database.optimizer(), upkeep.optimize_every)));
    }
    if !upkeep.check_every.is_zero() {
        jobs.push(Box::new(QuickCheckJob::new(path.to_owned(), upkeep.check_every)));
    }
    if upkeep.max_wal.as_u64() > 0 {
        let is_external = config.database.checkpoint == Checkpoints::External;
        jobs.push(Box::new(WalSizeJob::new(path.to_owned(), upkeep.max_wal, is_external)));
    }
    jobs
}

/// Whether the jobs stay as they are when one configuration replaces the other.
pub(super) fn are_same(old: &Config, new: &Config) -> bool {
    old.retention == new.retention && old.upkeep == new.upkeep
}
