//! The application of a run, a process of its own: opens a recorder as any program would, produces when it is told to, and
//! says when it began, when all was accepted, and what `record()` took.
//!
//! It is told its `Order` in the first line of standard input, answers `Said::Ready`, waits for a second line, produces,
//! answers `Said::Done`, and ends when standard input does: with the comparison, however that ends.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use super::workload::{Message, Workload};
use super::{Arm, Failure, Profile, ProfileError, arms, clock};
use crate::config::{BatchConfig, BrokerConfig, DatabaseConfig, Synchronous};
use crate::event::Event;
use crate::record::{
    CommitMode, DirectRecorder, DirectRecorderConfig, FailureReason, NatsRecorder, NatsRecorderConfig, Overflow,
    Recorder,
};

/// The longest that the application waits for room, or for the last acknowledgement.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an application is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) arm: Arm,
    pub(super) workload: Workload,
    /// The first message to produce.
    pub(super) first: u64,
    pub(super) producers: usize,
    /// Events a second; else as fast as they are taken.
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
    /// What the files of a profile begin with, if one is to be taken.
    pub(super) profile: Option<PathBuf>,
}

/// What it says, one line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// Connected, and nothing to do yet.
    Ready,
    /// All of it was accepted.
    Done(Outcome),
}

/// What came of it. Times are those of [`clock::now`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// When the first event was handed over, or due.
    pub(super) began: u64,
    /// When all were committed, acknowledged or written, as the arm has it.
    pub(super) accepted: u64,
    /// Each call of `record()`, in the order of the messages of each producer.
    pub(super) calls: Vec<Call>,
    /// How often an event was given back and handed over again.
    pub(super) refusals: u64,
    /// Context switches from the first event until all were accepted, voluntary and not, of threads that ended too.
    pub(super) switches: (u64, u64),
}

/// A call of `record()`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64, f64)", into = "(u64, u64, u64, f64)")]
pub(super) struct Call {
    /// Of the message.
    pub(super) number: u64,
    /// When it should have begun.
    pub(super) due: u64,
    pub(super) returned: u64,
    /// Microseconds as the caller felt them: at a rate with how late it began, where the call before it had not returned.
    pub(super) felt_us: f64,
}

impl From<(u64, u64, u64, f64)> for Call {
    fn from((number, due, returned, felt_us): (u64, u64, u64, f64)) -> Self {
        Self { number, due, returned, felt_us }
    }
}

impl From<Call> for (u64, u64, u64, f64) {
    fn from(call: Call) -> Self {
        (call.number, call.due, call.returned, call.felt_us)
    }
}

impl Order {
    /// When the message of this number is due, for an application that began then.
    pub(super) fn due(&self, began: u64, number: u64) -> u64 {
        let since = u128::from(number - self.first) * 1_000_000_000 / u128::from(self.rate.unwrap_or(1));
        began + since as u64
    }
}

/// Does what standard input says.
///
/// # Errors
///
/// [`Failure`], when the recorder cannot be opened or does not take the events.
pub fn serve(
    input: impl BufRead + Send + 'static,
    output: &mut impl Write,
    abandoned: impl FnOnce() + Send + 'static,
) -> Result<(), Failure> {
    let (told, lines) = mpsc::channel();
    std::thread::Builder::new()
        .name("catchment-orders".into())
        .spawn(move || {
            for line in input.lines().map_while(Result::ok) {
                let _ = told.send(line);
            }
            drop(told);
            // The end of an orderly application comes before this; one that hangs in a recorder must not outlive its parent.
            std::thread::sleep(Duration::from_secs(10));
            abandoned();
        })
        .map_err(Failure::system("a thread for orders"))?;
    let Some(order) = next(&lines) else { return Ok(()) };
    let order: Order = serde_json::from_str(&order).map_err(|e| unreadable(&e))?;
    let recorders = (0..order.connections.max(1)).map(|_| open(&order)).collect::<Result<Vec<_>, _>>()?;
    let messages: Vec<Message> = (order.first..order.workload.events).map(|n| order.workload.message(n)).collect();
    say(output, &Said::Ready)?;
    if next(&lines).is_none() {
        return Ok(());
    }
    let profile = order.profile.as_ref().and_then(|prefix| Some((Profile::start().inspect_err(untaken).ok()?, prefix)));
    let outcome = produce(&order, &messages, &recorders)?;
    say(output, &Said::Done(outcome))?;
    let _ = next(&lines);
    if let Some((profile, prefix)) = profile {
        let _ = profile.finish(prefix).inspect_err(untaken);
    }
    Ok(())
}

fn untaken(error: &ProfileError) {
    log::warn!("{error}");
}

fn next(lines: &Receiver<String>) -> Option<String> {
    lines.recv().ok()
}

fn unreadable(error: &serde_json::Error) -> Failure {
    failed(format!("cannot read its order: {error}; it is started by catchment compare only"))
}

fn say(output: &mut impl Write, said: &Said) -> Result<(), Failure> {
    let line = serde_json::to_string(said).map_err(|e| unreadable(&e))?;
    let told = writeln!(output, "{line}").and_then(|()| output.flush());
    told.map_err(Failure::system("standard output"))
}

/// The one line of set-up in which the arms differ.
fn open(order: &Order) -> Result<Arc<dyn Recorder>, Failure> {
    let overflow = Overflow::Block(PATIENCE);
    if arms::is_direct(order.arm) {
        let synchronous = if order.full { Synchronous::Full } else { Synchronous::Normal };
        let path = order.database.clone();
        let config = DirectRecorderConfig {
            database: DatabaseConfig { path, synchronous, writers: order.writers, ..DatabaseConfig::default() },
            batch: BatchConfig { max_events: order.batch, ..BatchConfig::default() },
            commit: if order.arm == Arm::DirectPerEvent { CommitMode::PerEvent } else { CommitMode::Grouped },
            overflow,
            ..DirectRecorderConfig::default()
        };
        return Ok(Arc::new(DirectRecorder::open(config)?));
    }
    let broker = BrokerConfig {
        servers: vec![order.server.clone()],
        mode: arms::mode(order.arm),
        stream: order.stream.clone(),
        ..BrokerConfig::default()
    };
    Ok(Arc::new(NatsRecorder::open(NatsRecorderConfig { broker, overflow, ..NatsRecorderConfig::default() })?))
}

fn produce(order: &Order, messages: &[Message], recorders: &[Arc<dyn Recorder>]) -> Result<Outcome, Failure> {
    let before = switches();
    let began = clock::now();
    let mut calls = Vec::with_capacity(messages.len());
    let mut refusals = 0;
    std::thread::scope(|scope| {
        let producers: Vec<_> = (0..order.producers.max(1))
            .map(|number| {
                let recorder = &*recorders[number % recorders.len()];
                let producer = Producer { order, recorder, began };
                scope.spawn(move || producer.run(messages.iter().skip(number).step_by(order.producers.max(1))))
            })
            .collect();
        for producer in producers {
            let (its, refused) = producer.join().map_err(|_| failed("has a producer that panicked".into()))??;
            calls.extend(its);
            refusals += refused;
        }
        Ok::<_, Failure>(())
    })?;
    for recorder in recorders {
        recorder.flush(PATIENCE).map_err(|error| failed(format!("could not have its events kept: {error}")))?;
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

fn failed(what: String) -> Failure {
    Failure::Process { role: "application".into(), what, log: String::new() }
}

/// A thread that produces its share of the messages.
struct Producer<'a> {
    order: &'a Order,
    recorder: &'a dyn Recorder,
    began: u64,
}

impl Producer<'_> {
    fn run<'m>(&self, messages: impl ExactSizeIterator<Item = &'m Message>) -> Result<(Vec<Call>, u64), Failure> {
        let mut calls = Vec::with_capacity(messages.len());
        let mut refusals = 0;
        for message in messages {
            let number = message.number();
            let due = self.order.due(self.began, number);
            let due = if self.order.rate.is_some() { due } else { clock::now() };
            // One that could not be made in time, because the one before had not returned, was felt from when it was due.
            let slept = clock::sleep_until(due);
            let workload = &self.order.workload;
            let event = Event::new(workload.subject(message), workload.encode(message)?);
            let felt_from = if slept || self.order.rate.is_none() { clock::now() } else { due };
            refusals += self.hand_over(event)?;
            let returned = clock::now();
            let felt_us = returned.saturating_sub(felt_from) as f64 / 1e3;
            calls.push(Call { number, due, returned, felt_us });
        }
        Ok((calls, refusals))
    }

    /// Until it is taken; says how often it was not.
    fn hand_over(&self, mut event: Event) -> Result<u64, Failure> {
        let until = Instant::now() + PATIENCE;
        for refusals in 0.. {
            match self.recorder.record(event) {
                Ok(_receipt) => return Ok(refusals),
                Err(error) if passes(&error.reason) && Instant::now() < until => event = *error.event,
                Err(error) => return Err(failed(format!("could not record: {error}"))),
            }
        }
        Ok(0)
    }
}

/// Whether the same event may be taken at another time.
fn passes(reason: &FailureReason) -> bool {
    matches!(reason, FailureReason::BufferFull { .. } | FailureReason::Database(_))
}
