//! Where a comparison keeps its databases and streams: a directory on a disk, gone at the end.

use std::fs;
use std::path::{Path, PathBuf};

use super::Failure;

const NAME: &str = "catchment-compare-";

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes one in `directory`, and removes those that killed comparisons left there.
    pub(super) fn make(directory: &Path) -> Result<Self, Failure> {
        let failed = |source| Failure::System { what: format!("directory {}", directory.display()), source };
        fs::create_dir_all(directory).map_err(failed)?;
        let directory = directory.canonicalize().map_err(failed)?;
        clear_leftovers(&directory);
        let path = directory.join(format!("{NAME}{}", std::process::id()));
        fs::create_dir_all(&path).map_err(failed)?;
        Ok(Self(path))
    }

    /// One below another.
    pub(super) fn below(parent: &Self, name: &str) -> Result<Self, Failure> {
        let path = parent.0.join(name);
        fs::create_dir_all(&path).map_err(Failure::system(format!("directory {}", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("directory {}: cannot be removed: {error}", self.0.display());
        }
    }
}

fn clear_leftovers(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let owner = entry.file_name().to_str().and_then(|name| name.strip_prefix(NAME)?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The file system that holds a path: its kind and where it is mounted.
pub(super) fn file_system(path: &Path) -> Option<(String, PathBuf)> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut found: Option<(String, PathBuf)> = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(place), Some(kind)) = (words.next(), words.next()) else { continue };
        let place = PathBuf::from(place.replace("\\040", " "));
        // Of two mounts on one place the later one counts.
        let deeper = |(_, known): &(String, PathBuf)| place.components().count() >= known.components().count();
        if path.starts_with(&place) && found.as_ref().is_none_or(deeper) {
            found = Some((kind.to_owned(), place));
        }
    }
    found
}

/// Refuses a file system that keeps nothing: commits would cost nothing there.
pub(super) fn on_a_disk(path: &Path) -> Result<(), Failure> {
    let path = path.canonicalize().map_err(Failure::system(format!("directory {}", path.display())))?;
    match file_system(&path) {
        Some((kind, _)) if matches!(kind.as_str(), "tmpfs" | "ramfs") => {
            Err(Failure::Directory { path, what: format!("is on {kind}, where nothing is ever synced to a disk") })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_no_disk() {
        assert_eq!(file_system(Path::new("/proc/self")).map(|(kind, _)| kind), Some("proc".into()));
        if file_system(Path::new("/dev/shm")).is_some_and(|(kind, _)| kind == "tmpfs") {
            let refused = on_a_disk(Path::new("/dev/shm")).expect_err("must be refused").to_string();
            assert!(refused.contains("tmpfs") && refused.contains("--directory"), "{refused}");
        }
    }

    #[test]
    fn what_a_killed_comparison_left_is_removed_by_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        // No process has a number this high.
        let left = folder.path().join(format!("{NAME}999999999"));
        fs::create_dir_all(left.join("0")).expect("makes");
        let made = Folder::make(folder.path()).expect("makes");
        let path = made.path().to_owned();
        assert!(!left.exists() && path.exists());
        drop(made);
        assert!(!path.exists());
    }
}
