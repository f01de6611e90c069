//! `catchment spool drain`: forwards what a program has left in its spool.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::record::{FlushError, SpoolStatus, SpooledRecorderConfig};
use crate::store::Spool;
use crate::{Recorder, SpooledRecorder};

use crate::cli::failure::{self, Interrupted};
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::quantities::duration;
use crate::cli::settings::{BrokerArgs, DatabaseArgs, Settings};
use crate::cli::signals::Signals;
use crate::cli::values::counted;

/// How often to look for a signal.
const POLL: Duration = Duration::from_millis(100);

/// The shortest time without progress after which it gives up.
const LEAST_TIMEOUT: Duration = Duration::from_secs(2);

/// Forward the events that a program has left in its spool, and end
///
/// No program may use the spool meanwhile. The exit status is 0 if the spool is empty in the end. It is 1 if events are left, because there was
/// no answer for the time of --timeout, or if some became dead letters. What is left stays in the spool.
///
/// An event goes to the stream that takes its subject. With --stream the server refuses events that another stream would take; the events then have the
/// header Nats-Expected-Stream. broker.stream of the settings is not used.
#[derive(Args)]
pub struct Drain {
    /// The spool
    file: PathBuf,

    #[command(flatten)]
    broker: BrokerArgs,

    /// How long an event that the server refuses is sent again, while the stream stores others. Then it becomes a dead letter. The time counts
    /// from the first refusal, in an earlier run too
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    give_up_after: Duration,

    /// Print the result as JSON, also if events are left: {"forwarded", "left", "dead_letters", "error"}
    #[arg(short, long)]
    json: bool,
}

impl Drain {
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let broker = settings.for_broker(&DatabaseArgs::default(), &self.broker)?.broker;
        // Makes no spool where there is none.
        Spool::must_exist(&self.file)?;
        let signals = Signals::catch()?;
        let timeout = broker.timeout.max(LEAST_TIMEOUT);
        let mut config = SpooledRecorderConfig::new(&self.file);
        config.broker = broker;
        config.expected_stream = self.broker.stream().map(str::to_owned);
        config.give_up_after = self.give_up_after;
        let recorder = SpooledRecorder::open(config)?;
        let before = recorder.found();
        let drained = drain(&recorder, before.events, timeout, &signals);
        let _ = recorder.close(Duration::ZERO);
        let SpoolStatus { spooled, forwarded, dead_letters, .. } = recorder.status();
        let given_up = dead_letters.saturating_sub(before.dead_letters);
        let found = recorder.moved_to().map_or(Ok(()), |moved_to| Err(damaged(moved_to)));
        let ended = drained.and(found).and_then(|()| match given_up {
            0 => Ok(()),
            given_up => Err(anyhow::anyhow!(
                "{} became dead letters: catchment spool export --dead-letters prints them",
                counted(given_up, "event")
            )),
        });
        let mut output = Output::optional();
        if self.json {
            let line = serde_json::json!({
                "forwarded": forwarded,
                "left": spooled,
                "dead_letters": dead_letters,
                "error": ended.as_ref().err().map(failure::line),
            });
            writeln!(output, "{line}")?;
        } else if ended.is_ok() {
            writeln!(output, "forwarded {}; the spool is empty", counted(forwarded, "event"))?;
        }
        output.flush()?;
        ended
    }
}

/// The error for a spool that was damaged and moved aside.
pub(super) fn damaged(moved_to: &Path) -> anyhow::Error {
    let shown = moved_to.display();
    anyhow::anyhow!(
        "the spool is damaged: its events are in {shown}, and catchment spool export {shown} prints what can be read"
    )
}

fn drain(recorder: &SpooledRecorder, total: u64, timeout: Duration, signals: &Signals) -> anyhow::Result<()> {
    let progress = Progress::new(Some(total), "event", "forwarded");
    let (mut before, mut since) = (u64::MAX, Instant::now());
    loop {
        let trouble = match recorder.flush_to_stream(POLL) {
            Ok(()) => return Ok(()),
            Err(FlushError::Deadline { trouble, .. }) => trouble,
            Err(failed) => return Err(failed.into()),
        };
        let SpoolStatus { spooled, forwarded, .. } = recorder.status();
        progress.show(forwarded, trouble.clone().unwrap_or_default());
        if spooled != before {
            (before, since) = (spooled, Instant::now());
        }
        if let Some(status) = signals.interrupted() {
            let message =
                format!("interrupted: {} forwarded, {} left", counted(forwarded, "event"), counted(spooled, "event"));
            return Err(Interrupted { message, status }.into());
        }
        if since.elapsed() >= timeout {
            let why = trouble.unwrap_or_else(|| "no answer".into());
            anyhow::bail!("{} left in the spool: {why}", counted(spooled, "event"));
        }
    }
}
