//! Consumers that the server, the stream or an operator holds to limits: the collector keeps to them, and loses nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::chance::Chance;
use crate::support::collector::{Collector, catchment, output, run, stderr};
use crate::support::fixture::Fixture;
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::server::needs;
use crate::support::{eventually, eventually_within, oracle};

fn consumer(fixture: &Fixture) -> Value {
    let names =
        eventually("the consumer", || Some(fixture.server.consumers("EVENTS")).filter(|names| names.len() == 1));
    fixture.ask(&format!("$JS.API.CONSUMER.INFO.EVENTS.{}", names[0]), &Value::Null)
}

/// What the log says as warnings, and that all is well again.
fn news(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("WARN") || line.contains("well again")).collect()
}

#[test]
fn where_one_consumer_is_allowed_a_killed_collector_goes_on() {
    for retention in ["limits", "interest"] {
        let fixture = Fixture::with_stream(&json!({ "retention": retention, "max_consumers": 1 }));
        let collector = fixture.collector();
        collector.said("collecting stream EVENTS");
        let mut all = fixture.publish("first", 300);
        fixture.has(300);
        // These are delivered to it and not committed.
        let lock = oracle::lock(&fixture.database());
        all.extend(fixture.publish("under-way", 300));
        eventually("the deliveries", || (consumer(&fixture)["delivered"]["stream_seq"] == 600).then_some(()));
        collector.kill();
        drop(lock);
        all.extend(fixture.publish("meanwhile", 300));
        let collector = fixture.collector();
        fixture.has(900);
        assert!(collector.stop().success());
        fixture.holds_exactly(&all);
        if retention == "interest" {
            eventually("the stream to have let go of all", || (fixture.server.messages("EVENTS") == 0).then_some(()));
            assert_eq!(fixture.server.consumers("EVENTS").len(), 1, "it stands for our interest");
        }
        // As after a kill, so after a stop.
        let last = fixture.publish("last", 10);
        fixture.drain();
        fixture.holds_exactly(&[all, last].concat());
    }
}

/// Lets events flow, kills the collector, cuts its links and kills the broker again and again.
fn survives_where_one_is_allowed(retention: &str) {
    const EVENTS: u64 = 20_000;
    let mut chance = Chance::new();
    let mut fixture = Fixture::with_stream(&json!({ "retention": retention, "max_consumers": 1 }));
    let (database, log) = (fixture.database(), fixture.folder.path().join("log"));
    let proxy = Proxy::start(fixture.server.port());
    let start = || {
        let mut command = run(&proxy.url(), &database);
        command.env("CATCHMENT_BATCH__MAX_EVENTS", "100");
        Collector::start(command, &log)
    };
    let mut collector = start();
    collector.said("collecting stream EVENTS");
    let load = Load::start(&fixture.server, EVENTS, 2_000);
    let reaches = |rows: u64| {
        eventually_within(Duration::from_secs(120), &format!("{rows} rows"), &mut || {
            let now = oracle::position(&database);
            load.committed(now);
            (now >= rows).then_some(())
        });
    };
    for round in 0..9 {
        reaches(oracle::position(&database) + chance.up_to(EVENTS / 20));
        match round % 3 {
            0 => {
                collector.kill();
                collector = start();
            }
            1 => proxy.cut(),
            _ => {
                fixture.server.kill();
                fixture.server.restart();
            }
        }
    }
    reaches(EVENTS);
    let events = load.finish();
    assert!(collector.stop().success());
    oracle::is_exactly(&database, &events);
    if retention == "interest" {
        eventually("the stream to have let go of all", || (fixture.server.messages("EVENTS") == 0).then_some(()));
    }
}

#[test]
fn where_one_consumer_is_allowed_nothing_is_lost_or_doubled() {
    survives_where_one_is_allowed("limits");
}

#[test]
fn where_one_consumer_is_allowed_nothing_kept_for_it_is_lost() {
    survives_where_one_is_allowed("interest");
}

#[test]
fn where_one_consumer_is_allowed_a_cut_link_is_made_good() {
    for retention in ["limits", "interest"] {
        let fixture = Fixture::with_stream(&json!({ "retention": retention, "max_consumers": 1 }));
        let proxy = Proxy::start(fixture.server.port());
        let collector = Collector::start(run(&proxy.url(), &fixture.database()), &fixture.folder.path().join("log"));
        collector.said("collecting stream EVENTS");
        let mut all = Vec::new();
        for round in 0..4 {
            all.extend(fixture.publish(&format!("round-{round}"), 2_000));
            proxy.cut();
        }
        fixture.has(all.len());
        assert!(collector.stop().success());
        fixture.holds_exactly(&all);
    }
}

#[test]
fn deliveries_are_read_raw_where_no_reset_is_possible() {
    let fixture = Fixture::with_stream(&json!({ "retention": "interest", "max_consumers": 1 }));
    let proxy = Proxy::start(fixture.server.port());
    proxy.drop_published("$JS.API.CONSUMER.RESET.");
    let start = || Collector::start(run(&proxy.url(), &fixture.database()), &fixture.folder.path().join("log"));
    let collector = start();
    collector.said("collecting stream EVENTS");
    let mut all = fixture.publish("first", 100);
    fixture.has(100);
    let lock = oracle::lock(&fixture.database());
    all.extend(fixture.publish("under-way", 200));
    fixture.server.raw().publish("events.test", Some(b"NATS/1.0\r\nTrace: 7\r\n\r\n"), "with-header");
    all.push("with-header".into());
    eventually("the deliveries", || (consumer(&fixture)["delivered"]["stream_seq"] == 301).then_some(()));
    collector.kill();
    drop(lock);
    // Nothing is left to be delivered, and all the same there is something to drain.
    let done = output(run(&proxy.url(), &fixture.database()).arg("--drain"));
    assert!(done.status.success(), "{}", stderr(&done));
    fixture.holds_exactly(&all);
    all.extend(fixture.publish("meanwhile", 100));
    let collector = start();
    fixture.has(401);
    eventually("the stream to have let go of all", || (fixture.server.messages("EVENTS") == 0).then_some(()));
    assert!(collector.stop().success());
    fixture.holds_exactly(&all);
    let sql = "SELECT headers ->> '$.Trace' FROM events WHERE payload = 'with-header'";
    let header: String = oracle::open(&fixture.database()).query_row(sql, [], |row| row.get(0)).expect("a header");
    assert_eq!(header, "7");
}

#[test]
fn a_killed_collector_resumes_with_one_allowed_consumer() {
    let limited = "jetstream: enabled\nno_auth_user: a\n\
                   accounts { A { jetstream { max_consumers: 1 }, users: [{ user: a, password: a }] } }\n";
    for retention in ["limits", "interest"] {
        let fixture = Fixture::configured(limited, retention);
        let collector = fixture.collector();
        collector.said("collecting stream EVENTS");
        let first = fixture.publish("first", 100);
        fixture.has(100);
        collector.kill();
        let second = fixture.publish("second", 100);
        fixture.drain();
        fixture.holds_exactly(&[first, second].concat());
    }
}

#[test]
fn a_consumer_limit_used_up_by_others_is_named_with_a_remedy() {
    let fixture = Fixture::with_stream(&json!({ "max_consumers": 1 }));
    let other = json!({ "stream_name": "EVENTS", "config": { "durable_name": "other", "ack_policy": "explicit" } });
    fixture.ask("$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.other", &other);
    let done = output(fixture.run().arg("--drain"));
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("maximum consumers") && last.contains("raise max_consumers"), "{said}");
    assert_eq!(fixture.server.consumers("EVENTS"), ["other"]);
}

#[test]
fn a_servers_limit_on_requests_is_kept_to() {
    let fixture = Fixture::configured("jetstream { limits { max_request_batch: 100 } }\n", "limits");
    let mut all = fixture.publish("first", 1_000);
    let collector = fixture.collector();
    fixture.has(1_000);
    all.extend(fixture.publish("second", 1_000));
    fixture.has(2_000);
    assert_eq!(news(&collector.log()), Vec::<&str>::new());
    assert!(collector.stop().success());
    fixture.holds_exactly(&all);
}

#[test]
fn limits_on_requests_that_come_later_are_kept_to() {
    if !needs((2, 10), "limits of a consumer that may be edited") {
        return;
    }
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let mut all = fixture.publish("first", 100);
    fixture.has(100);
    let mut config = consumer(&fixture)["config"].clone();
    (config["max_batch"], config["max_expires"]) = (json!(50), json!(1_000_000_000_u64));
    let name = config["name"].as_str().expect("a name").to_owned();
    let edit = json!({ "stream_name": "EVENTS", "config": config, "action": "update" });
    fixture.ask(&format!("$JS.API.CONSUMER.CREATE.EVENTS.{name}"), &edit);
    for round in 0..3 {
        all.extend(fixture.publish(&format!("round-{round}"), 10_000));
        fixture.has(all.len());
    }
    assert_eq!(news(&collector.log()), Vec::<&str>::new());
    assert_eq!(fixture.server.consumers("EVENTS"), [name], "the same consumer all along");
    assert!(collector.stop().success());
    fixture.holds_exactly(&all);
}

#[test]
fn limits_on_unacknowledged_events_are_kept_to() {
    let account = "jetstream: enabled\nno_auth_user: a\n\
                   accounts { A { jetstream { max_ack_pending: 50 }, users: [{ user: a, password: a }] } }\n";
    for configuration in ["jetstream { limits { max_ack_pending: 50 } }\n", account] {
        let fixture = Fixture::configured(configuration, "interest");
        fixture.drain();
        let all = fixture.publish("event", 1_000);
        fixture.drain();
        fixture.holds_exactly(&all);
        assert_eq!(fixture.server.messages("EVENTS"), 0);
        assert_eq!(consumer(&fixture)["config"]["max_ack_pending"], 50);
    }
}

#[test]
fn a_streams_limits_on_its_consumers_are_kept_to() {
    if !needs((2, 10), "consumer_limits") {
        return;
    }
    for retention in ["limits", "interest"] {
        let limits = json!({ "inactive_threshold": 60_000_000_000_u64, "max_ack_pending": 50 });
        let fixture = Fixture::with_stream(&json!({ "retention": retention, "consumer_limits": limits }));
        let collector = fixture.collector();
        collector.said("collecting stream EVENTS");
        let all = fixture.publish("event", 500);
        fixture.has(500);
        assert_eq!(consumer(&fixture)["config"]["inactive_threshold"], 60_000_000_000_u64);
        let mut check = catchment();
        check.args(["check", "--server", &fixture.server.url(), "--database"]).arg(fixture.database());
        let found = String::from_utf8_lossy(&output(&mut check).stdout).into_owned();
        if retention == "interest" {
            collector.said("deletes our consumer and the events kept for it when no collector has run for 60s");
            assert!(
                found.contains("deletes our consumer and the events kept for it if no collector runs for 1m"),
                "{found}"
            );
            assert!(found.contains("allows 50 unacknowledged events"), "{found}");
        }
        assert!(!found.contains("critical"), "{found}");
        assert!(collector.stop().success());
        fixture.holds_exactly(&all);
    }
}

/// Has the consumer pause for so long; until when, as the server says it.
fn pause(fixture: &Fixture, name: &str, time: Duration) -> String {
    let until = time::OffsetDateTime::now_utc() + time;
    let until = until.format(&time::format_description::well_known::Rfc3339).expect("a time");
    let answer = fixture.ask(&format!("$JS.API.CONSUMER.PAUSE.EVENTS.{name}"), &json!({ "pause_until": until }));
    assert_eq!(answer["paused"], true, "{answer}");
    answer["pause_until"].as_str().expect("a time").to_owned()
}

#[test]
fn a_pause_is_said_once_and_respected() {
    if !needs((2, 11), "pausing a consumer") {
        return;
    }
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let first = fixture.publish("first", 10);
    fixture.has(10);
    let name = consumer(&fixture)["name"].as_str().expect("a name").to_owned();
    let until = pause(&fixture, &name, Duration::from_secs(3600));
    let second = fixture.publish("second", 10);
    collector.said(&format!("consumer {name} of stream EVENTS is paused until {until}"));
    // Several more looks at it change nothing.
    let answered = || fixture.server.consumers("EVENTS") == [name.clone()] && oracle::count(&fixture.database()) == 10;
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while std::time::Instant::now() < until {
        assert!(answered(), "not made anew, and nothing collected");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(news(&collector.log()).len(), 1, "{}", collector.log());
    fixture.ask(&format!("$JS.API.CONSUMER.PAUSE.EVENTS.{name}"), &json!({}));
    fixture.has(20);
    collector.said("well again");
    assert_eq!(fixture.server.consumers("EVENTS"), [name]);
    assert!(collector.stop().success());
    fixture.holds_exactly(&[first, second].concat());
}

#[test]
fn a_pause_outlives_lost_links_stops_and_kills() {
    if !needs((2, 11), "pausing a consumer") {
        return;
    }
    for retention in ["limits", "interest"] {
        let fixture = Fixture::with_stream(&json!({ "retention": retention }));
        let proxy = Proxy::start(fixture.server.port());
        let start =
            |log: &str| Collector::start(run(&proxy.url(), &fixture.database()), &fixture.folder.path().join(log));
        let collector = start("first");
        collector.said("collecting stream EVENTS");
        let first = fixture.publish("first", 10);
        fixture.has(10);
        let name = consumer(&fixture)["name"].as_str().expect("a name").to_owned();
        let until = pause(&fixture, &name, Duration::from_secs(3600));
        let second = fixture.publish("second", 10);
        let said = format!("until {until}");
        collector.said(&said);
        proxy.cut();
        let next = eventually("another consumer", || {
            let names = fixture.server.consumers("EVENTS");
            (names.len() == 1 && names[0] != name).then(|| names[0].clone())
        });
        collector.said(&format!("{next} of stream EVENTS is paused {said}"));
        assert!(collector.stop().success());
        let collector = start("second");
        collector.said(&said);
        collector.kill();
        let collector = start("third");
        collector.said(&said);
        assert_eq!(oracle::count(&fixture.database()), 10);
        let name = eventually("the older ones to go", || {
            Some(fixture.server.consumers("EVENTS")).filter(|names| names.len() == 1).map(|names| names[0].clone())
        });
        fixture.ask(&format!("$JS.API.CONSUMER.PAUSE.EVENTS.{name}"), &json!({}));
        fixture.has(20);
        assert!(collector.stop().success());
        fixture.holds_exactly(&[first, second].concat());
    }
}

#[test]
fn a_consumer_that_somebody_edits_is_noticed_and_made_anew() {
    if !needs((2, 10), "editing a consumer's filter") {
        return;
    }
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let first = fixture.publish("first", 10);
    fixture.has(10);
    let mut config = consumer(&fixture)["config"].clone();
    let name = config["name"].as_str().expect("a name").to_owned();
    config["filter_subject"] = json!("events.none");
    let edit = json!({ "stream_name": "EVENTS", "config": config, "action": "update" });
    fixture.ask(&format!("$JS.API.CONSUMER.CREATE.EVENTS.{name}"), &edit);
    let second = fixture.publish("second", 10);
    collector.said(&format!("consumer {name} was edited: it filters events.none instead of all subjects"));
    fixture.has(20);
    assert!(collector.stop().success());
    fixture.holds_exactly(&[first, second].concat());
}

#[test]
fn a_consumer_that_sends_no_payloads_any_more_costs_none() {
    if !needs((2, 10), "editing a consumer") {
        return;
    }
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let mut all = fixture.publish("first", 10);
    fixture.has(10);
    let mut config = consumer(&fixture)["config"].clone();
    let name = config["name"].as_str().expect("a name").to_owned();
    config["headers_only"] = json!(true);
    let edit = json!({ "stream_name": "EVENTS", "config": config, "action": "update" });
    fixture.ask(&format!("$JS.API.CONSUMER.CREATE.EVENTS.{name}"), &edit);
    all.extend(fixture.publish("second", 10));
    fixture.has(20);
    collector.said("was edited");
    // A publisher may say such a thing himself.
    let forged = b"NATS/1.0\r\nNats-Msg-Size: 7\r\n\r\n";
    fixture.server.raw().publish("events.test", Some(forged), "");
    all.push(String::new());
    all.extend(fixture.publish("third", 10));
    fixture.has(31);
    assert!(collector.stop().success());
    fixture.holds_exactly(&all);
}

#[test]
fn a_stream_that_takes_no_more_of_our_subjects_is_said() {
    let fixture = Fixture::new();
    let run = || {
        let mut run = fixture.run();
        run.env("CATCHMENT_BROKER__SUBJECTS", "events.>");
        run
    };
    let collector = Collector::start(run(), &fixture.folder.path().join("collector.log"));
    let first = fixture.publish("first", 10);
    fixture.has(10);
    let edit = |subjects: &[&str]| {
        let config = json!({ "name": "EVENTS", "subjects": subjects, "storage": "file", "retention": "limits" });
        fixture.ask("$JS.API.STREAM.UPDATE.EVENTS", &config);
    };
    edit(&["other.>"]);
    let said = "stream EVENTS stores nothing on events.>: its subjects are other.>";
    collector.said(said);
    edit(&["other.>", "events.>"]);
    collector.said("well again");
    edit(&["other.>"]);
    assert!(collector.stop().success());
    // A start is refused, for nothing could come.
    let done = output(&mut run());
    assert!(done.status.code() == Some(1) && stderr(&done).contains(said), "{}", stderr(&done));
    edit(&["other.>", "events.>"]);
    let collector = Collector::start(run(), &fixture.folder.path().join("again"));
    let second = fixture.publish("second", 10);
    fixture.has(20);
    assert!(collector.stop().success());
    fixture.holds_exactly(&[first, second].concat());
}

#[test]
fn a_session_whose_requests_go_nowhere_is_no_recovery() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(fixture.server.port());
    proxy.drop_published("$JS.API.CONSUMER.MSG.NEXT.");
    let collector = Collector::start(run(&proxy.url(), &fixture.database()), &fixture.folder.path().join("log"));
    collector.said("collecting stream EVENTS");
    let all = fixture.publish("event", 10);
    collector.said("the server has lost the pull requests at consumer");
    // Some sessions later.
    eventually("several consumers", || (proxy.connections() >= 4).then_some(()));
    assert!(!collector.log().contains("well again"), "{}", collector.log());
    proxy.heal();
    fixture.has(10);
    collector.said("well again");
    assert!(collector.stop().success());
    fixture.holds_exactly(&all);
}
