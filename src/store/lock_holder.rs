//! The process that holds the lock of a database: found, proved to hold it, and signalled.
//!
//! The number in the lock file is not enough. It may be the number of a process in another container, and a process that has ended
//! leaves its number to others. So on Linux the process is opened first, its lock is looked up in `/proc`, and the signal goes to what was
//! opened.

use std::path::Path;

use rustix::process::{Pid, Signal};

use super::file_beside;
use super::lock::Lock;

/// The process that holds a lock.
#[derive(Debug)]
pub struct LockHolder {
    number: u32,
    #[cfg(target_os = "linux")]
    opened: std::os::fd::OwnedFd,
}

impl LockHolder {
    /// The holder of the lock of this database; `None` if it is free.
    ///
    /// # Errors
    ///
    /// Why it cannot be proved that the process in the lock file holds the lock: one line.
    pub fn of(database: &Path) -> Result<Option<Self>, String> {
        let Some(name) = Lock::holder(database).map_err(|error| error.to_string())? else { return Ok(None) };
        let number = name.strip_prefix("process ").and_then(|number| number.parse::<i32>().ok());
        let pid = number.and_then(Pid::from_raw).ok_or_else(|| format!("the lock file names no process: {name}"))?;
        Self::open(database, pid).map(Some)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }
}

#[cfg(target_os = "linux")]
impl LockHolder {
    fn open(database: &Path, pid: Pid) -> Result<Self, String> {
        use std::os::unix::fs::MetadataExt;

        let number = pid.as_raw_nonzero().get();
        let no_process = |error| format!("cannot open process {number}: {error}; does it run in another container?");
        let opened = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map_err(no_process)?;
        let lock = file_beside(database, ".lock").metadata().map_err(|error| format!("the lock file: {error}"))?;
        let unreadable = |error: std::io::Error| {
            format!(
                "cannot see which files process {number} has open: {error}; run this as the collector's user or as root"
            )
        };
        for file in std::fs::read_dir(format!("/proc/{number}/fd")).map_err(unreadable)? {
            // A file that was closed meanwhile is not the lock.
            let Ok(file) = file else { continue };
            let is_lock =
                std::fs::metadata(file.path()).is_ok_and(|file| (file.dev(), file.ino()) == (lock.dev(), lock.ino()));
            let info = format!("/proc/{number}/fdinfo/{}", file.file_name().to_string_lossy());
            if is_lock && std::fs::read_to_string(info).is_ok_and(|info| has_lock(&info)) {
                return Ok(Self { number: number.unsigned_abs(), opened });
            }
        }
        Err(format!(
            "process {number} does not hold the lock: the collector may run in another container; run this there"
        ))
    }

    /// Sends SIGHUP, which requests a reload. The caller makes sure that the holder takes it for that.
    ///
    /// # Errors
    ///
    /// Why it cannot be sent.
    pub fn request_reload(&self) -> Result<(), String> {
        rustix::process::pidfd_send_signal(&self.opened, Signal::HUP)
            .map_err(|error| format!("cannot send SIGHUP to process {}: {error}", self.number))
    }
}

/// Whether an open file holds a lock as ours: <https://man7.org/linux/man-pages/man5/proc_pid_fdinfo.5.html>.
#[cfg(target_os = "linux")]
fn has_lock(info: &str) -> bool {
    info.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK") && line.contains("WRITE"))
}

#[cfg(not(target_os = "linux"))]
impl LockHolder {
    fn open(_database: &Path, pid: Pid) -> Result<Self, String> {
        Ok(Self { number: pid.as_raw_nonzero().get().unsigned_abs() })
    }

    /// Sends SIGHUP, which requests a reload. The caller makes sure that the holder takes it for that.
    ///
    /// # Errors
    ///
    /// Why it cannot be sent.
    pub fn request_reload(&self) -> Result<(), String> {
        let pid = i32::try_from(self.number).ok().and_then(Pid::from_raw).ok_or("no process")?;
        rustix::process::kill_process(pid, Signal::HUP)
            .map_err(|error| format!("cannot send SIGHUP to process {}: {error}", self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_holds_the_lock_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        assert!(LockHolder::of(&database).expect("looks").is_none());
        let lock = Lock::take(&database).expect("is free");
        let holder = LockHolder::of(&database).expect("looks").expect("this process");
        assert_eq!(holder.number(), std::process::id());
        #[cfg(target_os = "linux")]
        {
            // As in a container, where the number belongs to another process outside.
            let other = std::process::Command::new("sleep").arg("60").spawn();
            let mut other = other.expect("starts");
            let text = format!("process {}\nrunning             \n\n", other.id());
            std::fs::write(file_beside(&database, ".lock"), text).expect("writes");
            let refused = LockHolder::of(&database).expect_err("does not hold it");
            assert!(refused.contains("does not hold the lock"), "{refused}");
            other.kill().and_then(|()| other.wait()).expect("ends");
            let refused = LockHolder::of(&database).expect_err("has ended");
            assert!(refused.contains("cannot open process"), "{refused}");
        }
        drop(lock);
        assert!(LockHolder::of(&database).expect("looks").is_none());
    }
}
