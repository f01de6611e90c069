//! `catchment retain`: applies `[retention]` once, or tells what it would delete.

use std::io::Write;

use bytesize::ByteSize;
use clap::Args;

use super::output::Output;
use super::settings::{DatabaseArgs, Settings};
use super::task_progress::TaskProgress;
use crate::counted;
use crate::error::Error;
use crate::maintenance;

/// Delete the rows that [retention] does not keep, once; or show what it would delete
///
/// A running collector does this by itself, every upkeep.retain_every. The command is for a database that no collector uses, and
/// --dry-run for any: it counts the rows of each rule and changes nothing.
#[derive(Args)]
pub struct Retain {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Only count the rows that each rule would delete now
    #[arg(long)]
    dry_run: bool,

    /// Print JSON: {"rows": {TABLE: ROWS}, "archived_rows", "freed_bytes", "returned_bytes"}; with --dry-run a line for each rule:
    /// {"table", "where", "rows"}
    #[arg(short, long)]
    json: bool,
}

impl Retain {
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&self.database)?;
        if config.retention.is_empty() {
            let error = Error::config("retention", "has no table, so nothing is ever deleted");
            return Err(error.with_remedy("add for example events = { keep = \"30d\" } below [retention]").into());
        }
        if self.dry_run {
            let forecasts = maintenance::retention_forecast(&config.database.path, &config.retention)
                .map_err(|error| settings.with_line(error, &config))?;
            let mut output = Output::optional();
            for rule in forecasts {
                if self.json {
                    let line = serde_json::json!({ "table": rule.table, "where": rule.condition, "rows": rule.rows });
                    writeln!(output, "{line}")?;
                } else {
                    let condition = rule.condition.map_or_else(String::new, |condition| format!(" where {condition}"));
                    writeln!(output, "{}{condition}: {} would go", rule.table, counted(rule.rows, "row"))?;
                }
            }
            return Ok(output.flush()?);
        }
        let progress = TaskProgress::new()?;
        let retained = maintenance::retain(&config.database, &config.retention, &|now| progress.report(now));
        let interrupted = || "interrupted: what was deleted so far stays deleted".to_owned();
        let done = progress.end_as(retained, interrupted, |error| settings.with_line(error, &config).into())?;
        let mut output = Output::optional();
        if self.json {
            let line = serde_json::json!({
                "rows": done.tables,
                "archived_rows": done.archived_rows,
                "freed_bytes": done.freed_bytes,
                "returned_bytes": done.returned_bytes,
            });
            writeln!(output, "{line}")?;
        } else {
            for (table, rows) in &done.tables {
                writeln!(output, "{table}: {} deleted", counted(*rows, "row"))?;
            }
            let (freed, returned) = (ByteSize::b(done.freed_bytes), ByteSize::b(done.returned_bytes));
            writeln!(output, "{} deleted; {freed} free, {returned} of them given back", counted(done.rows(), "row"))?;
        }
        Ok(output.flush()?)
    }
}
