//! The rows of a table that are published.

use std::path::Path;

use rusqlite::Connection;

use crate::error::{DatabaseFault, Error};
use crate::printable;
use crate::store::columns::now_us;
use crate::store::sqlite_error::database_error;
use crate::store::stored_event::{self, StoredEvent};

/// How a table is read.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "what a table has or has not")]
pub(super) struct Rows {
    table: String,
    has_headers: bool,
    /// Rows that a collector has stored are not sent back to the stream.
    has_stream: bool,
    has_time: bool,
    /// SQLite uses no id of a deleted row again: <https://sqlite.org/autoinc.html>.
    has_sequence: bool,
}

/// What was read.
pub(super) struct Read {
    pub(super) events: Vec<StoredEvent>,
    /// There is nothing else to publish up to this row.
    pub(super) scanned: u64,
}

impl Rows {
    /// Checks the table: it needs the columns `id INTEGER PRIMARY KEY`, `subject` and `payload`; `headers`, `stream` and `published_us` are
    /// used if they are there.
    pub(super) fn of(path: &Path, connection: &Connection, table: &str) -> Result<Self, Error> {
        let refused = |detail: String, remedy: &str| {
            let (fault, path) = (DatabaseFault::Schema, path.to_owned());
            Error::Database { fault, path, detail, remedy: Some(remedy.into()), source: None }
        };
        if table.is_empty() || !table.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let detail =
                format!("the name of table {:?} has other characters than letters, digits and _", printable(table));
            return Err(refused(detail, "rename the table"));
        }
        let sql = "SELECT name, upper(type), pk FROM pragma_table_info(?)";
        let columns = || -> rusqlite::Result<Vec<(String, String, u32)>> {
            let column = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            connection.prepare(sql)?.query_map([table], column)?.collect()
        };
        let columns = columns().map_err(|e| database_error(path, e))?;
        if columns.is_empty() {
            return Err(refused(format!("it has no table {table}"), "name the table with --table"));
        }
        let has = |name: &str| columns.iter().any(|(column, ..)| column.eq_ignore_ascii_case(name));
        let keys: Vec<_> = columns.iter().filter(|(.., key)| *key > 0).collect();
        let has_id = matches!(keys[..], [(name, kind, _)] if name.eq_ignore_ascii_case("id") && kind == "INTEGER");
        if !has_id {
            let detail = format!("table {table} has no column id INTEGER PRIMARY KEY");
            return Err(refused(detail, "add one: its numbers are the order of the events"));
        }
        if let Some(missing) = ["subject", "payload"].into_iter().find(|name| !has(name)) {
            return Err(refused(
                format!("table {table} has no column {missing}"),
                "add it, or name another table with --table",
            ));
        }
        let (has_headers, has_stream, has_time) = (has("headers"), has("stream"), has("published_us"));
        let sql =
            "SELECT count(*) FROM sqlite_schema WHERE name = ? COLLATE NOCASE AND upper(sql) LIKE '%AUTOINCREMENT%'";
        let has_sequence: bool =
            connection.query_row(sql, [table], |row| row.get(0)).map_err(|e| database_error(path, e))?;
        Ok(Self { table: table.to_owned(), has_headers, has_stream, has_time, has_sequence })
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// Whether a row says when it was made.
    pub(super) fn has_time(&self) -> bool {
        self.has_time
    }

    /// The highest id that is not used again: that of the last row, or that of a deleted one in a table with AUTOINCREMENT.
    pub(super) fn last(&self, connection: &Connection) -> rusqlite::Result<u64> {
        let sql = format!("SELECT coalesce(max(id), 0) FROM {}", self.table);
        let last: u64 = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
        if !self.has_sequence {
            return Ok(last);
        }
        let sql = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ? COLLATE NOCASE";
        let used: u64 = connection.prepare_cached(sql)?.query_row([&self.table], |row| row.get(0))?;
        Ok(last.max(used))
    }

    /// How many rows after the first id, and up to the second, are published.
    pub(super) fn count(&self, connection: &Connection, after: u64, through: u64) -> rusqlite::Result<u64> {
        let own = if self.has_stream { "AND stream IS NULL" } else { "" };
        let sql = format!("SELECT count(*) FROM {} WHERE id > ? AND id <= ? {own}", self.table);
        connection.prepare_cached(&sql)?.query_row([after, through], |row| row.get(0))
    }

    /// The rows after this id, in order: at most so many, and no more after so many bytes.
    pub(super) fn read(
        &self,
        connection: &Connection,
        after: u64,
        events: usize,
        bytes: usize,
    ) -> rusqlite::Result<Read> {
        let column = |has: bool, name: &'static str| if has { name } else { "NULL" };
        let (headers, time) = (column(self.has_headers, "headers"), column(self.has_time, "published_us"));
        let stream = column(self.has_stream, "stream");
        let sql = format!(
            "SELECT id, subject, {headers}, payload, {time}, {stream} IS NOT NULL FROM {} WHERE id > ? ORDER BY id",
            self.table
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([after])?;
        let mut read = Read { events: Vec::new(), scanned: after };
        let mut size = 0;
        while let Some(row) = rows.next()? {
            let position: u64 = row.get(0)?;
            read.scanned = position;
            if row.get(5)? {
                continue;
            }
            let text = |at: usize| -> rusqlite::Result<Option<String>> {
                let bytes = row.get_ref(at)?.as_bytes_or_null().unwrap_or_default();
                Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
            };
            let (subject, headers) = (text(1)?.unwrap_or_default(), text(2)?);
            let payload = stored_event::payload(row.get_ref(3)?);
            let event = stored_event::event(&subject, headers.as_deref(), &payload);
            let recorded_us = row.get_ref(4)?.as_i64().unwrap_or_else(|_| now_us());
            let event = StoredEvent { position, recorded_us, event };
            size += event.size();
            read.events.push(event);
            if size >= bytes || read.events.len() >= events {
                break;
            }
        }
        Ok(read)
    }

    /// Deletes the rows before this id that were published and not given up. The row itself stays, so that its id is not used again.
    pub(super) fn delete_before(&self, connection: &Connection, position: u64, source: &str) -> rusqlite::Result<()> {
        let own = if self.has_stream { "AND stream IS NULL" } else { "" };
        let sql = format!(
            "DELETE FROM {} WHERE id < ?1 {own}
             AND id NOT IN (SELECT id FROM catchment_forward_dead_letters WHERE source = ?2)",
            self.table
        );
        connection.prepare_cached(&sql)?.execute(rusqlite::params![position, source])?;
        Ok(())
    }
}
