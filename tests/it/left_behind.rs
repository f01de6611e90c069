//! A nats-server of `run --with-server` whose guard was killed.

use std::process::Command;

use crate::own_server::{processes_of, with_server};
use crate::support::collector::{catchment, printed};
use crate::support::{eventually, oracle};

/// Kills processes of which each would end when it notices the end of another. So they are stopped first.
fn kill_at_once(pids: &[u32]) {
    for signal in ["-STOP", "-KILL"] {
        let kill = Command::new("kill").arg(signal).args(pids.iter().map(u32::to_string)).status();
        assert!(kill.expect("kill runs").success());
    }
}

#[test]
fn a_server_that_was_left_behind_is_ended_by_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut collector = with_server(&database, &folder.path().join("first.log"));
    collector.said("collecting stream EVENTS");
    printed(catchment().args(["publish", "events.a", "kept", "--database"]).arg(&database));
    // All but the server: the collector and its guards.
    let is_server = |pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("nats-server")
    };
    let (server, others): (Vec<u32>, Vec<u32>) = processes_of(folder.path()).into_iter().partition(is_server);
    kill_at_once(&others);
    assert!(!collector.wait().success());
    assert_eq!(processes_of(folder.path()), server, "it has no parent now");
    let collector = with_server(&database, &folder.path().join("second.log"));
    collector.said("collecting stream EVENTS");
    let said = collector.log();
    assert!(said.contains(&format!("has left its nats-server (process {}) running in ", server[0])), "{said}");
    eventually("the row", || (oracle::count(&database) == 1).then_some(()));
    // And a guard that is killed while the collector runs ends both.
    let is_guard = |pid: &u32| *pid != collector.pid() && !is_server(pid);
    kill_at_once(&processes_of(folder.path()).into_iter().filter(is_guard).collect::<Vec<_>>());
    let mut collector = collector;
    assert_eq!(collector.wait().code(), Some(1), "{}", collector.log());
    assert_eq!(processes_of(folder.path()), [0; 0]);
}
