//! What input of text may begin with, how long its lines may be, and what is no text of UTF-8.

use std::path::Path;

/// How many bytes show what the input is.
pub(crate) const HEAD: usize = 16;

/// The longest line in bytes. The largest event has half of it; JSON may write a byte of it as several.
pub(crate) const LONGEST_LINE: u64 = 256 << 20;

/// Some programs, mostly on Windows, write it before UTF-8.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text after the byte order mark at its beginning, if it has one.
pub(crate) fn without_byte_order_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// The same for bytes that may be no UTF-8.
pub(crate) fn bytes_without_byte_order_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Why the line of this number is refused if it is longer than [`LONGEST_LINE`].
pub(crate) fn too_long(number: u64) -> String {
    format!("line {number} is longer than {} MiB", LONGEST_LINE >> 20)
}

/// Why input that begins with these bytes has no lines of text, and what to do about it. `file` is where it comes from; `None` is standard
/// input.
pub(crate) fn unreadable(head: &[u8], file: Option<&Path>) -> Option<String> {
    let compressed: [(&[u8], &str, &str); 5] = [
        (b"\x1f\x8b", "gzip", "zcat"),
        (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
        (b"\xfd7zXZ\0", "xz", "xzcat"),
        (b"BZh", "bzip2", "bzcat"),
        (b"\x04\x22\x4d\x18", "lz4", "lz4cat"),
    ];
    let through = |program: &str| match file {
        Some(file) => format!("{program} {} | catchment … -", file.display()),
        None => format!("pipe it through {program}"),
    };
    for (magic, format, program) in compressed {
        // The letters of bzip2 could be text.
        if head.starts_with(magic) && (format != "bzip2" || head.get(4..7) == Some(b"1AY")) {
            return Some(format!("it is compressed with {format}; decompress it: {}", through(program)));
        }
    }
    if head.starts_with(b"PK\x03\x04") {
        let unzip = if file.is_none() { "unpack it first".to_owned() } else { through("unzip -p") };
        return Some(format!("it is a zip archive; decompress it: {unzip}"));
    }
    if head.starts_with(b"SQLite format 3\0") {
        return Some("it is a SQLite database, not lines; print its rows as lines: catchment sql --json".into());
    }
    is_utf16(head).then(|| format!("it is UTF-16, not UTF-8; convert it: {}", through("iconv -f UTF-16 -t UTF-8")))
}

/// Whether this is the start of UTF-16: its byte order mark, or two characters of ASCII.
fn is_utf16(head: &[u8]) -> bool {
    head.starts_with(b"\xff\xfe")
        || head.starts_with(b"\xfe\xff")
        || head.first_chunk().is_some_and(|&[a, b, c, d]| {
            [(a, b), (c, d)].iter().all(|&(low, high)| low != 0 && high == 0)
                || [(a, b), (c, d)].iter().all(|&(high, low)| low != 0 && high == 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_order_mark_at_the_beginning_is_skipped() {
        for (text, rest) in [("\u{feff}a", "a"), ("a\u{feff}", "a\u{feff}"), ("\u{feff}\u{feff}", "\u{feff}"), ("", "")]
        {
            assert_eq!(without_byte_order_mark(text), rest);
            assert_eq!(bytes_without_byte_order_mark(text.as_bytes()), rest.as_bytes());
        }
        assert_eq!(bytes_without_byte_order_mark(b"\xef\xbb"), b"\xef\xbb");
    }

    #[test]
    fn what_is_no_text_is_refused_with_the_way_to_read_it() {
        let file = Path::new("a");
        assert_eq!(
            unreadable(b"\x1f\x8b\x08", Some(file)).expect("gzip"),
            "it is compressed with gzip; decompress it: zcat a | catchment … -"
        );
        assert!(unreadable(b"\xff\xfea\0", None).expect("UTF-16").contains("pipe it through iconv"));
        for text in [&b"{\"subject\": \"a\"}"[..], b"BZh is text", b""] {
            assert_eq!(unreadable(text, Some(file)), None);
        }
    }
}
