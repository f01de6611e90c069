//! Events at a given rate: how long `record()` takes, and how long until the commit. In the same environment, before the first
//! event: CPU while idle.

use std::time::Duration;

use super::application::Job;
use super::commit_watch::{CommitWatch, Observation};
use super::context::RunContext;
use super::environment::TestEnvironment;
use super::options::Setup;
use super::{CompareError, Idle, LatencyRun, clock, idle, run, statistics};
use crate::store::Value;

/// How often the database is polled: a commit is seen at most this much too late, while the machine is not busy.
const POLL_INTERVAL: Duration = Duration::from_micros(100);

/// Rows read at a time.
const ROWS: usize = 10_000;

/// Measures one arm.
pub(super) fn measure(context: &RunContext<'_>, setup: Setup) -> Result<(Idle, LatencyRun), CompareError> {
    let mut environment = TestEnvironment::start(context, setup)?;
    let (mut application, job) = environment.start_application(0)?;
    let idle = idle::measure(context, &environment.meters(&application), context.options.idle_for)?;
    let mut watch = CommitWatch::open(&environment.database)?;
    let workload = environment.workload.clone();
    let mut commits: Vec<(u64, u64)> = Vec::with_capacity(setup.events as usize);
    let mut read = 0;
    application.send_line("go")?;
    let mut observation = Observation::new(context, &mut environment, &mut application, POLL_INTERVAL);
    let at_commit = |watch: &CommitWatch| {
        let now = clock::now();
        loop {
            let rows = watch.reader().events_after(read, ROWS)?;
            let Some(last) = rows.last() else { return Ok(()) };
            read = last.id;
            commits.extend(rows.iter().filter_map(|row| match &row.payload {
                Value::Text(payload) => Some((workload.identity(payload.as_bytes())?, now)),
                Value::Blob(payload) => Some((workload.identity(payload)?, now)),
                _ => None,
            }));
        }
    };
    let outcome = observation.wait_for_all(&mut watch, setup.events, at_commit, |_| Ok(()))?;
    drop(application);
    run::verified(context, &environment)?;
    let mut waits = waits(&job, outcome.began, &commits);
    let latency = LatencyRun {
        rate: setup.rate.unwrap_or(0),
        events: setup.events,
        record_us: outcome.record_us,
        commit_us: statistics::quantiles(&mut waits),
        curve: curve(&waits),
    };
    Ok((idle, latency))
}

/// Points of the curve of sorted values, denser towards the end.
fn curve(sorted: &[f64]) -> Vec<(f64, f64)> {
    let shares = (0..20).map(|step| f64::from(step) / 20.0);
    let tail = (5..=16).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 4.0));
    let mut shares: Vec<f64> = shares.chain(tail).chain([1.0]).collect();
    shares.sort_by(f64::total_cmp);
    let points = shares.into_iter().map(|share| (share, statistics::quantile(sorted, share)));
    points.filter(|_| !sorted.is_empty()).collect()
}

/// Microseconds from when each event was due until its commit was seen.
fn waits(job: &Job, began: u64, commits: &[(u64, u64)]) -> Vec<f64> {
    commits.iter().map(|(number, seen)| clock::seconds(job.due(began, *number), *seen) * 1e6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_rises_to_the_highest_value() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let points = curve(&values);
        assert!(points.is_sorted());
        assert_eq!(points.last(), Some(&(1.0, 100.0)));
        assert!(curve(&[]).is_empty());
    }
}
