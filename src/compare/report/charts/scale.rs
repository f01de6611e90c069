//! Axes with so few ticks that their labels never overlap.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::compare::report::figures;

/// An axis.
#[derive(Clone)]
pub struct Scale {
    logarithmic: bool,
    /// The figures at its ends; both are positive if it is logarithmic.
    pub low: f64,
    pub high: f64,
    /// The figures that have a tick.
    ticks: Vec<f64>,
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    #[allow(clippy::cast_possible_truncation)] // a pixel
    fn map(&self, figure: &f64, (from, to): (i32, i32)) -> i32 {
        let (low, high) = (self.place(self.low), self.place(self.high));
        let part = ((self.place(*figure) - low) / (high - low)).clamp(0.0, 1.0);
        // A figure without a position, such as the logarithm of 0, is at the start.
        let part = if part.is_nan() { 0.0 } else { part };
        from + (part * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(figure: &f64) -> String {
        figures::short(*figure)
    }
}

/// The largest ratio between two figures that a linear axis shows well.
const SPREAD: f64 = 15.0;
const TICKS: usize = 5;

impl Scale {
    /// Linear from 0: the length of a bar is its figure.
    pub fn from_zero(figures: &[f64]) -> Self {
        let most = figures.iter().copied().fold(0.0, f64::max);
        let step = step(most);
        let steps = (most / step).ceil().max(1.0);
        Self { logarithmic: false, low: 0.0, high: steps * step, ticks: multiples(step, steps * step) }
    }

    /// Linear from 0, or logarithmic if the figures are too far apart for that.
    pub fn fitting(figures: &[f64]) -> Self {
        let positive = figures.iter().copied().filter(|figure| *figure > 0.0);
        let least = positive.fold(f64::INFINITY, f64::min);
        let most = figures.iter().copied().fold(0.0, f64::max);
        if least.is_finite() && most / least > SPREAD {
            Self::logarithmic(least, most)
        } else {
            Self::from_zero(figures)
        }
    }

    /// Logarithmic between two positive figures, with room on both sides.
    pub fn logarithmic(least: f64, most: f64) -> Self {
        let (low, high) = (least / 1.3, most * 1.3);
        let digits: &[f64] = match high / low {
            times if times < 30.0 => &[1.0, 2.0, 5.0],
            times if times < 1_000.0 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let first = low.log10().floor();
        let decades =
            std::iter::successors(Some(first), |decade| Some(decade + 1.0)).take_while(|at| 10_f64.powf(*at) <= high);
        let all = decades.flat_map(|decade| digits.iter().map(move |digit| digit * 10_f64.powf(decade)));
        let within: Vec<f64> = all.filter(|tick| (low..=high).contains(tick)).collect();
        let every = within.len().div_ceil(TICKS + 1).max(1);
        Self { logarithmic: true, low, high, ticks: within.into_iter().step_by(every).collect() }
    }

    /// The same axis with these ticks, up to `high`.
    pub fn with_ticks(self, ticks: Vec<f64>, high: f64) -> Self {
        Self { ticks: ticks.into_iter().filter(|tick| *tick <= high).collect(), high, ..self }
    }

    pub fn is_logarithmic(&self) -> bool {
        self.logarithmic
    }

    fn place(&self, figure: f64) -> f64 {
        if self.logarithmic { figure.log10() } else { figure }
    }
}

fn step(most: f64) -> f64 {
    if most <= 0.0 || !most.is_finite() {
        return 1.0;
    }
    let rough = most / 4.0;
    let decade = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * decade).find(|step| *step >= rough).unwrap_or(rough)
}

fn multiples(step: f64, high: f64) -> Vec<f64> {
    std::iter::successors(Some(0.0), |at| Some(at + step)).take_while(|at| *at <= high * 1.0001).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_begin_at_zero_and_ticks_are_few() {
        let scale = Scale::from_zero(&[3.0, 61_234.0]);
        assert_eq!(scale.ticks, [0.0, 20_000.0, 40_000.0, 60_000.0, 80_000.0]);
        assert_eq!(scale.map(&40_000.0, (0, 100)), 50);
        assert_eq!(Scale::from_zero(&[]).ticks, [0.0, 1.0]);
    }

    #[test]
    fn figures_far_apart_have_a_logarithmic_axis() {
        let scale = Scale::fitting(&[400.0, 61_000.0]);
        assert!(scale.is_logarithmic());
        assert_eq!(scale.ticks, [1_000.0, 3_000.0, 10_000.0, 30_000.0]);
        assert_eq!((scale.map(&0.0, (0, 100)), scale.map(&scale.high, (0, 100))), (0, 100));
        assert!(!Scale::fitting(&[400.0, 900.0]).is_logarithmic());
        assert!(Scale::logarithmic(1e-3, 1e9).ticks.len() <= TICKS + 1);
    }
}
