//! Events at a given rate: what `record()` takes, and how long until the commit. On the same stage, before the first event:
//! what everything uses while there is nothing to do.

use std::time::Duration;

use super::application::Order;
use super::commit_watch::{Observation, Watch};
use super::driver::Session;
use super::environment::Stage;
use super::options::Setup;
use super::{Failure, Idle, LatencyRun, clock, idle, run, statistics};
use crate::store::Value;

/// Between two looks at the database: what a commit may be seen too late by, at most, while this machine is not busy.
const LOOK: Duration = Duration::from_micros(100);

/// Rows read at a time.
const ROWS: usize = 10_000;

/// Looks at one arm.
pub(super) fn measure(session: &Session<'_>, setup: Setup) -> Result<(Idle, LatencyRun), Failure> {
    let mut stage = Stage::set(session, setup)?;
    let (mut application, order) = stage.application(0)?;
    let idle = idle::look(session, &stage.meters(&application), session.options.idle_for)?;
    let mut watch = Watch::open(&stage.database)?;
    let workload = stage.workload.clone();
    let mut commits: Vec<(u64, u64)> = Vec::with_capacity(setup.events as usize);
    let mut read = 0;
    application.tell("go")?;
    let mut observation = Observation { session, stage: &mut stage, application: &mut application, look: LOOK };
    let at_commit = |watch: &Watch| {
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
    let outcome = observation.until_all(&mut watch, setup.events, at_commit, |_| Ok(()))?;
    drop(application);
    run::verified(session, &stage)?;
    let mut felt: Vec<f64> = outcome.calls.iter().map(|call| call.felt_us).collect();
    let mut waits = waits(&order, outcome.began, &commits);
    let latency = LatencyRun {
        rate: setup.rate.unwrap_or(0),
        events: setup.events,
        record_us: statistics::quantiles(&mut felt),
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

/// Microseconds from when each was due until its commit was seen.
fn waits(order: &Order, began: u64, commits: &[(u64, u64)]) -> Vec<f64> {
    commits.iter().map(|(number, seen)| clock::seconds(order.due(began, *number), *seen) * 1e6).collect()
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
