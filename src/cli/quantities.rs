//! Numbers, times, sizes, subjects and files as arguments. An error says what is expected, with an example; it follows the flag and its value.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use clap::builder::{PathBufValueParser, TypedValueParser};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::subject::Filter;
use crate::unix_time::microseconds;

/// Reads a whole number in this range. A range that ends with the greatest number has no end in words.
pub fn whole<T>(
    range: RangeInclusive<u64>,
    example: u64,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: TryFrom<u64> + 'static,
{
    move |text| {
        let number =
            text.parse().ok().filter(|number| range.contains(number)).and_then(|number| number.try_into().ok());
        number.ok_or_else(|| {
            let limits = match (*range.start(), *range.end()) {
                (0, u64::MAX) => String::new(),
                (least, u64::MAX) => format!(" of at least {least}"),
                (least, most) => format!(" from {least} to {most}"),
            };
            format!("expected a whole number{limits}, for example {example}")
        })
    }
}

/// Reads the path of a file, where standard input and output, `-`, cannot be used.
pub fn file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        if path == Path::new("-") {
            return Err("standard input and output cannot be used here; name a file, or ./- for one of that name");
        }
        Ok(path)
    })
}

/// Reads a length of time: a number with its unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| expected_duration(text))
}

/// As [`duration`], and keeps the way in which it is written.
pub fn written_duration(text: &str) -> Result<humantime::Duration, String> {
    text.parse().map_err(|_| expected_duration(text))
}

/// What to say of a text that is no length of time. The example is the number that was given, with a unit.
pub fn expected_duration(text: &str) -> String {
    match text.parse::<u64>() {
        Ok(number) => format!("expected a time with its unit, for example {number}s or {number}ms"),
        Err(_) => "expected a time with its unit, for example 5s, 500ms or 2m".into(),
    }
}

/// Reads a number of bytes, which may have a unit.
pub fn size(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|_| "expected a size, for example 64MiB".into())
}

/// Reads a number of bytes a second, which may have a unit.
pub fn rate(text: &str) -> Result<ByteSize, String> {
    size(text).ok().filter(|rate| rate.as_u64() > 0).ok_or_else(|| "expected a size above 0, for example 20MiB".into())
}

/// Reads a subject, which may have wildcards.
pub fn filter(text: &str) -> Result<Filter, String> {
    text.parse().map_err(|_| "expected a subject, for example chat.message or chat.>".into())
}

/// Reads a point in time, in microseconds since 1970: a date, a time, or a length of time before now.
pub fn time_us(text: &str) -> Result<i64, String> {
    let now = SystemTime::now();
    let at = if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(now.checked_sub(ago).map_or(0, microseconds));
    } else {
        let midnight = format!("{text}T00:00:00Z");
        OffsetDateTime::parse(text, &Rfc3339).or_else(|_| OffsetDateTime::parse(&midnight, &Rfc3339))
    };
    let at = at.map_err(|_| "expected a time, for example 2026-01-31, 2026-01-31T17:00:00Z or 2h for two hours ago")?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000)
        .map_err(|_| "expected a time of this age, for example 2026-01-31".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_more_than_nothing() {
        assert_eq!(rate("20MiB"), Ok(ByteSize::mib(20)));
        assert_eq!(rate("0"), Err("expected a size above 0, for example 20MiB".into()));
        assert!(rate("0KiB").is_err());
    }

    #[test]
    fn a_time_is_a_date_a_time_of_day_or_an_age() {
        assert_eq!(time_us("1970-01-02"), Ok(86_400_000_000));
        assert_eq!(time_us("1970-01-01T01:00:00.000001+01:00"), Ok(1));
        let (two_hours_ago, now) = (time_us("2h").expect("a time"), time_us("0s").expect("a time"));
        assert!((7_200_000_000..7_201_000_000).contains(&(now - two_hours_ago)), "{two_hours_ago} {now}");
        for text in ["", "soon", "2026-13-01", "17:00", "-2h"] {
            assert!(time_us(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_has_the_range_and_an_example() {
        let read = whole::<u32>(48..=64, 50);
        assert_eq!((read("48"), read("64")), (Ok(48), Ok(64)));
        for text in ["47", "65", "", "x", "5.0", "-50", "99999999999999999999"] {
            assert_eq!(read(text), Err("expected a whole number from 48 to 64, for example 50".to_owned()), "{text}");
        }
        assert_eq!(whole::<u64>(0..=u64::MAX, 7)("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(whole::<u64>(0..=u64::MAX, 7)("x").unwrap_err(), "expected a whole number, for example 7");
        assert_eq!(
            whole::<u64>(1..=u64::MAX, 7)("0").unwrap_err(),
            "expected a whole number of at least 1, for example 7"
        );
    }

    #[test]
    fn a_time_without_a_unit_gets_one_in_the_example() {
        assert_eq!(duration("1m 5s"), Ok(Duration::from_secs(65)));
        assert_eq!(duration("30").unwrap_err(), "expected a time with its unit, for example 30s or 30ms");
        assert_eq!(duration("soon").unwrap_err(), "expected a time with its unit, for example 5s, 500ms or 2m");
        assert_eq!(written_duration("90s").map(|time| time.to_string()), Ok("1m 30s".to_owned()));
        assert_eq!((size("1KiB"), size("7")), (Ok(ByteSize::kib(1)), Ok(ByteSize::b(7))));
        assert_eq!(size("1XB").unwrap_err(), "expected a size, for example 64MiB");
    }
}
