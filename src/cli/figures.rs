//! Figures of a collector for people: counts, rates, sizes, times.

use bytesize::ByteSize;

use crate::counted::count;
use crate::observe;

/// Bytes: `4.1 MiB`.
pub fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// A number a second, without the unit: `1,234`, `0.3`, `0`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are shown with few digits")]
pub fn rate(number: f64) -> String {
    match number {
        number if number <= 0.0 || !number.is_finite() => "0".into(),
        number if number < 0.05 => "below 0.1".into(),
        number if number < 9.95 => format!("{number:.1}"),
        number => count(number.round() as u64),
    }
}

/// A short time: `0.41 ms`, `12 ms`, `1.2 s`; a dash if there is none.
pub fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".into(),
        Some(seconds) if seconds < 0.000_995 => format!("{:.2} ms", seconds * 1e3),
        Some(seconds) if seconds < 0.009_95 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds < 0.999_5 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) if seconds < 9.95 => format!("{seconds:.1} s"),
        Some(seconds) => observe::seconds(seconds),
    }
}

/// A number of events, on average: `1`, `97.3`, `4,981`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shown with few digits")]
pub fn mean(number: Option<f64>) -> String {
    match number {
        None => "–".into(),
        Some(number) if number.fract() < 0.05 || number >= 100.0 => count(number.round() as u64),
        Some(number) => format!("{number:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_few_digits() {
        assert_eq!([0.0, 0.01, 0.3, 9.96, 1_234.4, f64::NAN].map(rate), ["0", "below 0.1", "0.3", "10", "1,234", "0"]);
        let times = [0.000_41, 0.000_999, 0.002_1, 0.012, 0.812, 0.999_9, 1.24, 61.0, 300.0, 1e6];
        let shown = ["0.41 ms", "1.0 ms", "2.1 ms", "12 ms", "812 ms", "1.0 s", "1.2 s", "61 s", "5 min", "11 days"];
        assert_eq!(times.map(|seconds| time(Some(seconds))), shown);
        assert_eq!([Some(1.0), Some(97.34), Some(4_981.2), None].map(mean), ["1", "97.3", "4,981", "–"]);
        assert_eq!((size(0), size(4_300_000)), ("0 B".into(), "4.1 MiB".into()));
    }
}
