//! Figures for people: three significant digits, thousands separated, units that fit.

use crate::compare::statistics::{Compared, Finding, Interval};

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A count with its noun: `1 event`, `2,000 events`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Three significant digits, and all digits before the point: `0.0123`, `1.23`, `12.3`, `1,234`.
pub fn amount(number: f64) -> String {
    let size = number.abs();
    if !number.is_finite() {
        return "–".into();
    }
    if size >= 1e15 {
        return format!("{number:.2e}");
    }
    if size >= 99.95 {
        let sign = if number < 0.0 { "-" } else { "" };
        return format!("{sign}{}", count(rounded(size)));
    }
    let decimals = if size >= 9.995 {
        1
    } else if !(1e-9..0.9995).contains(&size) {
        2
    } else {
        // 0.0123 needs four: one for each zero after the point, and three.
        (1..12)
            .find(|decimals| size * 10_f64.powi(*decimals) >= 0.9995)
            .map_or(2, |zeros| zeros.unsigned_abs() as usize + 2)
    };
    let shown = format!("{number:.decimals$}");
    if shown.trim_start_matches('-').trim_matches(['0', '.']).is_empty() { "0".into() } else { shown }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below 1e15, and no sign
fn rounded(size: f64) -> u64 {
    size.round() as u64
}

/// `0.546 s`.
pub fn seconds(number: f64) -> String {
    format!("{} s", amount(number))
}

/// Microseconds in the unit that fits: `12.3 µs`, `4.56 ms`, `1.20 s`.
pub fn micros(number: f64) -> String {
    match number.abs() {
        size if size >= 999_500.0 => format!("{} s", amount(number / 1e6)),
        size if size >= 999.5 => format!("{} ms", amount(number / 1e3)),
        _ => format!("{} µs", amount(number)),
    }
}

/// `512 B`, `12.3 KiB`.
pub fn bytes(number: f64) -> String {
    let (mut size, mut unit) = (number, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if size.abs() < 1023.5 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    format!("{} {unit}", amount(size))
}

/// `12.3 %`.
pub fn percent(number: f64) -> String {
    format!("{} %", amount(number))
}

/// `1,234 events/s`.
pub fn rate(number: f64) -> String {
    format!("{} events/s", amount(number))
}

/// For a tick of an axis, without trailing zeros: `0.2`, `50`, `20k`, `1M`.
pub fn short(number: f64) -> String {
    let (size, unit) = match number.abs() {
        size if size >= 999_999.5 => (number / 1e6, "M"),
        size if size >= 999.5 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let shown = amount(size);
    let shown = if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.') } else { &shown };
    format!("{shown}{unit}")
}

/// [`micros`] for a tick: `20 µs`, `1 ms`.
pub fn micros_short(number: f64) -> String {
    match number.abs() {
        size if size >= 999_500.0 => format!("{} s", short(number / 1e6)),
        size if size >= 999.5 => format!("{} ms", short(number / 1e3)),
        _ => format!("{} µs", short(number)),
    }
}

/// A ratio as a difference: `+12.3 %`; as a factor, `12.4 ×`, where a percentage would be hard to read.
pub fn change(ratio: f64) -> String {
    if as_percent(ratio) { format!("{} %", signed(ratio)) } else { format!("{} ×", amount(ratio)) }
}

/// [`change`] with the interval: `+12.3 % (+10.1 to +14.0)`.
pub fn change_within(ratio: Interval) -> String {
    format!("{} ({})", change(ratio.median), bounds(ratio, as_percent(ratio.median)))
}

/// [`change_within`] for a column of differences, or the words that none is shown.
pub fn difference(compared: &Compared) -> String {
    match compared.finding {
        Finding::Higher | Finding::Lower => change_within(compared.ratio),
        Finding::NoDifferenceShown => format!("none shown ({})", bounds_with_unit(compared.ratio)),
    }
}

/// [`difference`] for a sentence.
pub fn finding(compared: &Compared) -> String {
    match compared.finding {
        Finding::Higher | Finding::Lower => change_within(compared.ratio),
        Finding::NoDifferenceShown => format!("no difference shown ({})", bounds_with_unit(compared.ratio)),
    }
}

fn bounds_with_unit(ratio: Interval) -> String {
    let percent = as_percent(ratio.median);
    format!("{} {}", bounds(ratio, percent), if percent { "%" } else { "×" })
}

fn as_percent(ratio: f64) -> bool {
    (0.05..2.0).contains(&ratio)
}

fn bounds(ratio: Interval, percent: bool) -> String {
    let shown = if percent { signed } else { amount };
    format!("{} to {}", shown(ratio.low), shown(ratio.high))
}

fn signed(ratio: f64) -> String {
    let percent = (ratio - 1.0) * 100.0;
    let shown = if percent.abs() < 99.95 { format!("{percent:+.1}") } else { format!("{percent:+.0}") };
    if matches!(shown.as_str(), "+0.0" | "-0.0") { "0.0".into() } else { shown }
}

/// One line without control characters, which could move a cursor or end a row of a table.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_enough() {
        let shown = [0.0, 0.000_123_4, 0.012_34, 0.999_9, 1.234, 9.999, 12.34, 99.96, 1_234.5, 1e7].map(amount);
        assert_eq!(shown, ["0", "0.000123", "0.0123", "1.00", "1.23", "10.0", "12.3", "100", "1,235", "10,000,000"]);
        assert_eq!([-0.5, -12.34, -1_234.0].map(amount), ["-0.500", "-12.3", "-1,234"]);
        assert_eq!(amount(f64::NAN), "–");
    }

    #[test]
    fn units_fit() {
        assert_eq!([0.5, 999.0, 999.6, 2_500_000.0].map(micros), ["0.500 µs", "999 µs", "1.00 ms", "2.50 s"]);
        assert_eq!([512.0, 1_536.0, 3_221_225_472.0].map(bytes), ["512 B", "1.50 KiB", "3.00 GiB"]);
    }

    #[test]
    fn a_difference_has_its_sign_and_its_interval() {
        let ratio = Interval { median: 0.96, low: 0.9, high: 1.000_1 };
        assert_eq!(change_within(ratio), "-4.0 % (-10.0 to 0.0)");
        let ratio = Interval { median: 12.4, low: 11.9, high: 13.0 };
        assert_eq!(change_within(ratio), "12.4 × (11.9 to 13.0)");
    }
}
