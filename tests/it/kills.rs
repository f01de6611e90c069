//! Processes that die at any moment: what the stream has acknowledged is in the table once, in order.
//!
//! A killed process is not a power cut: what it had written is still in the operating system's hands.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use catchment::record::{FailureReason, FlushError, Overflow};
use catchment::{Event, NatsRecorder, NatsRecorderConfig, Recorder};

use crate::support::chance::Chance;
use crate::support::collector::{self, Collector, catchment, drain, run, stderr};
use crate::support::load::{self, Load, payload};
use crate::support::oracle::{self, Kept};
use crate::support::server::Server;
use crate::support::{eventually, eventually_within};

/// Who is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Collector,
    Broker,
    Both,
}

#[test]
fn a_collector_killed_at_any_moment_loses_and_doubles_nothing() {
    survive(Victim::Collector, 5, 50_000);
}

#[test]
fn a_broker_killed_at_any_moment_loses_no_event() {
    survive(Victim::Broker, 3, 40_000);
}

#[test]
fn collector_and_broker_killed_together_lose_and_double_nothing() {
    survive(Victim::Both, 3, 40_000);
}

#[test]
#[ignore = "long; make soak runs it"]
fn soak_a_collector_killed_thirty_times() {
    survive(Victim::Collector, 30, 1_000_000);
}

#[test]
#[ignore = "long; make soak runs it"]
fn soak_a_broker_killed_ten_times() {
    survive(Victim::Broker, 10, 1_000_000);
}

#[test]
#[ignore = "long; make soak runs it"]
fn soak_both_killed_ten_times() {
    survive(Victim::Both, 10, 1_000_000);
}

/// Lets events flow and kills at random moments, each time after at least one new row and while there is more to do.
fn survive(victim: Victim, kills: u64, events: u64) {
    /// How far the publisher runs ahead of the rows: it has events to give until the last kill.
    const LEAD: u64 = 3_000;
    let mut chance = Chance::new();
    let folder = tempfile::tempdir().expect("a folder");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
    let mut server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let load = Load::start(&server, events, LEAD);
    let url = server.url();
    let start = || {
        let mut command = run(&url, &database);
        // Small batches: many commits to die in, and always more to do.
        command.env("CATCHMENT_BATCH__MAX_EVENTS", "100");
        Collector::start(command, &log)
    };
    let mut collector = Some(start());
    // So that even the longest ways from kill to kill leave events to flow.
    let most = (events / kills - 2 * LEAD) * 3 / 4;
    let mut hits = 0;
    while hits < kills {
        let running = collector.get_or_insert_with(start);
        let rows = reaches(oracle::position(&database) + chance.up_to(most), running, &database, &load);
        assert!(load.handed_over() < events, "{hits} of {kills} kills before the events ran out at {rows} rows");
        // From here to the kill nobody tells the publisher how far the rows are; it is to be in full swing.
        load.committed(rows + LEAD);
        std::thread::sleep(Duration::from_millis(2) + chance.time(Duration::from_millis(5)));
        let (acknowledged, flowing) = (load.acknowledged(), !load.is_held_back());
        if let Some(running) = collector.take_if(|_| victim != Victim::Broker) {
            running.kill();
        }
        if victim != Victim::Collector {
            server.kill();
            std::thread::sleep(chance.time(Duration::from_millis(300)));
            server.restart();
        }
        let rows = oracle::position(&database);
        // A collector that has caught up dies no interesting death, nor does a broker that is given nothing.
        let hit = flowing && (victim == Victim::Broker || rows < acknowledged);
        hits += u64::from(hit);
        println!("killed at {rows} rows, {acknowledged} acknowledged{}", if hit { "" } else { ": not counted" });
    }
    let mut collector = collector.unwrap_or_else(start);
    reaches(events, &mut collector, &database, &load);
    let kept = load.finish();
    assert_eq!(kept.len() as u64, events);
    assert!(collector.stop().success(), "ends well");
    oracle::is_exactly(&database, &kept);
}

/// Waits until there are so many rows, and lets the publisher go on meanwhile.
fn reaches(rows: u64, collector: &mut Collector, database: &Path, load: &Load) -> u64 {
    let log = collector.log();
    let mut last = 0;
    eventually_within(Duration::from_secs(300), &format!("{rows} rows; the log so far:\n{log}"), &mut || {
        if let Some(status) = collector.ended() {
            panic!("the collector ended by itself with {status}:\n{}", collector.log());
        }
        last = oracle::position(database);
        load.committed(last);
        (last >= rows).then_some(last)
    })
}

/// Somebody else on the broker's port who hangs up on everybody, and counts.
struct Impostor {
    visits: Arc<AtomicU64>,
    over: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Impostor {
    fn start(port: u16) -> Self {
        let listener = eventually("the port to be free", || TcpListener::bind(("127.0.0.1", port)).ok());
        let (visits, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counter, ends) = (Arc::clone(&visits), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            for visitor in listener.incoming() {
                drop(visitor);
                if ends.load(Ordering::Relaxed) == 1 {
                    return;
                }
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { visits, over, thread }
    }

    /// Waits until more have come than the client's own sixty attempts would have been, and leaves the port.
    fn outlasts_the_client(self) {
        eventually("more than sixty attempts", || (self.visits.load(Ordering::Relaxed) > 70).then_some(()));
        self.over.store(1, Ordering::Relaxed);
        // Whoever comes next, for each party here tries again and again, ends it.
        self.thread.join().expect("ends");
    }
}

#[test]
fn a_collector_recovers_after_the_clients_60_attempts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
    let mut server = Server::start(folder.path());
    let mut command = run(&server.url(), &database);
    command.env("CATCHMENT_BROKER__RETRY", "10ms");
    let collector = Collector::start(command, &log);
    collector.said("collecting stream");
    let mut kept = load::publish(&server, 500);
    eventually("the rows before it", || (oracle::position(&database) == 500).then_some(()));
    server.kill();
    Impostor::start(server.port()).outlasts_the_client();
    server.restart();
    kept.extend(load::publish_from(&server, 500, 500));
    eventually("the rows after it", || (oracle::position(&database) == 1_000).then_some(()));
    collector.said("well again after");
    assert!(collector.stop().success());
    oracle::is_exactly(&database, &kept);
}

/// The client's own flush thread looks up every two minutes only.
#[test]
#[ignore = "long; make soak runs it"]
fn soak_lost_connections_leave_no_threads_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
    let mut server = Server::start(folder.path());
    let collector = Collector::start(run(&server.url(), &database), &log);
    collector.said("collecting stream");
    let mut kept = load::publish(&server, 10);
    eventually("the first rows", || (oracle::position(&database) == 10).then_some(()));
    let before = collector.threads();
    for round in 1..=5 {
        server.kill();
        server.restart();
        kept.extend(load::publish_from(&server, round * 10, 10));
        eventually("the next rows", || (oracle::position(&database) == (round + 1) * 10).then_some(()));
    }
    eventually_within(Duration::from_secs(180), "as many threads as before", &mut || {
        (collector.threads() <= before).then_some(())
    });
    assert!(collector.stop().success());
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_recorder_recovers_after_the_clients_60_attempts() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let mut broker = server.config();
    broker.retry = Duration::from_millis(10);
    let mut config = NatsRecorderConfig::default();
    config.broker = broker;
    let recorder = NatsRecorder::open(config).expect("connects");
    let mut account = load::Account::default();
    (0..500).for_each(|number| account.record(&recorder, payload(number)));
    recorder.flush(Duration::from_secs(60)).expect("before it");
    server.kill();
    (500..1_000).for_each(|number| account.record(&recorder, payload(number)));
    Impostor::start(server.port()).outlasts_the_client();
    (1_000..1_500).for_each(|number| account.record(&recorder, payload(number)));
    server.restart();
    let kept = account.close(&recorder);
    drain(&server.url(), &database);
    assert_eq!(kept.len(), 1_500);
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_second_collector_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().expect("a folder");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
    let server = Server::start(folder.path());
    let first = Collector::start(run(&server.url(), &database), &log);
    first.said("collecting stream");
    let refused = collector::output(&mut run(&server.url(), &database));
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    let holder = format!("process {} uses it already", first.pid());
    assert!(said.contains(&holder) && said.contains("a.db"), "{said}");
    let kept = load::publish(&server, 300);
    eventually("the first to go on", || (oracle::position(&database) == 300).then_some(()));
    first.kill();
    drain(&server.url(), &database);
    oracle::is_exactly(&database, &kept);
}

#[test]
fn events_reported_by_publish_survive_a_kill_of_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    for round in 1..=3 {
        let mut command = catchment();
        command.args(["publish", "--server", &server.url(), "events.load", "--count", "2000"]);
        let done = collector::output(&mut command);
        server.kill();
        assert!(done.status.success(), "{}", stderr(&done));
        server.restart();
        assert_eq!(server.last_sequence("EVENTS"), round * 2_000);
    }
    drain(&server.url(), &database);
    assert_eq!(oracle::count(&database), 6_000);
}

/// A recorder with room for a hundred events.
fn small_recorder(server: &Server, overflow: Overflow) -> NatsRecorder {
    let mut config = NatsRecorderConfig::default();
    config.broker = server.config();
    config.buffer_events = 100;
    config.overflow = overflow;
    NatsRecorder::open(config).expect("connects")
}

#[test]
fn a_full_recorder_gives_the_event_back_and_keeps_those_it_took() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let recorder = small_recorder(&server, Overflow::Refuse);
    server.kill();
    let mut account = load::Account::default();
    (0..100).for_each(|number| account.record(&recorder, payload(number)));
    let refused = recorder.record(Event::new("events.load", "one too many")).expect_err("there is no room");
    assert_eq!(refused.event.payload(), b"one too many");
    assert!(matches!(refused.reason, FailureReason::BufferFull { events: 100, .. }), "{refused}");
    let late = recorder.flush(Duration::from_millis(100)).expect_err("there is no broker");
    assert!(matches!(late, FlushError::Deadline { waiting: 100, .. }), "{late}");
    server.restart();
    recorder.flush(Duration::from_secs(60)).expect("the broker is back");
    account.record(&recorder, String::from_utf8(refused.event.payload().to_vec()).expect("text"));
    let kept = account.close(&recorder);
    drain(&server.url(), &database);
    assert_eq!(kept.len(), 101);
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_full_recorder_that_may_block_waits_for_the_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let recorder = small_recorder(&server, Overflow::Block(Duration::from_secs(60)));
    server.kill();
    let mut account = load::Account::default();
    (0..100).for_each(|number| account.record(&recorder, payload(number)));
    let handed_over = AtomicU64::new(100);
    let kept: Vec<Kept> = std::thread::scope(|scope| {
        let counter = &handed_over;
        let publisher = scope.spawn(move || {
            for number in 100..1_000 {
                account.record(&recorder, payload(number));
                counter.fetch_add(1, Ordering::Relaxed);
            }
            account.close(&recorder)
        });
        // Time enough for a `record` that does not wait to come back.
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(handed_over.load(Ordering::Relaxed), 100, "there is no room before the broker is back");
        server.restart();
        publisher.join().expect("no failure")
    });
    drain(&server.url(), &database);
    assert_eq!(kept.len(), 1_000);
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_blocking_recorder_returns_the_event_at_its_deadline() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let patience = Duration::from_millis(300);
    let recorder = small_recorder(&server, Overflow::Block(patience));
    server.kill();
    for number in 0..100 {
        recorder.record(Event::new("events.load", payload(number))).expect("there is room");
    }
    let began = std::time::Instant::now();
    let refused = recorder.record(Event::new("events.load", "late")).expect_err("there is no room");
    assert!(began.elapsed() >= patience, "{:?}", began.elapsed());
    assert_eq!(refused.event.payload(), b"late");
    let closed = recorder.close(Duration::from_millis(100)).expect_err("nothing was sent");
    let FlushError::Failed { failed, .. } = closed else { panic!("{closed}") };
    let payloads: Vec<_> = failed.iter().map(|failure| failure.event.payload().to_vec()).collect();
    assert_eq!(payloads, (0..100).map(|number| payload(number).into_bytes()).collect::<Vec<_>>(), "all come back");
}
