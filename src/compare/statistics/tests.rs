//! Known samples, and intervals that were computed without this code and without random numbers.
//!
//! The distribution that a bootstrap samples from can be computed exactly. For n sorted samples, n odd, the median of a
//! resample is at most the j-th with the probability that at least (n + 1) / 2 of n draws are among the first j. For n even,
//! all multisets of n indexes are listed with their multinomial weights. In Python, with its standard library:
//!
//! ```python
//! from fractions import Fraction as F
//! from math import comb
//! def odd(samples):
//!     n, k = len(samples), (len(samples) + 1) // 2
//!     for j, x in enumerate(sorted(samples), 1):
//!         print(x, float(sum(comb(n, i) * F(j, n)**i * (1 - F(j, n))**(n - i) for i in range(k, n + 1))))
//!
//! from itertools import combinations_with_replacement
//! from math import factorial
//! from collections import Counter
//! def any_n(samples):
//!     xs, n, weights = sorted(samples), len(samples), Counter()
//!     for places in combinations_with_replacement(range(n), n):
//!         ways = factorial(n)
//!         for times in Counter(places).values(): ways //= factorial(times)
//!         weights[(xs[places[n // 2]] + xs[places[(n - 1) // 2]]) / 2] += ways
//!     so_far = 0
//!     for x in sorted(weights): so_far += weights[x]; print(x, so_far / n**n)
//! ```
//!
//! The bounds are the first x whose probability reaches 0.025 and 0.975. With 10,000 resamples the probability is off by
//! 0.0016 (one standard deviation); the samples are such that the bound is clear of that.

use std::collections::BTreeMap;

use super::bootstrap::paired_ratio;
use super::*;
use crate::compare::{Arm, ArmReport, Process, Ratio, Run};

const SEED: u64 = 7;

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} is not {expected}");
}

fn run(total_s: f64, cpu_s: &[(&str, f64)]) -> Run {
    let process = |cpu_s| Process { cpu_s, ..Process::default() };
    let processes: BTreeMap<_, _> = cpu_s.iter().map(|(role, cpu_s)| ((*role).into(), process(*cpu_s))).collect();
    Run { total_s, events: 1_000, committed: 1_000, processes, ..Run::default() }
}

fn arm(arm: Arm, totals: &[f64], again: &[f64]) -> ArmReport {
    let direct: &[(&str, f64)] = &[("application", 0.5)];
    let whole: &[(&str, f64)] = &[("application", 0.25), ("collector", 0.5), ("broker", 0.75)];
    let cpu_s = if metric::through_nats(arm) { whole } else { direct };
    let runs = |totals: &[f64]| totals.iter().map(|total_s| run(*total_s, cpu_s)).collect();
    ArmReport {
        arm,
        promise: String::new(),
        events: 1_000,
        skipped: None,
        error: None,
        counted: None,
        runs: runs(totals),
        again: runs(again),
        latency: None,
        idle: None,
    }
}

fn ratio_of(ratios: &[Ratio], of: &str, noise_floor: bool) -> Ratio {
    ratios.iter().find(|ratio| ratio.of == of && ratio.noise_floor == noise_floor).expect(of).clone()
}

#[test]
fn medians_and_quantiles_of_known_samples() {
    close(median(&[3.0, 1.0, 2.0]), 2.0);
    close(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    assert!(median(&[]).is_nan());
    // statistics.quantiles(range(1, 1001), n=1000, method="inclusive") in Python; [499], [899], [989], [998].
    let mut samples: Vec<f64> = (1..=1_000).rev().map(f64::from).collect();
    let found = quantiles(&mut samples);
    close(found.p50, 500.5);
    close(found.p90, 900.1);
    close(found.p99, 990.01);
    close(found.p999, 999.001);
    close(found.max, 1_000.0);
    assert_eq!(quantiles(&mut []), Quantiles::default());
    close(quantile(&[5.0], 0.999), 5.0);
}

#[test]
fn an_interval_of_nine_pairs_is_the_exact_one() {
    let above = [0.546, 0.561, 0.539, 0.55, 0.572, 0.544, 0.558, 0.549, 0.553];
    let below = [0.524, 0.517, 0.53, 0.511, 0.528, 0.52, 0.509, 0.533, 0.515];
    // odd(): 1.01698 at 0.0014, 1.03001 at 0.0304; 1.08333 at 0.9696, 1.08510 at 0.9986.
    let found = paired_ratio(&above, &below, SEED);
    close(found.median, 1.073_786_407_766_990_3);
    close(found.low, 1.030_018_761_726_078_8);
    close(found.high, 1.085_106_382_978_723_5);
}

#[test]
fn an_interval_of_eight_pairs_is_the_exact_one() {
    let above = [120.0, 130.0, 115.0, 140.0, 126.0, 133.0, 118.0, 125.0];
    let below = [100.0, 104.0, 97.0, 109.0, 95.0, 110.0, 101.0, 99.0];
    // any_n(): 1.18416 at 0.0086, 1.18557 at 0.0301; 1.27352 at 0.9684, 1.28440 at 0.9898.
    let found = paired_ratio(&above, &below, SEED);
    close(found.low, 1.185_567_010_309_278_3);
    close(found.high, 1.284_403_669_724_770_5);
}

#[test]
fn an_interval_of_twenty_one_samples_is_exact_for_any_seed() {
    let samples: Vec<f64> = (1..=21).map(f64::from).collect();
    // odd(): 6 at 0.0183, 7 at 0.0557; 14 at 0.9443, 15 at 0.9817.
    for seed in 0..20 {
        assert_eq!(interval_of_median(&samples, seed), Interval { median: 11.0, low: 7.0, high: 15.0, samples: 21 });
    }
}

#[test]
fn fewer_than_six_samples_have_a_range_and_no_interval() {
    let found = interval_of_median(&[2.4, 1.8, 2.2, 2.8, 2.0], SEED);
    assert_eq!(found, Interval { median: 2.2, low: 1.8, high: 2.8, samples: 5 });
    assert!(found.is_range());
    assert!(!interval_of_median(&[2.4, 1.8, 2.2, 2.8, 2.0, 2.1], SEED).is_range());
}

#[test]
fn constant_ratios_have_an_interval_without_width() {
    let below = [4.0, 8.0, 16.0, 2.0, 1.0, 4.0];
    let found = paired_ratio(&below.map(|below| below / 2.0), &below, SEED);
    assert_eq!(found, Interval { median: 0.5, low: 0.5, high: 0.5, samples: 6 });
    assert!(paired_ratio(&[], &[1.0], SEED).median.is_nan());
}

#[test]
fn pairs_cancel_a_slowdown_of_both_runs() {
    // One round three times as slow as another: each side alone varies threefold, the ratio not at all.
    let below = [1.0, 2.0, 3.0, 1.5, 2.5, 1.2];
    let above = below.map(|seconds| seconds * 1.25);
    let found = paired_ratio(&above, &below, SEED);
    close(found.low, 1.25);
    close(found.high, 1.25);
    assert!(interval_of_median(&below, SEED).high > 1.5);
}

#[test]
fn the_same_seed_gives_the_same_interval() {
    let samples: Vec<f64> = (0..40).map(|n| f64::from(n * n % 37)).collect();
    assert_eq!(interval_of_median(&samples, 1), interval_of_median(&samples, 1));
}

#[test]
fn ratios_are_against_the_first_arm() {
    let first = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0];
    let arms = [arm(Arm::DirectPerEvent, &first, &first), arm(Arm::Jetstream, &first.map(|s| s * 2.0), &[])];
    let found = ratios(&arms, SEED);
    assert_eq!(found.len(), 4);
    let throughput = ratio_of(&found, "throughput", false);
    close(throughput.median, 0.5);
    assert_eq!((throughput.arm, throughput.pairs, throughput.finding.as_str()), (Arm::Jetstream, 6, "lower"));
    // 0.25 + 0.5 + 0.75 against 0.5: the broker counts.
    close(ratio_of(&found, "cpu_us_an_event", false).median, 3.0);
    assert_eq!(ratio_of(&found, "cpu_us_an_event", false).finding, "higher");
    assert_eq!(ratio_of(&found, "throughput", true).finding, "no difference shown");
}

#[test]
fn a_difference_within_the_noise_floor_is_not_shown() {
    let first = [1.0; 8];
    let wild = [0.9, 1.12, 0.9, 1.12, 0.9, 1.12, 0.9, 1.12];
    let slower = [1.05; 8];
    let quiet = [arm(Arm::DirectPerEvent, &first, &first), arm(Arm::Jetstream, &slower, &[])];
    assert_eq!(ratio_of(&ratios(&quiet, SEED), "throughput", false).finding, "lower");
    let noisy = [arm(Arm::DirectPerEvent, &first, &wild), arm(Arm::Jetstream, &slower, &[])];
    let found = ratio_of(&ratios(&noisy, SEED), "throughput", false);
    assert_eq!(found.finding, "no difference shown");
    // All pairs have the same ratio. The interval is the one that decides the finding: it is widened by the noise floor.
    close(found.noise, 1.12);
    close(found.low, 1.0 / 1.05 / 1.12);
    close(found.high, 1.12 / 1.05);
    assert!(found.low < 1.0 && found.high > 1.0);
}

#[test]
fn the_interval_excludes_1_exactly_if_a_difference_is_shown() {
    let first = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01];
    let again = [1.02, 0.99, 1.01, 1.0, 1.03, 0.98, 1.0];
    for percent in 80_u32..125 {
        let other = first.map(|seconds| seconds * f64::from(percent) / 100.0);
        let found = ratios(&[arm(Arm::DirectPerEvent, &first, &again), arm(Arm::Jetstream, &other, &[])], SEED);
        for ratio in found {
            let excludes = ratio.low > 1.0 || ratio.high < 1.0;
            assert_eq!(excludes, ratio.finding != "no difference shown", "{percent}: {ratio:?}");
        }
    }
}

#[test]
fn an_arm_that_differs_from_itself_has_a_finding() {
    let arms = [arm(Arm::DirectPerEvent, &[1.0; 6], &[1.2; 6])];
    assert_eq!(ratio_of(&ratios(&arms, SEED), "throughput", true).finding, "lower");
}

#[test]
fn from_few_pairs_nothing_is_concluded() {
    let arms = [arm(Arm::DirectPerEvent, &[1.0; 5], &[1.1; 5]), arm(Arm::Jetstream, &[8.0, 9.0, 10.0, 9.0, 9.0], &[])];
    let found = ratio_of(&ratios(&arms, SEED), "throughput", false);
    assert_eq!((found.pairs, found.finding.as_str()), (5, "too few pairs"));
    // Their range, as measured.
    assert_eq!((found.low, found.high, found.noise), (0.1, 0.125, 1.0));
}

#[test]
fn what_was_not_measured_has_no_ratio() {
    let mut arms = [arm(Arm::DirectPerEvent, &[1.0; 3], &[]), arm(Arm::Jetstream, &[1.0; 3], &[])];
    for run in &mut arms[1].runs {
        run.processes.remove("broker");
    }
    let found = ratios(&arms, SEED);
    assert!(found.iter().all(|ratio| ratio.of != "cpu_us_an_event"), "without the broker it is not the arm's CPU");
    assert!(found.iter().any(|ratio| ratio.of == "throughput"));
    assert!(ratios(&[], SEED).is_empty());
    let skipped = [arm(Arm::DirectPerEvent, &[1.0; 3], &[]), arm(Arm::Jetstream, &[], &[])];
    assert!(ratios(&skipped, SEED).is_empty());
}

#[test]
fn lost_events_are_not_throughput() {
    let run = Run { total_s: 2.0, events: 40_000, committed: 40_000, ..Run::default() };
    assert_eq!(metric::stated_s(Arm::Jetstream, &run), Some(0.5));
    assert_eq!(metric::us_an_event(Arm::Jetstream, &run), Some(50.0));
    let lossy = Run { total_s: 2.0, events: 1_000, committed: 600, ..Run::default() };
    assert_eq!(metric::throughput(Arm::CoreNats, &lossy), Some(300.0));
    assert_eq!(metric::throughput(Arm::CoreNats, &Run::default()), None);
}
