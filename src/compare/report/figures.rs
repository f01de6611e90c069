//! Figures for people: three significant digits, thousands separated, units that fit.

pub use crate::counted::{count, counted};

use crate::compare::statistics::{Compared, Finding, Interval, MINIMUM_SAMPLES, median};

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

/// What a row or a column of figures is. It decides the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    Number,
    Rate,
    Percent,
    Seconds,
    Micros,
    Bytes,
}

/// A unit for a whole row or column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    name: &'static str,
    size: f64,
}

impl Quantity {
    /// The largest unit in which the middle one of the figures is at least 1. Zeros do not count.
    pub fn unit(self, figures: &[f64]) -> Unit {
        const KIB: f64 = 1024.0;
        let units: &[(&'static str, f64)] = match self {
            Self::Number => &[("", 1.0)],
            Self::Rate => &[("events/s", 1.0)],
            Self::Percent => &[("%", 1.0)],
            Self::Seconds => &[("s", 1.0)],
            Self::Micros => &[("µs", 1.0), ("ms", 1e3), ("s", 1e6)],
            Self::Bytes => &[("B", 1.0), ("KiB", KIB), ("MiB", KIB * KIB), ("GiB", KIB * KIB * KIB)],
        };
        let sizes: Vec<f64> = figures.iter().map(|figure| figure.abs()).filter(|size| *size > 0.0).collect();
        let middle = median(&sizes);
        let fits = units.iter().rev().find(|(_, size)| middle >= *size);
        let (name, size) = *fits.unwrap_or(&units[0]);
        Unit { name, size }
    }
}

impl Unit {
    /// A figure without its unit.
    pub fn shown(self, figure: f64) -> String {
        amount(figure / self.size)
    }

    /// The name of a row or a column with its unit.
    pub fn label(self, name: &str) -> String {
        if self.name.is_empty() { name.into() } else { format!("{name}, {}", self.name) }
    }
}

/// How ratios are shown: as a difference, `+12.3 %`, or as a factor, `12.4 ×`, where percentages would be hard to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Percent,
    Factor,
}

impl Form {
    /// The form for all of these ratios.
    pub fn of(ratios: impl IntoIterator<Item = f64>) -> Self {
        if ratios.into_iter().all(|ratio| (0.05..2.0).contains(&ratio)) { Self::Percent } else { Self::Factor }
    }

    /// The form for all of these comparisons, with their intervals.
    pub fn of_all<'a>(compared: impl IntoIterator<Item = &'a Compared>) -> Self {
        let bounds = |compared: &Compared| [compared.ratio.low, compared.ratio.median, compared.ratio.high];
        Self::of(compared.into_iter().flat_map(bounds))
    }

    /// A ratio without an interval.
    pub fn change(self, ratio: f64) -> String {
        format!("{} {}", self.number(ratio), self.unit())
    }

    /// A comparison for a column of differences. Its interval is the one that decides the finding.
    pub fn difference(self, compared: &Compared) -> String {
        let (change, bounds) = (self.change(compared.ratio.median), self.bounds(compared.ratio));
        match compared.finding {
            Finding::Higher | Finding::Lower => format!("{change} ({bounds})"),
            Finding::NoDifferenceShown => format!("none shown ({bounds} {})", self.unit()),
            Finding::TooFewPairs => format!("{change} (range {bounds})"),
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Percent => "%",
            Self::Factor => "×",
        }
    }

    fn bounds(self, ratio: Interval) -> String {
        format!("{} to {}", self.number(ratio.low), self.number(ratio.high))
    }

    fn number(self, ratio: f64) -> String {
        match self {
            Self::Percent => signed(ratio),
            Self::Factor => amount(ratio),
        }
    }
}

/// A comparison in a sentence. Its interval is the one that decides the finding.
pub fn finding(compared: &Compared) -> String {
    let form = Form::of_all([compared]);
    let (change, bounds) = (form.change(compared.ratio.median), form.bounds(compared.ratio));
    match compared.finding {
        Finding::Higher | Finding::Lower => format!("{change} ({bounds})"),
        Finding::NoDifferenceShown => format!("no difference shown ({bounds} {})", form.unit()),
        Finding::TooFewPairs => {
            format!("{change} (range of {}: {bounds})", counted(compared.ratio.samples as u64, "pair"))
        }
    }
}

/// The heading of a column of intervals of so many samples.
pub fn interval_heading(samples: impl IntoIterator<Item = usize>) -> &'static str {
    let mut samples = samples.into_iter().peekable();
    let few = |samples: usize| samples < MINIMUM_SAMPLES;
    if samples.peek().is_some() && samples.all(few) { "Range" } else { "95 % interval" }
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

    fn compared(median: f64, low: f64, high: f64, finding: Finding) -> Compared {
        let samples = if finding == Finding::TooFewPairs { 3 } else { 10 };
        Compared { ratio: Interval { median, low, high, samples }, finding }
    }

    #[test]
    fn a_row_has_one_unit() {
        let unit = Quantity::Micros.unit(&[439.0, 566.0, 1_050.0, 0.0]);
        assert_eq!((unit.label("Commit latency"), unit.shown(1_050.0)), ("Commit latency, µs".into(), "1,050".into()));
        let unit = Quantity::Micros.unit(&[12_300.0, 8_640.0, 20_800.0]);
        assert_eq!((unit.label("max"), unit.shown(20_800.0)), ("max, ms".into(), "20.8".into()));
        assert_eq!(Quantity::Bytes.unit(&[1e9, 3e6, 2e6]).label("Memory"), "Memory, MiB");
        assert_eq!(Quantity::Number.unit(&[1e9]).label("Events"), "Events");
        assert_eq!(Quantity::Micros.unit(&[]).label("none"), "none, µs");
    }

    #[test]
    fn a_difference_has_its_sign_and_its_interval() {
        let lower = compared(0.96, 0.9, 0.999, Finding::Lower);
        assert_eq!(finding(&lower), "-4.0 % (-10.0 to -0.1)");
        let higher = compared(12.4, 11.9, 13.0, Finding::Higher);
        assert_eq!(finding(&higher), "12.4 × (11.9 to 13.0)");
        // In a row with a large factor, all are factors.
        let form = Form::of_all([&lower, &higher]);
        assert_eq!(form.difference(&lower), "0.960 × (0.900 to 0.999)");
        let none = compared(0.96, 0.9, 1.1, Finding::NoDifferenceShown);
        assert_eq!(Form::Percent.difference(&none), "none shown (-10.0 to +10.0 %)");
        // So are those with a wide interval.
        assert_eq!(
            finding(&compared(1.5, 0.2, 30.0, Finding::NoDifferenceShown)),
            "no difference shown (0.200 to 30.0 ×)"
        );
    }

    #[test]
    fn a_range_of_few_pairs_is_no_interval() {
        let few = compared(12.4, 11.9, 13.0, Finding::TooFewPairs);
        assert_eq!(finding(&few), "12.4 × (range of 3 pairs: 11.9 to 13.0)");
        assert_eq!(Form::Factor.difference(&few), "12.4 × (range 11.9 to 13.0)");
        assert_eq!([interval_heading([3, 3]), interval_heading([3, 10])], ["Range", "95 % interval"]);
    }
}
