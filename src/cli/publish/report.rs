//! What became of published events, and how it is told.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::config::Mode;
use crate::record::{Destination, FlushError, RecorderCounters, RecorderCounts, WaitError};
use crate::{NatsRecorder, Receipt, Recorder};
use indicatif::HumanCount;

use crate::cli::output::Output;
use crate::cli::values::counted;

/// How often to look whether there is progress.
const LOOK: Duration = Duration::from_millis(100);

/// What became of the events of one recorder.
pub struct PublishReport {
    counters: RecorderCounters,
    mode: Mode,
    last: Option<Receipt>,
    /// Why the first event failed that is known to have.
    first: Option<String>,
    trouble: Option<String>,
}

impl PublishReport {
    pub fn of(recorder: &NatsRecorder, mode: Mode) -> Self {
        Self { counters: recorder.counters(), mode, last: None, first: None, trouble: None }
    }

    /// Keeps the receipt of the last event.
    pub fn last(&mut self, receipt: Receipt) {
        self.last = Some(receipt);
    }

    /// Waits until all is settled, for as long as something is settled within every `patience`, and closes the recorder.
    pub fn settle(&mut self, recorder: NatsRecorder, patience: Duration) {
        let (mut settled, mut since) = (self.counters.counts().settled(), Instant::now());
        loop {
            match recorder.flush(LOOK.min(patience)) {
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
    }

    fn note(&mut self, ended: Result<(), FlushError>) {
        let (first, trouble) = match ended {
            Ok(()) => return,
            Err(FlushError::Failed { failed, trouble }) => (failed.first().map(ToString::to_string), trouble),
            Err(FlushError::Deadline { trouble, .. }) => (None, trouble),
        };
        self.first = self.first.take().or(first);
        self.trouble = self.trouble.take().or(trouble);
    }

    /// Tells what became of `published` events, behind which `refused` ended the publishing.
    ///
    /// # Errors
    ///
    /// One line, where not all of them are stored or something was refused.
    pub fn finish(
        mut self,
        published: u64,
        refused: Option<anyhow::Error>,
        json: bool,
        took: Duration,
    ) -> anyhow::Result<()> {
        let place = match self.last.take().map(|receipt| receipt.wait(Duration::ZERO)) {
            Some(Ok(recorded)) => Some(recorded.destination),
            Some(Err(WaitError::Failed(error))) => {
                self.first.get_or_insert_with(|| error.to_string());
                None
            }
            Some(Err(WaitError::Pending(_))) | None => None,
        };
        let counts = self.counters.counts();
        if json {
            print_json(counts, place.as_ref(), took)?;
        }
        let trouble = self.trouble.as_ref().map_or(String::new(), |trouble| format!(" ({trouble})"));
        if let Some(refused) = refused {
            let unknown = match counts.unknown {
                0 => String::new(),
                unknown => format!(", {unknown} may be"),
            };
            let before = counted(published, "event");
            anyhow::bail!("{refused}; of {before} before it {} are kept{unknown}{trouble}", counts.stored);
        }
        if counts.stored < published {
            let first = self.first.unwrap_or_default();
            anyhow::bail!("{}{first}{trouble}", missing(self.mode, published, counts));
        }
        if !json {
            print(published, place)?;
        }
        Ok(())
    }
}

/// The beginning of an error that says how many events came to what; nothing of a single event, for which the reason says
/// all.
fn missing(mode: Mode, published: u64, counts: RecorderCounts) -> String {
    if published == 1 {
        return String::new();
    }
    let (kept, not_kept, unknown) = match mode {
        Mode::Jetstream => ("are in the stream", "are not", "may be (sent, and the stream gave no answer)"),
        Mode::Core => ("were read by the server", "were not sent", "may have been read"),
    };
    let parts = [(counts.stored, kept), (counts.not_stored, not_kept), (counts.unknown, unknown)];
    let parts: Vec<String> = parts.into_iter().map(|(count, what)| format!("{} {what}", HumanCount(count))).collect();
    format!("of {} {}; the first: ", counted(published, "event"), parts.join(", "))
}

fn print_json(counts: RecorderCounts, place: Option<&Destination>, took: Duration) -> anyhow::Result<()> {
    let (stream, sequence) = match place {
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
    let mut output = Output::new();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

fn print(published: u64, place: Option<Destination>) -> anyhow::Result<()> {
    let mut output = Output::new();
    write!(output, "published {}", counted(published, "event"))?;
    match place {
        Some(Destination::Stream { stream, sequence, duplicate }) => {
            let known = if duplicate { ", which had it already" } else { "" };
            write!(output, ", the last as {sequence} of stream {stream}{known}")?;
        }
        Some(Destination::Broker) => write!(output, " (core NATS: nobody confirmed that they were stored)")?,
        _ => {}
    }
    writeln!(output)?;
    Ok(output.flush()?)
}
