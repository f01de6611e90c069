//! Curves: commit latency, and events in the database over time.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, DrawResult, Picture, SMALL_TEXT_SIZE, arm_legend, drawn, text};
use super::palette::{self, MUTED, RULE};
use super::scale::Scale;
use crate::compare::report::figures;
use crate::compare::report::names;
use crate::compare::report::overview::{samples, that_ran};
use crate::compare::statistics::{Metric, median, metric};
use crate::compare::{Arm, ArmReport, Comparison, CostPoint, Costs, Run};

/// The most points that a line of this size can show.
const POINTS: usize = 150;
const HEIGHT: u32 = 300;

struct Curve {
    arm: Arm,
    points: Vec<(f64, f64)>,
}

pub fn latency(comparison: &Comparison) -> Option<Picture> {
    let curve = |arm: &ArmReport| {
        let run = arm.latency.as_ref()?;
        // The maximum is infinitely far right on this axis; the table has it.
        let shown = run.curve.iter().filter(|(quantile, us)| (0.0..1.0).contains(quantile) && *us > 0.0);
        let points: Vec<_> = thinned(&shown.map(|(quantile, us)| (rarity(*quantile), *us)).collect::<Vec<_>>());
        (points.len() > 1).then_some(Curve { arm: arm.arm, points })
    };
    let curves: Vec<Curve> = comparison.arms.iter().filter_map(curve).collect();
    let x = rarities(curves.iter().flat_map(|curve| &curve.points).map(|(x, _)| *x).fold(1.0, f64::max));
    let heights: Vec<f64> = curves.iter().flat_map(|curve| &curve.points).map(|(_, us)| *us).collect();
    let y = Scale::logarithmic(least(&heights)?, heights.iter().copied().fold(0.0, f64::max));
    let marks = Marks {
        x: "share of events",
        y: "committed within",
        x_shown: &share,
        y_shown: &figures::micros_short,
        discs: false,
    };
    let drawing = drawn(HEIGHT, |area| draw(area, &curves, &x, &y, &marks))?;
    let description = |arm: &ArmReport| {
        let us = arm.latency.as_ref()?.commit_us;
        let [p50, p99, max] = [us.p50, us.p99, us.max].map(figures::micros);
        Some(format!("{}: half within {p50}, 99 of 100 within {p99}, all within {max}", names::title(arm.arm)))
    };
    Some(Picture {
        title: "Commit latency".into(),
        reading: format!(
            "At {} events/s, from when an event was due until its commit. Lower is better; logarithmic axis.",
            figures::count(comparison.settings.rate)
        ),
        description: comparison.arms.iter().filter_map(description).collect::<Vec<_>>().join("; "),
        drawing,
        legend: arm_legend(curves.iter().map(|curve| curve.arm)),
    })
}

pub fn timeline(comparison: &Comparison) -> Option<Picture> {
    let curve = |arm: &&ArmReport| {
        let run = typical(arm)?;
        let share = |events: u64| metric::number(events) / metric::number(run.events.max(1)) * 100.0;
        let points = run.timeline.iter().map(|(seconds, events)| (*seconds, share(*events)));
        let points = thinned(&points.filter(|(seconds, _)| *seconds > 0.0).collect::<Vec<_>>());
        (points.len() > 1).then_some(Curve { arm: arm.arm, points })
    };
    let ran = that_ran(comparison);
    let curves: Vec<Curve> = ran.iter().filter_map(curve).collect();
    let ends: Vec<f64> = curves.iter().filter_map(|curve| curve.points.last()).map(|(seconds, _)| *seconds).collect();
    let starts: Vec<f64> =
        curves.iter().filter_map(|curve| curve.points.first()).map(|(seconds, _)| *seconds).collect();
    let last = ends.iter().copied().fold(0.0, f64::max);
    // If one arm takes many times as long as another, a linear axis squeezes the fast ones to the edge.
    let x =
        if last / least(&ends)? > 8.0 { Scale::logarithmic(least(&starts)?, last) } else { Scale::from_zero(&ends) };
    let y = Scale::from_zero(&[100.0]);
    let marks = Marks {
        x: "seconds since the first event",
        y: "share stored",
        x_shown: &figures::short,
        y_shown: &|share| format!("{} %", figures::short(share)),
        discs: false,
    };
    let drawing = drawn(HEIGHT, |area| draw(area, &curves, &x, &y, &marks))?;
    let description = |curve: &Curve| {
        let run = typical(ran.iter().find(|arm| arm.arm == curve.arm)?)?;
        let events = figures::counted(run.events, "event");
        Some(format!("{}: {events} in {}", names::title(curve.arm), figures::seconds(run.total_s)))
    };
    let kind = if x.is_logarithmic() { "; logarithmic time" } else { "" };
    Some(Picture {
        title: "Stored over time".into(),
        reading: format!(
            "The run of each arm whose total time is the median. A straight line is a steady speed{kind}."
        ),
        description: curves.iter().filter_map(description).collect::<Vec<_>>().join("; "),
        drawing,
        legend: arm_legend(curves.iter().map(|curve| curve.arm)),
    })
}

/// The cost of an event by the number of events of the run: a line for each arm.
pub fn costs(comparison: &Comparison, title: &str, of: Metric) -> Option<Picture> {
    let curve = |costs: &Costs| {
        let point = |point: &CostPoint| {
            let found = samples(costs.arm, &point.runs, of)?;
            Some((metric::number(point.events), median(&found))).filter(|(_, us)| *us > 0.0)
        };
        let points: Vec<_> = costs.points.iter().filter_map(point).collect();
        (points.len() > 1).then_some(Curve { arm: costs.arm, points })
    };
    let curves: Vec<Curve> = comparison.costs.iter().filter_map(curve).collect();
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let (x, y): (Vec<f64>, Vec<f64>) = all().copied().unzip();
    let highest = |figures: &[f64]| figures.iter().copied().fold(0.0, f64::max);
    let (x, y) = (Scale::logarithmic(least(&x)?, highest(&x)), Scale::logarithmic(least(&y)?, highest(&y)));
    let marks = Marks {
        x: "events of the run",
        y: "an event",
        x_shown: &figures::short,
        y_shown: &figures::micros_short,
        discs: true,
    };
    let drawing = drawn(HEIGHT, |area| draw(area, &curves, &x, &y, &marks))?;
    let description = |curve: &Curve| {
        let points = curve.points.iter();
        let points = points.map(|(events, us)| format!("{} with {}", figures::micros(*us), figures::amount(*events)));
        format!("{}: {}", names::title(curve.arm), points.collect::<Vec<_>>().join(", "))
    };
    Some(Picture {
        title: title.into(),
        reading: "By the number of events of the run, medians. A level line: more events cost the same each. Logarithmic axes."
            .into(),
        description: curves.iter().map(description).collect::<Vec<_>>().join("; "),
        drawing,
        legend: arm_legend(curves.iter().map(|curve| curve.arm)),
    })
}

/// The run whose total time is closest to the median.
fn typical(arm: &ArmReport) -> Option<&Run> {
    let middle = median(&arm.runs.iter().map(|run| run.total_s).collect::<Vec<_>>());
    let far = |run: &&Run| (run.total_s - middle).abs();
    arm.runs.iter().filter(|run| run.timeline.len() > 1).min_by(|one, other| far(one).total_cmp(&far(other)))
}

/// The position of a quantile on the axis: 90 % is 1, 99 % is 2, so every further nine has the same room.
fn rarity(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

fn rarities(most: f64) -> Scale {
    let nines = most.ceil().clamp(1.0, 6.0);
    Scale::from_zero(&[nines]).with_ticks((0_i32..=6).map(f64::from).take_while(|nine| *nine <= nines).collect(), most)
}

fn share(nines: f64) -> String {
    match nines {
        nines if nines < 0.5 => "0".into(),
        nines if nines < 1.5 => "90 %".into(),
        nines if nines < 2.5 => "99 %".into(),
        nines if nines < 3.5 => "99.9 %".into(),
        nines if nines < 4.5 => "99.99 %".into(),
        _ => String::new(),
    }
}

fn least(figures: &[f64]) -> Option<f64> {
    figures.iter().copied().filter(|figure| *figure > 0.0).min_by(f64::total_cmp)
}

/// At most the points that can be seen, including the last one.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(POINTS).max(1);
    let last = points.last().filter(|_| points.len() % every != 1 && every > 1);
    points.iter().step_by(every).chain(last).copied().collect()
}

struct Marks<'a> {
    x: &'a str,
    y: &'a str,
    x_shown: &'a dyn Fn(f64) -> String,
    y_shown: &'a dyn Fn(f64) -> String,
    /// Whether each point has a disc.
    discs: bool,
}

fn draw(area: &Area, curves: &[Curve], x: &Scale, y: &Scale, marks: &Marks) -> DrawResult {
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .margin_right(26)
        .margin_top(12)
        .x_label_area_size(44)
        .y_label_area_size(74)
        .build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .axis_style(MUTED.drawn())
        .bold_line_style(RULE.drawn())
        .light_line_style(TRANSPARENT)
        .label_style(text(SMALL_TEXT_SIZE, MUTED, HPos::Center))
        .x_label_formatter(&|place| (marks.x_shown)(*place))
        .y_label_formatter(&|place| (marks.y_shown)(*place))
        .x_desc(marks.x)
        .y_desc(marks.y)
        .axis_desc_style(text(SMALL_TEXT_SIZE, MUTED, HPos::Center))
        .draw()?;
    for curve in curves {
        let points = curve.points.iter().map(|(at, figure)| (*at, *figure));
        chart.draw_series(LineSeries::new(points.clone(), palette::of_arm(curve.arm).drawn().stroke_width(2)))?;
        if marks.discs {
            let disc = |point| Circle::new(point, 4, palette::of_arm(curve.arm).drawn().filled());
            chart.draw_series(points.map(disc))?;
        }
    }
    Ok(())
}
