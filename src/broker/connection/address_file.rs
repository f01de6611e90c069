//! The file with the address of the server that `catchment run --with-server` started.

use std::path::Path;

/// The address in the file. `None` where there is no such file: the server is not running, or not yet.
#[must_use]
pub fn address_in(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let url = text.lines().next()?.trim();
    // A file that is only half written does not count.
    (url.contains("://") && text.ends_with('\n')).then(|| url.to_owned())
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
    }
}
