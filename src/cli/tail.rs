//! `catchment tail`: the last rows of tables, and new ones as they are committed.

mod follower;
mod lines;
mod tables;

use std::io::Write;

use crate::config::Config;
use crate::store::Reader;
use clap::Args;

use super::output::Output;
use super::quantities::whole;
use super::settings::{DatabaseArgs, Settings};
use super::signals::Signals;
use super::starting::wait_for_database;
use follower::Follower;
use lines::Lines;
use tables::Selection;

/// Print the last events, then new ones as they are committed; with routes, the rows that they add
///
/// Without routes in the settings, it follows table events. With routes, it follows the tables to which they add rows, and table
/// events if unmatched events are stored.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Tail {
    /// Tables to follow [default: those of the routes and events]
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Number of existing rows of each table to print
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10, value_parser = whole::<usize>(0..=u64::MAX, 10))]
    lines: usize,

    /// Continue with new rows until interrupted (the default)
    #[arg(short, long, overrides_with = "no_follow")]
    follow: bool,

    /// End after the existing rows
    #[arg(long)]
    no_follow: bool,

    /// Print one JSON object a line for each row
    #[arg(short, long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Rows are printed in the order of their numbers (rowid); a table WITHOUT ROWID cannot be followed. A row that is changed later is not \
printed again, and a new row whose number is smaller than that of a printed row is not printed. If several tables are followed, the name \
of the table comes first.
A table that is missing is an error, unless a collector is starting. A database that is missing is waited for.
Text: of an event its publish time (UTC), subject and payload; of any other row a JSON object. Control characters are escaped, \
blobs of events shortened.
JSON of table events alone: {\"id\", \"subject\", \"published_us\", \"headers\", \"payload\"}; headers are an object or null, a payload that \
is not text is {\"$blob\":\"<base64>\"}. JSON of other or several tables: {\"table\", \"row\"}.

Examples:
  catchment tail
  catchment tail messages events -n 0
  catchment tail events --json --no-follow -n 100 > events.ndjson";

impl Tail {
    /// Prints rows until interrupted, or with --no-follow until the last one.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&self.database)?;
        // Caught so that the database is closed, and no files are left beside it.
        let signals = Signals::catch()?;
        let printed = self.print(&config, &signals);
        match signals.interrupted() {
            Some(status) if printed.is_err() => Err(status.into()),
            _ => printed,
        }
    }

    fn print(&self, config: &Config, signals: &Signals) -> anyhow::Result<()> {
        let selection = Selection::new(self.tables.clone(), config);
        let path = &config.database.path;
        let mut output = Output::new();
        let lines = Lines { json: self.json };
        if !self.no_follow {
            let mut follower = Follower::new(path.clone(), selection, self.lines, signals.clone(), &output)?;
            loop {
                let (rows, named) = follower.next(&output)?;
                lines.write(&mut output, &rows, named)?;
                output.flush()?;
            }
        }
        wait_for_database(path);
        let reader = Reader::open(path)?;
        reader.interrupt_when(signals.flag())?;
        let mut tables = selection.existing(&reader, self.lines)?;
        let named = tables.len() > 1;
        for table in &mut tables {
            let mut left = self.lines;
            while left > 0 {
                let rows = table.next(&reader, left)?;
                if rows.is_empty() {
                    break;
                }
                left -= rows.len();
                lines.write(&mut output, &rows, named)?;
                if let Some(status) = signals.interrupted() {
                    output.flush()?;
                    return Err(status.into());
                }
            }
        }
        Ok(output.flush()?)
    }
}
