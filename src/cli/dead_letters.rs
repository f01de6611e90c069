//! `catchment dead-letters`: lists, shows, retries, drops and exports events that could not be stored.

mod database;
mod list;
mod retry;
mod selection;
mod show;

use std::io::Write;

use crate::store::{self, Json, LosslessJson};
use clap::{Args, Subcommand};
use indicatif::HumanCount;

use super::failure::Interrupted;
use super::output::Output;
use super::settings::{DatabaseArgs, Settings};
use super::signals::Signals;
use super::values::counted;
use crate::store::event_line::{self, EventLine};
use database::{Missing, open};
use selection::{ExplicitSelectionArgs, SelectionArgs};

/// List, show, retry, drop or export events that could not be stored, also while a collector runs
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct DeadLetters {
    #[command(subcommand)]
    action: Action,
}

const AFTER_HELP: &str = "\
Each command takes the dead letters that meet all conditions, the oldest first. If some of the numbers name no such letter, the \
command does the others, names the missing ones and ends with status 1.

Examples:
  catchment dead-letters list --since 2h --subject 'chat.>'
  catchment dead-letters show 17
  catchment dead-letters retry -c chat.toml --route lines
  catchment dead-letters drop --error 'malformed JSON' --dry-run
  catchment dead-letters export --route lines > lines.ndjson
  catchment publish --events --file lines.ndjson";

#[derive(Subcommand)]
enum Action {
    List(list::List),
    Show(show::Show),
    Retry(retry::Retry),
    Drop(Drop),
    Export(Export),
}

impl DeadLetters {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        match self.action {
            Action::List(list) => list.run(settings),
            Action::Show(show) => show.run(settings),
            Action::Retry(retry) => retry.run(settings),
            Action::Drop(drop) => drop.run(settings),
            Action::Export(export) => export.run(settings),
        }
    }
}

/// Delete dead letters
#[derive(Args)]
struct Drop {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    selection: ExplicitSelectionArgs,

    /// Print how many there are, and delete none
    #[arg(long)]
    dry_run: bool,

    /// Print JSON: {"dropped", "missing": [id]}, or {"would_drop", "missing": [id]}; with "interrupted" if a signal came
    #[arg(short, long)]
    json: bool,
}

impl Drop {
    fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let selection = self.selection.selection()?;
        let letters = open(settings, &self.database)?;
        let missing = Missing::of(&letters, &selection)?;
        let mut output = Output::optional();
        let total = letters.count(&selection)?;
        let (count, words, key) = if self.dry_run {
            (total, "would drop", "would_drop")
        } else {
            let signals = Signals::catch()?;
            let dropped = letters.remove_while(&selection, &|| !signals.end_asked())?;
            if let Some(status) = signals.interrupted().filter(|_| dropped < total) {
                if self.json {
                    let line = serde_json::json!({ "dropped": dropped, "interrupted": true, "missing": missing.0 });
                    writeln!(output, "{line}")?;
                    output.flush()?;
                }
                let message =
                    format!("interrupted: of {}, {} dropped", counted(total, "dead letter"), HumanCount(dropped));
                return Err(Interrupted { message, status }.into());
            }
            (dropped, "dropped", "dropped")
        };
        if self.json {
            writeln!(output, "{}", serde_json::json!({ key: count, "missing": missing.0 }))?;
        } else if count > 0 || missing.0.is_empty() {
            writeln!(output, "{words} {}", counted(count, "dead letter"))?;
        }
        output.flush()?;
        missing.report()
    }
}

/// Print dead letters as events, one JSON object a line, for `catchment publish --events`
#[derive(Args)]
#[command(after_help = "\
A line is as tail events --json prints it: {\"id\", \"subject\", \"published_us\", \"headers\", \"payload\"}. A payload that is not text is \
{\"$blob\":\"<base64>\"}. A header block that could not be read is \"raw_headers\": {\"$blob\":\"<base64>\"}, which publish refuses.
Exported letters stay in the database; drop them after you have published them.")]
struct Export {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Print JSON, as this command always does
    #[arg(short, long)]
    json: bool,
}

impl Export {
    fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let selection = self.selection.selection();
        let letters = open(settings, &self.database)?;
        let missing = Missing::of(&letters, &selection)?;
        log::debug!("dead-letters export always prints JSON; --json was given: {}", self.json);
        let mut output = Output::new();
        for letter in letters.list(&selection)? {
            let letter = letter?;
            let raw_headers = letter.raw_headers.map(store::Value::Blob);
            let line = EventLine {
                id: Some(letter.id),
                stream: None,
                sequence: None,
                subject: &letter.subject,
                published_us: letter.published_us,
                headers: event_line::headers(letter.headers.as_deref()),
                raw_headers: raw_headers.as_ref().map(|raw| Json(raw.borrowed())),
                payload: LosslessJson(letter.payload.borrowed()),
            };
            serde_json::to_writer(&mut output, &line).map_err(std::io::Error::from)?;
            output.write_all(b"\n")?;
        }
        output.flush()?;
        missing.report()
    }
}
