//! `run --with-server`: which server it starts, on which port, and how other commands find it while it starts.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::collector::{Collector, catchment, output, printed, signal, stderr};
use crate::support::refusal::refused;
use crate::support::server::{Server, free_port, program};
use crate::support::{eventually, oracle};

/// A folder for the database of a collector with a server of its own.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command for the database here. A server at the default address is nobody's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.args(arguments).arg("--database").arg(self.at("a.db"));
        command.env("NATS_SERVER_BIN", program()).env("NATS_URL", "nats://127.0.0.1:9");
        command
    }

    /// A collector with a server of its own, which has just taken the database's lock. The commands wait a second for a lock, but on a
    /// busy machine a process may need longer than that to take it.
    pub fn starting(&self, arguments: &[&str], log: &str) -> Collector {
        let mut collector =
            Collector::start(self.command(&[&["run", "--with-server"], arguments].concat()), &self.at(log));
        let holder = format!("process {}\n", collector.pid());
        eventually("the lock", || {
            let text = std::fs::read_to_string(self.at("a.db.lock")).unwrap_or_default();
            (text.starts_with(&holder) || collector.ended().is_some()).then_some(())
        });
        collector
    }

    #[track_caller]
    pub fn succeeds(&self, arguments: &[&str]) -> String {
        printed(&mut self.command(arguments))
    }

    /// The port that the server kept.
    fn port(&self) -> u16 {
        let text = std::fs::read_to_string(self.at("a.db.nats/port")).expect("was kept");
        text.trim().parse().expect("a port")
    }
}

#[test]
fn commands_may_follow_a_start_at_once() {
    let folder = Folder::new();
    std::fs::write(
        folder.at("a.toml"),
        "[[query]]\nsubject = \"count\"\nsql = \"SELECT count(*) AS events FROM events\"\n",
    )
    .expect("writes");
    let settings = ["--config", folder.at("a.toml").to_str().expect("UTF-8")].map(str::to_owned);
    let [flag, file] = &settings;
    for run in 1..=3 {
        // Each of them is the first one after a start once; the file is there in the second and third run only.
        let collector = folder.starting(&[flag, file], "run.log");
        let steps: [(&[&str], &str); 3] = [
            (&["publish", "events.a", "x", flag, file], &format!("published 1 event, the last as {run} of")),
            (&["query", "count", "--json", flag, file], &format!("{{\"events\":{run}}}")),
            (&["sql", "--csv", "SELECT count(*) FROM events"], &format!("count(*)\n{run}\n")),
        ];
        for (arguments, expected) in steps {
            let said = folder.succeeds(arguments);
            assert!(said.starts_with(expected), "run {run}: {said:?} instead of {expected:?}");
        }
        assert!(collector.stop().success(), "{}", std::fs::read_to_string(folder.at("run.log")).unwrap_or_default());
    }
    for first in [&["sql", "--csv", "SELECT count(*) FROM events"][..], &["dead-letters", "list"], &["query", "count"]]
    {
        let folder = Folder::new();
        std::fs::copy(file, folder.at("a.toml")).expect("copies");
        let collector = folder.starting(&[flag, file], "run.log");
        assert!(!folder.succeeds(first).is_empty(), "{first:?}");
        assert!(collector.stop().success());
    }
}

#[test]
fn nothing_waits_for_a_collector_that_is_not_there() {
    let folder = Folder::new();
    // None of them gets to its time-out, which is longer than the harness waits.
    refused(
        folder.command(&["publish", "events.a", "x", "--timeout", "1h"]).env_remove("NATS_TIMEOUT"),
        1,
        &["refused"],
    );
    refused(&mut folder.command(&["query", "count", "--timeout", "1h"]), 1, &["refused"]);
    refused(&mut folder.command(&["sql", "SELECT 1"]), 1, &["there is no such file"]);
    // Nor where one runs and does not answer there.
    let collector = folder.starting(&[], "run.log");
    folder.succeeds(&["publish", "events.a", "x"]);
    refused(&mut folder.command(&["query", "count", "--timeout", "1h"]), 1, &["no collector answers on count"]);
    assert!(collector.stop().success());
}

#[test]
fn the_port_is_kept_where_it_is_free() {
    let folder = Folder::new();
    let collector = folder.starting(&[], "first.log");
    collector.said("collecting stream EVENTS");
    let port = folder.port();
    collector.said(&format!("nats://127.0.0.1:{port}"));
    // After SIGKILL the server needs a moment to end, and the next one waits for that.
    collector.kill();
    let collector = folder.starting(&[], "second.log");
    collector.said(&format!("collecting stream EVENTS from nats://127.0.0.1:{port}"));
    assert!(collector.stop().success());
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("is free");
    let collector = folder.starting(&[], "third.log");
    collector.said("collecting stream EVENTS");
    assert_ne!(folder.port(), port);
    assert!(collector.stop().success());
    // The same port, asked for by its number.
    let port = port.to_string();
    let words = ["127.0.0.1", "is used by another program", "--server-port"];
    refused(&mut folder.command(&["run", "--with-server", "--server-port", &port]), 1, &words);
    drop(taken);
    let collector = folder.starting(&["--server-port", &port], "fourth.log");
    collector.said(&format!("collecting stream EVENTS from nats://127.0.0.1:{port}"));
    let other = Folder::new();
    let words = ["is used by another nats-server (version ", "--server-port"];
    refused(&mut other.command(&["run", "--with-server", "--server-port", &port]), 1, &words);
    assert!(collector.stop().success());
}

#[test]
fn a_publisher_finds_the_server_at_another_port() {
    let folder = Folder::new();
    let collector = folder.starting(&[], "first.log");
    collector.said("collecting stream EVENTS");
    let mut publish = folder.command(&["publish", "events.a", "-v"]);
    let log = std::fs::File::create(folder.at("publish.log")).expect("a log");
    let mut publish =
        publish.stdin(Stdio::piped()).stderr(log).stdout(Stdio::null()).spawn().expect("catchment starts");
    let mut lines = publish.stdin.take().expect("piped");
    std::io::Write::write_all(&mut lines, b"first\n").expect("writes");
    eventually("the first event", || (oracle::count(&folder.at("a.db")) == 1).then_some(()));
    assert!(collector.stop().success());
    let port = free_port().to_string();
    let collector = folder.starting(&["--server-port", &port], "second.log");
    std::io::Write::write_all(&mut lines, b"second\n").expect("writes");
    drop(lines);
    assert!(publish.wait().expect("ends").success());
    let log = std::fs::read_to_string(folder.at("publish.log")).expect("reads");
    assert!(log.contains(&format!("the server has another address now: nats://127.0.0.1:{port}")), "{log}");
    assert_eq!(oracle::payloads(&folder.at("a.db")), ["first", "second"]);
    assert!(collector.stop().success());
}

#[test]
fn an_address_that_was_left_behind_does_not_count() {
    let folder = Folder::new();
    let collector = folder.starting(&[], "run.log");
    collector.said("collecting stream EVENTS");
    let address = std::fs::read_to_string(folder.at("a.db.server")).expect("reads");
    assert!(collector.stop().success());
    // As after a power cut.
    std::fs::write(folder.at("a.db.server"), address).expect("writes");
    let (_other, server) = Server::in_new_folder();
    server.make_stream("EVENTS", &["events.>"]);
    let done = output(folder.command(&["publish", "events.a", "x"]).env("NATS_URL", server.url()));
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(server.messages("EVENTS"), 1);
}

#[test]
fn a_stop_ends_the_start_of_a_server_that_hangs() {
    let folder = Folder::new();
    let hanging = folder.at("hanging");
    std::fs::write(&hanging, "#!/bin/sh\nexec sleep 3600\n").expect("writes");
    std::fs::set_permissions(&hanging, std::fs::Permissions::from_mode(0o755)).expect("changes");
    for (drain, status) in [(&[][..], 0), (&["--drain"], 130)] {
        let mut run = folder.command(&["run", "--with-server"]);
        run.args(drain).env("NATS_SERVER_BIN", &hanging);
        let mut collector = Collector::start(run, &folder.at("run.log"));
        // The server's process is there.
        eventually("the server", || {
            let lock = std::fs::File::open(folder.at("a.db.nats/server.lock")).ok()?;
            let phase = std::fs::read_to_string(folder.at("a.db.lock")).unwrap_or_default();
            (lock.try_lock_shared().is_err() && phase.contains("starting a broker")).then_some(())
        });
        signal(collector.pid(), "INT");
        assert_eq!(collector.wait().code(), Some(status), "{}", collector.log());
        assert!(collector.log().contains("stopped before the broker came up"), "{}", collector.log());
    }
}

/// A copy of the command at this place, with the server's program where `make` installs it.
fn installed(folder: &Folder) -> Command {
    let (own, server) = (folder.at("target/debug/catchment"), folder.at("target/nats/bin/nats-server"));
    for file in [&own, &server] {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    }
    let ours = catchment();
    std::fs::copy(ours.get_program(), &own).expect("copies");
    let given = program();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(&given)).find(|file| file.exists());
    std::os::unix::fs::symlink(found.expect("a server"), &server).expect("links");
    let mut command = Command::new(own);
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // `sh` is there, and no nats-server.
    std::fs::create_dir(folder.at("bin")).expect("a folder");
    std::os::unix::fs::symlink("/bin/sh", folder.at("bin/sh")).expect("links");
    command.args(["run", "--with-server", "--drain", "--database"]).arg(folder.at("a.db"));
    command.env("PATH", folder.at("bin")).env_remove("NATS_SERVER_BIN");
    command
}

#[test]
fn the_server_that_make_installed_is_found() {
    let folder = Folder::new();
    let mut command = installed(&folder);
    let done = output(&mut command);
    assert!(done.status.success(), "{}", stderr(&done));
    std::fs::remove_file(folder.at("target/nats/bin/nats-server")).expect("removes");
    // Whatever lies in the current directory is not started.
    std::os::unix::fs::symlink("/bin/false", folder.at("nats-server")).expect("links");
    let words = ["no nats-server on the PATH", "NATS_SERVER_BIN", "nats-server-bin"];
    refused(installed_without_server(&mut command, &folder), 1, &words);
}

fn installed_without_server<'c>(command: &'c mut Command, folder: &Folder) -> &'c mut Command {
    command.current_dir(folder.0.path())
}

#[test]
fn another_broker_is_a_conflict_or_is_said_not_to_be_used() {
    let folder = Folder::new();
    for flags in
        [["--server", "nats://a:1"], ["--context", "x"], ["--token", "x"], ["--creds", "x"], ["--js-domain", "x"]]
    {
        let done = output(folder.command(&["run", "--with-server"]).args(flags));
        assert_eq!(done.status.code(), Some(2), "{flags:?}");
        assert!(stderr(&done).contains("--with-server cannot be combined with --"), "{}", stderr(&done));
    }
    let settings = folder.at("a.toml");
    std::fs::write(&settings, "[broker]\nservers = [\"nats://me:hunter2@a.invalid:4222\"]\n").expect("writes");
    let done = output(folder.command(&["run", "--with-server", "--drain"]).arg("--config").arg(&settings));
    let said = stderr(&done);
    assert!(
        done.status.success() && said.contains("(nats://a.invalid:4222) and its credentials are not used"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_drain_that_a_signal_ends_has_its_status() {
    let folder = Folder::new();
    for (name, status) in [("INT", 130), ("TERM", 143)] {
        // The broker never comes up, so the drain is never done.
        for (drain, status) in [(&["--drain"][..], status), (&[], 0)] {
            let mut run = folder.command(&["run", "--server", "nats://127.0.0.1:9", "--wait", "1h"]);
            let mut collector = Collector::start(
                {
                    run.args(drain);
                    run
                },
                &folder.at(name),
            );
            collector.said("waiting for it, at most 3600s");
            signal(collector.pid(), name);
            assert_eq!(collector.wait().code(), Some(status), "{name} {drain:?}: {}", collector.log());
            std::fs::remove_file(folder.at(name)).expect("removes");
        }
    }
    let done = output(&mut folder.command(&["run", "--with-server", "--drain"]));
    assert!(done.status.success(), "{}", stderr(&done));
}

/// What `run` prints on a terminal, in the foreground or in the background of a shell. `None` without python3, which makes the terminal.
fn on_a_terminal(folder: &Path, background: bool, format: &str) -> Option<String> {
    const SCRIPT: &str = r#"
import os, pty, signal, sys, time
folder, background, program, log_format, server = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.environ["NATS_SERVER_BIN"] = server
    run = f"'{program}' --log-format {log_format} run --with-server --database '{folder}/a.db'"
    tail = " & wait" if background == "yes" else "; true"
    os.execvp("sh", ["sh", "-c", "set -m; " + run + tail])
text, since = b"", None
while since is None or time.monotonic() < since + 1.5:
    try:
        text += os.read(terminal, 65536) if since is None or select_ready(terminal) else b""
    except OSError:
        break
    if since is None and b"collecting stream" in text:
        since = time.monotonic()
os.write(1, text)
for line in open(folder + "/a.db.lock").read().splitlines():
    if line.startswith("process "):
        os.kill(int(line.split()[1]), signal.SIGTERM)
while True:
    try:
        if not os.read(terminal, 65536):
            break
    except OSError:
        break
os.waitpid(pid, 0)
"#;
    const READY: &str = "import select\ndef select_ready(fd):\n    return bool(select.select([fd], [], [], 0.1)[0])\n";
    let mut python = Command::new("python3");
    python.arg("-c").arg(format!("{READY}{SCRIPT}")).arg(folder).arg(if background { "yes" } else { "no" });
    python.arg(catchment().get_program()).arg(format).arg(program());
    let ours = catchment();
    for (name, _) in ours.get_envs().filter(|(_, value)| value.is_none()) {
        python.env_remove(name);
    }
    let done = python.output().ok()?;
    assert!(done.status.success(), "{}", stderr(&done));
    Some(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[test]
fn only_who_is_in_the_foreground_sees_progress_and_next_steps() {
    for (background, format, shown) in [(false, "text", true), (true, "text", false), (false, "json", false)] {
        let folder = Folder::new();
        let Some(said) = on_a_terminal(folder.0.path(), background, format) else {
            eprintln!("skipped: only_who_is_in_the_foreground_sees_progress_and_next_steps: there is no python3");
            return;
        };
        assert!(said.contains("collecting stream EVENTS"), "{said}");
        for words in ["Ctrl-C stops", "send an event", "events committed,"] {
            assert_eq!(said.contains(words), shown, "{words}, background {background}, {format}:\n{said}");
        }
    }
}

/// `catchment run --with-server`, its log in a file.
pub fn with_server(database: &Path, log: &Path) -> Collector {
    let mut command = catchment();
    command.args(["run", "--with-server", "--database"]).arg(database).env("NATS_SERVER_BIN", program());
    Collector::start(command, log)
}

/// Processes that were started for this folder: its name is among their arguments.
pub fn processes_of(folder: &Path) -> Vec<u32> {
    let folder = folder.to_str().expect("UTF-8").as_bytes().to_vec();
    let all = std::fs::read_dir("/proc").expect("the kernel tells").filter_map(Result::ok);
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.windows(folder.len()).any(|part| part == folder)
    })
    .collect()
}

#[test]
fn other_commands_find_the_collectors_own_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let address = folder.path().join("a.db.server");
    for signal_name in ["INT", "TERM"] {
        let mut collector = with_server(&database, &folder.path().join(signal_name));
        collector.said("collecting stream EVENTS");
        eventually("the address", || std::fs::read_to_string(&address).ok().filter(|text| text.contains("://")));
        let mut publish = catchment();
        publish.args(["publish", "--database"]).arg(&database).args(["events.load", "--count", "2000"]);
        // Another broker that somebody's shell points at does not count.
        let said = printed(publish.env("NATS_URL", "nats://nowhere.invalid:4222"));
        assert!(said.starts_with("published 2,000 events"), "{said}");
        signal(collector.pid(), signal_name);
        assert!(collector.wait().success(), "{}", collector.log());
        assert!(!address.exists(), "the address goes with the server");
        eventually("all processes to end", || processes_of(folder.path()).is_empty().then_some(()));
    }
    // All that was acknowledged is in the stream, and what a stop left there comes at the next start.
    let log = folder.path().join("last");
    let collector = with_server(&database, &log);
    collector.said("collecting stream EVENTS");
    eventually("all rows", || (oracle::count(&database) == 4_000).then_some(()));
    assert!(collector.stop().success());
    oracle::sound(&database);
    for log in ["INT", "TERM", "last"] {
        let log = std::fs::read_to_string(folder.path().join(log)).expect("a log");
        assert!(!log.contains("panicked") && !log.contains("ERROR") && !log.contains("WARN"), "{log}");
    }
}

#[test]
fn a_server_of_its_own_ends_even_when_the_collector_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let collector = with_server(&database, &folder.path().join("first.log"));
    collector.said("collecting stream EVENTS");
    assert!(processes_of(folder.path()).len() > 1, "a server beside the collector");
    printed(catchment().args(["publish", "events.a", "kept", "--database"]).arg(&database));
    collector.kill();
    eventually("all processes to end", || processes_of(folder.path()).is_empty().then_some(()));
    // The address is stale now; the next start replaces it, and what was in the stream is collected.
    let collector = with_server(&database, &folder.path().join("second.log"));
    collector.said("collecting stream EVENTS");
    eventually("the row", || (oracle::count(&database) == 1).then_some(()));
    printed(catchment().args(["publish", "events.a", "more", "--database"]).arg(&database));
    eventually("the next row", || (oracle::count(&database) == 2).then_some(()));
    assert!(collector.stop().success());
    assert_eq!(oracle::payloads(&database), ["kept", "more"]);
    eventually("all processes to end", || processes_of(folder.path()).is_empty().then_some(()));
}

#[test]
fn what_cannot_be_written_for_the_server_is_named() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.at("a.db.nats/port/x")).expect("a folder");
    refused(&mut folder.command(&["run", "--with-server"]), 1, &["a.db.nats/port: Is a directory"]);
    assert!(!folder.at("a.db").exists());
}

#[test]
fn a_dead_server_of_its_own_ends_the_collector() {
    let folder = tempfile::tempdir().expect("a folder");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("run.log"));
    let mut collector = with_server(&database, &log);
    collector.said("collecting stream EVENTS");
    let server = processes_of(folder.path()).into_iter().find(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("nats-server")
    });
    signal(server.expect("a nats-server"), "KILL");
    let status = collector.wait();
    assert_eq!(status.code(), Some(1), "{}", collector.log());
    let said = collector.log();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("catchment: ") && last.contains("nats-server"), "{said}");
    assert!(last.contains("a.db.nats"), "names the log's folder: {said}");
    eventually("all processes to end", || processes_of(folder.path()).is_empty().then_some(()));
}

#[test]
fn a_second_own_server_is_refused_without_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let collector = with_server(&database, &folder.path().join("run.log"));
    collector.said("collecting stream EVENTS");
    let before = processes_of(folder.path());
    let mut second = catchment();
    second.args(["run", "--with-server", "--database"]).arg(&database).env("NATS_SERVER_BIN", program());
    let refused = output(&mut second);
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {} uses it already", collector.pid())), "{said}");
    assert_eq!(processes_of(folder.path()), before, "no server was started or ended");
    printed(catchment().args(["publish", "events.a", "x", "--database"]).arg(&database));
    eventually("the row", || (oracle::count(&database) == 1).then_some(()));
    assert!(collector.stop().success());
}

#[test]
fn a_missing_server_program_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = catchment();
    command.args(["run", "--with-server", "--database"]).arg(folder.path().join("a.db"));
    let refused = output(command.env("NATS_SERVER_BIN", "/nowhere/nats-server"));
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("catchment: ") && last.contains("/nowhere/nats-server"), "{said}");
    assert!(last.contains("NATS_SERVER_BIN"), "names the remedy: {said}");
    assert!(!folder.path().join("a.db.server").exists());
}
