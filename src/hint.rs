//! The commands that errors, findings and log lines name as a way out. They have the flags with which this process was called, so that
//! they use the same settings and the same database.

use std::borrow::Cow;

use parking_lot::RwLock;

/// The flags of this process, with a space before each. Empty in a program that embeds this library.
static FLAGS: RwLock<String> = RwLock::new(String::new());

/// Notes the flags that make another command use the same settings and the same database, with a space before each.
#[cfg(any(feature = "cli", test))]
pub fn note_flags(flags: String) {
    // The unit tests of one process use many settings at a time.
    if cfg!(not(test)) {
        *FLAGS.write() = flags;
    }
}

/// The command line for `words` (`dead-letters list`) with the flags of this process.
#[must_use]
pub fn command(words: &str) -> String {
    command_with(words, &FLAGS.read())
}

/// The command that starts a collector. `has_own_server`: the last one of this database was started with a nats-server of its own.
#[must_use]
pub fn start(has_own_server: bool) -> String {
    command(if has_own_server { "run --with-server" } else { "run" })
}

fn command_with(words: &str, flags: &str) -> String {
    format!("catchment {words}{flags}")
}

/// A word of a command line, in quotes if it needs them.
#[must_use]
pub fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_in_quotes_if_it_needs_them() {
        for (text, shown) in [("a/b.toml", "a/b.toml"), ("my file", "'my file'"), ("", "''"), ("it's", r"'it'\''s'")] {
            assert_eq!(word(text), shown);
        }
    }

    #[test]
    fn a_command_has_the_flags_of_the_process() {
        assert_eq!(command_with("dead-letters list", ""), "catchment dead-letters list");
        let flags = " --config chat.toml --database 'my chat.db'";
        assert_eq!(command_with("run", flags), "catchment run --config chat.toml --database 'my chat.db'");
    }
}
