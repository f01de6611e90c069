//! `catchment import`

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::failure;
use super::output::Output;
use super::settings::{DatabaseArgs, Settings};
use super::task_progress::TaskProgress;
use super::values::{counted, printable};
use crate::error::{DatabaseFault, Error};
use crate::maintenance::{self, BadLines, ImportOptions, ImportReport};

/// Store the events of a file through the routes, without a broker
///
/// The file has one event a line, as catchment export writes table events, and as tail --json and dead-letters export print them:
/// {"subject", "payload"} and, where wanted, "headers", "published_us", "stream" and "sequence". Each event is stored as a collector
/// would store it, in the order of the file. An event that a statement refuses becomes a dead letter.
///
/// Each line is stored once: the database notes with every transaction how much of the file is stored. An import that was killed
/// continues there, and a file that was imported is passed over. A file is recognised by its content, not by its name; lines that were
/// added at its end are stored. No collector may run meanwhile.
#[derive(Args)]
#[command(after_help = "\
A line without published_us counts as published now.
stream and sequence are stored with the event if a line has both.
Positions in streams do not change: if a collector of that stream collects into the same database, it stores these events again.
A payload is a text, a JSON value, or {\"$blob\": \"<base64>\"} for bytes.
Standard input from a pipe is not recognised, and is stored from its first byte each time.
SIGINT and SIGTERM end the import after the current transaction; the next one continues.

Exit status:
  0    all lines are stored or dead letters
  1    not all
  130  ended by SIGINT
  143  ended by SIGTERM

Examples:
  catchment import events.ndjson
  catchment import -c chat.toml old.ndjson --bad-lines dead-letter
  zcat events.ndjson.gz | catchment import -")]
pub struct Import {
    /// The file; - is standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,

    #[command(flatten)]
    database: DatabaseArgs,

    /// What to do with a line that is no event: end there, or keep it as a dead letter on subject import
    #[arg(long, value_name = "HOW", default_value = "stop")]
    bad_lines: HowBadLines,

    /// Store the whole file, also if it was imported before
    #[arg(long)]
    again: bool,

    /// Print JSON: {"lines", "stored", "dead_letters", "dropped", "lines_before"}; also how far an import came that ended early
    #[arg(short, long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum HowBadLines {
    Stop,
    DeadLetter,
}

impl Import {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&self.database)?;
        let is_standard_input = self.file == Path::new("-");
        let file = if is_standard_input { PathBuf::from("/dev/stdin") } else { self.file };
        let shown = if is_standard_input { "standard input".into() } else { file.to_string_lossy().into_owned() };
        let bad_lines = match self.bad_lines {
            HowBadLines::Stop => BadLines::Stop,
            HowBadLines::DeadLetter => BadLines::DeadLetter,
        };
        let options = ImportOptions { bad_lines, again: self.again };
        let progress = TaskProgress::new()?;
        let mut report = None;
        let done = maintenance::import_reporting(&config, &file, &options, &|now| progress.report(now), &mut report);
        let interrupted = || {
            let way_on = if is_standard_input { "" } else { "; the next import continues after them" };
            format!("interrupted: not all lines of {shown} are stored{way_on}")
        };
        let done = progress.end(done, interrupted).map_err(|error| match error.downcast::<Error>() {
            Ok(error @ Error::Database { fault: DatabaseFault::Statement, .. }) => {
                failure::of_start(settings.with_line(error, &config))
            }
            Ok(error) => error.into(),
            Err(error) => error,
        });
        let mut output = Output::optional();
        if let Some(report) = report {
            if self.json {
                writeln!(output, "{}", json(&report))?;
            } else if done.is_ok() {
                writeln!(output, "{}", text(&shown, &report))?;
            }
        }
        output.flush()?;
        done
    }
}

fn json(report: &ImportReport) -> serde_json::Value {
    let ImportReport { lines_before, lines, stored, dead_letters, dropped } = report;
    serde_json::json!({
        "lines": lines,
        "stored": stored,
        "dead_letters": dead_letters,
        "dropped": dropped,
        "lines_before": lines_before,
    })
}

fn text(file: &str, report: &ImportReport) -> String {
    let file = printable(file);
    if report.lines == 0 && report.lines_before > 0 {
        return match report.lines_before {
            1 => format!("the only line of {file} was imported before"),
            lines => format!("all {} of {file} were imported before", counted(lines, "line")),
        };
    }
    let mut parts = vec![format!("{} stored", counted(report.stored, "event"))];
    if report.dead_letters > 0 {
        parts.push(counted(report.dead_letters, "dead letter"));
    }
    if report.dropped > 0 {
        parts.push(format!("{} dropped: no route matches", counted(report.dropped, "event")));
    }
    if report.lines_before > 0 {
        let verb = if report.lines_before == 1 { "was" } else { "were" };
        parts.push(format!("{} {verb} imported before", counted(report.lines_before, "line")));
    }
    format!("{file}: {}", parts.join(", "))
}
