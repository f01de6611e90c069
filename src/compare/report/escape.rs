//! Text and links that are safe in HTML; links that are safe in Markdown too.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::figures::plain;
use crate::markup;

/// Text as HTML, for content and for attributes.
pub fn escaped(text: &str) -> String {
    markup::escaped(&plain(text)).into_owned()
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
