//! A connection that can change nothing, also for a user who may only read the file.
//!
//! A reader of a database in WAL mode takes part in its locks, which are in the file `-shm`
//! (<https://sqlite.org/wal.html#read_only_databases>). A user who may not write the folder cannot make that file. It is missing if
//! no connection is open: the last one copied everything into the database file. Then that file is read as one that does not change,
//! without locks. Each read ends with a look at the file: if it was changed meanwhile, the result may be wrong and is refused.
//!
//! A user who may write gets the same files while he reads. SQLite removes them when the last connection is closed, but only if that
//! connection was opened for writing. So it is opened for writing, and `PRAGMA query_only` forbids every change. SQLite also copies
//! commits that a killed process left in the log into the database at that moment. A reader forbids that: it leaves a log that nobody
//! wrote meanwhile as it is.
//! Whether it is the last connection decides SQLite, under its own locks, so a collector may start at any moment.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rustix::fs::{Access, AtFlags};

use super::Lock;
use super::database_file::{file_beside, must_exist};
use super::read_only::{immutable, read_only, read_only_and_tidy};
use super::sqlite_error::{database_error, fault};
use crate::error::{DatabaseFault, Error};

/// How long to wait for a collector that is just opening the database: it makes the files that are missing.
const START_TIMEOUT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// A read-only connection. Once it is closed, the folder is as it was before: except if a process was killed and its log has commits
/// but no index (`-shm`), because SQLite makes that index and keeps it.
#[derive(Debug)]
pub(super) struct ReadConnection {
    path: PathBuf,
    sqlite: Connection,
    /// The file when it was opened, if it is read without locks.
    unlocked: Option<FileState>,
    /// The log before the database was opened, if there was one.
    log: Option<FileState>,
}

/// What changes when a database file is written or replaced: device, inode, size, time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState(u64, u64, u64, i64, i64);

impl ReadConnection {
    /// Opens an existing database. Waits up to a second for a collector that is just opening it.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: there is no file, it is no database, or it cannot be read. If only a permission to write is missing, the
    /// error says for what it is needed.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        must_exist(path)?;
        must_be_readable(path)?;
        let log = FileState::of(&file_beside(path, "-wal"));
        // SQLite would make the log and its index, and leave them behind: a user who owns the database could not write them.
        if !may_write(path) && log.is_none() {
            return Self::open_unlocked(path);
        }
        // To finish or undo another process's transaction is no reader's task.
        let is_undone = size(&file_beside(path, "-journal")) > 0;
        let open = if may_write(path) && !is_undone { read_only_and_tidy } else { read_only };
        let until = Instant::now() + START_TIMEOUT;
        loop {
            match open(path) {
                Ok(sqlite) => return Ok(Self { path: path.to_owned(), sqlite, unlocked: None, log }),
                Err(error) if fault(&error) != DatabaseFault::Unwritable => return Err(database_error(path, error)),
                Err(_) => {}
            }
            match Self::open_unlocked(path) {
                Err(_) if Instant::now() < until && matches!(Lock::holder(path), Ok(Some(_))) => {
                    std::thread::sleep(POLL);
                }
                opened => return opened,
            }
        }
    }

    /// Opens a database without locks, if its file is complete: nothing is in a log beside it.
    fn open_unlocked(path: &Path) -> Result<Self, Error> {
        let refused = |detail: String, remedy: &str| {
            Err(Error::database(DatabaseFault::Unwritable, path, detail).with_remedy(remedy))
        };
        // Before the file is opened, so that a change in between is noticed.
        let unlocked = FileState::of(path);
        let [wal, shm, journal] = ["-wal", "-shm", "-journal"].map(|ending| file_beside(path, ending));
        if size(&wal) > 0 {
            // The index does not help either then.
            must_be_readable_as(path, &wal, "its last commits are in")?;
            let why = if shm.exists() { "cannot use" } else { "cannot make" };
            return refused(
                format!(
                    "its last commits are in {}, and this user {why} the index of that, {}",
                    wal.display(),
                    shm.display()
                ),
                "let this user write the directory, or copy the database and its -wal file to a directory that may be written",
            );
        }
        if size(&journal) > 0 {
            return refused(
                format!("a transaction was interrupted, and this user cannot undo it ({})", journal.display()),
                "open it once as a user who may write it",
            );
        }
        let sqlite = immutable(path).map_err(|error| match fault(&error) {
            DatabaseFault::Unwritable => database_error(path, error).with_remedy("check that this user may read it"),
            _ => database_error(path, error),
        })?;
        log::debug!("database {}: this user cannot lock it; reading the file as it is", path.display());
        Ok(Self { path: path.to_owned(), sqlite, unlocked, log: None })
    }

    /// The connection. [`ReadConnection::unchanged`] has to follow the last read.
    pub(super) fn sqlite(&self) -> &Connection {
        &self.sqlite
    }

    /// The path by which it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads something.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let result = read(&self.sqlite);
        self.unchanged()?;
        result.map_err(|e| database_error(&self.path, e))
    }

    /// Checks that what was read so far is right: that nobody has changed a file that is read without locks.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] if somebody has.
    pub(super) fn unchanged(&self) -> Result<(), Error> {
        if self.unlocked.is_none() || self.unlocked == FileState::of(&self.path) {
            return Ok(());
        }
        let detail = "another process changed it while it was read without locks, so the result may be wrong";
        let error = Error::database(DatabaseFault::Busy, &self.path, detail);
        Err(error.with_remedy("run the command again"))
    }

    /// Whether a log has commits that were there before. The log of an attached database counts as one of those.
    fn has_commits_of_others(&self) -> rusqlite::Result<bool> {
        let log = file_beside(&self.path, "-wal");
        if size(&log) > 0 && FileState::of(&log) == self.log {
            return Ok(true);
        }
        let mut attached =
            self.sqlite.prepare("SELECT file FROM pragma_database_list WHERE name NOT IN ('main', 'temp')")?;
        let attached = attached.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        Ok(attached.iter().any(|file| size(&file_beside(Path::new(file), "-wal")) > 0))
    }

    /// Whether there may be commits that this connection does not see. Opening it again helps.
    pub(super) fn is_outdated(&self) -> bool {
        self.unlocked.is_some()
            && (self.unlocked != FileState::of(&self.path) || size(&file_beside(&self.path, "-wal")) > 0)
    }
}

impl Drop for ReadConnection {
    fn drop(&mut self) {
        // What interrupts statements must not interrupt these.
        let _ = self.sqlite.progress_handler(0, None::<fn() -> bool>);
        if self.has_commits_of_others().unwrap_or(true) {
            let _ = self.sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

impl FileState {
    fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self(file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    }
}

/// Refuses a file that this user may not read. SQLite's error does not say that this is the cause.
fn must_be_readable(path: &Path) -> Result<(), Error> {
    must_be_readable_as(path, path, "")
}

/// The same for a file of the database; `role` says what is in it.
fn must_be_readable_as(database: &Path, file: &Path, role: &str) -> Result<(), Error> {
    match rustix::fs::accessat(rustix::fs::CWD, file, Access::READ_OK, AtFlags::EACCESS) {
        Err(rustix::io::Errno::ACCESS) => {
            let detail = match role {
                "" => "this user may not read it".to_owned(),
                role => format!("{role} {}, which this user may not read", file.display()),
            };
            let error = Error::database(DatabaseFault::Unwritable, database, detail);
            Err(error.with_remedy("change its permissions, or run the command as a user who may read it"))
        }
        // Whatever else is wrong, opening it shows that.
        _ => Ok(()),
    }
}

/// Whether this user may write the file. Opening it to find out would release this process's locks on it:
/// <https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>.
pub(super) fn may_write(path: &Path) -> bool {
    rustix::fs::accessat(rustix::fs::CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Editor;

    fn database() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let sql = "PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1)";
        Editor::open(&path).expect("opens").run(sql).expect("SQL");
        (folder, path)
    }

    fn count(connection: &ReadConnection) -> Result<i64, Error> {
        connection.read(|sqlite| sqlite.query_row("SELECT count(*) FROM t", [], |row| row.get(0)))
    }

    fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let entry = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.expect("an entry");
            (entry.file_name().into_string().expect("UTF-8"), std::fs::read(entry.path()).expect("reads"))
        };
        let mut files: Vec<_> = std::fs::read_dir(folder).expect("reads").map(entry).collect();
        files.sort_unstable();
        files
    }

    fn names(folder: &Path) -> Vec<String> {
        files(folder).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_reader_leaves_the_folder_as_it_was() {
        let (folder, path) = database();
        let other = folder.path().join("b.db");
        Editor::open(&other).expect("opens").run("PRAGMA journal_mode = WAL; CREATE TABLE t(a)").expect("SQL");
        let before = files(folder.path());
        let connection = ReadConnection::open(&path).expect("opens");
        connection.read(|sqlite| sqlite.execute("ATTACH ? AS b", [other.to_str()])).expect("attaches");
        let sql = "SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM b.t)";
        assert_eq!(connection.read(|sqlite| sqlite.query_row(sql, [], |row| row.get(0))).ok(), Some(1));
        assert!(names(folder.path()).contains(&"a.db-wal".into()), "it takes SQLite's locks");
        for sql in ["DELETE FROM t", "INSERT INTO b.t VALUES (1)", "CREATE TABLE u(a)"] {
            let refused = connection.read(|sqlite| sqlite.execute(sql, [])).expect_err(sql).to_string();
            assert!(refused.contains("readonly"), "{refused}");
        }
        drop(connection);
        assert_eq!(files(folder.path()), before);
    }

    #[test]
    fn a_reader_leaves_the_commits_of_a_killed_process_in_the_log() {
        let (folder, path) = database();
        let editor = Editor::open(&path).expect("opens");
        editor.run("INSERT INTO t VALUES (2)").expect("SQL");
        let killed = tempfile::tempdir().expect("a folder");
        for (name, bytes) in files(folder.path()) {
            std::fs::write(killed.path().join(name), bytes).expect("writes");
        }
        let before = files(killed.path());
        assert_eq!(names(killed.path()), ["a.db", "a.db-shm", "a.db-wal"]);
        let connection = ReadConnection::open(&killed.path().join("a.db")).expect("opens");
        assert_eq!(count(&connection).expect("reads"), 2);
        drop(connection);
        let after = files(killed.path());
        assert_eq!((&after[0], &after[2]), (&before[0], &before[2]), "database and log are the same");
        std::fs::remove_file(killed.path().join("a.db-shm")).expect("removes");
        assert_eq!(count(&ReadConnection::open(&killed.path().join("a.db")).expect("opens")).expect("reads"), 2);
        assert_eq!(files(killed.path())[2], before[2]);
    }

    #[test]
    fn a_reader_does_not_remove_the_log_of_a_writer() {
        let (_folder, path) = database();
        let connection = ReadConnection::open(&path).expect("opens");
        let editor = Editor::open(&path).expect("opens");
        editor.run("INSERT INTO t VALUES (2)").expect("SQL");
        drop(connection);
        editor.run("INSERT INTO t VALUES (3)").expect("SQL");
        assert!(size(&file_beside(&path, "-wal")) > 0);
        let connection = ReadConnection::open(&path).expect("opens");
        assert_eq!(count(&connection).expect("reads"), 3);
        editor.run("INSERT INTO t VALUES (4)").expect("SQL");
        drop(editor);
        assert_eq!(count(&connection).expect("reads"), 4);
        drop(connection);
        assert_eq!(names(path.parent().expect("a folder")), ["a.db"], "the last one to close copies new commits");
        assert_eq!(count(&ReadConnection::open_unlocked(&path).expect("opens")).expect("reads"), 4);
    }

    #[test]
    fn an_interrupted_transaction_is_left_to_its_owner() {
        let (folder, path) = database();
        let editor = Editor::open(&path).expect("opens");
        editor
            .run("PRAGMA journal_mode = DELETE; BEGIN; INSERT INTO t VALUES (2); PRAGMA cache_spill = 1")
            .expect("SQL");
        let journal = std::fs::read(file_beside(&path, "-journal")).expect("the transaction has one");
        assert!(!journal.is_empty());
        let before = files(folder.path());
        assert_eq!(count(&ReadConnection::open(&path).expect("opens")).expect("reads"), 1);
        assert_eq!(files(folder.path()), before);
    }

    #[test]
    fn a_file_without_locks_is_read_until_somebody_changes_it() {
        let (_folder, path) = database();
        let connection = ReadConnection::open_unlocked(&path).expect("opens");
        assert_eq!(count(&connection).expect("reads"), 1);
        assert!(!connection.is_outdated());
        let editor = Editor::open(&path).expect("opens");
        editor.run("INSERT INTO t VALUES (2)").expect("SQL");
        assert!(connection.is_outdated(), "a commit is in the log");
        assert_eq!(count(&connection).expect("the file is the same"), 1);
        editor.run("PRAGMA wal_checkpoint(TRUNCATE)").expect("SQL");
        let refused = count(&connection).expect_err("the file was written").to_string();
        assert!(refused.contains("changed it while it was read") && refused.ends_with("run the command again"));
        assert!(connection.is_outdated());
        assert_eq!(count(&ReadConnection::open(&path).expect("opens")).expect("reads"), 2);
    }

    #[test]
    fn a_file_that_is_not_complete_is_refused_with_the_reason() {
        let (_folder, path) = database();
        let refused = || ReadConnection::open_unlocked(&path).expect_err("must be refused").to_string();
        std::fs::write(file_beside(&path, "-wal"), "x").expect("writes");
        assert!(
            refused().contains("its last commits are in") && refused().contains("this user cannot make"),
            "{}",
            refused()
        );
        std::fs::write(file_beside(&path, "-shm"), "").expect("writes");
        assert!(refused().contains("this user cannot use the index of that"), "{}", refused());
        std::fs::rename(file_beside(&path, "-wal"), file_beside(&path, "-journal")).expect("renames");
        assert!(refused().contains("a transaction was interrupted"), "{}", refused());
    }
}
