//! `catchment verify`: compares the database with the stream, and stores what is missing.

use std::io::Write;

use clap::Args;
use indicatif::HumanCount;

use super::failure::{self, ExitStatus};
use super::output::Output;
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::starting;
use super::task_progress::TaskProgress;
use super::values::{counted, printable};
use crate::config::Config;
use crate::error::Error;
use crate::maintenance::{self, Findings, VerifyOptions, VerifyReport};

/// How many findings of each kind are printed.
const SHOWN: usize = 10;

/// Compare the database with the stream, also while a collector runs
///
/// Answers the question whether each event of the stream is in the database once, with the same content.
///
/// Each message that the stream has and the ledger is past must be a row, a dead letter, or one that the routes drop. Table events is
/// compared exactly: subject, payload, headers, time. An event of a route is found by the column that a statement of the route fills with
/// :sequence, or by the one that --key names; otherwise the rows of its table are counted.
///
/// The routes of the settings must be those that the events were collected with. After a change of the routes, replay first.
#[derive(Args)]
#[command(after_help = "\
Not compared, and no fault: rows whose message the stream no longer has, and rows of earlier streams of the same name.
Events that the stream had dropped before they were collected: catchment gaps lists them.
A dead letter that was dropped counts as missing.

Exit status; after a repair, of what is left:
  0    all is there
  1    something is missing, differs or is there twice, or the command failed
  2    wrong usage or configuration
  130  ended by SIGINT
  143  ended by SIGTERM")]
pub struct Verify {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    /// The column that has the sequence of routed events, as messages.seq; may be repeated
    #[arg(long = "key", value_name = "TABLE.COLUMN")]
    keys: Vec<String>,

    /// A table whose oldest rows were deleted on purpose: events before its first row are not missing; may be repeated
    #[arg(long, value_name = "TABLE")]
    pruned: Vec<String>,

    /// Store the events that are missing, through the routes. No collector may run
    #[arg(long)]
    repair: bool,

    /// Give rows of table events that differ the content of the stream, and delete second copies
    #[arg(long, requires = "repair")]
    rewrite: bool,

    /// Print JSON: {"stream", "is_collected", "first", "last", "messages", "stored", "dead_letters", "dropped", "repeated", "returned",
    /// "pruned", "counted", "missing", "differing", "doubled", "unexplained", "unaccounted", "only_stored", "of_earlier_epochs", "lost_before",
    /// "keys": [text], "tables": [{"table", "rows", "messages"}], "unknown_routes": [text], "repaired_as_dead_letters", "is_sound"};
    /// missing, differing and doubled are {"count", "repaired", "first": [{"sequence", "row", "detail"}]} with the first hundred
    #[arg(short, long)]
    json: bool,
}

impl Verify {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_broker(&self.database, &self.broker)?;
        starting::wait_for_database(&config.database.path);
        let progress = TaskProgress::new()?;
        let mut options = VerifyOptions::default();
        options.keys.clone_from(&self.keys);
        options.pruned.clone_from(&self.pruned);
        (options.repair, options.rewrite) = (self.repair, self.rewrite);
        let verified = maintenance::verify(&config, &options, &|now| progress.report(now));
        let message = || "interrupted: not all was compared; what was repaired stays repaired".to_owned();
        let report = progress.end_as(verified, message, |error| explained(error, settings, &config))?;
        let mut output = Output::optional();
        if self.json {
            writeln!(output, "{}", json(&report))?;
        } else {
            print(&mut output, &report, config.broker.partitions)?;
        }
        output.flush()?;
        if report.is_sound() { Ok(()) } else { Err(ExitStatus(1).into()) }
    }
}

/// The error with flags in the place of the library's names, and with what to do about it.
fn explained(error: Error, settings: &Settings, config: &Config) -> anyhow::Error {
    let error = match error {
        Error::Config { key, detail, remedy } => {
            Error::Config { key: key.replace("VerifyOptions::keys", "--key"), detail, remedy }
        }
        other => other,
    };
    starting::with_way_out(failure::of_start(settings.with_line(error, config)), config)
}

fn print(output: &mut Output, report: &VerifyReport, partitions: Option<u32>) -> anyhow::Result<()> {
    let VerifyReport { stream, range: (first, last), .. } = report;
    if !report.is_collected {
        writeln!(output, "nothing of stream {stream}, as it is now, was collected: nothing to compare")?;
        return Ok(());
    }
    let messages = counted(report.counts.messages, "message");
    writeln!(output, "compared {messages} of stream {stream}, {} to {}", HumanCount(*first), HumanCount(*last))?;
    let counts = [
        (report.counts.stored, "stored"),
        (report.counts.dead_letters, "dead letters"),
        (report.counts.counted, "of routes without a key"),
        (report.counts.dropped, "dropped by the routes"),
        (report.counts.pruned, "deleted by the retention, or before the first row of a --pruned table"),
        (report.counts.repeated, "sent twice by a recorder, and stored once"),
        (report.counts.returned, "in the stream again: the next start stores them"),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(output, "  {} {what}", HumanCount(count))?;
    }
    let only_stored = if partitions.is_some() {
        "rows whose message the stream no longer has, or has from before it had partitions"
    } else {
        "rows whose message the stream no longer has"
    };
    let others = [
        (report.counts.only_stored, only_stored),
        (report.counts.of_earlier_epochs, "rows of earlier streams of this name"),
        (report.lost_before, "events were lost before they were collected: catchment gaps lists them"),
    ];
    for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(output, "{} {what}", HumanCount(count))?;
    }
    for table in &report.tables {
        let (name, rows, messages) = (&table.table, HumanCount(table.rows), HumanCount(table.messages));
        let verdict = if table.rows < table.messages { ": too few" } else { "" };
        writeln!(output, "table {name} has {rows} rows for {messages} messages{verdict}")?;
    }
    if !report.unknown_routes.is_empty() {
        writeln!(
            output,
            "not compared: {}: no statement adds one row for each event",
            report.unknown_routes.join(", ")
        )?;
    }
    print_findings(output, &report.missing, "missing", "message", "stored now")?;
    if report.repaired_as_dead_letters > 0 {
        writeln!(output, "  {} of them as dead letters", HumanCount(report.repaired_as_dead_letters))?;
    }
    print_findings(output, &report.differing, "differing", "row", "rewritten")?;
    print_findings(output, &report.doubled, "there twice", "row", "deleted")?;
    if report.unexplained > 0 {
        writeln!(output, "{} with a sequence that was not collected yet", counted(report.unexplained, "row"))?;
    }
    if report.counts.unaccounted > 0 {
        let sequences = counted(report.counts.unaccounted, "sequence");
        writeln!(output, "{sequences} neither in the stream nor in the database, although they were collected")?;
    }
    writeln!(output, "{}", if report.is_sound() { "all is there" } else { "not all is as it should be" })?;
    Ok(())
}

fn print_findings(
    output: &mut Output,
    findings: &Findings,
    what: &str,
    noun: &str,
    repaired: &str,
) -> anyhow::Result<()> {
    if findings.count == 0 {
        return Ok(());
    }
    let done = match findings.repaired {
        0 => String::new(),
        count if count == findings.count => format!(", {repaired}"),
        count => format!(", {} {repaired}", HumanCount(count)),
    };
    writeln!(output, "{what}: {}{done}", counted(findings.count, noun))?;
    for finding in findings.first.iter().take(SHOWN) {
        let row = finding.row.map_or(String::new(), |row| format!(", row {row}"));
        writeln!(output, "  sequence {}{row}: {}", finding.sequence, printable(&finding.detail))?;
    }
    let more = findings.count.saturating_sub(SHOWN as u64);
    if more > 0 {
        writeln!(output, "  and {} more", HumanCount(more))?;
    }
    Ok(())
}

fn json(report: &VerifyReport) -> serde_json::Value {
    let findings = |found: &Findings| {
        let first: Vec<_> = found
            .first
            .iter()
            .map(|one| serde_json::json!({ "sequence": one.sequence, "row": one.row, "detail": one.detail }))
            .collect();
        serde_json::json!({ "count": found.count, "repaired": found.repaired, "first": first })
    };
    let tables: Vec<_> = report
        .tables
        .iter()
        .map(|table| serde_json::json!({ "table": table.table, "rows": table.rows, "messages": table.messages }))
        .collect();
    serde_json::json!({
        "stream": report.stream,
        "is_collected": report.is_collected,
        "first": report.range.0,
        "last": report.range.1,
        "messages": report.counts.messages,
        "stored": report.counts.stored,
        "dead_letters": report.counts.dead_letters,
        "dropped": report.counts.dropped,
        "repeated": report.counts.repeated,
        "returned": report.counts.returned,
        "pruned": report.counts.pruned,
        "counted": report.counts.counted,
        "missing": findings(&report.missing),
        "differing": findings(&report.differing),
        "doubled": findings(&report.doubled),
        "unexplained": report.unexplained,
        "unaccounted": report.counts.unaccounted,
        "only_stored": report.counts.only_stored,
        "of_earlier_epochs": report.counts.of_earlier_epochs,
        "lost_before": report.lost_before,
        "keys": report.keys,
        "tables": tables,
        "unknown_routes": report.unknown_routes,
        "repaired_as_dead_letters": report.repaired_as_dead_letters,
        "is_sound": report.is_sound(),
    })
}
