//! `catchment test`: what events would do, without a broker and without changing the database.

use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::Event;
use crate::config::Config;
use crate::store::{DeadLetter, Json, JsonRowWriter, TableChange, Value};
use crate::testing::{Outcome, TestDatabase};
use clap::Args;

use super::failure::{self, ExitStatus, Interrupted, UsageError};
use super::lines::{Line, Lines, Source};
use super::logging;
use super::output::Output;
use super::quantities::{filter, whole};
use super::row_writers::{RowWriter, Tables};
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::signals::Signals;
use super::stream_messages;
use super::values::{counted, printable};
use crate::store::event_line;
use crate::unix_time::at_us;

/// Run events through migrations and routes into a temporary database, and print the resulting rows and dead letters
///
/// Answers the question what the routes do with these events.
///
/// Uses no broker and does not touch the database. The exit status is 1 if there are dead letters, and 130 or 143 if SIGINT or
/// SIGTERM ended it before the end of the input. An input without events is no error.
///
/// Lines end with \n or \r\n. Lines of white space only are skipped, and so is a byte order mark at the start.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Test {
    /// File of events, one a line; - is standard input
    #[arg(required_unless_present = "from_stream")]
    file: Option<PathBuf>,

    /// Run the last messages of the stream instead of a file, so many; nothing is acknowledged, and no consumer is made
    #[arg(long, value_name = "COUNT", conflicts_with = "file", value_parser = whole::<usize>(1..=1_000_000, 100))]
    from_stream: Option<usize>,

    /// Subject of the events; each line is a payload [default: each line is a whole event as tail events --json and dead-letters
    /// export print it: {"subject", "payload", "headers", "published_us"}; the last two may be left out]. With --from-stream: only
    /// messages on this subject, which may have wildcards
    #[arg(long)]
    subject: Option<String>,

    /// Print JSON, unless the input cannot be read: {"events", "tables": {name: new or changed rows}, "gone": {name: removed rows},
    /// "dead_letters", "dropped", "markers_skipped", "not_collected", "interrupted"}
    #[arg(short, long)]
    json: bool,

    #[command(flatten)]
    broker: BrokerArgs,
}

/// The most bytes of payloads that are read from the stream.
const BYTES: usize = 256 << 20;

const AFTER_HELP: &str = "\
The publish time of an event is published_us of its line, else now. A message of the stream has its own.
With --from-stream, dead letters have \"sequence\" instead of \"line\" and \"event\". Only then a broker is needed.

Examples:
  catchment test --subject chat.message.log lines.ndjson
  catchment tail events -n 100 --no-follow --json | catchment test -c new.toml -
  catchment test -c new.toml --from-stream 100";

impl Test {
    /// Runs all events and prints what changed.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let signals = Signals::catch()?;
        match (&self.file, self.from_stream) {
            (Some(file), _) => self.run_lines(settings, &Source::of(file), &signals),
            (None, count) => self.run_messages(settings, count.unwrap_or(100), &signals),
        }
    }

    fn run_lines(&self, settings: &Settings, source: &Source, signals: &Signals) -> anyhow::Result<()> {
        let config = settings.for_database(&DatabaseArgs::default())?;
        let mut lines = Lines::of(source, signals)?;
        let mut testing = database(settings, &config, signals)?;
        let subjects = testing.subjects().to_vec();
        // The line of each event that is collected.
        let (mut numbers, mut failed) = (Vec::new(), None);
        let events = lines.by_ref().map_while(|line| match line.and_then(|line| self.event(line)) {
            Ok((number, event, published)) => {
                if subjects.iter().any(|filter| filter.matches(event.subject())) {
                    numbers.push(number);
                }
                Some((event, published))
            }
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let outcome = testing.run_at(events)?;
        if let Some(error) = failed {
            return Err(error);
        }
        let interrupted = signals.interrupted().filter(|_| !lines.is_at_end());
        let letters =
            testing.dead_letters()?.into_iter().map(|letter| Letter::of(letter, &numbers)).collect::<Vec<_>>();
        let changes = testing.changes()?;
        let result = Tested { outcome, changes, letters, interrupted: interrupted.is_some(), is_of_stream: false };
        self.report(result, &source.to_string(), interrupted)
    }

    /// Runs the last messages of the stream.
    fn run_messages(&self, settings: &Settings, count: usize, signals: &Signals) -> anyhow::Result<()> {
        let subject = self.subject.as_deref().map(|text| filter(text).map_err(|reason| (text, reason))).transpose();
        let subject = subject.map_err(|(text, reason)| UsageError(format!("--subject {text:?}: {reason}")))?;
        let place = DatabaseArgs::default();
        let config = settings.for_broker(&place, &self.broker)?;
        let (reader, filters) = stream_messages::open(settings, &place, &self.broker, subject.as_ref(), signals)?;
        let bounds = reader.bounds()?;
        let messages = reader.last(&filters, &bounds, (count, BYTES), &|| !signals.end_asked())?;
        let mut testing = database(settings, &config, signals)?;
        let outcome = testing.run_messages(&messages)?;
        let unreadable = messages.iter().filter(|message| message.headers.is_err()).count();
        if unreadable > 0 {
            let count = counted(unreadable as u64, "message");
            log::warn!("{count} left out: the headers cannot be read, so a collector makes dead letters of them");
        }
        let letters =
            testing.dead_letters()?.into_iter().map(|letter| Letter { line: letter.sequence, letter }).collect();
        let interrupted = signals.interrupted();
        let changes = testing.changes()?;
        let result = Tested { outcome, changes, letters, interrupted: interrupted.is_some(), is_of_stream: true };
        self.report(result, &format!("stream {}", reader.stream()), interrupted)
    }

    /// Prints what the events did.
    fn report(&self, mut result: Tested, source: &str, interrupted: Option<ExitStatus>) -> anyhow::Result<()> {
        let outcome = result.outcome;
        let mut output = Output::optional();
        if self.json {
            result.print_json(&mut output)?;
        } else {
            output.allow_styles();
            result.print_tables(&mut output, source)?;
        }
        output.flush()?;
        if outcome.not_collected > 0 {
            let count = counted(outcome.not_collected as u64, "event");
            log::warn!("{count} on subjects outside broker.subjects: they would not be collected");
        }
        let all = counted(outcome.committed as u64, "event");
        if let Some(status) = interrupted {
            let message = format!("interrupted after {all}, before the end of {source}");
            return Err(Interrupted { message, status }.into());
        }
        anyhow::ensure!(result.letters.is_empty(), "of {all}, {} would be dead letters", outcome.dead_letters);
        Ok(())
    }

    /// The event of a line, with its publish time and the number of the line.
    fn event(&self, line: Line) -> anyhow::Result<(u64, Event, SystemTime)> {
        let Line { number, bytes } = line;
        let refused = |reason| anyhow::anyhow!("line {number}: {reason}");
        let (event, published_us) = match &self.subject {
            Some(subject) => (Event::new(subject, bytes), None),
            None => event_line::read_with_time(&bytes).map_err(|reason| {
                let is_payload = reason.starts_with("does not look like");
                let way_out = if is_payload { "; if the lines are payloads, give their --subject" } else { "" };
                refused(reason + way_out)
            })?,
        };
        event.validate().map_err(|invalid| refused(invalid.to_string()))?;
        Ok((number, event, published_us.map_or_else(SystemTime::now, at_us)))
    }
}

/// The temporary database for these settings.
fn database(settings: &Settings, config: &Config, signals: &Signals) -> anyhow::Result<TestDatabase> {
    // Information about the temporary database is of no use to the reader.
    logging::hide_information();
    TestDatabase::new_while(config, &|| !signals.end_asked()).map_err(|error| {
        let message = || "interrupted before the first event".into();
        failure::or_interrupted(error, signals.interrupted(), message, |error| {
            failure::of_start(settings.with_line(error, config))
        })
    })
}

/// A dead letter, with the line or the sequence of its event.
struct Letter {
    letter: DeadLetter,
    line: Option<u64>,
}

impl Letter {
    /// `lines` has the line of each event that was committed.
    fn of(letter: DeadLetter, lines: &[u64]) -> Self {
        let index = letter.sequence.and_then(|number| usize::try_from(number).ok()?.checked_sub(1));
        Self { line: index.and_then(|index| lines.get(index).copied()), letter }
    }

    /// The values of these columns: `line`, or fields of a dead letter.
    fn values(&self, columns: &[&str]) -> Vec<Value> {
        let number =
            |number: Option<u64>| number.and_then(|n| i64::try_from(n).ok()).map_or(Value::Null, Value::Integer);
        let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
        let letter = &self.letter;
        let value = |column: &&str| match *column {
            "event" => number(letter.sequence),
            "line" | "sequence" => number(self.line),
            "subject" => letter.subject.as_str().into(),
            "route" => text(&letter.route),
            "statement" => text(&letter.statement),
            "error" => letter.error.as_str().into(),
            _ => letter.payload.clone(),
        };
        columns.iter().map(value).collect()
    }
}

/// What the events did.
struct Tested {
    outcome: Outcome,
    changes: Vec<TableChange>,
    letters: Vec<Letter>,
    interrupted: bool,
    /// The events are messages of a stream: a dead letter has a sequence and no line.
    is_of_stream: bool,
}

impl Tested {
    /// Prints tables. Their rows are gone then.
    fn print_tables(&mut self, output: &mut Output, source: &str) -> anyhow::Result<()> {
        for changed in std::mem::take(&mut self.changes) {
            let gone = if changed.deleted > 0 { format!(", {} removed", changed.deleted) } else { String::new() };
            writeln!(
                output,
                "{}: {} new or changed{gone}",
                printable(&changed.table),
                counted(changed.rows.len() as u64, "row")
            )?;
            if !changed.rows.is_empty() {
                print(output, &changed.columns, changed.rows)?;
            }
            writeln!(output)?;
        }
        if !self.letters.is_empty() {
            let place = if self.is_of_stream { "sequence" } else { "line" };
            let columns = [place, "subject", "route", "error", "payload"];
            writeln!(output, "dead letters:")?;
            let rows = self.letters.iter().map(|letter| letter.values(&columns)).collect();
            print(output, &columns.map(str::to_owned), rows)?;
            writeln!(output)?;
        }
        let Outcome { committed, dead_letters, unmatched_dropped: dropped, markers_skipped, not_collected } =
            self.outcome;
        let stored = committed - dead_letters - dropped - markers_skipped;
        let (count, dead) = (counted(committed as u64, "event"), counted(dead_letters as u64, "dead letter"));
        let is_empty = committed + not_collected == 0 && !self.interrupted;
        let none = if is_empty { format!("; {source} has none") } else { String::new() };
        let skipped = counted(markers_skipped as u64, "delete marker");
        let skipped = if markers_skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
        Ok(writeln!(output, "{count}: {stored} stored, {dead}, {dropped} dropped{skipped}{none}")?)
    }

    /// Writes rows as `sql --json` does: with every digit, and the columns in their order.
    fn print_json(&self, output: &mut Output) -> anyhow::Result<()> {
        let mut tables = Vec::new();
        for changed in &self.changes {
            let objects = JsonRowWriter::new(changed.columns.iter().map(String::as_str));
            let rows: Vec<Vec<u8>> = changed.rows.iter().map(|row| object(&objects, row)).collect();
            tables.push([serde_json::to_vec(&changed.table)?, array(&rows)].join(&b':'));
        }
        let place: &[&str] = if self.is_of_stream { &["sequence"] } else { &["event", "line"] };
        let columns = [place, &["subject", "route", "statement", "error", "payload"]].concat();
        let objects = JsonRowWriter::new(columns.iter().copied());
        let letters: Vec<Vec<u8>> =
            self.letters.iter().map(|letter| object(&objects, &letter.values(&columns))).collect();
        let gone: serde_json::Map<_, _> = self
            .changes
            .iter()
            .filter(|changed| changed.deleted > 0)
            .map(|changed| (changed.table.clone(), changed.deleted.into()))
            .collect();
        let Outcome { committed, unmatched_dropped: dropped, not_collected, markers_skipped: skipped, .. } =
            self.outcome;
        write!(output, "{{\"events\":{committed},\"tables\":{{")?;
        output.write_all(&tables.join(&b','))?;
        write!(output, "}},\"gone\":{},\"dead_letters\":", serde_json::to_string(&gone)?)?;
        output.write_all(&array(&letters))?;
        write!(output, ",\"dropped\":{dropped},\"markers_skipped\":{skipped},\"not_collected\":{not_collected}")?;
        Ok(writeln!(output, ",\"interrupted\":{}}}", self.interrupted)?)
    }
}

fn print(output: &mut Output, columns: &[String], rows: Vec<Vec<Value>>) -> anyhow::Result<()> {
    let mut table = Tables::new(output);
    table.columns(columns)?;
    rows.into_iter().try_for_each(|row| table.row(row))?;
    table.finish()
}

fn object(objects: &JsonRowWriter, row: &[Value]) -> Vec<u8> {
    let mut written = Vec::new();
    objects.write(row.iter().map(|value| Json(value.borrowed())), &mut written);
    written
}

fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [&b"["[..], &items.join(&b','), b"]"].concat()
}
