//! Times as text.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use crate::unix_time::microseconds;

/// A time in RFC 3339 and UTC, with milliseconds: `2026-11-26T15:35:28.123Z`.
pub(super) fn shown(at: SystemTime) -> String {
    shown_us(microseconds(at))
}

/// The same for microseconds since 1970; the number itself if its year does not have four digits.
pub(super) fn shown_us(us: i64) -> String {
    match OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1_000) {
        Ok(at) if (0..=9_999).contains(&at.year()) => {
            let (date, hour, minute, second, milli) =
                (at.date(), at.hour(), at.minute(), at.second(), at.millisecond());
            format!("{date}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
        }
        _ => us.to_string(),
    }
}

/// Seconds since 1970.
pub(super) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_have_milliseconds_and_are_in_utc() {
        assert_eq!(shown(UNIX_EPOCH + Duration::from_micros(1_795_707_328_004_900)), "2026-11-26T15:35:28.004Z");
        assert_eq!(shown_us(i64::MAX), i64::MAX.to_string());
    }
}
