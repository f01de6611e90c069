//! Which file a path leads to.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{DatabaseFault, Error};

/// A database file, by its path and by what the path led to when it was opened.
///
/// SQLite goes on writing to a file that was moved away or deleted: what it commits then is nowhere to be found
/// (<https://sqlite.org/howtocorrupt.html#_unlinking_or_renaming_a_database_file_while_in_use>).
#[derive(Clone, Debug)]
pub(super) struct File {
    path: Arc<Path>,
    place: Option<(u64, u64)>,
}

impl File {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.into(), place: place(path) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path leads to another file by now, or to none.
    pub(super) fn was_replaced(&self) -> bool {
        place(&self.path) != self.place
    }
}

/// For those who read what is there, and make nothing.
pub(super) fn must_exist(path: &Path) -> Result<(), Error> {
    if path.is_file() {
        return Ok(());
    }
    Err(Error::Database {
        fault: DatabaseFault::Unwritable,
        path: path.to_owned(),
        detail: "there is no such file; name another with --database, or collect something first".into(),
        source: None,
    })
}

fn place(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
