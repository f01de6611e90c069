//! Streams that change under a collector: made anew, rolled back, purged, of the wrong kind; and what stands beside it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::collector::{Collector, catchment, output, run, stderr};
use crate::support::fixture::Fixture;
use crate::support::oracle;
use crate::support::server;
use crate::support::{copy_folder, eventually};

fn both(first: &[String], second: &[String]) -> Vec<String> {
    [first, second].concat()
}

#[test]
fn a_stream_created_again_is_collected_from_its_start() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let before = fixture.publish("before", 300);
    fixture.has(300);
    fixture.server.delete_stream("EVENTS");
    collector.said("stream EVENTS was deleted");
    fixture.server.make_stream("EVENTS", &["events.>"]);
    let after = fixture.publish("after", 200);
    fixture.has(500);
    assert!(collector.stop().success());
    fixture.holds_exactly(&both(&before, &after));
}

#[test]
fn a_stream_created_again_at_once_is_collected_whole() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let mut all = fixture.publish("epoch-0", 50);
    fixture.has(50);
    for epoch in 1..4 {
        fixture.server.delete_stream("EVENTS");
        fixture.server.make_stream("EVENTS", &["events.>"]);
        // More than before: the ledger's last sequence is one of the new stream's.
        all.extend(fixture.publish(&format!("epoch-{epoch}"), 100 * epoch));
        fixture.has(all.len());
    }
    assert!(collector.log().contains("was created again"), "{}", collector.log());
    assert!(collector.stop().success());
    fixture.holds_exactly(&all);
}

#[test]
fn a_deleted_stream_is_created_by_the_collector() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let before = fixture.publish("before", 3);
    fixture.has(3);
    fixture.server.delete_stream("EVENTS");
    collector.said("created stream EVENTS on events.>");
    let after = fixture.publish("after", 3);
    fixture.has(6);
    assert!(collector.stop().success());
    fixture.holds_exactly(&both(&before, &after));
}

#[test]
fn a_stream_created_meanwhile_is_collected_from_its_start() {
    let fixture = Fixture::new();
    let before = fixture.publish("before", 300);
    fixture.drain();
    fixture.server.delete_stream("EVENTS");
    fixture.server.make_stream("EVENTS", &["events.>"]);
    let after = fixture.publish("after", 20);
    let said = fixture.drain();
    assert!(said.contains("stream EVENTS was created again"), "{said}");
    fixture.holds_exactly(&both(&before, &after));
}

#[test]
fn a_longer_new_stream_is_collected_from_its_start() {
    let fixture = Fixture::new();
    let before = fixture.publish("before", 100);
    fixture.drain();
    fixture.server.delete_stream("EVENTS");
    fixture.server.make_stream("EVENTS", &["events.>"]);
    let after = fixture.publish("after", 1_000);
    let said = fixture.drain();
    assert!(said.contains("stream EVENTS was created again"), "{said}");
    fixture.holds_exactly(&both(&before, &after));
}

#[test]
fn a_database_restored_from_an_older_copy_catches_up() {
    let fixture = Fixture::new();
    let first = fixture.publish("first", 100);
    fixture.drain();
    let older = fixture.folder.path().join("older.db");
    oracle::open(&fixture.database()).execute("VACUUM INTO ?", [older.to_str()]).expect("copies");
    let second = fixture.publish("second", 400);
    fixture.drain();
    fixture.holds_exactly(&both(&first, &second));
    restore(&older, &fixture.database());
    fixture.holds_exactly(&first);
    let said = fixture.drain();
    assert!(!said.contains("WARN"), "nothing is wrong: {said}");
    fixture.holds_exactly(&both(&first, &second));
}

/// Puts an older copy in a database's place.
fn restore(copy: &Path, database: &Path) {
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
    }
    std::fs::rename(copy, database).expect("moves");
}

#[test]
fn events_lost_to_a_restored_database_are_counted() {
    let fixture = Fixture::new();
    let first = fixture.publish("first", 100);
    fixture.drain();
    let older = fixture.folder.path().join("older.db");
    oracle::open(&fixture.database()).execute("VACUUM INTO ?", [older.to_str()]).expect("copies");
    let second = fixture.publish("second", 400);
    fixture.drain();
    // Sequences up to 250 go: 150 events that the older copy does not have.
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": 251 }));
    restore(&older, &fixture.database());
    let said = fixture.drain();
    assert!(said.contains("begins at 251") && said.contains("101 to 250") && said.contains("150 events"), "{said}");
    fixture.holds_exactly(&both(&first, &second[150..]));
}

#[test]
fn events_dropped_before_collection_are_counted() {
    let fixture = Fixture::new();
    let first = fixture.publish("first", 10);
    fixture.drain();
    fixture.publish("dropped", 30);
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({}));
    let said = fixture.drain();
    assert!(said.contains("30 events"), "purged whole: {said}");
    let last = fixture.publish("last", 5);
    fixture.drain();
    fixture.holds_exactly(&both(&first, &last));
}

#[test]
fn events_dropped_during_collection_are_counted() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let first = fixture.publish("first", 10);
    fixture.has(10);
    collector_pauses(&collector, || {
        fixture.publish("dropped", 30);
        fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": 41 }));
    });
    let last = fixture.publish("last", 5);
    let database = fixture.database();
    // The server may have sent some of them before the purge; what came is stored, what did not is said.
    eventually("the last event", || {
        let rows = oracle::payloads(&database);
        (rows.last() == last.last()).then_some(())
    });
    let rows = oracle::payloads(&database);
    let missing = 45 - rows.len();
    if missing > 0 {
        collector.said(&format!("{missing} events"));
    }
    assert!(collector.stop().success());
    oracle::holds(&database, &both(&first, &last));
}

/// Stops the collector's process while something happens.
fn collector_pauses(collector: &Collector, meanwhile: impl FnOnce()) {
    crate::support::collector::signal(collector.pid(), "STOP");
    meanwhile();
    crate::support::collector::signal(collector.pid(), "CONT");
}

#[test]
fn a_restored_broker_loses_and_repeats_no_event() {
    let mut fixture = Fixture::new();
    let first = fixture.publish("first", 100);
    fixture.drain();
    fixture.server.stop();
    let (store, older) = (fixture.folder.path().join("streams"), fixture.folder.path().join("older"));
    copy_folder(&store, &older);
    fixture.server.restart();
    let second = fixture.publish("second", 100);
    fixture.drain();
    fixture.server.stop();
    std::fs::remove_dir_all(&store).expect("removes");
    std::fs::rename(&older, &store).expect("moves");
    fixture.server.restart();
    assert_eq!(fixture.server.last_sequence("EVENTS"), 100, "the copy is older");

    // Short of the ledger, then past it: sequences 101 to 150 and 101 to 300 are used a second time.
    let third = fixture.publish("third", 50);
    let said = fixture.drain();
    assert!(said.contains("went back"), "{said}");
    fixture.holds_exactly(&both(&both(&first, &second), &third));
    let fourth = fixture.publish("fourth", 150);
    let said = fixture.drain();
    assert!(!said.contains("went back"), "only once: {said}");
    fixture.holds_exactly(&both(&both(&first, &second), &both(&third, &fourth)));
}

#[test]
fn a_restored_broker_longer_than_the_ledger_is_noticed() {
    let mut fixture = Fixture::new();
    let first = fixture.publish("first", 100);
    fixture.drain();
    fixture.server.stop();
    let (store, older) = (fixture.folder.path().join("streams"), fixture.folder.path().join("older"));
    copy_folder(&store, &older);
    fixture.server.restart();
    let second = fixture.publish("second", 100);
    let collector = fixture.collector();
    fixture.has(200);
    fixture.server.stop();
    std::fs::remove_dir_all(&store).expect("removes");
    std::fs::rename(&older, &store).expect("moves");
    fixture.server.restart();
    let third = fixture.publish("third", 300);
    fixture.has(500);
    assert!(collector.log().contains("went back"), "{}", collector.log());
    assert!(collector.stop().success());
    fixture.holds_exactly(&both(&both(&first, &second), &third));
}

#[test]
fn a_restored_broker_with_a_client_breaking_event_is_collected() {
    let mut fixture = Fixture::new();
    let breaking =
        |fixture: &Fixture| fixture.server.raw().publish("events.bad", Some(b"NATS/1.0\r\nno colon\r\n\r\n"), "bad");
    let first = fixture.publish("first", 5);
    breaking(&fixture);
    let second = fixture.publish("second", 5);
    fixture.drain();
    fixture.server.stop();
    let (store, older) = (fixture.folder.path().join("streams"), fixture.folder.path().join("older"));
    copy_folder(&store, &older);
    fixture.server.restart();
    let third = fixture.publish("third", 5);
    fixture.drain();
    fixture.server.stop();
    std::fs::remove_dir_all(&store).expect("removes");
    std::fs::rename(&older, &store).expect("moves");
    fixture.server.restart();
    let fourth = fixture.publish("fourth", 2);
    breaking(&fixture);
    let fifth = fixture.publish("fifth", 2);
    let collector = fixture.collector();
    collector.said("went back");
    fixture.has(19);
    assert!(collector.stop().success());
    let all = [first, second, third, fourth, fifth].concat();
    fixture.holds_exactly(&all);
    let dead: u64 = oracle::open(&fixture.database())
        .query_row("SELECT count(*) FROM catchment_dead_letters", [], |row| row.get(0))
        .expect("SQL");
    assert_eq!(dead, 2, "the known one is not there twice");
}

#[test]
fn a_consumer_deleted_under_a_running_collector_is_made_anew() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let delete = |expected_rows| {
        fixture.has(expected_rows);
        let names = eventually("the consumer", || Some(fixture.server.consumers("EVENTS")).filter(|n| n.len() == 1));
        fixture.ask(&format!("$JS.API.CONSUMER.DELETE.EVENTS.{}", names[0]), &Value::Null);
        eventually("another consumer", || {
            let now = fixture.server.consumers("EVENTS");
            (now.len() == 1 && now != names).then_some(())
        });
    };
    // The first time before anything was ever collected.
    eventually("the collector", || fixture.database().exists().then_some(()));
    delete(0);
    let first = fixture.publish("first", 500);
    delete(500);
    let second = fixture.publish("second", 500);
    delete(1_000);
    let third = fixture.publish("third", 1);
    fixture.has(1_001);
    assert!(collector.stop().success());
    fixture.holds_exactly(&both(&both(&first, &second), &third));
}

#[test]
fn a_consumer_deleted_while_events_flow_costs_and_doubles_none() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let mut all = Vec::new();
    for round in 0..6 {
        all.extend(fixture.publish(&format!("round-{round}"), 2_000));
        for name in fixture.server.consumers("EVENTS") {
            // Gone already where the collector was faster.
            fixture.server.ask(&format!("$JS.API.CONSUMER.DELETE.EVENTS.{name}"), &Value::Null);
        }
    }
    fixture.has(all.len());
    assert!(collector.stop().success());
    fixture.holds_exactly(&all);
}

#[test]
fn a_work_queue_is_refused_with_the_reason() {
    let fixture = Fixture::new();
    let config = json!({ "name": "WORK", "subjects": ["work.>"], "storage": "memory", "retention": "workqueue" });
    fixture.ask("$JS.API.STREAM.CREATE.WORK", &config);
    let refused = output(fixture.run().args(["--stream", "WORK"]).env("CATCHMENT_BROKER__SUBJECTS", "work.>"));
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("catchment: broker nats://127.0.0.1:"), "{said}");
    assert!(last.contains("stream WORK has workqueue retention"), "{said}");
    assert!(last.contains("limits retention"), "names the remedy: {said}");
    assert_eq!(fixture.server.consumers("WORK"), Vec::<String>::new());
}

#[test]
fn a_missing_stream_that_must_not_be_made_is_refused() {
    let fixture = Fixture::new();
    let refused =
        output(fixture.run().args(["--stream", "OTHER", "--drain"]).env("CATCHMENT_BROKER__CREATE_STREAM", "false"));
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("there is no stream OTHER") && last.contains("broker.create_stream"), "{said}");
    let answer = fixture.server.ask("$JS.API.STREAM.INFO.OTHER", &Value::Null);
    assert_eq!(answer["error"]["err_code"], 10059, "it was not made: {answer}");
}

#[test]
fn a_missing_stream_with_taken_subjects_is_refused() {
    let fixture = Fixture::new();
    let subjects = ("CATCHMENT_BROKER__SUBJECTS", "odd.>,events.a");
    let refused = output(fixture.run().args(["--stream", "OTHER", "--drain"]).env(subjects.0, subjects.1));
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let what = "cannot create stream OTHER: stream EVENTS stores events on events.a already; collect that stream";
    assert!(said.lines().last().unwrap_or_default().contains(what), "{said}");
    let mut check = catchment();
    check.args(["check", "--quick", "--server", &fixture.server.url(), "--database"]).arg(fixture.database());
    let checked = output(check.args(["--stream", "OTHER"]).env(subjects.0, subjects.1));
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    assert!(said.contains(what), "{said}");
}

#[test]
fn a_stream_that_is_there_is_never_changed() {
    let fixture = Fixture::new();
    let odd = json!({
        "name": "ODD", "subjects": ["odd.a", "odd.b.*"], "storage": "memory", "retention": "limits",
        "max_msgs": 1_000, "max_bytes": 1 << 20, "max_age": 3_600_000_000_000_u64, "max_msg_size": 5_000,
        "discard": "new", "duplicate_window": 7_000_000_000_u64, "description": "somebody's own", "deny_delete": true,
    });
    let before = fixture.ask("$JS.API.STREAM.CREATE.ODD", &odd);
    let mut raw = fixture.server.raw();
    raw.publish("odd.b.x", None, "1");
    let done = output(fixture.run().args(["--stream", "ODD", "--drain"]).env("CATCHMENT_BROKER__SUBJECTS", "odd.>"));
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(oracle::payloads(&fixture.database()), ["1"]);
    let after = fixture.ask("$JS.API.STREAM.INFO.ODD", &Value::Null);
    assert_eq!((&before["config"], &before["created"]), (&after["config"], &after["created"]));
}

#[test]
fn consumers_left_by_this_database_are_deleted_and_nobody_elses() {
    let fixture = Fixture::new();
    fixture.publish("a", 10);
    fixture.drain();
    assert_eq!(fixture.server.consumers("EVENTS"), Vec::<String>::new(), "an orderly end leaves none");
    let identity = oracle::identity(&fixture.database());
    let others = ["mine", "catchment-0123456789abcdef-1-0", "catchment", "x-catchment"];
    let left = [format!("catchment-{identity}-1-0"), format!("catchment-{identity}-2-7")];
    for name in others.iter().copied().chain(left.iter().map(String::as_str)) {
        let config = json!({ "name": name, "ack_policy": "explicit", "durable_name": name, "deliver_policy": "all" });
        let body = json!({ "stream_name": "EVENTS", "config": config, "action": "create" });
        fixture.ask(&format!("$JS.API.CONSUMER.CREATE.EVENTS.{name}"), &body);
    }
    let collector = fixture.collector();
    collector.said("collecting stream EVENTS");
    let names = fixture.server.consumers("EVENTS");
    assert!(others.iter().all(|other| names.iter().any(|name| name == other)), "{names:?}");
    assert!(!left.iter().any(|gone| names.contains(gone)), "{names:?}");
    assert_eq!(names.len(), others.len() + 1, "{names:?}");
    // What a kill leaves is deleted at the next start.
    collector.kill();
    let collector = fixture.collector();
    eventually("the killed one's consumer to go", || {
        let now = fixture.server.consumers("EVENTS");
        (now.len() == others.len() + 1 && now != names).then_some(())
    });
    assert!(collector.stop().success());
    let now = fixture.server.consumers("EVENTS");
    let mut others = others.to_vec();
    others.sort_unstable();
    let mut sorted = now.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, others);
}

#[test]
fn two_databases_collect_one_stream_side_by_side() {
    let fixture = Fixture::new();
    let other = fixture.folder.path().join("b.db");
    let first = fixture.collector();
    let second = Collector::start(run(&fixture.server.url(), &other), &fixture.folder.path().join("second.log"));
    let all = fixture.publish("a", 1_000);
    fixture.has(1_000);
    eventually("the other's rows", || (oracle::count(&other) == 1_000).then_some(()));
    assert!(first.stop().success() && second.stop().success());
    fixture.holds_exactly(&all);
    assert_eq!(oracle::payloads(&other), all);
}

#[test]
fn a_second_collector_is_refused_and_the_first_named() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    collector.said("collecting stream EVENTS");
    let refused = output(fixture.run().arg("--drain"));
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {} uses it already", collector.pid())), "{said}");
    assert!(collector.stop().success());
}

#[test]
fn several_subjects_are_collected_in_stream_order() {
    let fixture = Fixture::new();
    fixture.server.make_stream("MIXED", &["a.>", "b.>", "c.>"]);
    let mut raw = fixture.server.raw();
    let payloads: Vec<String> = (0..90).map(|n| format!("{n}")).collect();
    for (n, payload) in payloads.iter().enumerate() {
        raw.send(["a.x", "b.y", "c.z"][n % 3], None, payload);
    }
    raw.finish();
    let done =
        output(fixture.run().args(["--stream", "MIXED", "--drain"]).env("CATCHMENT_BROKER__SUBJECTS", "a.>,b.>"));
    let said = stderr(&done);
    if server::version() < (2, 10) {
        assert_eq!(done.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains("several subjects") && last.contains("2.10"), "{said}");
        assert!(!last.contains("ConsumerConfig"), "in words, not in code: {said}");
        assert_eq!(fixture.server.consumers("MIXED"), Vec::<String>::new(), "the wrong one is deleted again");
        assert_eq!(oracle::count(&fixture.database()), 0);
        return;
    }
    assert!(done.status.success(), "{said}");
    let expected: Vec<String> = payloads.into_iter().enumerate().filter(|(n, _)| n % 3 != 2).map(|(_, p)| p).collect();
    fixture.holds_exactly(&expected);
    let subjects: BTreeMap<String, u64> = oracle::open(&fixture.database())
        .prepare("SELECT subject, count(*) FROM events GROUP BY subject")
        .and_then(|mut sql| sql.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .expect("rows");
    assert_eq!(subjects, BTreeMap::from([("a.x".into(), 30), ("b.y".into(), 30)]));
}

#[test]
fn only_the_present_subjects_of_a_stream_are_collected() {
    let fixture = Fixture::new();
    fixture.server.make_stream("MIXED", &["a.>", "b.>", "c.>"]);
    let mut raw = fixture.server.raw();
    let payloads: Vec<String> = (0..90).map(|n| format!("{n}")).collect();
    for (n, payload) in payloads.iter().enumerate() {
        raw.send(["a.x", "b.y", "c.z"][n % 3], None, payload);
    }
    raw.finish();
    fixture
        .ask("$JS.API.STREAM.UPDATE.MIXED", &json!({ "name": "MIXED", "subjects": ["b.>", "a.>"], "storage": "file" }));
    let done =
        output(fixture.run().args(["--stream", "MIXED", "--drain"]).env("CATCHMENT_BROKER__SUBJECTS", "a.>,b.>"));
    assert!(done.status.success(), "{}", stderr(&done));
    let expected: Vec<String> = payloads.into_iter().enumerate().filter(|(n, _)| n % 3 != 2).map(|(_, p)| p).collect();
    fixture.holds_exactly(&expected);
}
