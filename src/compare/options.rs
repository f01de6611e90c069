//! What to compare, and how thoroughly.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::workload::{Codec, Workload};
use super::{Arm, CompareError, Settings, arms};
use crate::config::Synchronous;

/// What the database does for each event, besides catchment's own work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// A row.
    #[default]
    #[serde(rename = "insert")]
    Insert,
    /// A row, and a counter of its subject.
    #[serde(rename = "insert+stats")]
    Stats,
    /// A row, a counter, and a log of the latest thousand events; older ones are deleted.
    #[serde(rename = "insert+stats+prune")]
    Prune,
}

impl Work {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Insert, Self::Stats, Self::Prune];

    /// Its name on the command line and in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Stats => "insert+stats",
            Self::Prune => "insert+stats+prune",
        }
    }
}

/// What to compare. `Options::default()` is a thorough comparison of all arms.
#[derive(Clone, Debug)]
pub struct Options {
    /// The arms; the others are compared with the first.
    pub arms: Vec<Arm>,
    /// Events of every timed run. Without it, each arm gets as many as its runs need to take `run_for`.
    pub events: Option<u64>,
    /// Events of the timed runs of single arms, for runs like those of an earlier comparison. Precedes `events`.
    pub events_of: BTreeMap<Arm, u64>,
    /// How long a timed run takes at least, where the number of its events is not given.
    pub run_for: Duration,
    /// Runs of each arm.
    pub pairs: usize,
    /// No further round of timed runs begins after this long for each arm. The first round is always made.
    pub budget: Option<Duration>,
    /// After this long no further run of the cost curve and no further axis begins.
    pub limit: Option<Duration>,
    /// Producer threads.
    pub producers: usize,
    /// Writer threads.
    pub writers: usize,
    /// The most events of a transaction, where events share one.
    pub batch: usize,
    /// `synchronous` of the databases.
    pub synchronous: Synchronous,
    /// How messages are encoded.
    pub codec: Codec,
    /// What the database does for each.
    pub work: Work,
    /// Events a second where events come at a rate. Without it, half of what the slowest run reached, at most 1,000.
    pub rate: Option<u64>,
    /// How long events come at that rate in a latency run.
    pub rate_for: Duration,
    /// How long idle CPU is measured.
    pub idle_for: Duration,
    /// How long the database is held locked.
    pub stall_for: Duration,
    /// How long the database side is dead.
    pub away_for: Duration,
    /// How long the broker is away; 0 leaves these runs out.
    pub outage_for: Duration,
    /// The numbers of events of the cost curve; empty leaves it out.
    pub curve: Vec<u64>,
    /// The value of writers, producers and connections in the axes, besides 1.
    pub several: usize,
    /// Runs of each point of an axis; 0 leaves the axes out.
    pub axis_runs: usize,
    /// The numbers of partitions that are compared with a stream without partitions.
    pub partitions: Vec<u32>,
    /// No other setting is varied than the number of partitions.
    pub only_partitions: bool,
    /// Whether callgrind may count instructions where the processor cannot; that takes a few seconds an arm.
    pub callgrind: bool,
    /// How long the profiled run of each arm takes, about; 0 leaves it out.
    pub profile_for: Duration,
    /// Path and prefix of the flamegraphs: `report` for `report-jetstream-collector.svg`. Without it they are not kept.
    pub flamegraphs: Option<PathBuf>,
    /// Seed of the order of the runs and of the messages.
    pub seed: u64,
    /// Where databases and streams are kept during the comparison.
    pub directory: PathBuf,
    /// A server that is already running. Without it, each run starts its own.
    pub server: Option<String>,
    /// The program `nats-server`.
    pub nats_server: PathBuf,
    /// The program `catchment`, for application and collector.
    pub program: PathBuf,
    /// The command line that repeats this.
    pub command: String,
    /// Delete a row of this arm before the rows are checked, to test the check.
    pub lose_a_row: Option<Arm>,
}

/// The numbers of partitions that can be compared on one machine.
const PARTITIONS: RangeInclusive<u32> = 1..=64;

/// The longest time that makes sense for a run.
const MOST_RUN_FOR: Duration = Duration::from_secs(60);

impl Default for Options {
    fn default() -> Self {
        Self {
            arms: arms::ALL.into(),
            events: None,
            events_of: BTreeMap::new(),
            run_for: Duration::from_secs(1),
            pairs: 10,
            budget: Some(Duration::from_secs(120)),
            limit: None,
            producers: 1,
            writers: 1,
            batch: 5_000,
            synchronous: Synchronous::Full,
            codec: Codec::Json,
            work: Work::Insert,
            rate: None,
            rate_for: Duration::from_secs(10),
            idle_for: Duration::from_secs(5),
            stall_for: Duration::from_secs(2),
            away_for: Duration::from_secs(2),
            outage_for: Duration::from_secs(10),
            curve: vec![1_000, 10_000, 100_000],
            several: 4,
            axis_runs: 3,
            partitions: Vec::new(),
            only_partitions: false,
            callgrind: true,
            profile_for: Duration::from_secs(5),
            flamegraphs: None,
            seed: 1,
            directory: "target".into(),
            server: None,
            nats_server: "nats-server".into(),
            program: "catchment".into(),
            command: "catchment compare".into(),
            lose_a_row: None,
        }
    }
}

/// The options that may differ between runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Setup {
    pub(super) arm: Arm,
    pub(super) events: u64,
    pub(super) producers: usize,
    pub(super) connections: usize,
    /// Partitions of the stream, each with a collector and a database of its own. With 1, the stream has none.
    pub(super) partitions: u32,
    pub(super) writers: usize,
    pub(super) batch: usize,
    pub(super) codec: Codec,
    pub(super) rate: Option<u64>,
    pub(super) under_callgrind: bool,
    /// Application and collector profile themselves.
    pub(super) profiled: bool,
    /// The application waits for its receipts.
    pub(super) keeps_receipts: bool,
}

impl Options {
    /// The same, within two minutes on two cores.
    #[must_use]
    pub fn quick(self) -> Self {
        Self {
            run_for: Duration::from_millis(250),
            curve: Vec::new(),
            budget: Some(Duration::from_secs(7)),
            limit: Some(Duration::from_secs(100)),
            rate_for: Duration::from_millis(1_500),
            idle_for: Duration::from_secs(1),
            stall_for: Duration::from_secs(1),
            away_for: Duration::from_millis(700),
            outage_for: Duration::ZERO,
            axis_runs: 1,
            callgrind: false,
            profile_for: Duration::from_secs(1),
            ..self
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    ///
    /// [`CompareError::Option`] for the first that cannot be used.
    pub fn validate(&self) -> Result<(), CompareError> {
        let refused = |option, detail: &str, remedy: &str| {
            Err(CompareError::Option { option, detail: detail.into(), remedy: remedy.into() })
        };
        let mut arms = self.arms.clone();
        arms.sort();
        arms.dedup();
        match () {
            () if self.arms.is_empty() => refused("arms", "is empty", "name at least one"),
            () if arms.len() < self.arms.len() => refused("arms", "names an arm twice", "name each once"),
            () if self.events == Some(0) => refused("events", "is 0", "a run needs at least 1"),
            () if self.run_for.is_zero() => refused("run-for", "is 0", "give a time, such as 1s"),
            () if self.run_for > MOST_RUN_FOR => {
                refused("run-for", &format!("is {:?}", self.run_for), "a run of a minute is long enough")
            }
            () if self.curve.contains(&0) => refused("curve", "names 0 events", "a run needs at least 1"),
            () if self.pairs == 0 => refused("pairs", "is 0", "a comparison needs at least 1"),
            () if self.producers == 0 => refused("producers", "is 0", "at least 1 has to produce"),
            () if self.writers == 0 => refused("writers", "is 0", "at least 1 has to write"),
            () if self.batch == 0 => refused("batch", "is 0", "a transaction has at least 1 event"),
            () if self.partitions.iter().any(|number| !PARTITIONS.contains(number)) => {
                let (least, most) = (PARTITIONS.start(), PARTITIONS.end());
                refused("partitions", "names a number out of range", &format!("give numbers from {least} to {most}"))
            }
            () if self.rate == Some(0) => refused("rate", "is 0", "give events a second"),
            () => Ok(()),
        }
    }

    /// Whether the broker is taken away for a while. A server that runs already is not.
    pub(super) fn has_outage(&self) -> bool {
        !self.outage_for.is_zero() && self.server.is_none()
    }

    /// The settings of timed runs, as they stand in the report.
    pub(crate) fn settings(&self) -> Settings {
        let workload = self.workload(&self.setup(Arm::DirectGrouped, 1_000), "events.chat");
        Settings {
            events: self.events,
            run_for_s: self.run_for.as_secs_f64(),
            payload: workload.payload(),
            pairs: self.pairs,
            producers: self.producers,
            writers: self.writers,
            synchronous: self.synchronous_name().into(),
            codec: self.codec.name().into(),
            work: self.work.name().into(),
            batch: self.batch,
            rate: self.rate.unwrap_or(0),
            seed: self.seed,
            cut_short: None,
        }
    }

    /// The numbers of events of the cost curve, the smallest first.
    pub(super) fn curve_events(&self) -> Vec<u64> {
        let mut events = self.curve.clone();
        events.sort_unstable();
        events.dedup();
        events
    }

    /// The number of events of an arm's timed runs, if it is given.
    pub(crate) fn given_events(&self, arm: Arm) -> Option<u64> {
        self.events_of.get(&arm).copied().or(self.events)
    }

    pub(super) fn setup(&self, arm: Arm, events: u64) -> Setup {
        Setup {
            arm,
            events,
            producers: self.producers,
            connections: 1,
            partitions: 1,
            writers: self.writers,
            batch: self.batch,
            codec: self.codec,
            rate: None,
            under_callgrind: false,
            profiled: false,
            keeps_receipts: false,
        }
    }

    /// The messages of a run; `subject` is the prefix of their subjects.
    pub(super) fn workload(&self, setup: &Setup, subject: &str) -> Workload {
        Workload { seed: self.seed, events: setup.events, codec: setup.codec, subject: subject.into() }
    }

    pub(super) fn synchronous_name(&self) -> &'static str {
        match self.synchronous {
            Synchronous::Full => "full",
            Synchronous::Normal => "normal",
        }
    }
}

impl Setup {
    /// The same, at a rate for this long.
    pub(super) fn at(self, rate: u64, duration: Duration) -> Self {
        let events = (rate as f64 * duration.as_secs_f64()).ceil().max(1.0) as u64;
        Self { rate: Some(rate), events, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_be_used_are_refused_by_name() {
        let refused = |options: Options| options.validate().expect_err("must be refused").to_string();
        assert!(Options::default().validate().is_ok());
        assert!(refused(Options { arms: Vec::new(), ..Options::default() }).starts_with("arms: "));
        assert!(refused(Options { arms: vec![Arm::CoreNats; 2], ..Options::default() }).contains("twice"));
        assert!(refused(Options { events: Some(0), ..Options::default() }).starts_with("events: "));
        assert!(refused(Options { run_for: Duration::ZERO, ..Options::default() }).starts_with("run-for: "));
        assert!(refused(Options { curve: vec![1_000, 0], ..Options::default() }).starts_with("curve: "));
        assert!(refused(Options { partitions: vec![2, 0], ..Options::default() }).starts_with("partitions: "));
        assert!(refused(Options { rate: Some(0), ..Options::default() }).starts_with("rate: "));
    }

    #[test]
    fn a_rate_and_a_duration_make_a_number_of_events() {
        let setup = Options::default().setup(Arm::Jetstream, 1).at(500, Duration::from_millis(1_500));
        assert_eq!((setup.events, setup.rate), (750, Some(500)));
    }
}
