//! The charts of the page.

use super::chart::Chart;
use super::numbers::{bytes, duration, number};
use crate::observe::history::{KEPT, Sample};

/// So many samples make one point.
const STEP: usize = 3;

/// Adds all charts.
pub(super) fn all(html: &mut String, samples: &[Sample]) {
    let chart = |title, names, shown: fn(f64) -> String, value: &dyn Fn(&[Sample]) -> Vec<Option<f64>>| {
        let points = points(samples, value);
        Chart { title, names, points, seconds: KEPT.as_secs_f64(), shown }.html()
    };
    html.push_str(&chart("Events a second", &["received", "committed"], number, &|step| {
        vec![rate(step, |sample| sample.received), rate(step, |sample| sample.committed)]
    }));
    html.push_str(&chart("Publish to commit", &["median", "p99"], duration, &|step| percentiles(step, |s| s.delay)));
    html.push_str(&chart("Events that wait", &["in stream", "in memory"], number, &|step| {
        vec![last(step, |sample| sample.pending), last(step, |sample| sample.queue)]
    }));
    html.push_str(&chart("Time of a commit", &["median", "p99"], duration, &|step| percentiles(step, |s| s.commit)));
    html.push_str(&chart("Events of a batch", &["mean"], number, &|step| {
        let means: Vec<f64> = step.iter().filter_map(|sample| sample.batch).collect();
        vec![mean(&means)]
    }));
    html.push_str(&chart("Size of the WAL", &["bytes"], shown_bytes, &|step| vec![last(step, |s| s.wal_bytes)]));
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes are whole and not negative")]
fn shown_bytes(size: f64) -> String {
    bytes(size.max(0.0) as u64)
}

/// A point for each step. A step begins with the last sample of the one before, for rates.
fn points(samples: &[Sample], value: &dyn Fn(&[Sample]) -> Vec<Option<f64>>) -> Vec<(f64, Vec<Option<f64>>)> {
    let Some(now) = samples.last().map(|sample| sample.at) else { return Vec::new() };
    // The last step ends with the last sample.
    let mut ends: Vec<usize> = (1..samples.len()).rev().step_by(STEP).collect();
    ends.reverse();
    let of = |end: &usize| {
        let step = &samples[end.saturating_sub(STEP)..=*end];
        ((now - samples[*end].at).as_secs_f64(), value(step))
    };
    ends.iter().map(of).collect()
}

#[allow(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
fn rate(step: &[Sample], count: impl Fn(&Sample) -> u64) -> Option<f64> {
    let (first, last) = (step.first()?, step.last()?);
    let seconds = (last.at - first.at).as_secs_f64();
    (seconds > 0.0).then(|| count(last).saturating_sub(count(first)) as f64 / seconds)
}

#[allow(clippy::cast_precision_loss, reason = "a chart needs no more digits")]
fn last(step: &[Sample], value: impl Fn(&Sample) -> u64) -> Option<f64> {
    step.last().map(|sample| value(sample) as f64)
}

/// The mean of the medians, and the largest of the 99th percentiles.
fn percentiles(step: &[Sample], of: impl Fn(&Sample) -> Option<(f64, f64)>) -> Vec<Option<f64>> {
    // The first sample belongs to the step before.
    let measured: Vec<(f64, f64)> = step.iter().skip(1).filter_map(of).collect();
    let medians: Vec<f64> = measured.iter().map(|(median, _)| *median).collect();
    vec![mean(&medians), measured.iter().map(|(_, most)| *most).reduce(f64::max)]
}

#[allow(clippy::cast_precision_loss, reason = "a mean needs no more digits")]
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
