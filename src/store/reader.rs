//! Reads the database, also while a collector runs. The connection is read-only, whatever the SQL.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, ErrorCode, OpenFlags, OptionalExtension, Row};

use super::database_file::must_exist;
use super::sqlite_error::database_error;
use super::temp_store::use_files_if_possible;
use crate::binding;
use crate::error::{DatabaseFault, Error};

/// A read-only connection.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    connection: Connection,
}

/// A value of a row. SQLite has no other types: <https://sqlite.org/datatype3.html>.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A 64-bit float.
    Real(f64),
    /// Text. Bytes that are not UTF-8, which SQLite allows in text, become U+FFFD.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl Value {
    /// A borrowed copy.
    #[must_use]
    pub(crate) fn borrowed(&self) -> binding::Value<'_> {
        match self {
            Self::Null => binding::Value::Null,
            Self::Integer(value) => binding::Value::Integer(*value),
            Self::Real(value) => binding::Value::Real(*value),
            Self::Text(text) => binding::Value::Text(text),
            Self::Blob(bytes) => binding::Value::Blob(bytes),
        }
    }
}

/// A row of table `events`.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// Its number.
    pub id: i64,
    /// The event's subject.
    pub subject: String,
    /// Publish time in microseconds since 1970.
    pub published_us: i64,
    /// The headers as JSON.
    pub headers: Option<String>,
    /// Text or a blob.
    pub payload: Value,
}

impl Reader {
    /// Opens an existing database.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when there is no file or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        must_exist(path)?;
        let connection = read_only(path).map_err(|e| database_error(path, e))?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Runs the statements in turn. `visit` gets the column names before each statement's rows, then each row. It may stop the run.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], with [`DatabaseFault::Statement`] for wrong SQL and for statements that write anything.
    pub fn run<B>(
        &self,
        sql: &str,
        mut visit: impl FnMut(StatementOutput<'_>) -> ControlFlow<B>,
    ) -> Result<Option<B>, Error> {
        let refused = |detail: String, source: Option<rusqlite::Error>| Error::Database {
            fault: DatabaseFault::Statement,
            path: self.path.clone(),
            detail,
            remedy: None,
            source: source.map(Into::into),
        };
        let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
            None | Some(ErrorCode::Unknown) => refused(error.to_string(), Some(error)),
            Some(_) => database_error(&self.path, error),
        };
        let mut batch = Batch::new(&self.connection, sql);
        while let Some(mut statement) = batch.next().map_err(failed)? {
            // On a read-only connection, `VACUUM INTO` and some pragmas still write.
            if !statement.readonly() {
                return Err(refused("only statements that read are run here, and this one writes".into(), None));
            }
            let columns: Vec<String> = statement.column_names().iter().map(|&name| name.to_owned()).collect();
            let count = columns.len();
            if let ControlFlow::Break(value) = visit(StatementOutput::Columns(&columns)) {
                return Ok(Some(value));
            }
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next().map_err(failed)? {
                let values = (0..count).map(|at| value(row, at)).collect::<Result<Vec<_>, _>>().map_err(failed)?;
                if let ControlFlow::Break(value) = visit(StatementOutput::Row(values)) {
                    return Ok(Some(value));
                }
            }
        }
        Ok(None)
    }

    /// The events after this id, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn events_after(&self, id: i64, at_most: usize) -> Result<Vec<EventRow>, Error> {
        let sql = "SELECT id, subject, published_us, headers, payload FROM events WHERE id > ? ORDER BY id LIMIT ?";
        let read = || -> rusqlite::Result<Vec<EventRow>> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
            let rows = statement.query_map([id, limit], |row| {
                Ok(EventRow {
                    id: row.get(0)?,
                    subject: row.get(1)?,
                    published_us: row.get(2)?,
                    headers: row.get(3)?,
                    payload: value(row, 4)?,
                })
            })?;
            rows.collect::<Result<_, _>>()
        };
        read().map_err(|e| database_error(&self.path, e))
    }

    /// When the event with this id was published, in microseconds since 1970; `None` if there is no such event.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn published_us(&self, id: i64) -> Result<Option<i64>, Error> {
        let sql = "SELECT published_us FROM events WHERE id = ?";
        let read = || self.connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional();
        read().map_err(|e| database_error(&self.path, e))
    }

    /// The sequence up to which the stream is committed; `None` if nothing of it is.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn position(&self, stream: &str) -> Result<Option<u64>, Error> {
        let sql = "SELECT sequence FROM catchment_ledger WHERE stream = ? ORDER BY epoch DESC LIMIT 1";
        let read = || self.connection.prepare_cached(sql)?.query_row([stream], |row| row.get(0)).optional();
        read().map_err(|e| database_error(&self.path, e))
    }

    /// The id of the last event published at or before this time; 0 if there is none. Scans from the newest event.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn id_before_later(&self, published_us: i64) -> Result<i64, Error> {
        let sql = "SELECT coalesce((SELECT id FROM events WHERE published_us <= ? ORDER BY id DESC LIMIT 1), 0)";
        self.connection.query_row(sql, [published_us], |row| row.get(0)).map_err(|e| database_error(&self.path, e))
    }

    /// A number that changes when another connection commits. Reading it is cheap:
    /// <https://sqlite.org/pragma.html#pragma_data_version>.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn version(&self) -> Result<i64, Error> {
        let read = || self.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0));
        read().map_err(|e| database_error(&self.path, e))
    }

    /// The id of the event before the last `back` events; 0 if there are fewer.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn id_before_last(&self, back: usize) -> Result<i64, Error> {
        let sql = "SELECT coalesce((SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?), 0)";
        let back = i64::try_from(back).unwrap_or(i64::MAX);
        self.connection.query_row(sql, [back], |row| row.get(0)).map_err(|e| database_error(&self.path, e))
    }
}

/// A connection that can change nothing.
pub(super) fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "query_only", true)?;
    use_files_if_possible(&connection)?;
    // SQLite notices damage and foreign files at the first read, not at the opening.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// What [`Reader::run`] passes on of a statement.
#[derive(Debug)]
pub enum StatementOutput<'a> {
    /// The names of the columns of the rows that follow; empty for a statement without rows.
    Columns(&'a [String]),
    /// A row.
    Row(Vec<Value>),
}

pub(super) fn value(row: &Row<'_>, at: usize) -> rusqlite::Result<Value> {
    Ok(match row.get_ref(at)? {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::Real(value),
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatabaseConfig;
    use crate::store::{Database, Routes};

    #[test]
    fn only_reading_is_allowed() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = DatabaseConfig { path: folder.path().join("a.db"), ..DatabaseConfig::default() };
        drop(Database::open(&config, &Routes::default()).expect("a new database"));
        let reader = Reader::open(&config.path).expect("opens");
        let run = |sql: &str| {
            let mut rows = 0;
            let ran = reader.run::<()>(sql, |answer| {
                rows += usize::from(matches!(answer, StatementOutput::Row(_)));
                ControlFlow::Continue(())
            });
            ran.map(|_| rows).map_err(|e| e.to_string())
        };
        assert_eq!(run("SELECT 1; SELECT 2 UNION SELECT 3"), Ok(3));
        let copy = folder.path().join("copy.db");
        for sql in [
            "DELETE FROM events".to_owned(),
            "PRAGMA journal_mode = DELETE".into(),
            "CREATE TEMP TABLE t(a)".into(),
            format!("VACUUM INTO '{}'", copy.display()),
        ] {
            let refused = run(&sql).expect_err(&sql);
            assert!(refused.contains("only statements that read"), "{refused}");
        }
        assert!(!copy.exists());
        assert!(run("SELEC 1").expect_err("wrong").contains("near \"SELEC\": syntax error"));
    }
}
