//! `catchment export`

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::output::Output;
use super::quantities::{filter, time_us};
use super::settings::{DatabaseArgs, Settings};
use super::task_progress::TaskProgress;
use super::values::{counted, printable};
use crate::maintenance::{self, ExportFormat, ExportOptions, ExportReport, ExportSource, ExportTable, ExportTarget};
use crate::subject::Filter;

/// Write the rows of a table or of a query into a file, as JSON lines or CSV
///
/// The rows are those of one moment, also beside a running collector. A file gets its name when it is complete and on the disk.
#[derive(Args)]
#[command(after_help = "\
JSON lines: one object a row. Integers and floats keep every digit, a blob is {\"$blob\":\"<base64>\"}, NULL is null, an infinity {\"$real\":\"inf\"}. \
A row of table events is {\"id\", \"stream\", \"sequence\", \"subject\", \"published_us\", \"headers\", \"payload\"}, without stream and sequence \
where they are NULL: the format that catchment import, publish --events and test read.
CSV: a line of names, then the rows. NULL is an empty field, an empty text is \"\", a blob is x'00ff'.
--subject, --since and --where are those of catchment tail.
Text that is not UTF-8 is written as a blob, and a warning says so; the exit status is 0.
A long export holds back the file -wal of the database, which grows with every commit meanwhile.

Examples:
  catchment export -o events.ndjson
  catchment export messages --since 2026-01-31 --format csv -o messages.csv
  catchment export --query \"SELECT subject, count(*) AS events FROM events GROUP BY subject\" --format csv")]
pub struct Export {
    /// The table
    #[arg(value_name = "TABLE", default_value = "events", conflicts_with = "query")]
    table: String,

    /// Export the rows of this statement instead
    #[arg(long, value_name = "SQL", conflicts_with_all = ["subject", "since", "condition"])]
    query: Option<String>,

    #[command(flatten)]
    database: DatabaseArgs,

    /// The file to make; - is standard output
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, default_value = "-")]
    output: PathBuf,

    /// The format [default: csv for a FILE that ends with .csv, else ndjson]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,

    /// Only rows of events on this subject; * and > are wildcards as in NATS
    #[arg(long, value_name = "FILTER", value_parser = filter)]
    subject: Option<Filter>,

    /// Only rows of events published at this time or later: 2026-01-31, 2026-01-31T17:00:00Z, or 10m for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    since: Option<i64>,

    /// Only rows for which this SQL expression is true, for example "username = 'ada'"
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,

    /// Replace a file that is there already
    #[arg(long)]
    force: bool,

    /// Print JSON when a file is made: {"file", "rows", "bytes", "bad_texts", "inexact"}: texts that are not UTF-8, and rows of events that
    /// an import does not store as they are
    #[arg(short, long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Ndjson,
    Csv,
}

impl Export {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&self.database)?;
        let format = self.format.unwrap_or_else(|| {
            let is_csv = self.output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
            if is_csv { Format::Csv } else { Format::Ndjson }
        });
        let format = match format {
            Format::Ndjson => ExportFormat::Ndjson,
            Format::Csv => ExportFormat::Csv,
        };
        let options = ExportOptions { format, replace: self.force };
        let source = if let Some(sql) = self.query {
            ExportSource::Query(sql)
        } else {
            let mut table = ExportTable::new(self.table);
            (table.subject, table.since_us, table.condition) = (self.subject, self.since, self.condition);
            ExportSource::Table(table)
        };
        let progress = TaskProgress::new()?;
        if self.output == Path::new("-") {
            let mut output = Output::new();
            let to = ExportTarget::Writer(&mut output);
            let done = maintenance::export(&config, &source, to, &options, &|progressed| progress.report(progressed));
            warn(&progress.end(done, || "interrupted: not all rows are written".into())?);
            return Ok(());
        }
        let to = ExportTarget::File(&self.output);
        let done = maintenance::export(&config, &source, to, &options, &|progressed| progress.report(progressed));
        let report = progress.end(done, || format!("interrupted: {} is not made", self.output.display()))?;
        let mut output = Output::optional();
        let file = self.output.to_string_lossy();
        if self.json {
            let ExportReport { rows, bytes, bad_texts, inexact, .. } = report;
            let line = serde_json::json!({
                "file": file, "rows": rows, "bytes": bytes, "bad_texts": bad_texts, "inexact": inexact
            });
            writeln!(output, "{line}")?;
        } else {
            writeln!(output, "{} has {}", printable(&file), counted(report.rows, "row"))?;
        }
        output.flush()?;
        warn(&report);
        Ok(())
    }
}

/// Says what is not as it is in the database, or would not be after an import.
fn warn(report: &ExportReport) {
    let mut parts = Vec::new();
    if report.bad_texts > 0 {
        let texts = counted(report.bad_texts, "text");
        parts.push(format!("{texts} not UTF-8: written as bytes, which an import stores as a blob"));
    }
    if report.inexact > 0 {
        let rows = counted(report.inexact, "row");
        parts.push(format!("{rows} of a kind that no collector stores: an import changes or refuses them"));
    }
    if !parts.is_empty() {
        log::warn!("{}", parts.join("; "));
    }
}
