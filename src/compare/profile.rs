//! Where a process spends its time: samples of its own stacks, and what follows from them.
//!
//! A timer of the kernel (`ITIMER_PROF`) interrupts whichever thread is running, 250 times for each second that all of them
//! together compute, in user code or in the kernel; who waits is not seen. The signal restarts the calls that it interrupts
//! (`SA_RESTART`), and what it does not restart, SQLite, the standard library and the NATS client do themselves. Sampling costs
//! time, and naming what was sampled costs more, so a profile belongs into a run that is not timed.
//!
//! Names come from the program's symbol table, which a release build has, or from full debug information. Stripped of both, or
//! with `debug = "line-tables-only"`, functions have no path to tell their crate by, and nearly all is `other`.

mod activity;
mod flamegraph;
mod stack;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pprof::{Frames, ProfilerGuard};
use serde::{Deserialize, Serialize};

use activity::Activity;
use stack::Stack;

/// Samples for each second of CPU time: one a tick of most kernels, and more would not come.
const FREQUENCY: i32 = 250;

/// Functions named.
const TOP: usize = 20;

/// A profile of this process that is being taken. There can be one at a time; dropping it takes none.
pub struct Profile {
    guard: ProfilerGuard<'static>,
}

/// What a profile says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// Samples taken.
    pub samples: u64,
    /// The functions most often on top of the stack, with their share of the samples.
    pub top: Vec<(String, f64)>,
    /// Share of the samples by what the stack was doing; all six are there, and add up to 1:
    ///
    /// * `kernel`: the function on top is one of libc's that only asks the kernel: `pwrite64`, `fdatasync`, `recv`, …, whoever
    ///   called it.
    /// * `nats`, `sqlite`, `json`, `channel`: else the first function from the top down that belongs to one of these: the NATS
    ///   client and `catchment::broker`; SQLite, its binding and `catchment::store`; readers and writers of JSON; channels and
    ///   locks. So what memory and copying cost counts for whoever asked for it.
    /// * `other`: none did.
    pub shares: BTreeMap<String, f64>,
    /// The file with the flamegraph.
    pub flamegraph: PathBuf,
}

/// There is no profile, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Sampling could not begin, or brought nothing.
    #[error("profile: {0}")]
    NoSamples(String),
    /// A file could not be written.
    #[error("profile: cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Profile {
    /// Begins to take samples of this process.
    ///
    /// # Errors
    ///
    /// [`ProfileError::NoSamples`]: another one is being taken, or the system has no signals or files for it.
    pub fn start() -> Result<Self, ProfileError> {
        let guard = ProfilerGuard::new(FREQUENCY).map_err(|e| {
            let way_out = "it needs SIGPROF, and room in the directory for temporary files; or do without";
            ProfileError::NoSamples(format!("cannot begin: {}; {way_out}", e.to_string().to_lowercase()))
        })?;
        Ok(Self { guard })
    }

    /// Ends the profile and writes it to `<prefix>.json` and `<prefix>.svg`.
    ///
    /// # Errors
    ///
    /// [`ProfileError`]: there were no samples, or a file cannot be written.
    pub fn finish(self, prefix: &Path) -> Result<Findings, ProfileError> {
        let report = self.guard.report().build();
        let report = report.map_err(|e| ProfileError::NoSamples(format!("cannot be read: {e}")))?;
        let stacks: Vec<Stack> = report
            .data
            .iter()
            .map(|(frames, count)| Stack { frames: names(frames), samples: u64::try_from(*count).unwrap_or(0) })
            .collect();
        drop(self.guard);
        if stacks.is_empty() {
            let reason =
                "no samples: the process did nothing for long, or the system has no timer (ITIMER_PROF) for it";
            return Err(ProfileError::NoSamples(reason.into()));
        }
        let file = |extension: &str| {
            let mut name = OsString::from(prefix);
            name.push(extension);
            PathBuf::from(name)
        };
        let write = |path: PathBuf, text: &str| match fs::write(&path, text) {
            Ok(()) => Ok(path),
            Err(source) => Err(ProfileError::Unwritable { path, source }),
        };
        let flamegraph = write(file(".svg"), &flamegraph::draw(&stacks))?;
        let findings = findings(&stacks, flamegraph);
        write(file(".json"), &format!("{:#}\n", serde_json::json!(findings)))?;
        Ok(findings)
    }
}

/// From the thread's first function to the running one, below the thread's name. What belongs to the sampling is left out.
fn names(sample: &Frames) -> Vec<String> {
    let is_ours = |name: &String| name.contains("pprof::") || name.starts_with("backtrace::");
    let mut names: Vec<String> = sample.frames.iter().flatten().map(pprof::Symbol::name).collect();
    let sampling = names.iter().take_while(|name| is_ours(name)).count();
    names.drain(..sampling);
    names.push(sample.thread_name_or_id());
    names.reverse();
    names
}

#[allow(clippy::cast_precision_loss, reason = "counts become shares")]
fn findings(stacks: &[Stack], flamegraph: PathBuf) -> Findings {
    let samples: u64 = stacks.iter().map(|stack| stack.samples).sum();
    let share = |count: u64| count as f64 / samples as f64;
    let mut activities: BTreeMap<Activity, u64> = BTreeMap::new();
    let mut functions: HashMap<&str, u64> = HashMap::new();
    for stack in stacks {
        *activities.entry(Activity::of(&stack.frames)).or_default() += stack.samples;
        if let Some(top) = stack.frames.last() {
            *functions.entry(top).or_default() += stack.samples;
        }
    }
    let mut functions: Vec<(&str, u64)> = functions.into_iter().collect();
    functions.sort_by(|(one, many), (other, more)| more.cmp(many).then(one.cmp(other)));
    let shares = Activity::ALL
        .map(|activity| (activity.name().to_owned(), share(activities.get(&activity).copied().unwrap_or_default())));
    Findings {
        samples,
        top: functions.iter().take(TOP).map(|(name, count)| ((*name).to_owned(), share(*count))).collect(),
        shares: shares.into(),
        flamegraph,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(frames: &[&str], samples: u64) -> Stack {
        Stack { frames: frames.iter().map(|&frame| frame.to_owned()).collect(), samples }
    }

    #[test]
    fn shares_add_up_and_the_top_is_what_was_running() {
        let stacks = [
            stack(&["writer", "catchment::store::writer::Writer::commit", "sqlite3VdbeExec", "memcpy"], 5),
            stack(&["writer", "catchment::store::writer::Writer::commit", "sqlite3VdbeExec", "fdatasync"], 3),
            stack(&["nats", "nats::proto::decode", "memcpy"], 1),
            stack(&["main", "main"], 1),
        ];
        let found = findings(&stacks, "a.svg".into());
        assert_eq!(found.samples, 10);
        assert_eq!(found.top[..2], [("memcpy".into(), 0.6), ("fdatasync".into(), 0.3)]);
        let shares: Vec<(&str, f64)> = found.shares.iter().map(|(name, share)| (name.as_str(), *share)).collect();
        let expected =
            [("channel", 0.0), ("json", 0.0), ("kernel", 0.3), ("nats", 0.1), ("other", 0.1), ("sqlite", 0.5)];
        assert_eq!(shares, expected);
    }
}
