//! One timed run: as fast as events are taken, until the last commit is seen.

use std::collections::BTreeMap;

use super::application::Outcome;
use super::commit_watch::{LOOK, Observation, Watch};
use super::driver::Session;
use super::environment::Stage;
use super::options::Setup;
use super::verification::{self, Found};
use super::{Failure, Process, Run, clock, statistics};
use crate::store::Editor;

/// Makes a stage, has an application produce on it, and takes it down again.
pub(super) fn timed(session: &Session<'_>, setup: Setup) -> Result<Run, Failure> {
    let mut stage = Stage::set(session, setup)?;
    let (mut application, _) = stage.application(0)?;
    let mut watch = Watch::open(&stage.database)?;
    let meters = stage.meters(&application);
    let before = meters.read();
    application.tell("go")?;
    let mut observation = Observation { session, stage: &mut stage, application: &mut application, look: LOOK };
    let outcome = observation.until_all(&mut watch, setup.events, |_| Ok(()), |_| Ok(()))?;
    let processes = used(meters.since(&before), &outcome);
    drop(application);
    let found = verified(session, &stage)?;
    let last = watch.last().unwrap_or(outcome.accepted);
    let mut felt: Vec<f64> = outcome.calls.iter().map(|call| call.felt_us).collect();
    Ok(Run {
        total_s: clock::seconds(outcome.began, last),
        publish_s: clock::seconds(outcome.began, outcome.accepted),
        drain_s: clock::seconds(outcome.accepted, last),
        events: setup.events,
        committed: found.distinct,
        record_us: statistics::quantiles(&mut felt),
        processes,
        timeline: watch.timeline(outcome.began),
    })
}

/// What the processes used, with what the application alone can tell.
pub(super) fn used(mut processes: BTreeMap<String, Process>, outcome: &Outcome) -> BTreeMap<String, Process> {
    if let Some(application) = processes.get_mut("application") {
        application.voluntary_switches = Some(outcome.switches.0);
        application.involuntary_switches = Some(outcome.switches.1);
    }
    processes
}

/// What is in the database of a stage, which must be what was handed over.
pub(super) fn verified(session: &Session<'_>, stage: &Stage<'_>) -> Result<Found, Failure> {
    if session.options.lose_a_row == Some(stage.setup.arm) {
        Editor::open(&stage.database)?.run("DELETE FROM events WHERE id = 1")?;
    }
    let found = verification::look(&stage.database, &stage.workload, session.options.work)?;
    found.verify(&stage.setup)?;
    Ok(found)
}
