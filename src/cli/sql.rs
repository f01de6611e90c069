//! `catchment sql`: read-only SQL on the database, as arguments, from standard input, or at a prompt.

mod commands;
mod completion;
mod history;
mod output_format;
mod prompt;
mod statement;
mod tables;
mod terminal_modes;

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use crate::store::Reader;
use clap::Args;

use super::failure::{Interrupted, UsageError};
use super::output::Output;
use super::settings::{DatabaseArgs, Settings};
use super::signals::Signals;
use super::starting::wait_for_database;
use output_format::{OutputFormat, run};
use prompt::Prompt;

/// Run read-only SQL on the database, also while a collector runs
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Sql {
    /// One or more statements, run in turn; - reads them from standard input [default: a prompt on a terminal, else -]
    #[arg(index = 1, value_name = "SQL", conflicts_with_all = ["tables", "schema"])]
    statements: Option<String>,

    /// The rest of SQL without quotes, so that the error can say what is missing.
    #[arg(index = 2, hide = true)]
    surplus: Vec<String>,

    /// The database file; several are read as one [default: database.path of the settings, else catchment.db]
    #[arg(short, long = "database", value_name = "PATH")]
    databases: Vec<PathBuf>,

    /// List the tables and views
    #[arg(long, conflicts_with = "schema")]
    tables: bool,

    /// Print the SQL that made this table or view with its indexes and triggers; without a name, that of all
    #[arg(long, value_name = "TABLE", num_args = 0..=1, default_missing_value = "")]
    schema: Option<String>,

    /// Print one JSON object a line for each row
    #[arg(short, long, conflicts_with = "csv")]
    json: bool,

    /// Print CSV with a header line for each statement
    #[arg(long)]
    csv: bool,
}

const AFTER_HELP: &str = "\
After the first statement that fails, no other is run.
A table that is too wide for the terminal is printed as one block a row.
JSON: a blob is {\"$blob\":\"<base64>\"}, an infinity null; a repeated column name gets _2, _3, ... appended.
CSV: NULL is empty, a blob is x'<hex>'. JSON and CSV are written while rows are read; tables, a thousand rows at a time.
Several databases (-d a.db -d b.db) are read as one: a table has the rows of all, with a last column database. If its columns differ, only \
that table cannot be read so. main.TABLE is that of the first database, db1.TABLE that of the second, and so on; 11 at most.
The prompt has a history ($XDG_STATE_HOME/catchment/sql_history) and completes names with Tab; .help lists its commands.

Examples:
  catchment sql \"SELECT subject, count(*) FROM events GROUP BY subject\"
  catchment sql --json \"SELECT payload ->> '$.user' AS user FROM events WHERE json_valid(payload)\"
  catchment sql --schema messages
  catchment sql -d chat-0.db -d chat-1.db \"SELECT database, count(*) FROM messages GROUP BY database\"";

impl Sql {
    /// Runs the statements and prints their rows.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&DatabaseArgs::of(self.databases.first().cloned()))?;
        let mut paths = vec![config.database.path];
        paths.extend(self.databases.into_iter().skip(1));
        let format = match (self.json, self.csv) {
            (true, _) => OutputFormat::Json,
            (_, true) => OutputFormat::Csv,
            _ => OutputFormat::Tables,
        };
        let is_listing = self.tables || self.schema.is_some();
        let terminals = || std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        if !self.surplus.is_empty() {
            return Err(
                UsageError("there are several arguments; give the SQL as one argument, in quotes".into()).into()
            );
        }
        if self.statements.is_none() && !is_listing && terminals() {
            wait_for_all(&paths);
            return Prompt::new(&paths, format)?.run();
        }
        let sql = if is_listing { String::new() } else { read_sql(self.statements)? };
        if paths.len() > 1 && self.schema.is_some() {
            return Err(UsageError("--schema is for one database; give one --database".into()).into());
        }
        wait_for_all(&paths);
        let reader = Reader::open_all(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        // Caught only now: reading standard input ends at a signal. The database has to be closed, so that no files are left beside it.
        let signals = Signals::catch()?;
        reader.interrupt_when(signals.flag())?;
        let mut output = Output::new();
        let ran = match self.schema {
            Some(table) => {
                let table = Some(table.as_str()).filter(|name| !name.is_empty());
                tables::print_schema(&reader, table, format, "sql --tables", &mut output)
            }
            None if self.tables => tables::print_list(&reader, format, &mut output),
            None => run(&reader, &sql, format, &mut output),
        };
        output.flush()?;
        match (ran, signals.interrupted()) {
            (Err(_), Some(status)) => Err(Interrupted { message: "interrupted".into(), status }.into()),
            (ran, _) => ran,
        }
    }
}

fn wait_for_all(paths: &[PathBuf]) {
    for path in paths {
        wait_for_database(path);
    }
}

/// The statements of the argument, or of standard input.
fn read_sql(argument: Option<String>) -> anyhow::Result<String> {
    let sql = match argument {
        Some(sql) if sql != "-" => sql,
        _ => {
            let mut sql = String::new();
            if std::io::stdin().is_terminal() {
                log::info!("reading SQL from the terminal; Ctrl-D ends it");
            }
            std::io::stdin().read_to_string(&mut sql).map_err(|e| anyhow::anyhow!("standard input: {e}"))?;
            sql
        }
    };
    if sql.trim().is_empty() {
        return Err(UsageError(
            "the SQL is empty; give a statement, for example \"SELECT count(*) FROM events\"".into(),
        )
        .into());
    }
    Ok(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_sql_is_wrong_usage() {
        assert!(read_sql(Some(" \n".into())).expect_err("must be refused").is::<UsageError>());
    }
}
