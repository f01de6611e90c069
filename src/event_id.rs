//! The identity of an event at a stream, which is its header `Nats-Msg-Id`: the name of the header, and the identities that recorders
//! generate.
//!
//! A generated identity serves the stream only, which recognises by it that an event was sent twice. So table `events` does not store
//! it in the column `headers`. It is recognised by its form.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The header.
pub(crate) const HEADER: &str = "Nats-Msg-Id";

/// How generated identities begin. Then follow four groups of digits.
const START: &str = "catchment-";

/// No generated identity is longer.
pub(crate) const LONGEST: usize = 80;

/// The digits of the first group: nanoseconds since 1970, in hexadecimal.
const TIME_DIGITS: usize = 16;

/// What the identities of one recorder begin with. No other recorder has the same.
pub(crate) fn unique_prefix() -> String {
    static RECORDERS: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = RECORDERS.fetch_add(1, Ordering::Relaxed);
    format!("{START}{:0TIME_DIGITS$x}-{:x}-{number}", now.as_nanos(), std::process::id())
}

/// The identity of the event with this number.
pub(crate) fn generated(prefix: &str, number: u64) -> String {
    format!("{prefix}-{number}")
}

/// Whether a recorder has generated this identity.
pub(crate) fn is_generated(id: &str) -> bool {
    let Some(groups) = id.strip_prefix(START) else { return false };
    let mut groups = groups.split('-');
    let five = std::array::from_fn(|_| groups.next());
    let [Some(time), Some(process), Some(recorder), Some(number), None] = five else { return false };
    let is_hexadecimal = |text: &str| text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let is_decimal = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let is_process = !process.is_empty() && is_hexadecimal(process);
    time.len() == TIME_DIGITS && is_hexadecimal(time) && is_process && is_decimal(recorder) && is_decimal(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_identity_is_recognised() {
        let (one, other) = (unique_prefix(), unique_prefix());
        assert_ne!(one, other);
        for number in [0, 7, u64::MAX] {
            assert!(is_generated(&generated(&one, number)), "{one} {number}");
        }
        let longest = format!("{START}{:x}-{:x}-{}-{}", u64::MAX, u32::MAX, u64::MAX, u64::MAX);
        assert!(is_generated(&longest) && longest.len() <= LONGEST, "{longest}");
        assert!(is_generated("catchment-187bd2f0a1b2c3d4-1a2b-0-17"));
    }

    #[test]
    fn an_identity_of_an_application_is_none() {
        for id in [
            "",
            "17",
            "catchment-",
            "catchment-1",
            "catchment-order-17",
            "187bd2f0a1b2c3d4-1a2b-0-17",
            "catchment-187bd2f0a1b2c3d4-1a2b-0",
            "catchment-187bd2f0a1b2c3d4-1a2b-0-17-1",
            "catchment-187bd2f0a1b2c3d4-1a2b-0-",
            "catchment-187bd2f0a1b2c3d4-1a2b-0-1x",
            "catchment-187bd2f0a1b2c3d-1a2b-0-17",
            "catchment-187BD2F0A1B2C3D4-1a2b-0-17",
            "Catchment-187bd2f0a1b2c3d4-1a2b-0-17",
        ] {
            assert!(!is_generated(id), "{id}");
        }
    }
}
