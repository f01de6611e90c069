//! How values are shown: on a terminal, in CSV.

use std::borrow::Cow;
use std::fmt::Write;

use crate::store::Value;
pub(super) use crate::{counted, printable};
use data_encoding::HEXLOWER;
use time::OffsetDateTime;

/// Bytes of a blob that are shown on a terminal.
const SHOWN_BYTES: usize = 16;

/// A value in one line for a terminal: a blob is shortened, NULL is empty.
pub fn for_display(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Text(text) => printable(text),
        Value::Blob(bytes) if bytes.len() > SHOWN_BYTES => {
            let mut shown = literal(&bytes[..SHOWN_BYTES]);
            shown.insert(shown.len() - 1, '…');
            let _ = write!(shown, " ({} bytes)", bytes.len());
            shown.into()
        }
        whole => for_csv(whole),
    }
}

/// A value as a field of CSV: text unchanged, a blob as an SQL literal, NULL empty.
pub fn for_csv(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => "".into(),
        Value::Integer(value) => value.to_string().into(),
        Value::Real(value) => format!("{value:?}").into(),
        Value::Text(text) => text.into(),
        Value::Blob(bytes) => literal(bytes).into(),
    }
}

fn literal(bytes: &[u8]) -> String {
    format!("x'{}'", HEXLOWER.encode(bytes))
}

/// RFC 3339 in UTC, or the number itself if its year does not have four digits.
pub fn shown_time(us: i64) -> String {
    match OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1_000) {
        Ok(at) if at.year() >= 0 => {
            let (date, hour, minute, second, micro) =
                (at.date(), at.hour(), at.minute(), at.second(), at.microsecond());
            format!("{date}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z")
        }
        _ => us.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_short_for_display_and_whole_elsewhere() {
        let blob = Value::Blob(vec![0xab; 20]);
        assert_eq!(for_display(&blob), "x'abababababababababababababababab…' (20 bytes)");
        assert_eq!(for_display(&Value::Blob(vec![1, 255])), "x'01ff'");
        assert_eq!(for_csv(&blob), format!("x'{}'", "ab".repeat(20)));
    }

    #[test]
    fn numbers_keep_their_type() {
        assert_eq!(for_display(&Value::Real(1.0)), "1.0");
        assert_eq!(for_csv(&Value::Integer(i64::MIN)), i64::MIN.to_string());
    }

    #[test]
    fn a_time_that_rfc_3339_cannot_express_is_a_number() {
        assert_eq!(shown_time(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(shown_time(i64::MAX), i64::MAX.to_string());
    }
}
