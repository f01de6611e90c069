//! `catchment dead-letters retry`

use std::io::Write;

use clap::Args;
use indicatif::HumanCount;

use super::selection::Wanted;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::settings::{DatabaseArgs, Settings};
use crate::cli::values::counted;
use crate::dead_letters::{self, RetryReport, UnreadableHeaders};

/// How many of those that stay are told by name.
const TOLD: usize = 3;

/// Try dead letters again, through the routes of the settings
///
/// What is stored is removed from the dead letters in the same transaction as its rows are added. What is refused again
/// stays, with what was wrong this time. The database is opened as `run` opens it: migrations that are new to it are applied.
#[derive(Args)]
#[command(after_help = "Exit status: 0 all are stored, 1 some stay.")]
pub struct Retry {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    wanted: Wanted,

    /// Say how many there are, and try none
    #[arg(long)]
    dry_run: bool,

    /// Those whose headers could not be read are tried without headers, instead of staying
    #[arg(long)]
    without_headers: bool,

    /// As JSON: {"stored", "refused", "passed_over", "reasons": [{"id", "error"}]} with the first ten reasons, or
    /// {"would_retry"}
    #[arg(short, long)]
    json: bool,
}

impl Retry {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let selection = self.wanted.selection()?;
        let config = settings.for_database(&self.database)?;
        let total = super::having(&selection, super::open(settings, &self.database)?)?.count(&selection)?;
        let mut output = Output::new();
        if self.dry_run {
            if self.json {
                writeln!(output, "{}", serde_json::json!({ "would_retry": total }))?;
            } else {
                writeln!(output, "would retry {}", counted(total, "dead letter"))?;
            }
            return Ok(output.flush()?);
        }
        let unreadable = if self.without_headers { UnreadableHeaders::LeaveOut } else { UnreadableHeaders::Keep };
        let progress = Progress::new(Some(total), "dead letters tried");
        let retried =
            dead_letters::retry(&config, &selection, unreadable, |so_far| progress.show(so_far.total(), String::new()));
        progress.clear();
        let retried = retried?;
        if self.json {
            writeln!(output, "{}", json(&retried))?;
        } else {
            writeln!(output, "stored {} of {}", HumanCount(retried.stored), counted(retried.total(), "dead letter"))?;
        }
        output.flush()?;
        anyhow::ensure!(retried.stored == retried.total(), "{}", those_that_stay(&retried));
        Ok(())
    }
}

fn json(retried: &RetryReport) -> serde_json::Value {
    let reasons: Vec<_> =
        retried.reasons.iter().map(|(id, error)| serde_json::json!({ "id": id, "error": error })).collect();
    serde_json::json!({
        "stored": retried.stored,
        "refused": retried.refused,
        "passed_over": retried.skipped,
        "reasons": reasons,
    })
}

fn those_that_stay(retried: &RetryReport) -> String {
    let stay = retried.refused + retried.skipped;
    let told: Vec<String> = retried.reasons.iter().take(TOLD).map(|(id, why)| format!("{id}: {why}")).collect();
    let more = if stay > told.len() as u64 { "; and others" } else { "" };
    let verb = if stay == 1 { "stays" } else { "stay" };
    format!("{} {verb}: {}{more}", counted(stay, "dead letter"), told.join("; "))
}
