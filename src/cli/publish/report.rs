//! What happened to published events.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::config::Mode;
use crate::record::{Destination, FlushError, RecorderCounters, RecorderCounts, WaitError};
use crate::{NatsRecorder, Receipt, Recorder};
use indicatif::HumanCount;

use crate::cli::output::Output;
use crate::cli::values::counted;

/// How often to check for progress.
const POLL: Duration = Duration::from_millis(100);

/// What happened to the events of one recorder.
pub struct PublishReport {
    counters: RecorderCounters,
    mode: Mode,
    last: Option<Receipt>,
    /// Where the last event is.
    destination: Option<Destination>,
    /// Why the first failed event failed.
    first_failure: Option<String>,
    trouble: Option<String>,
}

impl PublishReport {
    pub fn of(recorder: &NatsRecorder, mode: Mode) -> Self {
        Self { counters: recorder.counters(), mode, last: None, destination: None, first_failure: None, trouble: None }
    }

    /// Keeps the receipt of the last event.
    pub fn last(&mut self, receipt: Receipt) {
        self.last = Some(receipt);
    }

    /// Waits until every event is settled, then closes the recorder. Gives up when no event is settled for `patience`.
    pub fn settle(&mut self, recorder: &NatsRecorder, patience: Duration) {
        let (mut settled, mut since) = (self.counters.counts().settled(), Instant::now());
        loop {
            match recorder.flush(POLL.min(patience)) {
                Err(FlushError::Deadline { .. }) => {}
                ended => {
                    self.note(ended);
                    break;
                }
            }
            let now = self.counters.counts().settled();
            if now > settled {
                (settled, since) = (now, Instant::now());
            }
            if since.elapsed() >= patience {
                break;
            }
        }
        self.note(recorder.close(Duration::ZERO));
        match self.last.take().map(|receipt| receipt.wait(Duration::ZERO)) {
            Some(Ok(metadata)) => self.destination = Some(metadata.destination),
            Some(Err(WaitError::Failed(error))) => {
                self.first_failure.get_or_insert_with(|| error.to_string());
            }
            Some(Err(WaitError::Pending(_))) | None => {}
        }
    }

    /// Where the last event is, if it is recorded.
    pub fn destination(&self) -> Option<&Destination> {
        self.destination.as_ref()
    }

    fn note(&mut self, ended: Result<(), FlushError>) {
        let (first, trouble) = match ended {
            Ok(()) => return,
            Err(FlushError::Failed { failed, trouble }) => (failed.first().map(ToString::to_string), trouble),
            Err(FlushError::Deadline { trouble, .. }) => (None, trouble),
        };
        self.first_failure = self.first_failure.take().or(first);
        self.trouble = self.trouble.take().or(trouble);
    }

    /// Prints the result for `published` events, after which `refused` may have ended the publishing.
    ///
    /// # Errors
    ///
    /// One line, if not all of them are stored or an event was refused.
    pub fn finish(
        mut self,
        published: u64,
        refused: Option<anyhow::Error>,
        json: bool,
        took: Duration,
    ) -> anyhow::Result<()> {
        let destination = self.destination.take();
        let counts = self.counters.counts();
        if json {
            print_json(counts, destination.as_ref(), took)?;
        }
        let trouble = self.trouble.as_ref().map_or(String::new(), |trouble| format!(" ({trouble})"));
        if let Some(refused) = refused {
            let unknown = match counts.unknown {
                0 => String::new(),
                unknown => format!(", {unknown} may be"),
            };
            let before = counted(published, "event");
            anyhow::bail!("{refused}; of {before} before it, {} are stored{unknown}{trouble}", counts.stored);
        }
        if counts.stored < published {
            let first = self.first_failure.unwrap_or_default();
            anyhow::bail!("{}{first}{trouble}", missing(self.mode, published, counts));
        }
        if !json {
            print(published, destination)?;
        }
        Ok(())
    }
}

/// The beginning of an error: how many events are stored, how many are not. Empty for a single event, where the reason is
/// enough.
fn missing(mode: Mode, published: u64, counts: RecorderCounts) -> String {
    if published == 1 {
        return String::new();
    }
    let (kept, not_kept, unknown) = match mode {
        Mode::Jetstream => ("are in the stream", "are not", "may be (sent, but the stream did not answer)"),
        Mode::Core => ("were read by the server", "were not sent", "may have been read"),
    };
    let parts = [(counts.stored, kept), (counts.not_stored, not_kept), (counts.unknown, unknown)];
    let parts: Vec<String> = parts.into_iter().map(|(count, what)| format!("{} {what}", HumanCount(count))).collect();
    format!("of {} {}; the first: ", counted(published, "event"), parts.join(", "))
}

fn print_json(counts: RecorderCounts, destination: Option<&Destination>, took: Duration) -> anyhow::Result<()> {
    let (stream, sequence) = match destination {
        Some(Destination::Stream { stream, sequence, .. }) => (Some(stream), Some(sequence)),
        _ => (None, None),
    };
    let line = serde_json::json!({
        "published": counts.stored,
        "not_stored": counts.not_stored,
        "unknown": counts.unknown,
        "stream": stream,
        "last_sequence": sequence,
        "seconds": took.as_secs_f64(),
    });
    let mut output = Output::optional();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

fn print(published: u64, destination: Option<Destination>) -> anyhow::Result<()> {
    let mut output = Output::optional();
    write!(output, "published {}", counted(published, "event"))?;
    match destination {
        Some(Destination::Stream { stream, sequence, duplicate }) => {
            let known = if duplicate { ", which had it already" } else { "" };
            write!(output, ", the last as {sequence} of stream {stream}{known}")?;
        }
        Some(Destination::Broker) => write!(output, " (core NATS does not confirm that they were stored)")?,
        _ => {}
    }
    writeln!(output)?;
    Ok(output.flush()?)
}
