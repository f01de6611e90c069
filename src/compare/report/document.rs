//! The parts of a written report, in their order.

use super::figures;
use super::names;
use super::overview::overview;
use super::prose;
use super::tables::{self, Table};
use super::variations;
use super::verdict::verdict;
use crate::compare::statistics::metric;
use crate::compare::{Axis, Comparison, Verdict};

/// A part of a report.
pub enum Block<'a> {
    Heading(u8, String),
    Paragraph(String),
    /// The main sentence.
    Headline(String),
    List(Vec<String>),
    /// Footnotes, numbered from 1.
    Notes(Vec<String>),
    Table(Table),
    /// Only for renderings with charts.
    Chart(Chart<'a>),
    /// Labels and files beside the report.
    Links(Vec<(String, String)>),
}

/// A chart; a table has its figures too.
#[derive(Clone, Copy)]
pub enum Chart<'a> {
    Throughput,
    Cpu,
    Latency,
    Timeline,
    /// The time of an event, by the number of events of the run.
    CostTime,
    /// The CPU of an event, by the number of events of the run.
    CostCpu,
    Axis(&'a Axis),
}

/// The number of hotspots shown for each process.
const TOP: usize = 3;

/// The verdict of a comparison, computed if it has none.
pub fn verdict_of(comparison: &Comparison) -> Verdict {
    if comparison.verdict.headline.is_empty() { verdict(comparison) } else { comparison.verdict.clone() }
}

pub fn document(comparison: &Comparison) -> Vec<Block<'_>> {
    let verdict = verdict_of(comparison);
    let mut blocks = vec![heading(1, "Direct or through NATS: what it costs")];
    blocks.push(Block::Paragraph(format!(
        "Measured by catchment {}, started at {}, duration {}, on {} ({}, {}).",
        comparison.catchment,
        comparison.began,
        figures::seconds(comparison.took_s),
        comparison.environment.processor,
        figures::counted(comparison.environment.cores as u64, "core"),
        comparison.environment.file_system,
    )));
    if comparison.stopped {
        blocks.push(Block::Paragraph(
            "It was stopped before it was done: this report has what was measured until then.".into(),
        ));
    }
    blocks.extend(summary(comparison, &verdict));
    blocks.extend(method(comparison));
    blocks.extend(results(comparison));
    blocks.extend(faults(comparison));
    blocks.extend(outages(comparison));
    blocks.extend(hotspots(comparison));
    blocks.extend(breakdown(comparison));
    blocks.push(heading(2, "Why CPU percent and CPU seconds disagree"));
    blocks.extend(prose::cpu(comparison).into_iter().map(Block::Paragraph));
    blocks.push(Block::Table(tables::cpu(comparison)));
    blocks.push(heading(2, "Recommendation"));
    blocks.extend(recommendation(&verdict));
    blocks.push(heading(2, "Raw data"));
    blocks.push(Block::Paragraph(
        "Every timed run, in the order of the rounds. The JSON of this comparison has all samples, timelines and processes.".into(),
    ));
    blocks.push(Block::Table(tables::raw(comparison)));
    blocks
}

fn heading<'a>(level: u8, text: impl Into<String>) -> Block<'a> {
    Block::Heading(level, text.into())
}

fn summary<'a>(comparison: &'a Comparison, verdict: &Verdict) -> Vec<Block<'a>> {
    let mut blocks = vec![heading(2, "Summary"), Block::Headline(verdict.headline.clone())];
    let firsts = [("Stay direct", &verdict.direct_when), ("Go through NATS", &verdict.nats_when)];
    let firsts = firsts.into_iter().filter_map(|(what, when)| Some(format!("{what}: {}", when.first()?)));
    let firsts: Vec<String> = firsts.collect();
    if !firsts.is_empty() {
        blocks.push(Block::List(firsts));
    }
    blocks.push(Block::Chart(Chart::Throughput));
    if overview_has_cpu(comparison) {
        blocks.push(Block::Chart(Chart::Cpu));
    }
    blocks
}

fn overview_has_cpu(comparison: &Comparison) -> bool {
    comparison.arms.iter().any(|arm| arm.runs.iter().any(|run| !run.processes.is_empty()))
}

fn method(comparison: &Comparison) -> Vec<Block<'_>> {
    let mut blocks = vec![heading(2, "Method")];
    blocks.extend(prose::method(comparison).into_iter().map(Block::Paragraph));
    blocks.push(Block::Table(tables::promises(comparison)));
    blocks.push(Block::Table(counterparts()));
    blocks.push(Block::Table(tables::settings(comparison)));
    blocks.push(Block::Table(tables::environment(comparison)));
    blocks
}

fn counterparts() -> Table {
    let rows =
        prose::COUNTERPARTS.iter().map(|(theirs, ours, why)| vec![(*theirs).into(), (*ours).into(), (*why).into()]);
    let title = "Rows of an earlier study of an asyncio chat bot, and their counterparts here";
    Table::of_words(title, &["In the study", "Here", "What it shows"], rows.collect())
}

fn results(comparison: &Comparison) -> Vec<Block<'_>> {
    let overview = overview(comparison);
    let mut blocks = vec![heading(2, "Results"), Block::Table(tables::medians(&overview))];
    if !overview.notes.is_empty() {
        blocks.push(Block::Notes(overview.notes.clone()));
    }
    if let Some(differences) = tables::differences(comparison, &overview) {
        blocks.push(Block::Table(differences));
        blocks.push(Block::Paragraph(
            "The interval of the paired ratio is in brackets; it is the one that decides whether a difference is shown. A difference \
             without brackets comes from one run of each arm."
                .into(),
        ));
    }
    blocks.push(Block::Table(tables::ratios(comparison)));
    if comparison.arms.iter().any(|arm| arm.latency.as_ref().is_some_and(|run| !run.curve.is_empty())) {
        blocks.push(Block::Chart(Chart::Latency));
    }
    if comparison.arms.iter().any(|arm| arm.runs.iter().any(|run| run.timeline.len() > 1)) {
        blocks.push(Block::Chart(Chart::Timeline));
    }
    blocks.extend(costs(comparison));
    if !comparison.axes.is_empty() {
        blocks.push(heading(3, "One setting varied"));
        blocks.push(Block::Paragraph(prose::axes().into()));
        blocks.extend(variations::agreement(comparison).map(Block::Paragraph));
    }
    for axis in &comparison.axes {
        blocks.push(Block::Table(variations::axis(comparison, axis)));
        blocks.push(Block::Chart(Chart::Axis(axis)));
    }
    blocks
}

fn costs(comparison: &Comparison) -> Vec<Block<'_>> {
    if comparison.costs.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![heading(3, "Short and long runs"), Block::Paragraph(prose::costs().into())];
    blocks.extend(variations::costs(comparison).into_iter().map(Block::Table));
    blocks.extend([Block::Chart(Chart::CostTime), Block::Chart(Chart::CostCpu)]);
    blocks.push(Block::List(variations::growth(comparison)));
    blocks
}

/// The database locked, and the database side killed.
pub fn faults(comparison: &Comparison) -> Vec<Block<'_>> {
    let tables: Vec<_> = [tables::stalls(comparison), tables::isolations(comparison)].into_iter().flatten().collect();
    if tables.is_empty() {
        return vec![
            heading(2, "When the database fails"),
            Block::Paragraph(
                "Not measured: this comparison had no run with a locked database or a killed database side.".into(),
            ),
        ];
    }
    std::iter::once(heading(2, "When the database fails")).chain(tables.into_iter().map(Block::Table)).collect()
}

/// The broker away.
pub fn outages(comparison: &Comparison) -> Vec<Block<'_>> {
    let heading = heading(2, "When the broker is away");
    match tables::outages(comparison) {
        Some(table) => vec![heading, Block::Paragraph(prose::outages().into()), Block::Table(table)],
        None => {
            vec![
                heading,
                Block::Paragraph(
                    "Not measured: this comparison had no run with an absent broker (--outage 10s).".into(),
                ),
            ]
        }
    }
}

fn hotspots(comparison: &Comparison) -> Vec<Block<'_>> {
    let mut blocks = vec![heading(2, "Top hotspots")];
    if comparison.hotspots.is_empty() {
        blocks.push(Block::Paragraph(without_profile(comparison)));
    }
    blocks.extend(tables::profiles(comparison).map(|of_one| Block::Table(tables::hotspots(of_one, TOP))));
    blocks.extend(tables::without_samples(comparison).map(Block::Paragraph));
    let links = comparison.hotspots.iter().filter_map(|of_one| {
        let file = of_one.flamegraph.clone()?;
        let samples = figures::counted(of_one.samples, "sample");
        Some((format!("Flamegraph of {}, {} ({samples})", names::title(of_one.arm), of_one.role), file))
    });
    let links: Vec<_> = links.collect();
    if !links.is_empty() {
        blocks.push(Block::Links(links));
    }
    blocks
}

/// Why there are no hotspots.
pub fn without_profile(comparison: &Comparison) -> String {
    let is_about_it = |reason: &&String| {
        let reason = reason.to_lowercase();
        ["hotspot", "profile", "flamegraph"].iter().any(|word| reason.contains(word))
    };
    let why = comparison.not_measured.iter().find(is_about_it);
    format!(
        "Not measured: {}.",
        why.map_or("no process was profiled in this comparison", |why| why.trim_end_matches('.'))
    )
}

fn breakdown(comparison: &Comparison) -> Vec<Block<'_>> {
    let mut blocks = vec![heading(2, "Breakdown of the NATS-specific work")];
    blocks.extend(prose::nats_share(comparison).into_iter().map(Block::Paragraph));
    match tables::shares(comparison) {
        Some(shares) => blocks.push(Block::Table(shares)),
        None if comparison.hotspots.is_empty() => blocks.push(Block::Paragraph(without_profile(comparison))),
        None => blocks.extend(tables::without_samples(comparison).map(Block::Paragraph)),
    }
    let broker = comparison.arms.iter().filter(|arm| metric::through_nats(arm.arm)).filter_map(|arm| {
        let us: Option<Vec<f64>> = arm.runs.iter().map(|run| metric::cpu_us_of("broker", run)).collect();
        let us = us.filter(|us| !us.is_empty())?;
        let cost = figures::micros(crate::compare::statistics::median(&us));
        Some(format!("{}: {cost} of broker CPU for each event", names::title(arm.arm)))
    });
    let broker: Vec<String> = broker.collect();
    if !broker.is_empty() {
        blocks.push(Block::Paragraph(format!("The broker's own work is not in these shares. {}.", broker.join("; "))));
    }
    blocks
}

/// When to use which, and the limits of that.
pub fn recommendation<'a>(verdict: &Verdict) -> Vec<Block<'a>> {
    let mut blocks = vec![Block::Headline(verdict.headline.clone())];
    let lists = [
        ("Stay direct", &verdict.direct_when),
        ("Go through NATS", &verdict.nats_when),
        ("Limits of this comparison", &verdict.caveats),
    ];
    for (title, sentences) in lists {
        blocks.push(heading(3, title));
        if sentences.is_empty() {
            blocks.push(Block::Paragraph("No figure of this comparison supports it.".into()));
        } else {
            blocks.push(Block::List(sentences.clone()));
        }
    }
    blocks
}
