//! Instructions counted by callgrind, in runs of their own.
//!
//! Callgrind (<https://valgrind.org/docs/manual/cl-manual.html>) counts a process from its start to its end. So there are
//! two runs, one without events and one with some. The difference belongs to the events.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::context::RunContext;
use super::options::Setup;
use super::{CompareError, run};

/// The most events of a run under callgrind, which takes fifty times as long.
const MAX_EVENTS: u64 = 1_000;

/// Instructions of application and collector for all events of the setup, extrapolated from a shorter run.
pub(super) fn measure(context: &RunContext<'_>, setup: Setup) -> Result<BTreeMap<&'static str, u64>, CompareError> {
    let some = setup.events.min(MAX_EVENTS);
    let setup = Setup { under_callgrind: true, ..setup };
    let without = count(context, Setup { events: 0, ..setup })?;
    let with = count(context, Setup { events: some, ..setup })?;
    let an_event =
        |role: &str, all: u64| all.saturating_sub(without.get(role).copied().unwrap_or(0)) as f64 / some as f64;
    Ok(with.iter().map(|(role, all)| (*role, (an_event(role, *all) * setup.events as f64) as u64)).collect())
}

/// Instructions of each process from its start to its end.
fn count(context: &RunContext<'_>, setup: Setup) -> Result<BTreeMap<&'static str, u64>, CompareError> {
    let environment = run::completed(context, setup)?;
    let roles = ["application", "collector"];
    let counts = roles.map(|role| (role, read(&environment.path(&format!("{role}.callgrind")))));
    Ok(counts.into_iter().filter_map(|(role, count)| Some((role, count?))).collect())
}

/// The count in callgrind's log, `==4711== Collected : 123456`. Callgrind writes it last, so this waits for it.
fn read(log: &Path) -> Option<u64> {
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        let text = fs::read_to_string(log).ok()?;
        let line = text.lines().find_map(|line| line.split_once("Collected :"));
        if line.is_some() || Instant::now() >= until {
            return line?.1.trim().parse().ok();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_callgrind_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("a.log");
        fs::write(&log, "==1== Events    : Ir\n==1== Collected : 2054321\n==1==\n").expect("writes");
        assert_eq!(read(&log), Some(2_054_321));
    }
}
