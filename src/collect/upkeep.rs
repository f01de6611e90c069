//! The jobs that a collector does beside collecting.

use crate::config::Config;
use crate::store::Database;
use crate::upkeep::Job;

/// The jobs for these settings.
pub(super) fn jobs(_config: &Config, _database: &Database) -> Vec<Box<dyn Job>> {
    Vec::new()
}

/// Whether the jobs stay as they are when one configuration replaces the other.
pub(super) fn are_same(_old: &Config, _new: &Config) -> bool {
    true
}
