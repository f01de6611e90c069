//! Compares a database with an earlier copy of it, table by table.

use std::path::Path;

use rusqlite::Connection;

use super::read_only::read_only;
use super::reader::{Value, rowid_name, value};
use super::schema::quoted;
use super::sqlite_error::database_error;
use crate::error::Error;

/// The changes of a table since a copy of its database was made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TableChange {
    /// The table's name.
    pub table: String,
    /// The names of its columns, generated ones included.
    pub columns: Vec<String>,
    /// The rows that are new or changed, as they are now, in the order of their key. A row has a value for each column.
    pub rows: Vec<Vec<Value>>,
    /// How many rows were deleted. A row whose key changed counts as deleted and as new.
    pub deleted: u64,
}

/// The changed tables since `before`, an earlier copy of the same database. Catchment's own tables are skipped, except `events`.
/// Holds the changed rows in memory.
///
/// # Errors
///
/// [`Error::Database`] names the file that cannot be read.
pub fn changes(before: &Path, now: &Path) -> Result<Vec<TableChange>, Error> {
    let on_error = |e| database_error(now, e);
    let connection = read_only(now).map_err(on_error)?;
    let attach = || connection.execute("ATTACH ? AS before", [before.to_string_lossy()]);
    attach().map_err(|e| database_error(before, e))?;
    let read = || {
        let mut all = Vec::new();
        for table in tables(&connection)? {
            all.extend(changed(&connection, table)?);
        }
        Ok(all)
    };
    read().map_err(on_error)
}

/// The tables to compare, without those that hold the content of virtual tables.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = r"SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
                AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT LIKE 'catchment\_%' ESCAPE '\' ORDER BY name";
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

fn changed(connection: &Connection, table: String) -> rusqlite::Result<Option<TableChange>> {
    let Layout { columns, key } = Layout::of(connection, &table)?;
    let same = |names: &[String]| {
        let terms = names.iter().map(|name| format!("a.{name} COLLATE BINARY IS b.{name}"));
        terms.collect::<Vec<_>>().join(" AND ")
    };
    let quoted_columns: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
    let (name, all, order) = (quoted(&table), quoted_columns.join(", a."), key.join(", a."));
    let (same_key, same_row) = (same(&key), same(&quoted_columns));
    let sql = format!(
        "SELECT a.{all} FROM main.{name} a
         WHERE NOT EXISTS (SELECT 1 FROM before.{name} b WHERE {same_key} AND {same_row}) ORDER BY a.{order}"
    );
    let mut statement = connection.prepare(&sql)?;
    let read = statement.query_map([], |row| (0..columns.len()).map(|at| value(row, at)).collect())?;
    let rows: Vec<Vec<Value>> = read.collect::<Result<_, _>>()?;
    let sql =
        format!("SELECT count(*) FROM before.{name} b WHERE NOT EXISTS (SELECT 1 FROM main.{name} a WHERE {same_key})");
    let deleted = connection.query_row(&sql, [], |row| row.get(0))?;
    Ok((!rows.is_empty() || deleted > 0).then_some(TableChange { table, columns, rows, deleted }))
}

/// The columns and the key of a table.
struct Layout {
    columns: Vec<String>,
    /// The quoted columns that identify a row.
    key: Vec<String>,
}

impl Layout {
    fn of(connection: &Connection, table: &str) -> rusqlite::Result<Self> {
        let sql = "SELECT name, pk FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid";
        let mut statement = connection.prepare(sql)?;
        let read = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let described: Vec<(String, i64)> = read.collect::<Result<_, _>>()?;
        let columns: Vec<String> = described.iter().map(|(name, _)| name.clone()).collect();
        let key = if has_rowid(connection, table)? {
            // The row number, because a primary key may be NULL in several rows.
            let whole_row = || columns.iter().map(|name| quoted(name)).collect();
            rowid_name(&columns).map_or_else(whole_row, |rowid| vec![rowid.to_owned()])
        } else {
            let mut key: Vec<_> = described.iter().filter(|(_, place)| *place > 0).collect();
            key.sort_unstable_by_key(|(_, place)| *place);
            key.into_iter().map(|(name, _)| quoted(name)).collect()
        };
        Ok(Self { columns, key })
    }
}

/// Whether the rows of a table have a rowid: <https://sqlite.org/rowidtable.html>.
fn has_rowid(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT NOT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?";
    connection.query_row(sql, [table], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Editor;

    #[test]
    fn new_changed_and_deleted_rows_are_found_by_table() {
        let folder = tempfile::tempdir().expect("a folder");
        let (before, now) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let tables = r#"
            CREATE TABLE plain(a, "b ""c" TEXT COLLATE NOCASE);
            CREATE TABLE keyed(name TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
            CREATE TABLE odd(rowid TEXT, _rowid_ TEXT, oid TEXT);
            CREATE TABLE same(a);
            CREATE TABLE catchment_x(a);
            INSERT INTO plain VALUES (1, 'x'), (2, 'y'), (3, 'z');
            INSERT INTO keyed VALUES ('a', 1), ('b', 2);
            INSERT INTO same VALUES (1);"#;
        Editor::open(&before).expect("opens").run(tables).expect("SQL");
        std::fs::copy(&before, &now).expect("a copy");
        assert_eq!(changes(&before, &now).expect("reads"), []);
        let events = r#"
            INSERT INTO plain VALUES (1, 'x'), (NULL, NULL);
            UPDATE plain SET "b ""c" = 'Y' WHERE a = 2;
            DELETE FROM plain WHERE a = 3;
            INSERT INTO keyed VALUES ('a', 1), ('c', 3) ON CONFLICT DO UPDATE SET n = n + 1;
            INSERT INTO odd VALUES ('o', 'd', 'd');
            INSERT INTO catchment_x VALUES (1);"#;
        Editor::open(&now).expect("opens").run(events).expect("SQL");
        let text = |text: &str| Value::Text(text.into());
        let columns = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let expected = [
            TableChange {
                table: "keyed".into(),
                columns: columns(&["name", "n"]),
                rows: vec![vec![text("a"), Value::Integer(2)], vec![text("c"), Value::Integer(3)]],
                deleted: 0,
            },
            TableChange {
                table: "odd".into(),
                columns: columns(&["rowid", "_rowid_", "oid"]),
                rows: vec![vec![text("o"), text("d"), text("d")]],
                deleted: 0,
            },
            TableChange {
                table: "plain".into(),
                columns: columns(&["a", "b \"c"]),
                rows: vec![
                    vec![Value::Integer(2), text("Y")],
                    vec![Value::Integer(1), text("x")],
                    vec![Value::Null, Value::Null],
                ],
                deleted: 1,
            },
        ];
        assert_eq!(changes(&before, &now).expect("reads"), expected);
    }
}
