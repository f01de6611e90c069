//! What the tests share: a server, a collector as a process, a publisher, and the oracle.

pub mod access;
pub mod asking;
pub mod authority;
pub mod chance;
pub mod cluster;
pub mod collector;
pub mod fixture;
pub mod health;
pub mod http;
pub mod load;
pub mod operator;
pub mod oracle;
pub mod partitioned;
pub mod post;
pub mod proxy;
pub mod publishing;
pub mod raw;
pub mod refusal;
pub mod scripted;
pub mod server;
pub mod terminal;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Waits for a condition; says what was waited for when it does not come.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_secs(60), what, &mut look)
}

/// As [`eventually`], with a limit of its own.
pub fn eventually_within<T>(limit: Duration, what: &str, look: &mut dyn FnMut() -> Option<T>) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Settings with a change: those of the library have fields that can be set, and no literals outside of it.
pub fn with<T>(mut settings: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut settings);
    settings
}

/// Copies a folder with all that is in it; a copy that is there already is replaced.
pub fn copy_folder(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
    assert!(done.success(), "cp {} {}", from.display(), to.display());
}
