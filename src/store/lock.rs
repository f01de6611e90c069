//! The lock beside the database: one collector a file.
//!
//! An advisory lock of the operating system on `<database>.lock`, which goes with the process however that ends. The
//! database file itself is never opened for this: closing it would drop SQLite's own locks
//! (<https://sqlite.org/howtocorrupt.html>, 2.2), and on NFS a lock on it would be one of SQLite's.
//!
//! Whichever path leads to the file, symbolic links are followed first, so there is one lock. A file with several hard links
//! is refused where it is opened.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::beside;
use crate::error::{DatabaseFault, Error};

/// Held as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, without waiting.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] naming the process that has it; [`Error::Database`] when the lock file cannot be written.
    pub fn take(database: &Path) -> Result<Self, Error> {
        let path = beside(database, "lock");
        let unwritable = |source: std::io::Error| Error::Database {
            fault: DatabaseFault::Unwritable,
            path: database.to_owned(),
            detail: format!(
                "cannot lock it with {}: {source}; check that the directory exists and can be written",
                path.display()
            ),
            remedy: None,
            source: Some(Box::new(source)),
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

    /// Who has the lock, as `process 4711`; `None` where nobody has. Does not wait, and nobody is refused the lock for it.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when the lock file is there and cannot be read.
    pub fn holder(database: &Path) -> Result<Option<String>, Error> {
        let path = beside(database, "lock");
        let unreadable = |source: std::io::Error| Error::Database {
            fault: DatabaseFault::Unwritable,
            path: database.to_owned(),
            detail: format!("cannot tell who collects into it by {}: {source}; see who may read it", path.display()),
            remedy: None,
            source: Some(Box::new(source)),
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

/// How long to wait for those who only look whether the lock is free. Each of them takes microseconds.
const GLANCES: Duration = Duration::from_secs(5);

/// Takes the lock if nobody has it. Who only looks shares it for a moment, who has it shares it with nobody.
fn try_lock(file: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + GLANCES;
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

/// What the holder wrote into the lock file.
fn name_in(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
    if holder.is_empty() { "another process".into() } else { holder }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_by_name_until_the_first_lets_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        let first = Lock::take(&database).expect("nobody has it");
        let refused = Lock::take(&database).expect_err("somebody has it").to_string();
        assert!(refused.contains(&format!("process {} collects", std::process::id())), "{refused}");
        let holder = Lock::holder(&database).expect("looks");
        assert_eq!(holder, Some(format!("process {}", std::process::id())));
        drop(first);
        assert_eq!(Lock::holder(&database).expect("looks"), None);
        assert!(Lock::take(&database).is_ok());
    }
}
