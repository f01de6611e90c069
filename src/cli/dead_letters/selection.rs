//! The arguments that select dead letters.

use crate::store::Selection;
use crate::subject::Filter;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::cli::failure::UsageError;
use crate::cli::quantities::{filter, time_us, whole};

/// The names of the conditions in clap.
const CONDITIONS: [&str; 6] = ["ids", "since", "until", "subject", "error", "route"];

#[derive(Args)]
pub struct SelectionArgs {
    /// Numbers of dead letters, as list shows them
    #[arg(value_name = "ID", value_parser = whole::<i64>(0..=u64::MAX, 17))]
    ids: Vec<i64>,

    /// Last tried at this time or later: 2026-01-31, 2026-01-31T17:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    since: Option<i64>,

    /// Last tried before this time
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    until: Option<i64>,

    /// Subject; * and > are wildcards as in NATS
    #[arg(long, value_name = "FILTER", value_parser = filter)]
    subject: Option<Filter>,

    /// Text in the error, in upper or lower case
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    error: Option<String>,

    /// Route of the letter
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
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
