//! A server that was left behind: its guard was killed, so nobody stopped it when its parent ended.
//!
//! Server and guard keep the lock file as their standard output. That shows which processes they are: a process ID in a file may be
//! another process's by now.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, Signal, kill_process};

/// The processes of the server that holds this lock file, its guard included. Empty where the system has no `/proc`.
pub(super) fn holders(lock: &File) -> Vec<u32> {
    let identity = |file: &Metadata| (file.dev(), file.ino());
    let Ok(lock) = lock.metadata().map(|file| identity(&file)) else { return Vec::new() };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has_lock = |pid: &u32| std::fs::metadata(format!("/proc/{pid}/fd/1")).is_ok_and(|file| identity(&file) == lock);
    numbers.filter(|pid| *pid != std::process::id() && has_lock(pid)).collect()
}

/// Asks these processes to end.
pub(super) fn end(processes: &[u32]) {
    for process in processes {
        let Some(pid) = i32::try_from(*process).ok().and_then(Pid::from_raw) else { continue };
        if let Err(error) = kill_process(pid, Signal::TERM) {
            log::debug!("broker: process {process} cannot be ended: {error}");
        }
    }
}
