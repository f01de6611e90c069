//! How instructions can be counted: by the processor's own counter where it may be read, else by callgrind.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::CompareError;

/// What counts instructions on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CountingMethod {
    /// The processor, read by `perf stat`. Instructions of the kernel are not counted.
    Processor,
    /// Callgrind.
    Callgrind,
}

/// How instructions can be counted here, or why they cannot.
pub(super) fn counting_method() -> Result<CountingMethod, String> {
    if processor_counts() {
        return Ok(CountingMethod::Processor);
    }
    if runs("valgrind") {
        Ok(CountingMethod::Callgrind)
    } else {
        Err("no hardware counter may be read, and valgrind is not installed".into())
    }
}

fn runs(program: &str) -> bool {
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn processor_counts() -> bool {
    let output = Command::new("perf").args(["stat", "-x,", "-e", "instructions:u", "true"]).output();
    output.is_ok_and(|output| count(&String::from_utf8_lossy(&output.stderr)).is_some())
}

/// The number in the output of `perf stat -x,`: `1234,,instructions:u,...`, or `<not supported>,,...`.
fn count(output: &str) -> Option<u64> {
    output.lines().find(|line| line.contains("instructions"))?.split(',').next()?.trim().parse().ok()
}

/// `perf stat` attached to a running process. Dropping it detaches.
pub(super) struct PerfCounter(Child);

impl PerfCounter {
    pub(super) fn attach(pid: u32) -> Result<Self, CompareError> {
        let mut command = Command::new("perf");
        command.args(["stat", "-x,", "-e", "instructions:u", "-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(Self(command.spawn().map_err(CompareError::system("cannot start perf"))?))
    }

    /// Detaches; returns the count.
    pub(super) fn detach(mut self) -> Option<u64> {
        self.interrupt();
        let mut output = String::new();
        std::io::Read::read_to_string(self.0.stderr.as_mut()?, &mut output).ok()?;
        count(&output)
    }

    fn interrupt(&self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
    }
}

impl Drop for PerfCounter {
    fn drop(&mut self) {
        self.interrupt();
        let _ = self.0.wait();
    }
}

/// A command that runs a program under callgrind.
pub(super) fn under_callgrind(program: &Path, log: &Path) -> Command {
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
}
