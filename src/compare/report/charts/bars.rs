//! CPU seconds of a run: a bar for each arm, with a part for each process.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, DrawResult, Picture, TEXT_SIZE, drawn, text};
use super::lanes::lanes;
use super::palette::{APPLICATION, BROKER, COLLECTOR, Colour, INK};
use super::scale::Scale;
use crate::compare::report::figures;
use crate::compare::report::names;
use crate::compare::report::overview::that_ran;
use crate::compare::statistics::{median, metric};
use crate::compare::{ArmReport, Comparison, Run};

struct Bar {
    name: String,
    parts: Vec<(&'static str, f64)>,
    /// CPU seconds for 10,000 events: the median of the runs' sums, as in the tables. The medians of the parts add up to about this.
    sum: f64,
    /// A process of the arm that was not measured.
    missing: Option<&'static str>,
}

impl Bar {
    fn new(arm: &ArmReport) -> Option<Self> {
        let of_role = |role: &'static str| {
            let samples: Option<Vec<f64>> =
                arm.runs.iter().map(|run| run.processes.get(role).map(|process| stated(run, process.cpu_s))).collect();
            samples.filter(|samples| !samples.is_empty()).map(|samples| (role, median(&samples)))
        };
        let roles = metric::roles(arm.arm);
        let parts: Vec<_> = roles.iter().copied().filter_map(of_role).collect();
        let missing = roles.iter().copied().find(|role| parts.iter().all(|(measured, _)| measured != role));
        let sum = |run: &Run| run.processes.values().map(|process| stated(run, process.cpu_s)).sum();
        let sums: Vec<f64> = arm.runs.iter().map(sum).collect();
        let name = names::title(arm.arm).into();
        (!parts.is_empty()).then(|| Self { name, parts, sum: median(&sums), missing })
    }

    fn length(&self) -> f64 {
        self.parts.iter().map(|(_, cpu_s)| cpu_s).sum()
    }

    fn figure(&self) -> String {
        match self.missing {
            Some(role) => format!("{} without {role}", figures::seconds(self.sum)),
            None => figures::seconds(self.sum),
        }
    }

    fn description(&self) -> String {
        let parts = self.parts.iter().map(|(role, cpu_s)| format!("{role} {}", figures::seconds(*cpu_s)));
        format!("{}: {}", self.name, parts.collect::<Vec<_>>().join(", "))
    }
}

/// For 10,000 events, as in the tables: the runs of the arms differ in length.
fn stated(run: &Run, cpu_s: f64) -> f64 {
    cpu_s * metric::STATED_EVENTS / metric::number(run.events.max(1))
}

const ROW: u32 = 46;

pub fn cpu(comparison: &Comparison) -> Option<Picture> {
    let bars: Vec<Bar> = that_ran(comparison).into_iter().filter_map(Bar::new).collect();
    if bars.is_empty() {
        return None;
    }
    let scale = Scale::from_zero(&bars.iter().map(Bar::length).collect::<Vec<_>>());
    let height = 56 + ROW * u32::try_from(bars.len()).unwrap_or(1);
    let drawing = drawn(height, |area| draw(area, &bars, &scale))?;
    let with = |role: &str| bars.iter().any(|bar| bar.parts.iter().any(|(part, _)| *part == role));
    let roles = ["application", "collector", "broker"].into_iter().filter(|role| with(role));
    Some(Picture {
        title: "CPU seconds for 10,000 events".into(),
        reading: "User and system time of each process; medians of the runs.".into(),
        description: bars.iter().map(Bar::description).collect::<Vec<_>>().join("; "),
        drawing,
        legend: roles.map(|role| (role.to_string(), colour(role))).collect(),
    })
}

fn colour(role: &str) -> Colour {
    match role {
        "application" => APPLICATION,
        "collector" => COLLECTOR,
        _ => BROKER,
    }
}

#[allow(clippy::cast_precision_loss)] // a few bars
fn draw(area: &Area, bars: &[Bar], scale: &Scale) -> DrawResult {
    let rows = bars.len() as f64;
    let mut chart = lanes(area, bars.len(), scale, "CPU seconds")?;
    for (at, bar) in bars.iter().enumerate() {
        let top = rows - at as f64;
        chart.draw_series([
            Text::new(bar.name.clone(), (scale.low, top - 0.28), text(TEXT_SIZE, INK, HPos::Left)),
            Text::new(bar.figure(), (scale.high, top - 0.28), text(TEXT_SIZE, INK, HPos::Right)),
        ])?;
        let mut from = 0.0;
        for (role, cpu_s) in &bar.parts {
            let corners = [(from, top - 0.52), (from + cpu_s, top - 0.88)];
            chart.draw_series([Rectangle::new(corners, colour(role).drawn().filled())])?;
            from += cpu_s;
        }
    }
    Ok(())
}
