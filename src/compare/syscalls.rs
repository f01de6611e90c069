//! System calls and syncs, counted by a tracer in a run whose times mean nothing: <https://strace.io>. In the same run,
//! instructions, where the processor's counter may be read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::commit_watch::{LOOK, Observation, Watch};
use super::driver::Session;
use super::environment::Stage;
use super::instructions::{self, Counter, Way};
use super::options::Setup;
use super::{Failure, Run, clock, run};

/// How long the tracer may take to attach, or to write down what it counted.
const PATIENCE: Duration = Duration::from_secs(10);

/// The calls that make a file's content safe.
const SYNCS: [&str; 4] = ["fsync", "fdatasync", "sync_file_range", "msync"];

/// Why nothing can be counted here, if so.
pub(super) fn why_not() -> Option<String> {
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
        scope => Some(format!("system calls and syncs: kernel.yama.ptrace_scope is {scope}, so nobody may be traced")),
    }
}

/// Counts in a run of its own.
pub(super) fn measure(session: &Session<'_>, setup: Setup) -> Result<Run, Failure> {
    let traceable = why_not().is_none();
    let mut stage = Stage::set(session, setup)?;
    let (mut application, _) = stage.application(0)?;
    let mut watch = Watch::open(&stage.database)?;
    let meters = stage.meters(&application);
    let tracers: BTreeMap<&'static str, Tracer> = meters
        .0
        .iter()
        .filter(|_| traceable)
        .map(|(role, pid)| Ok((*role, Tracer::attach(*pid, &stage.path(&format!("{role}.strace")))?)))
        .collect::<Result<_, Failure>>()?;
    let counters: BTreeMap<&'static str, Counter> = match instructions::way() {
        Ok(Way::Processor) => {
            meters.0.iter().map(|(role, pid)| Ok::<_, Failure>((*role, Counter::attach(*pid)?))).collect()
        }
        _ => Ok(BTreeMap::new()),
    }?;
    let before = meters.read();
    application.tell("go")?;
    let mut observation = Observation { session, stage: &mut stage, application: &mut application, look: LOOK };
    let outcome = observation.until_all(&mut watch, setup.events, |_| Ok(()), |_| Ok(()))?;
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
    let found = run::verified(session, &stage)?;
    Ok(Run {
        total_s: clock::seconds(outcome.began, watch.last().unwrap_or(outcome.accepted)),
        events: setup.events,
        committed: found.distinct,
        processes,
        ..Run::default()
    })
}

/// A tracer of one process and all its threads. Dropping it lets the process go.
struct Tracer {
    child: Child,
    counts: PathBuf,
}

impl Tracer {
    fn attach(pid: u32, counts: &Path) -> Result<Self, Failure> {
        let log = counts.with_extension("log");
        let file = File::create(&log).map_err(Failure::system(format!("file {}", log.display())))?;
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(counts).args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().map_err(Failure::system("strace cannot be started"))?;
        let mut tracer = Self { child, counts: counts.to_owned() };
        let until = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if said.contains("attached") {
                return Ok(tracer);
            }
            if Instant::now() >= until || tracer.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(failed("does not attach", &said));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets the process go, and says how often it made each call.
    fn detach(mut self) -> Result<BTreeMap<String, u64>, Failure> {
        self.interrupt();
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() >= until {
                return Err(failed("does not end", ""));
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

fn failed(what: &str, said: &str) -> Failure {
    let log = said.lines().last().unwrap_or_default().into();
    Failure::Process { role: "tracer".into(), what: format!("(strace) {what}"), log }
}

/// The calls of strace's table: share, seconds, microseconds a call, calls, errors where there were any, name.
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
