//! The sizes of a database's files.

use std::path::Path;

use super::database_file::file_beside;

/// The sizes of a database's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSizes {
    /// Bytes of the database file.
    pub database: u64,
    /// Bytes of the file `-wal` beside it; 0 if there is none. It starts again from its beginning once no connection reads an older state.
    pub wal: u64,
}

impl FileSizes {
    /// The sizes now; 0 for a file that is missing.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        Self { database: size(path), wal: size(&file_beside(path, "-wal")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unmatched;
    use crate::store::fixture::Fixture;

    #[test]
    fn the_files_of_a_database_behind_a_link_are_measured() {
        let fixture = Fixture::with_routes("", &[], Unmatched::Store).expect("opens");
        let path = &fixture.config.path;
        fixture.connection.execute_batch("CREATE TABLE filled(a)").expect("SQL");
        let sizes = FileSizes::of(path);
        assert!(sizes.database > 0 && sizes.wal > 0, "{sizes:?}");
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("link.db");
        std::os::unix::fs::symlink(path, &link).expect("a link");
        assert_eq!(FileSizes::of(&link), sizes);
        assert_eq!(FileSizes::of(Path::new("/nowhere/a.db")), FileSizes::default());
    }
}
