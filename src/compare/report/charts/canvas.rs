//! The canvas of a chart, and the figure of the page that it becomes.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::palette::{self, Colour};
use crate::compare::Arm;
use crate::compare::report::escape::escaped;
use crate::compare::report::names;

/// Width of a drawing in units: about the pixels of a phone, so that text keeps its size there.
const WIDTH: u32 = 400;
pub(super) const TEXT_SIZE: i32 = 16;
pub(super) const SMALL_TEXT_SIZE: i32 = 14;

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type DrawError = DrawingAreaErrorKind<std::io::Error>;
pub(super) type DrawResult = Result<(), DrawError>;

/// A chart with its title, description and legend.
pub(super) struct Picture {
    pub(super) title: String,
    /// What it shows and how to read it; stands below the title.
    pub(super) reading: String,
    /// Its figures in words, for readers who cannot see it.
    pub(super) description: String,
    pub(super) drawing: String,
    pub(super) legend: Vec<(String, Colour)>,
}

impl Picture {
    /// The figure as HTML; `id` is unique on the page.
    pub(super) fn html(&self, id: &str) -> String {
        let (title, reading) = (escaped(&self.title), escaped(&self.reading));
        let opening = format!(
            "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n<title id=\"{id}-title\">\
             {title}</title>\n<desc id=\"{id}-desc\">{}</desc>",
            height_of(&self.drawing),
            escaped(&self.description),
        );
        // The drawing's own opening tag has a fixed size. Without it the drawing is as wide as its column.
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

/// Draws into a string. That fails only if a coordinate is not a number; then there is no chart.
pub(super) fn drawn(height: u32, draw: impl FnOnce(&Area) -> DrawResult) -> Option<String> {
    let mut drawing = String::new();
    let area = SVGBackend::with_string(&mut drawing, (WIDTH, height)).into_drawing_area();
    let outcome = draw(&area).and_then(|()| area.present());
    drop(area);
    outcome.ok().map(|()| drawing)
}

pub(super) fn text(size: i32, colour: Colour, anchor: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour.drawn()).pos(Pos::new(anchor, VPos::Center))
}

pub(super) fn arm_legend(arms: impl Iterator<Item = Arm>) -> Vec<(String, Colour)> {
    arms.map(|arm| (names::title(arm).to_string(), palette::of_arm(arm))).collect()
}
