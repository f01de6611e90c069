//! The application of a run, a process of its own. It opens a recorder as any program does, produces events, and reports when
//! it began, when all events were accepted, and how long each `record()` took.
//!
//! The first line of standard input is its `Job`. It replies `ApplicationMessage::Ready`, waits for a second line, produces,
//! and replies `ApplicationMessage::Done`. It exits when standard input ends, so it never outlives the comparison.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use super::workload::{Message, Workload};
use super::{Arm, CompareError, Profile, ProfileError, arms, clock};
use crate::config::{BatchConfig, BrokerConfig, DatabaseConfig, Synchronous};
use crate::event::Event;
use crate::record::{
    CommitMode, DirectRecorder, DirectRecorderConfig, FailureReason, NatsRecorder, NatsRecorderConfig, Overflow,
    Recorder,
};

/// How long the application waits for room in the recorder, or for the last acknowledgement.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What an application has to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) arm: Arm,
    pub(super) workload: Workload,
    /// The first message to produce.
    pub(super) first: u64,
    pub(super) producers: usize,
    /// Events a second; without it, as fast as the recorder accepts them.
    pub(super) rate: Option<u64>,
    pub(super) database: PathBuf,
    /// `synchronous = full`, else `normal`.
    pub(super) full: bool,
    pub(super) writers: usize,
    pub(super) batch: usize,
    pub(super) server: String,
    pub(super) stream: String,
    /// Recorders, each with a connection of its own, that the producers share.
    pub(super) connections: usize,
    /// Path and prefix of the profile's files, if a profile is to be taken.
    pub(super) profile: Option<PathBuf>,
}

/// What it writes to standard output, one line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ApplicationMessage {
    /// It is connected and waits.
    Ready,
    /// All events were accepted.
    Done(Outcome),
}

/// What the application did. Times are those of [`clock::now`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// When the first event was recorded, or due.
    pub(super) began: u64,
    /// When all were committed, acknowledged or sent, depending on the arm.
    pub(super) accepted: u64,
    /// Each call of `record()`: producer after producer, each in the order of its messages.
    pub(super) calls: Vec<RecordCall>,
    /// How often an event was refused and recorded again.
    pub(super) refusals: u64,
    /// Voluntary and involuntary context switches until all were accepted, also of threads that have ended.
    pub(super) switches: (u64, u64),
}

/// A call of `record()`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64, f64)", into = "(u64, u64, u64, f64)")]
pub(super) struct RecordCall {
    /// The message's number.
    pub(super) number: u64,
    /// When it should have begun.
    pub(super) due: u64,
    pub(super) returned: u64,
    /// Microseconds that the caller waited. At a rate this includes the delay of a call that began late because the call before
    /// it had not returned.
    pub(super) latency_us: f64,
}

impl From<(u64, u64, u64, f64)> for RecordCall {
    fn from((number, due, returned, latency_us): (u64, u64, u64, f64)) -> Self {
        Self { number, due, returned, latency_us }
    }
}

impl From<RecordCall> for (u64, u64, u64, f64) {
    fn from(call: RecordCall) -> Self {
        (call.number, call.due, call.returned, call.latency_us)
    }
}

impl Job {
    /// When the message of this number is due, for an application that began at `began`.
    pub(super) fn due(&self, began: u64, number: u64) -> u64 {
        let since = u128::from(number - self.first) * 1_000_000_000 / u128::from(self.rate.unwrap_or(1));
        began + since as u64
    }
}

/// Does the job that standard input describes. Calls `abandoned` if it still runs 10 s after standard input has ended.
///
/// # Errors
///
/// [`CompareError`] if the recorder cannot be opened or does not accept the events.
pub fn serve(
    input: impl BufRead + Send + 'static,
    output: &mut impl Write,
    abandoned: impl FnOnce() + Send + 'static,
) -> Result<(), CompareError> {
    let (sender, lines) = mpsc::channel();
    std::thread::Builder::new()
        .name("catchment-input".into())
        .spawn(move || {
            for line in input.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
            drop(sender);
            // Usually the process has exited by now. An application that hangs in a recorder must not outlive the comparison.
            std::thread::sleep(Duration::from_secs(10));
            abandoned();
        })
        .map_err(CompareError::system("no thread to read standard input"))?;
    let Some(job) = next_line(&lines) else { return Ok(()) };
    let job: Job = serde_json::from_str(&job).map_err(|e| unreadable(&e))?;
    let recorders = (0..job.connections.max(1)).map(|_| open(&job)).collect::<Result<Vec<_>, _>>()?;
    let messages: Vec<Message> = (job.first..job.workload.events).map(|n| job.workload.message(n)).collect();
    send(output, &ApplicationMessage::Ready)?;
    if next_line(&lines).is_none() {
        return Ok(());
    }
    let profile = job.profile.as_ref().and_then(|prefix| Some((Profile::start().inspect_err(warn).ok()?, prefix)));
    let outcome = produce(&job, &messages, &recorders)?;
    send(output, &ApplicationMessage::Done(outcome))?;
    let _ = next_line(&lines);
    if let Some((profile, prefix)) = profile {
        let _ = profile.finish(prefix).inspect_err(warn);
    }
    Ok(())
}

fn warn(error: &ProfileError) {
    log::warn!("{error}");
}

fn next_line(lines: &Receiver<String>) -> Option<String> {
    lines.recv().ok()
}

fn unreadable(error: &serde_json::Error) -> CompareError {
    failed(format!("cannot read its job: {error}; only catchment compare starts this command"))
}

fn send(output: &mut impl Write, message: &ApplicationMessage) -> Result<(), CompareError> {
    let line = serde_json::to_string(message).map_err(|e| unreadable(&e))?;
    let written = writeln!(output, "{line}").and_then(|()| output.flush());
    written.map_err(CompareError::system("standard output"))
}

/// Opens the recorder. The arms differ in nothing else here.
fn open(job: &Job) -> Result<Arc<dyn Recorder>, CompareError> {
    let overflow = Overflow::Block(TIMEOUT);
    if arms::is_direct(job.arm) {
        let synchronous = if job.full { Synchronous::Full } else { Synchronous::Normal };
        let path = job.database.clone();
        let config = DirectRecorderConfig {
            database: DatabaseConfig { path, synchronous, writers: job.writers, ..DatabaseConfig::default() },
            batch: BatchConfig { max_events: job.batch, ..BatchConfig::default() },
            commit: if job.arm == Arm::DirectPerEvent { CommitMode::PerEvent } else { CommitMode::Grouped },
            overflow,
            ..DirectRecorderConfig::default()
        };
        return Ok(Arc::new(DirectRecorder::open(config)?));
    }
    let broker = BrokerConfig {
        servers: vec![job.server.clone()],
        mode: arms::mode(job.arm),
        stream: job.stream.clone(),
        ..BrokerConfig::default()
    };
    Ok(Arc::new(NatsRecorder::open(NatsRecorderConfig { broker, overflow, ..NatsRecorderConfig::default() })?))
}

fn produce(job: &Job, messages: &[Message], recorders: &[Arc<dyn Recorder>]) -> Result<Outcome, CompareError> {
    let before = switches();
    let began = clock::now();
    let mut calls = Vec::with_capacity(messages.len());
    let mut refusals = 0;
    std::thread::scope(|scope| {
        let producers: Vec<_> = (0..job.producers.max(1))
            .map(|number| {
                let recorder = &*recorders[number % recorders.len()];
                let producer = Producer { job, recorder, began };
                scope.spawn(move || producer.run(messages.iter().skip(number).step_by(job.producers.max(1))))
            })
            .collect();
        for producer in producers {
            let (own, refused) = producer.join().map_err(|_| failed("had a panic in a producer thread".into()))??;
            calls.extend(own);
            refusals += refused;
        }
        Ok::<_, CompareError>(())
    })?;
    for recorder in recorders {
        recorder.flush(TIMEOUT).map_err(|error| failed(format!("could not flush its events: {error}")))?;
    }
    let (accepted, now) = (clock::now(), switches());
    let switches = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
    Ok(Outcome { began, accepted, calls, refusals, switches })
}

/// Context switches of this process so far.
fn switches() -> (u64, u64) {
    getrusage(UsageWho::RUSAGE_SELF).map_or((0, 0), |usage| {
        let number = |switches: i64| switches.unsigned_abs();
        (number(usage.voluntary_context_switches()), number(usage.involuntary_context_switches()))
    })
}

fn failed(detail: String) -> CompareError {
    CompareError::Process { role: "application".into(), detail, log: String::new() }
}

/// A thread that produces its share of the messages.
struct Producer<'a> {
    job: &'a Job,
    recorder: &'a dyn Recorder,
    began: u64,
}

impl Producer<'_> {
    fn run<'m>(
        &self,
        messages: impl ExactSizeIterator<Item = &'m Message>,
    ) -> Result<(Vec<RecordCall>, u64), CompareError> {
        let mut calls = Vec::with_capacity(messages.len());
        let mut refusals = 0;
        for message in messages {
            let number = message.number();
            let due = self.job.due(self.began, number);
            let due = if self.job.rate.is_some() { due } else { clock::now() };
            // A call that begins late, because the call before it had not returned, is measured from when it was due.
            let slept = clock::sleep_until(due);
            let workload = &self.job.workload;
            let event = Event::new(workload.subject(message), workload.encode(message)?);
            let measured_from = if slept || self.job.rate.is_none() { clock::now() } else { due };
            refusals += self.record(event)?;
            let returned = clock::now();
            let latency_us = returned.saturating_sub(measured_from) as f64 / 1e3;
            calls.push(RecordCall { number, due, returned, latency_us });
        }
        Ok((calls, refusals))
    }

    /// Records an event, again where it is refused for now; returns how often it was refused.
    fn record(&self, mut event: Event) -> Result<u64, CompareError> {
        let until = Instant::now() + TIMEOUT;
        for refusals in 0.. {
            match self.recorder.record(event) {
                Ok(_receipt) => return Ok(refusals),
                Err(error) if is_temporary(&error.reason) && Instant::now() < until => event = *error.event,
                Err(error) => return Err(failed(format!("could not record: {error}"))),
            }
        }
        Ok(0)
    }
}

/// Whether the recorder may accept the same event later.
fn is_temporary(reason: &FailureReason) -> bool {
    matches!(reason, FailureReason::BufferFull { .. } | FailureReason::Database { .. })
}
