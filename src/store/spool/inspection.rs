//! Reads a spool that another process may use, and one that is damaged.

use std::path::Path;

use rusqlite::Connection;

use super::file::must_be_spool;
use super::pages::Pages;
use super::totals::{SpoolTotals, totals};
use crate::error::{DatabaseFault, Error};
use crate::store::cell::Cell;
use crate::store::read_connection::ReadConnection;
use crate::store::reader::{Value, value};
use crate::store::schema;
use crate::store::sqlite_error::of_spool;

/// A spool that is only read.
#[derive(Debug)]
pub struct SpoolInspection(ReadConnection);

/// Which events of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolPart {
    /// Those that wait for the stream.
    Waiting,
    /// Those that were given up: no stream took them.
    DeadLetters,
}

/// An event in a spool.
#[derive(Clone, Debug, PartialEq)]
pub struct SpoolLine {
    /// Its position, or the id of a dead letter.
    pub id: i64,
    /// When it was recorded, in microseconds since 1970.
    pub recorded_us: i64,
    /// Its subject.
    pub subject: String,
    /// Its headers as JSON.
    pub headers: Option<String>,
    /// Text or a blob.
    pub payload: Value,
    /// Why it was given up.
    pub error: Option<String>,
}

impl SpoolInspection {
    /// Opens an existing spool. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: there is no such file, or it is no spool.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let connection = ReadConnection::open(path).map_err(of_spool)?;
        let tables = connection.read(schema::tables).map_err(of_spool)?;
        must_be_spool(path, connection.sqlite(), &tables)?;
        Ok(Self(connection))
    }

    /// How many events are in it.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn totals(&self) -> Result<SpoolTotals, Error> {
        self.0.read(totals)
    }

    /// When its oldest waiting event was recorded, in microseconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn oldest_us(&self) -> Result<Option<i64>, Error> {
        let sql = "SELECT recorded_us FROM catchment_spool_events ORDER BY position LIMIT 1";
        self.0.read(|connection| connection.prepare(sql)?.query_map([], |row| row.get(0))?.next().transpose())
    }

    /// Passes the events of this part of a file to `each`, in their order. Where the file is damaged, passes those that SQLite can read, and then
    /// those that are found on the pages of the file, in their order too.
    ///
    /// # Errors
    ///
    /// The outer error is that of `each`. The inner is the first of the database: events may be missing.
    pub fn each<E>(
        path: &Path,
        part: SpoolPart,
        mut each: impl FnMut(SpoolLine) -> Result<(), E>,
    ) -> Result<Result<(), Error>, E> {
        let mut ids = Vec::new();
        let error = match Self::open(path) {
            Ok(spool) => {
                let read = spool.each_by_sqlite(part, |line| {
                    ids.push(line.id);
                    each(line)
                })?;
                let Err(error) = read else { return Ok(Ok(())) };
                error
            }
            Err(error @ Error::Database { fault: DatabaseFault::Corrupt, .. }) => error,
            Err(error) => return Ok(Err(error)),
        };
        if !matches!(error, Error::Database { fault: DatabaseFault::Corrupt, .. }) {
            return Ok(Err(error));
        }
        // No connection uses the file any more.
        let Ok(pages) = Pages::open(path) else { return Ok(Err(error)) };
        for place in pages.rows(|row| line(part, 0, row).is_some()) {
            if ids.binary_search(&place.rowid).is_ok() {
                continue;
            }
            if let Some(line) = pages.row(place).and_then(|row| line(part, place.rowid, &row)) {
                each(line)?;
            }
        }
        Ok(Err(error))
    }

    fn each_by_sqlite<E>(
        &self,
        part: SpoolPart,
        mut each: impl FnMut(SpoolLine) -> Result<(), E>,
    ) -> Result<Result<(), Error>, E> {
        /// Beyond so many unreadable positions nothing more is expected.
        const FARTHEST: i64 = 1 << 24;
        let (mut last, mut skip, mut first_error) = (i64::MIN / 2, 1, None);
        loop {
            let mut failed = Ok(());
            let read = self.0.read(|connection| {
                read_after(connection, part, last, |line| {
                    (last, skip) = (line.id, 1);
                    failed = each(line);
                    failed.is_ok()
                })
            });
            failed?;
            let Err(error) = read else { break };
            first_error.get_or_insert(error);
            if skip > FARTHEST {
                break;
            }
            // Positions begin at 1.
            last = last.max(0) + skip;
            skip *= 2;
        }
        Ok(first_error.map_or(Ok(()), Err))
    }
}

/// The event of a row that was found on a page, if it is one.
fn line(part: SpoolPart, id: i64, row: &[Cell]) -> Option<SpoolLine> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let (recorded_us, subject, headers, payload, error) = match (part, row) {
        (
            SpoolPart::Waiting,
            [Cell::Null, Cell::Integer(at), Cell::Integer(_), Cell::Text(subject), headers, payload],
        ) => (at, subject, headers, payload, None),
        (
            SpoolPart::DeadLetters,
            [
                Cell::Null,
                Cell::Text(_),
                Cell::Integer(_),
                Cell::Integer(at),
                Cell::Integer(_),
                Cell::Text(subject),
                headers,
                payload,
                Cell::Text(error),
                Cell::Integer(_),
                ..,
            ],
        ) => (at, subject, headers, payload, Some(text(error)?)),
        _ => return None,
    };
    let headers = match headers {
        Cell::Null => None,
        Cell::Text(json) => Some(text(json)?),
        _ => return None,
    };
    let payload = match payload {
        Cell::Null => return None,
        Cell::Integer(number) => Value::Integer(*number),
        Cell::Real(number) => Value::Real(*number),
        Cell::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        Cell::Blob(bytes) => Value::Blob(bytes.clone()),
    };
    Some(SpoolLine { id, recorded_us: *recorded_us, subject: text(subject)?, headers, payload, error })
}

/// Reads the rows after this one, until `each` returns `false`.
fn read_after(
    connection: &Connection,
    part: SpoolPart,
    after: i64,
    mut each: impl FnMut(SpoolLine) -> bool,
) -> rusqlite::Result<()> {
    let sql = match part {
        SpoolPart::Waiting => {
            "SELECT position, recorded_us, subject, headers, payload, NULL FROM catchment_spool_events
             WHERE position > ? ORDER BY position"
        }
        SpoolPart::DeadLetters => {
            "SELECT id, recorded_us, subject, headers, payload, error FROM catchment_spool_dead_letters
             WHERE id > ? ORDER BY id"
        }
    };
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([after])?;
    while let Some(row) = rows.next()? {
        let line = SpoolLine {
            id: row.get(0)?,
            recorded_us: row.get(1)?,
            subject: row.get(2)?,
            headers: row.get(3)?,
            payload: value(row, 4)?,
            error: row.get(5)?,
        };
        if !each(line) {
            break;
        }
    }
    Ok(())
}
