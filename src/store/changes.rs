//! What is in a database and not in an earlier copy of it, table by table.

use std::path::Path;

use rusqlite::Connection;

use super::reader::{Value, read_only, value};
use super::sqlite_error::database_error;
use crate::error::Error;

/// The rows of a table that came or changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The table.
    pub table: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The rows as they are now, in the order of their key.
    pub rows: Vec<Vec<Value>>,
    /// How many rows are gone.
    pub gone: u64,
}

/// The tables of the user's that are not as they were in `before`, a copy of the same database; those of catchment are passed
/// over, but for `events`. Holds the changed rows in memory.
///
/// # Errors
///
/// [`Error::Database`] where one cannot be read.
pub fn changes(before: &Path, now: &Path) -> Result<Vec<Changed>, Error> {
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

/// Its tables, those with virtual ones' content not among them.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = r"SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
                AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT LIKE 'catchment\_%' ESCAPE '\' ORDER BY name";
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

fn changed(connection: &Connection, table: String) -> rusqlite::Result<Option<Changed>> {
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
    let gone = connection.query_row(&sql, [], |row| row.get(0))?;
    Ok((!rows.is_empty() || gone > 0).then_some(Changed { table, columns, rows, gone }))
}

/// How a table is laid out.
struct Layout {
    columns: Vec<String>,
    /// By which a row is known again, each quoted.
    key: Vec<String>,
}

impl Layout {
    fn of(connection: &Connection, table: &str) -> rusqlite::Result<Self> {
        let sql = "SELECT name, pk FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid";
        let mut statement = connection.prepare(sql)?;
        let read = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let described: Vec<(String, i64)> = read.collect::<Result<_, _>>()?;
        let columns: Vec<String> = described.iter().map(|(name, _)| name.clone()).collect();
        let key = if has_numbers(connection, table)? {
            // A primary key beside the number may be NULL, and then there are several of it.
            let is_column = |name: &&str| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
            let number = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !is_column(name));
            let whole_row = || columns.iter().map(|name| quoted(name)).collect();
            number.map_or_else(whole_row, |number| vec![number.to_owned()])
        } else {
            let mut key: Vec<_> = described.iter().filter(|(_, place)| *place > 0).collect();
            key.sort_unstable_by_key(|(_, place)| *place);
            key.into_iter().map(|(name, _)| quoted(name)).collect()
        };
        Ok(Self { columns, key })
    }
}

/// Whether each row of a table has a number: <https://sqlite.org/rowidtable.html>.
fn has_numbers(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT NOT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?";
    connection.query_row(sql, [table], |row| row.get(0))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Editor;

    #[test]
    fn rows_that_came_or_changed_are_told_by_table() {
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
            Changed {
                table: "keyed".into(),
                columns: columns(&["name", "n"]),
                rows: vec![vec![text("a"), Value::Integer(2)], vec![text("c"), Value::Integer(3)]],
                gone: 0,
            },
            Changed {
                table: "odd".into(),
                columns: columns(&["rowid", "_rowid_", "oid"]),
                rows: vec![vec![text("o"), text("d"), text("d")]],
                gone: 0,
            },
            Changed {
                table: "plain".into(),
                columns: columns(&["a", "b \"c"]),
                rows: vec![
                    vec![Value::Integer(2), text("Y")],
                    vec![Value::Integer(1), text("x")],
                    vec![Value::Null, Value::Null],
                ],
                gone: 1,
            },
        ];
        assert_eq!(changes(&before, &now).expect("reads"), expected);
    }
}
