//! The tables of a database, and their rows in the order of their numbers.

use std::path::PathBuf;

use rusqlite::OptionalExtension;

use super::{Reader, Value, value};
use crate::error::{DatabaseFault, Error};
use crate::hint;
use crate::store::routes::authorizer::Authorizer;
use crate::store::row_filter::RowFilter;
use crate::store::schema::quoted;

/// A table whose rows have numbers (<https://sqlite.org/rowidtable.html>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowTable {
    /// Its name, as the database spells it.
    pub name: String,
    /// The names of its columns, generated ones included.
    pub columns: Vec<String>,
    /// Whether it is a virtual table, such as a full-text index.
    pub is_virtual: bool,
    /// The name of the number in SQL.
    rowid: &'static str,
}

/// The tables of the user and `events` whose rows have numbers: without SQLite's own, catchment's own, and those that hold the content of
/// virtual tables.
const TABLES: &str = r"SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual') AND NOT wr
    AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT LIKE 'catchment\_%' ESCAPE '\' ORDER BY name";

impl Reader {
    /// The names of the user's tables whose rows have numbers, and `events`, in alphabetical order.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn table_names(&self) -> Result<Vec<String>, Error> {
        self.connection.read(|sqlite| sqlite.prepare_cached(TABLES)?.query_map([], |row| row.get(0))?.collect())
    }

    /// The names of all tables, views and columns that SQL can use, without duplicates. A virtual table whose module is missing
    /// has no columns.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let tables = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type <> 'shadow'";
        self.connection.read(|sqlite| {
            let mut names: Vec<String> =
                sqlite.prepare(tables)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let mut columns = sqlite.prepare("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1")?;
            for table in names.clone() {
                let read =
                    columns.query_map([table], |row| row.get(0)).and_then(Iterator::collect::<Result<Vec<String>, _>>);
                names.extend(read.unwrap_or_default());
            }
            names.sort_unstable();
            names.dedup();
            Ok(names)
        })
    }

    /// The table with this name; `None` if there is no table or view of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], with [`DatabaseFault::Statement`] for a view, and for a table whose rows have no numbers.
    pub fn row_table(&self, name: &str) -> Result<Option<RowTable>, Error> {
        let find = "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE";
        let columns = "SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid";
        let found = self.connection.read(|sqlite| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let Some((name, kind, is_without)) = sqlite.query_row(find, [name], row).optional()? else {
                return Ok(None);
            };
            let (name, kind, is_without): (String, String, bool) = (name, kind, is_without);
            let columns =
                sqlite.prepare(columns)?.query_map([&name], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()?;
            Ok(Some((name, kind, is_without, columns)))
        })?;
        let Some((name, kind, is_without, columns)) = found else { return Ok(None) };
        let reason = match (kind.as_str(), is_without, rowid_name(&columns)) {
            ("view", ..) => "is a view: its rows have no numbers",
            (_, true, _) => "is WITHOUT ROWID: its rows have no numbers",
            (_, _, None) => "has columns rowid, _rowid_ and oid: its rows' numbers have no name",
            (_, false, Some(rowid)) => {
                return Ok(Some(RowTable { name, columns, is_virtual: kind == "virtual", rowid }));
            }
        };
        let (fault, path): (_, PathBuf) = (DatabaseFault::Statement, self.connection.path().to_owned());
        let error = Error::database(fault, path, format!("{name} {reason}"));
        Err(error.with_remedy(format!("read it with {}", hint::command("sql"))))
    }

    /// The rows of a table after the first of these numbers, up to the second, that the filter takes, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], with [`DatabaseFault::Statement`] where the filter's expression fails.
    pub fn rows_in(
        &self,
        table: &RowTable,
        filter: &RowFilter,
        (after, last): (i64, i64),
        at_most: usize,
    ) -> Result<Vec<(i64, Vec<Value>)>, Error> {
        let RowTable { name, columns, rowid, .. } = table;
        let (name, all) = (quoted(name), columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "));
        let conditions = filter.sql();
        let sql = format!(
            "SELECT {rowid}, {all} FROM {name} WHERE {rowid} > ? AND {rowid} <= ? AND {conditions} ORDER BY {rowid} LIMIT ?"
        );
        self.filtered(filter, |sqlite| {
            let mut statement = sqlite.prepare_cached(&sql)?;
            let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
            let rows = statement.query_map([after, last, limit], |row| {
                let values = (1..=columns.len()).map(|at| value(row, at)).collect::<Result<_, _>>()?;
                Ok((row.get(0)?, values))
            })?;
            rows.collect()
        })
    }

    /// The statement that reads all rows of a table which the filter takes, in the order of their numbers.
    #[must_use]
    pub fn statement(table: &RowTable, filter: &RowFilter) -> String {
        let RowTable { name, columns, rowid, .. } = table;
        let all = columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        format!("SELECT {all} FROM {} WHERE {} ORDER BY {rowid}", quoted(name), filter.sql())
    }

    /// The number of the row before the last `back` rows that the filter takes; the lowest number there can be if there are fewer rows.
    ///
    /// # Errors
    ///
    /// As [`Reader::rows_in`].
    pub fn number_before_last(&self, table: &RowTable, filter: &RowFilter, back: usize) -> Result<i64, Error> {
        let RowTable { name, rowid, .. } = table;
        let (name, conditions) = (quoted(name), filter.sql());
        let sql = format!("SELECT {rowid} FROM {name} WHERE {conditions} ORDER BY {rowid} DESC LIMIT 1 OFFSET ?");
        let back = i64::try_from(back).unwrap_or(i64::MAX);
        let found = self
            .filtered(filter, |sqlite| sqlite.prepare_cached(&sql)?.query_row([back], |row| row.get(0)).optional())?;
        Ok(found.unwrap_or(i64::MIN))
    }

    /// A number that changes when tables are made or changed.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn schema_version(&self) -> Result<i64, Error> {
        self.connection.read(|sqlite| sqlite.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0)))
    }

    /// The tables to which these statements and their triggers add rows, each once, in the order of the statements. A statement
    /// that does not fit the tables adds none.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn inserted_tables<'s>(&self, statements: impl IntoIterator<Item = &'s str>) -> Result<Vec<String>, Error> {
        self.connection.read(|sqlite| {
            let authorizer = Authorizer::of(sqlite)?;
            let mut tables: Vec<String> = Vec::new();
            for sql in statements {
                let compiled = authorizer.inserts(|| drop(sqlite.prepare(sql)));
                for table in compiled {
                    if !tables.contains(&table) {
                        tables.push(table);
                    }
                }
            }
            Ok(tables)
        })
    }
}

/// The name of a row's number in SQL, if the columns of its table leave one.
pub(in crate::store) fn rowid_name(columns: &[String]) -> Option<&'static str> {
    let is_column = |name: &&str| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
    ["rowid", "_rowid_", "oid"].into_iter().find(|name| !is_column(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Editor;

    fn reader(sql: &str) -> (tempfile::TempDir, Reader) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        Editor::open(&path).expect("opens").run(sql).expect("SQL");
        let reader = Reader::open(&path).expect("opens");
        (folder, reader)
    }

    #[test]
    fn rows_are_read_by_their_numbers() {
        let sql =
            r#"CREATE TABLE "a ""b"(rowid TEXT, x AS (rowid || '!')); INSERT INTO "a ""b" VALUES ('p'), ('q'), ('r')"#;
        let (_folder, reader) = reader(sql);
        let table = reader.row_table("A \"b").expect("reads").expect("is there");
        assert_eq!((table.name.as_str(), &table.columns[..]), ("a \"b", &["rowid".to_owned(), "x".into()][..]));
        let row = |number, text: &str| (number, vec![Value::from(text), Value::Text(format!("{text}!"))]);
        let all = RowFilter::default();
        let rows = |after, at_most| reader.rows_in(&table, &all, (after, i64::MAX), at_most).expect("reads");
        assert_eq!(rows(1, 9), [row(2, "q"), row(3, "r")]);
        assert_eq!(rows(i64::MIN, 1), [row(1, "p")]);
        let before = |back| reader.number_before_last(&table, &all, back).expect("reads");
        assert_eq!((before(0), before(2), before(3)), (3, 1, i64::MIN));
    }

    #[test]
    fn only_tables_with_row_numbers_are_followed() {
        let sql = "CREATE TABLE t(a); CREATE VIEW v AS SELECT a FROM t; CREATE TABLE w(a PRIMARY KEY) WITHOUT ROWID;
                   CREATE VIRTUAL TABLE words USING fts5(a); CREATE TABLE catchment_x(a);";
        let (_folder, reader) = reader(sql);
        assert_eq!(reader.table_names().expect("reads"), ["t", "words"]);
        assert_eq!(reader.row_table("none").expect("reads"), None);
        for (name, words) in [("v", "v is a view"), ("w", "w is WITHOUT ROWID")] {
            let refused = reader.row_table(name).expect_err(name).to_string();
            assert!(refused.contains(words) && refused.ends_with("read it with catchment sql"), "{refused}");
        }
        assert!(reader.row_table("words").expect("reads").is_some());
        let names = reader.names().expect("reads");
        assert!(["a", "t", "v", "words"].iter().all(|name| names.iter().any(|known| known == name)), "{names:?}");
    }

    #[test]
    fn the_tables_of_routes_are_found_by_their_statements() {
        let sql = "CREATE TABLE m(a); CREATE TABLE log(a); CREATE TABLE u(a UNIQUE, n);
                   CREATE TRIGGER g AFTER INSERT ON m BEGIN INSERT INTO log VALUES (new.a); END;";
        let (_folder, reader) = reader(sql);
        let statements = [
            "INSERT INTO m VALUES (:a)",
            "INSERT INTO u VALUES (:a, 1) ON CONFLICT(a) DO UPDATE SET n = n + 1",
            "UPDATE u SET n = 0",
            "INSERT INTO missing VALUES (1)",
            "INSERT INTO M VALUES (:a)",
        ];
        assert_eq!(reader.inserted_tables(statements).expect("reads"), ["m", "log", "u"]);
        assert!(reader.run::<()>("SELECT 1", |_| std::ops::ControlFlow::Continue(())).is_ok());
    }
}
