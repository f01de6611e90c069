//! What raw samples say: medians, quantiles, intervals, and whether a difference is shown at all.
//!
//! Everything here is a function of its arguments; a bootstrap takes its seed from outside, so that a report made again
//! from the same samples says the same.

mod bootstrap;
pub mod metric;
mod ratios;
#[cfg(test)]
mod tests;

pub use bootstrap::{Interval, RESAMPLES, interval_of_median};
pub use metric::Metric;
pub use ratios::{Compared, Finding, MINIMUM_PAIRS, compared, noise, ratios};

use super::Quantiles;

/// The median; NaN of nothing.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// The quantile `q`, between 0 and 1, of samples that are sorted; NaN of nothing. Between two samples it lies on the
/// straight line that joins them (type 7 of Hyndman and Fan, as in R and `numpy`).
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = q.clamp(0.0, 1.0) * as_f64(last);
    let below = floor(place).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - as_f64(below))
}

/// The quantiles that reports show. Sorts the samples; of none, all are 0.
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

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a place in a slice: neither negative nor beyond it
fn floor(place: f64) -> usize {
    place as usize
}
