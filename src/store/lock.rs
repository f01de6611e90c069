//! The lock beside the database: one collector or grouped direct recorder for each file.
//!
//! It is an advisory lock of the operating system on `<database>.lock`. It ends with the process, however that ends. The database
//! file itself is never opened for this: closing it would drop SQLite's own locks (<https://sqlite.org/howtocorrupt.html>, 2.2),
//! and on NFS a lock on it would be one of SQLite's.
//!
//! The lock file contains how far a collector's start is, so that another command waits for it, but not for one that has started.
//!
//! Symbolic links are followed first, so all paths to a file share one lock. A file with several hard links is refused when it is
//! opened.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::database_file::{must_be_a_file, must_have_one_name, must_not_be_foreign};
use super::file_beside;
use super::new_database::remove_if_unused;
use super::reload_note::ReloadNote;
use super::sqlite_error::of_spool;
use crate::config::validate_database_path;
use crate::error::{DatabaseFault, Error};

/// The lock files that this process holds. The name in a lock file is not enough to know that: in two containers both processes
/// may have the number 1.
static HELD: Mutex<Vec<FileId>> = Mutex::new(Vec::new());

/// The third line of the lock file of a process that collects from core NATS.
const CORE: &str = "core NATS";

/// The third line of the lock file of a spool. It stays when the lock is released, and shows that a file which cannot be read was one.
const SPOOL: &str = "spool";

/// The third line of the lock file of a process that holds the lock only for a moment.
const BRIEF: &str = "for a moment";

/// How long to wait for such a process, and how often to look.
const BRIEF_TIMEOUT: Duration = Duration::from_secs(10);
const BRIEF_PAUSE: Duration = Duration::from_millis(20);

/// Device and inode number.
type FileId = (u64, u64);

/// The lock. Dropping this releases it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    id: FileId,
    database: PathBuf,
    /// This process has made the lock file.
    made_file: bool,
    /// There was no database yet.
    had_no_database: bool,
    /// Its holder collects from core NATS.
    is_of_core: AtomicBool,
    /// What it is held for otherwise: the third line of the lock file.
    purpose: &'static str,
    /// The fourth line: what is noted about reloads.
    reloads: Mutex<Option<ReloadNote>>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut held = HELD.lock();
        // Not only closed: a process that another thread is starting at this moment has the open file too, until it runs its program.
        // Released while the list is locked: another thread finds the lock held and in the list, or neither.
        if let Err(error) = self.file.unlock() {
            log::debug!("a lock file cannot be unlocked, and is closed: {error}");
        }
        if let Some(at) = held.iter().position(|id| *id == self.id) {
            held.swap_remove(at);
        }
    }
}

/// How far the holder of a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPhase {
    /// It starts a broker of its own.
    StartingBroker,
    /// It opens the database, which may not be there yet, and applies migrations.
    Opening,
    /// It connects to the broker.
    Connecting,
    /// It has started.
    Running,
}

impl StartPhase {
    const ALL: [Self; 4] = [Self::StartingBroker, Self::Opening, Self::Connecting, Self::Running];

    /// Its name in the lock file. All have one length, so that a change is one write.
    fn name(self) -> &'static str {
        match self {
            Self::StartingBroker => "starting a broker   ",
            Self::Opening => "opening the database",
            Self::Connecting => "connecting          ",
            Self::Running => "running             ",
        }
    }
}

impl Lock {
    /// Takes the lock, without waiting. Makes no lock file beside a file that is no database.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] names the process that holds it; [`Error::Database`] when the lock file cannot be written, or the path leads
    /// to something that is no database.
    pub fn take(database: &Path) -> Result<Self, Error> {
        Self::take_at(database, StartPhase::Running)
    }

    /// As [`Lock::take`], for a process that releases the lock within seconds. A collector that starts meanwhile waits for it.
    ///
    /// # Errors
    ///
    /// As [`Lock::take`].
    pub fn take_briefly(database: &Path) -> Result<Self, Error> {
        Self::take_with(database, StartPhase::Running, BRIEF)
    }

    /// As [`Lock::take`], for a process whose start is that far. Waits for a process that holds the lock for a moment, up to 10 seconds.
    ///
    /// # Errors
    ///
    /// As [`Lock::take`].
    pub fn take_at(database: &Path, phase: StartPhase) -> Result<Self, Error> {
        Self::take_with(database, phase, "")
    }

    /// As [`Lock::take`], for a process that puts another file in the place of the database: what is there may be damaged.
    ///
    /// # Errors
    ///
    /// As [`Lock::take`].
    pub fn take_to_replace(database: &Path) -> Result<Self, Error> {
        validate_database_path(database)?;
        must_be_a_file(database)?;
        must_have_one_name(database)?;
        Self::take_unchecked(database, StartPhase::Running, "")
    }

    /// As [`Lock::take`], of a spool. It may be damaged, so that it cannot be read as a database.
    ///
    /// # Errors
    ///
    /// As [`Lock::take`].
    pub fn take_spool(spool: &Path) -> Result<Self, Error> {
        match must_not_be_foreign(spool) {
            Err(Error::Database { fault: DatabaseFault::Corrupt, .. }) if Self::was_of_spool(spool) => {}
            usable => usable.map_err(of_spool)?,
        }
        Self::take_unchecked(spool, StartPhase::Running, SPOOL)
    }

    /// Whether the last holder of the lock used the file as a spool.
    #[must_use]
    pub fn was_of_spool(path: &Path) -> bool {
        File::open(file_beside(path, ".lock")).is_ok_and(|mut file| line_of(&mut file, 2) == SPOOL)
    }

    fn take_with(database: &Path, phase: StartPhase, purpose: &'static str) -> Result<Self, Error> {
        must_not_be_foreign(database)?;
        Self::take_unchecked(database, phase, purpose)
    }

    fn take_unchecked(database: &Path, phase: StartPhase, purpose: &'static str) -> Result<Self, Error> {
        let began = Instant::now();
        let mut has_tried = false;
        let path = file_beside(database, ".lock");
        let unwritable = |source: std::io::Error| {
            let remedy = match source.kind() {
                ErrorKind::StorageFull => "make room on its disk",
                _ => "check that the directory exists and can be written",
            };
            lock_error(database, format!("cannot lock it with {}: {source}", path.display()), source)
                .with_remedy(remedy)
        };
        loop {
            let (mut file, made_file) = open_or_make(&path).map_err(unwritable)?;
            let id = id(&file).map_err(unwritable)?;
            // Another thread of this process that tries meanwhile waits here, and then finds the lock in the list.
            let mut held = HELD.lock();
            match try_lock(&file) {
                // A start that failed has just removed it. A lock on a file without a name excludes nobody.
                Ok(()) if !has_name(id, &path) => {}
                Ok(()) => {
                    let had_no_database = !database.exists();
                    let (database, is_of_core) = (database.to_owned(), AtomicBool::new(false));
                    let reloads = Mutex::default();
                    let lock = Self { file, id, database, made_file, had_no_database, is_of_core, purpose, reloads };
                    held.push(id);
                    drop(held);
                    return match lock.write(phase) {
                        Ok(()) => Ok(lock),
                        Err(error) => {
                            lock.withdraw();
                            Err(unwritable(error))
                        }
                    };
                }
                Err(TryLockError::WouldBlock) => {
                    let is_own = held.contains(&id);
                    drop(held);
                    // A process that has just taken the lock may not have written yet what for: one more look.
                    let is_brief = line_of(&mut file, 2) == BRIEF && began.elapsed() < BRIEF_TIMEOUT;
                    if is_brief || (!is_own && !std::mem::replace(&mut has_tried, true)) {
                        std::thread::sleep(BRIEF_PAUSE);
                        continue;
                    }
                    let holder = if is_own { "this process".into() } else { name_in(&mut file) };
                    let what = if purpose == SPOOL { "spool" } else { "database" };
                    return Err(Error::Locked { what, path: database.to_owned(), holder, is_own });
                }
                Err(TryLockError::Error(source)) => return Err(unwritable(source)),
            }
        }
    }

    /// Releases the lock of a start that failed. Removes the lock file if [`Lock::take`] made it, and the database if there was none
    /// before and nothing is stored in it.
    pub fn withdraw(self) {
        if self.had_no_database {
            remove_if_unused(&self.database);
        }
        // While the lock is held: whoever waits for it looks whether the file still has its name.
        if self.made_file
            && let Err(error) = std::fs::remove_file(file_beside(&self.database, ".lock"))
        {
            log::debug!("the lock file cannot be removed: {error}");
        }
    }

    /// Returns the lock with what was started under it. After an error, the lock is withdrawn.
    pub fn keep_if_ok<T, E>(self, started: Result<T, E>) -> Result<(Self, T), E> {
        match started {
            Ok(started) => Ok((self, started)),
            Err(error) => {
                self.withdraw();
                Err(error)
            }
        }
    }

    /// Notes how far the start of this process is.
    pub fn note(&self, phase: StartPhase) {
        // Only commands that would wait read it.
        if let Err(error) = self.write(phase) {
            log::debug!("the lock file cannot be written: {error}");
        }
    }

    /// Notes with the next phase that this process collects from core NATS.
    pub fn note_core(&self) {
        self.is_of_core.store(true, Ordering::Relaxed);
    }

    /// Notes what a running collector has done about reloads. From then on [`Lock::reloads`] has it: the process takes SIGHUP for a
    /// request to reload.
    pub fn note_reloads(&self, note: &ReloadNote) {
        *self.reloads.lock() = Some(note.clone());
        self.note(StartPhase::Running);
    }

    /// What the holder has noted about reloads; `None` if the lock is free, or the holder takes no requests for reloads. Does not wait.
    #[must_use]
    pub fn reloads(database: &Path) -> Option<ReloadNote> {
        let mut file = File::open(file_beside(database, ".lock")).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => ReloadNote::of(&line_of(&mut file, 3)),
            _ => None,
        }
    }

    /// One write replaces the text, so that nobody reads half of it. What follows the last line belongs to an earlier, longer text.
    fn write(&self, phase: StartPhase) -> std::io::Result<()> {
        let mode = if self.is_of_core.load(Ordering::Relaxed) { CORE } else { self.purpose };
        let reloads = self.reloads.lock().as_ref().map_or(String::new(), ReloadNote::line);
        let text = format!("process {}\n{}\n{mode}\n{reloads}", std::process::id(), phase.name());
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }

    /// How far the holder's start is; `None` if the lock is free or cannot be read. Does not wait.
    #[must_use]
    pub fn phase(database: &Path) -> Option<StartPhase> {
        let mut file = File::open(file_beside(database, ".lock")).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                let name = line_of(&mut file, 1);
                let phase = StartPhase::ALL.into_iter().find(|phase| phase.name().trim_end() == name.trim_end());
                // An earlier version of this program writes no phase.
                Some(phase.unwrap_or(StartPhase::Running))
            }
            _ => None,
        }
    }

    /// Whether a process holds the lock that collects from core NATS. Does not wait.
    #[must_use]
    pub fn is_of_core(database: &Path) -> bool {
        let Ok(mut file) = File::open(file_beside(database, ".lock")) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) && line_of(&mut file, 2) == CORE
    }

    /// The holder of the lock, as `process 4711`; `None` if it is free. Does not wait, and never makes [`Lock::take`] fail.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when the lock file exists and cannot be read.
    pub fn holder(database: &Path) -> Result<Option<String>, Error> {
        let path = file_beside(database, ".lock");
        let unreadable = |source: std::io::Error| {
            lock_error(database, format!("cannot read its lock {}: {source}", path.display()), source)
                .with_remedy("check the permissions of the lock file")
        };
        let mut file = match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(unreadable)?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(name_in(&mut file))),
            Err(TryLockError::Error(source)) => Err(unreadable(source)),
        }
    }
}

/// Opens the lock file. Returns whether this call has made it.
fn open_or_make(path: &Path) -> std::io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    // A new database gives it its own permissions.
    options.read(true).write(true).mode(permissions_of(path));
    match options.clone().create_new(true).open(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok((options.create(true).truncate(false).open(path)?, false)),
        made => Ok((made?, true)),
    }
}

/// The permissions for a new lock file: those of the database, which may be shared with a group; without a database those of the owner.
fn permissions_of(lock: &Path) -> u32 {
    std::fs::metadata(lock.with_extension("")).map_or(0o600, |database| database.mode() & 0o666)
}

/// Whether the path leads to this file.
fn has_name(id: FileId, path: &Path) -> bool {
    match std::fs::metadata(path) {
        Ok(file) => (file.dev(), file.ino()) == id,
        Err(e) => e.kind() != ErrorKind::NotFound,
    }
}

fn lock_error(database: &Path, detail: String, source: std::io::Error) -> Error {
    let (fault, source) = (DatabaseFault::Unwritable, Some(source.into()));
    Error::Database { fault, path: database.to_owned(), detail, remedy: None, source }
}

/// How long to wait for probes that check whether the lock is free. Each takes microseconds.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes the lock if it is free. A probe takes the lock shared, briefly; the owner takes it exclusively.
fn try_lock(file: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + PROBE_TIMEOUT;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                file.try_lock_shared()?;
                file.unlock().map_err(TryLockError::Error)?;
                std::thread::yield_now();
            }
            tried => return tried,
        }
    }
}

fn id(file: &File) -> std::io::Result<FileId> {
    let file = file.metadata()?;
    Ok((file.dev(), file.ino()))
}

/// The name that the holder wrote into the lock file.
fn name_in(file: &mut File) -> String {
    let name = line_of(file, 0);
    if name.is_empty() { "another process".into() } else { name }
}

/// A line of the lock file, counted from 0; empty if there is none.
fn line_of(file: &mut File, number: usize) -> String {
    text_of(file).lines().nth(number).unwrap_or_default().to_owned()
}

fn text_of(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text
}

#[cfg(test)]
mod tests;
