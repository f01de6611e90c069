//! Where SQLite keeps what does not fit elsewhere for the length of a statement: large sorts, what a statement may have to undo.
//!
//! In files of a temporary folder (<https://sqlite.org/tempfiles.html>), in memory where there is none: a container may have a
//! read-only root. Connections that write events keep it in memory always, for a folder that is full or gone must not hold up
//! events; `max_steps` bounds what their statements do.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::OnceLock;

use rusqlite::Connection;

/// In memory from now on.
pub(super) fn keep_in_memory(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// In a temporary folder where one can be written. That there is none is said once.
pub(super) fn keep_where_there_is_room(connection: &Connection) -> rusqlite::Result<()> {
    static HAS_FOLDER: OnceLock<bool> = OnceLock::new();
    if *HAS_FOLDER.get_or_init(|| {
        let found = has_folder(env::var_os);
        if !found {
            log::info!("database: no temporary folder can be written, so large sorts take memory; set TMPDIR to one");
        }
        found
    }) {
        return Ok(());
    }
    keep_in_memory(connection)
}

/// Whether SQLite finds a folder, in its order: <https://sqlite.org/tempfiles.html#temporary_file_storage_locations>.
fn has_folder(variable: impl Fn(&'static str) -> Option<std::ffi::OsString>) -> bool {
    let named = ["SQLITE_TMPDIR", "TMPDIR"].into_iter().filter_map(variable);
    let usual = ["/var/tmp", "/usr/tmp", "/tmp", "."].map(|folder| OsStr::new(folder).to_owned());
    named.chain(usual).any(|folder| tempfile::tempfile_in(Path::new(&folder)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_found_and_writers_need_none() {
        assert!(has_folder(|_| Some("/nowhere".into())), "one of the usual ones");
        let connection = Connection::open_in_memory().expect("memory");
        let store = || connection.pragma_query_value(None, "temp_store", |row| row.get::<_, i64>(0)).expect("asks");
        keep_where_there_is_room(&connection).expect("sets");
        assert_eq!(store(), 0);
        keep_in_memory(&connection).expect("sets");
        assert_eq!(store(), 2);
    }
}
