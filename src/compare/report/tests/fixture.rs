//! A comparison with invented figures, such as a machine with two cores might give.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::compare::statistics::{metric, ratios};
use crate::compare::{
    Arm, ArmReport, Axis, AxisPoint, Comparison, CostPoint, Costs, Environment, FORMAT, Hotspots, Idle, Isolation,
    LatencyRun, Outage, Process, Quantiles, Run, Settings, Stall, Verdict,
};

pub const EVENTS: u64 = 20_000;
const SEED: u64 = 1;

/// How much slower than usual each round was, for all arms.
const ROUNDS: [f64; 7] = [1.0, 1.02, 0.99, 1.05, 0.98, 1.01, 1.0];
/// How much each run differs by itself.
const NOISE: [f64; 7] = [1.0, 0.995, 1.004, 0.998, 1.006, 1.001, 0.997];

/// Four arms that ran, and one that was skipped.
pub fn comparison() -> Comparison {
    static MADE: LazyLock<Comparison> = LazyLock::new(made);
    MADE.clone()
}

fn made() -> Comparison {
    let mut arms = vec![
        arm(Arm::DirectPerEvent, 49.4, &[("application", 7.9)], 2_300.0, 2_410.0),
        arm(Arm::DirectGrouped, 0.41, &[("application", 0.52)], 3.1, 1_900.0),
        arm(Arm::CoreNats, 0.45, &[("application", 0.12), ("collector", 0.4), ("broker", 0.1)], 2.2, 2_000.0),
        arm(Arm::Jetstream, 0.64, &[("application", 0.31), ("collector", 0.5), ("broker", 0.44)], 4.8, 3_150.0),
    ];
    arms[0].again = (0..ROUNDS.len()).map(|round| run(49.5, &[("application", 7.92)], round + 2, EVENTS)).collect();
    for run in &mut arms[2].runs {
        run.committed = EVENTS - 12;
    }
    arms.push(ArmReport {
        arm: Arm::JetstreamSyncAlways,
        promise: "a power cut, once the broker has acknowledged it".into(),
        events: 0,
        skipped: Some("nats-server 2.9 has no sync_interval \"always\"".into()),
        error: None,
        counted: None,
        runs: Vec::new(),
        again: Vec::new(),
        latency: None,
        idle: None,
    });
    let mut comparison = Comparison {
        format: FORMAT,
        catchment: "0.1.0".into(),
        began: "2026-03-01T10:00:00Z".into(),
        took_s: 912.0,
        command: "catchment compare --events 20000 --pairs 7".into(),
        environment: environment(),
        settings: settings(),
        ratios: ratios(&arms, SEED),
        arms,
        costs: costs(),
        axes: axes(),
        stalls: stalls(),
        isolations: isolations(),
        outages: outages(),
        hotspots: hotspots(),
        verdict: Verdict::default(),
        not_measured: vec!["instructions: perf_event_paranoid is 4 here".into()],
        errors: Vec::new(),
        stopped: false,
    };
    comparison.verdict = super::super::verdict(&comparison);
    comparison
}

fn environment() -> Environment {
    Environment {
        processor: "AMD EPYC 7763 <virtual> & \"shared\"".into(),
        cores: 2,
        memory: 8 << 30,
        kernel: "Linux 6.1.0".into(),
        file_system: "ext4 on /var/tmp".into(),
        sqlite: "3.51.1".into(),
        nats_server: Some("2.10.20".into()),
        pragmas: [("journal_mode", "wal"), ("synchronous", "full")]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        broker: [("sync_interval".into(), "2m".into())].into(),
    }
}

fn settings() -> Settings {
    Settings {
        events: Some(EVENTS),
        run_for_s: 1.0,
        payload: 112.4,
        pairs: ROUNDS.len(),
        producers: 1,
        writers: 1,
        synchronous: "full".into(),
        codec: "json".into(),
        work: "insert".into(),
        batch: 5_000,
        rate: 200,
        seed: SEED,
        cut_short: None,
    }
}

fn arm(arm: Arm, total_s: f64, cpu_s: &[(&str, f64)], record_us: f64, commit_us: f64) -> ArmReport {
    let runs = (0..ROUNDS.len()).map(|round| run(total_s, cpu_s, round, EVENTS)).collect();
    let promise = match arm {
        Arm::DirectPerEvent => "a power cut, once record() has returned",
        Arm::DirectGrouped => "a power cut, once flush() has returned",
        Arm::CoreNats => "nothing: at most once",
        Arm::Jetstream | Arm::JetstreamSyncAlways | Arm::Spooled => {
            "a crash of any process, once the broker has acknowledged it"
        }
    };
    let curve = (0..200).map(|at| {
        let quantile = 1.0 - 10_f64.powf(-f64::from(at) / 50.0);
        (quantile, commit_us * (1.0 + f64::from(at * at) / 4_000.0))
    });
    let idle = cpu_s.iter().map(|(role, _)| ((*role).into(), if *role == "broker" { 0.021 } else { 0.004 }));
    ArmReport {
        arm,
        promise: promise.into(),
        events: EVENTS,
        skipped: None,
        error: None,
        counted: None,
        runs,
        again: Vec::new(),
        latency: Some(LatencyRun {
            rate: 200,
            events: 2_000,
            record_us: spread(record_us),
            commit_us: spread(commit_us),
            curve: curve.chain([(1.0, commit_us * 14.0)]).collect(),
        }),
        idle: Some(Idle { seconds: 10.0, cpu_s: idle.collect() }),
    }
}

pub fn run(total_s: f64, cpu_s: &[(&str, f64)], round: usize, committed: u64) -> Run {
    let factor = ROUNDS[round % ROUNDS.len()] * NOISE[(round * 3 + cpu_s.len()) % NOISE.len()];
    let total_s = total_s * factor;
    let process = |cpu_s: f64| Process {
        cpu_s: cpu_s * factor,
        system_s: cpu_s * factor * 0.4,
        voluntary_switches: Some(1_200),
        involuntary_switches: Some(340),
        syscalls: Some(61_000),
        instructions: None,
        written: Some(9_800_000),
        syncs: Some(42),
        peak_memory: Some(28 << 20),
    };
    let timeline = (1..=40_u64).map(|step| {
        let part = metric::number(step) / 40.0;
        (total_s * part.powf(0.9), EVENTS * step / 40)
    });
    Run {
        total_s,
        publish_s: total_s * 0.7,
        drain_s: total_s * 0.3,
        events: EVENTS,
        committed,
        record_us: spread(total_s * 20.0),
        processes: cpu_s.iter().map(|(role, cpu_s)| ((*role).into(), process(*cpu_s))).collect(),
        timeline: timeline.collect(),
    }
}

fn spread(p50: f64) -> Quantiles {
    Quantiles { p50, p90: p50 * 1.4, p99: p50 * 2.5, p999: p50 * 6.0, max: p50 * 14.0 }
}

/// The direct arm costs less in long runs; the last point of the other has one run.
fn costs() -> Vec<Costs> {
    let point = |events: u64, total_s: f64, runs: usize| CostPoint {
        events,
        runs: (0..runs)
            .map(|round| Run { events, ..run(total_s, &[("application", total_s)], round, events) })
            .collect(),
    };
    vec![
        Costs { arm: Arm::DirectGrouped, points: vec![point(1_000, 0.01, 3), point(100_000, 0.4, 3)] },
        Costs { arm: Arm::DirectPerEvent, points: vec![point(1_000, 2.0, 3), point(100_000, 200.0, 1)] },
    ]
}

fn axes() -> Vec<Axis> {
    let point = |value: &str, total_s: f64, payload: Option<f64>| AxisPoint {
        value: value.into(),
        control: matches!(value, "1" | "5000" | "json"),
        runs: (0..3)
            .map(|round| run(total_s, &[("application", 0.3), ("collector", 0.5), ("broker", 0.4)], round, EVENTS))
            .collect(),
        payload,
    };
    let axis = |setting: &str, points| Axis { setting: setting.into(), arm: Arm::Jetstream, points };
    vec![
        axis("writers", vec![point("1", 0.64, None), point("2", 0.66, None), point("4", 0.71, None)]),
        axis("batch", vec![point("2", 47.0, None), point("100", 1.1, None), point("5000", 0.64, None)]),
        axis("codec", vec![point("json", 0.64, Some(112.4)), point("messagepack", 0.6, Some(88.0))]),
    ]
}

fn stalls() -> Vec<Stall> {
    let stall = |arm, longest: f64, events| Stall {
        arm,
        held_s: 2.0,
        record_us: Quantiles { max: longest, ..spread(3.0) },
        events,
        missing: 0,
    };
    vec![
        stall(Arm::DirectPerEvent, 1_990_000.0, 1),
        stall(Arm::DirectGrouped, 1_200_000.0, 10_000),
        stall(Arm::Jetstream, 410.0, 40_000),
    ]
}

fn isolations() -> Vec<Isolation> {
    vec![
        Isolation {
            arm: Arm::DirectPerEvent,
            away_s: 3.0,
            handed_over: 0,
            seen_live: None,
            events: 1_200,
            committed: 1_200,
            application: "died with its database side".into(),
        },
        Isolation {
            arm: Arm::Jetstream,
            away_s: 3.0,
            handed_over: 3_000,
            seen_live: Some(6_000),
            events: 6_000,
            committed: 6_000,
            application: "kept running".into(),
        },
    ]
}

fn outages() -> Vec<Outage> {
    let outage = |arm, rate, has_broker, longest: f64| Outage {
        arm,
        rate,
        away_s: 10.125,
        has_broker,
        record_us: Quantiles { max: longest, ..spread(4.0) },
        recorded: rate * 10,
        refused: 0,
        unsettled: 0,
        failed: 0,
        events: rate * 10 + rate / 2,
        missing: 0,
        recovery_s: 0.004,
    };
    vec![
        outage(Arm::DirectPerEvent, 210, false, 9_100.0),
        outage(Arm::DirectGrouped, 1_000, false, 310.0),
        Outage {
            unsettled: 9_990,
            failed: 3,
            missing: 118,
            recovery_s: 0.31,
            ..outage(Arm::CoreNats, 1_000, true, 402.0)
        },
        Outage { unsettled: 10_001, recovery_s: 0.62, ..outage(Arm::Jetstream, 1_000, true, 415.0) },
        Outage { recovery_s: 1.25, ..outage(Arm::Spooled, 1_000, true, 280.0) },
    ]
}

fn hotspots() -> Vec<Hotspots> {
    let shares =
        |of: &[(&str, f64)]| of.iter().map(|(kind, share)| ((*kind).to_string(), *share)).collect::<BTreeMap<_, _>>();
    vec![
        Hotspots {
            arm: Arm::DirectGrouped,
            role: "application".into(),
            samples: 512,
            top: vec![("sqlite3VdbeExec".into(), 0.21), ("balance<T>".into(), 0.11), ("memcpy".into(), 0.07)],
            shares: shares(&[("sqlite", 0.7), ("channel", 0.1), ("kernel", 0.15), ("other", 0.05)]),
            flamegraph: Some("flamegraphs/direct grouped.svg".into()),
        },
        Hotspots {
            arm: Arm::Jetstream,
            role: "collector".into(),
            samples: 498,
            top: vec![("sqlite3VdbeExec".into(), 0.18), ("nats::proto::decode".into(), 0.09), ("memcpy".into(), 0.08)],
            shares: shares(&[("sqlite", 0.5), ("nats", 0.149), ("json", 0.05), ("kernel", 0.2), ("other", 0.1)]),
            flamegraph: Some("flamegraphs/jetstream.svg".into()),
        },
    ]
}
