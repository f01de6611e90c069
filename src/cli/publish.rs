//! `catchment publish`: publish events to a stream or to core NATS.

mod report;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::record::Overflow;
use crate::{Event, NatsRecorder, NatsRecorderConfig, Recorder};
use clap::Args;
use report::PublishReport;

use super::failure::UsageError;
use super::lines::Lines;
use super::progress::Progress;
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::signals::Signals;
use super::starting;
use super::{committed, event_line};

/// Publish events: one from the command line, lines of a file or of standard input, or generated load
///
/// The exit status is 0 if the stream has acknowledged every event; a collector then stores them in the database. Otherwise it is
/// 1, and the error has the number of events that are stored, that are not, and that have no answer.
///
/// With broker.mode = "core" in the settings (CATCHMENT_BROKER__MODE=core) there is no stream. Exit status 0 then means that the
/// server has read every event, but not that any subscriber has stored it.
#[derive(Args)]
pub struct Publish {
    #[command(flatten)]
    broker: BrokerArgs,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Subject of the events, for example events.hello
    #[arg(required_unless_present = "events")]
    subject: Option<String>,

    /// Payload of a single event [default: each line of standard input is one event]
    payload: Option<String>,

    /// Read lines from this file instead of standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "payload")]
    file: Option<PathBuf>,

    /// Each line is a whole event as tail --json and dead-letters export print it: {"subject", "headers", "payload"}. The payload
    /// is text, {"$blob":"<base64>"}, or JSON that is published verbatim. Headers that begin with Nats- are left out, except for
    /// the identity
    #[arg(long, conflicts_with_all = ["subject", "payload", "count", "id"])]
    events: bool,

    /// Header NAME:VALUE; can be repeated
    #[arg(short = 'H', long, value_name = "HEADER")]
    header: Vec<String>,

    /// Identity of the event (Nats-Msg-Id): the stream stores only one event with the same identity
    #[arg(long, requires = "payload")]
    id: Option<String>,

    /// Generate this many events: {"n": number, "sent_us": the time at which it was due}
    #[arg(long, value_name = "EVENTS", conflicts_with_all = ["payload", "file"])]
    count: Option<u64>,

    /// Publish this many events a second; above 1,000, those of a millisecond at once [default: as fast as the stream accepts them]
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,

    /// Size of a generated payload in bytes, at least 48
    #[arg(long, value_name = "BYTES", default_value_t = 100, requires = "count")]
    size: usize,

    /// Print the result as JSON, also if not all are stored: {"published", "not_stored", "unknown", "stream", "last_sequence",
    /// "seconds"}
    #[arg(short, long)]
    json: bool,
}

/// The events to publish, in order.
type Events<'a> = Box<dyn Iterator<Item = anyhow::Result<Event>> + 'a>;

impl Publish {
    /// Publishes, and waits until the stream has answered for each event.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let headers = self.headers()?;
        let with_headers = |event| headers.iter().fold(event, |event: Event, (name, value)| event.header(name, value));
        let subject = self.subject.as_deref().unwrap_or("events");
        with_headers(Event::new(subject, "")).validate().map_err(|invalid| UsageError(invalid.to_string()))?;
        let signals = Signals::catch()?;
        let (events, total) = self.events(subject, &signals)?;
        let config = settings.for_broker(&self.database, &self.broker)?;
        let (patience, mode) = (config.broker.timeout, config.broker.mode);
        let is_named = settings.names_servers(&self.broker)?;
        let recorder = starting::connect(&config.database.path, patience, is_named, &|| !signals.end_asked(), || {
            let mut recorder_config = NatsRecorderConfig::default();
            // Read again for each attempt: the server may have written its address meanwhile.
            let broker = settings.for_broker(&self.database, &self.broker)?.broker;
            (recorder_config.broker, recorder_config.overflow) = (broker, Overflow::Block(patience));
            Ok(NatsRecorder::open(recorder_config)?)
        })?;
        let progress = Progress::new(total, "events handed over");
        let began = Instant::now();
        let mut report = PublishReport::of(&recorder, mode);
        let (mut published, mut refused, mut last_subject) = (0, None, None);
        for event in events {
            self.pace(began, published);
            if signals.end_asked() {
                break;
            }
            if self.events
                && let Ok(event) = &event
            {
                last_subject = Some(event.subject().to_owned());
            }
            match event.and_then(|event| Ok(recorder.record(with_headers(event))?)) {
                Ok(receipt) => report.last(receipt),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
            published += 1;
            if published % 256 == 0 || self.rate.is_some() {
                progress.show(published, String::new());
            }
        }
        report.settle(&recorder, patience.max(Duration::from_secs(1)));
        let took = began.elapsed();
        committed::wait(&config, last_subject.as_deref().unwrap_or(subject), report.destination());
        progress.clear();
        report.finish(published, refused, self.json, took)
    }

    fn headers(&self) -> anyhow::Result<Vec<(String, String)>> {
        let parse = |header: &String| -> anyhow::Result<(String, String)> {
            let (name, value) = header.split_once(':').ok_or_else(|| {
                UsageError(format!("--header {header:?} has no colon; write NAME:VALUE, for example Trace-Id:7"))
            })?;
            let name = name.trim();
            if name.eq_ignore_ascii_case("Nats-Msg-Id") {
                return Err(UsageError(format!("--header {name} is the event's identity; give it with --id")).into());
            }
            Ok((name.to_owned(), value.trim().to_owned()))
        };
        self.header.iter().map(parse).collect()
    }

    /// The events to publish, and their number if it is known.
    fn events<'a>(&self, subject: &'a str, signals: &Signals) -> anyhow::Result<(Events<'a>, Option<u64>)> {
        let event = move |payload: Vec<u8>| Event::new(subject, payload);
        if let Some(payload) = &self.payload {
            let event = event(payload.clone().into_bytes());
            let event = self.id.iter().fold(event, Event::id);
            return Ok((Box::new(std::iter::once(Ok(event))), Some(1)));
        }
        if let Some(count) = self.count {
            let (size, rate) = (self.size, self.rate);
            // The clock starts with the first event, like that of `pace`.
            let mut began = None;
            let events = (0..count).map(move |number| {
                let now = SystemTime::now();
                let began = *began.get_or_insert(now);
                Ok(event(generated(number, rate.map_or(now, |rate| began + due(number, rate)), size)))
            });
            return Ok((Box::new(events), Some(count)));
        }
        let lines = Lines::of(self.file.as_deref(), signals)?;
        if self.events {
            let read = |(at, line): (usize, io::Result<Vec<u8>>)| {
                event_line::read(&line?).map_err(|reason| anyhow::anyhow!("event {}: {reason}", at + 1))
            };
            return Ok((Box::new(lines.enumerate().map(read)), None));
        }
        Ok((Box::new(lines.map(move |line| Ok(event(line?)))), None))
    }

    /// Waits until the event of this number is due. At high rates it waits a whole tick, because a wake-up for each event would cost
    /// more than publishing it. Due times count from the start, so a late event does not delay later ones.
    fn pace(&self, began: Instant, number: u64) {
        const TICK: Duration = Duration::from_millis(1);
        let Some(rate) = self.rate else { return };
        let wait = (began + due(number, rate)).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            // If less than one event is due in a tick, each is published at its own time.
            std::thread::sleep(if due(1, rate) < TICK { wait.max(TICK) } else { wait });
        }
    }
}

/// When the event of this number is due, counted from the start.
fn due(number: u64, rate: u64) -> Duration {
    Duration::from_secs(number / rate) + Duration::from_nanos(number % rate * 1_000_000_000 / rate)
}

/// A payload of about this size with the number of the event and the time at which it was due.
fn generated(number: u64, due: SystemTime, size: usize) -> Vec<u8> {
    let due_us = due.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let mut payload = format!("{{\"n\":{number},\"sent_us\":{due_us}");
    let rest = size.saturating_sub(payload.len());
    // `,"pad":""}` takes ten bytes; a smaller payload gets none.
    if rest > 10 {
        payload += ",\"pad\":\"";
        payload.extend(std::iter::repeat_n('x', rest - 10));
        payload.push('"');
    }
    payload.push('}');
    payload.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_payloads_are_json_of_the_requested_size() {
        for size in [100, 1_000] {
            let payload = generated(7, UNIX_EPOCH, size);
            assert_eq!(payload.len(), size);
            let value: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
            assert_eq!(value["n"], 7);
        }
        assert_eq!(due(2_500, 1_000), Duration::from_millis(2_500));
        assert!(serde_json::from_slice::<serde_json::Value>(&generated(7, UNIX_EPOCH, 0)).is_ok());
    }
}
