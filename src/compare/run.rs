//! One timed run: events as fast as the recorder accepts them, until the last commit is seen.

use std::collections::BTreeMap;

use super::application::Outcome;
use super::commit_watch::{CommitWatch, Observation, POLL_INTERVAL};
use super::context::RunContext;
use super::environment::TestEnvironment;
use super::options::Setup;
use super::verification::{self, RowCheck};
use super::{CompareError, Process, Run, clock};
use crate::store::Editor;

/// Makes a run without measuring it. Returns the environment once all events are there and the processes have exited, so that what they
/// write when they exit can be read.
pub(super) fn completed<'c>(context: &'c RunContext<'c>, setup: Setup) -> Result<TestEnvironment<'c>, CompareError> {
    let mut environment = TestEnvironment::start(context, setup)?;
    let (mut application, _) = environment.start_application(0)?;
    let mut watch = CommitWatch::open(&environment.database)?;
    application.send_line("go")?;
    let mut observation = Observation::new(context, &mut environment, &mut application, POLL_INTERVAL);
    observation.wait_for_all(&mut watch, setup.events, |_| Ok(()), |_| Ok(()))?;
    drop(application);
    drop(environment.collector.take());
    Ok(environment)
}

/// Starts an environment and an application in it; measures until the last commit is seen.
pub(super) fn timed(context: &RunContext<'_>, setup: Setup) -> Result<Run, CompareError> {
    let mut environment = TestEnvironment::start(context, setup)?;
    let (mut application, _) = environment.start_application(0)?;
    let mut watch = CommitWatch::over(environment.databases())?;
    let meters = environment.meters(&application);
    let before = meters.read();
    application.send_line("go")?;
    let mut observation = Observation::new(context, &mut environment, &mut application, POLL_INTERVAL);
    let outcome = observation.wait_for_all(&mut watch, setup.events, |_| Ok(()), |_| Ok(()))?;
    let processes = used(meters.since(&before), &outcome);
    drop(application);
    let found = verified(context, &environment)?;
    let last = watch.last_commit().unwrap_or(outcome.accepted);
    Ok(Run {
        total_s: clock::seconds(outcome.began, last),
        publish_s: clock::seconds(outcome.began, outcome.accepted),
        drain_s: clock::seconds(outcome.accepted, last),
        events: setup.events,
        committed: found.distinct,
        record_us: outcome.record_us,
        processes,
        timeline: watch.timeline(outcome.began),
    })
}

/// What the processes used. The application's part is what it counted itself until all its events were accepted: only it can
/// count the context switches of threads that have ended, and what it does afterwards is not part of the run.
pub(super) fn used(mut processes: BTreeMap<String, Process>, outcome: &Outcome) -> BTreeMap<String, Process> {
    if let Some(application) = processes.get_mut("application") {
        application.voluntary_switches = Some(outcome.switches.0);
        application.involuntary_switches = Some(outcome.switches.1);
        (application.cpu_s, application.system_s) = (outcome.cpu_s, outcome.system_s.min(outcome.cpu_s));
        application.peak_memory = Some(outcome.peak_memory);
    }
    processes
}

/// Checks that the database of an environment has the events that were recorded.
pub(super) fn verified(context: &RunContext<'_>, environment: &TestEnvironment<'_>) -> Result<RowCheck, CompareError> {
    if context.options.lose_a_row == Some(environment.setup.arm) {
        Editor::open(&environment.database)?.run("DELETE FROM events WHERE id = 1")?;
    }
    let found = verification::inspect(environment.databases(), &environment.workload, context.options.work)?;
    found.verify(&environment.setup)?;
    Ok(found)
}
