//! What a collector tells systemd, and the packaged files: unit, settings, container.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::collector::{Collector, signal};
use crate::support::eventually;
use crate::support::fixture::Fixture;

/// The socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn new(fixture: &Fixture) -> Self {
        let socket = UnixDatagram::bind(fixture.path("notify")).expect("binds");
        Self(socket)
    }

    fn command(fixture: &Fixture, watchdog_us: u64) -> Command {
        let mut command = fixture.run();
        command.env("NOTIFY_SOCKET", fixture.path("notify")).env("WATCHDOG_USEC", watchdog_us.to_string());
        command.env_remove("WATCHDOG_PID");
        command
    }

    /// What comes within this time, line by line.
    fn told_within(&self, time: Duration) -> Vec<String> {
        let (until, mut lines, mut message) = (Instant::now() + time, Vec::new(), [0; 4096]);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return lines;
            }
            self.0.set_read_timeout(Some(left)).expect("sets");
            if let Ok(length) = self.0.recv(&mut message) {
                lines.extend(String::from_utf8_lossy(&message[..length]).lines().map(str::to_owned));
            }
        }
    }

    /// Waits until this comes.
    fn tells(&self, words: &str) -> String {
        eventually(words, || {
            let lines = self.told_within(Duration::from_millis(100));
            lines.into_iter().find(|line| line.contains(words))
        })
    }
}

#[test]
fn systemd_reads_that_it_starts_is_ready_reloads_and_stops() {
    let fixture = Fixture::new();
    let manager = Manager::new(&fixture);
    let collector = Collector::start(Manager::command(&fixture, 0), &fixture.path("log"));
    let started = eventually("READY=1", || {
        let lines = manager.told_within(Duration::from_secs(1));
        lines.contains(&"READY=1".to_owned()).then_some(lines)
    });
    assert!(!started.contains(&"WATCHDOG=1".to_owned()), "{started:?}");
    fixture.publish("x", 3);
    let status = manager.tells("3 events committed");
    assert!(status.starts_with("STATUS=collecting stream EVENTS: "), "{status}");
    signal(collector.pid(), "HUP");
    let mut told = Vec::new();
    eventually("the reload", || {
        told.extend(manager.told_within(Duration::from_millis(100)));
        told.contains(&"READY=1".to_owned()).then_some(())
    });
    let at = |words: &str| told.iter().position(|line| line.starts_with(words));
    assert!(at("RELOADING=1") < at("READY=1") && at("MONOTONIC_USEC=").is_some(), "{told:?}");
    fixture.server.signal("STOP");
    let status = manager.tells(" · broker: ");
    assert!(status.contains("broker in trouble for"), "{status}");
    fixture.server.signal("CONT");
    collector.said("broker: well again");
    let pid = collector.pid();
    signal(pid, "TERM");
    manager.tells("STOPPING=1");
    assert!(collector.stop().success());
}

#[test]
fn the_watchdog_is_fed_while_events_are_stored_and_not_while_a_writer_hangs() {
    let fixture = Fixture::new();
    let manager = Manager::new(&fixture);
    let endless = "INSERT INTO n SELECT max(i) FROM (WITH RECURSIVE c(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM c) SELECT i FROM c)";
    let settings = format!(
        "[database]\nmigrations = 'sql'\n[[route]]\nsubject = 'events.hang'\nmax_steps = 1_000_000_000_000_000\nsql = {endless:?}\n"
    );
    std::fs::create_dir(fixture.path("sql")).expect("a folder");
    fixture.file("sql/001_n.sql", "CREATE TABLE n(i INTEGER)");
    let file = fixture.file("a.toml", settings);
    let mut command = Manager::command(&fixture, 2_000_000);
    command.current_dir(fixture.folder.path()).args(["--config", &file]);
    let collector = Collector::start(command, &fixture.path("log"));
    let fed = || manager.told_within(Duration::from_secs(3)).iter().filter(|line| *line == "WATCHDOG=1").count();
    let mut times = 0;
    eventually("food while it is idle", || {
        times += fed();
        (times >= 3).then_some(())
    });
    // It tries again and again: that is no hang.
    let locked = crate::support::oracle::lock(&fixture.database());
    fixture.publish("x", 3);
    collector.said("database: ");
    fed();
    eventually("food while the database is locked", || (fed() > 0).then_some(()));
    drop(locked);
    fixture.has(3);
    fixture.server.raw().publish_all("events.hang", &["{}".to_owned()]);
    eventually("no food", || (fed() == 0).then_some(()));
    assert_eq!((fed(), fed()), (0, 0), "and none later");
}
