//! Measures the collector: how fast it turns a stream into rows, how much CPU and memory that takes, and the latency of one
//! event.
//!
//! `make bench` runs it. Collector and broker are processes of their own. The database is on the disk of the target directory.
//! In the same run, two limits of the machine are measured: the same intake with a sink that discards everything, and the same
//! sink without a broker.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts become figures"
)]

mod figures;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use catchment::config::{Config, DatabaseConfig};
use catchment::unversioned::broker::{Cluster, IntakeOptions, JetStreamIntake, Owner, Reports, Server};
use catchment::unversioned::pipeline::{
    Batch, Committed, Condition, Epoch, Limits, Mark, Peer, Pipeline, Refusal, Settings, Shared, Sink,
};
use catchment::unversioned::store::{Database, Routes, Writer};
use figures::row;
use nix::sys::resource::{UsageWho, getrusage};

const EVENTS: u64 = 400_000;
const RUNS: usize = 7;
const LATENCY_EVENTS: u64 = 20_000;
const LATENCY_RATE: u64 = 1_000;
/// Events at the same rate before those that count.
const WARM_UP: u64 = 3_000;
const BATCH: usize = 5_000;

fn main() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let program = std::env::var_os("NATS_SERVER_BIN").map_or_else(|| "nats-server".into(), PathBuf::from);
    let server = Server::start_with(&program, &folder.join("nats"), &folder.join("address"), &[])
        .expect("a server; run make bench, which provides one");
    let bench = Bench { folder: folder.clone(), server };
    bench.publish(&["--count", &EVENTS.to_string()]);
    bench.throughput();
    bench.latency();
    drop(bench);
    let _ = fs::remove_dir_all(folder);
}

struct Bench {
    folder: PathBuf,
    server: Server,
}

/// What one run of the collector took.
struct Drain {
    seconds: f64,
    collector_us: f64,
    broker_us: f64,
    peak_mib: f64,
}

impl Bench {
    fn config(&self, database: &str) -> Config {
        let mut config = Config::default();
        config.broker.servers = vec![self.server.url().to_owned()];
        config.database.path = self.folder.join(database);
        config
    }

    fn catchment(&self, command: &str) -> Command {
        let mut catchment = Command::new(env!("CARGO_BIN_EXE_catchment"));
        catchment.args([command, "--server", self.server.url(), "-q"]).stdin(Stdio::null()).stdout(Stdio::null());
        catchment.stderr(figures::log(&self.log()));
        catchment
    }

    fn log(&self) -> PathBuf {
        self.folder.join("catchment.log")
    }

    /// Publishes generated load into the default stream. Makes the stream if it does not exist.
    fn publish(&self, arguments: &[&str]) {
        let made = self.catchment("run").arg("--drain").arg("--database").arg(self.folder.join("make.db")).status();
        assert!(made.expect("runs").success(), "see {}", self.log().display());
        let done = self.catchment("publish").arg("events.bench").args(arguments).status().expect("runs");
        assert!(done.success(), "see {}", self.log().display());
    }

    /// Runs the three in turn, so that a change of the machine's speed affects all of them.
    fn throughput(&self) {
        let (mut drains, mut discards, mut inserts) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..=RUNS {
            let results = (self.drain(run), self.discard(), self.insert(run));
            // The first round warms up.
            if run > 0 {
                drains.push(results.0);
                discards.push(results.1);
                inserts.push(results.2);
            }
        }
        let rate = |seconds: f64| EVENTS as f64 / seconds;
        let column = |value: fn(&Drain) -> f64| drains.iter().map(value).collect::<Vec<_>>();
        println!("{EVENTS} events of 100 bytes, synchronous=FULL, median of {RUNS} runs (lowest to highest)\n");
        println!("| | |");
        println!("|---|---|");
        row("stream to committed rows, events/s", drains.iter().map(|drain| rate(drain.seconds)).collect(), 0);
        row("limit: the same intake, discarding, events/s", discards.into_iter().map(rate).collect(), 0);
        row("limit: the same writer without a broker, rows/s", inserts.into_iter().map(rate).collect(), 0);
        row("CPU of the collector, µs an event", column(|drain| drain.collector_us), 2);
        row("CPU of the broker, µs an event", column(|drain| drain.broker_us), 2);
        row("peak memory of the collector, MiB", column(|drain| drain.peak_mib), 1);
    }

    /// Runs `catchment run --drain` from its start to its end.
    fn drain(&self, run: usize) -> Drain {
        let database = self.folder.join(format!("drain-{run}.db"));
        let (children, broker, began) = (children_cpu(), process_cpu(self.server.pid()), Instant::now());
        let mut child = self.catchment("run").arg("--drain").arg("--database").arg(&database).spawn().expect("starts");
        let mut peak = 0;
        let status = loop {
            peak = peak.max(peak_kib(child.id()));
            if let Some(status) = child.try_wait().expect("can be asked") {
                break status;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let seconds = began.elapsed().as_secs_f64();
        assert!(status.success(), "the collector failed");
        let per_event = |cpu: Duration| cpu.as_secs_f64() * 1e6 / EVENTS as f64;
        let result = Drain {
            seconds,
            collector_us: per_event(children_cpu().saturating_sub(children)),
            broker_us: per_event(process_cpu(self.server.pid()).saturating_sub(broker)),
            peak_mib: peak as f64 / 1024.0,
        };
        assert_eq!(rows(&database), EVENTS, "the run stored another number of rows");
        remove(&database);
        result
    }

    /// Seconds to read the stream and discard it.
    fn discard(&self) -> f64 {
        let config = self.config("discard.db");
        let shared = Shared::new("nothing");
        let began = Instant::now();
        let pipeline = pipeline(&config, vec![Discard], true, &shared);
        wait(&pipeline);
        assert_eq!(shared.counters.committed.get(), EVENTS);
        began.elapsed().as_secs_f64()
    }

    /// Seconds to commit as many rows from batches that are in memory already.
    fn insert(&self, run: usize) -> f64 {
        let mut config = DatabaseConfig::default();
        config.path = self.folder.join(format!("insert-{run}.db"));
        let mut writer = Database::open(&config, &Routes::default()).expect("opens").writers().remove(0);
        let epoch = Arc::new(Epoch::new("EVENTS", 1, ""));
        let mut batch = Batch::new(limits());
        let began = Instant::now();
        let mut before = Mark::START;
        for first in (1..=EVENTS).step_by(BATCH) {
            batch.clear();
            batch.begin(Arc::clone(&epoch), before);
            for sequence in first..first + BATCH as u64 {
                before = Mark { sequence, published_ns: 1 };
                batch.push(before, "events.bench", [("Nats-Msg-Id", "18eaa6cb8ca69588-f1c-0-12345")], &[b'x'; 100]);
            }
            writer.commit(&batch).expect("commits");
        }
        let seconds = began.elapsed().as_secs_f64();
        remove(&config.path);
        seconds
    }

    /// The time from when an event is due at its publisher, another process, to its commit.
    fn latency(&self) {
        let config = self.config("latency.db");
        let database = Database::open(&config.database, &Routes::default()).expect("opens");
        let (commits, committed) = mpsc::channel();
        let sink = Watched { writer: database.writers().remove(0), commits };
        let shared = Shared::new("database");
        let pipeline = pipeline(&config, vec![sink], false, &shared);
        while shared.counters.committed.get() < EVENTS {
            std::thread::sleep(Duration::from_millis(10));
        }
        // The system would write what was drained some 30 seconds later, among the events that count.
        assert!(Command::new("sync").status().expect("runs").success());
        let before = EVENTS + WARM_UP;
        let count = (WARM_UP + LATENCY_EVENTS).to_string();
        self.publish(&["--count", &count, "--rate", &LATENCY_RATE.to_string()]);
        while shared.counters.committed.get() < before + LATENCY_EVENTS {
            std::thread::sleep(Duration::from_millis(10));
        }
        pipeline.stop(Duration::from_secs(10)).expect("stops");
        let mut waits: Vec<f64> = committed.try_iter().skip(usize::try_from(before).expect("fits")).collect();
        assert_eq!(waits.len() as u64, LATENCY_EVENTS);
        waits.sort_by(f64::total_cmp);
        let at = |share: f64| waits[((waits.len() - 1) as f64 * share).round() as usize];
        println!("\n{LATENCY_EVENTS} events at {LATENCY_RATE} a second, from due to committed\n");
        println!("| | ms |");
        println!("|---|---|");
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            println!("| {name} | {:.2} |", at(share));
        }
    }
}

/// Commits nothing.
struct Discard;

impl Sink for Discard {
    fn commit(&mut self, _: &Batch) -> Result<Committed, Refusal> {
        Ok(Committed::default())
    }
}

/// Commits, and reports how long ago each event was due.
struct Watched {
    writer: Writer,
    commits: mpsc::Sender<f64>,
}

impl Sink for Watched {
    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        let done = self.writer.commit(batch)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as f64;
        for index in 0..batch.len() {
            let payload: serde_json::Value = serde_json::from_slice(batch.delivery(index).payload).expect("JSON");
            let due = payload["sent_us"].as_f64().expect("a time");
            let _ = self.commits.send((now - due) / 1000.0);
        }
        Ok(done)
    }
}

fn pipeline(config: &Config, sinks: Vec<impl Sink>, drain: bool, shared: &Shared) -> Pipeline {
    let reports = Reports {
        counters: Arc::clone(&shared.counters),
        condition: Condition::new("broker"),
        progress: shared.progress.clone(),
        peer: Peer::default(),
    };
    let cluster = Cluster::new(&config.broker).expect("addresses");
    let owner = Owner { identity: "bench".into(), ..Owner::default() };
    let drain_to = drain.then_some(u64::MAX);
    let options = IntakeOptions { owner, history: Vec::new(), drain_to, pipeline_holds: 2 * BATCH };
    let intake = JetStreamIntake::open(cluster, options, &|| true, &shared.stop, &reports);
    let settings = Settings { limits: limits(), linger: Duration::ZERO };
    Pipeline::start(intake.expect("the stream"), sinks, settings, shared.clone()).expect("starts")
}

fn limits() -> Limits {
    Limits { events: BATCH, bytes: 1 << 20 }
}

fn wait(pipeline: &Pipeline) {
    assert!(pipeline.wait(Duration::from_secs(120)).expect("no failure"));
}

fn rows(database: &Path) -> u64 {
    let connection = rusqlite::Connection::open(database).expect("opens");
    connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).expect("counts")
}

fn remove(database: &Path) {
    for extension in ["", "-wal", "-shm", ".lock"] {
        let mut name = database.as_os_str().to_owned();
        name.push(extension);
        let _ = fs::remove_file(name);
    }
}

/// User and system time of the child processes that have ended.
fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel answers");
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_micros(value.tv_sec().unsigned_abs() * 1_000_000 + value.tv_usec().unsigned_abs())
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// User and system time of a running process, in ticks of 10 ms.
fn process_cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
