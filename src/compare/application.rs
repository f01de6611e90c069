//! The application of a run, a process of its own. It opens a recorder as any program does, produces events, and reports when
//! it began, when all events were accepted, and how long each `record()` took.
//!
//! The first line of standard input is its `Job`. It replies `ApplicationMessage::Ready`, waits for a second line, produces,
//! and replies `ApplicationMessage::Done`. It exits when standard input ends, so it never outlives the comparison.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::workload::{Messages, Workload};
use super::{Arm, CompareError, Profile, ProfileError, Quantiles, arms, clock, statistics};
use crate::config::{BatchConfig, BrokerConfig, DatabaseConfig, Synchronous};
use crate::event::Event;
use crate::record::{
    CommitMode, DirectRecorder, DirectRecorderConfig, FailureReason, NatsRecorder, NatsRecorderConfig, Overflow,
    Receipt, Recorder, SpooledRecorder, SpooledRecorderConfig, WaitError,
};
use crate::timer_slack;

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
    /// Each receipt is waited for, on a thread of its own, and its time is noted.
    pub(super) keeps_receipts: bool,
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
    /// How long the calls of `record()` took.
    pub(super) record_us: Quantiles,
    /// At a rate, each call of `record()`: producer after producer, each in the order of its messages. Without a rate there are
    /// too many.
    pub(super) calls: Vec<RecordCall>,
    /// How often an event was refused and recorded again.
    pub(super) refusals: u64,
    /// What the receipts reported, if they were kept: producer after producer, each in the order of its messages.
    pub(super) settlements: Vec<Settlement>,
    /// Voluntary and involuntary context switches until all were accepted, also of threads that have ended.
    pub(super) switches: (u64, u64),
    /// CPU seconds until all were accepted, and the part of them in the kernel. What the application then does for this report
    /// is not in them.
    pub(super) cpu_s: f64,
    pub(super) system_s: f64,
    /// Resident memory at its highest until then.
    pub(super) peak_memory: u64,
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

/// What a receipt reported.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(from = "(u64, u64, bool)", into = "(u64, u64, bool)")]
pub(super) struct Settlement {
    /// The message's number.
    pub(super) number: u64,
    /// When it was seen. Receipts are waited for in the order of the messages.
    pub(super) at: u64,
    /// The event is recorded, as its arm promises. Otherwise it has failed.
    pub(super) is_recorded: bool,
}

impl From<(u64, u64, bool)> for Settlement {
    fn from((number, at, is_recorded): (u64, u64, bool)) -> Self {
        Self { number, at, is_recorded }
    }
}

impl From<Settlement> for (u64, u64, bool) {
    fn from(settlement: Settlement) -> Self {
        (settlement.number, settlement.at, settlement.is_recorded)
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
        .name("catchment-stdin".into())
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
    let recorders = (0..job.connections.max(1)).map(|number| open(&job, number)).collect::<Result<Vec<_>, _>>()?;
    let messages = Messages::new(&job.workload, job.workload.events);
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
fn open(job: &Job, number: usize) -> Result<Arc<dyn Recorder>, CompareError> {
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
    if job.arm == Arm::Spooled {
        // Beside the database, on the same disk. A new application continues with the spool of the one before.
        let path = job.database.with_file_name(format!("{number}.spool"));
        let batch = BatchConfig { max_events: job.batch, ..BatchConfig::default() };
        let config = SpooledRecorderConfig { path, broker, overflow, batch, ..SpooledRecorderConfig::default() };
        return Ok(Arc::new(SpooledRecorder::open(config)?));
    }
    Ok(Arc::new(NatsRecorder::open(NatsRecorderConfig { broker, overflow, ..NatsRecorderConfig::default() })?))
}

fn produce(job: &Job, messages: &Messages, recorders: &[Arc<dyn Recorder>]) -> Result<Outcome, CompareError> {
    let before = Usage::now();
    let began = clock::now();
    let threads = job.producers.max(1);
    let mut results = Vec::with_capacity(threads);
    let mut settlements = Vec::new();
    std::thread::scope(|scope| {
        let (mut producers, mut waiters) = (Vec::new(), Vec::new());
        for number in 0..threads {
            let recorder = &*recorders[number % recorders.len()];
            let receipts = job.keeps_receipts.then(|| {
                let (sender, receipts) = mpsc::channel();
                waiters.push(scope.spawn(move || settlements_of(&receipts)));
                sender
            });
            let own = Producer { job, messages, recorder, began, receipts };
            producers
                .push(scope.spawn(move || own.run((job.first..job.workload.events).skip(number).step_by(threads))));
        }
        let panicked = |_| failed("had a panic in a thread".into());
        for producer in producers {
            results.push(producer.join().map_err(panicked)??);
        }
        for recorder in recorders {
            recorder.flush(TIMEOUT).map_err(|error| failed(format!("could not flush its events: {error}")))?;
        }
        for waiter in waiters {
            settlements.extend(waiter.join().map_err(panicked)?);
        }
        Ok::<_, CompareError>(())
    })?;
    let (accepted, used) = (clock::now(), Usage::now());
    let mut latencies: Vec<f64> = results.iter().flat_map(|own| &own.latencies_us).map(|us| f64::from(*us)).collect();
    Ok(Outcome {
        began,
        accepted,
        record_us: statistics::quantiles(&mut latencies),
        refusals: results.iter().map(|own| own.refusals).sum(),
        settlements,
        calls: results.into_iter().flat_map(|own| own.calls).collect(),
        switches: (
            used.switches.0.saturating_sub(before.switches.0),
            used.switches.1.saturating_sub(before.switches.1),
        ),
        cpu_s: used.cpu.saturating_sub(before.cpu).as_secs_f64(),
        system_s: (used.system_s - before.system_s).max(0.0),
        peak_memory: used.peak_memory,
    })
}

/// What this process has used so far.
#[derive(Default)]
struct Usage {
    cpu: Duration,
    system_s: f64,
    switches: (u64, u64),
    peak_memory: u64,
}

impl Usage {
    fn now() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Self::default() };
        let system = usage.system_time();
        Self {
            cpu: clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from),
            system_s: system.tv_sec() as f64 + system.tv_usec() as f64 / 1e6,
            switches: (
                usage.voluntary_context_switches().unsigned_abs(),
                usage.involuntary_context_switches().unsigned_abs(),
            ),
            // Linux counts in KiB: https://man7.org/linux/man-pages/man2/getrusage.2.html
            peak_memory: usage.max_rss().unsigned_abs() * 1024,
        }
    }
}

fn failed(detail: String) -> CompareError {
    CompareError::Process { role: "application".into(), detail, log: String::new() }
}

/// A thread that produces its share of the messages.
struct Producer<'a> {
    job: &'a Job,
    messages: &'a Messages,
    recorder: &'a dyn Recorder,
    began: u64,
    /// Where the receipts go, if they are kept.
    receipts: Option<Sender<(u64, Receipt)>>,
}

/// Waits for each receipt in turn, until one does not resolve in time.
fn settlements_of(receipts: &Receiver<(u64, Receipt)>) -> Vec<Settlement> {
    let settlement = |(number, receipt): (u64, Receipt)| {
        let is_recorded = match receipt.wait(TIMEOUT) {
            Ok(_) => true,
            Err(WaitError::Pending(_)) => return None,
            Err(_) => false,
        };
        Some(Settlement { number, at: clock::now(), is_recorded })
    };
    receipts.iter().map_while(settlement).collect()
}

/// What a producer found.
struct Produced {
    /// How long each call took. Four bytes a call: a run may have a million.
    latencies_us: Vec<f32>,
    /// At a rate, the calls.
    calls: Vec<RecordCall>,
    refusals: u64,
}

impl Producer<'_> {
    fn run(&self, numbers: impl Iterator<Item = u64>) -> Result<Produced, CompareError> {
        let with_rate = self.job.rate.is_some();
        if with_rate {
            timer_slack::wake_on_time();
        }
        let events = numbers.size_hint().0;
        let mut produced = Produced {
            latencies_us: Vec::with_capacity(events),
            calls: Vec::with_capacity(if with_rate { events } else { 0 }),
            refusals: 0,
        };
        for number in numbers {
            let due = if with_rate { self.job.due(self.began, number) } else { clock::now() };
            // A call that begins late, because the call before it had not returned, is measured from when it was due.
            let slept = clock::sleep_until(due);
            let payload = self.messages.encode(&self.messages.message(number))?;
            let event = Event::new(self.messages.subject(number), payload);
            let measured_from = if slept || !with_rate { clock::now() } else { due };
            let (receipt, refusals) = self.record(event)?;
            let returned = clock::now();
            produced.refusals += refusals;
            if let Some(receipts) = &self.receipts {
                // It is received until this ends.
                let _ = receipts.send((number, receipt));
            }
            let latency_us = returned.saturating_sub(measured_from) as f64 / 1e3;
            produced.latencies_us.push(latency_us as f32);
            if with_rate {
                produced.calls.push(RecordCall { number, due, returned, latency_us });
            }
        }
        Ok(produced)
    }

    /// Records an event, again where it is refused for now; returns its receipt and how often it was refused.
    fn record(&self, mut event: Event) -> Result<(Receipt, u64), CompareError> {
        let until = Instant::now() + TIMEOUT;
        let mut refusals = 0;
        loop {
            match self.recorder.record(event) {
                Ok(receipt) => return Ok((receipt, refusals)),
                Err(error) if is_temporary(&error.reason) && Instant::now() < until => event = *error.event,
                Err(error) => return Err(failed(format!("could not record: {error}"))),
            }
            refusals += 1;
        }
    }
}

/// Whether the recorder may accept the same event later.
fn is_temporary(reason: &FailureReason) -> bool {
    matches!(
        reason,
        FailureReason::BufferFull { .. } | FailureReason::SpoolFull { .. } | FailureReason::Database { .. }
    )
}
