//! How figures are shown: a row a figure, its median and in brackets its range.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;

/// For the standard error of a child process, whose progress must not be drawn between the figures. Appends to this file.
#[allow(dead_code, reason = "not every bench has children")]
pub fn log(file: &Path) -> Stdio {
    OpenOptions::new().create(true).append(true).open(file).expect("a log").into()
}

/// A row of a table in Markdown.
pub fn row(name: &str, mut values: Vec<f64>, decimals: usize) {
    values.sort_by(f64::total_cmp);
    let shown = |value: f64| thousands(&format!("{value:.decimals$}"));
    let (low, middle, high) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    println!("| {name} | {} ({} to {}) |", shown(middle), shown(low), shown(high));
}

fn thousands(number: &str) -> String {
    let (whole, rest) = number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = sign.to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if let Some(rest) = rest {
        let _ = write!(grouped, ".{rest}");
    }
    grouped
}
