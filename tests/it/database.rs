//! A database that is unwell while running: nothing is lost, it is said, and collecting goes on by itself when it can.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::collector::{Collector, output, run, signal, stderr};
use crate::support::refusal::{GRACE, refused};
use crate::support::server::Server;
use crate::support::{eventually, oracle};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Whether the command line of a tool works here.
fn works(program: &str, arguments: &[&str]) -> bool {
    let tried = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// The arguments of `unshare` by which a mount of our own works here.
pub fn own_mounts() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let folder = folder();
    let mount = format!("mount -t tmpfs -o size=1m tmpfs {}", folder.path().display());
    ways.into_iter().find(|way| works("unshare", &[way, &["sh", "-c", mount.as_str()][..]].concat()))
}

#[test]
fn a_full_disk_fails_a_start_and_pauses_a_running_collector() {
    let Some(unshare) = own_mounts() else {
        eprintln!("skipped: a_full_disk_fails_a_start_and_pauses_a_running_collector: no mount of its own");
        return;
    };
    let folder = folder();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let on_small_disk = |free_kib: usize| {
        let script = format!(
            "mount -t tmpfs -o size=12m tmpfs {0} && head -c {1} /dev/zero >{0}/ballast && exec {2} run \
             --server {3} --database {0}/a.db",
            disk.display(),
            (12 * 1024 - free_kib) * 1024,
            env!("CARGO_BIN_EXE_catchment"),
            server.url()
        );
        let mut command = Command::new("unshare");
        command.args(unshare).args(["sh", "-c", &script]).stdin(Stdio::null());
        command
    };
    refused(&mut on_small_disk(4), 1, &["a.db", "full", "make room"]);

    let collector = Collector::start(on_small_disk(1_024), &folder.path().join("collector.log"));
    let payloads = publish_all(&server, 3_000);
    collector.said("database: database or disk is full; make room on its disk");
    // Through the collector's own view of its files. SQLite would follow that link to ours, so they are copied.
    let inside = PathBuf::from(format!("/proc/{}/root{}", collector.pid(), disk.display()));
    let database = folder.path().join("copy.db");
    let copied = || {
        for suffix in ["", "-wal"] {
            let copy = format!("{}{suffix}", database.display());
            let _ = std::fs::remove_file(&copy);
            let _ = std::fs::copy(inside.join(format!("a.db{suffix}")), copy);
        }
        let _ = std::fs::remove_file(format!("{}-shm", database.display()));
        // A copy taken in the middle of a commit may not be readable.
        Connection::open(&database)
            .and_then(|copy| copy.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, u64>(0)))
            .unwrap_or(0)
    };
    assert!(copied() < 3_000);
    std::fs::remove_file(inside.join("ballast")).expect("makes room");
    collector.said("database: well again");
    eventually("all rows", || (copied() == 3_000).then_some(()));
    assert_eq!(oracle::payloads(&database), payloads);
    oracle::holds(&database, &payloads);
    assert!(collector.stop().success());
}

/// About three megabytes.
fn publish_all(server: &Server, count: usize) -> Vec<String> {
    let payloads: Vec<String> = (0..count).map(|n| format!("{n:0>1000}")).collect();
    server.raw().publish_all("events.a", &payloads);
    payloads
}

#[test]
fn a_file_size_limit_is_waited_out_while_running() {
    if !works("prlimit", &["--version"]) {
        eprintln!("skipped: a_file_size_limit_is_waited_out_while_running: no prlimit");
        return;
    }
    let folder = folder();
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let database = folder.path().join("a.db");
    let limited = |blocks: u32| {
        let script = format!("ulimit -S -f {blocks}; exec \"$0\" \"$@\"");
        let command = run(&server.url(), &database);
        let mut limited = Command::new("sh");
        limited.args(["-c", &script]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        limited
    };
    refused(&mut limited(2), 1, &["a.db", "its limits"]);

    // A mebibyte: what SQLite reports for it is an I/O error.
    let collector = Collector::start(limited(2_048), &folder.path().join("collector.log"));
    let payloads = publish_all(&server, 3_000);
    collector.said("WARN  database:");
    assert!(oracle::count(&database) < 3_000);
    let raised = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &collector.pid().to_string()]).status();
    assert!(raised.expect("prlimit runs").success());
    collector.said("database: well again");
    eventually("all rows", || (oracle::count(&database) == 3_000).then_some(()));
    assert!(collector.stop().success());
    assert_eq!(oracle::payloads(&database), payloads);
    oracle::holds(&database, &payloads);
}

#[test]
fn a_database_locked_while_running_is_waited_for() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let database = folder.path().join("a.db");
    let collector = Collector::start(run(&server.url(), &database), &folder.path().join("collector.log"));
    collector.said("collecting stream EVENTS");
    let holder = Connection::open(&database).expect("opens");
    holder.busy_timeout(Duration::from_secs(10)).expect("sets");
    holder.execute_batch("BEGIN IMMEDIATE").expect("gets the lock");
    let payloads = publish_all(&server, 100);
    collector.said("another process holds its write lock");
    assert_eq!(oracle::count(&database), 0);
    holder.execute_batch("ROLLBACK").expect("lets go");
    collector.said("database: well again");
    eventually("all rows", || (oracle::count(&database) == 100).then_some(()));
    assert!(collector.stop().success());
    oracle::holds(&database, &payloads);
}

#[test]
fn a_stop_with_a_locked_database_ends_by_its_deadline() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let database = folder.path().join("a.db");
    let mut command = run(&server.url(), &database);
    command.args(["--stop-timeout", "1s"]);
    let mut collector = Collector::start(command, &folder.path().join("collector.log"));
    collector.said("collecting stream EVENTS");
    let holder = Connection::open(&database).expect("opens");
    holder.busy_timeout(Duration::from_secs(10)).expect("sets");
    holder.execute_batch("BEGIN IMMEDIATE").expect("gets the lock");
    let payloads = publish_all(&server, 100);
    collector.said("another process holds its write lock");
    let began = Instant::now();
    signal(collector.pid(), "TERM");
    let status = collector.wait();
    assert!(began.elapsed() < Duration::from_secs(1) + GRACE, "{:?}", began.elapsed());
    assert_eq!(status.code(), Some(1), "not all is committed, and it says so");
    assert!(collector.log().contains("still in the stream"), "{}", collector.log());
    holder.execute_batch("ROLLBACK").expect("lets go");
    let done = output(run(&server.url(), &database).arg("--drain"));
    assert!(done.status.success(), "{}", stderr(&done));
    oracle::holds(&database, &payloads);
}

#[test]
fn a_moved_database_is_noticed_before_the_next_commit() {
    for replaced in [false, true] {
        let folder = folder();
        let server = Server::start(folder.path());
        server.make_stream("EVENTS", &["events.>"]);
        let database = folder.path().join("a.db");
        let mut collector = Collector::start(run(&server.url(), &database), &folder.path().join("collector.log"));
        let first = publish_all(&server, 100);
        eventually("the rows", || (oracle::count(&database) == 100).then_some(()));
        let moved = folder.path().join("moved");
        std::fs::create_dir(&moved).expect("a folder");
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("a.db{suffix}");
            std::fs::rename(folder.path().join(&name), moved.join(&name)).expect("moves");
        }
        if replaced {
            std::fs::write(&database, "").expect("writes");
        }
        let second = publish_all(&server, 100);
        assert_eq!(collector.wait().code(), Some(1), "{}", collector.log());
        assert!(collector.log().contains("moved, removed or replaced"), "{}", collector.log());
        assert_eq!(oracle::count(&moved.join("a.db")), 100, "nothing was written behind its back");
        // Back in its place, it goes on where it was.
        let _ = std::fs::remove_file(&database);
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("a.db{suffix}");
            let _ = std::fs::rename(moved.join(&name), folder.path().join(&name));
        }
        let done = output(run(&server.url(), &database).arg("--drain"));
        assert!(done.status.success(), "{}", stderr(&done));
        assert_eq!(oracle::payloads(&database), [first, second].concat());
        oracle::sound(&database);
    }
}
