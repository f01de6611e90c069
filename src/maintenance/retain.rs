//! Applies `[retention]` once.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::config::{DatabaseConfig, RetentionConfig};
use crate::error::Error;
use crate::pipeline::Signal;
use crate::store::{Database, Lock, RetentionFigures, RetentionForecast, RetentionStatus, Routes, forecast_retention};
use crate::task::{Progress, Task, run_beside};

/// Deletes the rows that the rules do not keep, as a running collector does it every minute, and gives free pages back to the file
/// system. Blocks until that is done. Other programs may read and write meanwhile: it works in small transactions. Applies no migrations.
///
/// # Errors
///
/// [`Error::Config`] for a rule that does not fit the database; [`Error::Locked`] while a collector uses the database, which applies its
/// own rules; [`Error::Database`]; [`Error::Thread`]; [`Error::Cancelled`] if `progress` returned [`ControlFlow::Break`]. What was deleted before the error
/// stays deleted.
pub fn retain(
    database: &DatabaseConfig,
    rules: &RetentionConfig,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<RetentionStatus, Error> {
    rules.validate()?;
    // Refuses a file that is missing or none of ours, before a lock is made beside it.
    forecast_retention(&database.path, &RetentionConfig::default(), &Signal::default())?;
    let lock = Lock::take(&database.path)?;
    let retained = retain_locked(database, rules, &Task::new("the retention", progress));
    lock.withdraw();
    retained
}

fn retain_locked(
    database: &DatabaseConfig,
    rules: &RetentionConfig,
    task: &Task<'_>,
) -> Result<RetentionStatus, Error> {
    let config = DatabaseConfig { migrations: None, ..database.clone() };
    let database = Database::open(&config, &Routes::default())?;
    database.check_retention(rules)?;
    let figures = Arc::new(RetentionFigures::default());
    let mut retention = database.retention(rules, Arc::clone(&figures)).unlogged();
    let stop = Signal::default();
    let report = || task.report("deleting", figures.now().rows(), None, "rows");
    // A round that was stopped is no failure of its own.
    let work = || retention.round(&stop).and(if stop.is_raised() { Err(Error::Ended) } else { Ok(()) });
    run_beside("catchment-retain", work, report, || stop.raise())?;
    Ok(figures.now())
}

/// How many rows each rule would delete now: of rules that are for the same rows, each counts them. Changes nothing. A collector may run.
/// Blocks while it counts.
///
/// # Errors
///
/// [`Error::Config`] for a rule that does not fit the database; [`Error::Database`].
pub fn retention_forecast(
    database: impl AsRef<Path>,
    rules: &RetentionConfig,
) -> Result<Vec<RetentionForecast>, Error> {
    rules.validate()?;
    forecast_retention(database.as_ref(), rules, &Signal::default())
}
