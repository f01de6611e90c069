//! Table `catchment_meta`: what catchment notes of a database, each under a key.
//!
//! | key | value |
//! |---|---|
//! | `version` | that of catchment's tables |
//! | `identity` | the name of the database, which its copies have too |
//! | `opened` | when it was last opened for writing |
//! | `home` | which file it is, and which it was: [`FileIdentity`](super::FileIdentity) |
//! | `replay` | the replay that fills it: [`ReplayNote`](super::ReplayNote) |
//! | `partition of STREAM`, `undivided of STREAM` | the partitions that it collects, and up to where the stream had none |
//! | `import:NAME`, `import-lines:NAME:FIRST` | how far an import is, and the marks of its lines |
//! | `archive TABLE PATH` | how far rows are in an archive of retention |

use rusqlite::types::{FromSql, ToSql};
use rusqlite::{Connection, OptionalExtension, params};

/// What is noted under this key.
pub(super) fn get<T: FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<Option<T>> {
    let mut statement = connection.prepare_cached("SELECT value FROM catchment_meta WHERE key = ?")?;
    statement.query_row([key], |row| row.get(0)).optional()
}

/// Notes this under a key, in the place of what was there. Writes nothing if it is there already.
pub(super) fn set(connection: &Connection, key: &str, value: impl ToSql) -> rusqlite::Result<()> {
    let sql = "INSERT INTO catchment_meta(key, value) VALUES (?1, ?2)
               ON CONFLICT(key) DO UPDATE SET value = excluded.value WHERE value <> excluded.value";
    connection.prepare_cached(sql)?.execute(params![key, value]).map(drop)
}
