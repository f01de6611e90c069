//! Lanes above one horizontal axis.

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, DrawError, SMALL_TEXT_SIZE, text};
use super::palette::{MUTED, RULE};
use super::scale::Scale;
use crate::compare::report::figures;

/// An empty chart of this many lanes, each 1 high, the first at the top; `unit` labels the axis.
#[allow(clippy::cast_precision_loss)] // a few lanes
pub(super) fn lanes<'a>(
    area: &Area<'a>,
    lanes: usize,
    scale: &Scale,
    unit: &str,
) -> Result<ChartContext<'a, SVGBackend<'a>, Cartesian2d<Scale, RangedCoordf64>>, DrawError> {
    let mut chart = ChartBuilder::on(area)
        .margin(4)
        .margin_left(10)
        .margin_right(26)
        .x_label_area_size(40)
        .build_cartesian_2d(scale.clone(), 0.0..lanes as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .axis_style(MUTED.drawn())
        .bold_line_style(RULE.drawn())
        .light_line_style(TRANSPARENT)
        .x_label_style(text(SMALL_TEXT_SIZE, MUTED, HPos::Center))
        .x_label_formatter(&|place| figures::short(*place))
        .x_desc(unit)
        .axis_desc_style(text(SMALL_TEXT_SIZE, MUTED, HPos::Center))
        .draw()?;
    Ok(chart)
}
