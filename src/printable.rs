//! Makes text from outside, such as a subject or a server's error, safe for a log line, an error or a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Escapes every character that starts a new line, moves a terminal's cursor, changes its state, or changes the direction of
/// writing, as JSON does: `\u001b`. So JSON stays the same JSON. Text of events and servers goes through it before the library logs it
/// or puts it into an error.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            // All of them have four digits.
            c if is_unsafe(c) => _ = write!(shown, "\\u{:04x}", u32::from(c)),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Control characters, line and paragraph separators, and characters that change the direction of writing (Unicode TR 9).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_control_the_terminal() {
        assert_eq!(printable("a\n\u{1b}[2Jb\u{9b}1m\u{202e}\u{7f}"), "a\\n\\u001b[2Jb\\u009b1m\\u202e\\u007f");
        let json = "{\"a\":\"\u{9b}\u{2028}\u{7f}\"}";
        let values =
            [json, &printable(json)].map(|json| serde_json::from_str::<serde_json::Value>(json).expect("JSON"));
        assert_eq!(values[0], values[1]);
        assert!(matches!(printable("grüße {\"a\":\"\\n\"}"), Cow::Borrowed(_)));
    }
}
