//! Command lines that are shown, so that they can be pasted into a shell.

use std::borrow::Cow;

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

/// A word of a command line, in quotes if it needs them.
pub fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%*".contains(c);
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
}
