//! Reads a spool that another process may use, and one that is damaged.

use std::path::Path;

use rusqlite::Connection;

use super::file::must_be_spool;
use super::{SpoolTotals, totals};
use crate::error::Error;
use crate::store::read_connection::ReadConnection;
use crate::store::reader::{Value, value};
use crate::store::schema;

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
        let connection = ReadConnection::open(path)?;
        let tables = connection.read(schema::tables)?;
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

    /// Passes the events of this part to `each`, in their order. Where the file is damaged, tries to continue behind the damage.
    ///
    /// # Errors
    ///
    /// The outer error is that of `each`. The inner is the first of the database: events are missing.
    pub fn each<E>(
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
