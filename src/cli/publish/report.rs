//! What happened to published events.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::Mode;
use crate::hint;
use crate::record::{Destination, FailureReason, FlushError, RecordError, RecorderCounts, WaitError};
use crate::store::Lock;
use crate::subject::Filter;
use crate::{Config, NatsRecorder, Receipt, Recorder};
use indicatif::HumanCount;

use super::events::Events;
use crate::cli::failure::{self, ExitStatus, Interrupted};
use crate::cli::output::Output;
use crate::cli::signals::Signals;
use crate::cli::values::counted;

/// How often to check for progress and for a signal.
pub const POLL: Duration = Duration::from_millis(100);

/// How long events may still be settled after a signal: without progress, and at most.
const AFTER_SIGNAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Why no more events are published.
pub enum Ending {
    /// All were passed on.
    Complete,
    /// An event, or what should have been one, could not be.
    Refused(anyhow::Error),
    /// A signal came first.
    Interrupted(ExitStatus),
}

/// How long to wait while no event is settled.
pub struct SettleTimeout {
    limit: Duration,
    settled: u64,
    since: Instant,
    signalled: Option<Instant>,
}

impl SettleTimeout {
    /// It is over when no event was settled for `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, settled: 0, since: Instant::now(), signalled: None }
    }

    /// Starts again: something new is waited for.
    pub fn renew(&mut self) {
        self.since = Instant::now();
    }

    /// Whether to stop waiting. After a signal that is soon.
    pub fn is_over(&mut self, counts: RecorderCounts, signals: &Signals) -> bool {
        if counts.settled() > self.settled {
            (self.settled, self.since) = (counts.settled(), Instant::now());
        }
        if !signals.end_asked() {
            return self.since.elapsed() >= self.limit;
        }
        let signalled = *self.signalled.get_or_insert_with(Instant::now);
        let (without_progress, at_most) = AFTER_SIGNAL;
        let limit = self.limit.min(without_progress);
        self.since.max(signalled).elapsed() >= limit || signalled.elapsed() >= at_most
    }
}

/// What happened to the events of one command.
pub struct PublishReport {
    mode: Mode,
    /// The database whose collector may store the events.
    database: PathBuf,
    /// The subjects of the settings' queries.
    queries: Vec<Filter>,
    /// The only stream that may store the events, if one is named.
    expected: Option<String>,
    /// Events that were passed to the recorder.
    passed_on: u64,
    /// Events that were not, because something is wrong with them.
    refused: u64,
    counts: RecorderCounts,
    destination: Option<Destination>,
    /// Why the first failed event failed.
    first_failure: Option<String>,
    trouble: Option<String>,
}

impl PublishReport {
    /// Of no events so far.
    pub fn new(config: &Config) -> Self {
        let counts = RecorderCounts::default();
        let (mode, database) = (config.broker.mode, config.database.path.clone());
        Self {
            mode,
            database,
            queries: config.queries.iter().filter_map(|query| query.subject.parse().ok()).collect(),
            expected: None,
            passed_on: 0,
            refused: 0,
            counts,
            destination: None,
            first_failure: None,
            trouble: None,
        }
    }

    /// Of events that only this stream may store.
    pub fn expecting(self, stream: Option<&str>) -> Self {
        Self { expected: stream.map(str::to_owned), ..self }
    }

    /// Notes an event that the recorder did not accept, or what should have been one.
    pub fn note_refused(&mut self) {
        self.refused += 1;
    }

    /// Waits until the `passed_on` events are settled, until `timeout` is over, and closes the recorder. `last` is the receipt of
    /// the last of them. Returns whether all were settled.
    pub fn settle(
        &mut self,
        recorder: &NatsRecorder,
        passed_on: u64,
        last: Option<Receipt>,
        timeout: &mut SettleTimeout,
        signals: &Signals,
    ) -> bool {
        let counters = recorder.counters();
        timeout.renew();
        let settled = loop {
            match recorder.flush(POLL) {
                Err(FlushError::Deadline { .. }) if timeout.is_over(counters.counts(), signals) => break false,
                Err(FlushError::Deadline { .. }) => {}
                ended => {
                    self.note(ended);
                    break true;
                }
            }
        };
        self.note(recorder.close(Duration::ZERO));
        match last.map(|receipt| receipt.wait(Duration::ZERO)) {
            Some(Ok(metadata)) => self.destination = Some(metadata.destination),
            Some(Err(WaitError::Failed(error))) => {
                let reason = self.explained(&error);
                self.first_failure.get_or_insert(reason);
            }
            Some(Err(WaitError::Pending(_))) | None => {}
        }
        (self.passed_on, self.counts) = (passed_on, counters.counts());
        settled
    }

    /// Where the last event is, if it is recorded.
    pub fn destination(&self) -> Option<&Destination> {
        self.destination.as_ref()
    }

    fn note(&mut self, ended: Result<(), FlushError>) {
        let (failed, trouble) = match ended {
            Ok(()) => return,
            Err(FlushError::Failed { failed, trouble }) => (failed, trouble),
            Err(FlushError::Deadline { trouble, .. }) => (Vec::new(), trouble),
        };
        self.trouble = self.trouble.take().or(trouble);
        if self.first_failure.is_none() {
            self.first_failure = failed.first().map(|error| self.explained(error));
        }
    }

    /// An error of an event. That the recorder was closed before the event was sent says nothing if something prevented it.
    fn explained(&self, error: &RecordError) -> String {
        match (&error.reason, &self.trouble) {
            (FailureReason::Closed, Some(trouble)) => format!("not stored: {trouble}"),
            // Without a stream, only that collector reads it, and confirms nothing.
            (FailureReason::NoStream | FailureReason::Unconfirmed(_), _) if Lock::is_of_core(&self.database) => {
                let database = self.database.display();
                format!(
                    "{error}; the collector of {database} collects from core NATS: publish with CATCHMENT_BROKER__MODE=core"
                )
            }
            (FailureReason::Refused(reason), _) if reason.contains("expected stream") && self.expected.is_some() => {
                format!("{error}; name that one with --stream, or leave --stream out")
            }
            (FailureReason::Unconfirmed(_), _)
                if self.queries.iter().any(|query| query.matches(error.event.subject())) =>
            {
                format!("{error}; its subject is that of a [[query]]: ask it with {}", hint::command("query"))
            }
            (FailureReason::NoStream, _) | (_, None) => error.to_string(),
            (_, Some(trouble)) => format!("{error} ({trouble})"),
        }
    }

    /// Prints the result.
    ///
    /// # Errors
    ///
    /// One line, if not all events are stored.
    pub fn finish(self, events: Option<&Events>, ending: Ending, json: bool, took: Duration) -> anyhow::Result<()> {
        let total = events.and_then(Events::total);
        let ended = self.outcome(events, total, ending);
        if json {
            self.print_json(total, ended.as_ref().err(), took)?;
            return ended.map(|_| ());
        }
        let line = ended?;
        let mut output = Output::optional();
        writeln!(output, "{line}")?;
        Ok(output.flush()?)
    }

    /// The line for a success, or the error.
    fn outcome(&self, events: Option<&Events>, total: Option<u64>, ending: Ending) -> anyhow::Result<String> {
        let RecorderCounts { stored, unknown, .. } = self.counts;
        let position = events.and_then(Events::position);
        match ending {
            // A signal came, and everything was done all the same.
            Ending::Interrupted(_) if total == Some(stored) => {}
            Ending::Interrupted(status) => {
                let line = position.map_or(String::new(), |line| format!(" at {line}"));
                let message = match total.unwrap_or(self.passed_on) {
                    0 => "interrupted before the first event".to_owned(),
                    total => format!("interrupted{line}: {}{}", self.counted(total), self.because()),
                };
                return Err(Interrupted { message, status }.into());
            }
            Ending::Refused(error) => {
                let error = match position {
                    Some(line) => error.context(line),
                    None => error,
                };
                if self.passed_on == 0 {
                    return Err(error);
                }
                let maybe = if unknown == 0 { String::new() } else { format!(", {} may be", HumanCount(unknown)) };
                let trouble = self.because();
                let before = counted(self.passed_on, "event");
                let are = if stored == 1 { "is" } else { "are" };
                anyhow::bail!("{error:#}; of {before} before it, {} {are} stored{maybe}{trouble}", HumanCount(stored));
            }
            Ending::Complete if stored < self.passed_on => {
                let first = self.first_failure.as_deref().unwrap_or_default();
                // For a single event, the reason is enough.
                anyhow::ensure!(self.passed_on > 1, "{first}");
                anyhow::bail!("{}; the first: {first}", self.counted(self.passed_on));
            }
            Ending::Complete => {}
        }
        let source = events.and_then(Events::source).filter(|_| stored == 0);
        Ok(self.success(source.map(|source| format!(": {source} has none")).unwrap_or_default()))
    }

    /// What prevented events from being stored, in brackets.
    fn because(&self) -> String {
        self.trouble.as_ref().map_or(String::new(), |trouble| format!(" ({trouble})"))
    }

    /// How many of so many events are stored, how many are not, and of how many that is not known.
    fn counted(&self, total: u64) -> String {
        let RecorderCounts { stored, unknown, .. } = self.counts;
        let not_stored = total.saturating_sub(stored + unknown);
        let verb = |count| match (self.mode, count) {
            (Mode::Jetstream, 1) => "is",
            (Mode::Jetstream, _) => "are",
            (Mode::Core, 1) => "was",
            (Mode::Core, _) => "were",
        };
        let (place, not_kept, maybe) = match self.mode {
            Mode::Jetstream => ("in the stream", "not", "may be"),
            Mode::Core => ("read by the server", "not sent", "may have been read"),
        };
        let mut parts = Vec::new();
        if stored > 0 {
            parts.push(format!("{} {} {place}", HumanCount(stored), verb(stored)));
        }
        // Only the first part says where.
        let place = if self.mode == Mode::Jetstream { " in the stream" } else { "" };
        let place_in = |parts: &[String]| if parts.is_empty() { place } else { "" };
        if not_stored > 0 {
            let place = place_in(&parts);
            parts.push(format!("{} {} {not_kept}{place}", HumanCount(not_stored), verb(not_stored)));
        }
        if unknown > 0 {
            let place = place_in(&parts);
            parts.push(format!("{} {maybe}{place} (sent, but without an answer)", HumanCount(unknown)));
        }
        format!("of {} {}", counted(total, "event"), parts.join(", "))
    }

    fn success(&self, none: String) -> String {
        let published = format!("published {}", counted(self.counts.stored, "event"));
        let more = match &self.destination {
            Some(Destination::Stream { stream, sequence: Some(sequence), duplicate }) => {
                let known = if *duplicate { ", which had it already" } else { "" };
                format!(", the last as {sequence} of stream {stream}{known}")
            }
            Some(Destination::Stream { stream, .. }) => format!(" in stream {stream}"),
            Some(Destination::Broker) => " (core NATS does not confirm that they were stored)".into(),
            _ => none,
        };
        published + &more
    }

    fn print_json(&self, total: Option<u64>, error: Option<&anyhow::Error>, took: Duration) -> anyhow::Result<()> {
        let (stream, sequence) = match &self.destination {
            Some(Destination::Stream { stream, sequence, .. }) => (Some(stream), *sequence),
            _ => (None, None),
        };
        let RecorderCounts { stored, unknown, not_stored, .. } = self.counts;
        let line = serde_json::json!({
            "published": stored,
            "not_stored": total.map_or(not_stored + self.refused, |total| total.saturating_sub(stored + unknown)),
            "unknown": unknown,
            "total": total,
            "interrupted": error.is_some_and(anyhow::Error::is::<Interrupted>),
            "error": error.map(failure::line),
            "stream": stream,
            "last_sequence": sequence,
            "seconds": took.as_secs_f64(),
        });
        let mut output = Output::optional();
        writeln!(output, "{line}")?;
        Ok(output.flush()?)
    }
}
