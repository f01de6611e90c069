//! The database side is killed for a while under load. Does the application continue, does another subscriber see every event,
//! is every event in the database at the end?
//!
//! In the NATS arms the database side is the collector. In the direct arms it is the application itself: then no process
//! produces the events that come due meanwhile, and there is no broker to subscribe to.

use std::path::Path;
use std::time::Duration;

use super::absence::Absence;
use super::application::RecordCall;
use super::commit_watch::{CommitWatch, Observation, POLL_INTERVAL};
use super::context::RunContext;
use super::environment::TestEnvironment;
use super::options::Setup;
use super::process::ChildProcess;
use super::{CompareError, Isolation, arms, clock, run, verification};

/// The other subscriber is done after this many nanoseconds without a new event.
const LIVE_TIMEOUT: u64 = 1_000_000_000;

/// Measures one arm. The setup has a rate, and events for three times as long as the database side is away.
pub(super) fn measure(context: &RunContext<'_>, setup: Setup) -> Result<Isolation, CompareError> {
    if arms::is_direct(setup.arm) { of_direct(context, setup) } else { of_nats(context, setup) }
}

fn of_nats(context: &RunContext<'_>, setup: Setup) -> Result<Isolation, CompareError> {
    let away = context.options.away_for.as_nanos() as u64;
    let mut environment = TestEnvironment::start(context, setup)?;
    let subscriber = environment.start_subscriber()?;
    let (mut application, _) = environment.start_application(0)?;
    let mut watch = CommitWatch::open(&environment.database)?;
    application.send_line("go")?;
    let mut absence = Absence::new(clock::now() + away, away);
    let mut observation = Observation::new(context, &mut environment, &mut application, POLL_INTERVAL);
    let outcome = observation.wait_for_all(
        &mut watch,
        setup.events,
        |_| Ok(()),
        |environment| absence.step(environment, TestEnvironment::kill_collector, TestEnvironment::start_collector),
    )?;
    drop(application);
    let found = run::verified(context, &environment)?;
    let seen_live =
        subscriber.map(|(process, database)| seen_live(context, process, &database, setup.events)).transpose()?;
    let (from, to) = absence.span();
    Ok(Isolation {
        arm: setup.arm,
        away_s: clock::seconds(from, to),
        handed_over: during(&outcome.calls, from, to),
        seen_live,
        events: setup.events,
        committed: found.distinct,
        application: "kept running".into(),
    })
}

fn during(calls: &[RecordCall], from: u64, to: u64) -> u64 {
    calls.iter().filter(|call| (from..to).contains(&call.returned)).count() as u64
}

/// How many events the other subscriber has once no more come.
fn seen_live(
    context: &RunContext<'_>,
    mut process: ChildProcess,
    database: &Path,
    events: u64,
) -> Result<u64, CompareError> {
    let mut watch = CommitWatch::open(database)?;
    let mut last_event = clock::now();
    while watch.rows() < events && clock::now() < last_event + LIVE_TIMEOUT {
        context.check_stop()?;
        if watch.poll()? {
            last_event = clock::now();
        }
        if process.has_exited() {
            return Err(process.exit_error());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(watch.rows())
}

fn of_direct(context: &RunContext<'_>, setup: Setup) -> Result<Isolation, CompareError> {
    let away = context.options.away_for;
    let mut environment = TestEnvironment::start(context, setup)?;
    let mut watch = CommitWatch::open(&environment.database)?;
    let (mut application, job) = environment.start_application(0)?;
    application.send_line("go")?;
    let began = clock::now();
    let watched = watch_until(context, &mut watch, began + away.as_nanos() as u64);
    application.kill();
    watched?;
    let killed = clock::now();
    drop(application);
    watch_until(context, &mut watch, killed + away.as_nanos() as u64)?;
    // It restarts with the event that is due then: events that came due while it was dead are never produced.
    let due = clock::seconds(began, clock::now()) * job.rate.unwrap_or(1) as f64;
    let first = (due as u64).min(setup.events.saturating_sub(1));
    let (mut application, _) = environment.start_application(first)?;
    application.send_line("go")?;
    let back = clock::now();
    let expected = watch.rows() + setup.events - first;
    let mut observation = Observation::new(context, &mut environment, &mut application, POLL_INTERVAL);
    observation.wait_for_all(&mut watch, expected, |_| Ok(()), |_| Ok(()))?;
    drop(application);
    let found = verification::inspect(environment.databases(), &environment.workload, context.options.work)?;
    Ok(Isolation {
        arm: setup.arm,
        away_s: clock::seconds(killed, back),
        handed_over: 0,
        seen_live: None,
        events: setup.events,
        committed: found.distinct,
        application: "died with the database side, so events that came due meanwhile were never produced".into(),
    })
}

fn watch_until(context: &RunContext<'_>, watch: &mut CommitWatch, until: u64) -> Result<(), CompareError> {
    while clock::now() < until {
        context.check_stop()?;
        watch.poll()?;
        std::thread::sleep(Duration::from_millis(5));
    }
    watch.poll()?;
    Ok(())
}
