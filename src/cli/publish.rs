//! `catchment publish`: publish events to a stream or to core NATS.

mod events;
mod report;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Mode;
use crate::error::Error;
use crate::hint;
use crate::record::{FailureReason, Identity, Overflow, RecordError, expected_stream};
use crate::subject::Filter;
use crate::timer_slack;
use crate::{Config, Event, NatsRecorder, NatsRecorderConfig, Receipt, Recorder};
use clap::{Args, ValueEnum};
use events::{Events, LineFormat, Load, due};
use report::{Ending, POLL, PublishReport, SettleTimeout};

use super::failure::UsageError;
use super::lines::{Lines, Source};
use super::progress::Progress;
use super::quantities::whole;
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::signals::Signals;
use super::{committed, starting};

/// The largest payload that is generated. A server accepts 64 MiB at most.
const LARGEST: u64 = 64 << 20;

/// The shortest time without any answer after which it gives up. That no stream takes an event is certain only after some attempts.
const LEAST_TIMEOUT: Duration = Duration::from_secs(2);

/// Publish events: one from the command line, lines of a file or of standard input, or generated load
///
/// The exit status is 0 if the stream has acknowledged every event; a collector then stores them in the database. Otherwise it is
/// 1, or 130 or 143 after SIGINT or SIGTERM, and the error has the number of events that are stored, that are not, and that have no
/// answer. An input without events is no error.
///
/// An event goes to the stream that takes its subject. With --stream the server refuses events that another stream would take; the
/// events then have the header Nats-Expected-Stream. broker.stream of the settings is not used.
///
/// Lines end with \n or \r\n. Lines of white space only are skipped, and so is a byte order mark at the start.
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

    /// Payload of a single event; - or none: each line of standard input is the payload of an event
    payload: Option<OsString>,

    /// Read lines from this file instead of standard input, which is -
    #[arg(short, long, value_name = "FILE", conflicts_with = "payload")]
    file: Option<PathBuf>,

    /// Each line is a whole event as tail --json and dead-letters export print it: {"subject", "payload", "headers"}; headers may
    /// be left out. The payload is text, {"$blob":"<base64>"}, or other JSON that is published verbatim. Headers that begin with Nats- are
    /// left out, except for an event id that the publisher gave, Nats-Msg-Id. Of the other keys that those print, id and published_us are not used, and
    /// raw_headers is refused
    #[arg(long, conflicts_with_all = ["payload", "count"])]
    events: bool,

    /// Header NAME:VALUE; can be repeated
    #[arg(short = 'H', long, value_name = "HEADER")]
    header: Vec<String>,

    /// Event id of a single event (Nats-Msg-Id): the stream stores only one event with the same id
    #[arg(long)]
    id: Option<String>,

    /// Generate this many events: {"n": number, "sent_us": the time at which it was due}
    #[arg(long, value_name = "EVENTS", value_parser = whole::<u64>(0..=u64::MAX, 1000), conflicts_with_all = ["payload", "file"])]
    count: Option<u64>,

    /// By what an event that is sent again after a lost connection is recognised
    #[arg(long, value_enum, default_value_t)]
    identity: RecognisedBy,

    /// Publish this many events a second; above 1,000, those of a millisecond at once [default: as fast as the stream accepts them]
    #[arg(long, value_name = "EVENTS", value_parser = whole::<u64>(1..=u64::MAX, 1000))]
    rate: Option<u64>,

    /// Size of a generated payload in bytes, at least 48
    #[arg(long, value_name = "BYTES", default_value_t = 100, requires = "count", value_parser = whole::<u32>(48..=LARGEST, 1000))]
    size: u32,

    /// Print the result as JSON, also if not all are stored: {"published", "not_stored", "unknown", "total", "interrupted", "error",
    /// "stream", "last_sequence", "seconds"}
    #[arg(short, long)]
    json: bool,
}

impl Publish {
    /// Publishes, and waits until the stream has answered for each event.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let mut headers = self.headers()?;
        self.check_arguments(&headers)?;
        let config = settings.for_broker(&self.database, &self.broker)?;
        self.refuse_query(&config)?;
        // With this header the server stores an event only in that stream.
        let named = self.broker.stream().filter(|_| config.broker.mode == Mode::Jetstream);
        headers.extend(named.map(|stream| (expected_stream::HEADER.to_owned(), stream.to_owned())));
        let signals = Signals::catch()?;
        let began = Instant::now();
        let (mut report, mut took) = (PublishReport::new(&config).expecting(named), None);
        let mut events = self.events(&signals);
        let ending = match &mut events {
            Err(error) => Ending::Refused(std::mem::replace(error, anyhow::Error::msg(""))),
            Ok(events) => match self.connect(settings, &config, &signals) {
                Err(error) => signals.interrupted().map_or(Ending::Refused(error), Ending::Interrupted),
                Ok(recorder) => {
                    let timeout = config.broker.timeout.max(LEAST_TIMEOUT);
                    let (ending, subject) = self.publish(&recorder, timeout, events, &headers, &mut report, &signals);
                    took = Some(began.elapsed());
                    committed::wait(&config, &subject, report.destination(), &|| !signals.end_asked());
                    ending
                }
            },
        };
        match ending {
            // Wrong configuration has no result.
            Ending::Refused(error) if matches!(error.downcast_ref(), Some(Error::Config { .. })) => Err(error),
            ending => report.finish(events.as_ref().ok(), ending, self.json, took.unwrap_or_else(|| began.elapsed())),
        }
    }

    /// Connects, also to the broker of a collector that is starting. After a signal, the result is an error.
    fn connect(&self, settings: &Settings, config: &Config, signals: &Signals) -> anyhow::Result<NatsRecorder> {
        let is_named = settings.names_servers(&self.broker)?;
        let keep_going = || !signals.end_asked();
        let connected = starting::connect(&config.database.path, config.broker.timeout, is_named, &keep_going, || {
            // Read again for each attempt: the server may have written its address meanwhile.
            Ok(open(&settings.for_broker(&self.database, &self.broker)?, self.identity.into(), signals)?)
        });
        connected.map_err(|error| starting::with_way_out(error, config))
    }

    #[cfg(test)]
    pub(super) fn payload(&self) -> Option<&std::ffi::OsStr> {
        self.payload.as_deref()
    }

    /// Refuses what the argument parser cannot: what no event can have, and arguments that contradict each other.
    fn check_arguments(&self, headers: &[(String, String)]) -> Result<(), UsageError> {
        if self.events && self.subject.as_deref().is_some_and(|subject| subject != "-") {
            let text = "with --events each line names its subject, so no other one can be given; read a file with --events --file FILE";
            return Err(UsageError(text.into()));
        }
        if self.id.is_some() && self.payload.as_ref().is_none_or(|payload| payload == "-") {
            let text = "--id is the id of a single event, so its payload must be given too; for several events use --events \
                        and write \"headers\":{\"Nats-Msg-Id\":\"…\"} into each line";
            return Err(UsageError(text.into()));
        }
        let subject = self.subject.as_deref().filter(|_| !self.events).unwrap_or("events");
        let event = self.id.iter().fold(Event::new(subject, ""), Event::id);
        with_headers(event, headers).validate().map_err(|invalid| UsageError(invalid.to_string()))
    }

    /// Refuses to publish to a query of the settings: its answer would not be a stream's, and the event would count as unconfirmed.
    fn refuse_query(&self, config: &Config) -> anyhow::Result<()> {
        let Some(subject) = self.subject.as_deref().filter(|_| !self.events && config.broker.mode == Mode::Jetstream)
        else {
            return Ok(());
        };
        let takes = |filter: &str| filter.parse::<Filter>().is_ok_and(|filter| filter.matches(subject));
        if config.queries.iter().any(|query| takes(&query.subject)) {
            let ask = hint::command(&format!("query {}", hint::word(subject)));
            anyhow::bail!("no stream takes {subject}, which is the subject of a [[query]]; ask it: {ask}");
        }
        Ok(())
    }

    fn headers(&self) -> anyhow::Result<Vec<(String, String)>> {
        let parse = |header: &String| -> anyhow::Result<(String, String)> {
            let (name, value) = header.split_once(':').ok_or_else(|| {
                UsageError(format!("--header {header:?} has no colon; write NAME:VALUE, for example Trace-Id:7"))
            })?;
            let name = name.trim();
            if name.eq_ignore_ascii_case("Nats-Msg-Id") {
                return Err(UsageError(format!("--header {name} is the event id; give it with --id")).into());
            }
            Ok((name.to_owned(), value.trim().to_owned()))
        };
        self.header.iter().map(parse).collect()
    }

    /// The events to publish. Opens the input.
    fn events(&self, signals: &Signals) -> anyhow::Result<Events> {
        let subject = self.subject.clone().unwrap_or_default();
        if let Some(count) = self.count {
            return Ok(Events::generated(Load::new(subject, count, self.rate, self.size as usize)));
        }
        if let Some(payload) = self.payload.as_ref().filter(|payload| *payload != "-") {
            let event = Event::new(subject, payload.clone().into_vec());
            return Ok(Events::one(self.id.iter().fold(event, Event::id)));
        }
        let source = self.file.as_deref().map_or(Source::StandardInput, Source::of);
        let format = if self.events { LineFormat::Event } else { LineFormat::Payload { subject } };
        Ok(Events::lines(Lines::of(&source, signals)?, source, format))
    }

    /// Publishes the events and waits for the answers. The report then has the outcome. Returns the subject of the last event too.
    fn publish(
        &self,
        recorder: &NatsRecorder,
        timeout: Duration,
        events: &mut Events,
        headers: &[(String, String)],
        report: &mut PublishReport,
        signals: &Signals,
    ) -> (Ending, String) {
        let progress = (!events.are_typed()).then(|| Progress::new(events.total(), "event", "handed over"));
        let counters = recorder.counters();
        let mut timeout = SettleTimeout::new(timeout);
        let (began, mut passed_on, mut last) = (Instant::now(), 0, None);
        let mut subject = self.subject.clone().unwrap_or_default();
        if self.rate.is_some() {
            timer_slack::wake_on_time();
        }
        let ending = loop {
            self.pace(began, passed_on, signals);
            if let Some(status) = signals.interrupted() {
                break Ending::Interrupted(status);
            }
            let event = match events.next() {
                Some(Ok(event)) => with_headers(event, headers),
                Some(Err(error)) => {
                    report.note_refused();
                    break Ending::Refused(error);
                }
                None if events.total().is_none() => continue,
                None => break Ending::Complete,
            };
            if self.events {
                event.subject().clone_into(&mut subject);
            }
            timeout.renew();
            match pass_on(recorder, event, || timeout.is_over(counters.counts(), signals)) {
                Ok(receipt) => last = Some(receipt),
                // The event was read, and is not passed on.
                Err(error) if is_full(&error) && signals.end_asked() => continue,
                Err(error) => {
                    report.note_refused();
                    break Ending::Refused(error.into());
                }
            }
            passed_on += 1;
            if let Some(progress) = &progress
                && (passed_on % 256 == 0 || self.rate.is_some())
            {
                progress.show(passed_on, String::new());
            }
        };
        let settled = report.settle(recorder, passed_on, last, &mut timeout, signals);
        if let Some(progress) = progress {
            progress.clear();
        }
        let ending = match (ending, signals.interrupted()) {
            (Ending::Complete, Some(status)) if !settled => Ending::Interrupted(status),
            (ending, _) => ending,
        };
        (ending, subject)
    }

    /// Waits until the event of this number is due, or until a signal. At high rates it waits a whole tick, because a wake-up for each
    /// event would cost more than publishing it. Due times count from the start, so a late event does not delay later ones.
    fn pace(&self, began: Instant, number: u64, signals: &Signals) {
        const TICK: Duration = Duration::from_millis(1);
        let Some(rate) = self.rate else { return };
        // If less than one event is due in a tick, each is published at its own time.
        let at_least = if due(1, rate) < TICK { TICK } else { Duration::ZERO };
        let due = began + due(number, rate);
        while !signals.end_asked() {
            let wait = due.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return;
            }
            thread::sleep(wait.max(at_least).min(POLL));
        }
    }
}

/// By what a repeated event is recognised. By default by the stream only: for the others, the database keeps the name of each run of this command.
#[derive(Clone, Copy, Default, ValueEnum)]
enum RecognisedBy {
    /// By the stream, within its duplicate window
    #[default]
    Stream,
    /// By the stream within its duplicate window, and by the collector's database for 30 days (database.forget_recorders)
    Both,
    /// By the collector's database only. It costs the server less
    Database,
    /// As database, but the number of a JSON object is in the payload, as its member "catchment". The server and the collector have less to
    /// do. Other readers of the stream see the member
    Payload,
}

impl From<RecognisedBy> for Identity {
    fn from(by: RecognisedBy) -> Self {
        match by {
            RecognisedBy::Stream => Self::Stream,
            RecognisedBy::Both => Self::Both,
            RecognisedBy::Database => Self::Database,
            RecognisedBy::Payload => Self::Payload,
        }
    }
}

fn with_headers(event: Event, headers: &[(String, String)]) -> Event {
    headers.iter().fold(event, |event, (name, value)| event.header(name, value))
}

/// Connects on a thread of its own, so that a signal ends the waiting. After a signal, the result is an error.
fn open(settings: &Config, identity: Identity, signals: &Signals) -> anyhow::Result<NatsRecorder> {
    let mut config = NatsRecorderConfig::new(settings.broker.clone());
    // A full buffer must not keep a signal waiting.
    (config.identity, config.overflow) = (identity, Overflow::Block(POLL));
    let expecting = || starting::expecting_stream(&settings.database.path, settings.broker.timeout);
    let (to, opened) = sync_channel(1);
    let (connecting, expects_stream) = (config.clone(), expecting());
    let connect = move || drop(to.send(NatsRecorder::open_expecting(connecting, expects_stream)));
    if thread::Builder::new().name("catchment-opening".into()).spawn(connect).is_err() {
        return Ok(NatsRecorder::open_expecting(config, expecting())?);
    }
    loop {
        match opened.recv_timeout(POLL) {
            Ok(opened) => return Ok(opened?),
            Err(RecvTimeoutError::Timeout) if !signals.end_asked() => {}
            Err(_) => anyhow::bail!("connecting was interrupted"),
        }
    }
}

fn is_full(error: &RecordError) -> bool {
    matches!(error.reason, FailureReason::BufferFull { .. })
}

/// Passes an event to the recorder. While the buffer is full, waits for room until `give_up`.
fn pass_on(
    recorder: &NatsRecorder,
    mut event: Event,
    mut give_up: impl FnMut() -> bool,
) -> Result<Receipt, RecordError> {
    loop {
        match recorder.record(event) {
            Err(error) if is_full(&error) && !give_up() => event = *error.event,
            passed_on => return passed_on,
        }
    }
}
