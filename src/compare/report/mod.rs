//! Reports of a comparison: for a terminal, as JSON, as Markdown, as an HTML page; and its verdict.
//!
//! `overview` and `tables` turn figures into tables, `verdict` turns them into sentences. `document` puts both in the order of a
//! report. `terminal`, `markdown` and `html` only render, so all of them have the same content.

mod charts;
mod document;
mod escape;
mod figures;
mod html;
mod markdown;
mod names;
mod overview;
mod prose;
mod regressions;
mod tables;
mod terminal;
#[cfg(test)]
mod tests;
mod variations;
mod verdict;

pub use html::html;
pub use markdown::markdown;
pub use regressions::{Incomparable, check_baseline, notes, regressions};
pub use terminal::terminal;
pub use verdict::verdict;

use super::{Comparison, FORMAT};

/// The whole comparison as JSON, raw samples included; `docs/compare.md` describes it.
///
/// # Panics
///
/// Never: all keys are strings, and a number that JSON does not have becomes `null`.
#[must_use]
pub fn json(comparison: &Comparison) -> String {
    let mut text = serde_json::to_string_pretty(comparison).expect("a comparison is plain data");
    text.push('\n');
    text
}

/// Reads what [`json`] wrote, for instance a baseline.
///
/// # Errors
///
/// [`Incomparable`] if it is not JSON of this format.
pub fn from_json(text: &str) -> Result<Comparison, Incomparable> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    // The format first: with another format, serde's error about a missing field would be no help.
    let format = serde_json::from_str::<Format>(text).map_err(|error| Incomparable::unreadable(&error))?.format;
    if format != FORMAT {
        return Err(Incomparable::format(format));
    }
    serde_json::from_str(text).map_err(|error| Incomparable::unreadable(&error))
}
