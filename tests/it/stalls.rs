//! Processes that hang instead of dying, a database that somebody else holds, and stops in the middle of it.

use std::path::Path;
use std::time::{Duration, Instant};

use catchment::{Config, Error};

use crate::support::chance::Chance;
use crate::support::collector::{Collector, drain, run, signal};
use crate::support::load::{self, Load};
use crate::support::oracle;
use crate::support::server::Server;
use crate::support::{eventually, eventually_within};

/// For the machine's own delays, on top of a time that is promised.
const GRACE: Duration = Duration::from_secs(2);

/// A stopped process goes on when the test leaves, however it leaves: a failed one must not wait for it.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Self {
        signal(pid, "STOP");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

fn rows(database: &Path, count: u64) {
    eventually(&format!("{count} rows"), || (oracle::position(database) >= count).then_some(()));
}

/// A collector that takes a second's silence for a dead broker.
fn quick(server: &Server, database: &Path, log: &Path) -> Collector {
    let mut command = run(&server.url(), database);
    command.env("CATCHMENT_BROKER__SILENCE", "1s").env("CATCHMENT_BROKER__TIMEOUT", "1s");
    command.args(["--stop-timeout", "3s"]);
    Collector::start(command, log)
}

#[test]
fn a_hanging_broker_is_noticed_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let collector = quick(&server, &database, &log);
    let load = Load::start(&server, 20_000, 20_000);
    rows(&database, 1_000);
    let stopped = Stopped::new(server.pid());
    let began = Instant::now();
    collector.said("no answer for");
    let noticed = began.elapsed();
    assert!(noticed < Duration::from_secs(1) + GRACE, "noticed after {noticed:?}");
    // The next connection is accepted by the operating system and answered by nobody; that does not go on for ever either.
    collector.said("accepts connections but sent nothing");
    drop(stopped);
    rows(&database, 20_000);
    collector.said("broker: well again after");
    let kept = load.finish();
    assert!(collector.stop().success());
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_collector_whose_broker_hangs_still_ends_in_time() {
    for noticed in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
        let server = Server::start(folder.path());
        let mut collector = quick(&server, &database, &log);
        collector.said("collecting stream");
        let kept = load::publish(&server, 500);
        rows(&database, 500);
        let _stopped = Stopped::new(server.pid());
        if noticed {
            collector.said("no answer for");
        }
        let began = Instant::now();
        signal(collector.pid(), "TERM");
        let status = collector.wait();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3) + GRACE, "noticed: {noticed}; ended after {took:?}");
        assert!(status.success(), "there was nothing left to do: {status}\n{}", collector.log());
        oracle::is_exactly(&database, &kept);
    }
}

#[test]
fn stop_returns_within_its_deadline_whatever_hangs() {
    let patience = Duration::from_secs(2);
    for locked in [false, true] {
        let (folder, server) = Server::in_new_folder();
        let mut config = Config::default();
        config.broker = server.config();
        config.database.path = folder.path().join("a.db");
        config.database.busy_timeout = Duration::from_millis(200);
        let database = &config.database.path;
        let collector = catchment::Collector::start(&config).expect("starts");
        let mut kept = load::publish(&server, 500);
        rows(database, 500);
        let lock = locked.then(|| oracle::lock(database));
        if locked {
            kept.extend(load::publish_from(&server, 500, 500));
            eventually("the database's trouble to show", || collector.status().database);
        }
        let stopped = Stopped::new(server.pid());
        let began = Instant::now();
        let result = collector.stop(patience);
        let took = began.elapsed();
        drop((lock, stopped));
        assert!(took < patience + Duration::from_secs(1), "locked: {locked}; returned after {took:?}");
        match result {
            Ok(status) => assert!(!locked && status.committed == 500, "{status:?}"),
            Err(Error::StopDeadline { unfinished, .. }) => {
                assert!(locked && unfinished.contains("writer"), "{unfinished}");
            }
            Err(other) => panic!("{other}"),
        }
        // A thread that hangs may hold the database until then.
        drop(collector);
        // What was left is still in the stream.
        let collector = catchment::Collector::start(&config).expect("starts again");
        rows(database, kept.len() as u64);
        collector.stop(Duration::from_secs(10)).expect("nothing hangs any more");
        oracle::is_exactly(database, &kept);
    }
}

#[test]
fn a_collector_that_slept_doubles_no_row() {
    let mut chance = Chance::new();
    let folder = tempfile::tempdir().expect("a folder");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let collector = quick(&server, &database, &log);
    let load = Load::start(&server, 30_000, 30_000);
    for asleep in [Duration::from_millis(1_500), Duration::from_millis(2_500)] {
        rows(&database, oracle::position(&database) + chance.up_to(5_000));
        let stopped = Stopped::new(collector.pid());
        // Longer than the silence after which it gives a broker up.
        std::thread::sleep(asleep);
        drop(stopped);
    }
    rows(&database, 30_000);
    let kept = load.finish();
    assert!(collector.stop().success());
    oracle::is_exactly(&database, &kept);
}

#[test]
fn memory_stays_bounded_while_the_database_is_held() {
    hold_back(100_000, Duration::from_secs(1));
}

#[test]
#[ignore = "long; make soak runs it"]
fn soak_memory_stays_bounded_with_a_million_events() {
    hold_back(1_000_000, Duration::from_secs(60));
}

/// Holds the database locked until the collector has taken in what it will and then for `hold`, with so many events in the
/// stream.
fn hold_back(events: u64, hold: Duration) {
    const BOUND_KIB: u64 = 100 << 10;
    let folder = tempfile::tempdir().expect("a folder");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
    let server = Server::start(folder.path());
    let collector = Collector::start(run(&server.url(), &database), &log);
    collector.said("collecting stream");
    let lock = oracle::lock(&database);
    let kept = load::publish(&server, events);
    collector.said("database: ");
    let (mut taken, mut since) = (server.delivered("EVENTS"), Instant::now());
    eventually_within(hold * 2 + Duration::from_secs(60), "the collector to take in no more", &mut || {
        let now = server.delivered("EVENTS");
        if now != taken {
            (taken, since) = (now, Instant::now());
        }
        (since.elapsed() >= hold).then_some(())
    });
    assert!(taken < events, "it took in all {events}");
    let (now, highest) = collector.memory();
    println!("{taken} of {events} taken in; {now} KiB now, {highest} KiB at most");
    assert!(highest < BOUND_KIB, "{highest} KiB while the database was held");
    assert_eq!(oracle::position(&database), 0);
    drop(lock);
    eventually_within(Duration::from_secs(120), "all rows", &mut || {
        (oracle::position(&database) == events).then_some(())
    });
    let (_, highest) = collector.memory();
    assert!(highest < BOUND_KIB, "{highest} KiB when it had caught up");
    assert!(collector.stop().success());
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_signal_ends_the_collector_after_its_last_commit() {
    for name in ["INT", "TERM"] {
        let folder = tempfile::tempdir().expect("a folder");
        let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
        let server = Server::start(folder.path());
        let mut command = run(&server.url(), &database);
        command.args(["--stop-timeout", "60s"]);
        let mut collector = Collector::start(command, &log);
        collector.said("collecting stream");
        let lock = oracle::lock(&database);
        let kept = load::publish(&server, 500);
        collector.said("database: ");
        signal(collector.pid(), name);
        collector.said("stopping");
        assert_eq!(collector.ended(), None, "SIG{name} does not end it before the batch is committed");
        assert_eq!(oracle::position(&database), 0);
        drop(lock);
        assert!(collector.wait().success(), "{}", collector.log());
        assert!(oracle::position(&database) > 0, "the batch that waited is committed");
        drain(&server.url(), &database);
        oracle::is_exactly(&database, &kept);
    }
}

#[test]
fn a_second_signal_ends_the_collector_at_once_and_loses_nothing() {
    for name in ["INT", "TERM"] {
        let folder = tempfile::tempdir().expect("a folder");
        let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
        let server = Server::start(folder.path());
        let mut command = run(&server.url(), &database);
        command.args(["--stop-timeout", "60s"]);
        let mut collector = Collector::start(command, &log);
        collector.said("collecting stream");
        let lock = oracle::lock(&database);
        let kept = load::publish(&server, 500);
        collector.said("database: ");
        signal(collector.pid(), name);
        collector.said("stopping");
        let began = Instant::now();
        signal(collector.pid(), name);
        let status = collector.wait();
        assert!(began.elapsed() < GRACE, "ended after {:?}", began.elapsed());
        assert_eq!(status.code(), Some(if name == "INT" { 130 } else { 143 }));
        drop(lock);
        assert_eq!(oracle::position(&database), 0);
        drain(&server.url(), &database);
        oracle::is_exactly(&database, &kept);
    }
}
