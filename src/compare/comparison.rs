//! What a comparison found: raw samples, callbacks, and what follows from them. Its JSON is the stable report.
//!
//! Times are in seconds, latencies in microseconds, sizes in bytes. What could not be measured here is absent (`null`) and
//! named in `not_measured`, never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The shape of the JSON. Fields are added without changing it; what is renamed or removed changes it.
pub const FORMAT: u32 = 1;

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of catchment that measured.
    pub catchment: String,
    /// When it began, as RFC 3339.
    pub began: String,
    /// How long it took.
    pub took_s: f64,
    /// The command line that repeats it.
    pub command: String,
    /// Where it was measured.
    pub environment: Environment,
    /// What was measured.
    pub settings: Settings,
    /// The ways an event may go. The first is what the others are compared with.
    pub arms: Vec<ArmReport>,
    /// Each arm against the first, and one arm against itself (the noise floor).
    pub ratios: Vec<Ratio>,
    /// One setting varied while everything else stays: writers, producers, batch sizes, codecs.
    pub axes: Vec<Axis>,
    /// The database held locked for a while: what the caller of `record` feels.
    pub stalls: Vec<Stall>,
    /// The database side killed for a while.
    pub isolations: Vec<Isolation>,
    /// Where the time goes, from a run of its own under a sampling profiler.
    pub hotspots: Vec<Hotspots>,
    /// What follows.
    pub verdict: Verdict,
    /// What this machine does not let be measured, and why.
    pub not_measured: Vec<String>,
    /// What failed, and has no figure for that.
    #[serde(default)]
    pub errors: Vec<String>,
}

/// The machine and the programs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    /// Model of the processor.
    pub processor: String,
    /// Cores the processes may use.
    pub cores: usize,
    /// Memory.
    pub memory: u64,
    /// Kernel, name and release.
    pub kernel: String,
    /// File system that the databases were on, and where.
    pub file_system: String,
    /// Version of SQLite.
    pub sqlite: String,
    /// Version of nats-server, where one took part.
    pub nats_server: Option<String>,
    /// PRAGMAs of the databases.
    pub pragmas: BTreeMap<String, String>,
    /// Settings of the broker.
    pub broker: BTreeMap<String, String>,
}

/// What each run does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Events a run.
    pub events: u64,
    /// Bytes of one payload, on average.
    pub payload: f64,
    /// Runs of each arm, paired by round.
    pub pairs: usize,
    /// Producer threads.
    pub producers: usize,
    /// Writer threads.
    pub writers: usize,
    /// `full` or `normal`.
    pub synchronous: String,
    /// `json` or `messagepack`.
    pub codec: String,
    /// `insert`, `insert+stats` or `insert+stats+prune`.
    pub work: String,
    /// Events a transaction, at most, where events share one.
    pub batch: usize,
    /// Events a second in the latency runs.
    pub rate: u64,
    /// Seed of the order of the runs.
    pub seed: u64,
    /// Whether fewer runs than asked for were made, and why.
    pub cut_short: Option<String>,
}

/// Names of arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// Committed one by one on the caller's thread.
    DirectPerEvent,
    /// Handed to writer threads of the application, which commit many at a time.
    DirectGrouped,
    /// Core NATS and a collector: at most once.
    CoreNats,
    /// A JetStream stream and a collector.
    Jetstream,
    /// The same, with a broker that syncs every event to its disk before it acknowledges it.
    JetstreamSyncAlways,
}

/// The runs of one arm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArmReport {
    /// Which.
    pub arm: Arm,
    /// What an event that was reported kept survives: it is not the same for all arms.
    pub promise: String,
    /// Why it was not run, where it was not.
    pub skipped: Option<String>,
    /// Why it has no runs although it was run: it lost a row, for instance.
    #[serde(default)]
    pub error: Option<String>,
    /// A run under a tracer, for its system calls and syncs; its times mean nothing.
    #[serde(default)]
    pub counted: Option<Run>,
    /// Timed runs, in rounds: the first of every arm ran in one round, and so on.
    pub runs: Vec<Run>,
    /// A second series of the same arm, for the noise floor; only of the first arm.
    pub again: Vec<Run>,
    /// At a given rate, not as fast as possible.
    pub latency: Option<LatencyRun>,
    /// Everything connected and nothing to do.
    pub idle: Option<Idle>,
}

/// One timed run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// From the first event handed over to the last commit seen in the database.
    pub total_s: f64,
    /// From the first event handed over until all were accepted: committed, acknowledged or written, as the arm has it.
    pub publish_s: f64,
    /// From then until the last commit was seen.
    pub drain_s: f64,
    /// Events handed over.
    pub events: u64,
    /// Events found in the database. Fewer than handed over only in core NATS; elsewhere that is an error, not a run.
    pub committed: u64,
    /// What `record()` took, as its caller latencies it.
    pub record_us: Quantiles,
    /// Processes by role: `application`, `collector`, `broker`.
    pub processes: BTreeMap<String, Process>,
    /// Seconds since the first event, and events committed by then.
    pub timeline: Vec<(f64, u64)>,
}

/// What a process used in a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// CPU seconds, user and system.
    pub cpu_s: f64,
    /// Of these in the kernel.
    pub system_s: f64,
    /// Context switches of all threads: waited for something.
    pub voluntary_switches: Option<u64>,
    /// Context switches of all threads: was put off.
    pub involuntary_switches: Option<u64>,
    /// System calls: counted in a run of its own ([`ArmReport::counted`]), for counting slows it down.
    pub syscalls: Option<u64>,
    /// Instructions, counted in runs of their own too; without those of the kernel.
    pub instructions: Option<u64>,
    /// Bytes it caused to be written to storage.
    pub written: Option<u64>,
    /// Calls of fsync and fdatasync, counted in that run too.
    pub syncs: Option<u64>,
    /// Resident memory at its highest.
    pub peak_memory: Option<u64>,
}

/// Quantiles of a distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are below.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// All.
    pub max: f64,
}

/// A run at a given rate: each event's time counts from when it was due, so one that is late delays none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyRun {
    /// Events a second.
    pub rate: u64,
    /// How many events.
    pub events: u64,
    /// What `record()` took.
    pub record_us: Quantiles,
    /// From when the event was due until its commit.
    pub commit_us: Quantiles,
    /// Points of the curve of the second: quantile between 0 and 1, microseconds.
    pub curve: Vec<(f64, f64)>,
}

/// Everything connected and nothing to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Idle {
    /// For how long.
    pub seconds: f64,
    /// CPU seconds by role.
    pub cpu_s: BTreeMap<String, f64>,
}

/// A paired ratio with its interval.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    /// What is compared: `total_s`, `cpu_s` (of all processes), `throughput`.
    pub of: String,
    /// The arm above the line; below it is the first arm.
    pub arm: Arm,
    /// The first arm against itself.
    pub noise_floor: bool,
    /// Median of the pairs' ratios.
    pub median: f64,
    /// Bootstrap 95 % interval of that median.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Pairs it was made of.
    pub pairs: usize,
    /// `higher`, `lower` or `no difference shown`: the interval, widened by the noise floor, does not hold 1 or does.
    pub finding: String,
}

/// One setting varied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Axis {
    /// Which: `writers`, `producers`, `batch`, `connections`, `codec`.
    pub setting: String,
    /// In which arm.
    pub arm: Arm,
    /// Its values and their runs.
    pub points: Vec<AxisPoint>,
}

/// One value of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AxisPoint {
    /// The value.
    pub value: String,
    /// Its runs.
    pub runs: Vec<Run>,
    /// Bytes of a payload, where that is what varies.
    pub payload: Option<f64>,
}

/// The database held locked for a while.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stall {
    /// In which arm.
    pub arm: Arm,
    /// For how long.
    pub held_s: f64,
    /// What `record()` took meanwhile.
    pub record_us: Quantiles,
    /// Events handed over meanwhile.
    pub events: u64,
    /// Whether all were in the database afterwards; in core NATS, how many were not.
    pub missing: u64,
}

/// The database side killed for a while under load, with another subscriber listening.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Isolation {
    /// In which arm.
    pub arm: Arm,
    /// For how long it was away.
    pub away_s: f64,
    /// Events the application could hand over meanwhile.
    pub handed_over: u64,
    /// Events the other subscriber saw live, of all.
    pub seen_live: Option<u64>,
    /// Events of all.
    pub events: u64,
    /// Events in the database at the end.
    pub committed: u64,
    /// What became of the application.
    pub application: String,
}

/// Where one process's time goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hotspots {
    /// In which arm.
    pub arm: Arm,
    /// `application` or `collector`.
    pub role: String,
    /// Samples taken.
    pub samples: u64,
    /// The functions most often on top of the stack, with their share.
    pub top: Vec<(String, f64)>,
    /// Share of samples by what the stack was doing: `nats`, `sqlite`, `json`, `channel`, `kernel`, `other`.
    pub shares: BTreeMap<String, f64>,
    /// The flamegraph, beside the report.
    pub flamegraph: Option<String>,
}

/// What follows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// One sentence.
    pub headline: String,
    /// When to stay direct, with the figures that say so.
    pub direct_when: Vec<String>,
    /// When to go through NATS, with the figures that say so.
    pub nats_when: Vec<String>,
    /// What was left open.
    pub caveats: Vec<String>,
}
