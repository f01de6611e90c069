//! An event's number inside its payload.
//!
//! A header costs the server and a collector more than the same bytes in a payload. So [`Identity::Payload`](super::Identity::Payload)
//! makes the number the first member of a JSON object. On the subject `chat.log`, `{"user":"ann"}` becomes
//!
//! ```json
//! {"catchment":"k3vfa7q2mzn5x6ohydwu-17-d8382951","user":"ann"}
//! ```
//!
//! The last part is a checksum of the subject and of everything else in the payload. Where another program publishes the payload changed, or on
//! another subject, the checksum is wrong: that is a new event, and its payload is left as it is.
//!
//! Where the number is removed, the payload is again what was recorded, byte for byte.

use std::io::Write;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::{EventNumber, HEADER, NUMBER_HEADER};

/// How a payload with a number begins. The number follows.
const BEGIN: &str = "{\"catchment\":\"";

/// What is behind the checksum. Then follows the payload without its first brace.
const END: &str = "\",";

/// The digits of the checksum.
const CHECKSUM: usize = 8;

/// The name of the member, for payloads that have one of this name already.
static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"catchment\""));

/// The payload with this number in it. `None` if it is not a JSON object with a member, as far as its ends show, or seems to have a member of
/// this name.
#[must_use]
pub fn add(number: &str, subject: &str, payload: &[u8]) -> Option<Vec<u8>> {
    let rest = payload.strip_prefix(b"{")?;
    let has_member = rest.trim_ascii_start().starts_with(b"\"") && rest.trim_ascii_end().ends_with(b"}");
    (has_member && NAME.find(rest).is_none()).then_some(())?;
    let mut all = Vec::with_capacity(BEGIN.len() + number.len() + 1 + CHECKSUM + END.len() + rest.len());
    all.extend_from_slice(BEGIN.as_bytes());
    all.extend_from_slice(number.as_bytes());
    let checksum = checksum(subject, &all, rest);
    write!(all, "-{checksum:0CHECKSUM$x}{END}").ok()?;
    all.extend_from_slice(rest);
    Some(all)
}

/// Whether a message may have its number in the payload: none of its headers has one, or another identity.
pub(crate) fn may_have_number<'h, H>(payload: &[u8], headers: impl FnOnce() -> H) -> bool
where
    H: Iterator<Item = (&'h str, &'h str)>,
{
    payload.starts_with(BEGIN.as_bytes()) && !headers().any(|(name, _)| matches!(name, HEADER | NUMBER_HEADER))
}

/// The number in the payload of a message with these headers, as text, and the payload without it.
pub fn take<'p, 'h, H>(subject: &str, headers: impl FnOnce() -> H, payload: &'p mut [u8]) -> (Option<&'p str>, &'p [u8])
where
    H: Iterator<Item = (&'h str, &'h str)>,
{
    let found = if may_have_number(payload, headers) { find(subject, payload) } else { None };
    let Some((number, comma)) = found else { return (None, payload) };
    // The comma becomes the brace, so nothing is copied.
    let (head, rest) = payload.split_at_mut(comma);
    rest[0] = b'{';
    (std::str::from_utf8(&head[number]).ok(), rest)
}

/// Removes the number from the payload of a message without headers, if it has one.
pub(crate) fn remove(subject: &str, payload: &mut Vec<u8>) {
    if let (Some(_), rest) = take(subject, std::iter::empty, payload) {
        *payload = rest.to_vec();
    }
}

/// Where the number is in the payload, and the comma behind its member.
fn find(subject: &str, payload: &[u8]) -> Option<(Range<usize>, usize)> {
    let start = BEGIN.len();
    let end = start + memchr::memchr(b'"', payload.get(start..)?)?;
    let rest = payload[end..].strip_prefix(END.as_bytes())?;
    let (number, written) = std::str::from_utf8(&payload[start..end]).ok()?.rsplit_once('-')?;
    let number_end = start + number.len();
    let is_right = digits(written)? == checksum(subject, &payload[..number_end], rest);
    (is_right && EventNumber::parse(number).is_some()).then_some((start..number_end, end + 1))
}

/// The checksum with these digits. One checksum has one form only.
fn digits(text: &str) -> Option<u32> {
    let are_digits = text.len() == CHECKSUM && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u32::from_str_radix(text, 16).ok().filter(|_| are_digits)
}

/// Of the subject, of the payload up to the number's end, and of what follows the member's comma.
fn checksum(subject: &str, begin: &[u8], rest: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    for part in [subject.as_bytes(), begin, rest] {
        checksum.update(part);
    }
    checksum.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NUMBER: &str = "k3vfa7q2mzn5x6ohydwu-17";

    fn taken(subject: &str, payload: &[u8]) -> (Option<String>, Vec<u8>) {
        let mut payload = payload.to_vec();
        let (number, rest) = take(subject, std::iter::empty, &mut payload);
        (number.map(str::to_owned), rest.to_vec())
    }

    #[test]
    fn the_form_is_as_documented() {
        let added = add(NUMBER, "chat.log", br#"{"user":"ann"}"#).expect("an object");
        assert_eq!(String::from_utf8_lossy(&added), r#"{"catchment":"k3vfa7q2mzn5x6ohydwu-17-d8382951","user":"ann"}"#);
        let object: serde_json::Value = serde_json::from_slice(&added).expect("JSON");
        assert_eq!(object["user"], "ann");
    }

    #[test]
    fn only_objects_with_a_member_take_a_number() {
        for payload in [
            "",
            "{",
            "}",
            "{}",
            "{ }",
            "[1]",
            "\"a\"",
            "17",
            "{17}",
            "{\"a\":1",
            " {\"a\":1}",
            "{,\"a\":1}",
            r#"{"catchment":1}"#,
        ] {
            assert_eq!(add(NUMBER, "a", payload.as_bytes()), None, "{payload}");
        }
        for payload in [r#"{"a":1}"#, "{\n  \"a\": 1\n}\n", r#"{"not JSON}"#, r#"{"Catchment":1}"#] {
            let added = add(NUMBER, "a", payload.as_bytes()).expect(payload);
            assert_eq!(taken("a", &added), (Some(NUMBER.into()), payload.into()), "{payload}");
        }
    }

    #[test]
    fn a_payload_that_was_changed_or_moved_is_left_as_it_is() {
        let added = add(NUMBER, "a", br#"{"user":"ann","text":"hello"}"#).expect("an object");
        assert_eq!(taken("b", &added), (None, added.clone()));
        for at in 0..added.len() {
            let mut changed = added.clone();
            changed[at] ^= 1;
            assert_eq!(taken("a", &changed), (None, changed.clone()), "{}", String::from_utf8_lossy(&changed));
            assert_eq!(taken("a", &added[..at]), (None, added[..at].into()));
        }
    }

    #[test]
    fn a_message_with_another_identity_keeps_its_payload() {
        let added = add(NUMBER, "a", br#"{"a":1}"#).expect("an object");
        for (headers, is_taken) in [
            (&[("Nats-Msg-Id", "17")][..], false),
            (&[("Trace", "1"), ("Catchment-Event", "r-1")][..], false),
            (&[("Nats-Stream-Source", "A 1 >"), ("nats-msg-id", "17")][..], true),
        ] {
            let mut payload = added.clone();
            let (number, rest) = take("a", || headers.iter().copied(), &mut payload);
            assert_eq!((number.is_some(), rest.len() < added.len()), (is_taken, is_taken), "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_recorded_comes_back_byte_for_byte(
            number in 0..=u64::try_from(i64::MAX).expect("positive"),
            body in prop::collection::vec(any::<u8>(), 0..200),
            ends in prop::sample::select(&[("", ""), ("{", "}"), ("{\"", "}"), ("{ \n\"", "}\t"), (BEGIN, "\",}")][..]),
        ) {
            let payload = [ends.0.as_bytes(), &body, ends.1.as_bytes()].concat();
            let number = format!("{}-{number}", super::super::draw_name());
            if let Some(added) = add(&number, "a.b", &payload) {
                prop_assert_eq!(taken("a.b", &added), (Some(number), payload));
            } else {
                prop_assert_eq!(taken("a.b", &payload), (None, payload));
            }
        }
    }
}
