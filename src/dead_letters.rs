//! Events that no retry could store: find them, remove them, try them again.

pub use crate::store::{DeadLetter, DeadLetterIter, DeadLetters, RetryReport, Selection, UnreadableHeaders};

use crate::config::Config;
use crate::error::Error;
use crate::store::{Database, Routes};

/// Tries the selected dead letters again, through the routes of `config`. What is stored is removed from the dead letters in the
/// same transaction as its rows are added. What is refused again stays, with its new error. Opens the database as a collector does: new
/// migrations are applied. May run beside a collector. `progress` is called after each transaction. Blocks until all are tried.
///
/// # Errors
///
/// [`Error::Config`], [`Error::Migration`], [`Error::Database`]. What was stored before the error stays stored.
pub fn retry(
    config: &Config,
    selection: &Selection,
    unreadable: UnreadableHeaders,
    progress: impl FnMut(&RetryReport),
) -> Result<RetryReport, Error> {
    let routes = Routes::new(&config.routes, config.unmatched)?;
    // With the queries: a new migration must not break what a collector answers.
    let (database, _) = Database::open_with_queries(&config.database, &routes, &config.queries)?;
    database.retry(selection, unreadable, progress)
}
