//! Opens connections that can change nothing.

use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::quoted_names::names_only;
use super::temp_store::use_files_if_possible;

/// What stays as it is in the path of a URI.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// A connection that takes SQLite's locks. It sees every commit. In WAL mode it needs the file `-shm`, and makes it if it is missing.
pub(super) fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    prepared(Connection::open_with_flags(path, flags())?)
}

/// The same for a user who may write the file. If this connection is the last one to be closed, SQLite removes the files `-wal` and
/// `-shm`, which it leaves behind when a connection is opened as read-only (<https://sqlite.org/wal.html#the_wal_file>).
pub(super) fn read_only_and_tidy(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Where the database is damaged, its log stays as it is.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let connection = prepared(connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}

/// A connection to a file that nobody changes meanwhile (<https://sqlite.org/uri.html#uriimmutable>). It takes no locks, makes no
/// file, and does not read the file `-wal`.
pub(super) fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    let path = percent_encode(path.as_os_str().as_encoded_bytes(), PATH);
    let uri = format!("file:{path}?immutable=1");
    prepared(Connection::open_with_flags(uri, flags() | OpenFlags::SQLITE_OPEN_URI)?)
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn prepared(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(Duration::from_secs(5))?;
    // Before the first read: a connection that may write the file must not write either.
    connection.pragma_update(None, "query_only", true)?;
    use_files_if_possible(&connection)?;
    names_only(&connection)?;
    // SQLite notices damage and foreign files at the first read, not at the opening.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Editor;

    #[test]
    fn a_file_of_any_name_is_opened_as_immutable() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a.db", "a b?c=d#e%41.db", "käse.db"] {
            let path = folder.path().join(name);
            Editor::open(&path).expect("opens").run("CREATE TABLE t(a); INSERT INTO t VALUES (7)").expect("SQL");
            let connection = immutable(&path).expect(name);
            assert_eq!(connection.query_row("SELECT a FROM t", [], |row| row.get::<_, i64>(0)), Ok(7));
            assert!(connection.execute("DELETE FROM t", []).is_err());
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 3);
    }
}
