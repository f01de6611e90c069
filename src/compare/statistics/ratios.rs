//! One arm against another: the paired ratio, and whether it says anything beyond the machine's own unrest.

use super::bootstrap::{Interval, coverage_of_range, paired_ratio};
use super::metric::{self, Metric};
use crate::compare::{Arm, ArmReport, Ratio, Run};

/// Fewer pairs than this show no difference: their range holds the true median less than three times in four.
pub const MINIMUM_PAIRS: usize = 3;

/// What a comparison's `ratios` are of.
const COMPARED: [(&str, Metric); 3] =
    [("total_s", metric::total_s), ("throughput", metric::throughput), ("cpu_s", metric::cpu_s)];

/// Whether a difference is shown, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// More than the other, beyond the noise.
    Higher,
    /// Less than the other, beyond the noise.
    Lower,
    /// Not one, at least not by these samples.
    NoDifferenceShown,
}

impl Finding {
    /// As a [`Ratio`] has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
            Self::NoDifferenceShown => "no difference shown",
        }
    }

    fn of(ratio: Interval, pairs: usize) -> Self {
        if pairs >= MINIMUM_PAIRS && ratio.low > 1.0 {
            Self::Higher
        } else if pairs >= MINIMUM_PAIRS && ratio.high < 1.0 {
            Self::Lower
        } else {
            Self::NoDifferenceShown
        }
    }
}

/// A metric of one arm against the same of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// The paired ratio as it was measured, without the noise.
    pub ratio: Interval,
    /// Pairs it was made of.
    pub pairs: usize,
    /// What it shows once it is widened by the noise.
    pub finding: Finding,
}

impl Compared {
    /// How often an interval of so few pairs holds the true ratio, where that is less than 95 in 100.
    #[must_use]
    pub fn coverage(pairs: usize) -> Option<f64> {
        let coverage = coverage_of_range(pairs);
        (coverage < 0.95).then_some(coverage)
    }
}

/// `above` against `below`, round by round, widened by the factor `noise`. None if no round has the number on both sides.
#[must_use]
pub fn compared(above: (Arm, &[Run]), below: (Arm, &[Run]), of: Metric, noise: f64, seed: u64) -> Option<Compared> {
    let pairs = above.1.iter().zip(below.1).filter_map(|(up, down)| Some((of(above.0, up)?, of(below.0, down)?)));
    // A count of 0 below the line has no ratio.
    let (ups, downs): (Vec<f64>, Vec<f64>) = pairs.filter(|(_, down)| *down > 0.0).unzip();
    if ups.is_empty() {
        return None;
    }
    let ratio = paired_ratio(&ups, &downs, seed);
    Some(Compared { ratio, pairs: ups.len(), finding: Finding::of(ratio.widened(noise), ups.len()) })
}

/// The noise floor of a metric as a factor: how far the interval of an arm against itself reaches from 1, either way.
/// 1 if no arm was run twice.
#[must_use]
pub fn noise(arms: &[ArmReport], of: Metric, seed: u64) -> f64 {
    arms.first()
        .and_then(|arm| itself(arm, of, seed))
        .map_or(1.0, |floor| floor.ratio.high.max(1.0 / floor.ratio.low))
        .max(1.0)
}

/// The second series of an arm against its first. Its finding is not widened by anything: an arm that differs from itself
/// says that the machine was not quiet.
fn itself(arm: &ArmReport, of: Metric, seed: u64) -> Option<Compared> {
    compared((arm.arm, &arm.again), (arm.arm, &arm.runs), of, 1.0, seed)
}

/// Each arm against the first, and the first against itself, for all that a comparison's `ratios` are of. An arm without
/// runs has none; nor has `cpu_s` where a process of the arm was not measured. The seed
/// is that of the comparison's settings, with which reports make the intervals of all other figures.
#[must_use]
pub fn ratios(arms: &[ArmReport], seed: u64) -> Vec<Ratio> {
    let Some((first, others)) = arms.split_first() else { return Vec::new() };
    let of_one = |(name, of): (&'static str, Metric)| {
        let noise = noise(arms, of, seed);
        let floor = itself(first, of, seed).map(|found| ratio(name, first.arm, true, found));
        let against_first = others.iter().filter_map(move |arm| {
            let found = compared((arm.arm, &arm.runs), (first.arm, &first.runs), of, noise, seed)?;
            Some(ratio(name, arm.arm, false, found))
        });
        floor.into_iter().chain(against_first)
    };
    COMPARED.into_iter().flat_map(of_one).collect()
}

fn ratio(of: &str, arm: Arm, noise_floor: bool, found: Compared) -> Ratio {
    Ratio {
        of: of.into(),
        arm,
        noise_floor,
        median: found.ratio.median,
        low: found.ratio.low,
        high: found.ratio.high,
        pairs: found.pairs,
        finding: found.finding.name().into(),
    }
}
