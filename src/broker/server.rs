//! A nats-server of our own: a child process with JetStream, on a port of the loopback address.
//!
//! It ends with its parent in every case: a shell holds a pipe from this process and stops the server when the pipe closes, and the
//! kernel closes it even after SIGKILL. The server is in a process group of its own, so that Ctrl-C in the terminal reaches this process
//! first and the last events can still be drained.
//!
//! After SIGKILL the server needs a moment to end. Shell and server keep the lock of a file until then, so the next server on the same
//! streams waits for that. Two servers would damage the streams.

mod port;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::broker_error;
use crate::error::{BrokerFault, Error};
pub use port::ServerPort;

/// Runs `"$@"` until it ends or standard input closes, and then removes the file with its address.
const GUARD: &str = r#"
exec 3<&0
address=$1
shift
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill "$server"; } 2>/dev/null &
guard=$!
wait "$server"
status=$?
kill "$guard" 2>/dev/null
rm -f -- "$address"
exit "$status"
"#;

/// How long the server may take to start: it recovers its streams first.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long it may take to end before it is left to its guard.
const END_LIMIT: Duration = Duration::from_secs(10);

/// How often to look while it starts or ends.
const PAUSE: Duration = Duration::from_millis(10);

/// A running nats-server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    guard: Child,
    pipe: Option<ChildStdin>,
    url: String,
    pid: u32,
    folder: PathBuf,
}

impl Server {
    /// Starts `program` with its streams and its log in `folder`, waits until it takes connections, and writes its address to the file
    /// `address`, which is removed when the server ends. Blocks for up to 30 seconds, and for up to 10 more while an earlier server in
    /// the same folder ends.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`] when it cannot be started or takes no connections in time; the text has the path of its log. Also when a server
    /// in the same folder is still running, or when the fixed port is taken.
    pub fn start(program: &Path, folder: &Path, address: &Path, port: ServerPort) -> Result<Self, Error> {
        Self::start_on(program, folder, address, port, &[])
    }

    /// The same on any free port and with more arguments, `--config FILE` for instance. The arguments given here take precedence over
    /// that file.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub fn start_with(program: &Path, folder: &Path, address: &Path, arguments: &[OsString]) -> Result<Self, Error> {
        Self::start_on(program, folder, address, ServerPort::Any, arguments)
    }

    fn start_on(
        program: &Path,
        folder: &Path,
        address: &Path,
        port: ServerPort,
        arguments: &[OsString],
    ) -> Result<Self, Error> {
        let start = Start { program, folder, address, arguments };
        fs::create_dir_all(folder).map_err(|e| start.unwritable(&e))?;
        let lock = start.lock()?;
        loop {
            let number = port::choose(port, folder).map_err(|(what, remedy)| {
                let error = start.failed(what);
                remedy.into_iter().fold(error, Error::with_remedy)
            })?;
            match start.on(number, &lock) {
                Ok(server) => {
                    if port != ServerPort::Any {
                        port::keep(folder, number).map_err(|e| start.unwritable(&e))?;
                    }
                    return Ok(server);
                }
                // Another program was faster.
                Err(_) if !matches!(port, ServerPort::Fixed(_)) && !port::is_free(number) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The ID of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The folder of its streams and its log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its exit status, if it has ended. Does not block.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.guard.try_wait().ok().flatten()
    }
}

/// What a server is started with.
struct Start<'a> {
    program: &'a Path,
    folder: &'a Path,
    address: &'a Path,
    arguments: &'a [OsString],
}

impl Start<'_> {
    fn failed(&self, detail: String) -> Error {
        broker_error(self.program.display().to_string(), BrokerFault::Unreachable, detail)
    }

    fn unwritable(&self, error: &std::io::Error) -> Error {
        self.failed(format!("cannot keep its streams in {}: {error}", self.folder.display()))
    }

    /// Locks the folder for one server, and waits while an earlier server ends.
    fn lock(&self) -> Result<File, Error> {
        let file = self.folder.join("server.lock");
        let file = OpenOptions::new().append(true).create(true).open(file).map_err(|e| self.unwritable(&e))?;
        let until = Instant::now() + END_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let holder =
                        read_ports(self.folder).map_or_else(String::new, |(_, pid)| format!(" (process {pid})"));
                    let folder = self.folder.display();
                    let detail = format!("an earlier nats-server{holder} still uses its streams in {folder}");
                    return Err(self.failed(detail).with_remedy("end that one first"));
                }
                Err(TryLockError::Error(e)) => return Err(self.unwritable(&e)),
            }
        }
    }

    fn on(&self, port: u16, lock: &File) -> Result<Server, Error> {
        let Self { program, folder, address, arguments } = *self;
        clear_ports(folder).map_err(|e| self.unwritable(&e))?;
        let log = folder.join("server.log");
        let see_log = || format!("see its log, {}", log.display());
        // The lock is released when the last process that has the file open ends.
        let lock = lock.try_clone().map_err(|e| self.unwritable(&e))?;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "nats-server"]).arg(address).arg(program);
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"]).arg(folder);
        command.arg("--ports_file_dir").arg(folder).arg("--log").arg(&log).args(arguments);
        command.stdin(Stdio::piped()).stdout(lock).stderr(Stdio::null()).process_group(0);
        let mut guard = command.spawn().map_err(|e| self.failed(format!("cannot be started: {e}")))?;
        let pipe = guard.stdin.take();
        let mut server = Server { guard, pipe, url: String::new(), pid: 0, folder: folder.to_owned() };
        let until = Instant::now() + START_LIMIT;
        loop {
            if let Some((url, pid)) = read_ports(folder) {
                fs::write(address, format!("{url}\n"))
                    .map_err(|e| self.failed(format!("cannot write its address to {}: {e}", address.display())))?;
                (server.url, server.pid) = (url, pid);
                return Ok(server);
            }
            if let Some(status) = server.ended() {
                // The shell's codes for a program that it cannot find or start.
                if matches!(status.code(), Some(126 | 127)) {
                    let remedy = "install nats-server, or name the program with NATS_SERVER_BIN";
                    return Err(self.failed("there is no such program".into()).with_remedy(remedy));
                }
                return Err(self.failed(format!("ended at once ({status})")).with_remedy(see_log()));
            }
            if Instant::now() >= until {
                return Err(self.failed(format!("took no connection within {START_LIMIT:?}")).with_remedy(see_log()));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let until = Instant::now() + END_LIMIT;
        while self.ended().is_none() && Instant::now() < until {
            std::thread::sleep(PAUSE);
        }
        let _ = clear_ports(&self.folder);
    }
}

/// The files in which the server writes its port.
fn ports_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    Ok(entries.filter(|path| path.extension().is_some_and(|extension| extension == "ports")).collect())
}

fn clear_ports(folder: &Path) -> std::io::Result<()> {
    for file in ports_files(folder)? {
        match fs::remove_file(file) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Address and process of the server, once it has written them to `nats-server_<pid>.ports`.
fn read_ports(folder: &Path) -> Option<(String, u32)> {
    let file = ports_files(folder).ok()?.pop()?;
    let pid = file.file_stem()?.to_str()?.rsplit('_').next()?.parse().ok()?;
    // A file that is only half written does not count.
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    Some((ports["nats"][0].as_str()?.to_owned(), pid))
}
