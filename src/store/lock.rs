//! The lock beside the database: one collector a file.
//!
//! An advisory lock of the operating system on `<database>.lock`, which goes with the process however that ends. The
//! database file itself is never opened for this: closing it would drop SQLite's own locks
//! (<https://sqlite.org/howtocorrupt.html>, 2.2).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

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
            source: Some(Box::new(source)),
        };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).map_err(unwritable)?;
                write!(file, "process {}", std::process::id()).map_err(unwritable)?;
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
                if holder.is_empty() {
                    "another process".clone_into(&mut holder);
                }
                Err(Error::Locked { path: database.to_owned(), holder })
            }
            Err(TryLockError::Error(source)) => Err(unwritable(source)),
        }
    }
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
        drop(first);
        assert!(Lock::take(&database).is_ok());
    }
}
