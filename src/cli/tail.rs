//! `catchment tail`: the last rows of tables, and new ones as they are committed.

mod follower;
mod incoming;
mod lines;
mod tables;

use std::io::Write;

use crate::config::Config;
use crate::maintenance::TableFilters;
use crate::store::Reader;
use crate::subject::Filter;
use clap::Args;

use super::output::Output;
use super::quantities::{filter, time_us, whole};
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::signals::Signals;
use super::starting::wait_for_database;
use follower::Follower;
use incoming::Incoming;
use lines::Lines;
use tables::Selection;

/// Print the last events, then new ones as they are committed; with routes, the rows that they add
///
/// Without routes in the settings, it follows table events. With routes, it follows the tables to which they add rows, and table
/// events if unmatched events are stored.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Tail {
    /// Tables to follow [default: those of the routes and events]
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Number of existing rows of each table to print [default: 10; with --since all]
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = whole::<usize>(0..=u64::MAX, 10))]
    lines: Option<usize>,

    /// Only rows of events on this subject; * and > are wildcards as in NATS
    #[arg(long, value_name = "FILTER", value_parser = filter)]
    subject: Option<Filter>,

    /// Only rows of events published at this time or later: 2026-01-31, 2026-01-31T17:00:00Z, or 10m for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    since: Option<i64>,

    /// Only rows for which this SQL expression is true, for example "username = 'ada'"
    #[arg(long = "where", value_name = "SQL", conflicts_with = "incoming")]
    condition: Option<String>,

    /// Print the messages of the stream instead, before they are committed: the last ones that it holds, then new ones
    #[arg(long, conflicts_with = "tables")]
    incoming: bool,

    /// Continue with new rows until interrupted (the default)
    #[arg(short, long, overrides_with = "no_follow")]
    follow: bool,

    /// End after the existing rows
    #[arg(long)]
    no_follow: bool,

    /// Print one JSON object a line for each row
    #[arg(short, long)]
    json: bool,

    #[command(flatten)]
    broker: BrokerArgs,
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

--subject compares the column that a route fills with :subject, else column subject. A table without one is followed if all routes that fill it are for such subjects. --since compares the column that a route fills with :published_s or :published_us, else column published_us. --where may use all columns of the table and its rowid; it is checked before the first row. Tables that are not named, and do not fit these options, are left out.
--incoming reads the stream with requests for its messages. It makes no consumer and acknowledges nothing, so it changes neither what the stream keeps nor what the collector gets. From a stream with interest or work-queue retention, messages that are acknowledged at once may not be seen. It is the only option here that needs a broker. Its JSON is that of table events, with \"sequence\" instead of \"id\".

Examples:
  catchment tail
  catchment tail messages events -n 0
  catchment tail --subject 'chat.message.*' --since 10m
  catchment tail messages --where \"username = 'ada'\"
  catchment tail --incoming --subject 'events.>' -n 100 --no-follow --json | catchment test -
  catchment tail events --json --no-follow -n 100 > events.ndjson";

impl Tail {
    /// Prints rows until interrupted, or with --no-follow until the last one.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        // Caught so that the database is closed, and no files are left beside it.
        let signals = Signals::catch()?;
        let printed = if self.incoming {
            self.print_incoming(settings, &signals)
        } else {
            settings.for_database(&self.database).map_err(Into::into).and_then(|config| self.print(&config, &signals))
        };
        match signals.interrupted() {
            Some(status) if printed.is_err() => Err(status.into()),
            _ => printed,
        }
    }

    fn print_incoming(&self, settings: &Settings, signals: &Signals) -> anyhow::Result<()> {
        let mut incoming = Incoming::open(settings, &self.database, &self.broker, self.subject.as_ref(), signals)?;
        let mut output = Output::new();
        incoming.print_existing(&mut output, self.since, self.existing(), self.json)?;
        if self.no_follow { Ok(()) } else { incoming.follow(&mut output, self.json) }
    }

    /// How many existing rows are printed.
    fn existing(&self) -> usize {
        self.lines.unwrap_or(if self.since.is_some() { usize::MAX } else { 10 })
    }

    fn print(&self, config: &Config, signals: &Signals) -> anyhow::Result<()> {
        let filters = TableFilters::new(self.subject.clone(), self.since, self.condition.clone(), config);
        let selection = Selection::new(self.tables.clone(), filters, config);
        let path = &config.database.path;
        let mut output = Output::new();
        let lines = Lines { json: self.json };
        if !self.no_follow {
            let mut follower = Follower::new(path.clone(), selection, self.existing(), signals.clone(), &output)?;
            loop {
                let (rows, named) = follower.next(&output)?;
                lines.write(&mut output, &rows, named)?;
                output.flush()?;
            }
        }
        wait_for_database(path);
        let reader = Reader::open(path)?;
        reader.interrupt_when(signals.flag())?;
        let mut tables = selection.existing(&reader, self.existing())?;
        let named = tables.len() > 1;
        for table in &mut tables {
            let mut left = self.existing();
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
