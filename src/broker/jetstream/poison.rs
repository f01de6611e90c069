//! Messages that the client cannot parse. They would end the connection at every delivery, for ever.
//!
//! The server stores any bytes as headers and any subject that fits its control line. The client requires UTF-8, a
//! colon in each line, and short protocol lines. Such a message is read raw, passed on as a defect, and skipped.

/// The client reads protocol lines into a buffer of this size. A longer line is an error, or a panic of its thread.
const CLIENT_LINE: usize = 4096;

/// The size of the rest of a delivery's protocol line: numbers and a reply subject with the names of stream and
/// consumer, up to 255 bytes each.
const LINE_OVERHEAD: usize = 1024;

/// Why the client cannot parse a message; `None` if it can.
pub(super) fn defect(subject: &str, headers: &[u8]) -> Option<&'static str> {
    if subject.len() + LINE_OVERHEAD > CLIENT_LINE {
        return Some("its subject is too long for the NATS client");
    }
    if subject.contains(char::is_whitespace) {
        return Some("its subject has white space, which the NATS client cannot read");
    }
    // The server's JSON has this character in place of bytes that are not UTF-8. A subject may also really contain it.
    // This is only checked when a connection has just ended, so an unnecessary dead letter is the smaller harm.
    if subject.contains('\u{fffd}') {
        return Some("its subject is not UTF-8, which the NATS client cannot read");
    }
    if headers.is_empty() {
        return None;
    }
    let Ok(text) = std::str::from_utf8(headers) else {
        return Some("its headers are not UTF-8, which the NATS client cannot read");
    };
    let mut lines = text.lines();
    if !lines.next().is_some_and(|version| version.starts_with("NATS/1.0")) {
        return Some("its headers do not begin with NATS/1.0");
    }
    let mut after_header = false;
    for line in lines {
        if line.is_empty() {
            after_header = false;
            continue;
        }
        let continues = after_header && line.starts_with([' ', '\t']);
        if !continues && !line.contains(':') {
            return Some("its headers have a line without a colon, which the NATS client cannot read");
        }
        after_header = true;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_reads_is_fine() {
        for headers in [&b""[..], b"NATS/1.0\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0\r\nA: b\r\n c\r\n\r\n"] {
            assert_eq!(defect("a.b", headers), None, "{headers:?}");
        }
    }

    #[test]
    fn what_it_chokes_on_is_named() {
        for headers in [
            &b"NATS/1.0\r\nA: \xff\r\n\r\n"[..],
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"HTTP/1.1\r\nA: b\r\n\r\n",
            b"NATS/1.0\r\n folded\r\n\r\n",
            b"NATS/1.0\r\nA: b\r\n\r\n folded\r\n\r\n",
        ] {
            assert!(defect("a.b", headers).is_some(), "{headers:?}");
        }
        for subject in [&"x".repeat(4000), "a.\u{fffd}", "a.\u{a0}"] {
            assert!(defect(subject, b"").is_some(), "{subject}");
        }
    }
}
