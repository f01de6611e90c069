//! `catchment restore`

use std::io::Write;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;

use super::backup::{positions_json, write_positions};
use super::failure::line;
use super::output::Output;
use super::quantities::{file, rate};
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::task_progress::TaskProgress;
use super::values::{counted, printable};
use crate::config::Mode;
use crate::hint;
use crate::maintenance::{self, MissingInStream, RestoreOptions};
use crate::store::file_beside;

/// So many ranges that the stream lacks are in the JSON.
const MOST_LISTED: usize = 100;

/// Put a backup in the place of the database
///
/// The backup is checked and copied beside the database first; then the two are exchanged in one step. What was there is kept, with all
/// its commits, as DATABASE.before-restore-TIME. The backup stays as it is. The copy needs as much room beside the old database. No collector, recorder or other program may have the database
/// open.
///
/// The next run continues after the position of the backup: it reads from the stream what the backup lacks. If the broker can be asked,
/// restore says what the stream no longer has. A stream with interest or work-queue retention drops events when they are acknowledged, so
/// it has none of those that were collected after the backup. What was recorded without a stream after the backup is only in the file that is kept.
#[derive(Args)]
#[command(after_help = "\
SIGINT and SIGTERM end the restore before the exchange.
If it is killed, either the old database or the restored one is there, complete.
Exit status: 0 restored, also where the stream no longer has some events or cannot be asked; 1 not restored.

Examples:
  catchment restore backups/events.db
  catchment restore backups/events.db --database copy/events.db --offline")]
pub struct Restore {
    /// The backup
    #[arg(value_name = "FILE", value_parser = file(), value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Accept a backup of another database than that in the place
    #[arg(long)]
    other_database: bool,

    /// Copy at most so many bytes a second [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<ByteSize>,

    /// Do not ask the broker what the stream still has
    #[arg(long)]
    offline: bool,

    /// Print JSON: {"database", "kept", "identity", "positions", "positions_before", "missing", "missing_events", "gaps": [{"first",
    /// "last"}], "unknown": [text], "broker"}; kept, missing and broker may be null: missing is what the next start reports of the stream;
    /// gaps are the first hundred ranges that the stream no longer has; broker is why the broker was not asked
    #[arg(short, long)]
    json: bool,

    #[command(flatten)]
    broker: BrokerArgs,
}

/// What the broker says of the stream.
enum Stream {
    /// What it no longer has.
    Asked(MissingInStream),
    /// Why it was not asked.
    NotAsked(String),
}

impl Restore {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_broker(&self.database, &self.broker)?;
        let rate = self.rate.map(|rate| rate.as_u64());
        let options = RestoreOptions { other_database: self.other_database, rate };
        let progress = TaskProgress::new()?;
        let restored =
            maintenance::restore(&config.database, &self.file, &options, &|progressed| progress.report(progressed));
        let path = &config.database.path;
        let report = progress.end(restored, || format!("interrupted: {} is as before", path.display()))?;
        let is_core = config.broker.mode == Mode::Core;
        let has_own_server = file_beside(path, ".nats").is_dir();
        let stream = if is_core {
            Stream::NotAsked("core NATS keeps nothing: what was received after the backup does not come again".into())
        } else if self.offline {
            Stream::NotAsked("--offline is given".into())
        } else if has_own_server && config.broker.address_file.is_none() && !settings.names_servers(&self.broker)? {
            Stream::NotAsked("its own nats-server does not run".into())
        } else {
            match maintenance::missing_in_stream(path, &config.broker) {
                Ok(missing) => Stream::Asked(missing),
                Err(error) => Stream::NotAsked(line(&error.into())),
            }
        };
        let mut output = Output::optional();
        if self.json {
            let (missing, broker) = match &stream {
                Stream::Asked(missing) => (missing.clone(), None),
                Stream::NotAsked(reason) => (MissingInStream::default(), Some(reason)),
            };
            let gaps = missing.gone.iter().take(MOST_LISTED);
            let gaps: Vec<_> = gaps.map(|gap| serde_json::json!({ "first": gap.first, "last": gap.last })).collect();
            let line = serde_json::json!({
                "database": path.display().to_string(),
                "kept": report.kept.as_ref().map(|kept| kept.display().to_string()),
                "identity": report.identity,
                "positions": positions_json(&report.positions),
                "positions_before": report.positions_before.as_deref().map(positions_json),
                "missing": missing.notice,
                "missing_events": missing.gone.missing(),
                "gaps": gaps,
                "unknown": missing.unknown,
                "broker": broker,
            });
            writeln!(output, "{line}")?;
            return Ok(output.flush()?);
        }
        let shown = |path: &PathBuf| printable(&path.to_string_lossy()).into_owned();
        writeln!(output, "{} is restored from {}", shown(path), shown(&self.file))?;
        if let Some(kept) = &report.kept {
            writeln!(output, "what was there is kept as {}", shown(kept))?;
        }
        write_positions(&mut output, &report.positions)?;
        let start = hint::start(has_own_server);
        let goes_on = if report.positions.is_empty() { "begins at the start of the stream" } else { "continues there" };
        match stream {
            Stream::Asked(missing) => {
                match &missing.notice {
                    Some(notice) => writeln!(output, "{start} will report: {notice}")?,
                    None => writeln!(output, "{start} {goes_on}")?,
                }
                let stream = printable(&config.broker.stream).into_owned();
                if !missing.gone.is_empty() {
                    let events = counted(missing.gone.missing(), "event");
                    writeln!(output, "stream {stream} no longer has {events} after that: {}", missing.gone)?;
                } else if missing.notice.is_none() && missing.unknown.is_empty() && !report.positions.is_empty() {
                    writeln!(output, "stream {stream} has all that came after that")?;
                }
                for unknown in &missing.unknown {
                    writeln!(output, "not known: {unknown}")?;
                }
                if let (Some(kept), Some(before)) = (&report.kept, &report.positions_before)
                    && !before.is_empty()
                    && *before != report.positions
                    && (missing.notice.is_some() || !missing.gone.is_empty())
                {
                    writeln!(output, "what the stream lacks may be in {}, which has:", shown(kept))?;
                    write_positions(&mut output, before)?;
                }
            }
            Stream::NotAsked(reason) if is_core => writeln!(output, "{reason}")?,
            Stream::NotAsked(reason) => {
                writeln!(output, "{start} {goes_on}, and reports what the stream no longer has")?;
                if !self.offline {
                    output.flush()?;
                    log::info!("the broker was not asked what the stream still has: {reason}");
                }
            }
        }
        Ok(output.flush()?)
    }
}
