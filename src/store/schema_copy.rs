//! Copies the schema of a database into an empty one, to try something on the copy.

use std::path::Path;

use rusqlite::Connection;

use super::read_connection::ReadConnection;
use super::sqlite_error::database_error;
use crate::error::Error;

/// The statements of the schema, tables first because the rest refers to them. Virtual tables make their own tables.
const SCHEMA: &str = r"
SELECT sql FROM sqlite_schema
WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
  AND name NOT IN (SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow')
ORDER BY CASE type WHEN 'table' THEN 1 WHEN 'view' THEN 2 WHEN 'index' THEN 3 ELSE 4 END, rowid";

/// The tables that are copied with their rows, and which: what catchment records about the database. The marks of imported lines may be
/// very many, and nobody needs them in the copy.
const WITH_ROWS: [(&str, &str); 2] =
    [("catchment_meta", "key NOT GLOB 'import-lines:*'"), ("catchment_migrations", "true")];

/// Makes the file `to`, which must not exist, with the tables, indexes, views and triggers of `original`, but without its rows.
/// Migrations that were applied to the original count as applied to the copy. `original` is only read.
///
/// # Errors
///
/// [`Error::Database`] names the file that fails.
pub fn copy_schema(original: &Path, to: &Path) -> Result<(), Error> {
    let made = ReadConnection::open(original)?.read(|from| copy(from, to))?;
    made.map_err(|e| database_error(to, e))
}

/// The outer error comes from reading, the inner one from writing.
fn copy(from: &Connection, to: &Path) -> rusqlite::Result<rusqlite::Result<()>> {
    let statements: Vec<String> = from.prepare(SCHEMA)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    for (table, which) in WITH_ROWS {
        rows.extend(inserts(from, table, which)?);
    }
    let write = || {
        let to = Connection::open(to)?;
        statements.iter().chain(&rows).try_for_each(|sql| to.execute_batch(sql))
    };
    Ok(write())
}

/// The statements that insert these rows of a table; none if there is no such table.
fn inserts(from: &Connection, table: &str, which: &str) -> rusqlite::Result<Vec<String>> {
    let columns = "SELECT group_concat('quote(' || name || ')', ' || '', '' || ') FROM pragma_table_info(?)";
    let Some(values) = from.query_row(columns, [table], |row| row.get::<_, Option<String>>(0))? else {
        return Ok(Vec::new());
    };
    let sql = format!("SELECT 'INSERT INTO {table} VALUES (' || {values} || ')' FROM {table} WHERE {which}");
    from.prepare(&sql)?.query_map([], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatabaseConfig;
    use crate::store::read_only::read_only;
    use crate::store::{Database, Editor, Routes};

    fn one<T: rusqlite::types::FromSql>(path: &Path, sql: &str) -> T {
        read_only(path).and_then(|connection| connection.query_row(sql, [], |row| row.get(0))).expect(sql)
    }

    #[test]
    fn the_copy_has_the_tables_without_rows() {
        let folder = tempfile::tempdir().expect("a folder");
        let (original, copy) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let config = DatabaseConfig { path: original.clone(), ..DatabaseConfig::default() };
        drop(Database::open(&config, &Routes::default()).expect("opens"));
        let sql = "CREATE VIEW v AS SELECT a FROM t;
                   CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT UNIQUE);
                   CREATE VIRTUAL TABLE words USING fts5(a);
                   CREATE INDEX i ON t(a) WHERE a > '';
                   CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO words VALUES (new.a); END;
                   INSERT INTO t(a) VALUES ('x');
                   INSERT INTO catchment_migrations VALUES (7, '7_it''s.sql', 'ab', 5);";
        Editor::open(&original).expect("opens").run(sql).expect("SQL");
        copy_schema(&original, &copy).expect("a copy");
        let all = "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema ORDER BY type, name)";
        assert_eq!(one::<String>(&copy, all), one::<String>(&original, all));
        let identity = "SELECT value FROM catchment_meta WHERE key = 'identity'";
        assert_eq!(one::<String>(&copy, identity), one::<String>(&original, identity));
        assert_eq!(one::<String>(&copy, "SELECT name FROM catchment_migrations"), "7_it's.sql");
        assert_eq!(one::<i64>(&copy, "SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM words)"), 0);
        assert_eq!(one::<i64>(&original, "SELECT count(*) FROM words"), 1);
        Editor::open(&copy).expect("opens").run("INSERT INTO t(a) VALUES ('y')").expect("the trigger works");
    }

    #[test]
    fn a_file_that_is_not_a_database_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (original, copy) = (folder.path().join("a.db"), folder.path().join("b.db"));
        assert!(copy_schema(&original, &copy).expect_err("none").to_string().contains("no such file"));
        std::fs::write(&original, [7; 5_000]).expect("writes");
        assert!(copy_schema(&original, &copy).expect_err("none").to_string().contains("not a database"));
        assert!(!copy.exists());
    }
}
