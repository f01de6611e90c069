//! The charts of a page. They are narrow, so that their text stays readable on a phone. Each has a title and a description for
//! readers who cannot see it. The legend is text below the chart, where nothing overlaps.

mod bars;
mod canvas;
mod curves;
mod dots;
mod lanes;
pub mod palette;
mod scale;

use super::document::Chart;
use crate::compare::statistics::metric;
use crate::compare::{Axis, Comparison};

/// A chart as a figure of the page; empty if there is nothing to draw.
pub fn figure(comparison: &Comparison, chart: Chart) -> String {
    let picture = match chart {
        Chart::Throughput => dots::throughput(comparison),
        Chart::Cpu => bars::cpu(comparison),
        Chart::Latency => curves::latency(comparison),
        Chart::Timeline => curves::timeline(comparison),
        Chart::CostTime => curves::costs(comparison, "Time an event", metric::us_an_event),
        Chart::CostCpu => curves::costs(comparison, "CPU an event, all processes", metric::cpu_us_an_event),
        Chart::Axis(axis) => dots::axis(comparison, axis),
    };
    picture.map_or_else(String::new, |picture| picture.html(&id(comparison, chart)))
}

/// The unique id of a chart on the page.
fn id(comparison: &Comparison, chart: Chart) -> String {
    match chart {
        Chart::Throughput => "throughput".into(),
        Chart::Cpu => "cpu".into(),
        Chart::Latency => "latency".into(),
        Chart::Timeline => "timeline".into(),
        Chart::CostTime => "cost-time".into(),
        Chart::CostCpu => "cost-cpu".into(),
        Chart::Axis(axis) => {
            let at = comparison.axes.iter().position(|one: &Axis| std::ptr::eq(one, axis));
            format!("axis-{}", at.unwrap_or_default())
        }
    }
}
