//! What a collector notes in its lock file about reloads of its settings, for the command that requested one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The longest text of an outcome, in bytes: the lock file stays within a page, which is written at once.
const MAX_TEXT: usize = 2_000;

/// The reloads of a collector. A collector that takes no requests for reloads has no note.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadNote {
    /// How many have begun.
    pub begun: u64,
    /// How many have ended.
    pub ended: u64,
    /// Whether the last one took over the settings.
    pub is_done: bool,
    /// What the last one did, or why it changed nothing.
    pub text: String,
    /// The settings file that the collector reads, if it reads one: an absolute path.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

impl ReloadNote {
    /// A reload begins.
    pub fn begin(&mut self) {
        self.begun += 1;
    }

    /// The reload has ended.
    pub fn end(&mut self, is_done: bool, text: &str) {
        self.ended = self.begun;
        self.is_done = is_done;
        let end = (0..=MAX_TEXT.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
        text[..end.unwrap_or(0)].clone_into(&mut self.text);
    }

    /// As a line of the lock file.
    pub(super) fn line(&self) -> String {
        // A JSON text has no line break. Nothing in it can fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// The note on a line.
    pub(super) fn of(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_one_short_line() {
        let mut note = ReloadNote::default();
        note.begin();
        note.begin();
        note.end(false, &format!("two\nlines {}", "ü".repeat(5_000)));
        let line = note.line();
        assert!(line.len() < 4_000 && line.matches('\n').count() == 1 && line.ends_with('\n'));
        assert_eq!(ReloadNote::of(line.trim_end()), Some(note));
        assert_eq!((ReloadNote::of(""), ReloadNote::of("core NATS")), (None, None));
    }
}
