//! A ring for each run, a disc for the median, a bar for its interval.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, DrawResult, Picture, TEXT_SIZE, drawn, text};
use super::lanes::lanes;
use super::palette::{self, Colour, INK};
use super::scale::Scale;
use crate::compare::report::figures;
use crate::compare::report::names;
use crate::compare::report::overview::{samples, that_ran};
use crate::compare::statistics::{Interval, interval_of_median, metric};
use crate::compare::{Axis, Comparison};

/// A line of the chart. Its name stands above its dots, so that neither needs room beside the other.
struct Line {
    name: String,
    samples: Vec<f64>,
    interval: Interval,
    colour: Colour,
}

impl Line {
    fn new(name: String, samples: Vec<f64>, colour: Colour, seed: u64) -> Self {
        let interval = interval_of_median(&samples, seed);
        Self { name, samples, interval, colour }
    }

    fn description(&self) -> String {
        let [median, low, high] = [self.interval.median, self.interval.low, self.interval.high].map(figures::amount);
        format!("{}: {median} ({low} to {high})", self.name)
    }
}

const ROW: u32 = 48;

pub fn throughput(comparison: &Comparison) -> Option<Picture> {
    let line = |arm: &&crate::compare::ArmReport| {
        let samples = samples(arm.arm, &arm.runs, metric::throughput)?;
        Some(Line::new(names::title(arm.arm).into(), samples, palette::of_arm(arm.arm), comparison.settings.seed))
    };
    picture("Throughput".into(), &that_ran(comparison).iter().filter_map(line).collect::<Vec<_>>())
}

pub fn axis(comparison: &Comparison, axis: &Axis) -> Option<Picture> {
    let line = |point: &crate::compare::AxisPoint| {
        let samples = samples(axis.arm, &point.runs, metric::throughput)?;
        let control = if point.control { " (control)" } else { "" };
        let name = format!("{}{control}", names::value(&point.value));
        Some(Line::new(name, samples, palette::of_arm(axis.arm), comparison.settings.seed))
    };
    let title = format!("Throughput, {}: {}", names::title(axis.arm), names::setting(&axis.setting).to_lowercase());
    picture(title, &axis.points.iter().filter_map(line).collect::<Vec<_>>())
}

fn picture(title: String, lines: &[Line]) -> Option<Picture> {
    if lines.is_empty() {
        return None;
    }
    let all: Vec<f64> = lines.iter().flat_map(|line| line.samples.iter().copied()).collect();
    let scale = Scale::fitting(&all);
    let kind = if scale.is_logarithmic() { "; logarithmic axis" } else { "" };
    let bar = if lines.iter().all(|line| line.interval.is_range()) { "their range" } else { "its 95 % interval" };
    let height = 56 + ROW * u32::try_from(lines.len()).unwrap_or(1);
    let drawing = drawn(height, |area| draw(area, lines, &scale))?;
    Some(Picture {
        title,
        reading: format!("Events/s in the database. Rings: runs; disc: median; bar: {bar}{kind}."),
        description: lines.iter().map(Line::description).collect::<Vec<_>>().join("; "),
        drawing,
        legend: Vec::new(),
    })
}

#[allow(clippy::cast_precision_loss)] // a few lines
fn draw(area: &Area, lines: &[Line], scale: &Scale) -> DrawResult {
    let rows = lines.len() as f64;
    let mut chart = lanes(area, lines.len(), scale, "events/s")?;
    for (at, line) in lines.iter().enumerate() {
        let top = rows - at as f64;
        let (names, dots) = (top - 0.27, top - 0.7);
        let figure = figures::amount(line.interval.median);
        chart.draw_series([
            Text::new(line.name.clone(), (scale.low, names), text(TEXT_SIZE, INK, HPos::Left)),
            Text::new(figure, (scale.high, names), text(TEXT_SIZE, INK, HPos::Right)),
        ])?;
        let colour = line.colour.drawn();
        let ring = |sample: &f64| Circle::new((*sample, dots), 4, colour.mix(0.75).stroke_width(1));
        chart.draw_series(line.samples.iter().map(ring))?;
        let interval = [(line.interval.low, dots), (line.interval.high, dots)];
        chart.draw_series([PathElement::new(interval, colour.stroke_width(4))])?;
        chart.draw_series([Circle::new((line.interval.median, dots), 5, colour.filled())])?;
    }
    Ok(())
}
