//! Events that no retry could store, kept whole with their reason: put away, found again, removed, tried again.

mod insert;
mod letter;
mod retry;
mod selection;

pub use insert::DeadLetterReason;
pub(super) use insert::insert;
pub use letter::DeadLetter;
pub(super) use retry::Retry;
pub use retry::{Retried, UnreadableHeaders};
pub use selection::Selection;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::failure::database_error;
use super::file::{must_exist, must_have_one_name};
use super::schema;
use super::temporary::keep_where_there_is_room;
use crate::error::Error;
use letter::COLUMNS;
use selection::Place;

/// How long to wait for another process that writes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Letters read at a time, and what they may take in memory, unless the only one is larger.
const PAGE: usize = 100;
const PAGE_BYTES: usize = 1 << 20;

/// Letters removed in one transaction: a collector that writes meanwhile waits no longer than this takes.
const REMOVED_AT_A_TIME: usize = 1_000;

/// The dead letters of a database, also beside a running collector.
///
/// ```no_run
/// use catchment::dead_letters::{DeadLetters, Selection};
/// use std::path::Path;
///
/// let letters = DeadLetters::open(Path::new("chat.db"))?;
/// let of_chat = Selection { subject: Some("chat.>".parse()?), ..Selection::default() };
/// for letter in letters.list(&of_chat)? {
///     let letter = letter?;
///     println!("{} {}: {}", letter.id, letter.subject, letter.error);
/// }
/// println!("{} dropped", letters.remove(&of_chat)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// To try them again, see [`Database::retry`](super::Database::retry).
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    connection: Connection,
}

impl DeadLetters {
    /// Opens an existing database.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when there is none, it cannot be read, or it is not of this catchment's making.
    pub fn open(path: &Path) -> Result<Self, Error> {
        must_exist(path)?;
        must_have_one_name(path)?;
        let on_error = |e| database_error(path, e);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(on_error)?;
        connection.busy_timeout(PATIENCE).map_err(on_error)?;
        keep_where_there_is_room(&connection).map_err(on_error)?;
        schema::must_be_ours(&connection, path)?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Those selected. Memory holds a page of them at a time, and no transaction is open between two pages.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], here and for each.
    pub fn list<'s>(&'s self, selection: &'s Selection) -> Result<Letters<'s>, Error> {
        let place = Place::start(&self.connection, selection).map_err(|e| self.error(e))?;
        Ok(Letters { of: self, selection, place: Some(place), page: VecDeque::new() })
    }

    /// How many are selected.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn count(&self, selection: &Selection) -> Result<u64, Error> {
        let on_error = |e| self.error(e);
        let mut place = Place::start(&self.connection, selection).map_err(on_error)?;
        let mut count = 0;
        let counted = selection.walk(&self.connection, "id, subject", &mut place, |_| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        });
        counted.map_err(on_error)?;
        Ok(count)
    }

    /// Removes those selected, for ever; says how many there were. In transactions of a thousand: where one fails, those
    /// before it are removed.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], after 10 seconds in which another process wrote, for instance.
    pub fn remove(&self, selection: &Selection) -> Result<u64, Error> {
        let on_error = |e| self.error(e);
        let mut place = Place::start(&self.connection, selection).map_err(on_error)?;
        let mut removed = 0;
        loop {
            let removed_now = self.remove_some(selection, &mut place).map_err(on_error)?;
            removed += removed_now as u64;
            if removed_now < REMOVED_AT_A_TIME {
                return Ok(removed);
            }
        }
    }

    fn remove_some(&self, selection: &Selection, place: &mut Place) -> rusqlite::Result<usize> {
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let mut ids: Vec<i64> = Vec::new();
        selection.walk(&transaction, "id, subject", place, |row| {
            ids.push(row.get(0)?);
            Ok(enough(ids.len() >= REMOVED_AT_A_TIME))
        })?;
        let sql = "DELETE FROM catchment_dead_letters WHERE id IN (SELECT value FROM json_each(?))";
        transaction.execute(sql, [format!("{ids:?}")])?;
        transaction.commit()?;
        Ok(ids.len())
    }

    fn error(&self, error: rusqlite::Error) -> Error {
        database_error(&self.path, error)
    }
}

/// What [`DeadLetters::list`] goes through.
#[derive(Debug)]
pub struct Letters<'s> {
    of: &'s DeadLetters,
    selection: &'s Selection,
    /// `None` after a failure.
    place: Option<Place>,
    page: VecDeque<DeadLetter>,
}

impl Iterator for Letters<'_> {
    type Item = Result<DeadLetter, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() {
            let mut place = self.place.take()?;
            match page(&self.of.connection, self.selection, &mut place, PAGE) {
                Ok(page) => (self.page, self.place) = (page.into(), Some(place)),
                Err(error) => return Some(Err(self.of.error(error))),
            }
        }
        self.page.pop_front().map(Ok)
    }
}

/// The next letters, at least one where there are any.
fn page(
    connection: &Connection,
    selection: &Selection,
    place: &mut Place,
    most: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    selection.walk(connection, COLUMNS, place, |row| {
        let letter = DeadLetter::read(row)?;
        bytes += letter.size();
        page.push(letter);
        Ok(enough(page.len() >= most || bytes >= PAGE_BYTES))
    })?;
    Ok(page)
}

fn enough(is_enough: bool) -> ControlFlow<()> {
    if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

#[cfg(test)]
mod tests;
