//! Numbers on the page, for people.

use crate::counted::count;

/// A number of events, without fractions if it is large: `1,234`, `0.4`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers for people")]
pub(super) fn number(number: f64) -> String {
    if number > 0.0 && number < 9.95 {
        let shown = format!("{number:.1}");
        return shown.strip_suffix(".0").map(str::to_owned).unwrap_or(shown);
    }
    count(number.max(0.0).round() as u64)
}

/// A size: `512 B`, `3.1 MiB`.
#[allow(clippy::cast_precision_loss, reason = "sizes for people")]
pub(super) fn bytes(bytes: u64) -> String {
    let (mut size, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1000.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    if unit == "B" || size >= 99.95 { format!("{size:.0} {unit}") } else { format!("{size:.1} {unit}") }
}

/// A duration: `0.4 ms`, `12 ms`, `1.5 s`, `3 min`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.00995 => format!("{:.1} ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 99.5 => format!("{s:.1} s"),
        s => crate::observe::summary::seconds(s),
    }
}

/// A duration if there is one, and a dash otherwise.
pub(super) fn duration_or_dash(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "–".into(), duration)
}

/// A time without the date if it is of this day, and without fractions: `15:35:28`, `2026-11-25 15:35:28`.
pub(super) fn clock(time: &str, now: &str) -> String {
    let (Some((date, rest)), today) = (time.split_once('T'), now.split('T').next().unwrap_or_default()) else {
        return time.to_owned();
    };
    let clock = rest.get(..8).unwrap_or(rest);
    if date == today { clock.to_owned() } else { format!("{date} {clock}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.42, 3.0, 9.96, 1_234.5].map(number), ["0", "0.4", "3", "10", "1,235"]);
        assert_eq!(
            [0, 999, 1_000, 3_250_586, 104_857_600].map(bytes),
            ["0 B", "999 B", "1.0 KiB", "3.1 MiB", "100 MiB"]
        );
        assert_eq!(
            [0.0004, 0.012, 0.9999, 45.25, 200.0].map(duration),
            ["0.4 ms", "12 ms", "1.0 s", "45.2 s", "3 min"]
        );
        assert_eq!(duration_or_dash(None), "–");
        let now = "2026-11-26T15:35:28.123Z";
        assert_eq!(clock(now, now), "15:35:28");
        assert_eq!(clock("2026-11-25T15:35:28.123Z", now), "2026-11-25 15:35:28");
    }
}
