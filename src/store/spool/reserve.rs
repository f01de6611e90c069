//! Room on the disk that is kept for forwarding.
//!
//! To remove events, SQLite writes to the file `-wal` first. On a full disk that fails, and the spool could never become smaller. So a file
//! beside the spool takes some room while there is enough. If there is none, it is removed, and nothing is recorded until it can be
//! made again: what is removed from the spool has the room. And nothing is recorded if the log could not be copied into the spool any more.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::file::log_of;
use crate::new_file::folder_of;
use crate::store::file_beside;

/// Its size, at most and at least.
const LARGEST: u64 = 4 << 20;
const SMALLEST: u64 = 128 << 10;

/// It takes at most such a part of the room that is free.
const PART: u64 = 3;

/// What a commit needs besides its events, and an open spool for the index of its log.
const COMMIT: u64 = 64 << 10;

/// How it is written. Some file systems keep zeros without taking room.
const CHUNK: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// The file `-wal`.
    log: PathBuf,
    permissions: u32,
    /// It was removed, because there was no other room.
    released: AtomicBool,
    has_said: AtomicBool,
}

/// Where the room for this spool is kept.
pub(in crate::store) fn reserve_path(spool: &Path) -> PathBuf {
    file_beside(spool, ".reserve")
}

impl Reserve {
    pub(super) fn beside(spool: &Path, permissions: u32) -> Self {
        Self {
            path: reserve_path(spool),
            log: log_of(spool),
            permissions,
            released: AtomicBool::default(),
            has_said: AtomicBool::default(),
        }
    }

    /// Makes it, if it is missing and there is enough room. Returns whether it is there.
    pub(super) fn keep(&self) -> bool {
        // A process that was killed while it made one has left a part.
        let is_whole = std::fs::metadata(&self.path).is_ok_and(|file| file.len() >= SMALLEST);
        let is_there = is_whole || self.make();
        if is_there {
            self.released.store(false, Ordering::Relaxed);
        }
        is_there
    }

    /// Removes it. Returns whether that has made room.
    pub(super) fn release(&self) -> bool {
        let removed = std::fs::remove_file(&self.path).is_ok();
        if removed {
            self.released.store(true, Ordering::Relaxed);
            let (spool, was_said) = (self.path.display(), self.has_said.swap(true, Ordering::Relaxed));
            let level = if was_said { log::Level::Debug } else { log::Level::Warn };
            log::log!(
                level, event = "spool.disk_full", reserve:% = spool;
                "{spool}: removed, to have room for forwarding on a full disk; until it can be made again, nothing is recorded"
            );
        }
        removed
    }

    /// Whether it was removed and could not be made again.
    pub(super) fn is_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }

    /// Whether there is too little room to open a spool.
    pub(super) fn is_disk_full(&self) -> bool {
        self.free() < COMMIT
    }

    /// Whether so many bytes of events can be committed, and what is in the log can be copied into the file after that.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let log = std::fs::metadata(&self.log).map_or(0, |log| log.len());
        self.free() >= log.saturating_add(bytes.saturating_mul(2)).saturating_add(COMMIT)
    }

    /// The bytes that are free on the disk. Where that is not known, SQLite tells when there are none.
    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(folder_of(&self.path));
        disk.map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn make(&self) -> bool {
        let size = (self.free() / PART).min(LARGEST) / CHUNK as u64 * CHUNK as u64;
        if size < SMALLEST {
            return false;
        }
        let _ = std::fs::remove_file(&self.path);
        let written = self.write(size);
        if let Err(error) = &written {
            log::debug!("{}: cannot be written: {error}", self.path.display());
            let _ = std::fs::remove_file(&self.path);
        }
        written.is_ok()
    }

    fn write(&self, size: u64) -> std::io::Result<()> {
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(self.permissions).open(&self.path)?;
        let mut chunk = vec![0; CHUNK];
        for _ in 0..size / CHUNK as u64 {
            getrandom::fill(&mut chunk).map_err(|error| std::io::Error::other(error.to_string()))?;
            file.write_all(&chunk)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_room_until_it_is_released() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = folder.path().join("a.spool");
        let reserve = Reserve::beside(&spool, 0o600);
        assert!(!reserve.release() && !reserve.is_released(), "there is none");
        assert!(reserve.keep() && reserve.keep());
        assert_eq!(std::fs::metadata(reserve_path(&spool)).expect("is there").len(), LARGEST);
        assert!(reserve.release() && reserve.is_released() && !reserve_path(&spool).exists());
        assert!(reserve.keep() && !reserve.is_released());
        std::fs::write(reserve_path(&spool), "a part").expect("writes");
        assert!(reserve.keep());
        assert_eq!(std::fs::metadata(reserve_path(&spool)).expect("is there").len(), LARGEST);
    }
}
