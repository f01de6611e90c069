//! `catchment dead-letters retry`

use std::io::Write;
use std::ops::ControlFlow;

use clap::Args;
use indicatif::HumanCount;

use super::database::{Missing, open};
use super::selection::ExplicitSelectionArgs;
use crate::cli::failure::{self, Interrupted};
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::settings::{DatabaseArgs, Settings};
use crate::cli::signals::Signals;
use crate::cli::values::counted;
use crate::dead_letters::{self, RetryReport, UnreadableHeaders};
use crate::error::{DatabaseFault, Error};

/// How many of the letters that stay are named in the error.
const MAX_NAMED: usize = 3;

/// Run dead letters through the routes of the settings again
///
/// A letter that is stored is deleted in the transaction that adds its rows. A letter that is refused again stays, with its new
/// error. The database is opened as run opens it, so new migrations are applied.
#[derive(Args)]
#[command(after_help = "\
SIGINT and SIGTERM end the retry after the current transaction; a second signal ends it at once. If they come while new migrations are
applied, these are rolled back, and no letter is tried.

Exit status: 0 all are stored, 1 some stay or are missing, 130 or 143 a signal ended it before all were tried.")]
pub struct Retry {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    selection: ExplicitSelectionArgs,

    /// Print how many there are, and retry none
    #[arg(long)]
    dry_run: bool,

    /// Store letters with unreadable headers without their headers [default: they stay]
    #[arg(long)]
    without_headers: bool,

    /// Print JSON: {"stored", "refused", "passed_over", "not_tried", "interrupted", "reasons": [{"id", "error"}], "missing": [id]} with
    /// the first ten reasons, or {"would_retry", "missing": [id]}
    #[arg(short, long)]
    json: bool,
}

impl Retry {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let selection = self.selection.selection()?;
        let config = settings.for_database(&self.database)?;
        let letters = open(settings, &self.database)?;
        let missing = Missing::of(&letters, &selection)?;
        let total = letters.count(&selection)?;
        drop(letters);
        let mut output = Output::optional();
        if self.dry_run {
            if self.json {
                writeln!(output, "{}", serde_json::json!({ "would_retry": total, "missing": missing.0 }))?;
            } else if total > 0 || missing.0.is_empty() {
                writeln!(output, "would retry {}", counted(total, "dead letter"))?;
            }
            output.flush()?;
            return missing.report();
        }
        // The database is not opened for nothing: that would apply migrations.
        if total == 0 && !missing.0.is_empty() {
            if self.json {
                writeln!(output, "{}", json(&RetryReport::default(), 0, &missing))?;
            }
            output.flush()?;
            return missing.report();
        }
        let unreadable = if self.without_headers { UnreadableHeaders::LeaveOut } else { UnreadableHeaders::Keep };
        let signals = Signals::catch()?;
        let progress = Progress::new(Some(total), "dead letter", "tried");
        let (mut is_stopped, mut so_far) = (false, RetryReport::default());
        let keep_going = || !signals.end_asked();
        let retried = dead_letters::retry_while(&config, &selection, unreadable, &keep_going, |report| {
            progress.show(report.total(), String::new());
            so_far = report.clone();
            is_stopped = signals.end_asked();
            if is_stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        progress.clear();
        let retried = match retried {
            // While it was opened, or while another process wrote.
            Err(Error::Database { fault: DatabaseFault::Interrupted | DatabaseFault::Busy, .. })
                if signals.interrupted().is_some() =>
            {
                is_stopped = true;
                so_far
            }
            retried => retried.map_err(|error| failure::of_start(settings.with_line(error, &config)))?,
        };
        // A signal during the last transaction ends nothing.
        let not_tried = if is_stopped { total.saturating_sub(retried.total()) } else { 0 };
        if self.json {
            writeln!(output, "{}", json(&retried, not_tried, &missing))?;
        }
        if let Some(status) = signals.interrupted().filter(|_| not_tried > 0) {
            output.flush()?;
            return Err(Interrupted { message: interrupted(&retried, not_tried), status }.into());
        }
        if !self.json {
            writeln!(output, "stored {} of {}", HumanCount(retried.stored), counted(retried.total(), "dead letter"))?;
        }
        output.flush()?;
        anyhow::ensure!(retried.stored == retried.total(), "{}", remaining(&retried));
        missing.report()
    }
}

fn json(retried: &RetryReport, not_tried: u64, missing: &Missing) -> serde_json::Value {
    let reasons: Vec<_> =
        retried.reasons.iter().map(|(id, error)| serde_json::json!({ "id": id, "error": shown(error) })).collect();
    serde_json::json!({
        "stored": retried.stored,
        "refused": retried.refused,
        "passed_over": retried.skipped,
        "not_tried": not_tried,
        "interrupted": not_tried > 0,
        "reasons": reasons,
        "missing": missing.0,
    })
}

/// What was done before a signal came.
fn interrupted(retried: &RetryReport, not_tried: u64) -> String {
    let parts = [
        (retried.stored, "stored"),
        (retried.refused, "refused again"),
        (retried.skipped, "passed over"),
        (not_tried, "not tried"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", HumanCount(*count)))
        .collect();
    format!("interrupted: of {}, {}", counted(retried.total() + not_tried, "dead letter"), parts.join(", "))
}

fn remaining(retried: &RetryReport) -> String {
    let stay = retried.refused + retried.skipped;
    let named: Vec<String> =
        retried.reasons.iter().take(MAX_NAMED).map(|(id, error)| format!("{id}: {}", shown(error))).collect();
    let more = if stay > named.len() as u64 { "; and others" } else { "" };
    let verb = if stay == 1 { "stays" } else { "stay" };
    format!("{} {verb}: {}{more}", counted(stay, "dead letter"), named.join("; "))
}

/// An error, with the flag of this command instead of the library's item.
fn shown(error: &str) -> String {
    error.replace("UnreadableHeaders::LeaveOut", "--without-headers")
}
