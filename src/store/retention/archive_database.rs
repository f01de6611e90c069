//! An archive that is an SQLite database. Each table has the name and the columns of the one that its rows are from, without
//! constraints and indexes.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params_from_iter};

use crate::error::DatabaseFault;
use crate::store::cell::Cell;
use crate::store::reader::rowid_name;
use crate::store::schema::{has_table, quoted, tables};
use crate::store::sqlite_error::{fault, message, one_line};

/// The table that shows that a database is an archive.
const OWN: &str = "catchment_archive";

/// As [`Archive::add`](super::archive::Archive::add). The mark is the number of the last settled row.
pub(super) fn add(
    path: &Path,
    table: &str,
    columns: &[String],
    rows: &[Vec<Cell>],
    mark: Option<i64>,
    permissions: u32,
) -> Result<i64, String> {
    check(path)?;
    let failed =
        |error: rusqlite::Error| format!("archive {}: {}; nothing was deleted", path.display(), one_line(&error));
    let Some(number) = rowid_name(columns) else {
        return Err(format!("archive {}: table {table} has columns rowid, _rowid_ and oid", path.display()));
    };
    // Fails if there is one.
    let _ = OpenOptions::new().write(true).create_new(true).mode(permissions).open(path);
    let mut connection = open(path).map_err(failed)?;
    let (before, last, added) =
        in_one_transaction(&mut connection, number, table, columns, rows, mark).map_err(failed)?;
    let again = read(&connection, number, table, columns, before).map_err(failed)?;
    if again != added {
        return Err(format!("archive {}: it has other rows than were written; nothing was deleted", path.display()));
    }
    Ok(last)
}

/// Adds rows. Returns the number of the last row before and after that, and the rows that were added, encoded.
fn in_one_transaction(
    connection: &mut Connection,
    number: &str,
    table: &str,
    columns: &[String],
    rows: &[Vec<Cell>],
    mark: Option<i64>,
) -> rusqlite::Result<(i64, i64, Vec<Vec<u8>>)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(&format!("CREATE TABLE IF NOT EXISTS {OWN}(name TEXT PRIMARY KEY) WITHOUT ROWID"))?;
    transaction.execute(&format!("INSERT OR IGNORE INTO {OWN} VALUES (?)"), [table])?;
    let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let sql = format!("CREATE TABLE IF NOT EXISTS {}({})", quoted(table), names.join(", "));
    transaction.execute_batch(&sql)?;
    add_columns(&transaction, table, columns)?;
    let last = |connection: &Connection| {
        let sql = format!("SELECT coalesce(max({number}), 0) FROM {}", quoted(table));
        connection.query_row(&sql, [], |row| row.get::<_, i64>(0))
    };
    let before = last(&transaction)?;
    let mut unsettled: HashMap<Vec<u8>, u32> = HashMap::new();
    let mark = mark.unwrap_or(0);
    if before > mark {
        for row in read(&transaction, number, table, columns, mark)? {
            *unsettled.entry(row).or_default() += 1;
        }
    }
    let mut added = Vec::new();
    {
        let places = vec!["?"; columns.len()].join(", ");
        let sql = format!("INSERT INTO {}({}) VALUES ({places})", quoted(table), names.join(", "));
        let mut insert = transaction.prepare(&sql)?;
        for row in rows {
            let row_encoded = encoded(row);
            match unsettled.get_mut(&row_encoded) {
                Some(count) if *count > 0 => *count -= 1,
                _ => {
                    insert.execute(params_from_iter(row))?;
                    added.push(row_encoded);
                }
            }
        }
    }
    let after = last(&transaction)?;
    transaction.commit()?;
    Ok((before, after, added))
}

/// Adds the columns that the table has got since the archive was made.
fn add_columns(connection: &Connection, table: &str, columns: &[String]) -> rusqlite::Result<()> {
    let sql = "SELECT name FROM pragma_table_info(?)";
    let known = connection.prepare(sql)?.query_map([table], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    for column in columns.iter().filter(|column| !known.iter().any(|one| one.eq_ignore_ascii_case(column))) {
        connection.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {}", quoted(table), quoted(column)))?;
    }
    Ok(())
}

/// The rows after this number, encoded.
fn read(
    connection: &Connection,
    number: &str,
    table: &str,
    columns: &[String],
    after: i64,
) -> rusqlite::Result<Vec<Vec<u8>>> {
    let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let sql = format!("SELECT {} FROM {} WHERE {number} > ? ORDER BY {number}", names.join(", "), quoted(table));
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([after], |row| Ok(encoded(&Cell::row(row, 0, columns.len())?)))?;
    rows.collect()
}

fn encoded(row: &[Cell]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cell in row {
        cell.encode(&mut bytes);
    }
    bytes
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Refuses a database of something else.
pub(super) fn check(path: &Path) -> Result<(), String> {
    if !path.exists() {
        return Ok(());
    }
    let shown = path.display();
    let look = || {
        let connection = open(path)?;
        Ok((has_table(&connection, OWN)?, tables(&connection)?.is_empty()))
    };
    match look() {
        Ok((false, false)) => Err(format!("{shown} is a database with other tables, not an archive")),
        Ok(_) => Ok(()),
        Err(error) if fault(&error) == DatabaseFault::Corrupt => {
            Err(format!("{shown}: {}; name another file for the archive", message(&error)))
        }
        Err(error) => Err(format!("{shown}: {}", one_line(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture::texts;

    #[test]
    fn rows_beyond_the_mark_are_not_added_again_and_new_columns_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("old.db");
        let row = |number: i64, text: &str| vec![Cell::Integer(number), Cell::Text(text.into())];
        let columns = ["id".to_owned(), "text".to_owned()];
        let add = |rows: &[Vec<Cell>], mark| super::add(&path, "t", &columns, rows, mark, 0o600).expect("adds");
        let mark = add(&[row(1, "a"), row(2, "b")], None);
        assert_eq!(mark, 2);
        // Killed before the deletion of these two was committed.
        add(&[row(3, "c"), row(4, "d")], Some(mark));
        let mark = add(&[row(3, "c"), row(4, "other"), row(5, "e")], Some(mark));
        // Its number is used again, with the same content.
        add(&[row(1, "a")], Some(mark));
        let wider = ["id".to_owned(), "text".to_owned(), "more".to_owned()];
        let other = [row(9, "z"), vec![Cell::Blob(vec![7])]].concat();
        super::add(&path, "t", &wider, &[other], Some(7), 0o600).expect("adds");
        let connection = Connection::open(&path).expect("opens");
        let found = texts(&connection, "SELECT id || text || coalesce(hex(more), '') FROM t ORDER BY rowid");
        assert_eq!(found, ["1a", "2b", "3c", "4d", "4other", "5e", "1a", "9z07"]);
        check(&path).expect("is one of ours");
        connection.execute_batch("DROP TABLE catchment_archive").expect("SQL");
        assert!(check(&path).expect_err("is none").contains("other tables, not an archive"));
    }
}
