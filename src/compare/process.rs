//! A child process of a comparison. It gets lines on standard input and writes lines to standard output; none outlives the
//! comparison.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::CompareError;

/// How long a process may take to exit after its standard input has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(15);

const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A child in a process group of its own, so that a Ctrl-C in the terminal reaches only the parent. It exits when its standard
/// input ends: when this is dropped, or when the parent is gone.
#[derive(Debug)]
pub(super) struct ChildProcess {
    role: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
}

impl ChildProcess {
    /// Starts it with standard error in the file `log`.
    pub(super) fn start(role: &'static str, command: &mut Command, log: &Path) -> Result<Self, CompareError> {
        let file = File::create(log).map_err(CompareError::system(format!("file {}", log.display())))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).process_group(0);
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(CompareError::system(format!("cannot start the {role}, {program}")))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (sender, lines) = mpsc::channel();
        if let Some(output) = output {
            // This thread ends with the process.
            let read = move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            };
            std::thread::Builder::new()
                .name(format!("catchment-{role}"))
                .spawn(read)
                .map_err(CompareError::system("no thread to read the output of a process"))?;
        }
        Ok(Self { role, child, input, lines, log: log.to_owned() })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its standard input.
    pub(super) fn send_line(&mut self, line: &str) -> Result<(), CompareError> {
        let written = self.input.as_mut().map(|input| writeln!(input, "{line}").and_then(|()| input.flush()));
        if let Some(Ok(())) = written { Ok(()) } else { Err(self.error("no longer reads its standard input")) }
    }

    /// The next line of its standard output.
    pub(super) fn next_line(&mut self, timeout: Duration, stop: &dyn Fn() -> bool) -> Result<String, CompareError> {
        let until = Instant::now() + timeout;
        loop {
            match self.lines.recv_timeout(Duration::from_millis(20)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => return Err(self.exit_error()),
                Err(RecvTimeoutError::Timeout) if stop() => return Err(CompareError::Stopped),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => {
                    return Err(self.error(&format!("wrote no line for {timeout:?}")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// The next line of its standard output, if there is one. Does not block.
    pub(super) fn try_next_line(&mut self) -> Result<Option<String>, CompareError> {
        match self.lines.try_recv() {
            Ok(line) => Ok(Some(line)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(self.exit_error()),
        }
    }

    /// Waits until its log contains these words.
    pub(super) fn wait_for_log(
        &mut self,
        words: &str,
        timeout: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), CompareError> {
        let until = Instant::now() + timeout;
        loop {
            let exited = self.has_exited();
            if fs::read_to_string(&self.log).is_ok_and(|log| log.contains(words)) {
                return Ok(());
            }
            if exited {
                return Err(self.exit_error());
            }
            if stop() {
                return Err(CompareError::Stopped);
            }
            if Instant::now() >= until {
                return Err(self.error(&format!("was not ready within {timeout:?}")));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    pub(super) fn has_exited(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Sends SIGKILL and waits for the exit.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The error that it exited too early.
    pub(super) fn exit_error(&mut self) -> CompareError {
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        self.error(&format!("exited too early ({status})"))
    }

    pub(super) fn error(&self, detail: &str) -> CompareError {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        CompareError::Process { role: self.role.into(), detail: detail.into(), log: last.trim().into() }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        drop(self.input.take());
        let until = Instant::now() + EXIT_TIMEOUT;
        while !self.has_exited() {
            if Instant::now() >= until {
                log::warn!("the {} did not exit within {EXIT_TIMEOUT:?}; killing it", self.role);
                self.kill();
                return;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}
