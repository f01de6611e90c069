//! A nats-server of our own: a child process with JetStream, on a port of the loopback address.
//!
//! It ends with its parent in every case: a shell holds a pipe from this process and stops the server when the pipe closes, and the
//! kernel closes it even after SIGKILL. The server is in a process group of its own, so that Ctrl-C in the terminal reaches this process
//! first and the last events can still be drained.
//!
//! After SIGKILL the server needs a moment to end. Shell and server keep the lock of a file until then, so the next server on the same
//! streams waits for that. Two servers would damage the streams. If the shell was killed too, nobody ends the server. The next start
//! recognises it by that lock and ends it.

mod left_behind;
mod port;

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::broker_error;
use crate::error::{BrokerFault, Error};
use crate::printable::printable;
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

/// How long an earlier server may go on before it counts as left behind.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The file in the folder that server and guard keep locked.
const LOCK: &str = "server.lock";

/// The folder in the folder in which the server keeps its streams.
const STREAMS: &str = "jetstream";

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
    /// This start has made the folder.
    made_folder: bool,
}

impl Server {
    /// Starts `program` with its streams and its log in `folder`, waits until it takes connections, and writes its address to the file
    /// `address`, which is removed when the server ends. Blocks for up to 30 seconds, and for up to 10 more while an earlier server in
    /// the same folder ends. One that was left behind is ended: the caller ensures that no other process uses this folder. Gives up as
    /// soon as `keep_going` returns `false`. What a failed start has made is removed, apart from a log.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`] when it cannot be started or takes no connections in time; the text has the last line of its standard error, and the
    /// path of its log if it has written one. Also when a server
    /// in the same folder is still running, or when the fixed port is taken.
    pub fn start(
        program: &Path,
        folder: &Path,
        address: &Path,
        port: ServerPort,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        Start { program, folder, address, arguments: &[], keep_going }.on_port(port)
    }

    /// The same on any free port and with more arguments, `--config FILE` for instance. The arguments given here take precedence over
    /// that file.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub fn start_with(program: &Path, folder: &Path, address: &Path, arguments: &[OsString]) -> Result<Self, Error> {
        Self::start_on_port(program, folder, address, arguments, ServerPort::Any)
    }

    /// As [`Server::start_with`], on this port: the port of an earlier server, for its clients.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub fn start_on_port(
        program: &Path,
        folder: &Path,
        address: &Path,
        arguments: &[OsString],
        port: ServerPort,
    ) -> Result<Self, Error> {
        Start { program, folder, address, arguments, keep_going: &|| true }.on_port(port)
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

    /// Ends the server of a start that failed, and removes its folder if its start has made it and no stream has stored a message.
    pub fn withdraw(self) {
        let (folder, made_folder) = (self.folder.clone(), self.made_folder);
        drop(self);
        if made_folder && !has_messages(&folder) {
            let _ = fs::remove_dir_all(&folder);
        }
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
    keep_going: &'a dyn Fn() -> bool,
}

impl Start<'_> {
    fn on_port(&self, port: ServerPort) -> Result<Server, Error> {
        let is_new = !self.folder.exists();
        let mut started = self.start_on(port);
        match &mut started {
            Ok(server) => server.made_folder = is_new,
            Err(_) if is_new && !has_messages(self.folder) => self.remove_all_but_log(),
            Err(_) => {}
        }
        started
    }

    /// Removes what a failed start has made in a new folder, and the folder if it has no log.
    fn remove_all_but_log(&self) {
        let _ = clear_ports(self.folder);
        let _ = fs::remove_dir_all(self.folder.join(STREAMS));
        let _ = fs::remove_file(port::file(self.folder));
        let _ = fs::remove_file(self.folder.join(LOCK));
        // Fails while the log is there.
        let _ = fs::remove_dir(self.folder);
    }

    fn start_on(&self, port: ServerPort) -> Result<Server, Error> {
        // All events are in it.
        DirBuilder::new().recursive(true).mode(0o700).create(self.folder).map_err(|e| self.unwritable(&e))?;
        let lock = self.lock()?;
        loop {
            let number = port::choose(port, self.folder).map_err(|(what, remedy)| {
                let error = self.failed(what);
                remedy.into_iter().fold(error, Error::with_remedy)
            })?;
            match self.on(number, &lock) {
                Ok(server) => {
                    if port != ServerPort::Any {
                        let kept = port::keep(self.folder, number);
                        kept.map_err(|e| self.unwritable(&named(&port::file(self.folder), &e)))?;
                    }
                    return Ok(server);
                }
                // Another program was faster.
                Err(_) if !matches!(port, ServerPort::Fixed(_)) && !port::is_free(number) && (self.keep_going)() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn failed(&self, detail: String) -> Error {
        broker_error(self.program.display().to_string(), BrokerFault::Unreachable, detail)
    }

    /// Whether the shell has not found the program. It searches a name without a folder on the `PATH`.
    fn is_missing(&self, said: Option<&str>) -> bool {
        if self.program.components().count() > 1 {
            !self.program.exists()
        } else {
            said.is_none_or(|said| said.ends_with("not found"))
        }
    }

    fn stopped(&self) -> Error {
        self.failed("a stop ended its start".into())
    }

    fn unwritable(&self, error: &std::io::Error) -> Error {
        self.failed(format!("cannot keep its streams in {}: {error}", self.folder.display()))
    }

    /// Locks the folder for one server. Waits while an earlier server ends, and ends one that was left behind.
    fn lock(&self) -> Result<File, Error> {
        let path = self.folder.join(LOCK);
        let file = OpenOptions::new().append(true).create(true).open(&path);
        let file = file.map_err(|e| self.unwritable(&named(&path, &e)))?;
        let began = Instant::now();
        let mut has_ended_others = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if !(self.keep_going)() => return Err(self.stopped()),
                Err(TryLockError::WouldBlock) if began.elapsed() < END_LIMIT => {
                    if began.elapsed() >= LEAVE_TIMEOUT && !std::mem::replace(&mut has_ended_others, true) {
                        self.end_others(&file);
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    let holder =
                        read_ports(self.folder).map_or_else(String::new, |(_, pid)| format!(" (process {pid})"));
                    let folder = self.folder.display();
                    let detail = format!("an earlier nats-server{holder} still uses its streams in {folder}");
                    return Err(self.failed(detail).with_remedy("end that one first"));
                }
                Err(TryLockError::Error(e)) => return Err(self.unwritable(&named(&path, &e))),
            }
        }
    }

    /// Ends the processes of an earlier server.
    fn end_others(&self, lock: &File) {
        let others = left_behind::holders(lock);
        if others.is_empty() {
            return;
        }
        let pid = read_ports(self.folder).map(|(_, pid)| pid).filter(|pid| others.contains(pid)).unwrap_or(others[0]);
        let folder = self.folder.display();
        log::warn!(
            event = "server.left_behind", process = pid, folder:% = folder;
            "broker: an earlier start has left its nats-server (process {pid}) running in {folder}; ending it"
        );
        left_behind::end(&others);
    }

    fn on(&self, port: u16, lock: &File) -> Result<Server, Error> {
        let Self { program, folder, address, arguments, keep_going } = *self;
        clear_ports(folder).map_err(|e| self.unwritable(&e))?;
        let log = folder.join("server.log");
        let log_size = || fs::metadata(&log).map_or(0, |log| log.len());
        let log_before = log_size();
        // Without a name, so that nothing has to be removed.
        let output = tempfile::tempfile_in(folder).map_err(|e| self.unwritable(&e))?;
        let error_output = output.try_clone().map_err(|e| self.unwritable(&e))?;
        // An earlier server may have written a log.
        let see_log = |error: Error| {
            if log_size() == log_before {
                error.with_remedy("try to start it by hand, or name another nats-server with NATS_SERVER_BIN")
            } else {
                error.with_remedy(format!("see its log, {}", log.display()))
            }
        };
        // The lock is released when the last process that has the file open ends.
        let lock = lock.try_clone().map_err(|e| self.unwritable(&e))?;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "nats-server"]).arg(address).arg(program);
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"]).arg(folder);
        command.arg("--ports_file_dir").arg(folder).arg("--log").arg(&log).args(arguments);
        command.stdin(Stdio::piped()).stdout(lock).stderr(error_output).process_group(0);
        let mut guard = command.spawn().map_err(|e| self.failed(format!("cannot be started: {e}")))?;
        let pipe = guard.stdin.take();
        let mut server =
            Server { guard, pipe, url: String::new(), pid: 0, folder: folder.to_owned(), made_folder: false };
        let until = Instant::now() + START_LIMIT;
        loop {
            if let Some((url, pid)) = read_ports(folder) {
                write_address(address, &url)
                    .map_err(|e| self.failed(format!("cannot write its address to {}: {e}", address.display())))?;
                (server.url, server.pid) = (url, pid);
                return Ok(server);
            }
            if let Some(status) = server.ended() {
                let said = last_line(&output);
                // The shell's code for a program that it cannot find. A program that lacks a library has it too.
                if status.code() == Some(127) && self.is_missing(said.as_deref()) {
                    let remedy = "install nats-server, or name the program with NATS_SERVER_BIN";
                    return Err(self.failed("there is no such program".into()).with_remedy(remedy));
                }
                let said = said.map_or_else(String::new, |said| format!(": {said}"));
                return Err(see_log(self.failed(format!("ended at once ({status}){said}"))));
            }
            if !keep_going() {
                return Err(self.stopped());
            }
            if Instant::now() >= until {
                let said = last_line(&output).map_or_else(String::new, |said| format!("; its last words: {said}"));
                return Err(see_log(self.failed(format!("took no connection within {START_LIMIT:?}{said}"))));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let lock = File::open(self.folder.join(LOCK)).ok();
        let processes = || lock.as_ref().map(left_behind::holders).unwrap_or_default();
        let began = Instant::now();
        let mut has_ended_others = false;
        // The guard may have been killed. Then its end says nothing about the server.
        while (self.ended().is_none() || !processes().is_empty()) && began.elapsed() < END_LIMIT {
            if began.elapsed() >= LEAVE_TIMEOUT && !std::mem::replace(&mut has_ended_others, true) {
                left_behind::end(&processes());
            }
            std::thread::sleep(PAUSE);
        }
        let _ = clear_ports(&self.folder);
    }
}

/// Writes a file that only its owner reads, whatever was there.
fn write_address(file: &Path, url: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    file.write_all(format!("{url}\n").as_bytes())
}

/// Whether a server has run in this folder, by a start that did not fail.
#[must_use]
pub fn has_streams(folder: &Path) -> bool {
    folder.join(STREAMS).is_dir()
}

/// Whether a stream in this folder has stored a message; also if that cannot be read. A stream keeps its messages in files `*.blk`.
fn has_messages(folder: &Path) -> bool {
    fn any_in(folder: &Path) -> std::io::Result<bool> {
        for entry in fs::read_dir(folder)? {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
            let is_block = path.extension().is_some_and(|extension| extension == "blk");
            if if kind?.is_dir() { any_in(&path)? } else { is_block && fs::metadata(&path)?.len() > 0 } {
                return Ok(true);
            }
        }
        Ok(false)
    }
    let streams = folder.join(STREAMS);
    streams.exists() && any_in(&streams).unwrap_or(true)
}

/// The last line that a program has written to this file, made printable.
fn last_line(output: &File) -> Option<String> {
    /// The longest end that is read.
    const MOST: u64 = 4_096;
    let size = output.metadata().ok()?.len();
    let mut end = vec![0; usize::try_from(size.min(MOST)).ok()?];
    // Not from the current position: the program shares it.
    output.read_exact_at(&mut end, size.saturating_sub(MOST)).ok()?;
    let end = String::from_utf8_lossy(&end);
    let line = end.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(printable(line).into_owned())
}

/// The files in which the server writes its port.
fn ports_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    Ok(entries.filter(|path| path.extension().is_some_and(|extension| extension == "ports")).collect())
}

fn clear_ports(folder: &Path) -> std::io::Result<()> {
    for file in ports_files(folder)? {
        match fs::remove_file(&file) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(named(&file, &e)),
            _ => {}
        }
    }
    Ok(())
}

/// An error of the system with the file's path.
fn named(file: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

/// Address and process of the server, once it has written them to `nats-server_<pid>.ports`.
fn read_ports(folder: &Path) -> Option<(String, u32)> {
    let file = ports_files(folder).ok()?.pop()?;
    let pid = file.file_stem()?.to_str()?.rsplit('_').next()?.parse().ok()?;
    // A file that is only half written does not count.
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    Some((ports["nats"][0].as_str()?.to_owned(), pid))
}
