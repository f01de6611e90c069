//! Where the time goes: a run of its own in which application and collector take a profile of themselves.

use std::fs;
use std::path::Path;

use super::commit_watch::{LOOK, Observation, Watch};
use super::driver::Session;
use super::environment::Stage;
use super::options::Setup;
use super::{Failure, Findings, Hotspots, arms, run};

/// Looks at one arm. A process that computed too little for a single sample is not in the answer.
pub(super) fn measure(session: &Session<'_>, setup: Setup) -> Result<Vec<Hotspots>, Failure> {
    let mut stage = Stage::set(session, Setup { profiled: true, ..setup })?;
    let (mut application, _) = stage.application(0)?;
    let mut watch = Watch::open(&stage.database)?;
    application.tell("go")?;
    let mut observation = Observation { session, stage: &mut stage, application: &mut application, look: LOOK };
    observation.until_all(&mut watch, setup.events, |_| Ok(()), |_| Ok(()))?;
    // Each writes its profile at its end.
    drop(application);
    drop(stage.collector.take());
    run::verified(session, &stage)?;
    let roles = ["application", "collector"];
    Ok(roles.into_iter().filter_map(|role| read(session, setup, role, &stage.path(&format!("{role}.json")))).collect())
}

fn read(session: &Session<'_>, setup: Setup, role: &str, file: &Path) -> Option<Hotspots> {
    let found: Findings = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let flamegraph = session.options.flamegraphs.as_ref().and_then(|prefix| {
        let mut name = prefix.file_name()?.to_os_string();
        name.push(format!("-{}-{role}.svg", arms::name(setup.arm)));
        let copied = fs::copy(&found.flamegraph, prefix.with_file_name(&name));
        copied.inspect_err(|e| log::warn!("{}: cannot be written: {e}", name.display())).ok()?;
        name.into_string().ok()
    });
    let Findings { samples, top, shares, .. } = found;
    Some(Hotspots { arm: setup.arm, role: role.into(), samples, top, shares, flamegraph })
}
