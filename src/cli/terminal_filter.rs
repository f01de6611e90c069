//! What a terminal gets of data: no character that steers it.

use std::io::{self, Write};

use crate::printable;

/// Passes text on with escaped characters, as [`printable`] escapes them; lines and tabs stay. Bytes that are not UTF-8 become U+FFFD.
#[derive(Default)]
pub struct TerminalFilter {
    /// The beginning of a character whose other bytes were not written yet.
    begun: Vec<u8>,
}

impl TerminalFilter {
    /// Writes the text of these bytes.
    pub fn write(&mut self, bytes: &[u8], to: &mut impl Write) -> io::Result<()> {
        let joined = [&std::mem::take(&mut self.begun), bytes].concat();
        let mut rest = &joined[..];
        loop {
            let (valid, error) = match std::str::from_utf8(rest) {
                Ok(text) => (text.len(), None),
                Err(error) => (error.valid_up_to(), Some(error.error_len())),
            };
            let (text, behind) = rest.split_at(valid);
            write_text(&String::from_utf8_lossy(text), to)?;
            match error {
                None => return Ok(()),
                Some(None) => {
                    self.begun.extend_from_slice(behind);
                    return Ok(());
                }
                Some(Some(length)) => {
                    write!(to, "{}", char::REPLACEMENT_CHARACTER)?;
                    rest = &behind[length..];
                }
            }
        }
    }

    /// Writes what is not a whole character. To be called where text ends.
    pub fn finish(&mut self, to: &mut impl Write) -> io::Result<()> {
        if self.begun.is_empty() {
            return Ok(());
        }
        self.begun.clear();
        write!(to, "{}", char::REPLACEMENT_CHARACTER)
    }
}

fn write_text(text: &str, to: &mut impl Write) -> io::Result<()> {
    let is_kept = |c| matches!(c, '\n' | '\t');
    text.split_inclusive(is_kept).try_for_each(|part| {
        let content = part.trim_end_matches(is_kept);
        to.write_all(printable(content).as_bytes())?;
        to.write_all(&part.as_bytes()[content.len()..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(parts: &[&[u8]]) -> String {
        let (mut filter, mut to) = (TerminalFilter::default(), Vec::new());
        for part in parts {
            filter.write(part, &mut to).expect("writes");
        }
        filter.finish(&mut to).expect("writes");
        String::from_utf8(to).expect("UTF-8")
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        let text = "a,\u{1b}[31mb\r\n\tc\u{7}\u{9b}2J\u{202e}\n\n";
        assert_eq!(filtered(&[text.as_bytes()]), "a,\\u001b[31mb\\r\n\tc\\u0007\\u009b2J\\u202e\n\n");
    }

    #[test]
    fn the_place_where_text_is_cut_does_not_matter() {
        let text = "grüße\u{9b} 漢字 \u{1f600}\u{1b}\n";
        let whole = filtered(&[text.as_bytes()]);
        assert_eq!(whole, "grüße\\u009b 漢字 \u{1f600}\\u001b\n");
        for at in 0..text.len() {
            let (one, other) = text.as_bytes().split_at(at);
            assert_eq!(filtered(&[one, other]), whole);
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(filtered(&bytes), whole);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(filtered(&[b"a\x9b2J\xff\n", b"b\xe6\xbc"]), "a\u{fffd}2J\u{fffd}\nb\u{fffd}");
    }
}
