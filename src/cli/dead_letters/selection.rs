//! The arguments that select dead letters.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::Selection;
use crate::subject::Filter;
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::failure::UsageError;
use crate::cli::quantities::whole;

/// The names of the conditions in clap.
const CONDITIONS: [&str; 6] = ["ids", "since", "until", "subject", "error", "route"];

#[derive(Args)]
pub struct SelectionArgs {
    /// Numbers of dead letters, as list shows them
    #[arg(value_name = "ID", value_parser = whole::<i64>(0..=u64::MAX, 17))]
    ids: Vec<i64>,

    /// Last tried at this time or later: 2026-01-31, 2026-01-31T17:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,

    /// Last tried before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,

    /// Subject; * and > are wildcards as in NATS
    #[arg(long, value_name = "FILTER", value_parser = parse_filter)]
    subject: Option<Filter>,

    /// Text in the error, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,

    /// Route of the letter
    #[arg(long, value_name = "NAME")]
    route: Option<String>,

    /// At most this many
    #[arg(long, value_name = "COUNT", value_parser = whole::<u64>(0..=u64::MAX, 10))]
    limit: Option<u64>,
}

impl SelectionArgs {
    /// The letters that meet every condition.
    pub fn selection(self) -> Selection {
        Selection {
            ids: (!self.ids.is_empty()).then_some(self.ids),
            since_us: self.since,
            until_us: self.until,
            subject: self.subject,
            error: self.error,
            route: self.route,
            limit: self.limit,
            newest_first: false,
        }
    }
}

/// A selection that must be explicit, so that all letters are not selected by mistake.
#[derive(Args)]
pub struct ExplicitSelectionArgs {
    #[command(flatten)]
    selection: SelectionArgs,

    /// All dead letters
    #[arg(long, conflicts_with_all = CONDITIONS)]
    all: bool,
}

impl ExplicitSelectionArgs {
    /// The letters that meet every condition. There must be at least one condition, or `--all`.
    pub fn selection(self) -> Result<Selection, UsageError> {
        let selection = self.selection.selection();
        if !self.all && selection == (Selection { limit: selection.limit, ..Selection::default() }) {
            return Err(UsageError(
                "select dead letters: give their numbers, a condition such as --subject 'chat.>', or --all".into(),
            ));
        }
        Ok(selection)
    }
}

fn parse_filter(text: &str) -> Result<Filter, String> {
    text.parse().map_err(|_| "expected a subject, for example chat.message or chat.>".into())
}

/// A time in microseconds since 1970.
fn parse_time(text: &str) -> Result<i64, String> {
    let now = SystemTime::now();
    let at = if let Ok(ago) = humantime::parse_duration(text) {
        let before = now.checked_sub(ago).and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        return Ok(i64::try_from(before.as_micros()).unwrap_or(i64::MAX));
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
    fn a_time_is_a_date_a_time_of_day_or_an_age() {
        assert_eq!(parse_time("1970-01-02"), Ok(86_400_000_000));
        assert_eq!(parse_time("1970-01-01T01:00:00.000001+01:00"), Ok(1));
        let (two_hours_ago, now) = (parse_time("2h").expect("a time"), parse_time("0s").expect("a time"));
        assert!((7_200_000_000..7_201_000_000).contains(&(now - two_hours_ago)), "{two_hours_ago} {now}");
        for text in ["", "soon", "2026-13-01", "17:00", "-2h"] {
            assert!(parse_time(text).is_err(), "{text:?}");
        }
    }
}
