//! Looks for damage in a database: when it is opened, and while a collector writes it.

use std::path::Path;

use rusqlite::Connection;

use super::read_connection::ReadConnection;
use super::schema::{quoted, tables};
use super::sqlite_error::{fault, message};
use super::statement_limit::StatementLimit;
use crate::error::{DatabaseFault, Error};
use crate::pipeline::Signal;

/// The most problems that are reported.
const MOST: usize = 10;

/// Files up to this size are checked completely when they are opened. That takes a tenth of a second at most.
const MAX_FULL_CHECK: u64 = 16 << 20;

/// Fails if the database is damaged: looks at all of a small file; of a large one, at the pages that these statements read.
pub(super) fn must_be_sound(connection: &Connection, path: &Path, of_large: &str) -> rusqlite::Result<()> {
    if std::fs::metadata(path).is_ok_and(|file| file.len() > MAX_FULL_CHECK) {
        return connection.execute_batch(of_large);
    }
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(corrupt, Some(found.replace('\n', " "))))
}

/// Reads all tables and their indexes, page by page. Returns a line for each problem; empty if there is none. Commits continue meanwhile:
/// it reads one table after the other, each in a transaction of its own, so that the `-wal` file can be used again in between.
///
/// # Errors
///
/// [`Error::Database`] if it cannot be read at all, or `stop` was raised.
pub fn quick_check(path: &Path, stop: &Signal) -> Result<Vec<String>, Error> {
    let connection = ReadConnection::open(path)?;
    connection.read(|sqlite| {
        StatementLimit::of(sqlite, stop)?;
        let mut found: Vec<String> = Vec::new();
        let names = tables(sqlite)?;
        for table in std::iter::once("sqlite_schema").chain(names.iter().map(String::as_str)) {
            let lines = match check(sqlite, table) {
                Err(error) if fault(&error) == DatabaseFault::Corrupt => vec![format!("{table}: {}", message(&error))],
                lines => lines?,
            };
            for line in lines {
                let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
                if line != "ok" && !found.contains(&line) {
                    found.push(line);
                }
            }
            if found.len() >= MOST {
                found.truncate(MOST);
                break;
            }
        }
        Ok(found)
    })
}

fn check(sqlite: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut check = sqlite.prepare(&format!("PRAGMA quick_check({})", quoted(table)))?;
    check.query_map([], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::store::Editor;

    #[test]
    fn a_damaged_page_is_found_and_a_stop_ends_the_check() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let sql = "CREATE TABLE \"a b\"(x); CREATE TABLE t(x);
            WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO t SELECT hex(randomblob(20)) FROM n;";
        Editor::open(&path).expect("opens").run(sql).expect("SQL");
        assert_eq!(quick_check(&path, &Signal::default()).expect("reads"), Vec::<String>::new());
        let stop = Signal::default();
        stop.raise();
        assert!(quick_check(&path, &stop).is_err());
        let size = std::fs::metadata(&path).expect("reads").len();
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
        file.write_all_at(&[0xff; 64], size - 4_096).expect("writes");
        let found = quick_check(&path, &Signal::default()).expect("reads");
        assert!(!found.is_empty() && found.len() <= MOST, "{found:?}");
    }
}
