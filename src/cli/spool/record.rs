//! `catchment spool record`: keeps an event in a spool, for scripts.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::record::{Destination, FlushError, RecordError, SpooledRecorderConfig};
use crate::{Event, Recorder, SpooledRecorder};

use crate::cli::failure::{Interrupted, UsageError};
use crate::cli::output::Output;
use crate::cli::quantities::duration;
use crate::cli::settings::{BrokerArgs, DatabaseArgs, Settings};
use crate::cli::signals::Signals;
use crate::cli::values::counted;

/// How often to look for a signal.
const POLL: Duration = Duration::from_millis(50);

/// Keep an event in a spool, and forward what is in the spool if the broker is there
///
/// For scripts: the event is on the disk when this ends with status 0, with a broker or without. The spool is made if it is missing. Events that
/// the stream does not have yet are forwarded by the next such command, by spool drain, or by a program that uses the spool. No other
/// program may use it meanwhile.
///
/// An event goes to the stream that takes its subject. With --stream the server refuses events that another stream would take; the events then have the
/// header Nats-Expected-Stream. broker.stream of the settings is not used.
#[derive(Args)]
pub struct Record {
    /// The spool
    file: PathBuf,

    /// Subject of the event
    subject: String,

    /// Payload of the event
    payload: OsString,

    #[command(flatten)]
    broker: BrokerArgs,

    /// How long an event that the server refuses is sent again, while the stream stores others. Then it becomes a dead letter. The time counts
    /// from the first refusal, in an earlier run too
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    give_up_after: Duration,

    /// Event id (Nats-Msg-Id): the stream stores only one event with the same id
    #[arg(long)]
    id: Option<String>,

    /// Print JSON: {"stream", "sequence", "waiting", "trouble"}; stream and sequence are null while the event waits
    #[arg(short, long)]
    json: bool,
}

impl Record {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let broker = settings.for_broker(&DatabaseArgs::default(), &self.broker)?.broker;
        let timeout = broker.timeout;
        let mut event = Event::new(self.subject, self.payload.into_vec());
        if let Some(id) = self.id {
            event = event.id(id);
        }
        // A wrong event makes no spool.
        event.validate().map_err(|invalid| UsageError(invalid.to_string()))?;
        let signals = Signals::catch()?;
        let mut config = SpooledRecorderConfig::new(&self.file);
        config.broker = broker;
        config.expected_stream = self.broker.stream().map(str::to_owned);
        config.give_up_after = self.give_up_after;
        let recorder = SpooledRecorder::open(config)?;
        let receipt = recorder.record(event)?;
        keep(&recorder, timeout, &signals)?;
        let began = Instant::now();
        let (mut receipt, mut metadata) = (Some(receipt), None);
        while let Some(waiting) = receipt.take() {
            match waiting.wait_for_stream(POLL) {
                Ok(known) => metadata = Some(known),
                Err(crate::record::WaitError::Failed(RecordError { reason, .. })) => anyhow::bail!(
                    "the event was given up: {reason}; it is kept as a dead letter of the spool, and catchment spool retry puts it back"
                ),
                Err(crate::record::WaitError::Pending(waiting)) => {
                    // That other events are refused says nothing of this one.
                    let is_served =
                        recorder.health().is_well() || (recorder.is_answered() && !recorder.is_last_refused());
                    if is_served && !signals.end_asked() && began.elapsed() < timeout {
                        receipt = Some(waiting);
                    }
                }
            }
        }
        let troubles = recorder.health().troubles;
        let trouble = troubles.first().map(|trouble| trouble.reason.as_str());
        let _ = recorder.close(Duration::ZERO);
        let waiting = recorder.status().spooled;
        let (stream, sequence) = match metadata.map(|metadata| metadata.destination) {
            Some(Destination::Stream { stream, sequence, .. }) => (Some(stream), sequence),
            _ => (None, None),
        };
        let mut output = Output::optional();
        if self.json {
            let line =
                serde_json::json!({ "stream": stream, "sequence": sequence, "waiting": waiting, "trouble": trouble });
            writeln!(output, "{line}")?;
        } else if let Some(stream) = stream {
            let at = sequence.map_or(String::new(), |sequence| format!("as {sequence} of "));
            writeln!(output, "forwarded, {at}stream {stream}")?;
        } else {
            writeln!(output, "kept in the spool; {} waiting for the stream", counted(waiting, "event"))?;
        }
        Ok(output.flush()?)
    }
}

/// Waits until the event is in the spool. A full disk may take long.
fn keep(recorder: &SpooledRecorder, timeout: Duration, signals: &Signals) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let trouble = match recorder.flush(POLL) {
            Err(FlushError::Deadline { trouble, .. }) => trouble,
            kept => return Ok(kept?),
        };
        let interrupted = signals.interrupted();
        if interrupted.is_none() && began.elapsed() < timeout {
            continue;
        }
        // It may be kept at the last moment.
        if recorder.close(Duration::ZERO).is_ok() {
            return Ok(());
        }
        let why = trouble.map_or(String::new(), |trouble| format!(": {trouble}"));
        match interrupted {
            Some(status) => {
                return Err(Interrupted { message: format!("interrupted; the event is not kept{why}"), status }.into());
            }
            None => anyhow::bail!("the event is not kept{why}"),
        }
    }
}
