//! Times in the names of files.

use time::{Date, OffsetDateTime};

/// A time in UTC, as names of files have it: `20261126T185959Z`. Such names sort by time.
pub(crate) fn time_stamp(at: OffsetDateTime) -> String {
    let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
    format!("{:04}{:02}{:02}T{hour:02}{minute:02}{second:02}Z", date.year(), u8::from(date.month()), date.day())
}

/// The time that a name has; `None` if it is none.
pub(crate) fn read_time_stamp(text: &str) -> Option<OffsetDateTime> {
    let is_digit = |at: &usize| text.as_bytes()[*at].is_ascii_digit();
    let is_plain = text.len() == 16 && text.is_ascii() && (0..8).chain(9..15).all(|at| is_digit(&at));
    if !is_plain || &text[8..9] != "T" || &text[15..] != "Z" {
        return None;
    }
    let two = |at: usize| text[at..at + 2].parse::<u8>().ok();
    let date = Date::from_calendar_date(text[..4].parse().ok()?, two(4)?.try_into().ok()?, two(6)?).ok()?;
    Some(date.with_hms(two(9)?, two(11)?, two(13)?).ok()?.assume_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stamp_is_read_as_the_same_second() {
        let at = OffsetDateTime::from_unix_timestamp(1_795_719_599).expect("a time");
        assert_eq!(time_stamp(at), "20261126T185959Z");
        assert_eq!(read_time_stamp("20261126T185959Z"), Some(at));
        for other in ["", "20261126T185959", "20261326T185959Z", "20261126T185959Z ", "2026-11-26T18:59Z"] {
            assert_eq!(read_time_stamp(other), None, "{other:?}");
        }
    }
}
