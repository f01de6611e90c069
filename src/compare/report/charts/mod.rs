//! The pictures of a page. Each is narrow, so that its letters are still letters on a phone, and is named and described for
//! those who do not see it; what its colours mean stands below it as text, where nothing can overlap.

mod bars;
mod curves;
mod dots;
mod lanes;
pub mod palette;
mod scale;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use self::palette::Colour;
use super::document::Chart;
use super::html::escaped;
use super::names;
use crate::compare::{Arm, Axis, Comparison};

/// Units of a drawing's width: about as many as a phone has pixels, so that letters keep their size.
const WIDTH: u32 = 400;
const LETTERS: i32 = 16;
const SMALL: i32 = 14;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Trouble = DrawingAreaErrorKind<std::io::Error>;
type Drawn = Result<(), Trouble>;

/// One picture with all that is said of it.
struct Picture {
    title: String,
    /// What it shows and how to read it, below the title.
    reading: String,
    /// Its figures as words, for those who do not see it.
    description: String,
    drawing: String,
    legend: Vec<(String, Colour)>,
}

/// A figure of the page; empty if there is nothing to draw.
pub fn figure(comparison: &Comparison, chart: Chart) -> String {
    let picture = match chart {
        Chart::Throughput => dots::throughput(comparison),
        Chart::Cpu => bars::cpu(comparison),
        Chart::Latency => curves::latency(comparison),
        Chart::Timeline => curves::timeline(comparison),
        Chart::Axis(axis) => dots::axis(comparison, axis),
    };
    picture.map_or_else(String::new, |picture| picture.html(&id(comparison, chart)))
}

/// Names of elements of a page are unique.
fn id(comparison: &Comparison, chart: Chart) -> String {
    match chart {
        Chart::Throughput => "throughput".into(),
        Chart::Cpu => "cpu".into(),
        Chart::Latency => "latency".into(),
        Chart::Timeline => "timeline".into(),
        Chart::Axis(axis) => {
            let at = comparison.axes.iter().position(|one: &Axis| std::ptr::eq(one, axis));
            format!("axis-{}", at.unwrap_or_default())
        }
    }
}

impl Picture {
    fn html(&self, id: &str) -> String {
        let (title, reading) = (escaped(&self.title), escaped(&self.reading));
        let opening = format!(
            "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n<title id=\"{id}-title\">\
             {title}</title>\n<desc id=\"{id}-desc\">{}</desc>",
            height_of(&self.drawing),
            escaped(&self.description),
        );
        // Without a size of its own a drawing is as wide as its column.
        let inside = self.drawing.split_once('>').map_or("", |(_, inside)| inside);
        let entry = |(name, colour): &(String, Colour)| {
            let swatch = format!(
                "<svg viewBox=\"0 0 8 8\" aria-hidden=\"true\"><rect width=\"8\" height=\"8\" fill=\"{}\"/></svg>",
                colour.hex()
            );
            format!("<li>{swatch}{}</li>", escaped(name))
        };
        let legend: String = self.legend.iter().map(entry).collect();
        let legend = if legend.is_empty() { legend } else { format!("<ul class=\"legend\">{legend}</ul>\n") };
        format!(
            "<figure>\n<figcaption>{title}<small>{reading}</small></figcaption>\n{opening}{inside}{legend}</figure>\n"
        )
    }
}

fn height_of(drawing: &str) -> &str {
    drawing.split_once("height=\"").and_then(|(_, rest)| rest.split_once('"')).map_or("300", |(height, _)| height)
}

/// Draws into a string, which cannot fail but for a coordinate that is not a number; then there is no picture.
fn drawn(height: u32, draw: impl FnOnce(&Area) -> Drawn) -> Option<String> {
    let mut drawing = String::new();
    let area = SVGBackend::with_string(&mut drawing, (WIDTH, height)).into_drawing_area();
    let outcome = draw(&area).and_then(|()| area.present());
    drop(area);
    outcome.ok().map(|()| drawing)
}

fn text(size: i32, colour: Colour, anchor: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour.drawn()).pos(Pos::new(anchor, VPos::Center))
}

fn arm_legend(arms: impl Iterator<Item = Arm>) -> Vec<(String, Colour)> {
    arms.map(|arm| (names::title(arm).to_string(), palette::of_arm(arm))).collect()
}
