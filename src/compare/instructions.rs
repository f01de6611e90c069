//! Instructions: by the processor's own counter where it may be read, else by callgrind in runs of their own.
//!
//! Callgrind (<https://valgrind.org/docs/manual/cl-manual.html>) counts a process from its start to its end. So there are
//! two runs, one without events and one with some, and the difference belongs to the events.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Failure;
use super::commit_watch::{LOOK, Observation, Watch};
use super::driver::Session;
use super::environment::Stage;
use super::options::Setup;

/// Events of a run under callgrind, at most: it takes fifty times as long.
const FEW: u64 = 1_000;

/// What counts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The processor, asked by `perf stat`. The kernel's instructions are not in it.
    Processor,
    /// Callgrind.
    Callgrind,
}

/// How instructions can be counted here; else why not.
pub(super) fn way() -> Result<Way, String> {
    if counted_by_processor() {
        return Ok(Way::Processor);
    }
    if runs("valgrind") {
        Ok(Way::Callgrind)
    } else {
        Err("no hardware counter may be read, and there is no valgrind".into())
    }
}

fn runs(program: &str) -> bool {
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn counted_by_processor() -> bool {
    let output = Command::new("perf").args(["stat", "-x,", "-e", "instructions:u", "true"]).output();
    output.is_ok_and(|output| count(&String::from_utf8_lossy(&output.stderr)).is_some())
}

/// The number in what `perf stat -x,` says: `1234,,instructions:u,...`, or `<not supported>,,...`.
fn count(said: &str) -> Option<u64> {
    said.lines().find(|line| line.contains("instructions"))?.split(',').next()?.trim().parse().ok()
}

/// `perf stat` on a process that runs. Dropping it lets go.
pub(super) struct Counter(Child);

impl Counter {
    pub(super) fn attach(pid: u32) -> Result<Self, Failure> {
        let mut command = Command::new("perf");
        command.args(["stat", "-x,", "-e", "instructions:u", "-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(Self(command.spawn().map_err(Failure::system("perf cannot be started"))?))
    }

    /// What was counted.
    pub(super) fn detach(mut self) -> Option<u64> {
        self.interrupt();
        let mut said = String::new();
        std::io::Read::read_to_string(self.0.stderr.as_mut()?, &mut said).ok()?;
        count(&said)
    }

    fn interrupt(&self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.interrupt();
        let _ = self.0.wait();
    }
}

/// Instructions of application and collector for all events of the setup, as callgrind has it.
pub(super) fn by_callgrind(session: &Session<'_>, setup: Setup) -> Result<BTreeMap<&'static str, u64>, Failure> {
    let some = setup.events.min(FEW);
    let setup = Setup { under_callgrind: true, ..setup };
    let without = collected(session, Setup { events: 0, ..setup })?;
    let with = collected(session, Setup { events: some, ..setup })?;
    let an_event =
        |role: &str, all: u64| all.saturating_sub(without.get(role).copied().unwrap_or(0)) as f64 / some as f64;
    Ok(with.iter().map(|(role, all)| (*role, (an_event(role, *all) * setup.events as f64) as u64)).collect())
}

/// What callgrind counted from start to end.
fn collected(session: &Session<'_>, setup: Setup) -> Result<BTreeMap<&'static str, u64>, Failure> {
    let mut stage = Stage::set(session, setup)?;
    let (mut application, _) = stage.application(0)?;
    let mut watch = Watch::open(&stage.database)?;
    application.tell("go")?;
    let mut observation = Observation { session, stage: &mut stage, application: &mut application, look: LOOK };
    observation.until_all(&mut watch, setup.events, |_| Ok(()), |_| Ok(()))?;
    drop(application);
    drop(stage.collector.take());
    let found = ["application", "collector"].map(|role| (role, read(&stage.path(&format!("{role}.callgrind")))));
    Ok(found.into_iter().filter_map(|(role, count)| Some((role, count?))).collect())
}

/// `==4711== Collected : 123456`, which comes last.
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

/// Has the program of a command run under callgrind.
pub(super) fn wrapped(program: &Path, log: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(format!("--log-file={}", log.display())).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_a_number_or_none() {
        assert_eq!(count("1234,,instructions:u,100,100.00,,\n"), Some(1234));
        assert_eq!(count("<not supported>,,instructions:u,0,100.00,,\n"), None);
        assert_eq!(count(""), None);
    }

    #[test]
    fn callgrind_s_last_word_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("a.log");
        fs::write(&log, "==1== Events    : Ir\n==1== Collected : 2054321\n==1==\n").expect("writes");
        assert_eq!(read(&log), Some(2_054_321));
    }
}
