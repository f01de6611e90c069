//! `catchment replay`: fills a new database from the stream, beside the one that is collected into.

use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{ArgGroup, Args};
use indicatif::HumanCount;

use super::failure;
use super::output::Output;
use super::quantities::{file, time_us, whole};
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::starting;
use super::task_progress::TaskProgress;
use super::values::counted;
use crate::config::Config;
use crate::error::Error;
use crate::maintenance::{self, ReplayEnd, ReplayOptions, ReplayReport, ReplayStart};
use crate::unix_time::at_us;

/// Fill a new database from the stream, with other routes if wished, and put it in the place of the old one
///
/// The database of the settings is not read, and its collector may go on: the replay has a consumer of its own, which acknowledges
/// nothing. Where the stream does not keep acknowledged messages, or allows no further consumer, it is read message by message. The new
/// database gets its tables from the migrations, as at the first run.
///
/// A replay that was interrupted continues with the same command. The ledger of the new database says where.
///
/// With --swap the new database takes the place of the old one once it has all of the stream. No collector may run then. The old one is
/// kept as FILE.replaced. The swap is refused if the old one has something that the new one lacks, such as events that the stream no
/// longer has; --accept-loss swaps all the same. The next run continues where the replay has ended.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
#[derive(Args)]
#[command(group = ArgGroup::new("start").required(true), after_help = "\
Change a schema after the fact: write the new settings and migrations, and fill a database with them while the collector goes on.
Then stop the collector, swap, and start it with the new settings:
  catchment replay -c new.toml --all --into new.db
  catchment replay -c new.toml --all --into new.db --swap
  catchment run -c new.toml

SIGINT and SIGTERM end the replay after the current transactions.

Exit status:
  0    done
  1    failed
  2    wrong usage or configuration
  130  ended by SIGINT
  143  ended by SIGTERM")]
pub struct Replay {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    /// The new database. If an earlier replay has begun it, this one continues
    #[arg(long, value_name = "FILE", value_parser = file(), value_hint = clap::ValueHint::FilePath)]
    into: PathBuf,

    /// Begin with the first event that the stream has
    #[arg(long, group = "start")]
    all: bool,

    /// Begin with the event that has this sequence
    #[arg(long, value_name = "NUMBER", value_parser = whole::<u64>(1..=u64::MAX, 1000), group = "start")]
    from_seq: Option<u64>,

    /// Begin with the first event of this time: a date, a time, or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = time_us, group = "start")]
    from_time: Option<i64>,

    /// End with the event that has this sequence [default: the last that the stream has now]
    #[arg(long, value_name = "NUMBER", value_parser = whole::<u64>(1..=u64::MAX, 2000), conflicts_with = "until_time")]
    until_seq: Option<u64>,

    /// End with the last event before this time
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    until_time: Option<i64>,

    /// Take [[route]], [[query]], unmatched, delete_markers and database.migrations from this settings file
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    routes: Option<PathBuf>,

    /// Put the new database in the place of the old one once it has all of the stream. No collector may run
    #[arg(long, conflicts_with_all = ["until_seq", "until_time"])]
    swap: bool,

    /// Swap without the broker, as after run --with-server: the next run collects what came since the last replay
    #[arg(long, requires = "swap")]
    offline: bool,

    /// Swap even if the old database has something that the new one lacks
    #[arg(long, requires = "swap")]
    accept_loss: bool,

    /// Print JSON: {"stream", "database", "first", "position", "events", "dead_letters", "dropped", "repeated", "behind", "replaced", "lost": [text]};
    /// replaced is the file that the old database has now, or null; behind is how many of its events the next run collects. Also how far
    /// a replay came that was interrupted
    #[arg(short, long)]
    json: bool,
}

impl Replay {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let mut config = settings.for_broker(&self.database, &self.broker)?;
        if let Some(file) = &self.routes {
            let other = Config::from_toml_file(file)?.resolved()?;
            config.routes = other.routes;
            config.unmatched = other.unmatched;
            config.delete_markers = other.delete_markers;
            config.database.migrations = other.database.migrations;
            // Queries of the settings may need tables that the other migrations do not make.
            config.queries = other.queries;
        }
        let options = self.options();
        let progress = TaskProgress::new()?;
        let mut cancelled = None;
        let replayed = maintenance::replay_reporting(&config, &options, &|now| progress.report(now), &mut cancelled);
        let into = self.into.display();
        let message = || format!("interrupted: the same command continues the replay into {into}");
        let ended = progress.end_as(replayed, message, |error| self.explained(error, settings, &config));
        let mut output = Output::optional();
        if let Some(report) = cancelled.filter(|_| self.json) {
            writeln!(output, "{}", json(&report, &self.into))?;
            output.flush()?;
        }
        let report = ended?;
        if self.json {
            writeln!(output, "{}", json(&report, &self.into))?;
        } else {
            self.print(&mut output, &report, &config)?;
        }
        Ok(output.flush()?)
    }

    fn options(&self) -> ReplayOptions {
        let from = match (self.from_seq, self.from_time) {
            (Some(sequence), _) => ReplayStart::Sequence(sequence),
            (None, Some(us)) => ReplayStart::Time(at_us(us)),
            (None, None) => ReplayStart::All,
        };
        let until = match (self.until_seq, self.until_time) {
            (Some(sequence), _) => ReplayEnd::Sequence(sequence),
            (None, Some(us)) => ReplayEnd::Time(SystemTime::min(at_us(us), SystemTime::now())),
            (None, None) => ReplayEnd::Last,
        };
        let (into, swap, offline) = (self.into.clone(), self.swap, self.offline);
        ReplayOptions { into, from, until, swap, offline, accept_loss: self.accept_loss }
    }

    /// The error with flags in the place of the library's names, and with what to do about it.
    fn explained(&self, error: Error, settings: &Settings, config: &Config) -> anyhow::Error {
        let error = with_flags(error);
        let error = if self.routes.is_some() { error } else { settings.with_line(error, config) };
        starting::with_way_out(failure::of_start(error), config)
    }

    fn print(&self, output: &mut Output, report: &ReplayReport, config: &Config) -> anyhow::Result<()> {
        let ReplayReport { stream, position, events, dead_letters, dropped, repeated, replaced, lost, .. } = report;
        let mut parts = Vec::new();
        let letters = if *dead_letters == 1 { "dead letter" } else { "dead letters" };
        for (count, what) in [(dead_letters, letters), (dropped, "dropped"), (repeated, "sent twice")] {
            if *count > 0 {
                parts.push(format!("{} {what}", HumanCount(*count)));
            }
        }
        let parts = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
        let into = self.into.display();
        if !self.offline {
            writeln!(
                output,
                "replayed {}{parts} of stream {stream} into {into}, which has it up to {}",
                counted(*events, "event"),
                HumanCount(*position)
            )?;
        }
        if let Some(replaced) = replaced {
            let live = config.database.path.display();
            writeln!(output, "{live} is the new database now; the old one is {}", replaced.display())?;
            if report.behind > 0 {
                writeln!(output, "the next run collects {} that the old one has too", counted(report.behind, "event"))?;
            }
            for what in lost {
                writeln!(output, "only the old one has {what}")?;
            }
        }
        Ok(())
    }
}

fn json(report: &ReplayReport, into: &std::path::Path) -> serde_json::Value {
    serde_json::json!({
        "stream": report.stream,
        "database": into.display().to_string(),
        "first": report.first,
        "position": report.position,
        "events": report.events,
        "dead_letters": report.dead_letters,
        "dropped": report.dropped,
        "repeated": report.repeated,
        "behind": report.behind,
        "replaced": report.replaced.as_ref().map(|path| path.display().to_string()),
        "lost": report.lost,
    })
}

/// The error, with flags instead of the library's options.
fn with_flags(error: Error) -> Error {
    let named = |text: String| {
        text.replace("set ReplayOptions::accept_loss", "give --accept-loss")
            .replace("ReplayOptions::into", "--into")
            .replace("ReplayOptions::offline", "--offline")
            .replace("ReplayOptions::from", "--from-seq or --from-time")
            .replace("ReplayOptions::until", "--until-seq or --until-time")
    };
    match error {
        Error::Config { key, detail, remedy } => {
            Error::Config { key: named(key), detail: named(detail), remedy: remedy.map(named) }
        }
        Error::Database { fault, path, detail, remedy, source } => {
            Error::Database { fault, path, detail, remedy: remedy.map(named), source }
        }
        other => other,
    }
}
