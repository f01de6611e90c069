//! The epochs of a stream: it goes back to an earlier state, returns, or has deleted events again. All its events are stored.

use std::path::PathBuf;

use catchment::{Collector, Config};
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::collector::{output, run, stderr};
use crate::support::fixture::Fixture;
use crate::support::health::quick;
use crate::support::oracle;
use crate::support::server::Server;
use crate::support::{copy_folder, eventually};

/// A copy of a server's store, made while the server is stopped, and put back later.
struct StoreCopy {
    store: PathBuf,
    copy: PathBuf,
}

impl StoreCopy {
    fn take(fixture: &mut Fixture) -> Self {
        let (store, copy) = (fixture.folder.path().join("streams"), fixture.folder.path().join("older"));
        fixture.server.stop();
        copy_folder(&store, &copy);
        fixture.server.restart();
        Self { store, copy }
    }

    fn restore(self, fixture: &mut Fixture) {
        fixture.server.stop();
        std::fs::remove_dir_all(&self.store).expect("removes");
        std::fs::rename(&self.copy, &self.store).expect("moves");
        fixture.server.restart();
    }
}

fn delete(fixture: &Fixture, sequence: u64) {
    fixture.ask("$JS.API.STREAM.MSG.DELETE.EVENTS", &json!({ "seq": sequence }));
}

/// Payloads of the table, sorted, for an order that a second reading has changed.
fn sorted(fixture: &Fixture) -> Vec<String> {
    let mut payloads = oracle::payloads(&fixture.database());
    payloads.sort();
    payloads
}

fn all(parts: &[&[String]]) -> Vec<String> {
    let mut all = parts.concat();
    all.sort();
    all
}

#[test]
fn a_rollback_is_noticed_where_the_ledgers_message_is_gone() {
    let mut fixture = Fixture::new();
    let first = fixture.publish("first", 100);
    let copy = StoreCopy::take(&mut fixture);
    let second = fixture.publish("second", 100);
    fixture.drain();
    copy.restore(&mut fixture);
    let third = fixture.publish("third", 150);
    delete(&fixture, 200);
    let said = fixture.drain();
    assert!(said.contains("went back: its message 199 is younger"), "{said}");
    assert_eq!(sorted(&fixture), all(&[&first, &second, &third[..99], &third[100..]]));
}

#[test]
fn a_rollback_is_noticed_with_one_message_per_subject() {
    let mut fixture = Fixture::with_stream(&json!({ "max_msgs_per_subject": 1 }));
    let publish = |fixture: &Fixture, prefix: &str, subjects: &mut dyn Iterator<Item = usize>| {
        let mut raw = fixture.server.raw();
        subjects.for_each(|at| raw.send(format!("events.{at}"), None, format!("{prefix}-{at}")));
        raw.finish();
    };
    publish(&fixture, "old", &mut (0..50));
    let copy = StoreCopy::take(&mut fixture);
    publish(&fixture, "lost", &mut (50..100));
    fixture.drain();
    copy.restore(&mut fixture);
    publish(&fixture, "new", &mut (50..99));
    publish(&fixture, "newer", &mut (98..101));
    // Sequence 100 is that of new-98, whose subject has a newer message.
    let said = fixture.drain();
    assert!(said.contains("went back"), "{said}");
    let rows = oracle::payloads(&fixture.database());
    let missing: Vec<String> =
        (50..98).map(|at| format!("new-{at}")).chain((98..101).map(|at| format!("newer-{at}"))).collect();
    assert!(missing.iter().all(|payload| rows.contains(payload)), "{rows:?}");
    assert_eq!(rows.len(), 100 + missing.len(), "and nothing twice");
}

#[test]
fn a_deleted_message_where_the_ledger_stands_is_no_rollback() {
    let fixture = Fixture::new();
    let first = fixture.publish("first", 100);
    fixture.drain();
    for sequence in 95..=100 {
        delete(&fixture, sequence);
    }
    let second = fixture.publish("second", 10);
    let said = fixture.drain();
    assert!(!said.contains("WARN"), "{said}");
    fixture.holds_exactly(&[first, second].concat());
}

#[test]
fn events_purged_early_and_restored_are_stored() {
    let mut fixture = Fixture::new();
    let first = fixture.publish("first", 100);
    let copy = StoreCopy::take(&mut fixture);
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": 51 }));
    let second = fixture.publish("second", 20);
    fixture.drain();
    fixture.holds_exactly(&[&first[50..], &second].concat());
    copy.restore(&mut fixture);
    let third = fixture.publish("third", 10);
    let said = fixture.drain();
    assert!(said.contains("went back"), "{said}");
    assert_eq!(sorted(&fixture), all(&[&first, &second, &third]));
    // And that is remembered too.
    fixture.drain();
    assert_eq!(sorted(&fixture), all(&[&first, &second, &third]));
}

#[test]
fn single_restored_events_are_stored_in_a_live_stream() {
    let mut fixture = Fixture::new();
    let first = fixture.publish("first", 100);
    let copy = StoreCopy::take(&mut fixture);
    for sequence in [10, 11, 50, 99] {
        delete(&fixture, sequence);
    }
    fixture.drain();
    assert_eq!(oracle::payloads(&fixture.database()).len(), 96);
    copy.restore(&mut fixture);
    let second = fixture.publish("second", 5);
    let said = fixture.drain();
    assert!(said.contains("has events again that were missing when they were collected (10 to 11, 50, 99)"), "{said}");
    assert_eq!(sorted(&fixture), all(&[&first, &second]));
    let said = fixture.drain();
    assert!(!said.contains("WARN"), "once: {said}");
}

#[test]
fn a_restored_event_of_a_filtered_stream_is_stored() {
    let mut fixture = Fixture::new();
    let publish = |fixture: &Fixture, subject: &str, prefix: &str| {
        let payloads: Vec<String> = (0..10).map(|at| format!("{prefix}-{at}")).collect();
        fixture.server.raw().publish_all(subject, &payloads);
        payloads
    };
    let first = publish(&fixture, "events.ours", "first");
    publish(&fixture, "events.other", "other");
    let second = publish(&fixture, "events.ours", "second");
    let copy = StoreCopy::take(&mut fixture);
    delete(&fixture, 3);
    delete(&fixture, 15);
    delete(&fixture, 22);
    let drain = |fixture: &Fixture| {
        let done = output(fixture.run().arg("--drain").env("CATCHMENT_BROKER__SUBJECTS", "events.ours"));
        assert!(done.status.success(), "{}", stderr(&done));
        stderr(&done)
    };
    drain(&fixture);
    assert_eq!(oracle::payloads(&fixture.database()).len(), 18);
    copy.restore(&mut fixture);
    let said = drain(&fixture);
    assert!(said.contains("missing when they were collected"), "{said}");
    assert_eq!(sorted(&fixture), all(&[&first, &second]));
    assert!(!drain(&fixture).contains("WARN"), "once");
}

#[test]
fn a_broker_back_after_another_is_read_from_its_old_position() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let servers = ["a", "b"].map(|name| {
        let home = folder.path().join(name);
        std::fs::create_dir(&home).expect("a folder");
        let server = Server::start(&home);
        server.make_stream("EVENTS", &["events.>"]);
        server
    });
    let mut expected = Vec::new();
    for round in 0..3 {
        for (name, server) in ["a", "b"].iter().zip(&servers) {
            let payloads: Vec<String> = (0..50).map(|at| format!("{name}-{round}-{at}")).collect();
            server.raw().publish_all("events.test", &payloads);
            let done = output(run(&server.url(), &database).arg("--drain"));
            assert!(done.status.success(), "{}", stderr(&done));
            expected.extend(payloads);
            if round > 0 {
                assert!(stderr(&done).contains("is again the one created at"), "{}", stderr(&done));
            }
            assert_eq!(oracle::payloads(&database), expected, "round {round}, broker {name}");
        }
    }
}

#[test]
fn a_stream_edited_before_its_server_restarts_is_the_same() {
    let mut fixture = Fixture::new();
    let first = fixture.publish("first", 100);
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": 11 }));
    fixture.drain();
    let edited = json!({
        "name": "EVENTS", "subjects": ["events.>"], "storage": "file", "retention": "limits", "max_msgs_per_subject": 1_000,
    });
    fixture.ask("$JS.API.STREAM.UPDATE.EVENTS", &edited);
    // A 2.9 server says another time of creation from now on.
    fixture.server.kill();
    fixture.server.restart();
    let second = fixture.publish("second", 10);
    let said = fixture.drain();
    assert!(!said.contains("WARN"), "{said}");
    fixture.holds_exactly(&[&first[10..], &second].concat());
}

#[test]
fn a_stream_that_goes_back_under_an_idle_collector_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = json!({ "storage": "memory", "num_replicas": 1 });
    let mut cluster = Cluster::start_with(folder.path(), &settings);
    let leader = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    let publish = |cluster: &mut Cluster, prefix: &str, count: usize| {
        let payloads: Vec<String> = (0..count).map(|at| format!("{prefix}-{at}")).collect();
        cluster.server(others[0]).raw().publish_all("events.test", &payloads);
        payloads
    };
    let created = |cluster: &Cluster| {
        eventually("the stream", || {
            let answer = cluster.ask_any("$JS.API.STREAM.INFO.EVENTS", &Value::Null)?;
            Some((answer["created"].clone(), answer["state"]["last_seq"].as_u64()?))
        })
    };
    let first = publish(&mut cluster, "first", 200);
    let urls = cluster.urls();
    let start = || {
        let mut config = Config::default();
        config.broker = quick("");
        config.broker.servers = others.iter().map(|at| urls[*at].clone()).collect();
        config.database.path = folder.path().join("a.db");
        Collector::start(&config).expect("starts")
    };
    let database = folder.path().join("a.db");
    let collector = start();
    eventually("the first", || (oracle::position(&database) == 200).then_some(()));
    collector.stop(std::time::Duration::from_secs(10)).expect("stops");
    // This one has nothing to collect before the stream goes back.
    let collector = start();
    let (before, _) = created(&cluster);
    cluster.server(leader).kill();
    cluster.server(leader).restart();
    let after = eventually("a stream that is empty", || {
        let (after, last) = created(&cluster);
        (last == 0).then_some(after)
    });
    assert_eq!(before, after, "it does not show in the time of its creation");
    let second = publish(&mut cluster, "second", 300);
    let expected = [first, second].concat();
    eventually("the events of both epochs", || (oracle::payloads(&database).len() == expected.len()).then_some(()));
    collector.stop(std::time::Duration::from_secs(10)).expect("stops");
    assert_eq!(oracle::payloads(&database), expected);
}
