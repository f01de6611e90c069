//! Dead letters: events that could not be stored, kept completely with their error. List them, remove them, try them again.
//!
//! All of this may run beside a collector. See [`DeadLetters`] for an example.

pub use crate::store::{DeadLetter, DeadLetterIter, DeadLetters, RetryReport, Selection, UnreadableHeaders, Value};

use std::ops::ControlFlow;

use crate::config::Config;
use crate::error::Error;
use crate::store::{Database, Routes};

/// Tries the selected dead letters again, in their order, through the routes of `config`. A letter that is stored is removed in the
/// transaction that adds its rows. A letter that is refused again stays, with its new error.
///
/// Opens the database as a collector does: new migrations are applied. A collector may run at the same time.
///
/// A transaction tries up to 100 letters and begins no further one after 0.2 seconds. After each, `progress` is called with the result
/// so far. If it returns [`ControlFlow::Break`], the retry ends there and returns that result; the letters that were not tried stay
/// unchanged. Otherwise this blocks until all letters are tried. It waits up to 10 seconds each time another process writes.
///
/// # Errors
///
/// [`Error::Config`], [`Error::Migration`], [`Error::Database`], [`Error::Thread`]. What was stored before the error stays stored.
pub fn retry(
    config: &Config,
    selection: &Selection,
    unreadable: UnreadableHeaders,
    progress: impl FnMut(&RetryReport) -> ControlFlow<()>,
) -> Result<RetryReport, Error> {
    retry_while(config, selection, unreadable, &|| true, progress)
}

/// As [`retry`]. While it opens the database, it calls `keep_going` several times a second and gives up as soon as that returns `false`.
/// Migrations that are not complete by then are rolled back, and no letter is tried.
///
/// # Errors
///
/// As [`retry`]. With [`DatabaseFault::Interrupted`](crate::error::DatabaseFault::Interrupted) where `keep_going` returned `false`.
pub(crate) fn retry_while(
    config: &Config,
    selection: &Selection,
    unreadable: UnreadableHeaders,
    keep_going: &dyn Fn() -> bool,
    progress: impl FnMut(&RetryReport) -> ControlFlow<()>,
) -> Result<RetryReport, Error> {
    let config = config.resolved()?;
    config.validate()?;
    let routes = Routes::of(&config)?;
    // With the queries, because a new migration must not break them either.
    let (database, _) = Database::open_while(&config.database, &routes, &config.queries, keep_going)?;
    database.retry(selection, unreadable, progress)
}
