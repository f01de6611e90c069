//! Which values of a column of times are too old.

use std::time::Duration;

use rusqlite::Connection;

use crate::store::cell::Cell;

/// Values of a column from the first one up to, and without, the second one are too old.
pub(super) type Range = [Cell; 2];

/// The units of times since 1970: how many a second, and the least number that is read as such a time: of 1973. Smaller numbers are no times,
/// but for example the numbers of rows.
const UNITS: [(i64, i64); 4] = [
    (1_000_000_000, 100_000_000_000_000_000),
    (1_000_000, 100_000_000_000_000),
    (1_000, 100_000_000_000),
    (1, 100_000_000),
];

/// The range of microseconds since 1970 that are older than `keep`.
pub(super) fn microseconds(keep: Duration, now_us: i64) -> Range {
    [Cell::Integer(i64::MIN), Cell::Integer(now_us.saturating_sub(micros(keep)))]
}

/// The ranges for a column that has values like these: one for each unit. The size of a number shows its unit, so one value in another unit
/// does not change what the others mean.
///
/// # Errors
///
/// Why the first value is no time, if none is one.
pub(super) fn like(
    samples: &[Cell],
    keep: Duration,
    now_us: i64,
    connection: &Connection,
) -> Result<Vec<Range>, String> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut refused = None;
    for sample in samples {
        // One range for all texts: their forms differ only within a day.
        let is_text = |cell: &Cell| matches!(cell, Cell::Text(_));
        if is_text(sample) && ranges.iter().any(|known| is_text(&known[0])) {
            continue;
        }
        match range_of(sample, keep, now_us, connection) {
            Ok(range) if ranges.contains(&range) => {}
            Ok(range) => ranges.push(range),
            Err(reason) => refused = refused.or(Some(reason)),
        }
    }
    refused.filter(|_| ranges.is_empty()).map_or(Ok(ranges), Err)
}

fn range_of(sample: &Cell, keep: Duration, now_us: i64, connection: &Connection) -> Result<Range, String> {
    let cutoff_us = now_us.saturating_sub(micros(keep));
    let number = match sample {
        Cell::Integer(number) => *number,
        #[allow(clippy::cast_possible_truncation)] // A time that is too large for an integer is none.
        Cell::Real(number) => *number as i64,
        Cell::Text(text) => return text_range(text, cutoff_us, connection),
        Cell::Null | Cell::Blob(_) => return Err("has bytes, which are no time".into()),
    };
    let Some((scale, least)) = UNITS.into_iter().find(|(_, least)| number >= *least) else {
        return Err(format!("has the number {number}, which is no time since 1970"));
    };
    // Both are of the same sign and far from the limits.
    let cutoff = i128::from(cutoff_us) * i128::from(scale) / 1_000_000;
    // Larger numbers are in another unit.
    let end = i64::try_from(cutoff).unwrap_or(i64::MAX).min(least.saturating_mul(1_000));
    Ok([Cell::Integer(least), Cell::Integer(end)])
}

/// Texts as SQLite's functions write them, or as in RFC 3339 with `Z`, are in the order of their times.
fn text_range(sample: &[u8], cutoff_us: i64, connection: &Connection) -> Result<Range, String> {
    let shown = String::from_utf8_lossy(sample).chars().take(40).collect::<String>();
    let refused = |why: &str| Err(format!("has the text {shown:?}, {why}"));
    let [_, _, _, _, b'-', _, _, b'-', _, _, rest @ ..] = sample else {
        return refused("which is no time such as 2026-11-26 12:43:51");
    };
    let format = match rest {
        [] => "%Y-%m-%d",
        [b'T', ..] => "%Y-%m-%dT%H:%M:%S",
        [b' ', ..] => "%Y-%m-%d %H:%M:%S",
        _ => return refused("which is no time such as 2026-11-26 12:43:51"),
    };
    if rest.len() > 6 && rest[6..].iter().any(|byte| matches!(byte, b'+' | b'-')) {
        return refused("which is not in UTC: write 2026-11-26T12:43:51Z");
    }
    let sql = "SELECT strftime(?1, ?2 / 1000000, 'unixepoch')";
    let cutoff: Option<String> = connection
        .query_row(sql, rusqlite::params![format, cutoff_us], |row| row.get(0))
        .map_err(|error| error.to_string())?;
    let cutoff = cutoff.ok_or("has a time that cannot be computed")?;
    Ok([Cell::Text(b"0".to_vec()), Cell::Text(cutoff.into_bytes())])
}

fn micros(keep: Duration) -> i64 {
    i64::try_from(keep.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_time_is_known_by_its_size_or_form() {
        let connection = Connection::open_in_memory().expect("memory");
        let now_us = 1_764_000_000_000_000;
        let all = |samples: &[Cell]| like(samples, Duration::from_secs(1_000_000), now_us, &connection);
        let like = |sample: Cell| all(&[sample]).map(|mut ranges| ranges.remove(0));
        for (sample, cutoff) in [
            (Cell::Integer(1_764_000_000), 1_763_000_000),
            (Cell::Real(1_764_000_000.5), 1_763_000_000),
            (Cell::Integer(1_764_000_000_000), 1_763_000_000_000),
            (Cell::Integer(1_764_000_000_000_000), 1_763_000_000_000_000),
            (Cell::Integer(1_764_000_000_000_000_000), 1_763_000_000_000_000_000),
        ] {
            assert_eq!(like(sample.clone()).map(|[_, cutoff]| cutoff), Ok(Cell::Integer(cutoff)), "{sample:?}");
        }
        for (sample, cutoff) in [
            ("2025-11-24 16:00:00", "2025-11-13 02:13:20"),
            ("2025-11-24T16:00:00.123Z", "2025-11-13T02:13:20"),
            ("2025-11-24", "2025-11-13"),
        ] {
            assert_eq!(like(Cell::Text(sample.into())).map(|[_, to]| to), Ok(Cell::Text(cutoff.into())), "{sample}");
        }
        for (sample, said) in [
            (Cell::Text(b"yesterday".to_vec()), "is no time"),
            (Cell::Text(b"2025-11-24T16:00:00+02:00".to_vec()), "not in UTC"),
            (Cell::Blob(vec![1]), "bytes"),
            (Cell::Integer(-7), "no time since 1970"),
            (Cell::Integer(1_500), "no time since 1970"),
        ] {
            assert!(like(sample).expect_err("is no time").contains(said));
        }
        let of_a_table = [
            Cell::Text(b"soon".to_vec()),
            Cell::Text(b"2025-11-24".to_vec()),
            Cell::Text(b"2025-11-24T16:00:00Z".to_vec()),
            Cell::Integer(1_764_000_000_000),
            Cell::Integer(1_764_000_000),
            Cell::Integer(1_764_000_001),
        ];
        let [text, milliseconds, seconds] = &all(&of_a_table).expect("times")[..] else { panic!("three units") };
        assert_eq!(text[1], Cell::Text(b"2025-11-13".to_vec()));
        assert_eq!(milliseconds, &[Cell::Integer(100_000_000_000), Cell::Integer(1_763_000_000_000)]);
        assert_eq!(seconds, &[Cell::Integer(100_000_000), Cell::Integer(1_763_000_000)]);
    }
}
