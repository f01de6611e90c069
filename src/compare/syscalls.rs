//! System calls and syncs, counted by strace (<https://strace.io>), which slows the run: its times mean nothing. The same run
//! counts instructions, where the processor's counter may be read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::commit_watch::{CommitWatch, Observation, POLL_INTERVAL};
use super::context::RunContext;
use super::environment::TestEnvironment;
use super::instructions::{self, CountingMethod, PerfCounter};
use super::options::Setup;
use super::{CompareError, Run, clock, run};

/// How long the tracer may take to attach, or to write its counts.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The calls that sync a file to the disk.
const SYNCS: [&str; 4] = ["fsync", "fdatasync", "sync_file_range", "msync"];

/// Why system calls cannot be counted here, if they cannot.
pub(super) fn unavailable() -> Option<String> {
    match Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => {}
        _ => return Some("system calls and syncs: strace is not installed".into()),
    }
    // https://www.kernel.org/doc/html/latest/admin-guide/LSM/Yama.html
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = own.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    match scope.trim() {
        "" | "0" => None,
        "1" | "2" if root => None,
        scope => Some(format!("system calls and syncs: kernel.yama.ptrace_scope is {scope}, which forbids tracing")),
    }
}

/// Counts in a run of its own.
pub(super) fn measure(context: &RunContext<'_>, setup: Setup) -> Result<Run, CompareError> {
    let traceable = unavailable().is_none();
    let mut environment = TestEnvironment::start(context, setup)?;
    let (mut application, _) = environment.start_application(0)?;
    let mut watch = CommitWatch::open(&environment.database)?;
    let meters = environment.meters(&application);
    let tracers: BTreeMap<&'static str, Tracer> = meters
        .0
        .iter()
        .filter(|_| traceable)
        .map(|(role, pid)| Ok((*role, Tracer::attach(*pid, &environment.path(&format!("{role}.strace")))?)))
        .collect::<Result<_, CompareError>>()?;
    let counters: BTreeMap<&'static str, PerfCounter> = match instructions::counting_method() {
        Ok(CountingMethod::Processor) => {
            meters.0.iter().map(|(role, pid)| Ok::<_, CompareError>((*role, PerfCounter::attach(*pid)?))).collect()
        }
        _ => Ok(BTreeMap::new()),
    }?;
    let before = meters.read();
    application.send_line("go")?;
    let mut observation = Observation::new(context, &mut environment, &mut application, POLL_INTERVAL);
    let outcome = observation.wait_for_all(&mut watch, setup.events, |_| Ok(()), |_| Ok(()))?;
    let mut processes = run::used(meters.since(&before), &outcome);
    for (role, tracer) in tracers {
        let counts = tracer.detach()?;
        if let Some(process) = processes.get_mut(role) {
            process.syscalls = Some(counts.values().sum());
            process.syncs = Some(SYNCS.iter().filter_map(|name| counts.get(*name)).sum());
        }
    }
    for (role, counter) in counters {
        let count = counter.detach();
        if let Some(process) = processes.get_mut(role) {
            process.instructions = count;
        }
    }
    drop(application);
    let found = run::verified(context, &environment)?;
    Ok(Run {
        total_s: clock::seconds(outcome.began, watch.last_commit().unwrap_or(outcome.accepted)),
        events: setup.events,
        committed: found.distinct,
        processes,
        ..Run::default()
    })
}

/// A tracer of one process and all its threads. Dropping it detaches.
struct Tracer {
    child: Child,
    counts: PathBuf,
}

impl Tracer {
    fn attach(pid: u32, counts: &Path) -> Result<Self, CompareError> {
        let log = counts.with_extension("log");
        let file = File::create(&log).map_err(CompareError::system(format!("file {}", log.display())))?;
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(counts).args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().map_err(CompareError::system("cannot start strace"))?;
        let mut tracer = Self { child, counts: counts.to_owned() };
        let until = Instant::now() + TIMEOUT;
        loop {
            let output = fs::read_to_string(&log).unwrap_or_default();
            if output.contains("attached") {
                return Ok(tracer);
            }
            if Instant::now() >= until || tracer.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(failed("did not attach", &output));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Detaches; returns how often the process made each call.
    fn detach(mut self) -> Result<BTreeMap<String, u64>, CompareError> {
        self.interrupt();
        let until = Instant::now() + TIMEOUT;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() >= until {
                return Err(failed("did not end", ""));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(read(&fs::read_to_string(&self.counts).unwrap_or_default()))
    }

    fn interrupt(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.interrupt();
            let _ = self.child.wait();
        }
    }
}

fn failed(detail: &str, output: &str) -> CompareError {
    let log = output.lines().last().unwrap_or_default().into();
    CompareError::Process { role: "tracer".into(), detail: format!("(strace) {detail}"), log }
}

/// The counts of strace's table. Its columns: share, seconds, microseconds a call, calls, errors if there were any, name.
fn read(table: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [share, _, _, calls, .., name] = words[..]
            && name != "total"
            && share.parse::<f64>().is_ok()
            && let Ok(calls) = calls.parse::<u64>()
        {
            *counts.entry(name.to_owned()).or_default() += calls;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_with_errors_and_without_the_total() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000253           1       150         3 futex
 40.00    0.000100          10        10           fdatasync
------ ----------- ----------- --------- --------- ----------------
100.00    0.000353           2       160         3 total
";
        assert_eq!(read(table), BTreeMap::from([("futex".to_owned(), 150), ("fdatasync".to_owned(), 10)]));
        assert!(read("").is_empty());
    }
}
