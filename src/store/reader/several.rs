//! Several databases read as one: each name stands for the rows of all.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Error as SqliteError};

use super::Reader;
use crate::error::{DatabaseFault, Error};
use crate::printable;
use crate::store::database_file::inode;
use crate::store::read_connection::ReadConnection;
use crate::store::schema::quoted;

/// How many databases SQLite attaches to the first one (<https://sqlite.org/limits.html>, `SQLITE_MAX_ATTACHED`).
const MOST_ATTACHED: usize = 10;

/// The function whose call is the error of a table that cannot be read as one.
const DIFFERING: &str = "catchment_differing";

/// The column that names the database of a row.
const DATABASE: &str = "database";

/// A table or view of all databases.
#[derive(Debug, Default)]
struct Union {
    /// Its columns in each database that has it, by the number of the database.
    columns: BTreeMap<usize, Vec<String>>,
}

impl Reader {
    /// Opens existing databases to be read as one. A name of a table or view stands for its rows in all databases that have it, one
    /// database after the other, with a last column `database` that has the path as it is given here. If the columns of a table differ,
    /// only that table cannot be read so. `main.events` is the table of the first database, `db1.events` that of the second, and so on.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: there are too many, one is given twice, or one of them cannot be read.
    pub fn open_all(paths: &[&Path]) -> Result<Self, Error> {
        let [first, others @ ..] = paths else {
            return Err(Error::config("database.path", "no database is given"));
        };
        if others.is_empty() {
            return Self::open(first);
        }
        if others.len() > MOST_ATTACHED {
            let detail =
                format!("{} databases are too many to be read as one; SQLite takes {}", paths.len(), MOST_ATTACHED + 1);
            let error = Error::database(DatabaseFault::Statement, first, detail);
            return Err(error.with_remedy("give fewer, or read them in turn"));
        }
        for (number, path) in paths.iter().enumerate() {
            // Its rows would be counted twice.
            let file = inode(path);
            if let Some(same) = paths[..number].iter().find(|other| file.is_some() && inode(other) == file) {
                let detail = format!("it is given twice, also as {}", same.display());
                let error = Error::database(DatabaseFault::Statement, path, detail);
                return Err(error.with_remedy("give each database once"));
            }
        }
        for other in others {
            // Its error says what is wrong with the file.
            drop(ReadConnection::open(other)?);
        }
        let reader = Self::open(first)?;
        reader.connection.read(|sqlite| {
            // Temporary views are no change of a database.
            sqlite.pragma_update(None, "query_only", false)?;
            let united = unite(sqlite, paths);
            sqlite.pragma_update(None, "query_only", true)?;
            united
        })?;
        Ok(reader)
    }
}

fn unite(sqlite: &Connection, paths: &[&Path]) -> rusqlite::Result<()> {
    for (number, path) in paths.iter().enumerate() {
        if number > 0 {
            sqlite.execute("ATTACH ? AS ?", (path.to_string_lossy(), format!("db{number}")))?;
        }
    }
    let flags = FunctionFlags::SQLITE_UTF8;
    sqlite.create_scalar_function(DIFFERING, 1, flags, |context| -> rusqlite::Result<bool> {
        Err(SqliteError::UserFunctionError(context.get::<String>(0)?.into()))
    })?;
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    for (name, union) in unions(sqlite, paths.len())? {
        sqlite.execute_batch(&union.view(&name, &shown))?;
    }
    Ok(())
}

/// The name of a database within SQL.
fn schema(number: usize) -> String {
    if number == 0 { "main".into() } else { format!("db{number}") }
}

/// All tables and views but SQLite's own, and those that hold the content of virtual tables. Names that differ only in case are one.
fn unions(sqlite: &Connection, databases: usize) -> rusqlite::Result<BTreeMap<String, Union>> {
    let tables = r"SELECT name FROM pragma_table_list WHERE schema = ? AND type <> 'shadow' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'";
    let mut all: BTreeMap<String, (String, Union)> = BTreeMap::new();
    for number in 0..databases {
        let schema = schema(number);
        let names = sqlite
            .prepare_cached(tables)?
            .query_map([&schema], |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()?;
        for name in names {
            let mut columns = sqlite.prepare_cached("SELECT name FROM pragma_table_info(?, ?) ORDER BY cid")?;
            // A virtual table whose module is missing, and a view of a table that is gone, have none.
            let found = columns
                .query_map([&name, &schema], |row| row.get(0))
                .and_then(Iterator::collect::<Result<Vec<String>, _>>);
            let (_, union) = all.entry(name.to_ascii_lowercase()).or_insert_with(|| (name.clone(), Union::default()));
            union.columns.insert(number, found.unwrap_or_default());
        }
    }
    Ok(all.into_values().collect())
}

impl Union {
    /// The statement that makes its view.
    fn view(&self, name: &str, paths: &[String]) -> String {
        let (view, text) = (quoted(name), |text: &str| format!("'{}'", text.replace('\'', "''")));
        let mut databases = self.columns.iter();
        let first = databases.next().map(|(_, columns)| &columns[..]).unwrap_or_default();
        if first.is_empty() || databases.any(|(_, columns)| columns != first) {
            let list = |(number, columns): (&usize, &Vec<String>)| {
                let columns = if columns.is_empty() { "none that can be read".into() } else { columns.join(", ") };
                format!("in {} {columns}", paths[*number])
            };
            let columns = self.columns.iter().map(list).collect::<Vec<_>>().join("; ");
            let said = format!(
                "table {name} cannot be read as one: its columns differ: {columns}; read it as main.{name}, db1.{name}, …"
            );
            let mut names: Vec<&String> = self.columns.values().flatten().collect();
            names.sort_unstable();
            names.dedup();
            let values: Vec<String> = names.iter().map(|name| format!("NULL AS {}", quoted(name))).collect();
            let values = if values.is_empty() { "NULL".into() } else { values.join(", ") };
            return format!(
                "CREATE TEMP VIEW {view} AS SELECT {values} WHERE {DIFFERING}({})",
                text(&printable(&said))
            );
        }
        let has_own = first.iter().any(|column| column.eq_ignore_ascii_case(DATABASE));
        let columns = first.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
        let parts: Vec<String> = self
            .columns
            .keys()
            .map(|number| {
                let place = if has_own { String::new() } else { format!(", {} AS {DATABASE}", text(&paths[*number])) };
                format!("SELECT {columns}{place} FROM {}.{view}", schema(*number))
            })
            .collect();
        format!("CREATE TEMP VIEW {view} AS {}", parts.join(" UNION ALL "))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::path::PathBuf;

    use super::*;
    use crate::store::{Editor, StatementOutput, Value};

    fn databases(scripts: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |(number, sql): (usize, &&str)| {
            let path = folder.path().join(format!("it's {number}.db"));
            Editor::open(&path).expect("opens").run(&format!("PRAGMA journal_mode = WAL; {sql}")).expect("SQL");
            path
        };
        let paths = scripts.iter().enumerate().map(path).collect();
        (folder, paths)
    }

    fn open(paths: &[PathBuf]) -> Result<Reader, Error> {
        Reader::open_all(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>())
    }

    fn rows(reader: &Reader, sql: &str) -> Result<Vec<Vec<Value>>, Error> {
        let mut rows = Vec::new();
        let ran: Result<Option<()>, Error> = reader.run(sql, |answer| {
            if let StatementOutput::Row(row) = answer {
                rows.push(row);
            }
            ControlFlow::Continue(())
        });
        ran.map(|_| rows)
    }

    #[test]
    fn a_name_stands_for_the_rows_of_all_databases() {
        let (folder, paths) = databases(&[
            "CREATE TABLE lines(a, b); INSERT INTO lines VALUES (1, 'x'), (3, 'y'); CREATE TABLE own(z); INSERT INTO own VALUES (7)",
            "CREATE TABLE lines(a, b); INSERT INTO lines VALUES (2, 'x'); CREATE VIEW big AS SELECT a FROM lines WHERE a > 1",
            "CREATE TABLE Lines(a, b); INSERT INTO lines VALUES (4, 'z'); CREATE TABLE placed(database); INSERT INTO placed VALUES (9)",
        ]);
        let before: Vec<_> =
            std::fs::read_dir(folder.path()).expect("reads").map(|entry| entry.expect("one").file_name()).collect();
        let reader = open(&paths).expect("opens");
        let count = |sql: &str| match rows(&reader, sql).expect(sql)[..] {
            [ref row] => row[0].clone(),
            ref rows => panic!("{rows:?}"),
        };
        assert_eq!(count("SELECT group_concat(a) FROM lines"), Value::from("1,3,2,4"));
        assert_eq!(count("SELECT sum(a) FROM lines WHERE b = 'x'"), Value::Integer(3));
        let places = rows(&reader, "SELECT DISTINCT database FROM lines").expect("runs");
        let shown = |path: &PathBuf| vec![Value::Text(path.display().to_string())];
        assert_eq!(places, paths.iter().map(shown).collect::<Vec<_>>());
        assert_eq!(count("SELECT a FROM big"), Value::Integer(2), "a view of one database");
        assert_eq!(count("SELECT z FROM own"), Value::Integer(7));
        assert_eq!(rows(&reader, "SELECT * FROM placed").expect("runs"), [[Value::Integer(9)]], "its own column");
        assert_eq!(count("SELECT count(*) FROM db2.lines"), Value::Integer(1));
        for sql in ["DELETE FROM db1.lines", "CREATE TEMP TABLE t(a)"] {
            assert!(rows(&reader, sql).is_err(), "{sql}");
        }
        drop(reader);
        let after: Vec<_> =
            std::fs::read_dir(folder.path()).expect("reads").map(|entry| entry.expect("one").file_name()).collect();
        assert_eq!(before.len(), after.len(), "{after:?}");
    }

    #[test]
    fn only_a_table_whose_columns_differ_cannot_be_read() {
        let (_folder, paths) = databases(&[
            "CREATE TABLE same(a); CREATE TABLE lines(a, b); INSERT INTO lines VALUES (1, 2)",
            "CREATE TABLE same(a); INSERT INTO same VALUES (5); CREATE TABLE lines(a, c)",
        ]);
        let reader = open(&paths).expect("opens");
        assert_eq!(rows(&reader, "SELECT a FROM same").expect("reads"), [[Value::Integer(5)]]);
        for sql in
            ["SELECT * FROM lines", "SELECT count(*) FROM lines", "SELECT a FROM lines", "SELECT c FROM lines LIMIT 1"]
        {
            let said = rows(&reader, sql).expect_err(sql).to_string();
            assert!(said.contains("table lines cannot be read as one: its columns differ: in "), "{said}");
            assert!(said.contains("0.db a, b; in ") && said.contains("1.db a, c; read it as main.lines"), "{said}");
        }
        assert_eq!(rows(&reader, "SELECT b FROM main.lines").expect("reads"), [[Value::Integer(2)]]);
    }

    #[test]
    fn a_database_that_is_given_twice_is_refused() {
        let (folder, mut paths) = databases(&["CREATE TABLE t(a)"; 2]);
        let link = folder.path().join("link.db");
        std::os::unix::fs::symlink(&paths[1], &link).expect("a link");
        paths.push(link);
        let said = open(&paths).expect_err("must be refused").to_string();
        let first = paths[1].display();
        assert!(
            said.contains(&format!("link.db: it is given twice, also as {first}; give each database once")),
            "{said}"
        );
        assert!(open(&paths[..2]).is_ok());
        let said = open(&[paths[0].clone(), paths[0].clone()]).expect_err("must be refused").to_string();
        assert!(said.contains("it is given twice"), "{said}");
        let missing = folder.path().join("none.db");
        assert!(open(&[missing.clone(), missing]).expect_err("must be refused").to_string().contains("no such file"));
    }

    #[test]
    fn too_many_databases_and_unusable_ones_are_refused_by_name() {
        let (folder, mut paths) = databases(&["CREATE TABLE t(a)"; 12]);
        let said = open(&paths).expect_err("must be refused").to_string();
        assert!(said.contains("12 databases are too many to be read as one; SQLite takes 11; give fewer"), "{said}");
        paths.pop();
        let reader = open(&paths).expect("opens");
        assert_eq!(rows(&reader, "SELECT count(*) FROM t").expect("reads"), [[Value::Integer(0)]]);
        paths[3] = folder.path().join("none.db");
        assert!(
            open(&paths).expect_err("none").to_string().contains("none.db: there is no such file"),
            "{:?}",
            open(&paths).err()
        );
        std::fs::write(&paths[3], "this is no database, but a text that is long enough").expect("writes");
        assert!(open(&paths).expect_err("none").to_string().contains("none.db"));
    }
}
