//! What a comparison found: raw samples, the machine, the settings, and the verdict. Its JSON is the stable report.
//!
//! Times are in seconds, latencies in microseconds, sizes in bytes. A figure that could not be measured is absent (`null`) and
//! named in `not_measured`; it is never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of the JSON. New fields do not change it; renamed or removed ones do.
pub const FORMAT: u32 = 2;

/// A whole comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of catchment.
    pub catchment: String,
    /// When it began, as RFC 3339.
    pub began: String,
    /// How long it took.
    pub took_s: f64,
    /// The command line that repeats the comparison.
    pub command: String,
    /// Where it was measured.
    pub environment: Environment,
    /// What was measured.
    pub settings: Settings,
    /// The arms. The others are compared with the first.
    pub arms: Vec<ArmReport>,
    /// Each arm against the first, and one arm against itself (the noise floor).
    pub ratios: Vec<Ratio>,
    /// Short and long runs: what an event costs when there are few of them and when there are many.
    #[serde(default)]
    pub costs: Vec<Costs>,
    /// One setting varied while the others stay: writers, producers, batch sizes, codecs.
    pub axes: Vec<Axis>,
    /// The database held locked for a while: how long the caller of `record()` waits.
    pub stalls: Vec<Stall>,
    /// The database side killed for a while.
    pub isolations: Vec<Isolation>,
    /// The broker away for a while.
    #[serde(default)]
    pub outages: Vec<Outage>,
    /// Where the time goes, from a run of its own under a sampling profiler.
    pub hotspots: Vec<Hotspots>,
    /// The conclusion.
    pub verdict: Verdict,
    /// What could not be measured on this machine, and why.
    pub not_measured: Vec<String>,
    /// What failed and therefore has no figure.
    #[serde(default)]
    pub errors: Vec<String>,
    /// Whether it was stopped before it was done. Then this is what was measured until then.
    #[serde(default)]
    pub stopped: bool,
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
    /// Version of nats-server, if one was started.
    pub nats_server: Option<String>,
    /// PRAGMAs of the databases.
    pub pragmas: BTreeMap<String, String>,
    /// Settings of the broker.
    pub broker: BTreeMap<String, String>,
}

/// What each run does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Events of every timed run, if they were given. Otherwise each arm has as many as its runs need to take [`Self::run_for_s`].
    pub events: Option<u64>,
    /// How long a timed run takes at least.
    pub run_for_s: f64,
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
    /// The most events of a transaction, where events share one.
    pub batch: usize,
    /// Events a second in the latency runs.
    pub rate: u64,
    /// Seed of the order of the runs.
    pub seed: u64,
    /// Why fewer runs than requested were made, if so.
    pub cut_short: Option<String>,
}

/// The ways from an application to the database that are compared.
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
    /// Committed to a spool of the application, and forwarded from there to a JetStream stream and a collector.
    Spooled,
}

/// The runs of one arm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArmReport {
    /// The arm.
    pub arm: Arm,
    /// What a recorded event survives. It is not the same for all arms.
    pub promise: String,
    /// Events of each timed run.
    pub events: u64,
    /// Why it was not run, if so.
    pub skipped: Option<String>,
    /// Why its runs have no figures: a row was missing, for instance.
    #[serde(default)]
    pub error: Option<String>,
    /// A run under a tracer that counts system calls and syncs; its times mean nothing.
    #[serde(default)]
    pub counted: Option<Run>,
    /// Timed runs, one for each round: the first runs of all arms were in the same round.
    pub runs: Vec<Run>,
    /// A second series, for the noise floor; only the first arm has one.
    pub again: Vec<Run>,
    /// A run at a given rate, not as fast as possible.
    pub latency: Option<LatencyRun>,
    /// CPU while everything is connected and no event comes.
    pub idle: Option<Idle>,
}

/// One timed run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// From the first recorded event to the last commit seen in the database.
    pub total_s: f64,
    /// From the first recorded event until all were accepted: committed, acknowledged or sent, depending on the arm.
    pub publish_s: f64,
    /// From then until the last commit is seen.
    pub drain_s: f64,
    /// Events recorded.
    pub events: u64,
    /// Events found in the database. Only core NATS may have fewer than were recorded; in other arms that is an error.
    pub committed: u64,
    /// How long the caller of `record()` waited.
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
    /// The part of it in the kernel.
    pub system_s: f64,
    /// Context switches of all threads because a thread waited for something.
    pub voluntary_switches: Option<u64>,
    /// Context switches of all threads because another thread got the processor.
    pub involuntary_switches: Option<u64>,
    /// System calls. They are counted in a run of its own ([`ArmReport::counted`]), because counting slows a run.
    pub syscalls: Option<u64>,
    /// Instructions without those of the kernel, also counted in runs of their own.
    pub instructions: Option<u64>,
    /// Bytes it caused to be written to storage.
    pub written: Option<u64>,
    /// Calls of fsync and fdatasync, also counted in that run.
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

/// A run at a given rate. Each event's time counts from when it was due, so a late event does not make the next ones look fast.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyRun {
    /// Events a second.
    pub rate: u64,
    /// How many events.
    pub events: u64,
    /// How long `record()` took.
    pub record_us: Quantiles,
    /// From when the event was due until its commit.
    pub commit_us: Quantiles,
    /// The curve of commit latency: quantile between 0 and 1, microseconds.
    pub curve: Vec<(f64, f64)>,
}

/// CPU while everything is connected and no event comes.
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
    /// What is compared: `throughput`, `cpu_us_an_event` (of all processes).
    pub of: String,
    /// The arm in the numerator; the first arm is the denominator.
    pub arm: Arm,
    /// The first arm against itself.
    pub noise_floor: bool,
    /// Median of the pairs' ratios.
    pub median: f64,
    /// Bootstrap 95 % interval of that median, widened by the noise floor. With fewer than 6 pairs, the range of the ratios.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// The factor by which the interval was widened.
    pub noise: f64,
    /// Number of pairs.
    pub pairs: usize,
    /// `higher` or `lower` if the interval excludes 1, else `no difference shown`; with fewer than 6 pairs `too few pairs`.
    pub finding: String,
}

/// What an event costs in runs of different lengths.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Costs {
    /// The arm.
    pub arm: Arm,
    /// Runs of the same length, the shortest first.
    pub points: Vec<CostPoint>,
}

/// Runs of the same length.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CostPoint {
    /// Events of each run.
    pub events: u64,
    /// The runs.
    pub runs: Vec<Run>,
}

/// One setting varied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Axis {
    /// The setting: `writers`, `producers`, `batch`, `connections`, `codec`.
    pub setting: String,
    /// The arm.
    pub arm: Arm,
    /// Its values and their runs. All runs of one position were in the same round. The value with the comparison's own settings has
    /// the same runs in all axes of an arm.
    pub points: Vec<AxisPoint>,
}

/// One value of the setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AxisPoint {
    /// The value.
    pub value: String,
    /// Whether the others are compared with this one.
    #[serde(default)]
    pub control: bool,
    /// Its runs.
    pub runs: Vec<Run>,
    /// Bytes of a payload, where that is what varies.
    pub payload: Option<f64>,
}

/// The database held locked for a while.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stall {
    /// The arm.
    pub arm: Arm,
    /// For how long.
    pub held_s: f64,
    /// How long `record()` took meanwhile.
    pub record_us: Quantiles,
    /// Events recorded meanwhile.
    pub events: u64,
    /// Events that were not in the database afterwards; only core NATS may have some.
    pub missing: u64,
}

/// The database side killed for a while under load, with another subscriber.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Isolation {
    /// The arm.
    pub arm: Arm,
    /// For how long it was dead.
    pub away_s: f64,
    /// Events that the application recorded meanwhile.
    pub handed_over: u64,
    /// Events that the other subscriber received live.
    pub seen_live: Option<u64>,
    /// All events of the run.
    pub events: u64,
    /// Events in the database at the end.
    pub committed: u64,
    /// What happened to the application.
    pub application: String,
}

/// The broker away for a while, while events come. An arm without a broker has the same run, for comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outage {
    /// The arm.
    pub arm: Arm,
    /// Events a second.
    pub rate: u64,
    /// From the kill of the broker until it took connections again. Without a broker, the same time.
    pub away_s: f64,
    /// Whether the arm has a broker.
    pub has_broker: bool,
    /// How long `record()` took meanwhile.
    pub record_us: Quantiles,
    /// Events recorded meanwhile.
    pub recorded: u64,
    /// How often `record()` refused an event for now.
    pub refused: u64,
    /// Events whose receipts were not resolved when the broker was back: a crash of the application at that moment would have lost them.
    pub unsettled: u64,
    /// Events whose receipts reported a failure.
    pub failed: u64,
    /// All events of the run, those before the outage included.
    pub events: u64,
    /// Events that were not in the database afterwards; only core NATS may have some.
    pub missing: u64,
    /// From the broker's return until the last row was in the database.
    pub recovery_s: f64,
}

/// Where one process's time goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hotspots {
    /// The arm.
    pub arm: Arm,
    /// `application` or `collector`.
    pub role: String,
    /// Samples taken.
    pub samples: u64,
    /// The functions that ran most often, with their share of the samples.
    pub top: Vec<(String, f64)>,
    /// Share of samples by what the stack was doing: `nats`, `sqlite`, `json`, `channel`, `kernel`, `other`.
    pub shares: BTreeMap<String, f64>,
    /// The flamegraph, beside the report.
    pub flamegraph: Option<String>,
}

/// The conclusion.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// One sentence.
    pub headline: String,
    /// When to stay direct, with the figures that support it.
    pub direct_when: Vec<String>,
    /// When to go through NATS, with the figures that support it.
    pub nats_when: Vec<String>,
    /// Limits of what was measured.
    pub caveats: Vec<String>,
}
