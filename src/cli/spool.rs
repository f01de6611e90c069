//! `catchment spool`: the spool of a program that records events.

mod drain;
mod record;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use indicatif::HumanCount;

use crate::config::DatabaseConfig;
use crate::store::event_line;
use crate::store::{Lock, RetriedLetters, Spool as SpoolFile, SpoolInspection, SpoolPart, SpoolTotals};
use crate::unix_time::since_us;

use super::figures;
use super::output::Output;
use super::settings::Settings;
use super::values::counted;

/// Look into the spool of a program that records events, and forward what it has left
///
/// A SpooledRecorder keeps events in a file, its spool, until the stream has them.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Spool {
    #[command(subcommand)]
    action: Action,
}

const AFTER_HELP: &str = "\
Examples:
  catchment spool record orders.spool orders.paid 'order 17'
  catchment spool status orders.spool
  catchment spool drain orders.spool --server nats://127.0.0.1:4222
  catchment spool export orders.spool --dead-letters > letters.ndjson";

#[derive(Subcommand)]
enum Action {
    Record(record::Record),
    Status(Status),
    Drain(drain::Drain),
    Export(Export),
    Retry(Retry),
}

impl Spool {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        match self.action {
            Action::Record(record) => record.run(settings),
            Action::Status(status) => status.run(),
            Action::Drain(drain) => drain.run(settings),
            Action::Export(export) => export.run(),
            Action::Retry(retry) => retry.run(),
        }
    }
}

/// Print what is in a spool, also while a program uses it
#[derive(Args)]
struct Status {
    /// The spool
    file: PathBuf,

    /// Print JSON: {"events", "bytes", "oldest_us", "forwarded", "dropped", "dead_letters", "holder"}; oldest_us is the time at which the
    /// oldest event was recorded, holder the process that uses the spool
    #[arg(short, long)]
    json: bool,
}

impl Status {
    fn run(&self) -> anyhow::Result<()> {
        let spool = SpoolInspection::open(&self.file)?;
        let SpoolTotals { events, bytes, forwarded, dropped, dead_letters } = spool.totals()?;
        let oldest_us = spool.oldest_us()?;
        let holder = Lock::holder(&self.file)?;
        let mut output = Output::optional();
        if self.json {
            let line = serde_json::json!({
                "events": events,
                "bytes": bytes,
                "oldest_us": oldest_us,
                "forwarded": forwarded,
                "dropped": dropped,
                "dead_letters": dead_letters,
                "holder": holder,
            });
            writeln!(output, "{line}")?;
            return Ok(output.flush()?);
        }
        let oldest = oldest_us.map_or(String::new(), |us| {
            format!(", the oldest for {}", figures::time(Some(since_us(us).as_secs_f64())))
        });
        let used = holder.map_or("no process uses it".to_owned(), |holder| format!("{holder} uses it"));
        writeln!(output, "{} waiting, {}{oldest}; {used}", counted(events, "event"), figures::size(bytes))?;
        writeln!(
            output,
            "{} forwarded, {} dropped, {}",
            HumanCount(forwarded),
            HumanCount(dropped),
            counted(dead_letters, "dead letter")
        )?;
        Ok(output.flush()?)
    }
}

/// Print the events of a spool as lines of JSON, also of one that is damaged
///
/// A line is as tail events --json prints it: {"id", "subject", "published_us", "headers", "payload"}. publish --events reads it. Published
/// in that way, an event has another number: if it is also forwarded from the spool, the database has it twice.
///
/// Of a damaged spool, it prints what can be read, and the exit status is 1.
#[derive(Args)]
struct Export {
    /// The spool
    file: PathBuf,

    /// Print the dead letters instead, each with its "error", which publish --events does not use
    #[arg(long)]
    dead_letters: bool,
}

impl Export {
    fn run(&self) -> anyhow::Result<()> {
        let part = if self.dead_letters { SpoolPart::DeadLetters } else { SpoolPart::Waiting };
        let mut output = Output::new();
        let mut count = 0_u64;
        let read = SpoolInspection::each(&self.file, part, |event| -> std::io::Result<()> {
            let line =
                event_line::line(event.id, &event.subject, event.recorded_us, event.headers.as_deref(), &event.payload);
            let mut line = serde_json::to_string(&line)?;
            if let Some(error) = event.error {
                line.pop();
                line = format!("{line},\"error\":{}}}", serde_json::Value::from(error));
            }
            count += 1;
            writeln!(output, "{line}")
        })?;
        output.flush()?;
        read.map_err(|error| anyhow::anyhow!("{error}; {} could be read", counted(count, "event")))
    }
}

/// Put the dead letters of a spool back, to be forwarded again
///
/// Make the stream that they lack first. No program may use the spool meanwhile. The next start of the program, or spool drain, forwards
/// them.
///
/// A dead letter is sent under its own number, so that the database recognises it if the stream has stored it after all. It cannot do so once
/// the program has recorded 65,536 further events in the same start. Then an event that is certain to be nowhere gets another number; the others
/// stay, and the exit status is 1.
#[derive(Args)]
struct Retry {
    /// The spool
    file: PathBuf,

    /// Put those back too that may be stored already and would not be recognised: such an event may be stored twice
    #[arg(long)]
    as_new: bool,

    /// Print JSON: {"retried", "renumbered", "left"}; renumbered of those that were retried have another number
    #[arg(short, long)]
    json: bool,
}

impl Retry {
    fn run(&self) -> anyhow::Result<()> {
        // Makes no spool where there is none.
        SpoolFile::must_exist(&self.file)?;
        let lock = Lock::take_spool(&self.file)?;
        let config = DatabaseConfig { path: self.file.clone(), ..DatabaseConfig::default() };
        let (_lock, (spool, _)) = lock.keep_if_ok(SpoolFile::open(&config, |_| {}))?;
        if let Some(moved_to) = spool.moved_to() {
            return Err(drain::damaged(moved_to));
        }
        let RetriedLetters { same, renumbered, left } = spool.retry_dead_letters(self.as_new)?;
        let mut output = Output::optional();
        if self.json {
            let line = serde_json::json!({ "retried": same + renumbered, "renumbered": renumbered, "left": left });
            writeln!(output, "{line}")?;
        } else {
            let of_them = match renumbered {
                0 => String::new(),
                _ => format!(", {} of them under another number", HumanCount(renumbered)),
            };
            writeln!(output, "{} put back{of_them}", counted(same + renumbered, "dead letter"))?;
        }
        output.flush()?;
        anyhow::ensure!(
            left == 0,
            "{} left: the stream may have stored them, and the database would not recognise them, because too many later events were \
             recorded; --as-new puts them back all the same",
            counted(left, "dead letter")
        );
        Ok(())
    }
}
