//! Measures the parts one by one: the cost of a commit by its size, of the ledger, of more writers, of passing batches between
//! threads, and of a payload's encoding. `make bench` runs it; it needs no broker and takes half a minute.
//!
//! Each figure is the median of seven rounds with its range. A round measures everything in a table once, so that a change of
//! the machine's speed affects all of it. The databases are on the disk of the target directory. The figures are:
//!
//! - *A transaction*: the time of `Writer::commit`, from `BEGIN` to the answer of `COMMIT`, for a batch in memory; by the number
//!   of its events, each with 100 bytes of payload and one header, and by `synchronous`. `full` waits for the disk once a
//!   transaction, `normal` only at a checkpoint. Given as events per second, it is what a collector would reach if reading took
//!   no time.
//! - *The ledger's step*: the same transaction of one event with and without its entry in the ledger, and the difference
//!   within each round. This cost occurs once for each transaction, not for each event.
//! - *Numbers*: preparing and committing events with a recorder's number, by which the database recognises repetitions, and with an event
//!   id of the same length without one, and the difference within each round.
//! - *Writers*: a pipeline whose intake has everything in memory, with `full` and batches of 1,000. SQLite commits one
//!   transaction at a time, so more writers only prepare in parallel. Where this shows no gain, use one writer.
//! - *Handing over*: from the intake thread to a writer thread and back, with a sink that does nothing: for each event alone, as
//!   where events come one by one, and in batches of 1,000.
//! - *Codecs*: a chat message of five fields to bytes and back, into a struct and into a value whose fields are looked up
//!   by name, as JSON (`serde_json`) and as MessagePack (`rmp-serde`, fields by name). Then a recorder's number into the JSON and out of it,
//!   each with a copy of the payload.
#![allow(clippy::cast_precision_loss, reason = "counts become figures")]

mod figures;

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use catchment::Error;
use catchment::config::{DatabaseConfig, Synchronous};
use catchment::unversioned::in_payload;
use catchment::unversioned::pipeline::{
    Batch, Committed, Epoch, Intake, IntakeState, Limits, Mark, Pipeline, Refusal, Settings, Shared, Sink,
};
use catchment::unversioned::store::{Database, Routes, Writer};
use figures::row;
use serde::{Deserialize, Serialize};

const ROUNDS: usize = 7;
/// The least time to measure one figure in one round.
const LEAST: Duration = Duration::from_millis(100);
const SIZES: [usize; 5] = [1, 10, 100, 1_000, 5_000];

fn main() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("parts-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    println!("median of {ROUNDS} rounds (lowest to highest)");
    transactions(&folder);
    ledger(&folder);
    numbers(&folder);
    writers(&folder);
    handing_over();
    codecs();
    let _ = fs::remove_dir_all(folder);
}

/// Measures everything once in each round. Returns the values of all rounds except the first, which warms up.
fn rounds<const N: usize>(mut round: impl FnMut() -> [f64; N]) -> [Vec<f64>; N] {
    let mut columns = [const { Vec::new() }; N];
    for number in 0..=ROUNDS {
        for (column, value) in columns.iter_mut().zip(round()) {
            if number > 0 {
                column.push(value);
            }
        }
    }
    columns
}

fn table(title: &str, unit: &str) {
    println!("\n{title}\n\n| | {unit} |\n|---|---|");
}

fn events(count: usize) -> String {
    if count == 1 { "1 event".into() } else { format!("{count} events") }
}

/// Microseconds that a call takes, averaged over many calls.
fn micros(mut call: impl FnMut()) -> f64 {
    let began = Instant::now();
    let mut calls = 0_u32;
    while began.elapsed() < LEAST {
        call();
        calls += 1;
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
}

fn epoch() -> Arc<Epoch> {
    Arc::new(Epoch::new("EVENTS", 1, ""))
}

fn push(batch: &mut Batch, sequence: u64) -> Mark {
    let mark = Mark { sequence, published_ns: 1 };
    batch.push(mark, "events.bench", [("Nats-Msg-Id", "catchment_k3vfa7q2mzn5x6ohydwu-12345")], &[b'x'; 100]);
    mark
}

/// A database with a writer and a batch for it.
struct Fixture {
    file: PathBuf,
    writer: Writer,
    batch: Batch,
    epoch: Arc<Epoch>,
    mark: Mark,
}

impl Fixture {
    fn new(folder: &Path, name: &str, synchronous: Synchronous) -> Self {
        let file = folder.join(name);
        let mut config = DatabaseConfig::default();
        config.path.clone_from(&file);
        config.synchronous = synchronous;
        let writer = Database::open(&config, &Routes::default()).expect("opens").writers().remove(0);
        let batch = Batch::new(Limits { events: 5_000, bytes: 4 << 20 });
        Self { file, writer, batch, epoch: epoch(), mark: Mark::START }
    }

    /// Commits this many events. Returns the time of the commit alone, in microseconds.
    fn commit(&mut self, events: usize, with_ledger: bool) -> f64 {
        self.batch.clear();
        if with_ledger {
            self.batch.begin(Arc::clone(&self.epoch), self.mark);
        }
        for _ in 0..events {
            self.mark = push(&mut self.batch, self.mark.sequence + 1);
        }
        let began = Instant::now();
        self.writer.commit(&self.batch).expect("commits");
        began.elapsed().as_secs_f64() * 1e6
    }

    /// Prepares and commits this many events with event ids that a recorder has made: numbered, or for the stream only. Returns the time in
    /// microseconds.
    fn store(&mut self, events: usize, is_numbered: bool) -> f64 {
        self.batch.clear();
        self.batch.begin(Arc::clone(&self.epoch), self.mark);
        for _ in 0..events {
            self.mark = Mark { sequence: self.mark.sequence + 1, published_ns: 1 };
            let separator = if is_numbered { '-' } else { '_' };
            let id = format!("catchment{separator}k3vfa7q2mzn5x6ohydwu-{}", self.mark.sequence);
            self.batch.push(self.mark, "events.bench", [("Nats-Msg-Id", id.as_str())], &[b'x'; 100]);
        }
        let began = Instant::now();
        self.writer.prepare(&self.batch);
        let committed = self.writer.commit(&self.batch).expect("commits");
        let taken = began.elapsed().as_secs_f64() * 1e6;
        assert_eq!(committed.repeated, 0);
        taken
    }

    /// The mean time of many commits.
    fn commits(&mut self, events: usize, with_ledger: bool) -> f64 {
        let (began, mut taken, mut commits) = (Instant::now(), 0.0, 0_u32);
        while began.elapsed() < LEAST {
            taken += self.commit(events, with_ledger);
            commits += 1;
        }
        taken / f64::from(commits)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        remove(&self.file);
    }
}

/// Deletes the file. A process that has it open goes on writing to it.
fn remove(database: &Path) {
    for extension in ["", "-wal", "-shm"] {
        let mut name = database.as_os_str().to_owned();
        name.push(extension);
        let _ = fs::remove_file(name);
    }
}

fn transactions(folder: &Path) {
    for (synchronous, name) in [(Synchronous::Full, "full"), (Synchronous::Normal, "normal")] {
        let mut fixture = Fixture::new(folder, name, synchronous);
        let times: [Vec<f64>; SIZES.len()] = rounds(|| SIZES.map(|size| fixture.commits(size, true)));
        table(&format!("A transaction, synchronous = {name}"), "µs");
        for (size, times) in SIZES.iter().zip(&times) {
            row(&events(*size), times.clone(), 0);
        }
        table(&format!("The same, synchronous = {name}"), "events/s");
        for (size, times) in SIZES.iter().zip(&times) {
            row(&events(*size), times.iter().map(|time| *size as f64 * 1e6 / time).collect(), 0);
        }
    }
}

fn ledger(folder: &Path) {
    let mut with = Fixture::new(folder, "with-ledger", Synchronous::Normal);
    let mut without = Fixture::new(folder, "without-ledger", Synchronous::Normal);
    let [bare, whole, step] = rounds(|| {
        let (bare, whole) = (without.commits(1, false), with.commits(1, true));
        [bare, whole, whole - bare]
    });
    table("The ledger's step, synchronous = normal", "µs a transaction");
    row("one event without a ledger entry", bare, 1);
    row("one event with it", whole, 1);
    row("the difference", step, 1);
}

fn numbers(folder: &Path) {
    let mut with = Fixture::new(folder, "with-numbers", Synchronous::Full);
    let mut without = Fixture::new(folder, "without-numbers", Synchronous::Full);
    for size in [1, 5_000] {
        let many = |fixture: &mut Fixture, is_numbered| {
            let (began, mut taken, mut times) = (Instant::now(), 0.0, 0_u32);
            while began.elapsed() < LEAST {
                taken += fixture.store(size, is_numbered);
                times += 1;
            }
            taken / f64::from(times)
        };
        let [bare, whole, step] = rounds(|| {
            let (bare, whole) = (many(&mut without, false), many(&mut with, true));
            [bare, whole, (whole / bare - 1.0) * 100.0]
        });
        table(&format!("Numbers, synchronous = full, transactions of {}", events(size)), "µs a transaction");
        row("without numbers", bare, 1);
        row("with numbers", whole, 1);
        row("the difference, %", step, 1);
    }
}

/// An intake that has all its events at once.
struct Ready {
    epoch: Arc<Epoch>,
    mark: Mark,
    last: u64,
}

impl Intake for Ready {
    fn fill(&mut self, batch: &mut Batch, _: Duration) -> Result<IntakeState, Error> {
        if batch.is_empty() {
            batch.begin(Arc::clone(&self.epoch), self.mark);
        }
        while self.mark.sequence < self.last && batch.has_room_for(200) {
            self.mark = push(batch, self.mark.sequence + 1);
        }
        Ok(if self.mark.sequence < self.last { IntakeState::Open } else { IntakeState::Drained })
    }
}

/// Seconds that this many events take through a pipeline.
fn pipeline(events: u64, batch: usize, sinks: Vec<impl Sink>) -> f64 {
    let shared = Shared::new("nothing");
    let settings = Settings { limits: Limits { events: batch, bytes: 4 << 20 }, linger: Duration::ZERO };
    let intake = Ready { epoch: epoch(), mark: Mark::START, last: events };
    let began = Instant::now();
    let pipeline = Pipeline::start(intake, sinks, settings, shared.clone()).expect("starts");
    assert!(pipeline.wait(Duration::from_secs(60)).expect("no failure"));
    assert_eq!(shared.counters.committed.get(), events);
    began.elapsed().as_secs_f64()
}

fn writers(folder: &Path) {
    const EVENTS: u64 = 100_000;
    const WRITERS: [usize; 3] = [1, 2, 4];
    let mut runs = 0;
    let rates = rounds(|| {
        WRITERS.map(|writers| {
            runs += 1;
            let path = folder.join(format!("writers-{runs}"));
            let mut config = DatabaseConfig::default();
            config.path = path;
            config.writers = writers;
            let database = Database::open(&config, &Routes::default()).expect("opens");
            let seconds = pipeline(EVENTS, 1_000, database.writers());
            remove(&config.path);
            EVENTS as f64 / seconds
        })
    });
    table("Writers, synchronous = full, batches of 1,000", "events/s");
    for (writers, rates) in WRITERS.iter().zip(rates) {
        row(&format!("{writers}"), rates, 0);
    }
}

/// Commits nothing.
struct Discard;

impl Sink for Discard {
    fn commit(&mut self, _: &Batch) -> Result<Committed, Refusal> {
        Ok(Committed::default())
    }
}

fn handing_over() {
    let [single, many] = rounds(|| {
        [(20_000, 1), (1_000_000, 1_000)]
            .map(|(events, batch)| pipeline(events, batch, vec![Discard]) * 1e9 / events as f64)
    });
    table("Handing over to a writer thread", "ns an event");
    row("each alone", single, 0);
    row("in batches of 1,000", many, 0);
}

#[derive(Serialize, Deserialize)]
struct Message {
    username: String,
    text: String,
    timestamp: i64,
    channel: String,
    subscriber: bool,
}

/// Nanoseconds that a call takes.
fn nanos<T>(mut call: impl FnMut() -> T) -> f64 {
    /// Calls between two readings of the clock, which takes as long as a part of a call.
    const CALLS: u32 = 1_000;
    let calls = || (0..CALLS).for_each(|_| drop(black_box(call())));
    micros(calls) * 1_000.0 / f64::from(CALLS)
}

fn codecs() {
    let message = Message {
        username: "somebody_42".into(),
        text: "the quick brown fox said \"hello\" to the lazy dog".into(),
        timestamp: 1_790_000_000_123,
        channel: "general".into(),
        subscriber: true,
    };
    let json = serde_json::to_vec(&message).expect("JSON");
    let pack = rmp_serde::to_vec_named(&message).expect("MessagePack");
    let (number, subject) = ("k3vfa7q2mzn5x6ohydwu-1234567", "chat.message.log");
    let numbered = in_payload::add(number, subject, &json).expect("an object");
    let without_number = || {
        let mut payload = black_box(&numbered).clone();
        let (number, rest) = in_payload::take(subject, std::iter::empty, &mut payload);
        (number.map(str::len), rest.len())
    };
    assert_eq!(without_number(), (Some(number.len()), json.len()));
    let times = rounds(|| {
        [
            nanos(|| serde_json::to_vec(black_box(&message)).expect("JSON")),
            nanos(|| rmp_serde::to_vec_named(black_box(&message)).expect("MessagePack")),
            nanos(|| serde_json::from_slice::<Message>(black_box(&json)).expect("a message")),
            nanos(|| rmp_serde::from_slice::<Message>(black_box(&pack)).expect("a message")),
            nanos(|| serde_json::from_slice::<serde_json::Value>(black_box(&json)).expect("a value")),
            nanos(|| rmp_serde::from_slice::<serde_json::Value>(black_box(&pack)).expect("a value")),
            nanos(|| in_payload::add(number, subject, black_box(&json))),
            nanos(without_number),
        ]
    });
    table(&format!("Codecs: JSON of {} bytes, MessagePack of {}", json.len(), pack.len()), "ns");
    let names = [
        "write JSON",
        "write MessagePack",
        "read JSON into a struct",
        "read MessagePack into a struct",
        "read JSON into a value",
        "read MessagePack into a value",
        "write a number into the JSON",
        "remove the number",
    ];
    for (name, times) in names.iter().zip(times) {
        row(name, times, 0);
    }
}
