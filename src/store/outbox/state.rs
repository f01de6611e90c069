//! The tables that have the position, and the check that it belongs to these rows.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::history::{History, Known, Verdict};
use super::rows::Rows;
use crate::error::{DatabaseFault, Error};
use crate::event_id::{NameRange, draw_name};
use crate::printable;
use crate::store::schema;
use crate::store::sqlite_error::database_error;
use crate::store::stored_event::FirstRefusal;

/// By the table: all rows up to `position` are in a stream or given up, and those up to `named` have a name. `passed` rows up to the position are
/// known. In a file of its own, `path` and `inode` are those of the database. By `samples`, the table is recognised: see [`History`]; they
/// were taken while the database had this `schema_version`.
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
    path TEXT,
    inode TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS catchment_forward_names(
    source TEXT NOT NULL,
    first INTEGER NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY(source, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS catchment_forward_history(
    source TEXT PRIMARY KEY,
    samples TEXT NOT NULL,
    schema_version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS catchment_forward_refusals(
    source TEXT NOT NULL,
    id INTEGER NOT NULL,
    since_us INTEGER NOT NULL,
    others_stored INTEGER NOT NULL,
    PRIMARY KEY(source, id)
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
    pub(super) history: History,
    /// The rows that the server refused.
    pub(super) refused: HashMap<u64, FirstRefusal>,
    /// The row at the position, if it was forwarded.
    pub(super) last_sent: Option<u64>,
    /// Rows up to the position that are not known.
    pub(super) missed: u64,
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

/// A number that differs once the schema was changed: <https://sqlite.org/pragma.html#pragma_schema_version>.
pub(super) fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "schema_version", |row| row.get(0))
}

/// The position, and up to which row rows have names.
pub(super) fn position(state: &Connection, table: &str) -> rusqlite::Result<Option<(u64, u64)>> {
    let sql = "SELECT position, named FROM catchment_forward WHERE source = ?";
    state.prepare_cached(sql)?.query_row([table], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// Says that rows were changed after they were forwarded.
pub(super) fn log_changed(path: &Path, table: &str, ids: &[u64]) {
    let (path, last) = (path.display(), ids.last().copied().unwrap_or_default());
    log::warn!(
        event = "forward.changed", database:% = path, table:% = table, rows = ids.len(), last = last;
        "database {path}: table {table}: the content of row {last} was changed after it was forwarded: not forwarded again; if it is a new \
         row, insert it again under a new id, and declare id with AUTOINCREMENT"
    );
}

fn refusals(state: &Connection, table: &str) -> rusqlite::Result<HashMap<u64, FirstRefusal>> {
    let sql = "SELECT id, since_us, others_stored FROM catchment_forward_refusals WHERE source = ?";
    let row =
        |row: &rusqlite::Row<'_>| Ok((row.get(0)?, FirstRefusal { at_us: row.get(1)?, others_stored: row.get(2)? }));
    state.prepare(sql)?.query_map([table], row)?.collect()
}

impl Start {
    /// Makes the tables, and draws a name for the rows that have none.
    pub(super) fn begin(state: &Connection, source: &Connection, rows: &Rows, path: &Path) -> rusqlite::Result<Self> {
        let table = rows.table();
        let mut changed = Vec::new();
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
        let sql = "SELECT passed FROM catchment_forward_checks WHERE source = ?";
        let mut passed: u64 = transaction.query_row(sql, [table], |row| row.get(0))?;
        let schema = schema_version(source)?;
        let sql = "SELECT samples, schema_version FROM catchment_forward_history WHERE source = ?";
        let samples =
            |row: &rusqlite::Row<'_>| Ok((History::parse(&row.get::<_, String>(0)?), row.get::<_, i64>(1)? == schema));
        let (mut history, is_same_schema) =
            transaction.query_row(sql, [table], samples).optional()?.unwrap_or_default();
        match history.verdict(source, rows, &Known { position, named, is_same_schema })? {
            Verdict::Same => {}
            Verdict::Changed(ids) => {
                log_changed(path, table, &ids);
                changed = ids;
                history = history.refreshed(source, rows, &changed)?;
            }
            Verdict::Shortened(last) => {
                let path = path.display();
                log::warn!(
                    event = "forward.shortened", database:% = path, table:% = table, position = position, last = last;
                    "database {path}: table {table}: it was cut after row {last}, and row {named} was read already: rows after {last} are taken for new ones"
                );
                (position, named, history) = (position.min(last), last, history.through(last));
            }
            Verdict::Restarted(why) => {
                let path = path.display();
                log::warn!(
                    event = "forward.restarted", database:% = path, table:% = table, position = position;
                    "database {path}: table {table}: {why}: its rows are numbered from the start again, and all are forwarded"
                );
                (position, named, passed, history) = (0, 0, 0, History::default());
            }
        }
        let sql = "UPDATE catchment_forward SET position = ?2, named = ?3 WHERE source = ?1";
        transaction.execute(sql, params![table, position, named])?;
        for of in ["names WHERE first", "dead_letters WHERE id", "refusals WHERE id"] {
            transaction
                .execute(&format!("DELETE FROM catchment_forward_{of} > ?2 AND source = ?1"), params![table, named])?;
        }
        let sql = "DELETE FROM catchment_forward_refusals WHERE source = ?1 AND id <= ?2";
        transaction.execute(sql, params![table, position])?;
        let sql = "INSERT OR REPLACE INTO catchment_forward_history(source, samples, schema_version) VALUES (?, ?, ?)";
        transaction.execute(sql, params![table, history.text(), schema])?;
        let below = rows.below(source, position)?;
        // The others were deleted.
        passed = passed.min(below);
        let (whole, inode) = identity(path);
        let sql = "UPDATE catchment_forward_checks SET passed = ?2, path = ?3, inode = ?4 WHERE source = ?1";
        transaction.execute(sql, params![table, passed, whole, inode])?;
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
        // One whose content was changed is not deleted.
        let is_known = !was_given_up && !changed.contains(&position) && history.has(source, rows, position)?;
        let refused = refusals(&transaction, table)?;
        transaction.commit()?;
        let last_sent = is_known.then_some(position);
        Ok(Self { names: ranges, position, named, passed, history, refused, last_sent, missed: below - passed })
    }
}
