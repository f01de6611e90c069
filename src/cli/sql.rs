//! `catchment sql`: read-only SQL on the database.

use std::io::{Read, Write};
use std::ops::ControlFlow;

use crate::store::{Reader, StatementOutput};
use clap::Args;

use super::failure::UsageError;
use super::output::Output;
use super::row_writers::{Csv, JsonLines, RowWriter, Tables};
use super::settings::{DatabaseArgs, Settings};
use super::starting::wait_for_database;

/// Run read-only SQL on the database, also while a collector runs
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Sql {
    /// One or more statements; - reads them from standard input
    #[arg(value_name = "SQL")]
    statements: String,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Print one JSON object a line for each row
    #[arg(short, long, conflicts_with = "csv")]
    json: bool,

    /// Print CSV with a header line for each statement
    #[arg(long)]
    csv: bool,
}

const AFTER_HELP: &str = "\
JSON: a blob is {\"$blob\":\"<base64>\"}, an infinity null; a repeated column name gets _2, _3, ... appended.
CSV: NULL is empty, a blob is x'<hex>'. JSON and CSV are written while rows are read; tables, a thousand rows at a time.

Examples:
  catchment sql \"SELECT subject, count(*) FROM events GROUP BY subject\"
  catchment sql --json \"SELECT payload ->> '$.user' AS user FROM events ORDER BY id DESC LIMIT 10\"";

impl Sql {
    /// Runs the statements and prints their rows.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&self.database)?;
        let sql = read_sql(self.statements)?;
        wait_for_database(&config.database.path);
        let reader = Reader::open(&config.database.path)?;
        let mut output = Output::new();
        if self.json {
            print(&reader, &sql, JsonLines::new(&mut output))?;
        } else if self.csv {
            print(&reader, &sql, Csv::new(&mut output))?;
        } else {
            print(&reader, &sql, Tables::new(&mut output))?;
        }
        Ok(output.flush()?)
    }
}

fn read_sql(argument: String) -> anyhow::Result<String> {
    let sql = if argument == "-" {
        let mut sql = String::new();
        std::io::stdin().read_to_string(&mut sql).map_err(|e| anyhow::anyhow!("standard input: {e}"))?;
        sql
    } else {
        argument
    };
    if sql.trim().is_empty() {
        return Err(UsageError(
            "the SQL is empty; give a statement, for example \"SELECT count(*) FROM events\"".into(),
        )
        .into());
    }
    Ok(sql)
}

/// Prints the rows, including those that were read before an error.
fn print(reader: &Reader, sql: &str, mut writer: impl RowWriter) -> anyhow::Result<()> {
    let ran = reader.run(sql, |answer| {
        let written = match answer {
            StatementOutput::Columns([]) => Ok(()),
            StatementOutput::Columns(names) => writer.columns(names),
            StatementOutput::Row(values) => writer.row(values),
        };
        written.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    });
    if let Ok(Some(unwritten)) = ran {
        return Err(unwritten);
    }
    writer.finish()?;
    ran?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_sql_is_wrong_usage() {
        assert!(read_sql(" \n".into()).expect_err("must be refused").is::<UsageError>());
    }
}
