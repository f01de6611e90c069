//! The broker is away for a while, and events come meanwhile. How long does the caller of `record()` wait, what is lost, and how long
//! after the broker's return is everything in the database?
//!
//! The direct arms have no broker. They have the same runs: their figures show what the same time is like without one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::absence::Absence;
use super::application::{Outcome, Settlement};
use super::commit_watch::{CommitWatch, Observation, POLL_INTERVAL};
use super::context::RunContext;
use super::environment::TestEnvironment;
use super::options::Setup;
use super::{CompareError, Outage, arms, clock, run, statistics};

/// Events come for this long before the broker is killed.
pub(super) const BEFORE: Duration = Duration::from_millis(500);

/// Measures one arm. The setup has a rate; the last event is due when the broker comes back.
pub(super) fn measure(context: &RunContext<'_>, setup: Setup) -> Result<Outage, CompareError> {
    let away = context.options.outage_for.as_nanos() as u64;
    let has_broker = !arms::is_direct(setup.arm);
    let mut environment = TestEnvironment::start(context, Setup { keeps_receipts: true, ..setup })?;
    let (mut application, _) = environment.start_application(0)?;
    let mut watch = CommitWatch::open(&environment.database)?;
    application.send_line("go")?;
    let begins = clock::now() + BEFORE.as_nanos() as u64;
    let mut absence = Absence::new(begins, away);
    let mut observation = Observation::new(context, &mut environment, &mut application, POLL_INTERVAL);
    let outcome = observation.wait_for_all(
        &mut watch,
        setup.events,
        |_| Ok(()),
        |environment| absence.step(environment, TestEnvironment::kill_broker, TestEnvironment::restart_broker),
    )?;
    drop(application);
    let found = run::verified(context, &environment)?;
    // A direct arm may have stored its last event a moment before the end.
    let (from, to) = absence.span();
    let last = watch.last_commit().unwrap_or(to);
    let figures = Figures::of(&outcome, from, to);
    Ok(Outage {
        arm: setup.arm,
        rate: setup.rate.unwrap_or(0),
        away_s: clock::seconds(from, to),
        has_broker,
        record_us: figures.record_us,
        recorded: figures.recorded,
        refused: outcome.refusals,
        unsettled: figures.unsettled,
        failed: figures.failed,
        events: setup.events,
        missing: found.missing,
        recovery_s: clock::seconds(to, last.max(to)),
    })
}

/// What the application has seen of an outage.
#[derive(Debug, PartialEq)]
struct Figures {
    record_us: super::Quantiles,
    recorded: u64,
    unsettled: u64,
    failed: u64,
}

impl Figures {
    /// Between these times. Calls count to the time at which they were due.
    fn of(outcome: &Outcome, from: u64, to: u64) -> Self {
        let calls = &outcome.calls;
        let mut latencies: Vec<f64> =
            calls.iter().filter(|call| (from..to).contains(&call.due)).map(|call| call.latency_us).collect();
        let settled: BTreeMap<u64, &Settlement> = outcome.settlements.iter().map(|it| (it.number, it)).collect();
        let is_unsettled = |number: u64| settled.get(&number).is_none_or(|settlement| settlement.at >= to);
        Self {
            record_us: statistics::quantiles(&mut latencies),
            recorded: calls.iter().filter(|call| (from..to).contains(&call.returned)).count() as u64,
            unsettled: calls.iter().filter(|call| call.returned < to && is_unsettled(call.number)).count() as u64,
            failed: outcome.settlements.iter().filter(|settlement| !settlement.is_recorded).count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Quantiles;
    use super::super::application::RecordCall;
    use super::*;

    #[test]
    fn what_has_no_receipt_at_the_return_is_unsettled() {
        // Event N is due at 10 N. Event 3 takes until 60, and the next ones wait for it.
        let call = |(number, returned): (u64, u64)| RecordCall {
            number,
            due: number * 10,
            returned,
            latency_us: (returned - number * 10) as f64,
        };
        let settlement = |(number, at, is_recorded)| Settlement { number, at, is_recorded };
        let outcome = Outcome {
            began: 0,
            accepted: 100,
            record_us: Quantiles::default(),
            calls: [(0, 1), (1, 11), (2, 21), (3, 60), (4, 61), (5, 62), (6, 71)].map(call).into(),
            refusals: 0,
            settlements: [(0, 2, true), (1, 12, true), (2, 80, true), (3, 81, false), (4, 82, true), (5, 83, true)]
                .map(settlement)
                .into(),
            switches: (0, 0),
            cpu_s: 0.0,
            system_s: 0.0,
            peak_memory: 0,
        };
        let found = Figures::of(&outcome, 15, 62);
        // Due in time: 2 to 6. Returned in time: 2, 3 and 4; none of them had its receipt at 62.
        assert_eq!((found.recorded, found.unsettled, found.failed), (3, 3, 1));
        assert_eq!((found.record_us.p50, found.record_us.max), (12.0, 30.0));
        // Without a receipt, an event is not known to be recorded.
        let without = Outcome { settlements: Vec::new(), ..outcome };
        assert_eq!(Figures::of(&without, 15, 62).unsettled, 5);
    }
}
