//! The smaller tables.

use super::figures;
use super::names;
use super::overview::{self, Overview, samples};
use crate::compare::statistics::{interval_of_median, median, metric};
use crate::compare::{Axis, AxisPoint, Comparison, Hotspots, Run};

/// A table. The first column has names.
pub struct Table {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// Whether the other columns have figures, which are aligned right.
    pub figures: bool,
}

impl Table {
    fn new(title: impl Into<String>, head: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { title: title.into(), head: head.iter().map(ToString::to_string).collect(), rows, figures: true }
    }

    /// A table without figures.
    pub fn of_words(title: impl Into<String>, head: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { figures: false, ..Self::new(title, head, rows) }
    }
}

/// Medians of all arms.
pub fn medians(overview: &Overview) -> Table {
    let head = ["Median of the runs"].into_iter().chain(overview.arms.iter().map(|arm| names::title(*arm)));
    let row = |row: &overview::Row| [vec![row.name.to_string()], row.values.clone()].concat();
    Table::new("The figures", &head.collect::<Vec<_>>(), overview.rows.iter().map(row).collect())
}

/// Differences of all arms from the first; none if nothing can be compared.
pub fn differences(comparison: &Comparison, overview: &Overview) -> Option<Table> {
    let first = comparison.arms.first()?.arm;
    let others: Vec<usize> = (0..overview.arms.len()).filter(|at| overview.arms[*at] != first).collect();
    let compared = overview.rows.iter().filter(|row| row.differences.iter().any(|difference| !difference.is_empty()));
    let rows: Vec<Vec<String>> = compared
        .map(|row| {
            let of_arm = others.iter().map(|at| row.differences[*at].clone());
            std::iter::once(row.name.to_string()).chain(of_arm).collect()
        })
        .collect();
    let title = format!("Difference from {}", names::title(first));
    let head = ["Difference"].into_iter().chain(others.iter().map(|at| names::title(overview.arms[*at])));
    (!rows.is_empty()).then(|| Table::new(title, &head.collect::<Vec<_>>(), rows))
}

/// The ratios with their intervals, including the noise floor.
pub fn ratios(comparison: &Comparison) -> Table {
    let row = |ratio: &crate::compare::Ratio| {
        let arm = names::title(ratio.arm);
        vec![
            ratio.of.clone(),
            if ratio.noise_floor { format!("{arm}, against itself") } else { arm.into() },
            format!("{:.3}", ratio.median),
            format!("{:.3} to {:.3}", ratio.low, ratio.high),
            figures::count(ratio.pairs as u64),
            ratio.finding.clone(),
        ]
    };
    let head = ["Ratio of", "Arm", "Median", "95 % interval", "Pairs", "Finding"];
    Table::new("Paired ratios", &head, comparison.ratios.iter().map(row).collect())
}

/// One setting varied.
pub fn axis(comparison: &Comparison, axis: &Axis) -> Table {
    let with_payload = axis.points.iter().any(|point| point.payload.is_some());
    let mut head = vec![axis.setting.as_str(), "Runs", "Events/s", "95 % interval", "CPU an event"];
    if with_payload {
        head.push("Payload");
    }
    let row = |point: &AxisPoint| {
        let rates = samples(axis.arm, &point.runs, metric::throughput);
        let (rate, interval) = rates.map_or_else(
            || ("not measured".into(), String::new()),
            |rates| {
                let found = interval_of_median(&rates, comparison.settings.seed);
                (
                    figures::amount(found.median),
                    format!("{} to {}", figures::amount(found.low), figures::amount(found.high)),
                )
            },
        );
        let cpu = samples(axis.arm, &point.runs, metric::cpu_us_an_event)
            .map_or_else(|| "not measured".into(), |us| figures::micros(median(&us)));
        let mut row = vec![point.value.clone(), figures::count(point.runs.len() as u64), rate, interval, cpu];
        if with_payload {
            row.push(point.payload.map_or_else(|| "not measured".into(), figures::bytes));
        }
        row
    };
    let title = format!("{} in {}", names::capital(&axis.setting), names::title(axis.arm));
    Table::new(title, &head, axis.points.iter().map(row).collect())
}

/// The database held locked.
pub fn stalls(comparison: &Comparison) -> Option<Table> {
    let row = |stall: &crate::compare::Stall| {
        let us = stall.record_us;
        vec![
            names::title(stall.arm).into(),
            figures::seconds(stall.held_s),
            figures::count(stall.events),
            figures::micros(us.p50),
            figures::micros(us.p99),
            figures::micros(us.max),
            figures::count(stall.missing),
        ]
    };
    let head = ["Arm", "Locked for", "Recorded meanwhile", "record() p50", "p99", "max", "Missing afterwards"];
    let rows: Vec<_> = comparison.stalls.iter().map(row).collect();
    (!rows.is_empty()).then(|| Table::new("The database held locked", &head, rows))
}

/// The database side killed.
pub fn isolations(comparison: &Comparison) -> Option<Table> {
    let row = |isolation: &crate::compare::Isolation| {
        vec![
            names::title(isolation.arm).into(),
            figures::seconds(isolation.away_s),
            figures::count(isolation.handed_over),
            figures::count(isolation.events),
            figures::count(isolation.committed),
            isolation.seen_live.map_or_else(|| "–".into(), figures::count),
            isolation.application.clone(),
        ]
    };
    let head =
        ["Arm", "Dead for", "Recorded meanwhile", "All events", "Stored at the end", "Received live", "Application"];
    let rows: Vec<_> = comparison.isolations.iter().map(row).collect();
    (!rows.is_empty()).then(|| Table::new("The database side killed", &head, rows))
}

/// Where the time of one process goes: the functions that ran most often.
pub fn hotspots(hotspots: &Hotspots, most: usize) -> Table {
    let rows = hotspots.top.iter().take(most).enumerate();
    let rows =
        rows.map(|(at, (function, share))| vec![format!("{}. {function}", at + 1), figures::percent(share * 100.0)]);
    // With fewer samples, the error of a share is often more than ten percentage points.
    let few = if hotspots.samples < 25 { ", too few to be reliable" } else { "" };
    let samples = figures::counted(hotspots.samples, "sample");
    let title = format!("{}, {} ({samples}{few})", names::title(hotspots.arm), hotspots.role);
    Table::new(title, &["Function", "Share of samples"], rows.collect())
}

/// What each profiled process was doing.
pub fn shares(comparison: &Comparison) -> Option<Table> {
    let mut kinds: Vec<&str> = Vec::new();
    for kind in comparison.hotspots.iter().flat_map(|hotspots| hotspots.shares.keys()) {
        if !kinds.contains(&kind.as_str()) {
            kinds.push(kind);
        }
    }
    // "other" comes last.
    kinds.sort_by_key(|kind| (*kind == "other", kind.to_string()));
    let row = |hotspots: &Hotspots| {
        let share = |kind: &&str| {
            hotspots.shares.get(*kind).map_or_else(|| "–".into(), |share| figures::percent(share * 100.0))
        };
        let name = format!("{}, {}", names::title(hotspots.arm), hotspots.role);
        std::iter::once(name).chain(kinds.iter().map(share)).collect()
    };
    let head: Vec<&str> = std::iter::once("Process").chain(kinds.iter().copied()).collect();
    let rows: Vec<_> = comparison.hotspots.iter().map(row).collect();
    (!kinds.is_empty()).then(|| Table::new("Share of samples by activity", &head, rows))
}

/// CPU percent beside CPU seconds.
pub fn cpu(comparison: &Comparison) -> Table {
    let row = |arm: &&crate::compare::ArmReport| {
        let of = |of, shown: fn(f64) -> String| overview::median(arm, of).map_or_else(|| "not measured".into(), shown);
        vec![
            names::title(arm.arm).into(),
            of(metric::cpu_s, figures::seconds),
            of(metric::total_s, figures::seconds),
            of(metric::cpu_percent, figures::percent),
            of(metric::cpu_us_an_event, figures::micros),
            overview::idle_percent(arm).map_or_else(|| "not measured".into(), figures::percent),
        ]
    };
    let head = ["Arm", "CPU seconds", "Total time", "CPU percent", "CPU an event", "Idle CPU"];
    Table::new("CPU, all processes", &head, overview::that_ran(comparison).iter().map(row).collect())
}

/// What each arm promises.
pub fn promises(comparison: &Comparison) -> Table {
    let rows = comparison.arms.iter().map(|arm| vec![names::title(arm.arm).into(), arm.promise.clone()]);
    Table::of_words("What a recorded event survives", &["Arm", "Promise"], rows.collect())
}

/// The settings of the runs.
pub fn settings(comparison: &Comparison) -> Table {
    let settings = &comparison.settings;
    let rows = [
        ("Events a run", figures::count(settings.events)),
        ("Bytes of a payload, on average", figures::amount(settings.payload)),
        ("Pairs of runs", figures::count(settings.pairs as u64)),
        ("Producer threads", figures::count(settings.producers as u64)),
        ("Writer threads", figures::count(settings.writers as u64)),
        ("synchronous", settings.synchronous.clone()),
        ("Codec", settings.codec.clone()),
        ("Work for each event", settings.work.clone()),
        ("Most events of a transaction", figures::count(settings.batch as u64)),
        ("Events a second in the latency runs", figures::count(settings.rate)),
        ("Seed", settings.seed.to_string()),
        ("Command", comparison.command.clone()),
    ];
    Table::of_words("Settings", &["Setting", "Value"], rows.map(|(name, value)| vec![name.into(), value]).to_vec())
}

/// Where it was measured.
pub fn environment(comparison: &Comparison) -> Table {
    let here = &comparison.environment;
    let mut rows = vec![
        vec!["Processor".to_string(), here.processor.clone()],
        vec!["Cores".into(), figures::count(here.cores as u64)],
        vec!["Memory".into(), figures::bytes(metric::number(here.memory))],
        vec!["Kernel".into(), here.kernel.clone()],
        vec!["File system".into(), here.file_system.clone()],
        vec!["catchment".into(), comparison.catchment.clone()],
        vec!["SQLite".into(), here.sqlite.clone()],
        vec!["nats-server".into(), here.nats_server.clone().unwrap_or_else(|| "none was started".into())],
    ];
    rows.extend(here.pragmas.iter().map(|(name, value)| vec![format!("PRAGMA {name}"), value.clone()]));
    rows.extend(here.broker.iter().map(|(name, value)| vec![format!("Broker: {name}"), value.clone()]));
    Table::of_words("Environment", &["Property", "Value"], rows)
}

/// Every timed run.
pub fn raw(comparison: &Comparison) -> Table {
    let mut rows = Vec::new();
    for arm in &comparison.arms {
        for (series, runs) in [("", &arm.runs), (" (again)", &arm.again)] {
            let name = format!("{}{series}", names::title(arm.arm));
            rows.extend(runs.iter().enumerate().map(|(round, run)| raw_row(&name, round + 1, run)));
        }
    }
    let head =
        ["Arm", "Round", "Total s", "Recording s", "Draining s", "Events", "Stored", "CPU s app.", "Coll.", "Broker"];
    Table::new("Timed runs", &head, rows)
}

fn raw_row(name: &str, round: usize, run: &Run) -> Vec<String> {
    let cpu_s = |role| run.processes.get(role).map_or_else(|| "–".into(), |process| format!("{:.4}", process.cpu_s));
    vec![
        name.to_string(),
        round.to_string(),
        format!("{:.4}", run.total_s),
        format!("{:.4}", run.publish_s),
        format!("{:.4}", run.drain_s),
        figures::count(run.events),
        figures::count(run.committed),
        cpu_s("application"),
        cpu_s("collector"),
        cpu_s("broker"),
    ]
}
