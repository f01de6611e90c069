//! Where a comparison keeps its databases and streams: a directory on a disk, removed at the end.

use std::fs;
use std::path::{Path, PathBuf};

use super::CompareError;

const NAME: &str = "catchment-compare-";

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct ScratchDirectory(PathBuf);

impl ScratchDirectory {
    /// Creates one in `directory`, and removes those that killed comparisons left there.
    pub(super) fn create(directory: &Path) -> Result<Self, CompareError> {
        let failed = |source| {
            let remedy = "choose a directory that can be written".to_owned();
            CompareError::System { object: format!("directory {}", directory.display()), remedy: Some(remedy), source }
        };
        fs::create_dir_all(directory).map_err(failed)?;
        let directory = directory.canonicalize().map_err(failed)?;
        clear_leftovers(&directory);
        let path = directory.join(format!("{NAME}{}", std::process::id()));
        fs::create_dir_all(&path).map_err(failed)?;
        Ok(Self(path))
    }

    /// Creates a directory inside another.
    pub(super) fn below(parent: &Self, name: &str) -> Result<Self, CompareError> {
        let path = parent.0.join(name);
        fs::create_dir_all(&path).map_err(CompareError::system(format!("directory {}", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("cannot remove directory {}: {error}", self.0.display());
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
        let (Some(mount), Some(kind)) = (words.next(), words.next()) else { continue };
        let mount = PathBuf::from(mount.replace("\\040", " "));
        // If two file systems are mounted on one path, the later one is visible.
        let deeper = |(_, known): &(String, PathBuf)| mount.components().count() >= known.components().count();
        if path.starts_with(&mount) && found.as_ref().is_none_or(deeper) {
            found = Some((kind.to_owned(), mount));
        }
    }
    found
}

/// Refuses a file system in memory: a commit would cost nothing there.
pub(super) fn require_disk(path: &Path) -> Result<(), CompareError> {
    let path = path.canonicalize().map_err(CompareError::system(format!("directory {}", path.display())))?;
    match file_system(&path) {
        Some((kind, _)) if matches!(kind.as_str(), "tmpfs" | "ramfs") => {
            let detail = format!("is on {kind}, which is in memory, so a commit would cost nothing");
            Err(CompareError::Directory { path, detail, remedy: "choose a directory on a disk".into() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_memory_is_refused() {
        assert_eq!(file_system(Path::new("/proc/self")).map(|(kind, _)| kind), Some("proc".into()));
        if file_system(Path::new("/dev/shm")).is_some_and(|(kind, _)| kind == "tmpfs") {
            let refused = require_disk(Path::new("/dev/shm")).expect_err("must be refused").to_string();
            assert!(refused.contains("tmpfs") && refused.contains("choose a directory on a disk"), "{refused}");
        }
    }

    #[test]
    fn the_next_comparison_removes_what_a_killed_one_left() {
        let folder = tempfile::tempdir().expect("a folder");
        // No process has a number this high.
        let left = folder.path().join(format!("{NAME}999999999"));
        fs::create_dir_all(left.join("0")).expect("makes");
        let made = ScratchDirectory::create(folder.path()).expect("makes");
        let path = made.path().to_owned();
        assert!(!left.exists() && path.exists());
        drop(made);
        assert!(!path.exists());
    }
}
