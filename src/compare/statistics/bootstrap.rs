//! Bootstrap intervals: they assume nothing about the distribution of the samples.

use super::quantile;
use crate::compare::random::Random;

/// Resamples for one interval.
pub const RESAMPLES: usize = 10_000;

/// Fewer samples than this have no 95 % interval: even their whole range contains the true median less than 95 times in 100
/// (five samples: 94, three: 75).
pub const MINIMUM_SAMPLES: usize = 6;

/// A median with the 95 % percentile interval of its bootstrap; with fewer than [`MINIMUM_SAMPLES`], with the range of the samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The median of the samples.
    pub median: f64,
    /// 2.5 % of the resamples' medians are below it.
    pub low: f64,
    /// 2.5 % of the resamples' medians are above it.
    pub high: f64,
    /// Number of samples.
    pub samples: usize,
}

impl Interval {
    /// Widened on both sides by a factor of at least 1.
    #[must_use]
    pub fn widened(self, factor: f64) -> Self {
        Self { low: self.low / factor, high: self.high * factor, ..self }
    }

    /// Whether there are too few samples for a 95 % interval, so that this is their range.
    #[must_use]
    pub fn is_range(self) -> bool {
        self.samples < MINIMUM_SAMPLES
    }

    /// Whether the two have a value in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// The median of the ratios of pairs, with its interval. Pairs are resampled, not each side by itself, so a slowdown of both
/// runs of a round affects neither the ratio nor its interval. Samples without a partner are left out; without pairs, all is
/// NaN.
#[must_use]
pub fn paired_ratio(numerators: &[f64], denominators: &[f64], seed: u64) -> Interval {
    let ratios: Vec<f64> = numerators.iter().zip(denominators).map(|(above, below)| above / below).collect();
    interval_of_median(&ratios, seed)
}

/// The median of samples, with its interval; without samples, all is NaN.
#[must_use]
pub fn interval_of_median(samples: &[f64], seed: u64) -> Interval {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (median, samples) = (quantile(&sorted, 0.5), sorted.len());
    if samples < MINIMUM_SAMPLES {
        return Interval { median, low: quantile(&sorted, 0.0), high: quantile(&sorted, 1.0), samples };
    }
    let mut medians = medians_of_resamples(&sorted, seed);
    medians.sort_unstable_by(f64::total_cmp);
    Interval { median, low: quantile(&medians, 0.025), high: quantile(&medians, 0.975), samples }
}

/// A resample of sorted samples is a draw of indexes. Counting how often each was drawn gives the median without sorting.
fn medians_of_resamples(sorted: &[f64], seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    let mut drawn = vec![0_usize; sorted.len()];
    let mut one = || {
        drawn.fill(0);
        for _ in 0..sorted.len() {
            drawn[random.below(sorted.len() as u64) as usize] += 1;
        }
        let low = index_of(&drawn, (sorted.len() - 1) / 2);
        let high = index_of(&drawn, sorted.len() / 2);
        if low == high { sorted[low] } else { f64::midpoint(sorted[low], sorted[high]) }
    };
    (0..RESAMPLES).map(|_| one()).collect()
}

/// The index of the draw that `before` others come before.
fn index_of(drawn: &[usize], before: usize) -> usize {
    let mut so_far = 0;
    for (index, times) in drawn.iter().enumerate() {
        so_far += times;
        if so_far > before {
            return index;
        }
    }
    0
}
