//! Where a process spends its time: samples of its own stacks, and their shares.
//!
//! A timer of the kernel (`ITIMER_PROF`) interrupts the running thread 250 times for each CPU second of the process, in user
//! code or in the kernel. Waiting threads are not sampled. Interrupted system calls restart (`SA_RESTART`); those that do not,
//! SQLite, the standard library and the NATS client repeat. Sampling takes time, and finding the names of functions takes more,
//! so no timed run is profiled.
//!
//! Names come from the program's symbol table, which a release build has, or from full debug information. Without both, or with
//! `debug = "line-tables-only"`, a function's name does not contain its crate, and nearly all samples are `other`.

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

/// Samples for each second of CPU time: one for each tick of most kernels, which is the most that the timer gives.
const FREQUENCY: i32 = 250;

/// The number of functions in `top`.
const TOP: usize = 20;

/// A profile of this process in progress. There can be one at a time; dropping it discards the samples.
pub struct Profile {
    guard: ProfilerGuard<'static>,
}

/// What a profile found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// Samples taken.
    pub samples: u64,
    /// The functions that ran most often, with their share of the samples.
    pub top: Vec<(String, f64)>,
    /// Share of the samples by activity; all six are there and add up to 1:
    ///
    /// * `kernel`: the running function is a system call of libc: `pwrite64`, `fdatasync`, `recv`, …, whatever called it.
    /// * `nats`, `sqlite`, `json`, `channel`: otherwise the innermost function that belongs to one of these decides: the NATS
    ///   client and `catchment::broker`; SQLite, its binding and `catchment::store`; readers and writers of JSON; channels and
    ///   locks. So allocating and copying memory counts for its caller.
    /// * `other`: no function belongs to one of these.
    pub shares: BTreeMap<String, f64>,
    /// The file with the flamegraph.
    pub flamegraph: PathBuf,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Sampling could not begin, or took no samples.
    #[error("profile: {detail}; {remedy}")]
    #[non_exhaustive]
    NoSamples {
        /// What happened.
        detail: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A file could not be written.
    #[error("profile: cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl Profile {
    /// Starts sampling this process.
    ///
    /// # Errors
    ///
    /// [`ProfileError::NoSamples`]: another profile is in progress, or the system refuses a signal handler or a temporary file.
    pub fn start() -> Result<Self, ProfileError> {
        let guard = ProfilerGuard::new(FREQUENCY).map_err(|e| {
            let detail = format!("cannot start: {}", e.to_string().to_lowercase());
            let remedy = "allow SIGPROF and make room in the directory for temporary files, or run without a profile";
            ProfileError::NoSamples { detail, remedy }
        })?;
        Ok(Self { guard })
    }

    /// Stops sampling and writes the profile to `<prefix>.json` and `<prefix>.svg`.
    ///
    /// # Errors
    ///
    /// [`ProfileError`]: there are no samples, or a file cannot be written.
    pub fn finish(self, prefix: &Path) -> Result<Findings, ProfileError> {
        let report = self.guard.report().build();
        let report = report.map_err(|e| ProfileError::NoSamples {
            detail: format!("cannot be read: {e}"),
            remedy: "run again, or run without a profile",
        })?;
        let stacks: Vec<Stack> = report
            .data
            .iter()
            .map(|(frames, count)| Stack { frames: names(frames), samples: u64::try_from(*count).unwrap_or(0) })
            .collect();
        drop(self.guard);
        if stacks.is_empty() {
            let detail = "no samples: the process used too little CPU, or the system has no timer ITIMER_PROF".into();
            return Err(ProfileError::NoSamples { detail, remedy: "profile more events" });
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

/// The thread's name, then its functions from the first to the running one, without the functions of the profiler.
fn names(sample: &Frames) -> Vec<String> {
    let is_profiler = |name: &String| name.contains("pprof::") || name.starts_with("backtrace::");
    let mut names: Vec<String> = sample.frames.iter().flatten().map(pprof::Symbol::name).collect();
    let sampling = names.iter().take_while(|name| is_profiler(name)).count();
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
    fn shares_add_up_and_top_has_the_running_functions() {
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
