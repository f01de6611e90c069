//! A new database: made with the permissions of the settings, and removed again if the start fails.

use std::fs::{OpenOptions, Permissions, set_permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::database_file::followed;
use super::file_beside;
use super::schema;
use crate::counted;

/// Makes an empty file for the database, unless there is one, with exactly these permissions whatever the umask is. The lock file gets
/// them too. SQLite gives its `-wal` and `-shm` those of the database. If it cannot be made, SQLite reports why when it opens it.
pub(super) fn make(path: &Path, permissions: u32) {
    // Only a new file is opened: closing one that exists would drop the locks of SQLite's connections in this process.
    let made = OpenOptions::new().write(true).create_new(true).mode(permissions).open(followed(path));
    let Ok(file) = made else { return };
    let permissions = Permissions::from_mode(permissions);
    let set = file.set_permissions(permissions.clone());
    // A process without a lock has none.
    let lock = file_beside(path, ".lock");
    let set_on_lock = if lock.exists() { set_permissions(&lock, permissions) } else { Ok(()) };
    if let Err(error) = set.and(set_on_lock) {
        let database = path.display();
        log::warn!(
            event = "database.permissions", database:% = database, error:% = error;
            "database {database}: its permissions cannot be set: {error}"
        );
    }
}

/// Removes a database that this process has made, if nothing is stored in it and no other connection uses it. Otherwise, and if it
/// cannot be examined, it stays.
pub(super) fn remove_if_unused(path: &Path) {
    match remove(&followed(path)) {
        Ok(true) => {}
        Ok(false) => log::debug!("database {}: it stays: something is stored in it", path.display()),
        Err(error) => log::debug!("database {}: it stays: {error}", path.display()),
    }
}

fn remove(path: &Path) -> Result<bool, Box<dyn std::error::Error>> {
    if !path.is_file() {
        return Ok(true);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    // Only the sole connection can end the WAL mode: https://sqlite.org/pragma.html#pragma_journal_mode
    connection.pragma_update(None, "journal_mode", "DELETE")?;
    // From here on, a connection that is opened can neither read nor write until the file is gone.
    connection.execute_batch("BEGIN EXCLUSIVE")?;
    let is_empty = is_empty(&connection)?;
    if is_empty {
        let migrations = migrations(&connection).unwrap_or_default();
        std::fs::remove_file(path)?;
        if migrations > 0 {
            // The log has said that they were applied.
            let (path, migrations) = (path.display(), counted(migrations, "migration"));
            log::info!(
                event = "database.removed", database:% = path;
                "database {path}: removed again with its {migrations}, because the start failed"
            );
        }
    }
    Ok(is_empty)
}

/// How many migrations were applied.
fn migrations(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM catchment_migrations", [], |row| row.get(0))
}

/// Whether no table has a row, apart from those that a start adds to catchment's own.
fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    for table in schema::tables(connection)? {
        let sql = match table.as_str() {
            "catchment_meta" | "catchment_migrations" => continue,
            // In mode core, each start begins an epoch.
            "catchment_ledger" => "SELECT 1 FROM catchment_ledger WHERE sequence > 0 LIMIT 1".to_owned(),
            name => format!("SELECT 1 FROM {} LIMIT 1", schema::quoted(name)),
        };
        if connection.query_row(&sql, [], |_| Ok(())).optional()?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatabaseConfig;
    use crate::store::{Database, Routes};

    #[test]
    fn only_a_database_without_rows_and_users_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = DatabaseConfig { path: folder.path().join("a.db"), ..DatabaseConfig::default() };
        let open = || Database::open(&config, &Routes::default()).expect("opens");
        let database = open();
        let writer = database.event_writer();
        writer.commit(7, "a", [], b"one").expect("commits");
        remove_if_unused(&config.path);
        assert!(config.path.exists(), "it is open");
        drop((database, writer));
        remove_if_unused(&config.path);
        assert!(config.path.exists(), "it has a row");
        let connection = Connection::open(&config.path).expect("opens");
        assert_eq!(connection.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)), Ok(1));
        connection.execute("DELETE FROM events", []).expect("SQL");
        drop(connection);
        drop(open().begin_local().expect("begins"));
        remove_if_unused(&config.path);
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 0, "nothing is left");
        remove_if_unused(&config.path);
    }
}
