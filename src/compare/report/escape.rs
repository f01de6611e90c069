//! Text and links that are safe in HTML; links that are safe in Markdown too.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::figures::plain;

/// Text as HTML, for content and for attributes.
pub fn escaped(text: &str) -> String {
    let text = plain(text);
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '"' => shown.push_str("&quot;"),
            '\'' => shown.push_str("&#39;"),
            c => shown.push(c),
        }
    }
    shown
}

/// The link to a file beside the report; none if the file is elsewhere.
pub fn relative(file: &str) -> Option<String> {
    /// Characters that end a link or begin another part of it, in HTML or in Markdown.
    const SPECIAL: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'%')
        .add(b'<')
        .add(b'>')
        .add(b'?')
        .add(b'(')
        .add(b')')
        .add(b':')
        .add(b'\\');
    let beside = !file.is_empty() && !file.starts_with('/') && !file.split('/').any(|part| part == "..");
    beside.then(|| utf8_percent_encode(file, SPECIAL).to_string())
}
