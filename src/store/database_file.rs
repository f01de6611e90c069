//! Which file a path leads to.
//!
//! SQLite keeps its log beside the file that a path leads to, symbolic links followed. So several paths to one file are one
//! database. A second hard link is different: each name has a log of its own, and both are written into the one file
//! (<https://sqlite.org/howtocorrupt.html#_multiple_links_to_the_same_file>). Such a file is refused before it is written.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

use super::read_only::immutable;
use super::sqlite_error::database_error;
use crate::config::validate_database_path;
use crate::error::{DatabaseFault, Error};
use crate::hint;
use crate::new_file::{folder_of, with_ending};
use crate::pipeline::Problem;

/// A database file: its path, and the file that the path led to when the database was opened.
///
/// SQLite keeps writing to a file that was moved away or deleted, and those commits are lost
/// (<https://sqlite.org/howtocorrupt.html#_unlinking_or_renaming_a_database_file_while_in_use>).
#[derive(Clone, Debug)]
pub struct DatabaseFile {
    path: Arc<Path>,
    /// Device and inode number.
    inode: Option<(u64, u64)>,
}

impl DatabaseFile {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.into(), inode: inode(path) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path now leads to another file, or to none.
    #[must_use]
    pub fn was_replaced(&self) -> bool {
        inode(&self.path) != self.inode
    }

    /// Fails with [`DatabaseFault::Conflict`] if the path now leads to another file, or to none. To be called before a connection is
    /// opened too, which would make an empty file where there is none.
    pub(super) fn must_be_the_same(&self) -> Result<(), Problem> {
        if !self.was_replaced() {
            return Ok(());
        }
        let remedy = "start again, with this file if it is put back, or with the one that is there now";
        Err(Problem {
            remedy: Some(remedy.into()),
            ..Problem::new(DatabaseFault::Conflict, "the file was moved, removed or replaced while it was in use")
        })
    }
}

/// Refuses a path without a file: for operations that read and create nothing.
pub(super) fn must_exist(path: &Path) -> Result<(), Error> {
    validate_database_path(path)?;
    must_be_a_file(path)?;
    // The difference between no file and no permission to look is in this error.
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(refused(path, "there is no such file".into())
            .with_remedy("set database.path to an existing database, or collect something first")),
        Err(e) => Err(refused(path, e.to_string()).with_remedy("check that this user may use its directory")),
    }
}

/// Refuses a path where no database can be, and a file that is no database: before anything is made beside it. A path without a
/// file, and an empty file, are accepted. Takes no lock and makes no file.
pub(super) fn must_not_be_foreign(path: &Path) -> Result<(), Error> {
    validate_database_path(path)?;
    must_be_a_file(path)?;
    must_have_room_for_endings(path)?;
    if !path.exists() {
        return must_have_a_folder(path);
    }
    // Not read as a file: closing it would drop the locks of SQLite's connections in this process.
    match immutable(path) {
        Err(e) if matches!(e.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::CannotOpen)) => {
            Err(database_error(path, e))
        }
        // Another process may write it. Then a read without locks can fail, and opening it shows what is wrong.
        _ => Ok(()),
    }
}

/// Refuses a path whose folder does not exist.
fn must_have_a_folder(path: &Path) -> Result<(), Error> {
    let file = followed(path);
    let folder = folder_of(&file);
    if folder.is_dir() {
        return Ok(());
    }
    let error = refused(path, format!("the directory {} does not exist", folder.display()));
    let folder = folder.to_string_lossy();
    Err(error.with_remedy(format!("make it (mkdir -p {}), or set another database.path", hint::word(&folder))))
}

/// Refuses a name that is too long: SQLite and catchment keep files beside the database, named after it.
fn must_have_room_for_endings(path: &Path) -> Result<(), Error> {
    /// The limit of all usual file systems.
    const MOST_BYTES: usize = 255;
    const LONGEST: usize = "-journal".len();
    let length = followed(path).file_name().map_or(0, std::ffi::OsStr::len);
    if length + LONGEST <= MOST_BYTES {
        return Ok(());
    }
    let detail = format!("its name has {length} bytes, and the files beside it need names of up to {MOST_BYTES}");
    Err(refused(path, detail).with_remedy(format!("give it a name of at most {} bytes", MOST_BYTES - LONGEST)))
}

/// Refuses a path that leads to something else than a file. There may be nothing.
pub(super) fn must_be_a_file(path: &Path) -> Result<(), Error> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            Err(refused(path, "it is a directory".into()).with_remedy("give the path of a file in it"))
        }
        Ok(found) if !found.is_file() => {
            Err(refused(path, "it is not a regular file".into()).with_remedy("give the path of a file"))
        }
        // A loop of symbolic links, a file as a directory, no permission, a name that is too long.
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(refused(path, e.to_string()).with_remedy("check its directories, links and permissions"))
        }
        _ => Ok(()),
    }
}

/// Refuses a file with several hard links: for operations that write.
pub(super) fn must_have_one_name(path: &Path) -> Result<(), Error> {
    validate_database_path(path)?;
    let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
    let names = file.map_or(1, |file| file.nlink());
    if names <= 1 {
        return Ok(());
    }
    let detail = format!("the file has {names} names (hard links), and SQLite would keep a log for each");
    Err(refused(path, detail)
        .with_remedy("remove the others (find them with find -samefile), or set another database.path"))
}

fn refused(path: &Path, detail: String) -> Error {
    Error::database(DatabaseFault::Unwritable, path, detail)
}

/// The path with its symbolic links followed, as SQLite follows them; the file need not exist. A part that cannot be followed
/// stays as it is.
pub(super) fn followed(path: &Path) -> PathBuf {
    /// More than any system follows.
    const MOST_LINKS: usize = 40;
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(target) = std::fs::read_link(&at) else { break };
        at = at.parent().map_or_else(|| target.clone(), |folder| folder.join(&target));
    }
    match (std::fs::canonicalize(folder_of(&at)), at.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => at,
    }
}

/// The path that the caller wrote, or the file that it leads to where it is a link. For files that are shown to people, and for the disk of a
/// database.
#[must_use]
pub fn unlinked(path: &Path) -> PathBuf {
    if path.is_symlink() { followed(path) } else { path.to_owned() }
}

/// A file that belongs to a database, or to another file of SQLite: `file_beside(path, "-wal")`. It is beside the file that the path leads
/// to, where SQLite keeps its own.
#[must_use]
pub fn file_beside(database: &Path, ending: &str) -> PathBuf {
    with_ending(&followed(database), ending)
}

pub(super) fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Editor;

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
        let refusal = must_not_be_foreign(&at("self.db")).expect_err("a loop").to_string();
        assert!(refusal.contains("symbolic links") && refusal.contains("links and permissions"), "{refusal}");
        assert_eq!(followed(&at("self.db")), at("self.db"));
        assert_eq!(followed(Path::new("/nowhere/a.db")), Path::new("/nowhere/a.db"));
        assert_eq!(followed(Path::new("a.db")), std::env::current_dir().expect("one").join("a.db"));
    }

    #[test]
    fn a_file_beside_a_linked_database_is_where_sqlite_keeps_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = std::fs::canonicalize(folder.path()).expect("a path");
        let (link, real) = (root.join("link.db"), root.join("real/a.db"));
        std::fs::create_dir(root.join("real")).expect("a folder");
        std::os::unix::fs::symlink("real/a.db", &link).expect("a link");
        assert_eq!(file_beside(&link, ".lock"), root.join("real/a.db.lock"), "before there is a database");
        assert_eq!((unlinked(&link), unlinked(Path::new("a.db"))), (real.clone(), "a.db".into()));
        let editor = Editor::open(&link).expect("opens");
        editor.run("PRAGMA journal_mode = WAL; CREATE TABLE t(a)").expect("SQL");
        for ending in ["-wal", "-shm"] {
            for path in [&link, &real] {
                let file = file_beside(path, ending);
                assert_eq!(file, root.join(format!("real/a.db{ending}")));
                assert!(file.exists(), "{}", file.display());
            }
        }
    }

    #[test]
    fn a_path_where_no_database_can_be_is_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let long = |length: usize| folder.path().join("a".repeat(length));
        assert!(must_not_be_foreign(&long(247)).is_ok());
        for (path, words) in [
            (long(248), &["its name has 248 bytes", "at most 247 bytes"][..]),
            (long(256), &["name too long"]),
            (folder.path().join("no/a.db"), &["the directory ", "/no does not exist; make it (mkdir -p ", "/no)"]),
        ] {
            let refusal = must_not_be_foreign(&path).expect_err("cannot be").to_string();
            assert!(words.iter().all(|word| refusal.contains(word)), "{refusal}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 0);
    }
}
