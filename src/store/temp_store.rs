//! Where SQLite keeps temporary data of a statement, such as large sorts and what it may have to undo.
//!
//! It is kept in files of a temporary folder (<https://sqlite.org/tempfiles.html>). Without such a folder, as in a container with a
//! read-only root, it is kept in memory. Connections that write events always use memory: a full or missing folder must not delay
//! events, and `max_steps` limits what their statements do.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::OnceLock;

use rusqlite::Connection;

/// Keeps temporary data in memory from now on.
pub(super) fn use_memory(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Keeps temporary data in files if a temporary folder can be written. If not, logs that once.
pub(super) fn use_files_if_possible(connection: &Connection) -> rusqlite::Result<()> {
    static HAS_FOLDER: OnceLock<bool> = OnceLock::new();
    if *HAS_FOLDER.get_or_init(|| {
        let found = has_folder(env::var_os);
        if !found {
            log::info!(
                event = "temporary_folder.missing";
                "database: no temporary folder can be written, so large sorts take memory; set TMPDIR to one"
            );
        }
        found
    }) {
        return Ok(());
    }
    use_memory(connection)
}

/// Whether SQLite finds a folder. It searches in this order: <https://sqlite.org/tempfiles.html#temporary_file_storage_locations>.
fn has_folder(variable: impl Fn(&'static str) -> Option<std::ffi::OsString>) -> bool {
    first_folder(variable).is_some()
}

/// The folder that SQLite uses, if it finds one.
pub(super) fn folder() -> Option<PathBuf> {
    first_folder(env::var_os)
}

fn first_folder(variable: impl Fn(&'static str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let named = ["SQLITE_TMPDIR", "TMPDIR"].into_iter().filter_map(variable);
    let usual = ["/var/tmp", "/usr/tmp", "/tmp", "."].map(|folder| OsStr::new(folder).to_owned());
    named.chain(usual).map(PathBuf::from).find(|folder| tempfile::tempfile_in(folder).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_found_and_writers_use_memory() {
        assert!(has_folder(|_| Some("/nowhere".into())), "one of the usual ones");
        let connection = Connection::open_in_memory().expect("memory");
        let store = || connection.pragma_query_value(None, "temp_store", |row| row.get::<_, i64>(0)).expect("asks");
        use_files_if_possible(&connection).expect("sets");
        assert_eq!(store(), 0);
        use_memory(&connection).expect("sets");
        assert_eq!(store(), 2);
    }
}
