//! Tables of runs that vary something: their length, or one setting. And whether runs with the same settings agree.

use super::figures::{self, Form, Quantity};
use super::names::{self, phrase};
use super::overview::samples;
use super::tables::{Column, Table};
use crate::compare::statistics::{Compared, Interval, Metric, compared, interval_of_median, median, metric};
use crate::compare::{Arm, Axis, AxisPoint, Comparison, CostPoint, Costs, Run};

/// What an event costs, by the number of events of a run: its time, and the CPU of all processes.
pub fn costs(comparison: &Comparison) -> Vec<Table> {
    let tables =
        [("Time an event", metric::us_an_event as Metric), ("CPU an event, all processes", metric::cpu_us_an_event)];
    let made = tables.map(|(title, of)| cost_table(comparison, title, of));
    if comparison.costs.is_empty() { Vec::new() } else { made.into() }
}

fn cost_table(comparison: &Comparison, title: &str, of: Metric) -> Table {
    let of_point = |costs: &Costs, point: &CostPoint| {
        samples(costs.arm, &point.runs, of).map(|found| interval_of_median(&found, comparison.settings.seed))
    };
    let all = comparison.costs.iter().flat_map(|costs| costs.points.iter().map(move |point| of_point(costs, point)));
    let unit = Quantity::Micros.unit(&all.flatten().map(|found| found.median).collect::<Vec<_>>());
    let lengths = lengths(comparison);
    let cell = |costs: &Costs, events: u64| {
        let Some(point) = costs.points.iter().find(|point| point.events == events) else { return "–".into() };
        match of_point(costs, point) {
            Some(found) if found.samples == 1 => unit.shown(found.median),
            Some(found) => {
                format!("{} ({} to {})", unit.shown(found.median), unit.shown(found.low), unit.shown(found.high))
            }
            None => "not measured".into(),
        }
    };
    let column =
        |costs: &Costs| Column::new(names::title(costs.arm), lengths.iter().map(|events| cell(costs, *events)));
    let names = lengths.iter().map(|events| figures::count(*events)).collect();
    Table::of_columns(unit.label(title), ("Events of the run", names), comparison.costs.iter().map(column).collect())
}

/// The numbers of events of the runs, the smallest first.
fn lengths(comparison: &Comparison) -> Vec<u64> {
    let mut lengths: Vec<u64> =
        comparison.costs.iter().flat_map(|costs| &costs.points).map(|point| point.events).collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// How the cost of an event changes with the number of events, a sentence for each arm.
pub fn growth(comparison: &Comparison) -> Vec<String> {
    let sentence = |costs: &Costs| {
        let (first, last) = (costs.points.first()?, costs.points.last()?);
        if first.events == last.events {
            return None;
        }
        let of =
            |point: &CostPoint, metric: Metric| samples(costs.arm, &point.runs, metric).map(|found| median(&found));
        let shown = |point: &CostPoint| {
            let cpu = of(point, metric::cpu_us_an_event)
                .map_or_else(String::new, |us| format!(" ({} of CPU)", figures::micros(us)));
            Some(format!("{}{cpu}", figures::micros(of(point, metric::us_an_event)?)))
        };
        Some(format!(
            "{}: with {} an event takes {}, with {} {}.",
            names::capital(names::title(costs.arm)),
            figures::counted(first.events, "event"),
            shown(first)?,
            figures::counted(last.events, "event"),
            shown(last)?,
        ))
    };
    comparison.costs.iter().filter_map(sentence).collect()
}

/// One setting varied.
pub fn axis(comparison: &Comparison, axis: &Axis) -> Table {
    let control = axis.points.iter().find(|point| point.control);
    let rates: Vec<Option<Interval>> =
        axis.points.iter().map(|point| rate(comparison, axis.arm, &point.runs)).collect();
    let heading = figures::interval_heading(rates.iter().flatten().map(|rate| rate.samples));
    let interval = |rate: &Option<Interval>| {
        rate.map_or_else(String::new, |rate| format!("{} to {}", figures::amount(rate.low), figures::amount(rate.high)))
    };
    let events = |point: &AxisPoint| point.runs.first().map_or_else(|| "–".into(), |run| figures::count(run.events));
    let cpu = |point: &AxisPoint| samples(axis.arm, &point.runs, metric::cpu_us_an_event).map(|us| median(&us));
    let mut columns = vec![
        Column::new("Runs", axis.points.iter().map(|point| figures::count(point.runs.len() as u64))),
        Column::new("Events of a run", axis.points.iter().map(events)),
        Column::of("Throughput", Quantity::Rate, rates.iter().map(|rate| rate.map(|rate| rate.median))),
        Column::new(heading, rates.iter().map(interval)),
    ];
    if let Some(control) = control {
        columns.push(against(comparison, axis, control));
    }
    columns.push(Column::of("CPU an event", Quantity::Micros, axis.points.iter().map(cpu)));
    if axis.points.iter().any(|point| point.payload.is_some()) {
        columns.push(Column::of("Payload", Quantity::Bytes, axis.points.iter().map(|point| point.payload)));
    }
    let names = axis.points.iter().map(|point| names::value(&point.value)).collect();
    let title = format!("{}, {}", names::setting(&axis.setting), names::title(axis.arm));
    Table::of_columns(title, (names::setting(&axis.setting), names), columns)
}

fn rate(comparison: &Comparison, arm: Arm, runs: &[Run]) -> Option<Interval> {
    samples(arm, runs, metric::throughput).map(|rates| interval_of_median(&rates, comparison.settings.seed))
}

/// The throughput of every point against that of the control, round by round.
fn against(comparison: &Comparison, axis: &Axis, control: &AxisPoint) -> Column {
    let (arm, seed) = (axis.arm, comparison.settings.seed);
    let one = |point: &AxisPoint| {
        let other = Some(point).filter(|point| !point.control)?;
        compared((arm, &other.runs), (arm, &control.runs), metric::throughput, 1.0, seed)
    };
    let found: Vec<Option<Compared>> = axis.points.iter().map(one).collect();
    let form = Form::of_all(found.iter().flatten());
    let cell = |found: &Option<Compared>| match found {
        Some(found) if found.ratio.samples == 1 => form.change(found.ratio.median),
        Some(found) => form.difference(found),
        None => "–".into(),
    };
    Column::new(&format!("Against {}", names::value(&control.value)), found.iter().map(cell))
}

/// Runs with the same settings were made in two parts of a comparison, minutes apart: the rounds of all arms, and the control of the
/// axes.
struct Control {
    arm: Arm,
    rounds: Interval,
    axes: Interval,
}

fn controls(comparison: &Comparison) -> Vec<Control> {
    let control = |arm: &crate::compare::ArmReport| {
        // Connections have a control with several producers.
        let mut axes = comparison.axes.iter().filter(|axis| axis.arm == arm.arm && axis.setting != "connections");
        let point = axes.find_map(|axis| axis.points.iter().find(|point| point.control && !point.runs.is_empty()))?;
        let (rounds, axes) = (rate(comparison, arm.arm, &arm.runs)?, rate(comparison, arm.arm, &point.runs)?);
        Some(Control { arm: arm.arm, rounds, axes })
    };
    comparison.arms.iter().filter_map(control).collect()
}

/// What runs with the same settings show in two parts of the comparison, in words.
pub fn agreement(comparison: &Comparison) -> Option<String> {
    let controls = controls(comparison);
    if controls.is_empty() {
        return None;
    }
    let differ: Vec<String> =
        controls.iter().filter(|control| !control.rounds.overlaps(control.axes)).map(in_words).collect();
    Some(if differ.is_empty() {
        "The arms' own settings were measured again in these rounds: their intervals overlap those of the first rounds."
            .into()
    } else {
        format!(
            "The same settings have another speed here than in the first rounds: {}. The machine changed between them. Compare \
             figures of this part only with each other.",
            differ.join("; ")
        )
    })
}

/// The part of [`agreement`] that limits what the comparison shows.
pub fn disagreement(comparison: &Comparison) -> Option<String> {
    let differ = controls(comparison).iter().any(|control| !control.rounds.overlaps(control.axes));
    differ.then(|| agreement(comparison)).flatten()
}

fn in_words(control: &Control) -> String {
    let shown = |found: Interval| {
        let [median, low, high] = [found.median, found.low, found.high].map(figures::amount);
        format!("{median} events/s ({low} to {high})")
    };
    format!("{}, {} there and {} here", phrase(control.arm), shown(control.rounds), shown(control.axes))
}
