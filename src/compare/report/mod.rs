//! What a comparison found, told: on a terminal, as JSON, as Markdown, as a page, as a verdict.
//!
//! `overview` and `sheets` turn figures into tables, `verdict` into sentences; `document` puts them in the order in which a
//! report reads, and the renderings only render. So no two of them can say different things.

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
mod verdict;

pub use html::html;
pub use markdown::markdown;
pub use regressions::{Incomparable, notes, regressions};
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
/// A line for the user, if it is not JSON of this format.
pub fn from_json(text: &str) -> Result<Comparison, Incomparable> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    // The format first: of another one, what serde finds missing would say nothing.
    let format = serde_json::from_str::<Format>(text).map_err(|error| Incomparable::unreadable(&error))?.format;
    if format != FORMAT {
        return Err(Incomparable::format(format));
    }
    serde_json::from_str(text).map_err(|error| Incomparable::unreadable(&error))
}
