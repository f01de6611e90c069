//! A connection that can change nothing, also for a user who may only read the file.
//!
//! A reader of a database in WAL mode takes part in its locks, which are in the file `-shm`
//! (<https://sqlite.org/wal.html#read_only_databases>). A user who may not write the folder cannot make that file. It is missing if
//! no connection is open: the last one copied everything into the database file. Then that file is read as one that does not change,
//! without locks. Each read ends with a look at the file: if it was changed meanwhile, the result may be wrong and is refused.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::fs::{Access, AtFlags};

use super::Lock;
use super::database_file::{followed, must_exist};
use super::read_only::{immutable, read_only};
use super::sqlite_error::{database_error, fault};
use crate::error::{DatabaseFault, Error};

/// How long to wait for a collector that is just opening the database: it makes the files that are missing.
const START_PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// A read-only connection.
#[derive(Debug)]
pub(super) struct ReadConnection {
    path: PathBuf,
    sqlite: Connection,
    /// The file when it was opened, if it is read without locks.
    unlocked: Option<FileState>,
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
        // SQLite would make the log and its index, and leave them behind: a user who owns the database could not write them.
        if !may_write(path) && !log_file(path, "-wal").exists() {
            return Self::open_unlocked(path);
        }
        let until = Instant::now() + START_PATIENCE;
        loop {
            match read_only(path) {
                Ok(sqlite) => return Ok(Self { path: path.to_owned(), sqlite, unlocked: None }),
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
            let (fault, path) = (DatabaseFault::Unwritable, path.to_owned());
            Err(Error::Database { fault, path, detail, remedy: None, source: None }.with_remedy(remedy))
        };
        // Before the file is opened, so that a change in between is noticed.
        let unlocked = FileState::of(path);
        let [wal, shm, journal] = ["-wal", "-shm", "-journal"].map(|ending| log_file(path, ending));
        if size(&wal) > 0 {
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
        Ok(Self { path: path.to_owned(), sqlite, unlocked })
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
        let (fault, path) = (DatabaseFault::Busy, self.path.clone());
        let error = Error::Database { fault, path, detail: detail.into(), remedy: None, source: None };
        Err(error.with_remedy("run the command again"))
    }

    /// Whether there may be commits that this connection does not see. Opening it again helps.
    pub(super) fn is_outdated(&self) -> bool {
        self.unlocked.is_some()
            && (self.unlocked != FileState::of(&self.path) || size(&log_file(&self.path, "-wal")) > 0)
    }
}

impl FileState {
    fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self(file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    }
}

/// Whether this user may write the file. Opening it to find out would release this process's locks on it:
/// <https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>.
fn may_write(path: &Path) -> bool {
    rustix::fs::accessat(rustix::fs::CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// A file of SQLite beside the database.
fn log_file(path: &Path, ending: &str) -> PathBuf {
    let mut name = followed(path).into_os_string();
    name.push(ending);
    name.into()
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
        std::fs::write(log_file(&path, "-wal"), "x").expect("writes");
        assert!(
            refused().contains("its last commits are in") && refused().contains("this user cannot make"),
            "{}",
            refused()
        );
        std::fs::write(log_file(&path, "-shm"), "").expect("writes");
        assert!(refused().contains("this user cannot use the index of that"), "{}", refused());
        std::fs::rename(log_file(&path, "-wal"), log_file(&path, "-journal")).expect("renames");
        assert!(refused().contains("a transaction was interrupted"), "{}", refused());
    }
}
