//! Streams that drop what is acknowledged, streams that copy others: collected as completely as any.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::chance::Chance;
use crate::support::collector::{Collector, output, run, stderr};
use crate::support::fixture::Fixture;
use crate::support::load::{self, Load};
use crate::support::oracle;
use crate::support::server::needs;
use crate::support::{eventually, eventually_within};

/// A fixture whose stream `EVENTS` keeps what somebody is interested in, until it is acknowledged.
fn interest() -> Fixture {
    let fixture = Fixture::new();
    fixture.server.delete_stream("EVENTS");
    let config = json!({ "name": "EVENTS", "subjects": ["events.>"], "storage": "file", "retention": "interest" });
    fixture.ask("$JS.API.STREAM.CREATE.EVENTS", &config);
    fixture
}

fn info(fixture: &Fixture) -> Value {
    fixture.ask("$JS.API.STREAM.INFO.EVENTS", &Value::Null)
}

fn kept(fixture: &Fixture) -> u64 {
    info(fixture)["state"]["messages"].as_u64().expect("a number")
}

/// How many messages the stream's one consumer has sent and not heard back of.
fn unacknowledged(fixture: &Fixture) -> u64 {
    let answer = fixture.ask("$JS.API.CONSUMER.LIST.EVENTS", &Value::Null);
    answer["consumers"][0]["num_ack_pending"].as_u64().unwrap_or(0)
}

fn reaches(fixture: &Fixture, rows: u64) {
    let database = fixture.database();
    eventually(&format!("{rows} rows"), || (oracle::position(&database) >= rows).then_some(()));
}

fn is_empty(fixture: &Fixture) {
    eventually("the stream to have let go of all", || (kept(fixture) == 0).then_some(()));
}

#[test]
fn a_stream_with_interest_retention_lets_go_of_what_is_committed_and_of_nothing_before() {
    let fixture = interest();
    let collector = fixture.collector();
    collector.said("collecting stream EVENTS");
    let lock = oracle::lock(&fixture.database());
    let events = load::publish(&fixture.server, 500);
    eventually("the events to be taken in", || (unacknowledged(&fixture) > 0).then_some(()));
    collector.said("database: ");
    assert_eq!((kept(&fixture), oracle::position(&fixture.database())), (500, 0), "nothing is committed");
    drop(lock);
    reaches(&fixture, 500);
    is_empty(&fixture);
    eventually("all to be acknowledged", || (unacknowledged(&fixture) == 0).then_some(()));
    assert!(collector.stop().success());
    oracle::is_exactly(&fixture.database(), &events);
}

#[test]
fn what_a_stream_with_interest_retention_is_given_while_its_collector_is_stopped_is_kept() {
    let fixture = interest();
    let collector = fixture.collector();
    collector.said("collecting stream EVENTS");
    let mut events = load::publish(&fixture.server, 300);
    reaches(&fixture, 300);
    is_empty(&fixture);
    assert!(collector.stop().success());
    assert_eq!(fixture.server.consumers("EVENTS").len(), 1, "it stands for our interest");
    events.extend(load::publish_from(&fixture.server, 300, 300));
    assert_eq!(kept(&fixture), 300);
    let collector = fixture.collector();
    reaches(&fixture, 600);
    is_empty(&fixture);
    assert_eq!(fixture.server.consumers("EVENTS").len(), 1);
    // After a kill as after a stop.
    collector.kill();
    events.extend(load::publish_from(&fixture.server, 600, 300));
    let collector = fixture.collector();
    reaches(&fixture, 900);
    is_empty(&fixture);
    assert!(collector.stop().success());
    assert_eq!(fixture.server.consumers("EVENTS").len(), 1);
    oracle::is_exactly(&fixture.database(), &events);
}

#[test]
fn a_drain_of_a_stream_with_interest_retention_ends_with_all_that_was_in_it() {
    let fixture = interest();
    // Its consumer, made by the first run, is what the stream keeps events for.
    fixture.drain();
    let events = load::publish(&fixture.server, 2_000);
    fixture.drain();
    oracle::is_exactly(&fixture.database(), &events);
    is_empty(&fixture);
}

/// Lets events flow and kills the collector, the broker or both.
fn survives(kills: u64, collector_dies: bool, broker_dies: bool) {
    const EVENTS: u64 = 20_000;
    let mut chance = Chance::new();
    let mut fixture = interest();
    let (database, log) = (fixture.database(), fixture.folder.path().join("log"));
    let url = fixture.server.url();
    let start = || {
        let mut command = run(&url, &database);
        command.env("CATCHMENT_BATCH__MAX_EVENTS", "100");
        Collector::start(command, &log)
    };
    let mut collector = start();
    collector.said("collecting stream EVENTS");
    // Somebody else's, who takes nothing: all stays in the stream for it.
    let other = json!({ "stream_name": "EVENTS", "config": { "durable_name": "other", "ack_policy": "explicit" } });
    fixture.ask("$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.other", &other);
    let load = Load::start(&fixture.server, EVENTS, 2_000);
    let reaches = |rows: u64| {
        eventually_within(Duration::from_secs(60), &format!("{rows} rows"), &mut || {
            let now = oracle::position(&database);
            load.committed(now);
            (now >= rows).then_some(())
        });
    };
    for _ in 0..kills {
        reaches(oracle::position(&database) + chance.up_to(EVENTS / kills / 2));
        // Where both die, the collector does so first; it starts when the broker is back.
        let survivor = if collector_dies {
            collector.kill();
            None
        } else {
            Some(collector)
        };
        if broker_dies {
            fixture.server.kill();
            fixture.server.restart();
        }
        collector = survivor.unwrap_or_else(start);
    }
    reaches(EVENTS);
    let events = load.finish();
    eventually("nothing of ours to be unacknowledged", || {
        let answer = fixture.ask("$JS.API.CONSUMER.LIST.EVENTS", &Value::Null);
        let consumers = answer["consumers"].as_array().cloned().unwrap_or_default();
        let ours: Vec<_> = consumers.iter().filter(|consumer| consumer["name"] != "other").collect();
        (ours.len() == 1 && ours[0]["num_ack_pending"] == 0 && ours[0]["num_pending"] == 0).then_some(())
    });
    assert!(collector.stop().success());
    oracle::is_exactly(&database, &events);
    // Killed itself, an old server forgets what another consumer has not had yet.
    if broker_dies && !needs((2, 10), "interest retention that outlives a kill") {
        return;
    }
    assert_eq!(kept(&fixture), EVENTS, "kept for the other");
    let other = fixture.ask("$JS.API.CONSUMER.INFO.EVENTS.other", &Value::Null);
    assert_eq!((&other["num_pending"], &other["delivered"]["consumer_seq"]), (&json!(EVENTS), &json!(0)));
}

#[test]
fn a_collector_of_a_stream_with_interest_retention_killed_at_any_moment_loses_and_doubles_nothing() {
    survives(5, true, false);
}

#[test]
fn a_broker_with_interest_retention_killed_at_any_moment_costs_and_doubles_nothing() {
    survives(3, false, true);
}

#[test]
fn collector_and_broker_with_interest_retention_killed_together_lose_and_double_nothing() {
    survives(3, true, true);
}

#[test]
fn two_databases_of_one_stream_with_interest_retention_have_it_each() {
    let fixture = interest();
    let other = fixture.folder.path().join("b.db");
    let first = fixture.collector();
    let second = Collector::start(run(&fixture.server.url(), &other), &fixture.folder.path().join("second.log"));
    first.said("collecting stream EVENTS");
    second.said("collecting stream EVENTS");
    let events = load::publish(&fixture.server, 1_000);
    reaches(&fixture, 1_000);
    eventually("the other's rows", || (oracle::position(&other) == 1_000).then_some(()));
    is_empty(&fixture);
    assert!(first.stop().success() && second.stop().success());
    assert_eq!(fixture.server.consumers("EVENTS").len(), 2);
    oracle::is_exactly(&fixture.database(), &events);
    oracle::is_exactly(&other, &events);
}

#[test]
fn a_mirror_is_collected_and_never_changed() {
    let fixture = Fixture::new();
    let config = json!({ "name": "MIRROR", "storage": "file", "retention": "limits", "mirror": { "name": "EVENTS" } });
    let before = fixture.ask("$JS.API.STREAM.CREATE.MIRROR", &config);
    let mut all = fixture.publish("first", 500);
    eventually("the mirror to follow", || (fixture.server.last_sequence("MIRROR") == 500).then_some(()));
    let done = output(fixture.run().args(["--stream", "MIRROR", "--drain"]));
    assert!(done.status.success(), "{}", stderr(&done));
    fixture.holds_exactly(&all);
    let mut command = fixture.run();
    command.args(["--stream", "MIRROR"]);
    let collector = Collector::start(command, &fixture.folder.path().join("log"));
    all.extend(fixture.publish("second", 500));
    fixture.has(1_000);
    assert!(collector.stop().success());
    fixture.holds_exactly(&all);
    let after = fixture.ask("$JS.API.STREAM.INFO.MIRROR", &Value::Null);
    assert_eq!(before["config"], after["config"]);
    assert_eq!(fixture.server.consumers("EVENTS"), Vec::<String>::new(), "the origin is in nobody's hands");
}

#[test]
fn a_stream_of_other_streams_is_collected_and_never_changed() {
    let fixture = Fixture::new();
    fixture.server.make_stream("MORE", &["more.>"]);
    let config = json!({
        "name": "BOTH", "storage": "file", "retention": "limits",
        "sources": [{ "name": "EVENTS" }, { "name": "MORE" }],
    });
    let before = fixture.ask("$JS.API.STREAM.CREATE.BOTH", &config);
    let mut all = fixture.publish("event", 300);
    let more: Vec<String> = (0..300).map(|n| format!("more-{n}")).collect();
    fixture.server.raw().publish_all("more.test", &more);
    all.extend(more);
    eventually("both to be there", || (fixture.server.last_sequence("BOTH") == 600).then_some(()));
    let done = output(fixture.run().args(["--stream", "BOTH", "--drain"]).env("CATCHMENT_BROKER__SUBJECTS", ">"));
    assert!(done.status.success(), "{}", stderr(&done));
    // In whatever order the one came between the other, each in its own.
    let rows = oracle::payloads(&fixture.database());
    assert_eq!(rows.len(), 600);
    for kind in ["event-", "more-"] {
        let of = |payloads: &[String]| -> Vec<String> {
            payloads.iter().filter(|payload| payload.starts_with(kind)).cloned().collect()
        };
        assert_eq!(of(&rows), of(&all));
    }
    oracle::holds(&fixture.database(), &all);
    let after = fixture.ask("$JS.API.STREAM.INFO.BOTH", &Value::Null);
    assert_eq!(before["config"], after["config"]);
}
