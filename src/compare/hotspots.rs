//! Where the time goes: a run of its own in which application and collector profile themselves.

use std::fs;
use std::path::Path;

use super::context::RunContext;
use super::options::Setup;
use super::{CompareError, Findings, Hotspots, arms, run};

/// Profiles one arm. A process that computed too little for a single sample is left out.
pub(super) fn measure(context: &RunContext<'_>, setup: Setup) -> Result<Vec<Hotspots>, CompareError> {
    // Each process writes its profile when it exits.
    let environment = run::completed(context, Setup { profiled: true, ..setup })?;
    run::verified(context, &environment)?;
    let roles = ["application", "collector"];
    Ok(roles
        .into_iter()
        .filter_map(|role| read(context, setup, role, &environment.path(&format!("{role}.json"))))
        .collect())
}

fn read(context: &RunContext<'_>, setup: Setup, role: &str, file: &Path) -> Option<Hotspots> {
    let found: Findings = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let flamegraph = context.options.flamegraphs.as_ref().and_then(|prefix| {
        let mut name = prefix.file_name()?.to_os_string();
        name.push(format!("-{}-{role}.svg", arms::name(setup.arm)));
        let copied = fs::copy(&found.flamegraph, prefix.with_file_name(&name));
        copied.inspect_err(|e| log::warn!("cannot write {}: {e}", name.display())).ok()?;
        name.into_string().ok()
    });
    let Findings { samples, top, shares, .. } = found;
    Some(Hotspots { arm: setup.arm, role: role.into(), samples, top, shares, flamegraph })
}
