//! Statistics of raw samples: medians, quantiles, intervals, and whether a difference is shown.
//!
//! Everything here depends only on its arguments. The bootstrap takes its seed as an argument, so the same samples always give
//! the same report.

mod bootstrap;
pub mod metric;
mod ratios;
#[cfg(test)]
mod tests;

pub use bootstrap::{Interval, MINIMUM_SAMPLES, RESAMPLES, interval_of_median};
pub use metric::Metric;
pub use ratios::{Compared, Finding, compared, noise, ratios};

use super::Quantiles;

/// The median; NaN without samples.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// The quantile `q`, between 0 and 1, of sorted samples; NaN without samples. Between two samples it is interpolated linearly
/// (type 7 of Hyndman and Fan, as in R and `numpy`).
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = q.clamp(0.0, 1.0) * as_f64(last);
    let below = floor(position).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (position - as_f64(below))
}

/// The quantiles that reports show; all 0 without samples. Sorts the samples.
pub fn quantiles(samples: &mut [f64]) -> Quantiles {
    if samples.is_empty() {
        return Quantiles::default();
    }
    samples.sort_unstable_by(f64::total_cmp);
    Quantiles {
        p50: quantile(samples, 0.5),
        p90: quantile(samples, 0.9),
        p99: quantile(samples, 0.99),
        p999: quantile(samples, 0.999),
        max: quantile(samples, 1.0),
    }
}

#[allow(clippy::cast_precision_loss)] // counts of samples are far below 2^52
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an index of a slice: not negative and not beyond it
fn floor(position: f64) -> usize {
    position as usize
}
