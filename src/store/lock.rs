//! The lock beside the database: one collector for each file.
//!
//! It is an advisory lock of the operating system on `<database>.lock`. It ends with the process, however that ends. The database
//! file itself is never opened for this: closing it would drop SQLite's own locks (<https://sqlite.org/howtocorrupt.html>, 2.2),
//! and on NFS a lock on it would be one of SQLite's.
//!
//! Symbolic links are followed first, so all paths to a file share one lock. A file with several hard links is refused when it is
//! opened.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::beside;
use crate::error::{DatabaseFault, Error};

/// The lock. Dropping this releases it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, without waiting.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] names the process that holds it; [`Error::Database`] when the lock file cannot be written.
    pub fn take(database: &Path) -> Result<Self, Error> {
        let path = beside(database, "lock");
        let unwritable = |source: std::io::Error| {
            lock_error(database, format!("cannot lock it with {}: {source}", path.display()), source)
                .with_remedy("check that the directory exists and can be written")
        };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unwritable)?;
        match try_lock(&file) {
            Ok(()) => {
                file.set_len(0).map_err(unwritable)?;
                write!(file, "process {}", std::process::id()).map_err(unwritable)?;
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                Err(Error::Locked { path: database.to_owned(), holder: name_in(&mut file) })
            }
            Err(TryLockError::Error(source)) => Err(unwritable(source)),
        }
    }

    /// The holder of the lock, as `process 4711`; `None` if it is free. Does not wait, and never makes [`Lock::take`] fail.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when the lock file exists and cannot be read.
    pub fn holder(database: &Path) -> Result<Option<String>, Error> {
        let path = beside(database, "lock");
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

fn lock_error(database: &Path, detail: String, source: std::io::Error) -> Error {
    let (fault, source) = (DatabaseFault::Unwritable, Some(source.into()));
    Error::Database { fault, path: database.to_owned(), detail, remedy: None, source }
}

/// How long to wait for probes that check whether the lock is free. Each takes microseconds.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// Takes the lock if it is free. A probe takes the lock shared, briefly; the owner takes it exclusively.
fn try_lock(file: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + PROBE_PATIENCE;
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

/// The name that the holder wrote into the lock file.
fn name_in(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
    if holder.is_empty() { "another process".into() } else { holder }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_releases_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        let first = Lock::take(&database).expect("is free");
        let refused = Lock::take(&database).expect_err("is held").to_string();
        assert!(refused.contains(&format!("process {} collects", std::process::id())), "{refused}");
        let holder = Lock::holder(&database).expect("looks");
        assert_eq!(holder, Some(format!("process {}", std::process::id())));
        drop(first);
        assert_eq!(Lock::holder(&database).expect("looks"), None);
        assert!(Lock::take(&database).is_ok());
    }
}
