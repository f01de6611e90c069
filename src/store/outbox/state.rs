//! The tables in which the position is kept, and by what it is recognised that it is that of these rows.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::rows::Rows;
use crate::error::{DatabaseFault, Error};
use crate::event_id::{NameRange, draw_name};
use crate::printable;
use crate::store::schema;
use crate::store::sqlite_error::database_error;

/// By the table: all rows up to `position` are in a stream or given up, and those up to `named` have a name. `passed` rows up to the position are
/// known, and the one at it has the digest `last_row`. In a file of its own, `path` and `inode` are those of the database.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS catchment_forward(
    source TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    named INTEGER NOT NULL,
    forwarded INTEGER NOT NULL,
    given_up INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS catchment_forward_checks(
    source TEXT PRIMARY KEY,
    passed INTEGER NOT NULL,
    last_row TEXT,
    path TEXT,
    inode TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS catchment_forward_names(
    source TEXT NOT NULL,
    first INTEGER NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY(source, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS catchment_forward_dead_letters(
    source TEXT NOT NULL,
    id INTEGER NOT NULL,
    error TEXT NOT NULL,
    given_up_us INTEGER NOT NULL,
    PRIMARY KEY(source, id)
) STRICT, WITHOUT ROWID;
";

/// What is known at the start.
pub(super) struct Start {
    pub(super) names: Vec<NameRange>,
    pub(super) position: u64,
    pub(super) named: u64,
    pub(super) passed: u64,
    pub(super) last_row: Option<String>,
    /// The row at the position, if it was forwarded.
    pub(super) last_sent: Option<u64>,
    /// Rows up to the position that are not known.
    pub(super) missed: u64,
}

/// Whether the row at the position is another than the one that was forwarded. One that was deleted tells nothing.
pub(super) fn is_another(forwarded: Option<&str>, found: Option<&str>) -> bool {
    matches!((forwarded, found), (Some(forwarded), Some(found)) if forwarded != found)
}

/// How many rows up to the position are known.
pub(super) fn passed(state: &Connection, table: &str) -> rusqlite::Result<Option<u64>> {
    if !schema::has_table(state, "catchment_forward_checks")? {
        return Ok(None);
    }
    let sql = "SELECT passed FROM catchment_forward_checks WHERE source = ?";
    state.query_row(sql, [table], |row| row.get(0)).optional()
}

/// Refuses a file that is something else than a state, and the state of another database.
pub(super) fn must_be_of(state: &Connection, path: &Path, database: &Path, table: &str) -> Result<(), Error> {
    let on_error = |e| database_error(path, e);
    let refused = |detail: String, remedy: &str| {
        let fault = DatabaseFault::Conflict;
        Error::Database { fault, path: path.to_owned(), detail, remedy: Some(remedy.into()), source: None }
    };
    let tables = schema::tables(state).map_err(on_error)?;
    if let Some(other) = tables.iter().find(|table| !table.starts_with("catchment_forward")) {
        let detail = format!("it is the database of something else (it has table {})", printable(other));
        return Err(refused(detail, "give --state a file of its own"));
    }
    if !schema::has_table(state, "catchment_forward_checks").map_err(on_error)? {
        return Ok(());
    }
    let sql = "SELECT path, inode FROM catchment_forward_checks WHERE source = ? AND path IS NOT NULL";
    let columns = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?));
    let Some((known, inode)) = state.query_row(sql, [table], columns).optional().map_err(on_error)? else {
        return Ok(());
    };
    let (now, inode_now) = identity(database);
    if known == now || inode == inode_now {
        return Ok(());
    }
    let detail = format!("it has the position of table {table} of another database, {}", printable(&known));
    Err(refused(
        detail,
        "give each database a state file of its own; if it is the same database, copied elsewhere, give its old path again",
    ))
}

/// The path of a database, and its file.
fn identity(path: &Path) -> (String, Option<String>) {
    let whole = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let inode = std::fs::metadata(path).ok().map(|file| format!("{}:{}", file.dev(), file.ino()));
    (whole.to_string_lossy().into_owned(), inode)
}

impl Start {
    /// Makes the tables, and draws a name for the rows that have none.
    pub(super) fn begin(state: &Connection, source: &Connection, rows: &Rows, path: &Path) -> rusqlite::Result<Self> {
        let table = rows.table();
        let transaction = Transaction::new_unchecked(state, TransactionBehavior::Immediate)?;
        transaction.execute_batch(TABLES)?;
        let sql = "INSERT OR IGNORE INTO catchment_forward(source, position, named, forwarded, given_up)
                   VALUES (?, 0, 0, 0, 0)";
        transaction.execute(sql, [table])?;
        let sql = "SELECT position, named FROM catchment_forward WHERE source = ?";
        let (mut position, mut named): (u64, u64) =
            transaction.query_row(sql, [table], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let sql = "INSERT OR IGNORE INTO catchment_forward_checks(source, passed) VALUES (?, ?)";
        transaction.execute(sql, params![table, rows.count(source, 0, position)?])?;
        let sql = "SELECT passed, last_row FROM catchment_forward_checks WHERE source = ?";
        let (mut passed, mut last_row): (u64, Option<String>) =
            transaction.query_row(sql, [table], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (last, found) = (rows.last(source)?, rows.digest(source, position)?);
        let is_another = is_another(last_row.as_deref(), found.as_deref());
        if last < named || is_another {
            // Rows were deleted, and their ids are used again, or another copy of the database is at its place.
            let path = path.display();
            let why = if is_another {
                format!("row {position} is not the one that was forwarded")
            } else {
                format!("it ends at row {last}, before row {named}, which was read already")
            };
            log::warn!(
                event = "forward.restarted", database:% = path, table:% = table, position = position, last = last;
                "database {path}: table {table}: {why}: its rows are numbered from the start again, and all are forwarded"
            );
            (position, named, passed, last_row) = (0, 0, 0, None);
            transaction.execute("UPDATE catchment_forward SET position = 0, named = 0 WHERE source = ?", [table])?;
            transaction.execute("DELETE FROM catchment_forward_names WHERE source = ?", [table])?;
            transaction.execute("DELETE FROM catchment_forward_dead_letters WHERE source = ?", [table])?;
        }
        let below = rows.below(source, position)?;
        // The others were deleted.
        passed = passed.min(below);
        let (whole, inode) = identity(path);
        let sql =
            "UPDATE catchment_forward_checks SET passed = ?2, last_row = ?3, path = ?4, inode = ?5 WHERE source = ?1";
        transaction.execute(sql, params![table, passed, last_row, whole, inode])?;
        let sql = "INSERT OR REPLACE INTO catchment_forward_names(source, first, name) VALUES (?, ?, ?)";
        let first = (named + 1).min(i64::MAX.unsigned_abs());
        transaction.execute(sql, params![table, first, draw_name()])?;
        // Those whose rows are all in the stream.
        let sql = "DELETE FROM catchment_forward_names WHERE source = ?1 AND first < (
                       SELECT max(first) FROM catchment_forward_names WHERE source = ?1 AND first <= ?2
                   )";
        transaction.execute(sql, params![table, (position + 1).min(i64::MAX.unsigned_abs())])?;
        let range = |row: &rusqlite::Row<'_>| Ok(NameRange { first: row.get(0)?, name: row.get(1)? });
        let sql = "SELECT first, name FROM catchment_forward_names WHERE source = ? ORDER BY first";
        let ranges = transaction.prepare(sql)?.query_map([table], range)?.collect::<rusqlite::Result<_>>()?;
        let sql = "SELECT count(*) FROM catchment_forward_dead_letters WHERE source = ?1 AND id = ?2";
        let was_given_up: bool = transaction.query_row(sql, params![table, position], |row| row.get(0))?;
        let is_known = last_row.is_some() && last_row == found && !was_given_up;
        transaction.commit()?;
        let last_sent = is_known.then_some(position);
        Ok(Self { names: ranges, position, named, passed, last_row, last_sent, missed: below - passed })
    }
}
