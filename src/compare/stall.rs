//! The database held locked for a while: what the caller of `record()` feels.

use std::time::Duration;

use super::commit_watch::{LOOK, Observation, Watch};
use super::driver::Session;
use super::environment::Stage;
use super::options::Setup;
use super::{Failure, Stall, clock, run, statistics};
use crate::error::{DatabaseFault, Error};
use crate::store::Editor;

/// Events come for this long before the lock is taken, and again after it was given back.
pub(super) const AROUND: Duration = Duration::from_millis(500);

/// Looks at one arm. The setup has a rate.
pub(super) fn measure(session: &Session<'_>, setup: Setup) -> Result<Stall, Failure> {
    let held = session.options.stall_for.as_nanos() as u64;
    let mut stage = Stage::set(session, setup)?;
    let (mut application, _) = stage.application(0)?;
    let mut watch = Watch::open(&stage.database)?;
    let editor = Editor::open(&stage.database)?;
    editor.run("PRAGMA busy_timeout = 0")?;
    application.tell("go")?;
    let begins = clock::now() + AROUND.as_nanos() as u64;
    let (mut locked, mut freed) = (None, None);
    let mut observation = Observation { session, stage: &mut stage, application: &mut application, look: LOOK };
    let outcome = observation.until_all(
        &mut watch,
        setup.events,
        |_| Ok(()),
        |_| {
            let now = clock::now();
            match (locked, freed) {
                (None, _) if now >= begins => {
                    // One that has to wait for another writer tries again at the next look: SQLite's own pauses could miss
                    // every gap that a busy arm leaves.
                    match editor.run("BEGIN IMMEDIATE") {
                        Ok(()) => locked = Some(clock::now()),
                        Err(Error::Database { fault: DatabaseFault::Busy, .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                (Some(since), None) if now >= since + held => {
                    editor.run("ROLLBACK")?;
                    freed = Some(clock::now());
                }
                _ => {}
            }
            Ok(())
        },
    )?;
    drop((application, editor));
    let found = run::verified(session, &stage)?;
    let (Some(from), Some(to)) = (locked, freed) else {
        let what = "was through with all events before the database could be locked".into();
        return Err(Failure::Process { role: "application".into(), what, log: String::new() });
    };
    let meanwhile = from..to;
    let due = outcome.calls.iter().filter(|call| meanwhile.contains(&call.due));
    let mut felt: Vec<f64> = due.map(|call| call.felt_us).collect();
    Ok(Stall {
        arm: setup.arm,
        held_s: clock::seconds(from, to),
        record_us: statistics::quantiles(&mut felt),
        events: outcome.calls.iter().filter(|call| meanwhile.contains(&call.returned)).count() as u64,
        missing: found.missing,
    })
}
