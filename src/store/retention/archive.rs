//! Where rows go before they are deleted.
//!
//! The order is: rows are added to the archive and synced, read again and compared, and then deleted. The transaction that deletes
//! them also notes in the database how far the archive is settled: its length, or its last row's number. After a crash in between, the
//! archive has rows beyond that mark which the database has too; those are recognised there, and are not added again.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::archive_database;
use super::lines;
use crate::config::{ArchiveKind, RetentionRule};
use crate::new_file::folder_of;
use crate::store::cell::Cell;
use crate::store::database_file::followed;

/// The archive of a rule.
#[derive(Clone, Debug)]
pub(super) struct Archive {
    path: PathBuf,
    kind: ArchiveKind,
    table: String,
    columns: Vec<String>,
    permissions: u32,
}

impl Archive {
    /// The archive at this path, for the rows of a table. Opens nothing.
    pub(super) fn new(path: &Path, table: &str, columns: &[String], permissions: u32) -> Self {
        // The settings were validated.
        let kind = RetentionRule::archive_kind(path).unwrap_or(ArchiveKind::Lines);
        Self { path: path.to_owned(), kind, table: table.to_owned(), columns: columns.to_vec(), permissions }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The key of the mark in table `catchment_meta`.
    pub(super) fn mark_key(&self) -> String {
        format!("archive {} {}", self.table, self.path.display())
    }

    /// Adds those of the rows that it does not have beyond the mark, and reads them again. When this returns, they are on the disk.
    /// Returns the new mark.
    ///
    /// # Errors
    ///
    /// Why it cannot have them, in one line. It may have some of them then.
    pub(super) fn add(&self, rows: &[Vec<Cell>], mark: Option<i64>) -> Result<i64, String> {
        let Self { path, kind, table, columns, permissions } = self;
        must_be_regular(path)?;
        match kind {
            ArchiveKind::Lines => lines::add(path, columns, rows, mark, *permissions),
            ArchiveKind::Database => archive_database::add(path, table, columns, rows, mark, *permissions),
        }
    }

    /// Checks that it can be used: before the first row is to go.
    ///
    /// # Errors
    ///
    /// Why not, in one line.
    pub(super) fn check(&self, database: &Path) -> Result<(), String> {
        let shown = self.path.display();
        let folder = folder_of(&self.path);
        if !folder.is_dir() {
            return Err(format!("{shown}: its directory {} does not exist", folder.display()));
        }
        if self.path.is_dir() {
            return Err(format!("{shown} is a directory"));
        }
        must_be_regular(&self.path)?;
        let real = |path: &Path| path.canonicalize().ok();
        if real(&self.path).is_some_and(|archive| real(database) == Some(archive)) {
            return Err(format!("{shown} is the database itself"));
        }
        match self.kind {
            ArchiveKind::Lines => lines::check(&self.path),
            ArchiveKind::Database => archive_database::check(&self.path),
        }
    }

    /// Whether both are lines in one file, which may be spelt differently.
    pub(super) fn shares_lines_with(&self, other: &Self) -> bool {
        let are_lines = self.kind == ArchiveKind::Lines && other.kind == ArchiveKind::Lines;
        are_lines && self.is_same_file(other)
    }

    /// Whether both lead to one file, by paths of any spelling, symbolic links or hard links.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        let inode = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        followed(&self.path) == followed(&other.path)
            || inode(&self.path).is_some_and(|own| inode(&other.path) == Some(own))
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }
}

/// Refuses a pipe or a device before it is opened: opening or reading one may wait for ever.
fn must_be_regular(path: &Path) -> Result<(), String> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(format!("{} is no regular file", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_or_a_device_is_refused_before_it_is_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["pipe.ndjson", "pipe.db"] {
            let path = folder.path().join(name);
            assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("makes a pipe").success());
            let archive = Archive::new(&path, "t", &["id".to_owned()], 0o600);
            let refused = format!("{} is no regular file", path.display());
            assert_eq!(archive.check(&folder.path().join("events.db")), Err(refused.clone()));
            assert_eq!(archive.add(&[vec![Cell::Integer(1)]], None), Err(refused));
        }
    }

    #[test]
    fn one_file_of_lines_is_recognised_in_any_spelling() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| Archive::new(&folder.path().join(name), "t", &[], 0o600);
        assert!(at("old.ndjson").shares_lines_with(&at("./old.ndjson")), "no file is there yet");
        assert!(!at("old.ndjson").shares_lines_with(&at("other.ndjson")));
        assert!(!at("old.db").shares_lines_with(&at("old.db")), "a database has a table for each");
        std::fs::write(folder.path().join("old.ndjson"), "").expect("writes");
        std::os::unix::fs::symlink("old.ndjson", folder.path().join("link.ndjson")).expect("links");
        std::fs::hard_link(folder.path().join("old.ndjson"), folder.path().join("hard.ndjson")).expect("links");
        assert!(at("old.ndjson").shares_lines_with(&at("link.ndjson")));
        assert!(at("old.ndjson").shares_lines_with(&at("hard.ndjson")));
    }
}
