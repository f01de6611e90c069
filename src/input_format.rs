//! Recognises input that is no text of UTF-8.

use std::path::Path;

/// How many bytes show what the input is.
pub(crate) const HEAD: usize = 16;

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
