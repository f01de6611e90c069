//! Inserts the rows of several events with one statement. SQLite has less work with it than with a statement for each row.
//!
//! It must have the same effect as the statements of the single events. So it is used only where an event adds one row whose values
//! are parameters, and not for tables with triggers or foreign keys: their effect can depend on how many rows a statement inserts.
//! If it fails, the caller runs the single statements.
//!
//! Nor is it used where the rows may go anywhere in the file: into a table with an index, or under row numbers of the event. A statement of
//! several rows must be undone if one of them fails, so SQLite keeps a copy of each page that it changes (a statement journal,
//! <https://sqlite.org/tempfiles.html>). With one page for each row, that costs more than it saves.

use std::sync::Arc;

use rusqlite::Connection;

use crate::pipeline::Delivery;
use crate::store::insert_statement::InsertStatement;
use crate::store::schema::quoted;

/// How many rows one statement inserts.
pub(super) const ROWS: usize = 16;

/// The most bytes of an event. SQLite copies the values of all rows.
const MAX_BYTES: usize = 4 << 10;

/// An INSERT of [`ROWS`] rows.
#[derive(Debug)]
pub(in crate::store) struct MultiRowInsert {
    pub(in crate::store) sql: Arc<str>,
    /// Its number among the different statements of all routes, from 0.
    pub(in crate::store) slot: usize,
    /// The numbers of the route's parameters that the columns get, in order.
    pub(in crate::store) bindings: Vec<usize>,
}

/// Text and parameters of a multi-row INSERT that has the effect of this statement for [`ROWS`] events, if there is one.
pub(super) fn of(statement: &str, connection: &Connection) -> Option<(String, Vec<String>)> {
    let insert = InsertStatement::of(statement).filter(|insert| insert.is_plain)?;
    let parameters = insert.parameters()?;
    let columns: Vec<&str> = insert.columns.iter().flatten().map(String::as_str).collect();
    let sql = of_columns(&insert.table, &columns, parameters.len(), connection)?;
    Some((sql, parameters.into_iter().map(str::to_owned).collect()))
}

/// A multi-row INSERT into these columns of the table, or into all if none is named, if it only adds rows behind the last. `None`
/// also if this cannot be found out: then each event is inserted by a statement of its own.
pub(super) fn of_columns(table: &str, columns: &[&str], values: usize, connection: &Connection) -> Option<String> {
    if !only_appends(table, columns, connection).unwrap_or(false) {
        return None;
    }
    let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let names = if names.is_empty() { String::new() } else { format!("({})", names.join(", ")) };
    let row = format!("({})", vec!["?"; values].join(", "));
    let sql = format!("INSERT INTO {}{names} VALUES {}", quoted(table), vec![row; ROWS].join(", "));
    // It may have more parameters than SQLite allows.
    connection.prepare(&sql).is_ok().then_some(sql)
}

/// Whether the event is small enough.
pub(super) fn takes(delivery: &Delivery<'_>) -> bool {
    let headers: usize = delivery.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    delivery.payload.len() + headers <= MAX_BYTES
}

/// Whether inserting these columns, or all if none is named, adds a row behind the table's last and does nothing else.
fn only_appends(table: &str, columns: &[&str], connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_list(?1) WHERE schema = 'main' AND type = 'table' AND NOT wr)
                  AND NOT EXISTS (SELECT 1 FROM pragma_foreign_key_list(?1))
                  AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1))
                  AND NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE)";
    if !connection.query_row(sql, [table], |row| row.get(0))? {
        return Ok(false);
    }
    // Without an index, the only primary key is the row number.
    let mut keys = connection.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk")?;
    let keys: Vec<String> = keys.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let is_row_number = |column: &&str| {
        let names = ["rowid", "_rowid_", "oid"].into_iter().chain(keys.iter().map(String::as_str));
        names.into_iter().any(|name| name.eq_ignore_ascii_case(column))
    };
    Ok(if columns.is_empty() { keys.is_empty() } else { !columns.iter().any(is_row_number) })
}
