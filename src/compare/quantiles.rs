//! Quantiles of what was measured.

use super::Quantiles;

/// Quantiles of these values, which are sorted for it.
pub(super) fn of(values: &mut [f64]) -> Quantiles {
    values.sort_by(f64::total_cmp);
    let at = |share| at(values, share);
    Quantiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
}

/// Points of the curve of sorted values, denser towards the end.
pub(super) fn curve(values: &[f64]) -> Vec<(f64, f64)> {
    let shares = (0..20).map(|step| f64::from(step) / 20.0);
    let tail = (4..=16).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 4.0));
    let mut shares: Vec<f64> = shares.chain(tail).chain([1.0]).collect();
    shares.sort_by(f64::total_cmp);
    shares.dedup_by(|a, b| (*a - *b).abs() < 1e-9);
    shares.into_iter().map(|share| (share, at(values, share))).collect()
}

fn at(sorted: &[f64], share: f64) -> f64 {
    match sorted.len() {
        0 => 0.0,
        len => sorted[((len as f64 * share).ceil() as usize).clamp(1, len) - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let mut values: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        let found = of(&mut values);
        assert_eq!(found, Quantiles { p50: 500.0, p90: 900.0, p99: 990.0, p999: 999.0, max: 1000.0 });
        assert_eq!(of(&mut [3.0]).p999, 3.0);
        assert_eq!(of(&mut []).max, 0.0);
    }

    #[test]
    fn the_curve_rises_to_the_highest_value() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let curve = curve(&values);
        assert!(curve.is_sorted());
        assert_eq!(curve.last(), Some(&(1.0, 100.0)));
    }
}
