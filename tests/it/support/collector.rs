//! The `catchment` command as a process: started, killed, asked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use super::eventually;

/// `catchment` without the settings of whoever runs the tests.
pub fn catchment() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_catchment"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("NATS_") || name.starts_with("CATCHMENT_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    // Nor their contexts of the nats command.
    command.env("XDG_CONFIG_HOME", "/nowhere").stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn output(command: &mut Command) -> Output {
    command.output().expect("catchment runs")
}

/// Runs it with this on standard input.
pub fn fed(command: &mut Command, input: impl AsRef<[u8]>) -> Output {
    let mut child = piped(command);
    // A command that refuses the input may end before it has read all.
    let _ = child.stdin.take().expect("piped").write_all(input.as_ref());
    child.wait_with_output().expect("ends")
}

/// Starts it with a pipe at each end.
pub fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("catchment starts")
}

/// Runs it to its end, which must be a good one; what it printed.
#[track_caller]
pub fn printed(command: &mut Command) -> String {
    results(output(command))
}

/// What a run printed. It must have ended well.
#[track_caller]
pub fn results(done: Output) -> String {
    assert!(done.status.success(), "{}", stderr(&done));
    String::from_utf8(done.stdout).expect("UTF-8")
}

/// Standard error of a run, as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn signal(pid: u32, signal: &str) {
    let done = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().expect("kill runs");
    assert!(done.success(), "kill -{signal} {pid}");
}

/// A running `catchment run`.
pub struct Collector {
    child: Option<Child>,
    log: PathBuf,
}

impl Collector {
    /// Starts `command` (from [`run`]) with its log in a file.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(file).spawn().expect("catchment starts");
        Self { child: Some(child), log: log.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a line of the log.
    pub fn said(&self, text: &str) {
        eventually(&format!("the log to say {text:?}; it says:\n{}", self.log()), || {
            let over = self.is_over();
            let log = self.log();
            let said = log.contains(text);
            assert!(said || !over, "it ended without saying {text:?}:\n{log}");
            said.then_some(())
        });
    }

    /// Whether it has ended, asked without taking notice of how.
    fn is_over(&self) -> bool {
        let stat = |child: &Child| std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        // Behind the name, in brackets: the state, which is Z until somebody asks.
        self.child
            .as_ref()
            .is_none_or(|child| stat(child).rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z')))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("can be asked"))
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("kills");
        child.wait().expect("ends");
    }

    /// SIGTERM; the status it ends with.
    pub fn stop(mut self) -> ExitStatus {
        signal(self.pid(), "TERM");
        self.wait()
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let mut ended = None;
        let limit = std::time::Duration::from_secs(60);
        super::eventually_within(limit, "the collector to end", &mut || {
            ended = child.try_wait().expect("can be asked");
            ended
        })
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs").count()
    }

    /// Their names, and how many have each.
    pub fn thread_names(&self) -> BTreeMap<String, usize> {
        let mut names = BTreeMap::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs").flatten() {
            // One may end while it is asked.
            if let Ok(name) = std::fs::read_to_string(thread.path().join("comm")) {
                *names.entry(name.trim_end().to_owned()).or_default() += 1;
            }
        }
        names
    }

    /// How many files and connections it has open.
    pub fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// CPU time that it has used, in hundredths of a second.
    pub fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        // Behind the name, in brackets, which may have anything in it: the 14th and 15th field.
        let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
        [11, 12].iter().map(|&at| fields[at].parse::<u64>().expect("a number")).sum()
    }

    /// Resident memory, now and at its highest, in KiB.
    pub fn memory(&self) -> (u64, u64) {
        let mut status = String::new();
        let path = format!("/proc/{}/status", self.pid());
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut status)).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel tells");
            line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `catchment run` on this server and database, quick to notice trouble.
pub fn run(url: &str, database: &Path) -> Command {
    let mut command = catchment();
    command.arg("run").args(["--server", url, "--database"]).arg(database);
    command.env("CATCHMENT_BROKER__SILENCE", "2s").env("CATCHMENT_BROKER__RETRY", "200ms");
    command
}

/// Has `catchment run --drain` commit what is in the stream.
pub fn drain(url: &str, database: &Path) {
    let done = output(run(url, database).arg("--drain"));
    assert!(done.status.success(), "{}", stderr(&done));
}
