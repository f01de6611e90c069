//! The smaller tables.

use super::figures::{self, Quantity};
use super::names;
use super::overview::{self, Overview};
use crate::compare::statistics::{Metric, metric};
use crate::compare::{Comparison, Hotspots, Outage, Run};

/// A table. The first column has names.
pub struct Table {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// Which columns have figures: they are aligned right, and their cells are not broken.
    pub figures: Vec<bool>,
}

impl Table {
    fn new(title: impl Into<String>, head: &[&str], rows: Vec<Vec<String>>) -> Self {
        let figures = (0..head.len()).map(|at| at > 0).collect();
        Self { title: title.into(), head: head.iter().map(ToString::to_string).collect(), rows, figures }
    }

    /// The same with words in these columns.
    fn with_words(mut self, columns: &[usize]) -> Self {
        for at in columns {
            self.figures[*at] = false;
        }
        self
    }

    /// A table of columns with their titles; the first has the names of the rows.
    pub fn of_columns(title: impl Into<String>, names: Column, columns: Vec<Column>) -> Self {
        let rows = (0..names.cells.len()).map(|_| Vec::new()).collect();
        let figures = (0..=columns.len()).map(|at| at > 0).collect();
        let mut table = Self { title: title.into(), head: Vec::new(), rows, figures };
        for column in std::iter::once(names).chain(columns) {
            table.head.push(column.title);
            table.rows.iter_mut().zip(column.cells).for_each(|(row, cell)| row.push(cell));
        }
        table
    }

    /// A table without figures.
    pub fn of_words(title: impl Into<String>, head: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { figures: vec![false; head.len()], ..Self::new(title, head, rows) }
    }
}

/// A column of a table.
pub struct Column {
    pub title: String,
    pub cells: Vec<String>,
}

impl Column {
    pub fn new(title: &str, cells: impl IntoIterator<Item = String>) -> Self {
        Self { title: title.into(), cells: cells.into_iter().collect() }
    }

    /// Figures in one unit, which the title has.
    pub fn of(title: &str, quantity: Quantity, figures: impl IntoIterator<Item = Option<f64>>) -> Self {
        let figures: Vec<Option<f64>> = figures.into_iter().collect();
        let unit = quantity.unit(&figures.iter().flatten().copied().collect::<Vec<_>>());
        let shown = |figure: &Option<f64>| figure.map_or_else(|| "not measured".into(), |figure| unit.shown(figure));
        Self { title: unit.label(title), cells: figures.iter().map(shown).collect() }
    }
}

/// Medians of all arms.
pub fn medians(overview: &Overview) -> Table {
    let head = ["Median of the runs"].into_iter().chain(overview.arms.iter().map(|arm| names::title(*arm)));
    let row = |row: &overview::Row| [vec![row.name.clone()], row.values.clone()].concat();
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
            std::iter::once(row.measure.to_string()).chain(of_arm).collect()
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
            names::capital(names::metric(&ratio.of)),
            if ratio.noise_floor { format!("{arm}, against itself") } else { arm.into() },
            figures::amount(ratio.median),
            format!("{} to {}", figures::amount(ratio.low), figures::amount(ratio.high)),
            figures::amount((ratio.noise - 1.0) * 100.0),
            figures::count(ratio.pairs as u64),
            ratio.finding.clone(),
        ]
    };
    let interval = figures::interval_heading(comparison.ratios.iter().map(|ratio| ratio.pairs));
    let head = ["Ratio of", "Arm", "Median", interval, "Widened by, %", "Pairs", "Finding"];
    Table::new("Paired ratios", &head, comparison.ratios.iter().map(row).collect()).with_words(&[1, 6])
}

/// The database held locked.
pub fn stalls(comparison: &Comparison) -> Option<Table> {
    let stalls = &comparison.stalls;
    let us = |which: fn(&crate::compare::Stall) -> f64| stalls.iter().map(move |stall| Some(which(stall)));
    let columns = vec![
        Column::of("Locked for", Quantity::Seconds, us(|stall| stall.held_s)),
        Column::new("Recorded meanwhile", stalls.iter().map(|stall| figures::count(stall.events))),
        Column::of("record() p50", Quantity::Micros, us(|stall| stall.record_us.p50)),
        Column::of("p99", Quantity::Micros, us(|stall| stall.record_us.p99)),
        Column::of("max", Quantity::Micros, us(|stall| stall.record_us.max)),
        Column::new("Missing afterwards", stalls.iter().map(|stall| figures::count(stall.missing))),
    ];
    let names = Column::new("Arm", stalls.iter().map(|stall| names::title(stall.arm).to_string()));
    (!stalls.is_empty()).then(|| Table::of_columns("The database held locked", names, columns))
}

/// The database side killed.
pub fn isolations(comparison: &Comparison) -> Option<Table> {
    let isolations = &comparison.isolations;
    let count =
        |which: fn(&crate::compare::Isolation) -> u64| isolations.iter().map(move |one| figures::count(which(one)));
    let live = isolations.iter().map(|one| one.seen_live.map_or_else(|| "–".into(), figures::count));
    let columns = vec![
        Column::of("Dead for", Quantity::Seconds, isolations.iter().map(|one| Some(one.away_s))),
        Column::new("Recorded meanwhile", count(|one| one.handed_over)),
        Column::new("All events", count(|one| one.events)),
        Column::new("Stored at the end", count(|one| one.committed)),
        Column::new("Received live", live),
        Column::new("Application", isolations.iter().map(|one| one.application.clone())),
    ];
    let names = Column::new("Arm", isolations.iter().map(|one| names::title(one.arm).to_string()));
    (!isolations.is_empty()).then(|| Table::of_columns("The database side killed", names, columns).with_words(&[6]))
}

/// The broker away: a column for each arm.
pub fn outages(comparison: &Comparison) -> Option<Table> {
    let outages = &comparison.outages;
    let row = |name: &str, cells: Vec<String>| std::iter::once(name.to_string()).chain(cells).collect::<Vec<_>>();
    let count =
        |name, which: fn(&Outage) -> u64| row(name, outages.iter().map(|one| figures::count(which(one))).collect());
    let figure = |name, quantity: Quantity, which: fn(&Outage) -> f64| {
        let unit = quantity.unit(&outages.iter().map(which).collect::<Vec<_>>());
        row(&unit.label(name), outages.iter().map(|one| unit.shown(which(one))).collect())
    };
    let away = |one: &Outage| if one.has_broker { figures::amount(one.away_s) } else { "no broker".into() };
    let rows = vec![
        row("Broker away, s", outages.iter().map(away).collect()),
        count("Events a second", |one| one.rate),
        count("Recorded meanwhile", |one| one.recorded),
        figure("record(), p50", Quantity::Micros, |one| one.record_us.p50),
        figure("record(), p99", Quantity::Micros, |one| one.record_us.p99),
        figure("record(), max", Quantity::Micros, |one| one.record_us.max),
        count("Refused calls", |one| one.refused),
        count("Only in memory at its return", |one| one.unsettled),
        count("Reported as failed", |one| one.failed),
        count("Lost", |one| one.missing),
        figure("Last row after its return", Quantity::Seconds, |one| one.recovery_s),
    ];
    let head: Vec<&str> =
        std::iter::once("Of one run").chain(outages.iter().map(|one| names::title(one.arm))).collect();
    (!outages.is_empty()).then(|| Table::new("The broker killed, and started again later", &head, rows))
}

/// Fewer samples than this show nothing: with 200, a share of 20 % may be 14 to 26 % (95 %).
pub const MINIMUM_OF_A_PROFILE: u64 = 200;

/// The profiles that have enough samples.
pub fn profiles(comparison: &Comparison) -> impl Iterator<Item = &Hotspots> {
    comparison.hotspots.iter().filter(|hotspots| hotspots.samples >= MINIMUM_OF_A_PROFILE)
}

/// A sentence about the profiles that have too few samples.
pub fn without_samples(comparison: &Comparison) -> Option<String> {
    let few = comparison.hotspots.iter().filter(|hotspots| hotspots.samples < MINIMUM_OF_A_PROFILE);
    let few =
        few.map(|it| format!("{}, {}: {}", names::title(it.arm), it.role, figures::counted(it.samples, "sample")));
    let few: Vec<String> = few.collect();
    (!few.is_empty()).then(|| {
        format!(
            "These processes used too little CPU for a profile, which needs at least {MINIMUM_OF_A_PROFILE} samples. {}.",
            few.join("; ")
        )
    })
}

/// Where the time of one process goes: the functions that ran most often.
pub fn hotspots(hotspots: &Hotspots, most: usize) -> Table {
    let rows = hotspots.top.iter().take(most).enumerate();
    let rows =
        rows.map(|(at, (function, share))| vec![format!("{}. {function}", at + 1), figures::amount(share * 100.0)]);
    let samples = figures::counted(hotspots.samples, "sample");
    let title = format!("{}, {} ({samples})", names::title(hotspots.arm), hotspots.role);
    Table::new(title, &["Function", "Share of samples, %"], rows.collect())
}

/// What each profiled process was doing.
pub fn shares(comparison: &Comparison) -> Option<Table> {
    let mut kinds: Vec<&str> = Vec::new();
    for kind in profiles(comparison).flat_map(|hotspots| hotspots.shares.keys()) {
        if !kinds.contains(&kind.as_str()) {
            kinds.push(kind);
        }
    }
    // "other" comes last.
    kinds.sort_by_key(|kind| (*kind == "other", kind.to_string()));
    let row = |hotspots: &Hotspots| {
        let share =
            |kind: &&str| hotspots.shares.get(*kind).map_or_else(|| "–".into(), |share| figures::amount(share * 100.0));
        let name = format!("{}, {}", names::title(hotspots.arm), hotspots.role);
        std::iter::once(name).chain(kinds.iter().map(share)).collect()
    };
    let head: Vec<&str> = std::iter::once("Process").chain(kinds.iter().copied()).collect();
    let rows: Vec<_> = profiles(comparison).map(row).collect();
    (!kinds.is_empty()).then(|| Table::new("Share of samples by activity, %", &head, rows))
}

/// CPU percent beside CPU seconds.
pub fn cpu(comparison: &Comparison) -> Table {
    let arms = overview::that_ran(comparison);
    let of = |metric: Metric| arms.iter().map(move |arm| overview::median(arm, metric)).collect::<Vec<_>>();
    let columns = vec![
        Column::of("CPU for 10,000 events", Quantity::Seconds, of(metric::stated_cpu_s)),
        Column::of("Time for 10,000 events", Quantity::Seconds, of(metric::stated_s)),
        Column::of("CPU percent", Quantity::Percent, of(metric::cpu_percent)),
        Column::of("CPU an event", Quantity::Micros, of(metric::cpu_us_an_event)),
        Column::of("Idle CPU", Quantity::Percent, arms.iter().map(|arm| overview::idle_percent(arm))),
    ];
    let names = Column::new("Arm", arms.iter().map(|arm| names::title(arm.arm).to_string()));
    Table::of_columns("CPU, all processes", names, columns)
}

/// What each arm promises.
pub fn promises(comparison: &Comparison) -> Table {
    let rows = comparison.arms.iter().map(|arm| vec![names::title(arm.arm).into(), arm.promise.clone()]);
    Table::of_words("What a recorded event survives", &["Arm", "Promise"], rows.collect())
}

/// The settings of the runs.
pub fn settings(comparison: &Comparison) -> Table {
    let settings = &comparison.settings;
    let events = settings.events.map_or_else(
        || format!("as many as a run of {} needs, for each arm", figures::seconds(settings.run_for_s)),
        figures::count,
    );
    let rows = [
        ("Events a run", events),
        ("Bytes of a payload, on average", figures::amount(settings.payload)),
        ("Pairs of runs", figures::count(settings.pairs as u64)),
        ("Producer threads", figures::count(settings.producers as u64)),
        ("Writer threads", figures::count(settings.writers as u64)),
        ("PRAGMA synchronous", settings.synchronous.clone()),
        ("Encoding", names::value(&settings.codec)),
        ("Work for each event", names::work(&settings.work).into()),
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
        vec!["nats-server".into(), here.nats_server.clone().unwrap_or_else(|| "none was used".into())],
    ];
    let pragmas = here.pragmas.iter().filter(|(name, _)| *name != "synchronous");
    rows.extend(pragmas.map(|(name, value)| vec![format!("PRAGMA {name}"), value.clone()]));
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
    let head = [
        "Arm",
        "Round",
        "Events",
        "Stored",
        "Total, s",
        "Recording, s",
        "Draining, s",
        "CPU s, app.",
        "Coll.",
        "Broker",
    ];
    Table::new("Timed runs", &head, rows)
}

fn raw_row(name: &str, round: usize, run: &Run) -> Vec<String> {
    let cpu_s = |role| run.processes.get(role).map_or_else(|| "–".into(), |process| format!("{:.4}", process.cpu_s));
    vec![
        name.to_string(),
        round.to_string(),
        figures::count(run.events),
        figures::count(run.committed),
        format!("{:.4}", run.total_s),
        format!("{:.4}", run.publish_s),
        format!("{:.4}", run.drain_s),
        cpu_s("application"),
        cpu_s("collector"),
        cpu_s("broker"),
    ]
}
