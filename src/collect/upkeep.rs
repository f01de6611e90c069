//! The jobs that a collector does beside collecting.

use crate::config::{BackupConfig, Config};
use crate::store::{CopyLimits, Database, ScheduledBackups};
use crate::upkeep::{BackupJob, Job};

/// The jobs for these settings.
pub(super) fn jobs(config: &Config, _database: &Database) -> Vec<Box<dyn Job>> {
    let mut jobs: Vec<Box<dyn Job>> = Vec::new();
    jobs.extend(backup(config));
    jobs
}

/// The job that makes backups, if the settings ask for some.
fn backup(config: &Config) -> Option<Box<dyn Job>> {
    let BackupConfig { folder, every, keep, rate, max_wal, .. } = &config.backup;
    let limits = CopyLimits { rate: Some(rate.as_u64()).filter(|rate| *rate > 0), wal: max_wal.as_u64() };
    let (database, folder) = (config.database.path.clone(), folder.clone()?);
    Some(Box::new(BackupJob::new(ScheduledBackups { database, folder, every: *every, keep: *keep, limits })))
}

/// Whether the jobs stay as they are when one configuration replaces the other.
pub(super) fn are_same(old: &Config, new: &Config) -> bool {
    old.backup == new.backup
}
