//! `catchment sql`: read-only SQL on the database.

use std::io::{Read, Write};
use std::ops::ControlFlow;

use crate::store::{Reader, StatementOutput};
use clap::Args;

use super::failure::Usage;
use super::forms::{Csv, Form, JsonLines, Tables};
use super::output::Output;
use super::settings::{DatabaseArgs, Settings};

/// Run read-only SQL on the database, also beside a running collector
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Sql {
    /// One statement or several; `-` reads them from standard input
    #[arg(value_name = "SQL")]
    statements: String,

    #[command(flatten)]
    database: DatabaseArgs,

    /// One JSON object a row and line
    #[arg(short, long, conflicts_with = "csv")]
    json: bool,

    /// CSV with a header line for each statement
    #[arg(long)]
    csv: bool,
}

const AFTER_HELP: &str = "\
JSON: a blob is {\"$blob\":\"<base64>\"}, an infinity null; a column whose name came before gets _2, _3, ... behind it.
CSV: NULL is empty, a blob is x'<hex>'. JSON and CSV are written as the rows are read; tables a thousand rows at a time.

Examples:
  catchment sql \"SELECT subject, count(*) FROM events GROUP BY subject\"
  catchment sql --json \"SELECT payload ->> '$.user' AS user FROM events ORDER BY id DESC LIMIT 10\"";

impl Sql {
    /// Runs the statements and prints what they answer.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&self.database)?;
        let sql = given(self.statements)?;
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

fn given(argument: String) -> anyhow::Result<String> {
    let sql = if argument == "-" {
        let mut sql = String::new();
        std::io::stdin().read_to_string(&mut sql).map_err(|e| anyhow::anyhow!("standard input: {e}"))?;
        sql
    } else {
        argument
    };
    if sql.trim().is_empty() {
        return Err(Usage("the SQL is empty; give a statement, as \"SELECT count(*) FROM events\"".into()).into());
    }
    Ok(sql)
}

/// Rows that were read before an error are printed too.
fn print(reader: &Reader, sql: &str, mut form: impl Form) -> anyhow::Result<()> {
    let ran = reader.run(sql, |answer| {
        let written = match answer {
            StatementOutput::Columns([]) => Ok(()),
            StatementOutput::Columns(names) => form.columns(names),
            StatementOutput::Row(values) => form.row(values),
        };
        written.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    });
    if let Ok(Some(unwritten)) = ran {
        return Err(unwritten);
    }
    form.end()?;
    ran?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_sql_is_wrong_usage() {
        assert!(given(" \n".into()).expect_err("must be refused").is::<Usage>());
    }
}
