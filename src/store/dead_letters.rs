//! Dead letters: events that could not be stored, kept completely with their error. They are inserted, listed, removed and retried.

mod dead_letter;
mod insert;
mod retry;
mod selection;

pub use dead_letter::DeadLetter;
pub use insert::DeadLetterReason;
pub(super) use insert::insert;
pub(super) use retry::Retry;
pub use retry::{RetryReport, UnreadableHeaders};
pub use selection::Selection;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::database_file::must_have_one_name;
use super::quoted_names::names_only;
use super::read_connection::ReadConnection;
use super::schema;
use super::sqlite_error::database_error;
use super::temp_store::use_files_if_possible;
use crate::error::Error;
use dead_letter::COLUMNS;
use selection::Cursor;

/// How long to wait while another process writes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for it between two calls of `keep_going`.
const ATTEMPT: Duration = Duration::from_millis(100);

/// How many letters are read at a time, and how much memory they may take, unless a single one is larger.
const PAGE: usize = 100;
const PAGE_BYTES: usize = 1 << 20;

/// How many letters are removed in one transaction. A running collector waits only as long as one transaction takes.
const MAX_REMOVED_AT_ONCE: usize = 1_000;

/// The dead letters of a database. A collector may run at the same time.
///
/// ```no_run
/// use catchment::dead_letters::{DeadLetters, Selection};
///
/// let letters = DeadLetters::open("chat.db")?;
/// let mut of_chat = Selection::default();
/// of_chat.subject = Some("chat.>".parse()?);
/// for letter in letters.list(&of_chat)? {
///     let letter = letter?;
///     println!("{} {}: {}", letter.id, letter.subject, letter.error);
/// }
/// println!("{} removed", letters.remove(&of_chat)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`retry`](crate::dead_letters::retry) tries them again.
#[derive(Debug)]
pub struct DeadLetters {
    connection: ReadConnection,
}

impl DeadLetters {
    /// Opens an existing database for reading. Creates nothing. Blocks only while it opens the file. No permission to write is
    /// needed, except for [`DeadLetters::remove`].
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: there is no file, it cannot be read, it has none of catchment's tables, or its tables are of a later
    /// version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let connection = ReadConnection::open(path)?;
        must_have_one_name(path)?;
        schema::must_be_ours(connection.sqlite(), path)?;
        Ok(Self { connection })
    }

    /// The selected letters. They are read in pages of up to 100 letters; no transaction is open between two pages. Letters that
    /// are added after the call are not listed.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], from the call and from each item. After an error the iterator ends.
    pub fn list<'s>(&'s self, selection: &'s Selection) -> Result<DeadLetterIter<'s>, Error> {
        let cursor = self.connection.read(|sqlite| Cursor::start(sqlite, selection))?;
        Ok(DeadLetterIter { letters: self, selection, cursor: Some(cursor), page: VecDeque::new() })
    }

    /// How many letters are selected. Blocks while it reads all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] if they cannot be read.
    pub fn count(&self, selection: &Selection) -> Result<u64, Error> {
        self.connection.read(|sqlite| {
            let (mut cursor, mut count) = (Cursor::start(sqlite, selection)?, 0);
            selection.scan(sqlite, "id, subject", &mut cursor, |_| {
                count += 1;
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(count)
        })
    }

    /// Removes the selected letters for ever and returns how many there were. Each transaction removes up to a thousand. If one
    /// fails, the transactions before it stay committed. Blocks until all are removed, and each time up to 10 seconds while another
    /// process writes.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] if the database cannot be written.
    pub fn remove(&self, selection: &Selection) -> Result<u64, Error> {
        self.remove_while(selection, &|| true)
    }

    /// As [`DeadLetters::remove`]. Calls `keep_going` before each transaction, and while another process writes, and ends as soon as that
    /// returns `false`. Returns how many letters it removed.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::remove`].
    pub(crate) fn remove_while(&self, selection: &Selection, keep_going: &dyn Fn() -> bool) -> Result<u64, Error> {
        let path = self.connection.path();
        let on_error = |e| database_error(path, e);
        let writer = writer(path).map_err(on_error)?;
        let mut cursor = Cursor::start(&writer, selection).map_err(on_error)?;
        let mut removed = 0;
        while let Some(transaction) = begin(&writer, keep_going).map_err(on_error)? {
            let removed_now = remove_some(transaction, selection, &mut cursor).map_err(on_error)?;
            removed += removed_now as u64;
            if removed_now < MAX_REMOVED_AT_ONCE {
                break;
            }
        }
        Ok(removed)
    }
}

/// A connection that removes letters.
fn writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(ATTEMPT)?;
    use_files_if_possible(&connection)?;
    names_only(&connection)?;
    Ok(connection)
}

/// Begins a transaction that writes, once no other process does. `None` where `keep_going` returned `false`.
fn begin<'c>(writer: &'c Connection, keep_going: &dyn Fn() -> bool) -> rusqlite::Result<Option<Transaction<'c>>> {
    let until = Instant::now() + TIMEOUT;
    while keep_going() {
        match Transaction::new_unchecked(writer, TransactionBehavior::Immediate) {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < until => {}
            begun => return begun.map(Some),
        }
    }
    Ok(None)
}

fn remove_some(transaction: Transaction<'_>, selection: &Selection, cursor: &mut Cursor) -> rusqlite::Result<usize> {
    let mut ids: Vec<i64> = Vec::new();
    selection.scan(&transaction, "id, subject", cursor, |row| {
        ids.push(row.get(0)?);
        Ok(break_if(ids.len() >= MAX_REMOVED_AT_ONCE))
    })?;
    let sql = "DELETE FROM catchment_dead_letters WHERE id IN (SELECT value FROM json_each(?))";
    transaction.execute(sql, [format!("{ids:?}")])?;
    transaction.commit()?;
    Ok(ids.len())
}

/// The iterator of [`DeadLetters::list`]. A call of `next` blocks while it reads a page, after every 100 letters at the latest.
#[derive(Debug)]
pub struct DeadLetterIter<'s> {
    letters: &'s DeadLetters,
    selection: &'s Selection,
    /// `None` after an error.
    cursor: Option<Cursor>,
    page: VecDeque<DeadLetter>,
}

impl Iterator for DeadLetterIter<'_> {
    type Item = Result<DeadLetter, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() {
            let mut cursor = self.cursor.take()?;
            match self.letters.connection.read(|sqlite| page(sqlite, self.selection, &mut cursor, PAGE)) {
                Ok(page) => (self.page, self.cursor) = (page.into(), Some(cursor)),
                Err(error) => return Some(Err(error)),
            }
        }
        self.page.pop_front().map(Ok)
    }
}

/// The next letters, at least one if there are any.
fn page(
    connection: &Connection,
    selection: &Selection,
    cursor: &mut Cursor,
    max: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    selection.scan(connection, COLUMNS, cursor, |row| {
        let letter = DeadLetter::read(row)?;
        bytes += letter.size();
        page.push(letter);
        Ok(break_if(page.len() >= max || bytes >= PAGE_BYTES))
    })?;
    Ok(page)
}

fn break_if(is_enough: bool) -> ControlFlow<()> {
    if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

#[cfg(test)]
mod tests;
