//! The file that keeps what was typed at the prompt.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The history file in the user's folder for state (<https://specifications.freedesktop.org/basedir-spec/latest/>). Makes the
/// folder, which only its user may read. `None` if there is no such folder and it cannot be made.
pub fn history_file() -> Option<PathBuf> {
    let file = file_in(|name| std::env::var_os(name))?;
    let folder = file.parent()?;
    match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        Ok(()) => Some(file),
        Err(error) => {
            log::debug!("no history: cannot make {}: {error}", folder.display());
            None
        }
    }
}

fn file_in(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(Path::new(".local/state"))))?;
    Some(state.join("catchment/sql_history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_in_the_folder_for_state() {
        let file = |state: &str, home: &str| {
            file_in(|name| {
                Some(if name == "HOME" { home } else { state }.into()).filter(|value: &OsString| !value.is_empty())
            })
        };
        assert_eq!(file("/s", "/h"), Some("/s/catchment/sql_history".into()));
        assert_eq!(file("", "/h"), Some("/h/.local/state/catchment/sql_history".into()));
        assert_eq!(file("relative", "/h"), Some("/h/.local/state/catchment/sql_history".into()));
        assert_eq!(file("", ""), None);
    }
}
