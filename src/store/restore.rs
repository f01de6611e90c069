//! Puts a copy in the place of a database, and keeps what was there.
//!
//! The old database leaves WAL mode before the two files are exchanged. If it is damaged, its WAL is kept with it under the new name.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::Lock;
use super::backup::{DatabaseContents, contents};
use super::database_file::{followed, must_exist};
use super::read_connection::ReadConnection;
use super::schema::{self, must_be_ours};
use super::sqlite_error::{database_error, fault};
use super::{file_identity, sole_connection};
use crate::error::{DatabaseFault, Error};
use crate::new_file::{NewFile, with_ending};

/// The files that SQLite keeps beside a database.
const ENDINGS: [&str; 3] = ["-wal", "-journal", "-shm"];

/// What is in the database at this path; `None` if there is no file, or it is no database that can be read.
pub fn present(database: &Path) -> Option<DatabaseContents> {
    must_exist(database).ok()?;
    let connection = ReadConnection::open(database).ok()?;
    must_be_ours(connection.sqlite(), database).ok()?;
    connection.read(contents).ok()
}

/// Whether there is a database of another program: it has tables, and none of catchment.
pub fn is_of_others(database: &Path) -> bool {
    let examine = |sqlite: &Connection| Ok(schema::identity(sqlite)?.is_none() && !schema::tables(sqlite)?.is_empty());
    must_exist(database).is_ok() && ReadConnection::open(database).and_then(|open| open.read(examine)).unwrap_or(false)
}

/// The file that a path leads to, symbolic links followed. There may be none yet.
pub fn followed_path(database: &Path) -> PathBuf {
    followed(database)
}

/// Refuses a file that a collector or a grouped recorder uses as its database.
///
/// # Errors
///
/// [`Error::Locked`].
pub fn must_not_be_in_use(file: &Path) -> Result<(), Error> {
    match Lock::holder(file)? {
        Some(holder) => Err(Error::Locked { what: "database", path: file.to_owned(), holder, is_own: false }),
        None => Ok(()),
    }
}

/// Puts the copy in the place of the database, in one step. The old database gets the name `kept`; without one nothing is kept. The copy
/// gets the permissions of the old database, without one `permissions`. With `is_same`, it is a copy of the old database, and
/// owns that one's consumers from now on. The caller has the [`Lock`].
///
/// Returns whether there was an old file. A process that is killed meanwhile leaves the one or the other in the place, whole.
///
/// # Errors
///
/// [`Error::Database`]: another process uses the old database. [`Error::File`].
pub fn replace_database(
    database: &Path,
    copy: NewFile,
    kept: &Path,
    permissions: u32,
    is_same: bool,
) -> Result<bool, Error> {
    let file = followed(database);
    let there = fs::metadata(&file).ok();
    if let Some(record) = Some(&there).filter(|_| is_same).and_then(|_| file_identity::recorded(database)) {
        let changed = edit(copy.part(), |copy| file_identity::pass_on(&record, copy));
        changed.map_err(|error| database_error(copy.place(), error))?;
    }
    let mode = there.as_ref().map_or(permissions, |there| there.mode() & 0o777);
    copy.file().set_permissions(fs::Permissions::from_mode(mode)).map_err(|e| copy.error(&e))?;
    if let Some(there) = &there
        && let Err(error) = fchown(copy.file(), Some(there.uid()), Some(there.gid()))
    {
        log::debug!("database {}: its owner cannot be set: {error}", database.display());
    }
    let settled = if there.is_some() { settle(database)? } else { None };
    let moved = MovedFiles::aside(&file, kept).map_err(|e| copy.error(&e))?;
    copy.exchange(kept)?;
    moved.stay();
    // Until here nobody could open the old file.
    drop(settled);
    Ok(there.is_some())
}

/// The only connection to the database, and none of it in a WAL. `None` if the database is damaged.
fn settle(database: &Path) -> Result<Option<Connection>, Error> {
    match sole_connection::exclusive(database) {
        Ok(connection) => Ok(Some(connection)),
        Err(error) if matches!(fault(&error), DatabaseFault::Busy | DatabaseFault::Unwritable) => {
            Err(sole_connection::error(database, error))
        }
        Err(error) => {
            log::debug!("database {}: its log is kept beside it: {error}", database.display());
            Ok(None)
        }
    }
}

/// Changes a file that nobody else uses.
fn edit(file: &Path, change: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    let connection = sole_connection::open(file)?;
    sole_connection::leave_wal(&connection)?;
    change(&connection)?;
    connection.close().map_err(|(_, error)| error)
}

/// Files of SQLite that were moved from a database to the name under which it is kept. Moved back when this is dropped.
struct MovedFiles(Vec<(PathBuf, PathBuf)>);

impl MovedFiles {
    fn aside(file: &Path, kept: &Path) -> std::io::Result<Self> {
        let mut moved = Self(Vec::new());
        for ending in ENDINGS {
            let [from, to] = [file, kept].map(|path| with_ending(path, ending));
            match fs::rename(&from, &to) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                done => {
                    done?;
                    moved.0.push((from, to));
                }
            }
        }
        Ok(moved)
    }

    fn stay(mut self) {
        self.0.clear();
    }
}

impl Drop for MovedFiles {
    fn drop(&mut self) {
        for (from, to) in self.0.drain(..) {
            if let Err(error) = fs::rename(&to, &from) {
                let (from, to) = (from.display(), to.display());
                log::warn!(event = "restore.not_undone", from:% = from, to:% = to, error:% = error; "{to} cannot be moved back to {from}: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::config::DbConfig;

    use super::*;
    use crate::config::DatabaseConfig;
    use crate::store::read_only::read_only;
    use crate::store::{Database, Editor, Routes};

    fn database(path: &Path) -> String {
        let config = DatabaseConfig { path: path.to_owned(), ..DatabaseConfig::default() };
        let database = Database::open(&config, &Routes::default()).expect("opens");
        let file = database.file_identity().expect("reads");
        database.record_file(&file).expect("records it");
        database.identity().to_owned()
    }

    fn copy(from: &Path, to: &Path) -> NewFile {
        let new = NewFile::create(to, true).expect("makes it");
        let from = Connection::open(from).expect("opens");
        let to = &mut Connection::open(new.part()).expect("opens");
        rusqlite::backup::Backup::new(&from, to).expect("begins").step(-1).expect("copies");
        new
    }

    fn numbers(path: &Path) -> Vec<i64> {
        let connection = read_only(path).expect("opens");
        let mut statement = connection.prepare("SELECT a FROM t ORDER BY a").expect("SQL");
        statement.query_map([], |row| row.get(0)).expect("SQL").collect::<Result<_, _>>().expect("numbers")
    }

    #[test]
    fn the_old_database_is_kept_with_what_was_in_its_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let [path, kept] = ["a.db", "a.db.before"].map(|name| folder.path().join(name));
        let identity = database(&path);
        let run = |sql: &str| Editor::open(&path).expect("opens").run(sql).expect("SQL");
        run("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
        let new = copy(&path, &path);
        // As a killed process leaves it.
        let writer = Connection::open(&path).expect("opens");
        writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("sets it");
        let sql = "INSERT INTO t VALUES (2); UPDATE catchment_meta SET value = json_set(value, '$.inherits', '01234567') WHERE key = 'home'";
        writer.execute_batch(sql).expect("SQL");
        drop(writer);
        assert!(folder.path().join("a.db-wal").exists());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("sets them");
        assert!(replace_database(&path, new, &kept, 0o600, true).expect("replaces it"));
        assert_eq!((numbers(&path), numbers(&kept)), (vec![1], vec![1, 2]));
        assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, 0o640);
        let names = fs::read_dir(folder.path()).expect("reads").count();
        assert_eq!(names, 2, "no log is left");
        assert_eq!(present(&path).map(|contents| contents.identity), Some(identity));
        assert!(file_identity::recorded(&path).expect("a record").contains("01234567"), "of the one that was there");
    }

    #[test]
    fn a_database_that_is_open_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let [path, kept] = ["a.db", "a.db.before"].map(|name| folder.path().join(name));
        database(&path);
        Editor::open(&path).expect("opens").run("CREATE TABLE t(a); INSERT INTO t VALUES (1)").expect("SQL");
        let new = copy(&path, &path);
        let reader = read_only(&path).expect("opens");
        let refused = replace_database(&path, new, &kept, 0o600, true).expect_err("is open").to_string();
        assert!(refused.contains("another program has it open, so it cannot be moved; end that program"), "{refused}");
        assert_eq!(reader.query_row("SELECT a FROM t", [], |row| row.get(0)), Ok(1));
        drop(reader);
        assert!(!kept.exists());
    }

    #[test]
    fn a_damaged_database_is_kept_with_its_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        database(&at("good.db"));
        Editor::open(&at("good.db")).expect("opens").run("CREATE TABLE t(a); INSERT INTO t VALUES (1)").expect("SQL");
        for (name, bytes) in [("a.db", "what a disk made of it"), ("a.db-wal", "its log"), ("a.db-shm", "its index")] {
            fs::write(at(name), bytes.repeat(300)).expect("writes");
        }
        let new = copy(&at("good.db"), &at("a.db"));
        assert_eq!(present(&at("a.db")), None);
        assert!(replace_database(&at("a.db"), new, &at("kept"), 0o600, false).expect("replaces it"));
        assert_eq!(numbers(&at("a.db")), [1]);
        assert!(fs::read_to_string(at("kept")).expect("reads").starts_with("what a disk"));
        assert!(fs::read_to_string(at("kept-wal")).expect("reads").starts_with("its log"));
        // And a log whose database is gone.
        fs::remove_file(at("a.db")).expect("removes");
        fs::write(at("a.db-wal"), "an orphan").expect("writes");
        let new = copy(&at("good.db"), &at("a.db"));
        assert!(!replace_database(&at("a.db"), new, &at("later"), 0o604, false).expect("puts it there"));
        assert_eq!((numbers(&at("a.db")), at("later").exists()), (vec![1], false));
        assert_eq!(fs::read_to_string(at("later-wal")).expect("reads"), "an orphan");
        assert_eq!(fs::metadata(at("a.db")).expect("a file").mode() & 0o777, 0o604);
    }
}
