//! A cluster of three whose servers leave and whose leaders change: whoever is connected goes on with another server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use catchment::config::{BrokerConfig, Mode};
use catchment::{Collector, Config, Event, Recorder};
use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::health::{quick, stays_well, well};
use crate::support::load::{self, Account, Load, payload};
use crate::support::server::Server;
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
