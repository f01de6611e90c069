//! One arm against another: the paired ratio, and whether it is more than the noise of the machine.

use super::bootstrap::{Interval, MINIMUM_SAMPLES, paired_ratio};
use super::metric::{self, Metric};
use crate::compare::{Arm, ArmReport, Ratio, Run};

/// The metrics of a comparison's `ratios`.
const COMPARED: [(&str, Metric); 2] =
    [("throughput", metric::throughput), ("cpu_us_an_event", metric::cpu_us_an_event)];

/// Whether a difference is shown, and its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// More than the other, beyond the noise.
    Higher,
    /// Less than the other, beyond the noise.
    Lower,
    /// These samples show no difference.
    NoDifferenceShown,
    /// With fewer than [`MINIMUM_SAMPLES`] pairs nothing is concluded.
    TooFewPairs,
}

impl Finding {
    /// As in a [`Ratio`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
            Self::NoDifferenceShown => "no difference shown",
            Self::TooFewPairs => "too few pairs",
        }
    }

    fn of(ratio: Interval) -> Self {
        if ratio.samples < MINIMUM_SAMPLES {
            Self::TooFewPairs
        } else if ratio.low > 1.0 {
            Self::Higher
        } else if ratio.high < 1.0 {
            Self::Lower
        } else {
            Self::NoDifferenceShown
        }
    }
}

/// A metric of one arm against the same metric of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// The paired ratio. Its interval is widened by the noise floor, and the finding is whether it excludes 1; with too few pairs
    /// it is the range of the ratios, as measured.
    pub ratio: Interval,
    /// What the ratio shows.
    pub finding: Finding,
}

/// `above` against `below`, round by round, widened by the factor `noise`. None if no round has the number for both.
#[must_use]
pub fn compared(above: (Arm, &[Run]), below: (Arm, &[Run]), of: Metric, noise: f64, seed: u64) -> Option<Compared> {
    let pairs = above.1.iter().zip(below.1).filter_map(|(up, down)| Some((of(above.0, up)?, of(below.0, down)?)));
    // A denominator of 0 has no ratio.
    let (ups, downs): (Vec<f64>, Vec<f64>) = pairs.filter(|(_, down)| *down > 0.0).unzip();
    if ups.is_empty() {
        return None;
    }
    let measured = paired_ratio(&ups, &downs, seed);
    let ratio = if measured.is_range() { measured } else { measured.widened(noise) };
    Some(Compared { ratio, finding: Finding::of(ratio) })
}

/// The noise floor of a metric as a factor: how far the interval of an arm against itself reaches from 1, in either direction.
/// It is 1 if no arm was run twice.
#[must_use]
pub fn noise(arms: &[ArmReport], of: Metric, seed: u64) -> f64 {
    arms.first()
        .and_then(|arm| itself(arm, of, seed))
        .map_or(1.0, |floor| floor.ratio.high.max(1.0 / floor.ratio.low))
        .max(1.0)
}

/// The second series of an arm against its first. Its finding is not widened: if an arm differs from itself, the machine was
/// not quiet.
fn itself(arm: &ArmReport, of: Metric, seed: u64) -> Option<Compared> {
    compared((arm.arm, &arm.again), (arm.arm, &arm.runs), of, 1.0, seed)
}

/// Each arm against the first, and the first against itself, in all metrics of a comparison's `ratios`. An arm without runs has
/// no ratio, and an arm with a process that was not measured has none of its CPU. The seed is that of the comparison's settings;
/// reports use it for all other intervals too.
#[must_use]
pub fn ratios(arms: &[ArmReport], seed: u64) -> Vec<Ratio> {
    let Some((first, others)) = arms.split_first() else { return Vec::new() };
    let of_one = |(name, of): (&'static str, Metric)| {
        let noise = noise(arms, of, seed);
        let floor = itself(first, of, seed).map(|found| ratio(name, first.arm, true, 1.0, found));
        let against_first = others.iter().filter_map(move |arm| {
            let found = compared((arm.arm, &arm.runs), (first.arm, &first.runs), of, noise, seed)?;
            Some(ratio(name, arm.arm, false, if found.ratio.is_range() { 1.0 } else { noise }, found))
        });
        floor.into_iter().chain(against_first)
    };
    COMPARED.into_iter().flat_map(of_one).collect()
}

fn ratio(of: &str, arm: Arm, noise_floor: bool, noise: f64, found: Compared) -> Ratio {
    Ratio {
        of: of.into(),
        arm,
        noise_floor,
        median: found.ratio.median,
        low: found.ratio.low,
        high: found.ratio.high,
        noise,
        pairs: found.ratio.samples,
        finding: found.finding.name().into(),
    }
}
