//! The file with the address of the server that `catchment run --with-server` started.

use std::fs::{File, TryLockError};
use std::path::Path;

/// The address in the file. `None` where there is no such file, or one that was left behind: the server is not running, or not yet.
#[must_use]
pub fn address_in(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let url = text.lines().next()?.trim();
    // A file that is only half written does not count.
    (url.contains("://") && text.ends_with('\n') && may_run(file)).then(|| url.to_owned())
}

/// Whether the server that the file `DATABASE.server` belongs to may be running. It keeps a lock in `DATABASE.nats`. After a power cut
/// the file is there, and nobody has the lock.
fn may_run(file: &Path) -> bool {
    let Ok(lock) = File::open(file.with_extension("nats").join("server.lock")) else { return true };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock | TryLockError::Error(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_address_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.db.server");
        assert_eq!(address_in(&file), None);
        for (text, address) in [
            ("nats://127.0.0.1:1\n", Some("nats://127.0.0.1:1")),
            ("nats://127.0.0.1:1", None),
            ("127.0.0.1:1\n", None),
            ("", None),
        ] {
            std::fs::write(&file, text).expect("writes");
            assert_eq!(address_in(&file).as_deref(), address, "{text:?}");
        }
        std::fs::write(&file, "nats://127.0.0.1:1\n").expect("writes");
        std::fs::create_dir(folder.path().join("a.db.nats")).expect("a folder");
        let lock = File::create(folder.path().join("a.db.nats/server.lock")).expect("a file");
        assert_eq!(address_in(&file), None, "it was left behind");
        lock.lock().expect("is free");
        assert_eq!(address_in(&file).as_deref(), Some("nats://127.0.0.1:1"));
    }
}
