//! Copies of a database: told from their original, and never in its way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::chance::Chance;
use crate::support::collector::{Collector, catchment, output, run, stderr};
use crate::support::fixture::Fixture;
use crate::support::load::Load;
use crate::support::{eventually, oracle};

/// A copy of the fixture's database, as `.backup` makes one, under this name.
fn copy(fixture: &Fixture, name: &str) -> PathBuf {
    let copy = fixture.folder.path().join(name);
    oracle::open(&fixture.database()).execute("VACUUM INTO ?", [copy.to_str()]).expect("copies");
    copy
}

/// Has a database believe that it was at home in another file, of another machine.
fn came_from_elsewhere(database: &Path) {
    let connection = Connection::open(database).expect("opens");
    let sql = "UPDATE catchment_meta SET value = json_set(value, '$.machine', 'another', '$.path', '/gone/away.db')
               WHERE key = 'home'";
    assert_eq!(connection.execute(sql, []).expect("SQL"), 1);
}

fn collect(fixture: &Fixture, database: &Path, log: &str) -> Collector {
    Collector::start(run(&fixture.server.url(), database), &fixture.folder.path().join(log))
}

/// The tag of a database's file, as it is recorded.
fn tag(database: &Path) -> String {
    let sql = "SELECT value ->> '$.tag' FROM catchment_meta WHERE key = 'home'";
    oracle::open(database).query_row(sql, [], |row| row.get(0)).expect("a home")
}

fn has(database: &Path, rows: u64) {
    eventually(&format!("{rows} rows"), || (oracle::count(database) == rows).then_some(()));
}

/// Says why it did not start.
fn refused(fixture: &Fixture, database: &Path) -> String {
    let done = output(run(&fixture.server.url(), database).arg("--drain"));
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    said.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_copy_is_refused_and_its_original_left_alone() {
    for retention in ["limits", "interest"] {
        let fixture = Fixture::with_retention(retention);
        let original = fixture.collector();
        original.said("collecting stream EVENTS");
        let mut all = fixture.publish("first", 100);
        fixture.has(100);
        let copy = copy(&fixture, "copy.db");
        let consumers = fixture.server.consumers("EVENTS");
        let said = refused(&fixture, &copy);
        assert!(said.contains("copy of") && said.contains("a.db") && said.contains("catchment adopt"), "{said}");
        assert_eq!(fixture.server.consumers("EVENTS"), consumers);
        // Also while the original is stopped: then a stream with interest retention keeps events for it.
        assert!(original.stop().success());
        all.extend(fixture.publish("meanwhile", 100));
        refused(&fixture, &copy);
        let mut check = catchment();
        check.args(["check", "--quick", "--server", &fixture.server.url(), "--database"]).arg(&copy);
        let done = output(&mut check);
        let found = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.code() == Some(2) && found.contains("catchment adopt"), "{found}");
        let original = fixture.collector();
        fixture.has(200);
        assert!(!original.log().contains("WARN"), "{}", original.log());
        assert!(original.stop().success());
        fixture.holds_exactly(&all);
    }
}

#[test]
fn a_copy_that_is_adopted_collects_beside_its_original() {
    for retention in ["limits", "interest"] {
        let fixture = Fixture::with_retention(retention);
        let original = fixture.collector();
        original.said("collecting stream EVENTS");
        let mut all = fixture.publish("first", 100);
        fixture.has(100);
        let path = copy(&fixture, "copy.db");
        let done = output(catchment().arg("adopt").arg("--database").arg(&path));
        assert!(done.status.success(), "{}", stderr(&done));
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            said.contains(&oracle::identity(&path)) && said.contains(&oracle::identity(&fixture.database())),
            "{said}"
        );
        let other = collect(&fixture, &path, "copy.log");
        other.said("collecting stream EVENTS");
        all.extend(fixture.publish("second", 1_000));
        fixture.has(1_100);
        has(&path, 1_100);
        assert_eq!(fixture.server.consumers("EVENTS").len(), 2);
        for (collector, database) in [(original, fixture.database()), (other, path)] {
            assert!(!collector.log().contains("WARN"), "{}", collector.log());
            assert!(collector.stop().success());
            oracle::holds(&database, &all);
        }
    }
}

#[test]
fn a_collector_whose_database_is_open_cannot_be_adopted() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    collector.said("collecting stream EVENTS");
    let done = output(catchment().arg("adopt").arg("--database").arg(fixture.database()));
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {} uses it already", collector.pid())), "{said}");
    assert!(collector.stop().success());
}

#[test]
fn a_moved_or_restored_database_goes_on_without_a_ceremony() {
    for retention in ["limits", "interest"] {
        let fixture = Fixture::with_retention(retention);
        fixture.drain();
        let mut all = fixture.publish("first", 100);
        fixture.drain();
        // Copied to another place, as from one file system to another, and removed there.
        let moved = copy(&fixture, "moved.db");
        let home = fixture.database();
        std::fs::remove_file(&home).expect("removes");
        all.extend(fixture.publish("second", 100));
        let done = output(run(&fixture.server.url(), &moved).arg("--drain"));
        assert!(done.status.success() && !stderr(&done).contains("WARN"), "{}", stderr(&done));
        oracle::holds(&moved, &all);
        // Renamed.
        std::fs::rename(&moved, &home).expect("moves");
        all.extend(fixture.publish("third", 100));
        // A backup in its place.
        let backup = copy(&fixture, "backup.db");
        std::fs::rename(&backup, &home).expect("moves");
        let said = fixture.drain();
        assert!(!said.contains("WARN"), "{said}");
        fixture.holds_exactly(&all);
        let left = usize::from(retention == "interest");
        assert_eq!(fixture.server.consumers("EVENTS").len(), left, "those of the files before are gone");
        assert_eq!(fixture.server.messages("EVENTS") == 0, retention == "interest");
    }
}

#[test]
fn a_copy_from_elsewhere_leaves_what_is_kept_for_its_original() {
    let fixture = Fixture::with_retention("interest");
    fixture.drain();
    let mut all = fixture.publish("first", 100);
    fixture.drain();
    let path = copy(&fixture, "copy.db");
    came_from_elsewhere(&path);
    all.extend(fixture.publish("meanwhile", 100));
    let original = fixture.server.consumers("EVENTS")[0].clone();
    let done = output(run(&fixture.server.url(), &path).arg("--drain"));
    let said = stderr(&done);
    assert!(done.status.success(), "{said}");
    oracle::holds(&path, &all);
    assert!(said.contains(&format!("nats consumer rm EVENTS {original}")), "{said}");
    assert_eq!(fixture.server.messages("EVENTS"), 100, "for the original");
    // The original knows of its copy by then, and deletes nothing of its either.
    let said = fixture.drain();
    fixture.holds_exactly(&all);
    assert!(said.contains("for a copy of this database"), "{said}");
    assert_eq!(fixture.server.consumers("EVENTS").len(), 2);
}

#[test]
fn a_copy_from_elsewhere_is_refused_while_its_original_collects() {
    for retention in ["limits", "interest"] {
        let fixture = Fixture::with_retention(retention);
        let original = fixture.collector();
        original.said("collecting stream EVENTS");
        let mut all = fixture.publish("first", 100);
        fixture.has(100);
        let path = copy(&fixture, "copy.db");
        came_from_elsewhere(&path);
        let consumers = fixture.server.consumers("EVENTS");
        let said = refused(&fixture, &path);
        for part in ["another collector uses consumer", &consumers[0], "a.db", "catchment adopt"] {
            assert!(said.contains(part), "{said}");
        }
        all.extend(fixture.publish("second", 100));
        fixture.has(200);
        assert_eq!(fixture.server.consumers("EVENTS"), consumers);
        assert!(!original.log().contains("WARN"), "{}", original.log());
        assert!(original.stop().success());
        fixture.holds_exactly(&all);
    }
}

/// More events than there are: such a request waits.
const PATIENT: u32 = 100_000;

/// A collector somewhere else with a clone of the database, file facts included.
struct Rival {
    client: nats::Connection,
    name: String,
    answers: nats::Subscription,
}

impl Rival {
    fn start(fixture: &Fixture, events: u32) -> Self {
        let database = fixture.database();
        let name = format!("catchment-{}-1-0-{}", oracle::identity(&database), tag(&database));
        let config = json!({
            "name": name, "ack_policy": "none", "deliver_policy": "all", "filter_subject": "events.>",
            "description": "catchment, process 4711 at elsewhere:/a.db", "mem_storage": true,
        });
        let body = json!({ "stream_name": "EVENTS", "config": config, "action": "create" });
        fixture.ask(&format!("$JS.API.CONSUMER.CREATE.EVENTS.{name}"), &body);
        Self::pull(fixture, name, events)
    }

    /// Uses a consumer: requests so many events.
    fn pull(fixture: &Fixture, name: String, events: u32) -> Self {
        let client = fixture.server.client();
        let answers = client.subscribe("_INBOX.rival").expect("subscribes");
        let pull = json!({ "batch": events, "expires": 60_000_000_000_u64 }).to_string();
        client
            .publish_request(&format!("$JS.API.CONSUMER.MSG.NEXT.EVENTS.{name}"), "_INBOX.rival", pull)
            .expect("publishes");
        client.flush().expect("flushes");
        Self { client, name, answers }
    }

    /// Requests one event, and waits for it.
    fn poll(&self) {
        let pull = json!({ "batch": 1, "no_wait": true }).to_string();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.EVENTS.{}", self.name);
        self.client.publish_request(&subject, "_INBOX.rival", pull).expect("publishes");
        self.answers.next().expect("an event");
    }

    fn stop(self) {
        self.client.close();
    }
}

#[test]
fn the_clone_that_finds_the_other_at_work_ends_and_names_it() {
    let fixture = Fixture::new();
    let mut collector = fixture.collector();
    let mut all = fixture.publish("first", 100);
    fixture.has(100);
    let rival = Rival::start(&fixture, PATIENT);
    // What a clone that did not see it at work would do.
    let ours: Vec<_> = fixture.server.consumers("EVENTS").into_iter().filter(|name| *name != rival.name).collect();
    fixture.ask(&format!("$JS.API.CONSUMER.DELETE.EVENTS.{}", ours[0]), &Value::Null);
    let ended = collector.wait();
    let log = collector.log();
    assert_eq!(ended.code(), Some(1), "{log}");
    let last = log.lines().last().unwrap_or_default();
    let expected = format!(
        "another collector uses consumer {}, created by catchment, process 4711 at elsewhere:/a.db",
        rival.name
    );
    assert!(last.contains(&expected) && last.contains("catchment adopt"), "{log}");
    assert!(log.lines().count() < 10, "not again and again: {log}");
    assert_eq!(fixture.server.consumers("EVENTS"), std::slice::from_ref(&rival.name), "the other's is left alone");
    // It does not start either while the other is at work.
    let said = refused(&fixture, &fixture.database());
    assert!(said.contains(&expected), "{said}");
    rival.stop();
    all.extend(fixture.publish("second", 100));
    fixture.drain();
    fixture.holds_exactly(&all);
}

#[test]
fn a_clone_that_polls_is_found_between_two_of_its_requests() {
    let fixture = Fixture::new();
    fixture.drain();
    let mut all = fixture.publish("event", 20_000);
    let rival = Rival::start(&fixture, 1);
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in (0..20_000).take_while(|_| !stopped.load(Ordering::Relaxed)) {
                rival.poll();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let said = refused(&fixture, &fixture.database());
        stopped.store(true, Ordering::Relaxed);
        assert!(said.contains(&format!("another collector uses consumer {}", rival.name)), "{said}");
    });
    assert_eq!(fixture.server.consumers("EVENTS"), std::slice::from_ref(&rival.name));
    // One that has delivered, and does so no more, is no rival.
    all.extend(fixture.publish("last", 1));
    fixture.drain();
    fixture.holds_exactly(&all);
}

#[test]
fn what_a_process_that_died_has_left_is_waited_for_and_no_rival() {
    let fixture = Fixture::new();
    fixture.drain();
    let rival = Rival::start(&fixture, PATIENT);
    let all = fixture.publish("event", 100);
    let collector = fixture.collector();
    collector.said("another collector uses consumer");
    rival.stop();
    fixture.has(100);
    collector.said("well again");
    assert!(collector.stop().success());
    fixture.holds_exactly(&all);
}

#[test]
fn where_one_consumer_is_allowed_two_clones_do_not_share_it() {
    let fixture = Fixture::with_stream(&json!({ "retention": "interest", "max_consumers": 1 }));
    fixture.drain();
    // It takes the one over that the first run has left.
    let mut collector = fixture.collector();
    collector.said("collecting stream EVENTS");
    let mut all = fixture.publish("first", 100);
    fixture.has(100);
    let name = fixture.server.consumers("EVENTS")[0].clone();
    let rival = Rival::pull(&fixture, name, PATIENT);
    // Now one of the two has what the other misses.
    all.extend(fixture.publish("second", 2_000));
    let ended = collector.wait();
    let log = collector.log();
    assert_eq!(ended.code(), Some(1), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(&rival.name) && last.contains("catchment adopt"), "{log}");
    rival.stop();
    fixture.drain();
    fixture.holds_exactly(&all);
}

/// Starts copies of all kinds beside a collector that is now and then killed, while events flow.
fn copies_at_any_moment(retention: &str) {
    const EVENTS: u64 = 12_000;
    let mut chance = Chance::new();
    let fixture = Fixture::with_retention(retention);
    let database = fixture.database();
    let mut collector = fixture.collector();
    collector.said("collecting stream EVENTS");
    let load = Load::start(&fixture.server, EVENTS, 1_000);
    let reaches = |rows: u64| {
        eventually(&format!("{rows} rows"), || {
            let now = oracle::position(&database);
            load.committed(now);
            (now >= rows).then_some(())
        });
    };
    let mut adopted = Vec::new();
    for round in 0..6 {
        reaches(oracle::position(&database) + chance.up_to(EVENTS / 10));
        let path = copy(&fixture, &format!("copy-{round}.db"));
        match round % 3 {
            0 => assert!(refused(&fixture, &path).contains("catchment adopt")),
            1 => {
                came_from_elsewhere(&path);
                collector.kill();
                let done = output(run(&fixture.server.url(), &path).arg("--drain"));
                assert!(done.status.success(), "{}", stderr(&done));
                collector = fixture.collector();
            }
            _ => {
                let done = output(catchment().arg("adopt").arg("--database").arg(&path));
                assert!(done.status.success(), "{}", stderr(&done));
                adopted.push((collect(&fixture, &path, &format!("copy-{round}.log")), path));
            }
        }
    }
    reaches(EVENTS);
    let events = load.finish();
    assert!(collector.stop().success());
    oracle::is_exactly(&database, &events);
    for (other, path) in adopted {
        eventually("the copy's events", || (oracle::position(&path) == EVENTS).then_some(()));
        let log = other.log();
        assert!(other.stop().success());
        // What went between the copy and its first consumer, a stream with interest retention has only for the original.
        if retention == "limits" {
            oracle::is_exactly(&path, &events);
        } else {
            let rows = oracle::payloads(&path);
            let stored: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
            let all: BTreeSet<&str> = events.iter().map(|kept| kept.payload.as_str()).collect();
            assert!(stored.len() == rows.len() && stored.is_subset(&all), "rows that are there twice, or of no event");
            let missing = all.len() - stored.len();
            // In one line or in several: the original may commit more while the copy's consumer is created.
            let counts = log.split("up to ").skip(1).filter_map(|rest| rest.split_once(" event"));
            let reported: usize = counts.filter_map(|(count, _)| count.parse::<usize>().ok()).sum();
            assert!(missing == 0 || missing == reported, "{missing} are missing: {log}");
        }
    }
}

#[test]
fn copies_started_at_any_moment_cost_the_original_nothing() {
    copies_at_any_moment("limits");
}

#[test]
fn copies_started_at_any_moment_leave_the_originals_events() {
    copies_at_any_moment("interest");
}
