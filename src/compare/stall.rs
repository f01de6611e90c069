//! The database is held locked for a while: how long does the caller of `record()` wait?

use std::time::Duration;

use super::commit_watch::{CommitWatch, Observation, POLL_INTERVAL};
use super::context::RunContext;
use super::environment::TestEnvironment;
use super::options::Setup;
use super::{CompareError, Stall, clock, run, statistics};
use crate::error::{DatabaseFault, Error};
use crate::store::Editor;

/// Events come for this long before the lock is taken, and again after it is released.
pub(super) const AROUND: Duration = Duration::from_millis(500);

/// Measures one arm. The setup has a rate.
pub(super) fn measure(context: &RunContext<'_>, setup: Setup) -> Result<Stall, CompareError> {
    let held = context.options.stall_for.as_nanos() as u64;
    let mut environment = TestEnvironment::start(context, setup)?;
    let (mut application, _) = environment.start_application(0)?;
    let mut watch = CommitWatch::open(&environment.database)?;
    let editor = Editor::open(&environment.database)?;
    editor.run("PRAGMA busy_timeout = 0")?;
    application.send_line("go")?;
    let begins = clock::now() + AROUND.as_nanos() as u64;
    let (mut locked, mut released) = (None, None);
    let mut observation = Observation::new(context, &mut environment, &mut application, POLL_INTERVAL);
    let outcome = observation.wait_for_all(
        &mut watch,
        setup.events,
        |_| Ok(()),
        |_| {
            let now = clock::now();
            match (locked, released) {
                (None, _) if now >= begins => {
                    // If another writer has the lock, the next poll tries again. SQLite's own pauses are longer and could miss
                    // every gap that a busy arm leaves.
                    match editor.run("BEGIN IMMEDIATE") {
                        Ok(()) => locked = Some(clock::now()),
                        Err(Error::Database { fault: DatabaseFault::Busy, .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                (Some(since), None) if now >= since + held => {
                    editor.run("ROLLBACK")?;
                    released = Some(clock::now());
                }
                _ => {}
            }
            Ok(())
        },
    )?;
    drop((application, editor));
    let found = run::verified(context, &environment)?;
    let (Some(from), Some(to)) = (locked, released) else {
        let detail = "had recorded all events before the database could be locked".into();
        return Err(CompareError::Process { role: "application".into(), detail, log: String::new() });
    };
    let meanwhile = from..to;
    let due = outcome.calls.iter().filter(|call| meanwhile.contains(&call.due));
    let mut latencies: Vec<f64> = due.map(|call| call.latency_us).collect();
    Ok(Stall {
        arm: setup.arm,
        held_s: clock::seconds(from, to),
        record_us: statistics::quantiles(&mut latencies),
        events: outcome.calls.iter().filter(|call| meanwhile.contains(&call.returned)).count() as u64,
        missing: found.missing,
    })
}
