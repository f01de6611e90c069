//! `catchment test`: what events would do, without a broker and without changing the database.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Event;
use crate::store::{DeadLetter, Json, JsonRowWriter, TableChange, Value};
use crate::testing::{Outcome, TestDatabase};
use clap::Args;

use super::event_line;
use super::lines::Lines;
use super::logging;
use super::output::Output;
use super::row_writers::{RowWriter, Tables};
use super::settings::{DatabaseArgs, Settings};
use super::signals::Signals;
use super::values::counted;

/// Run events through migrations and routes into a temporary database, and print the resulting rows and dead letters
///
/// Uses no broker and does not touch the database. The exit status is 1 if there are dead letters.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Test {
    /// File of events, one a line; - is standard input
    file: PathBuf,

    /// Subject of the events; each line is a payload [default: each line is a whole event as tail --json and dead-letters export
    /// print it: {"subject", "headers", "payload", "published_us"}]
    #[arg(long)]
    subject: Option<String>,

    /// Print JSON: {"events", "tables": {name: new or changed rows}, "gone": {name: removed rows}, "dead_letters", "dropped",
    /// "not_collected"}
    #[arg(short, long)]
    json: bool,
}

const AFTER_HELP: &str = "\
The publish time of an event is published_us of its line, else now.

Examples:
  catchment test --subject chat.message.log lines.ndjson
  catchment tail -n 100 --no-follow --json | catchment test -c new.toml -";

impl Test {
    /// Runs all events and prints what changed.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&DatabaseArgs::default())?;
        // Information about the temporary database is of no use to the reader.
        logging::hide_information();
        let signals = Signals::catch()?;
        let mut testing = TestDatabase::new(&config)?;
        let file = (self.file != Path::new("-")).then_some(self.file.as_path());
        let mut failed = None;
        let events = Lines::of(file, &signals)?.enumerate().map_while(|(at, line)| {
            let event = line.map_err(anyhow::Error::from).and_then(|line| self.event(at, line));
            event.map_err(|error| failed = Some(error)).ok()
        });
        let outcome = testing.run_at(events)?;
        if let Some(error) = failed {
            return Err(error);
        }
        let (changes, letters) = (testing.changes()?, testing.dead_letters()?);
        let mut output = Output::optional();
        if self.json {
            print_json(&mut output, outcome, &changes, &letters)?;
        } else {
            print_tables(&mut output, outcome, changes, &letters)?;
        }
        output.flush()?;
        if outcome.not_collected > 0 {
            let count = counted(outcome.not_collected as u64, "event");
            log::warn!("{count} on subjects outside broker.subjects: they would not be collected");
        }
        let all = counted(outcome.committed as u64, "event");
        anyhow::ensure!(letters.is_empty(), "of {all}, {} would be dead letters", outcome.dead_letters);
        Ok(())
    }

    fn event(&self, at: usize, line: Vec<u8>) -> anyhow::Result<(Event, SystemTime)> {
        let refused = |reason| anyhow::anyhow!("event {}: {reason}", at + 1);
        let (event, published_us) = match &self.subject {
            Some(subject) => (Event::new(subject, line), None),
            None => event_line::read_with_time(&line).map_err(refused)?,
        };
        event.validate().map_err(|invalid| refused(invalid.to_string()))?;
        let since_1970 = published_us.map(|us| Duration::from_micros(u64::try_from(us).unwrap_or(0)));
        Ok((event, since_1970.map_or_else(SystemTime::now, |time| UNIX_EPOCH + time)))
    }
}

fn print_tables(
    output: &mut Output,
    outcome: Outcome,
    changes: Vec<TableChange>,
    letters: &[DeadLetter],
) -> anyhow::Result<()> {
    for changed in changes {
        let gone = if changed.deleted > 0 { format!(", {} removed", changed.deleted) } else { String::new() };
        writeln!(output, "{}: {} new or changed{gone}", changed.table, counted(changed.rows.len() as u64, "row"))?;
        if !changed.rows.is_empty() {
            print(output, &changed.columns, changed.rows)?;
        }
        writeln!(output)?;
    }
    if !letters.is_empty() {
        let columns = ["event", "subject", "route", "error", "payload"].map(str::to_owned);
        let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
        let rows = letters.iter().map(|letter| {
            let number =
                letter.sequence.and_then(|number| i64::try_from(number).ok()).map_or(Value::Null, Value::Integer);
            let payload = letter.payload.clone();
            vec![number, letter.subject.as_str().into(), text(&letter.route), letter.error.as_str().into(), payload]
        });
        writeln!(output, "dead letters:")?;
        print(output, &columns, rows.collect())?;
        writeln!(output)?;
    }
    let Outcome { committed, dead_letters, unmatched_dropped: dropped, .. } = outcome;
    let stored = committed - dead_letters - dropped;
    let (count, dead) = (counted(committed as u64, "event"), counted(dead_letters as u64, "dead letter"));
    Ok(writeln!(output, "{count}: {stored} stored, {dead}, {dropped} dropped")?)
}

fn print(output: &mut Output, columns: &[String], rows: Vec<Vec<Value>>) -> anyhow::Result<()> {
    let mut table = Tables::new(output);
    table.columns(columns)?;
    rows.into_iter().try_for_each(|row| table.row(row))?;
    table.finish()
}

/// Writes rows as `sql --json` does: with every digit, and the columns in their order.
fn print_json(
    output: &mut Output,
    outcome: Outcome,
    changes: &[TableChange],
    letters: &[DeadLetter],
) -> anyhow::Result<()> {
    let mut tables = Vec::new();
    for changed in changes {
        let objects = JsonRowWriter::new(changed.columns.iter().map(String::as_str));
        let rows: Vec<Vec<u8>> = changed.rows.iter().map(|row| object(&objects, row)).collect();
        tables.push([serde_json::to_vec(&changed.table)?, array(&rows)].join(&b':'));
    }
    let columns = ["event", "subject", "route", "statement", "error", "payload"];
    let objects = JsonRowWriter::new(columns);
    let letters: Vec<Vec<u8>> = letters
        .iter()
        .map(|letter| {
            let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
            let number =
                letter.sequence.and_then(|number| i64::try_from(number).ok()).map_or(Value::Null, Value::Integer);
            let (subject, error) = (letter.subject.as_str().into(), letter.error.as_str().into());
            let row = [number, subject, text(&letter.route), text(&letter.statement), error, letter.payload.clone()];
            object(&objects, &row)
        })
        .collect();
    let gone: serde_json::Map<_, _> = changes
        .iter()
        .filter(|changed| changed.deleted > 0)
        .map(|changed| (changed.table.clone(), changed.deleted.into()))
        .collect();
    write!(output, "{{\"events\":{},\"tables\":{{", outcome.committed)?;
    output.write_all(&tables.join(&b','))?;
    write!(output, "}},\"gone\":{},\"dead_letters\":", serde_json::to_string(&gone)?)?;
    output.write_all(&array(&letters))?;
    let Outcome { unmatched_dropped: dropped, not_collected, .. } = outcome;
    Ok(writeln!(output, ",\"dropped\":{dropped},\"not_collected\":{not_collected}}}")?)
}

fn object(objects: &JsonRowWriter, row: &[Value]) -> Vec<u8> {
    let mut written = Vec::new();
    objects.write(row.iter().map(|value| Json(value.borrowed())), &mut written);
    written
}

fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [&b"["[..], &items.join(&b','), b"]"].concat()
}
