//! Command lines that are shown, so that they can be pasted into a shell.

pub use crate::hint::word;

/// The name by which this program was called, as a word of a command line.
pub fn program() -> String {
    word(&std::env::args().next().unwrap_or_else(|| "catchment".into())).into_owned()
}

/// The same, for a shell that has changed to another directory.
pub fn program_from_elsewhere() -> String {
    let name = std::env::args().next().unwrap_or_else(|| "catchment".into());
    // Without a slash it is on the PATH.
    match std::path::absolute(&name) {
        Ok(path) if name.contains('/') => word(&path.to_string_lossy()).into_owned(),
        _ => word(&name).into_owned(),
    }
}
