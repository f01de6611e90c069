//! Histograms that threads fill without a lock, and their contents at one moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The upper bounds of the commits' durations, in nanoseconds: from half a millisecond to ten seconds.
const COMMITS: &[u64] = &[
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// The upper bounds of the batches' sizes, in events.
const BATCHES: &[u64] = &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000, 1_000_000];

/// The upper bounds of the time from publish to commit, in nanoseconds: from a millisecond to a day.
const DELAYS: &[u64] = &[
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    300_000_000_000,
    3_600_000_000_000,
    86_400_000_000_000,
];

/// The upper bounds of the time that a query takes, in nanoseconds: from a tenth of a millisecond to ten seconds.
const QUERIES: &[u64] = &[
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Nanoseconds of a second: durations are kept in the one and shown in the other.
const SECOND: f64 = 1e9;

/// Counts values by size. Threads add without a lock. Values that are added while it is read may be in the sum and not yet in the
/// counts.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// How many of the smallest unit are one of the unit that is shown.
    scale: f64,
    /// One more than bounds: the last one is for values above all of them.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// Values that are counted by one thread, to be added to a histogram at once.
#[derive(Debug)]
pub struct Tally {
    bounds: &'static [u64],
    counts: Vec<u64>,
    sum: u64,
    /// Where the last value was counted: most values are close to the one before.
    last: usize,
}

impl Histogram {
    fn new(bounds: &'static [u64], scale: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, scale, counts, sum: AtomicU64::new(0) }
    }

    /// For the durations of commits.
    #[must_use]
    pub fn of_commits() -> Self {
        Self::new(COMMITS, SECOND)
    }

    /// For the numbers of events in batches.
    #[must_use]
    pub fn of_batches() -> Self {
        Self::new(BATCHES, 1.0)
    }

    /// For the times from publish to commit.
    #[must_use]
    pub fn of_delays() -> Self {
        Self::new(DELAYS, SECOND)
    }

    /// For the durations of queries.
    #[must_use]
    pub fn of_queries() -> Self {
        Self::new(QUERIES, SECOND)
    }

    /// Adds a value.
    pub fn add(&self, value: u64) {
        self.counts[slot(self.bounds, value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds a duration.
    pub fn add_duration(&self, duration: Duration) {
        self.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// An empty tally with the same bounds.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { bounds: self.bounds, counts: vec![0; self.bounds.len() + 1], sum: 0, last: 0 }
    }

    /// Adds the values of a tally, and empties it.
    pub fn take(&self, tally: &mut Tally) {
        for (count, added) in self.counts.iter().zip(&mut tally.counts) {
            if *added > 0 {
                count.fetch_add(std::mem::take(added), Ordering::Relaxed);
            }
        }
        self.sum.fetch_add(std::mem::take(&mut tally.sum), Ordering::Relaxed);
    }

    /// Its contents now.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a histogram's bounds and sum are shown as floating-point numbers")]
    pub fn distribution(&self) -> Distribution {
        Distribution {
            bounds: self.bounds.iter().map(|&bound| bound as f64 / self.scale).collect(),
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed) as f64 / self.scale,
        }
    }
}

impl Tally {
    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        let is_near = value <= self.bounds.get(self.last).copied().unwrap_or(u64::MAX)
            && (self.last == 0 || value > self.bounds[self.last - 1]);
        if !is_near {
            self.last = slot(self.bounds, value);
        }
        self.counts[self.last] += 1;
        self.sum = self.sum.saturating_add(value);
    }
}

/// The index of the count for this value: of the first bound that is not below it.
fn slot(bounds: &[u64], value: u64) -> usize {
    bounds.partition_point(|&bound| bound < value)
}

/// The contents of a histogram at one moment: how many values there were, of which size. Durations are in seconds.
///
/// As JSON it has `bounds`, `counts` (one more than bounds, the last one for values above all of them) and `sum`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    bounds: Vec<f64>,
    counts: Vec<u64>,
    sum: f64,
}

impl Distribution {
    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of the values.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The mean of the values; `None` without a value.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a mean needs no more digits")]
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum / count as f64)
    }

    /// For each bound how many values are at most so large and above the bound before. The last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = self.bounds.iter().copied().chain(std::iter::once(f64::INFINITY));
        bounds.zip(self.counts.iter().copied())
    }

    /// An estimate of the value that this part of the values does not exceed, 0.5 for the median; `None` without a value. Between two
    /// bounds values count as evenly spread. Above the last bound the result is that bound.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "an estimate needs no more digits")]
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let rank = part.clamp(0.0, 1.0) * self.count() as f64;
        let (mut below, mut lower) = (0, 0.0);
        for (upper, count) in self.buckets() {
            let reached = below + count;
            if count > 0 && reached as f64 >= rank {
                let share = ((rank - below as f64) / count as f64).clamp(0.0, 1.0);
                return Some(if upper.is_finite() { lower + (upper - lower) * share } else { lower });
            }
            (below, lower) = (reached, upper);
        }
        None
    }

    /// The values that were added since an earlier moment of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        if self.bounds != earlier.bounds {
            return self.clone();
        }
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then)).collect();
        Self { bounds: self.bounds.clone(), counts, sum: (self.sum - earlier.sum).max(0.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_up_to_their_bound() {
        let histogram = Histogram::of_batches();
        for value in [1, 2, 3, 5, 6, 5_000, 2_000_000] {
            histogram.add(value);
        }
        let found = histogram.distribution();
        let counted: Vec<(f64, u64)> = found.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(1.0, 1), (2.0, 1), (5.0, 2), (10.0, 1), (5_000.0, 1), (f64::INFINITY, 1)]);
        assert_eq!((found.count(), found.sum()), (7, 2_005_017.0));
    }

    #[test]
    fn a_tally_adds_the_same_as_its_values_one_by_one() {
        let (one_by_one, at_once) = (Histogram::of_delays(), Histogram::of_delays());
        let mut tally = at_once.tally();
        for value in [0, 1, 999_999, 1_000_000, 1_000_001, 50_000_000, 3, 90_000_000_000_000, 2_000_000] {
            one_by_one.add(value);
            tally.add(value);
        }
        at_once.take(&mut tally);
        at_once.take(&mut tally);
        assert_eq!(at_once.distribution(), one_by_one.distribution());
    }

    #[test]
    fn quantiles_are_between_the_bounds_of_their_values() {
        let histogram = Histogram::of_commits();
        assert_eq!(histogram.distribution().quantile(0.5), None);
        for _ in 0..99 {
            histogram.add_duration(Duration::from_millis(3));
        }
        histogram.add_duration(Duration::from_secs(60));
        let found = histogram.distribution();
        let median = found.quantile(0.5).expect("values");
        assert!((0.0025..=0.005).contains(&median), "{median}");
        assert_eq!(found.quantile(1.0), Some(10.0), "no more is known of it");
        let mean = found.mean().expect("values");
        assert!((mean - (0.003 * 99.0 + 60.0) / 100.0).abs() < 1e-9, "{mean}");
    }

    #[test]
    fn the_values_since_a_moment_are_those_that_were_added() {
        let histogram = Histogram::of_commits();
        histogram.add_duration(Duration::from_millis(3));
        let earlier = histogram.distribution();
        histogram.add_duration(Duration::from_millis(300));
        let since = histogram.distribution().since(&earlier);
        assert_eq!(since.buckets().filter(|(_, count)| *count > 0).collect::<Vec<_>>(), [(0.5, 1)]);
        assert!((since.sum() - 0.3).abs() < 1e-9);
        let text = serde_json::to_string(&since).expect("JSON");
        assert_eq!(serde_json::from_str::<Distribution>(&text).expect("reads"), since);
    }
}
