//! A cluster of three whose servers leave and whose leaders change: whoever is connected goes on with another server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use catchment::config::{BrokerConfig, Mode};
use catchment::record::Identity;
use catchment::{Collector, Config, Event, Receipt, Recorder};
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::collector::Collector as Process;
use crate::support::health::{quick, stays_well, well};
use crate::support::load::{self, Account, Load, payload};
use crate::support::partitioned::Partitions;
use crate::support::server::{Server, needs};
use crate::support::{eventually, eventually_within, oracle, with};

/// How long an election may take, and what follows from it: the servers wait for up to nine seconds themselves.
const ELECTION: Duration = Duration::from_secs(60);

struct Fixture {
    folder: tempfile::TempDir,
    cluster: Cluster,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let cluster = Cluster::start(folder.path());
        Self { folder, cluster }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("a.db")
    }

    /// A configuration with these servers, the first of them first.
    fn config(&self, servers: &[usize]) -> BrokerConfig {
        let urls = self.cluster.urls();
        with(quick(""), |config| config.servers = servers.iter().map(|at| urls[*at].clone()).collect())
    }

    fn collector(&self, servers: &[usize]) -> Collector {
        collector(self.config(servers), self.database())
    }
}

fn collector(broker: BrokerConfig, database: PathBuf) -> Collector {
    let mut config = Config::default();
    config.broker = broker;
    config.database.path = database;
    Collector::start(&config).expect("starts")
}

/// Waits for so many rows and lets the publisher go on meanwhile.
fn reaches(rows: u64, database: &Path, load: &Load) {
    eventually_within(ELECTION, &format!("{rows} rows"), &mut || {
        let now = oracle::position(database);
        load.committed(now);
        (now >= rows).then_some(())
    });
}

#[test]
fn leaders_that_step_down_under_load_cost_and_double_nothing() {
    const EVENTS: u64 = 20_000;
    let fixture = Fixture::new();
    let (database, collector) = (fixture.database(), fixture.collector(&[0, 1, 2]));
    let load = Load::start_on(fixture.config(&[2, 1, 0]), EVENTS, 2_000);
    for round in 1..=3 {
        reaches(round * 3_000, &database, &load);
        fixture.cluster.step_down();
        let names = fixture.cluster.ask_any("$JS.API.CONSUMER.NAMES.EVENTS", &Value::Null).unwrap_or_default();
        for name in names["consumers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // It may be gone again, or without a leader at the moment.
            let _ = fixture.cluster.ask_any(&format!("$JS.API.CONSUMER.LEADER.STEPDOWN.EVENTS.{name}"), &Value::Null);
        }
    }
    reaches(EVENTS, &database, &load);
    let kept = load.finish();
    stays_well(|| collector.health());
    collector.stop(Duration::from_secs(10)).expect("stops");
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_leader_killed_under_load_costs_and_doubles_nothing() {
    const EVENTS: u64 = 20_000;
    let mut fixture = Fixture::new();
    let leader = fixture.cluster.leader();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    // Both are connected to the one that dies.
    let all = [leader, others[0], others[1]];
    let (database, collector) = (fixture.database(), fixture.collector(&all));
    let load = Load::start_on(fixture.config(&all), EVENTS, 2_000);
    reaches(3_000, &database, &load);
    fixture.cluster.server(leader).kill();
    reaches(10_000, &database, &load);
    assert_ne!(fixture.cluster.leader(), leader);
    fixture.cluster.server(leader).restart();
    reaches(EVENTS, &database, &load);
    let kept = load.finish();
    well(|| collector.health());
    collector.stop(Duration::from_secs(10)).expect("stops");
    oracle::is_exactly(&database, &kept);
}

#[test]
fn leaders_killed_or_stepping_down_cost_no_event_of_a_batch() {
    const EVENTS: u64 = 30_000;
    if !needs((2, 14), "batches") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let settings = json!({ "storage": "file", "num_replicas": 3, "allow_batched": true });
    let mut cluster = Cluster::start_with(folder.path(), &settings);
    cluster.is_in_step();
    let database = folder.path().join("a.db");
    let leader = cluster.leader();
    // Both are connected to the one that dies.
    let urls = cluster.urls();
    let broker = with(quick(""), |config| {
        config.servers = [leader, (leader + 1) % 3, (leader + 2) % 3].map(|at| urls[at].clone()).into();
    });
    let collector = collector(broker.clone(), database.clone());
    let recorder = load::patient_with(broker, Identity::Database);
    let committed = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&committed);
    let publisher = std::thread::spawn(move || {
        let record = |number: u64| {
            while number >= seen.load(Ordering::Relaxed) + 8_000 {
                std::thread::sleep(Duration::from_millis(1));
            }
            recorder.record(Event::new("events.load", payload(number))).expect("taken")
        };
        let receipts: Vec<Receipt> = (0..EVENTS).map(record).collect();
        recorder.close(ELECTION).expect("all are in the stream");
        for receipt in receipts {
            receipt.wait(Duration::ZERO).expect("stored");
        }
    });
    let reaches = |rows: u64| {
        eventually_within(ELECTION, &format!("{rows} rows"), &mut || {
            let now = oracle::count(&database);
            committed.store(now, Ordering::Relaxed);
            (now >= rows).then_some(())
        });
    };
    reaches(3_000);
    cluster.server(leader).kill();
    reaches(12_000);
    cluster.server(leader).restart();
    cluster.is_in_step();
    cluster.step_down();
    reaches(EVENTS);
    publisher.join().expect("it published");
    collector.stop(Duration::from_secs(10)).expect("stops");
    let expected: BTreeSet<String> = (0..EVENTS).map(payload).collect();
    let found = oracle::payloads(&database);
    assert_eq!(found.len() as u64, EVENTS, "none twice");
    assert!(found.into_iter().collect::<BTreeSet<_>>() == expected, "each is there");
}

#[test]
fn a_lost_server_is_replaced_by_one_learnt_from_it() {
    let mut fixture = Fixture::new();
    // One that does not lead: only the connection is at stake.
    let known = (fixture.cluster.leader() + 1) % 3;
    let (database, collector) = (fixture.database(), fixture.collector(&[known]));
    let recorder = load::patient(fixture.config(&[known]));
    let mut account = Account::default();
    (0..500).for_each(|number| account.record(&recorder, payload(number)));
    recorder.flush(Duration::from_secs(20)).expect("all is well");
    eventually("the rows before", || (oracle::position(&database) == 500).then_some(()));
    fixture.cluster.server(known).kill();
    (500..1_000).for_each(|number| account.record(&recorder, payload(number)));
    recorder.flush(ELECTION).expect("sent to a server that it was told of");
    eventually_within(ELECTION, "the rows after", &mut || (oracle::position(&database) == 1_000).then_some(()));
    well(|| collector.health());
    well(|| recorder.health());
    let kept = account.close(&recorder);
    collector.stop(Duration::from_secs(10)).expect("stops");
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_server_in_lame_duck_mode_is_left_for_another() {
    let mut fixture = Fixture::new();
    let leaving = (fixture.cluster.leader() + 1) % 3;
    let all = [leaving, (leaving + 1) % 3, (leaving + 2) % 3];
    let (database, collector) = (fixture.database(), fixture.collector(&all));
    let load = Load::start_on(fixture.config(&all), 10_000, 1_000);
    reaches(2_000, &database, &load);
    fixture.cluster.server(leaving).signal("USR2");
    let server = fixture.cluster.server(leaving);
    eventually("it to end", || {
        load.committed(oracle::position(&database));
        server.has_ended().then_some(())
    });
    reaches(10_000, &database, &load);
    let kept = load.finish();
    stays_well(|| collector.health());
    collector.stop(Duration::from_secs(10)).expect("stops");
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_core_recorder_leaves_a_lame_duck_server_without_doubt() {
    let mut fixture = Fixture::new();
    let config = with(fixture.config(&[0, 1, 2]), |config| config.mode = Mode::Core);
    let recorder = load::patient(config);
    let record = |number| recorder.record(Event::new("events.load", payload(number))).expect("taken");
    let mut receipts: Vec<_> = (0..1_000).map(record).collect();
    fixture.cluster.server(0).signal("USR2");
    let server = fixture.cluster.server(0);
    eventually("it to end", || {
        receipts.push(record(receipts.len() as u64));
        server.has_ended().then_some(())
    });
    for receipt in receipts {
        receipt.wait(ELECTION).expect("read by this server or the next");
    }
    stays_well(|| recorder.health());
}

#[test]
fn the_only_server_in_lame_duck_mode_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "jetstream: enabled\nlame_duck_duration: \"30s\"\nlame_duck_grace_period: \"500ms\"\n";
    let mut server = Server::configured(folder.path(), text);
    server.make_stream("EVENTS", &["events.>"]);
    let database = folder.path().join("a.db");
    let (collector, recorder) = (collector(quick(server.url()), database.clone()), load::patient(quick(server.url())));
    let mut account = Account::default();
    (0..500).for_each(|number| account.record(&recorder, payload(number)));
    recorder.flush(Duration::from_secs(20)).expect("all is well");
    server.signal("USR2");
    (500..600).for_each(|number| account.record(&recorder, payload(number)));
    eventually("it to end", || server.has_ended().then_some(()));
    (600..1_000).for_each(|number| account.record(&recorder, payload(number)));
    eventually("that to be noticed", || (!collector.health().is_well() && !recorder.health().is_well()).then_some(()));
    server.restart();
    let kept = account.close(&recorder);
    assert_eq!(kept.len(), 1_000);
    eventually("all rows", || (oracle::position(&database) == 1_000).then_some(()));
    well(|| collector.health());
    collector.stop(Duration::from_secs(10)).expect("stops");
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_recorder_that_starts_while_a_leader_is_elected_waits_for_it() {
    let mut fixture = Fixture::new();
    let leader = fixture.cluster.leader();
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    fixture.cluster.server(leader).kill();
    let recorder = load::patient(fixture.config(&others));
    let record =
        |number: u64| recorder.record(Event::new(format!("events.load.{number}"), payload(number))).expect("taken");
    let receipts: Vec<Receipt> = (0..1_000).map(record).collect();
    for receipt in receipts {
        receipt.wait(ELECTION).expect("stored by the next leader");
    }
    stays_well(|| recorder.health());
}

/// A recorder that publishes to subjects of its own, `events.NAME.0` to `events.NAME.9` in turn, at most so many events ahead of the rows.
/// Returns subject, payload and sequence of each event.
fn publisher(
    config: BrokerConfig,
    name: &'static str,
    total: u64,
    rows: &Arc<AtomicU64>,
) -> JoinHandle<Vec<(String, String, u64)>> {
    const LEAD: u64 = 1_500;
    let rows = Arc::clone(rows);
    std::thread::spawn(move || {
        let recorder = load::patient(config);
        let record = |number: u64| -> (String, String, Receipt) {
            while number >= rows.load(Ordering::Relaxed) / 2 + LEAD {
                std::thread::sleep(Duration::from_millis(1));
            }
            let (subject, payload) = (format!("events.{name}.{}", number % 10), format!("{name}-{number}"));
            let receipt = recorder.record(Event::new(subject.as_str(), payload.as_str())).expect("taken");
            (subject, payload, receipt)
        };
        let open: Vec<_> = (0..total).map(record).collect();
        recorder.close(ELECTION).expect("all are in the stream");
        let sequence =
            |receipt: Receipt| receipt.wait(Duration::ZERO).expect("stored").sequence().expect("in a stream");
        open.into_iter().map(|(subject, payload, receipt)| (subject, payload, sequence(receipt))).collect()
    })
}

#[test]
fn four_partitions_lose_and_double_nothing_while_a_server_dies_and_a_database_moves() {
    const EACH: u64 = 6_000;
    if !needs((2, 12), "partitions of whole subjects") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start_partitioned(folder.path(), 4);
    let leader = cluster.leader();
    // All are connected to the server that dies.
    let urls: Vec<String> = [leader, (leader + 1) % 3, (leader + 2) % 3].map(|at| cluster.urls()[at].clone()).into();
    let settings = format!("servers = {urls:?}\nsubjects = [\"events.>\"]\n");
    let mut all = Partitions::new(folder.path(), "", 4, &settings);
    let start = |all: &Partitions, partition: u32| {
        Process::start(all.command(partition, &["run"]), &folder.path().join(format!("p{partition}.log")))
    };
    let mut collectors: Vec<Process> = (0..4).map(|partition| start(&all, partition)).collect();
    let rows = Arc::new(AtomicU64::new(0));
    let broker = with(quick(""), |config| config.servers.clone_from(&urls));
    let publishers = ["ann", "bob"].map(|name| publisher(broker.clone(), name, EACH, &rows));
    let reaches = |all: &Partitions, wanted: u64| {
        eventually_within(ELECTION, &format!("{wanted} rows"), &mut || {
            let now = all.count();
            rows.store(now, Ordering::Relaxed);
            (now >= wanted).then_some(())
        });
    };
    reaches(&all, 2_000);
    cluster.server(leader).kill();
    reaches(&all, 5_000);
    // A collector stops, its database moves, and another one continues there.
    assert!(collectors.remove(2).stop().success());
    all.move_to(2, &folder.path().join("elsewhere"));
    collectors.push(start(&all, 2));
    cluster.server(leader).restart();
    reaches(&all, 8_000);
    // Another one is killed and started again.
    collectors.remove(0).kill();
    collectors.push(start(&all, 0));
    reaches(&all, 2 * EACH);
    cluster.is_in_step();
    let mut published: Vec<(String, String, u64)> =
        publishers.into_iter().flat_map(|publisher| publisher.join().expect("it published")).collect();
    for collector in collectors {
        assert!(collector.stop().success());
    }
    // Of each subject, in the order of the stream.
    published.sort_by_key(|(_, _, sequence)| *sequence);
    let events: Vec<_> = published.into_iter().map(|(subject, payload, _)| (subject, payload)).collect();
    assert_eq!(events.len() as u64, 2 * EACH);
    all.hold_exactly(&events);
    (0..4).for_each(|partition| oracle::sound(all.database(partition)));
}
