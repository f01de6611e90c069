//! Streams that are purged or trimmed while they are collected: said with the size, and never waited for.

use serde_json::json;

use crate::support::collector::{Collector, run};
use crate::support::fixture::Fixture;
use crate::support::proxy::Proxy;
use crate::support::{eventually, oracle};

/// More than a collector takes in beforehand, as it is set up here.
const BACKLOG: usize = 5_000;

/// The fixture's collector, behind a slow link and modest: what it has not taken in yet is the stream's.
fn slow(fixture: &Fixture, arguments: &[&str]) -> (Collector, Proxy) {
    let proxy = Proxy::start(fixture.server.port());
    proxy.throttle(20_000);
    let mut command = run(&proxy.url(), &fixture.database());
    command.args(arguments).env("CATCHMENT_BROKER__AHEAD__EVENTS", "20").env("CATCHMENT_BATCH__MAX_EVENTS", "20");
    let collector = Collector::start(command, &fixture.folder.path().join("collector.log"));
    collector.said("collecting stream EVENTS");
    (collector, proxy)
}

/// The rows are the first of `published`, then those of `last`; the rest was said to be gone, with its number.
fn rest_is_said(fixture: &Fixture, collector: &Collector, published: &[String], last: &[String]) {
    let rows = oracle::payloads(&fixture.database());
    let first = rows.len() - last.len();
    assert!(first < published.len(), "all {first} came before the purge");
    assert_eq!(rows, [&published[..first], last].concat());
    oracle::holds(&fixture.database(), last);
    collector.said("no longer has");
    let gone = published.len() - first;
    // Numbers from a thousand on have commas.
    let log = collector.log().replace(',', "");
    assert!(log.contains(&format!("{gone} events")), "{gone} are gone: {log}");
}

#[test]
fn a_drain_whose_rest_is_purged_ends_by_itself_and_says_so() {
    drained_under_a_purge(false);
}

#[test]
fn a_drain_ends_when_its_rest_is_purged() {
    // What comes after the drain began is none of its business, and no reason to wait either.
    drained_under_a_purge(true);
}

fn drained_under_a_purge(more_comes: bool) {
    let fixture = Fixture::new();
    let published = fixture.publish("event", BACKLOG);
    let (mut collector, proxy) = slow(&fixture, &["--drain"]);
    eventually("the first rows", || (oracle::position(&fixture.database()) > 0).then_some(()));
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({}));
    let more = if more_comes { fixture.publish("more", 1) } else { Vec::new() };
    proxy.heal();
    assert!(collector.wait().success(), "{}", collector.log());
    let rows = oracle::payloads(&fixture.database());
    let came: Vec<String> = more.into_iter().filter(|payload| rows.contains(payload)).collect();
    rest_is_said(&fixture, &collector, &published, &came);
}

#[test]
fn a_purge_under_an_idle_collector_is_counted() {
    let fixture = Fixture::new();
    let published = fixture.publish("event", BACKLOG);
    let (collector, proxy) = slow(&fixture, &[]);
    eventually("the first rows", || (oracle::position(&fixture.database()) > 0).then_some(()));
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({}));
    proxy.heal();
    // Without a next event.
    collector.said("no longer has");
    rest_is_said(&fixture, &collector, &published, &[]);
    let next = fixture.publish("next", 1);
    let database = fixture.database();
    eventually("the next event", || (oracle::position(&database) == BACKLOG as u64 + 1).then_some(()));
    rest_is_said(&fixture, &collector, &published, &next);
    assert!(collector.stop().success());
}

#[test]
fn a_purge_is_counted_when_the_next_event_comes() {
    let fixture = Fixture::new();
    let published = fixture.publish("event", BACKLOG);
    let (collector, proxy) = slow(&fixture, &[]);
    eventually("the first rows", || (oracle::position(&fixture.database()) > 0).then_some(()));
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({}));
    let next = fixture.publish("next", 100);
    proxy.heal();
    let database = fixture.database();
    eventually("the next events", || (oracle::position(&database) == BACKLOG as u64 + 100).then_some(()));
    rest_is_said(&fixture, &collector, &published, &next);
    assert!(collector.stop().success());
}

#[test]
fn a_stream_trimmed_under_a_collector_is_said_with_its_size() {
    let fixture = Fixture::new();
    let published = fixture.publish("event", BACKLOG);
    let (collector, proxy) = slow(&fixture, &[]);
    eventually("the first rows", || (oracle::position(&fixture.database()) > 0).then_some(()));
    // Its limits are made narrower by whoever runs it: all but the last hundred go.
    let trimmed = json!({
        "name": "EVENTS", "subjects": ["events.>"], "storage": "file", "retention": "limits", "max_msgs": 100,
    });
    fixture.ask("$JS.API.STREAM.UPDATE.EVENTS", &trimmed);
    proxy.heal();
    let database = fixture.database();
    eventually("the last event", || (oracle::position(&database) == BACKLOG as u64).then_some(()));
    let (gone, last) = published.split_at(BACKLOG - 100);
    rest_is_said(&fixture, &collector, gone, last);
    assert!(collector.stop().success());
}
