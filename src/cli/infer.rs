//! `catchment infer`: which fields the messages of a stream have, and a table and a route for them.

mod document;
mod fields;
mod files;
mod names;
mod table;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::failure::{self, UsageError};
use super::logging::{self, LogFormat};
use super::output::Output;
use super::quantities::{filter, whole};
use super::row_writers::{RowWriter, Tables};
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::signals::Signals;
use super::stream_messages;
use super::values::{counted, printable};
use crate::broker::StreamMessage;
use crate::config::Config;
use crate::store::{Reader, Value};
use crate::subject::Filter;
use crate::testing::{Outcome, TestDatabase};
use files::Files;
use table::InferredTable;

/// Read messages of the stream, and print which fields they have, with a migration and a route that store them
///
/// Reads the last messages on the subject. Nothing is acknowledged, and no consumer is made. The migration and the route are tried
/// with the messages that were read, in a temporary database, before they are printed.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Infer {
    #[command(flatten)]
    broker: BrokerArgs,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Subject of the messages; * and > are wildcards as in NATS, and become columns
    #[arg(value_parser = filter)]
    subject: Filter,

    /// Number of messages to read, at most
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 1_000, value_parser = whole::<usize>(1..=100_000, 1_000))]
    limit: usize,

    /// Name of the table and of the route [default: after the subject]
    #[arg(long, value_name = "NAME")]
    table: Option<String>,

    /// Write the migration and the settings into files; a file that exists is never changed
    #[arg(short, long)]
    write: bool,

    /// Folder for the files; made if it is missing
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,

    /// Print JSON: {"stream", "subject", "messages", "objects", "fields", "table", "outcome", "files", "written"}
    #[arg(short, long)]
    json: bool,
}

const AFTER_HELP: &str = "\
With a settings file in use, the route is printed, and --write makes NAME.route.toml: add it to the end of the settings. Without one, \
whole settings are printed, and --write makes catchment.toml. The migration gets the next free number.
A column has the type that its values would have, and ANY if they have several. Arrays are stored as JSON, and so are objects with more than \
64 names. If less than half of the payloads are objects, of JSON or MessagePack, they are stored whole.
At most 64 MiB of payloads are read.

Examples:
  catchment infer 'sensors.*.temperature'
  catchment infer orders.created --table orders --write
  catchment infer 'chat.>' --json";

/// The most bytes of payloads.
const BYTES: usize = 64 << 20;

impl Infer {
    /// Reads, prints and, with --write, writes.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        if let Some(name) = self.table.as_deref().filter(|name| !is_table_name(name)) {
            let text = format!("--table {name:?}: expected letters, digits and _, for example readings");
            return Err(UsageError(text).into());
        }
        let signals = Signals::catch()?;
        let messages = self.read(settings, &signals)?;
        let config = settings.for_broker(&self.database, &self.broker)?;
        let table = InferredTable::new(self.table.as_deref(), &self.subject, &messages);
        must_be_new(&table, &config)?;
        let files = Files::new(&table, &config, settings.file(), &self.dir)?;
        logging::hide_information();
        let outcome = try_out(&files, &config, &messages)?;
        if self.write {
            files.write()?;
        }
        let mut output = Output::new();
        if self.json {
            self.print_json(&mut output, &config, &table, &files, outcome)?;
        } else {
            output.allow_styles();
            self.print(&mut output, &config, &table, &files, outcome)?;
        }
        output.flush()?;
        self.report(&config, &table, &files);
        Ok(())
    }

    fn read(&self, settings: &Settings, signals: &Signals) -> anyhow::Result<Vec<StreamMessage>> {
        let subject = Some(&self.subject);
        let (reader, filters) = stream_messages::open(settings, &self.database, &self.broker, subject, signals)?;
        let bounds = reader.bounds()?;
        let messages = reader.last(&filters, &bounds, (self.limit, BYTES), &|| !signals.end_asked())?;
        if let Some(status) = signals.interrupted() {
            return Err(status.into());
        }
        let (stream, subject) = (reader.stream(), self.subject.as_str());
        anyhow::ensure!(
            !messages.is_empty(),
            "stream {stream} holds no message on {subject}; publish one, or name another subject"
        );
        Ok(messages)
    }

    fn print(
        &self,
        output: &mut Output,
        config: &Config,
        table: &InferredTable,
        files: &Files,
        outcome: Outcome,
    ) -> anyhow::Result<()> {
        let count = counted(table.messages as u64, "message");
        let (stream, subject) = (printable(&config.broker.stream), printable(self.subject.as_str()));
        let objects = match table.objects {
            1 => "1 payload is an object".to_owned(),
            objects => format!("{} payloads are objects", crate::counted::count(objects as u64)),
        };
        writeln!(output, "stream {stream}: read {count} on {subject}; {objects}")?;
        if table.columns.iter().all(|column| column.field.is_none()) {
            writeln!(output, "That is less than half of them, or they are empty, so payloads are stored whole.")?;
            return print_files(output, files, outcome);
        }
        let mut grid = Tables::new(output);
        grid.columns(&["path", "column", "types", "missing", "null", "example"].map(str::to_owned))?;
        for column in &table.columns {
            let Some(field) = &column.field else { continue };
            let all: usize = field.kinds.values().sum();
            let kinds = field.kinds.iter().map(|(kind, count)| match field.kinds.len() {
                1 => kind.name().to_owned(),
                _ => format!("{} {}", kind.name(), table::share(*count, all)),
            });
            let example = field.example.as_deref().map_or(Value::Null, Value::from);
            grid.row(vec![
                field.pointer().as_str().into(),
                column.name.as_str().into(),
                kinds.collect::<Vec<_>>().join(", ").as_str().into(),
                table.share(table.objects - field.present).as_str().into(),
                table.share(field.nulls).as_str().into(),
                example,
            ])?;
        }
        grid.finish()?;
        print_files(output, files, outcome)
    }

    fn print_json(
        &self,
        output: &mut Output,
        config: &Config,
        table: &InferredTable,
        files: &Files,
        outcome: Outcome,
    ) -> anyhow::Result<()> {
        let fields = table.columns.iter().filter_map(|column| {
            let field = column.field.as_ref()?;
            let types: serde_json::Map<_, _> =
                field.kinds.iter().map(|(kind, count)| (kind.name().to_owned(), (*count).into())).collect();
            Some(serde_json::json!({
                "path": field.pointer(),
                "column": column.name,
                "sql_type": column.sql_type,
                "types": types,
                "missing": table.objects - field.present,
                "null": field.nulls,
                "example": field.example,
            }))
        });
        let texts = files.all().map(|file| serde_json::json!({ "path": file.path, "text": file.text }));
        let result = serde_json::json!({
            "stream": config.broker.stream,
            "subject": self.subject.as_str(),
            "messages": table.messages,
            "objects": table.objects,
            "fields": fields.collect::<Vec<_>>(),
            "table": table.name,
            "outcome": {
                "stored": outcome.committed - outcome.dead_letters - outcome.markers_skipped,
                "dead_letters": outcome.dead_letters,
            },
            "files": texts,
            "written": self.write,
        });
        Ok(writeln!(output, "{result}")?)
    }

    /// Reports on standard error what the user still has to do.
    fn report(&self, config: &Config, table: &InferredTable, files: &Files) {
        if table.left_out > 0 {
            log::warn!("{} more have no column; add those that you need", counted(table.left_out as u64, "field"));
        }
        let is_told = self.write && !self.json && logging::format() == LogFormat::Text;
        for file in files.all().into_iter().filter(|_| is_told) {
            eprintln!("wrote {}", file.path.display());
        }
        let Some(settings) = &files.existing else { return };
        let earlier = |route: &&crate::config::RouteConfig| {
            route.subject.parse::<Filter>().is_ok_and(|of| of.overlaps(&self.subject))
        };
        let first = config.routes.iter().find(earlier);
        if let Some(route) = first {
            log::warn!(
                "route {} of {} comes first and takes events on {}: put the new route before it",
                printable(route.name()),
                settings.display(),
                printable(&route.subject)
            );
        }
        if config.database.migrations.is_none() {
            log::warn!(
                "{} has no database.migrations: add migrations = \"{}\" to [database]",
                settings.display(),
                files.migration.path.parent().unwrap_or(std::path::Path::new("migrations")).display()
            );
        }
        let subjects = &config.broker.subjects;
        let covers = |filter: &String| filter.parse::<Filter>().is_ok_and(|filter| filter.covers(&self.subject));
        if !subjects.is_empty() && !subjects.iter().any(covers) {
            log::warn!(
                "broker.subjects of {} has not all of {}: add it, or these events are not collected",
                settings.display(),
                self.subject.as_str()
            );
        }
        if is_told && first.is_none() {
            eprintln!("add the route: cat {} >> {}", files.settings.path.display(), settings.display());
        }
    }
}

/// Prints the files, and what trying them showed.
fn print_files(output: &mut Output, files: &Files, outcome: Outcome) -> anyhow::Result<()> {
    for file in files.all() {
        writeln!(output, "\n{}:\n", file.path.display())?;
        for line in file.text.lines() {
            // Escaped where a terminal could be steered: names come from the payloads.
            writeln!(output, "{}", printable(line))?;
        }
    }
    let Outcome { committed, dead_letters, markers_skipped, .. } = outcome;
    let stored = committed - dead_letters - markers_skipped;
    let dead = counted(dead_letters as u64, "dead letter");
    Ok(writeln!(output, "\nTried with these messages: {stored} stored, {dead}.")?)
}

fn is_table_name(name: &str) -> bool {
    names::plain(name) == name && name != "events" && !name.starts_with("catchment_") && !name.starts_with("sqlite_")
}

/// Refuses a table that the database has already.
fn must_be_new(table: &InferredTable, config: &Config) -> anyhow::Result<()> {
    let path = &config.database.path;
    if !path.is_file() {
        return Ok(());
    }
    let names = Reader::open(path)?.names()?;
    if names.iter().any(|name| name.eq_ignore_ascii_case(&table.name)) {
        let name = &table.name;
        let text = format!("database {}: it has {name} already; give another name with --table", path.display());
        return Err(anyhow::anyhow!(text));
    }
    Ok(())
}

/// Runs the messages through the migration and the route.
fn try_out(files: &Files, config: &Config, messages: &[StreamMessage]) -> anyhow::Result<Outcome> {
    let tried = files.config(config)?;
    let mut database = TestDatabase::new(&tried).map_err(failure::of_start)?;
    Ok(database.run_messages(messages)?)
}
