//! Where rows go before they are deleted.
//!
//! The order is: rows are added to the archive and synced, read again and compared, and then deleted. The transaction that deletes
//! them also notes in the database how far the archive is settled: its length, or its last row's number. After a crash in between, the
//! archive has rows beyond that mark which the database has too; those are recognised there, and are not added again.

use std::path::{Path, PathBuf};

use super::archive_database;
use super::cell::Cell;
use super::lines;
use crate::config::{ArchiveKind, RetentionRule};

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
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(format!("{shown}: its directory {} does not exist", folder.display()));
        }
        if self.path.is_dir() {
            return Err(format!("{shown} is a directory"));
        }
        let real = |path: &Path| path.canonicalize().ok();
        if real(&self.path).is_some_and(|archive| real(database) == Some(archive)) {
            return Err(format!("{shown} is the database itself"));
        }
        match self.kind {
            ArchiveKind::Lines => lines::check(&self.path),
            ArchiveKind::Database => archive_database::check(&self.path),
        }
    }
}
