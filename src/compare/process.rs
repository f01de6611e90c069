//! A process of a comparison: told by lines, heard by lines, and never left behind.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::Failure;

/// How long a process may take to end in good order, once its standard input has ended.
const GOES_DOWN: Duration = Duration::from_secs(15);

const LOOK: Duration = Duration::from_millis(2);

/// A child in a process group of its own, so that a Ctrl-C in the terminal reaches us alone. It ends when its standard input
/// does: when this is dropped, and when we are gone.
#[derive(Debug)]
pub(super) struct Process {
    role: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts it with standard error in the file `log`.
    pub(super) fn start(role: &'static str, command: &mut Command, log: &Path) -> Result<Self, Failure> {
        let file = File::create(log).map_err(Failure::system(format!("file {}", log.display())))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).process_group(0);
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child =
            command.spawn().map_err(Failure::system(format!("the {role}, {program}, cannot be started")))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (tell, lines) = mpsc::channel();
        if let Some(output) = output {
            // Ends with the process.
            let read = move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = tell.send(line);
                }
            };
            std::thread::Builder::new()
                .name(format!("catchment-{role}"))
                .spawn(read)
                .map_err(Failure::system("a thread to hear a process"))?;
        }
        Ok(Self { role, child, input, lines, log: log.to_owned() })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it a line.
    pub(super) fn tell(&mut self, line: &str) -> Result<(), Failure> {
        let told = self.input.as_mut().map(|input| writeln!(input, "{line}").and_then(|()| input.flush()));
        if let Some(Ok(())) = told { Ok(()) } else { Err(self.failure("hears nothing any more")) }
    }

    /// The next line it says.
    pub(super) fn hear(&mut self, patience: Duration, stop: &dyn Fn() -> bool) -> Result<String, Failure> {
        let until = Instant::now() + patience;
        loop {
            match self.lines.recv_timeout(Duration::from_millis(20)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => return Err(self.has_ended()),
                Err(RecvTimeoutError::Timeout) if stop() => return Err(Failure::Stopped),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => {
                    return Err(self.failure(&format!("said nothing for {patience:?}")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// What it has said, if anything new. Does not block.
    pub(super) fn heard(&mut self) -> Result<Option<String>, Failure> {
        match self.lines.try_recv() {
            Ok(line) => Ok(Some(line)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(self.has_ended()),
        }
    }

    /// Waits until its log has these words.
    pub(super) fn logged(&mut self, words: &str, patience: Duration, stop: &dyn Fn() -> bool) -> Result<(), Failure> {
        let until = Instant::now() + patience;
        loop {
            let over = self.is_over();
            if fs::read_to_string(&self.log).is_ok_and(|log| log.contains(words)) {
                return Ok(());
            }
            if over {
                return Err(self.has_ended());
            }
            if stop() {
                return Err(Failure::Stopped);
            }
            if Instant::now() >= until {
                return Err(self.failure(&format!("was not ready within {patience:?}")));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Whether it has ended.
    pub(super) fn is_over(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_some())
    }

    /// SIGKILL, and waits for the end.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// That it ended although nobody asked it to.
    pub(super) fn has_ended(&mut self) -> Failure {
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        self.failure(&format!("ended before its time ({status})"))
    }

    pub(super) fn failure(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        Failure::Process { role: self.role.into(), what: what.into(), log: last.trim().into() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        let until = Instant::now() + GOES_DOWN;
        while !self.is_over() {
            if Instant::now() >= until {
                log::warn!("the {} did not end within {GOES_DOWN:?} and is killed", self.role);
                self.kill();
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}
