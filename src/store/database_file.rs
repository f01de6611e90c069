//! Which file a path leads to.
//!
//! SQLite keeps its log beside the file that a path leads to, symbolic links followed. So one file by several paths is one
//! database. By a second hard link it is not: that name has a log of its own, and both would write the one file
//! (<https://sqlite.org/howtocorrupt.html#_multiple_links_to_the_same_file>). Whoever writes refuses such a file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::validate_database_path;
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
    validate_database_path(path)?;
    if path.is_file() {
        return Ok(());
    }
    Err(Error::Database {
        fault: DatabaseFault::Unwritable,
        path: path.to_owned(),
        detail: "there is no such file; name another with --database, or collect something first".into(),
        remedy: None,
        source: None,
    })
}

/// For those who write.
pub(super) fn must_have_one_name(path: &Path) -> Result<(), Error> {
    validate_database_path(path)?;
    let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
    let names = file.map_or(1, |file| file.nlink());
    if names <= 1 {
        return Ok(());
    }
    Err(Error::Database {
        fault: DatabaseFault::Unwritable,
        path: path.to_owned(),
        detail: format!(
            "the file has {names} names (hard links), and SQLite would keep a log for each; remove the others (find them with \
             find -samefile), or give another database.path"
        ),
        remedy: None,
        source: None,
    })
}

/// The path with its symbolic links followed, as SQLite follows them; the file need not exist. What cannot be followed stays
/// as it is.
pub(super) fn followed(path: &Path) -> PathBuf {
    /// More than any system follows.
    const MOST_LINKS: usize = 40;
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(target) = std::fs::read_link(&at) else { break };
        at = at.parent().map_or_else(|| target.clone(), |folder| folder.join(&target));
    }
    let folder = match at.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return at,
    };
    match (std::fs::canonicalize(folder), at.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => at,
    }
}

fn place(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_to_a_file_is_followed_to_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = std::fs::canonicalize(folder.path()).expect("a path");
        let at = |name: &str| root.join(name);
        std::fs::create_dir(at("real")).expect("a folder");
        std::os::unix::fs::symlink("real", at("linked")).expect("a link");
        std::os::unix::fs::symlink("linked/a.db", at("b.db")).expect("a link");
        std::os::unix::fs::symlink(at("b.db"), at("c.db")).expect("a link");
        for is_there in [false, true] {
            for path in ["real/a.db", "linked/a.db", "b.db", "c.db", "real/../linked/./a.db"] {
                assert_eq!(followed(&at(path)), at("real/a.db"), "{path}, {is_there}");
            }
            std::fs::write(at("real/a.db"), "").expect("writes");
        }
        std::os::unix::fs::symlink("self.db", at("self.db")).expect("a link");
        assert_eq!(followed(&at("self.db")), at("self.db"));
        assert_eq!(followed(Path::new("/nowhere/a.db")), Path::new("/nowhere/a.db"));
        assert_eq!(followed(Path::new("a.db")), std::env::current_dir().expect("one").join("a.db"));
    }
}
