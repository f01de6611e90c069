//! Events that vanish inside a stream before they are collected: said with their ranges and their number, whatever took them.

use std::collections::BTreeSet;

use catchment::{Collector, Config};
use serde_json::{Value, json};

use crate::support::collector::{output, stderr};
use crate::support::fixture::Fixture;
use crate::support::health::quick;
use crate::support::server::needs;
use crate::support::{eventually, oracle};

/// A fixture whose stream has these settings, with ten events that are collected.
fn fixture(settings: &Value) -> Fixture {
    let fixture = Fixture::with_stream(settings);
    let mut raw = fixture.server.raw();
    (0..10).for_each(|at| raw.send(format!("events.old.{at}"), None, format!("old-{at}")));
    raw.finish();
    fixture.drain();
    fixture
}

fn delete(fixture: &Fixture, sequences: impl IntoIterator<Item = u64>) {
    for sequence in sequences {
        fixture.ask("$JS.API.STREAM.MSG.DELETE.EVENTS", &json!({ "seq": sequence }));
    }
}

/// Sequences behind the tenth that the stream lacks, up to its last.
fn lacks(fixture: &Fixture) -> BTreeSet<u64> {
    let info = fixture.ask("$JS.API.STREAM.INFO.EVENTS", &json!({ "deleted_details": true }));
    let state = &info["state"];
    let deleted = state["deleted"].as_array().into_iter().flatten().filter_map(Value::as_u64);
    let first = state["first_seq"].as_u64().expect("a sequence");
    deleted.chain(1..first).filter(|sequence| *sequence > 10).collect()
}

/// What is said of so many events that the stream has lost.
fn never_stored(events: usize) -> String {
    match events {
        1 => "up to 1 event that was never stored".into(),
        _ => format!("up to {events} events that were never stored"),
    }
}

/// A drain stores what is there and says how many are not.
fn drained(fixture: &Fixture) -> String {
    let lacks = lacks(fixture);
    assert!(!lacks.is_empty(), "something is to vanish");
    let last = fixture.server.last_sequence("EVENTS");
    let said = fixture.drain();
    let stored: BTreeSet<u64> = oracle::sequences(&fixture.database()).into_iter().collect();
    assert_eq!(stored, (1..=last).filter(|sequence| !lacks.contains(sequence)).collect());
    assert!(said.contains(&never_stored(lacks.len())), "{lacks:?}: {said}");
    said
}

#[test]
fn single_events_that_are_deleted_are_said() {
    let fixture = fixture(&json!({}));
    fixture.publish("new", 100);
    delete(&fixture, 31..=80);
    let said = drained(&fixture);
    assert!(said.contains("no longer has 31 to 80, up to 50 events"), "{said}");
    // What was said once is not said at the next start.
    fixture.publish("newer", 1);
    assert!(!fixture.drain().contains("WARN"));
}

#[test]
fn events_deleted_at_the_end_are_reported_at_once() {
    let fixture = fixture(&json!({}));
    fixture.publish("new", 100);
    delete(&fixture, 91..=110);
    let said = drained(&fixture);
    assert!(said.contains("no longer has 91 to 110, up to 20 events"), "{said}");
}

#[test]
fn a_drain_says_what_is_gone_where_nothing_is_left() {
    let fixture = fixture(&json!({}));
    fixture.publish("new", 100);
    delete(&fixture, 11..=110);
    let said = drained(&fixture);
    assert!(said.contains("no longer has 11 to 110, up to 100 events"), "{said}");
}

#[test]
fn what_an_earlier_stream_lost_hides_nothing_of_the_next() {
    let fixture = fixture(&json!({}));
    fixture.publish("new", 500);
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": 500 }));
    let collector = fixture.collector();
    collector.said("no longer has 11 to 499");
    fixture.server.delete_stream("EVENTS");
    fixture.server.make_stream("EVENTS", &["events.>"]);
    fixture.publish("next", 100);
    delete(&fixture, 31..=80);
    eventually("the last event", || (oracle::sequences(&fixture.database()).last() == Some(&100)).then_some(()));
    let stored = oracle::payloads(&fixture.database()).iter().filter(|payload| payload.starts_with("next")).count();
    if stored < 100 {
        collector.said(&never_stored(100 - stored));
    }
    assert!(collector.stop().success());
}

#[test]
fn subjects_that_a_stream_had_before_are_no_loss() {
    let fixture = Fixture::with_stream(&json!({ "subjects": ["events.>", "old.>"] }));
    let mut raw = fixture.server.raw();
    (0..3_000).for_each(|at| raw.send(if at % 3 == 0 { "events.a" } else { "old.b" }, None, format!("{at}")));
    raw.finish();
    let config = json!({ "name": "EVENTS", "subjects": ["events.>"], "storage": "file", "retention": "limits" });
    fixture.ask("$JS.API.STREAM.UPDATE.EVENTS", &config);
    for _ in 0..2 {
        let done = output(fixture.run().arg("--drain").env("CATCHMENT_BROKER__SUBJECTS", "events.>"));
        let said = stderr(&done);
        assert!(done.status.success() && !said.contains("WARN"), "{said}");
        assert_eq!(oracle::payloads(&fixture.database()).len(), 1_000);
    }
    let gaps: u64 = oracle::open(&fixture.database())
        .query_row("SELECT count(*) FROM catchment_gaps", [], |row| row.get(0))
        .expect("SQL");
    assert_eq!(gaps, 0);
}

#[test]
fn events_purged_by_subject_are_said() {
    let fixture = fixture(&json!({}));
    let mut raw = fixture.server.raw();
    (0..100).for_each(|at| raw.send(format!("events.z{}", at % 2), None, format!("z-{at}")));
    raw.finish();
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "filter": "events.z1" }));
    drained(&fixture);
}

#[test]
fn events_over_the_limit_of_their_subject_are_said() {
    let fixture = fixture(&json!({ "max_msgs_per_subject": 3 }));
    let mut raw = fixture.server.raw();
    (0..100).for_each(|at| raw.send(format!("events.p{}", at % 5), None, format!("p-{at}")));
    raw.finish();
    drained(&fixture);
}

#[test]
fn events_rolled_up_are_said() {
    let fixture = fixture(&json!({ "allow_rollup_hdrs": true }));
    fixture.publish("new", 99);
    let rollup = b"NATS/1.0\r\nNats-Rollup: sub\r\n\r\n";
    fixture.server.raw().publish("events.test", Some(rollup), "all");
    drained(&fixture);
}

#[test]
fn events_that_expire_by_themselves_are_said() {
    if !needs((2, 11), "a time to live of a single message") {
        return;
    }
    let fixture = fixture(&json!({ "allow_msg_ttl": true }));
    let mut raw = fixture.server.raw();
    for at in 0..100 {
        let ttl = (at % 2 == 1).then_some(&b"NATS/1.0\r\nNats-TTL: 1s\r\n\r\n"[..]);
        raw.send("events.t", ttl, format!("t-{at}"));
    }
    raw.finish();
    eventually("fifty to expire", || (lacks(&fixture).len() == 50).then_some(()));
    drained(&fixture);
}

#[test]
fn what_a_stream_lacked_before_the_first_start_is_nobodys_loss() {
    let fixture = Fixture::new();
    fixture.publish("new", 100);
    delete(&fixture, 31..=80);
    let said = fixture.drain();
    assert!(!said.contains("WARN"), "{said}");
    assert_eq!(oracle::payloads(&fixture.database()).len(), 50);
}

#[test]
fn only_missing_events_of_our_subjects_are_losses() {
    let fixture = Fixture::new();
    let run = |fixture: &Fixture| {
        let done = output(fixture.run().arg("--drain").env("CATCHMENT_BROKER__SUBJECTS", "events.ours"));
        assert!(done.status.success(), "{}", stderr(&done));
        stderr(&done)
    };
    let publish = |count: usize| {
        let mut raw = fixture.server.raw();
        for at in 0..count {
            raw.send("events.ours", None, format!("ours-{at}"));
            raw.send("events.other", None, format!("other-{at}"));
        }
        raw.finish();
    };
    publish(10);
    assert!(!run(&fixture).contains("WARN"));
    publish(10);
    // Sequences 21, 23, ... are ours.
    delete(&fixture, [23, 25, 31]);
    let said = run(&fixture);
    assert!(said.contains("no longer has 23, 25, 31, up to 3 events"), "{said}");
    assert_eq!(oracle::payloads(&fixture.database()).len(), 17);
    publish(10);
    assert!(!run(&fixture).contains("WARN"), "once");
}

#[test]
fn a_running_collector_counts_what_vanished() {
    let fixture = fixture(&json!({}));
    let mut config = Config::default();
    config.broker = quick(fixture.server.url());
    config.database.path = fixture.database();
    // It takes in no more than a few events while the database is locked.
    (config.broker.prefetch.events, config.broker.prefetch.requests, config.batch.max_events) = (2, 2, 2);
    let collector = Collector::start(&config).expect("starts");
    let lock = oracle::lock(&fixture.database());
    fixture.publish("new", 500);
    delete(&fixture, 301..=400);
    assert_eq!(collector.status().lost_events, 0);
    drop(lock);
    eventually("the last event", || (oracle::position(&fixture.database()) == 510).then_some(()));
    eventually("the count", || (collector.status().lost_events == 100).then_some(()));
    assert_eq!(oracle::payloads(&fixture.database()).len(), 410);
    collector.stop(std::time::Duration::from_secs(10)).expect("stops");
}
