//! Text of strangers, a subject or a server's words for instance, for a log line, an error or a terminal.

use std::borrow::Cow;

/// The text with everything as an escape that would begin another line, move a terminal's cursor, change its state or the
/// direction of writing. What this library logs or says in an error of events and servers has gone through it.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(plays_tricks) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if plays_tricks(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Control characters, line and paragraph separators, and those that change the direction of writing (Unicode TR 9).
fn plays_tricks(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_play_with_the_terminal() {
        assert_eq!(printable("a\n\u{1b}[2Jb\u{9b}1m\u{202e}\u{7f}"), "a\\n\\u{1b}[2Jb\\u{9b}1m\\u{202e}\\u{7f}");
        assert!(matches!(printable("grüße {\"a\":\"\\n\"}"), Cow::Borrowed(_)));
    }
}
