//! The rows of a table that are published.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

use crate::error::{DatabaseFault, Error};
use crate::printable;
use crate::store::sqlite_error::database_error;
use crate::store::stored_event::{self, StoredEvent};
use crate::unix_time::now_us;

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

/// Of which columns a digest is made, besides subject and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digested {
    pub(super) headers: bool,
    pub(super) time: bool,
}

impl Digested {
    /// Whether a table with these columns has the others too.
    pub(super) fn has(self, other: Self) -> bool {
        (self.headers || !other.headers) && (self.time || !other.time)
    }
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
        // SQLite takes a name in any case. The position is that of one name.
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = ? COLLATE NOCASE";
        let known = connection.query_row(sql, [table], |row| row.get::<_, String>(0)).optional();
        let known = known.map_err(|e| database_error(path, e))?;
        let table = known.as_deref().unwrap_or(table);
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

    /// Whether SQLite uses no id of a deleted row again.
    pub(super) fn has_sequence(&self) -> bool {
        self.has_sequence
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
        let sql = format!("SELECT max(coalesce(max(id), 0), 0) FROM {}", self.table);
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
        let sql = format!("{} WHERE id > ? ORDER BY id", self.select());
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([after])?;
        let mut read = Read { events: Vec::new(), scanned: after };
        let mut size = 0;
        while let Some(row) = rows.next()? {
            read.scanned = row.get(0)?;
            let Some(event) = stored(row)? else { continue };
            size += event.size();
            read.events.push(event);
            if size >= bytes || read.events.len() >= events {
                break;
            }
        }
        Ok(read)
    }

    /// The row with this id, if it is there and is published.
    pub(super) fn at(&self, connection: &Connection, id: u64) -> rusqlite::Result<Option<StoredEvent>> {
        let mut statement = connection.prepare_cached(&format!("{} WHERE id = ?", self.select()))?;
        Ok(statement.query_row([id], stored).optional()?.flatten())
    }

    fn select(&self) -> String {
        let column = |has: bool, name: &'static str| if has { name } else { "NULL" };
        let (headers, time) = (column(self.has_headers, "headers"), column(self.has_time, "published_us"));
        let stream = column(self.has_stream, "stream");
        format!("SELECT id, subject, {headers}, payload, {time}, {stream} IS NOT NULL FROM {}", self.table)
    }

    /// How many rows up to this one are published, or would have been.
    pub(super) fn below(&self, connection: &Connection, through: u64) -> rusqlite::Result<u64> {
        let own = if self.has_stream { "AND stream IS NULL" } else { "" };
        let sql = format!("SELECT count(*) FROM {} WHERE id <= ? {own}", self.table);
        connection.prepare_cached(&sql)?.query_row([through], |row| row.get(0))
    }

    /// The columns of which a digest is made.
    pub(super) fn digested(&self) -> Digested {
        Digested { headers: self.has_headers, time: self.has_time }
    }

    /// A digest of these columns of a row, if it is there. They have to be there.
    pub(super) fn digest(
        &self,
        connection: &Connection,
        id: u64,
        digested: Digested,
    ) -> rusqlite::Result<Option<String>> {
        let column = |has: bool, name: &'static str| if has { name } else { "NULL" };
        let (headers, time) = (column(digested.headers, "headers"), column(digested.time, "published_us"));
        let sql = format!("SELECT subject, {headers}, payload, {time} FROM {} WHERE id = ?", self.table);
        let digest = |row: &rusqlite::Row<'_>| {
            let mut digest = Sha256::new();
            for column in 0..4 {
                let value = row.get_ref(column)?;
                let bytes = stored_event::payload(value);
                digest.update([u8::from(value == ValueRef::Null)]);
                digest.update((bytes.len() as u64).to_le_bytes());
                digest.update(bytes);
            }
            Ok(data_encoding::HEXLOWER.encode(&digest.finalize()[..16]))
        };
        connection.prepare_cached(&sql)?.query_row([id], digest).optional()
    }

    /// Deletes a row. Returns how many were there.
    pub(super) fn delete(&self, connection: &Connection, id: u64) -> rusqlite::Result<u64> {
        let sql = format!("DELETE FROM {} WHERE id = ?", self.table);
        Ok(connection.prepare_cached(&sql)?.execute([id])? as u64)
    }
}

/// The event of a row. `None`: a collector has stored it from a stream.
fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<StoredEvent>> {
    if row.get(5)? {
        return Ok(None);
    }
    // A number is its text, as in the payload.
    let text = |at: usize| -> rusqlite::Result<Option<String>> {
        let value = Some(row.get_ref(at)?).filter(|value| *value != ValueRef::Null);
        Ok(value.map(|value| String::from_utf8_lossy(&stored_event::payload(value)).into_owned()))
    };
    let (subject, headers) = (text(1)?.unwrap_or_default(), text(2)?);
    let payload = stored_event::payload(row.get_ref(3)?);
    let event = stored_event::event(&subject, headers.as_deref(), &payload);
    let recorded_us = row.get_ref(4)?.as_i64().unwrap_or_else(|_| now_us());
    Ok(Some(StoredEvent { position: row.get(0)?, recorded_us, event }))
}
