//! The lives of a stream: it goes back, it comes back, it has events again that it had lost. Nothing it holds may stay behind.

use std::path::PathBuf;

use catchment::{Collector, Config};
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::collector::{output, run, stderr};
use crate::support::health::quick;
use crate::support::oracle;
use crate::support::scene::Scene;
use crate::support::server::Server;
use crate::support::{copy_folder, eventually};

/// A copy of a server's store, made while the server is stopped, and put back later.
struct StoreCopy {
    store: PathBuf,
    copy: PathBuf,
}

impl StoreCopy {
    fn take(scene: &mut Scene) -> Self {
        let (store, copy) = (scene.folder.path().join("streams"), scene.folder.path().join("older"));
        scene.server.stop();
        copy_folder(&store, &copy);
        scene.server.restart();
        Self { store, copy }
    }

    fn restore(self, scene: &mut Scene) {
        scene.server.stop();
        std::fs::remove_dir_all(&self.store).expect("removes");
        std::fs::rename(&self.copy, &self.store).expect("moves");
        scene.server.restart();
    }
}

fn delete(scene: &Scene, sequence: u64) {
    scene.ask("$JS.API.STREAM.MSG.DELETE.EVENTS", &json!({ "seq": sequence }));
}

/// Payloads of the table, sorted, for an order that a second reading has changed.
fn sorted(scene: &Scene) -> Vec<String> {
    let mut payloads = oracle::payloads(&scene.database());
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
    let mut scene = Scene::new();
    let first = scene.publish("first", 100);
    let copy = StoreCopy::take(&mut scene);
    let second = scene.publish("second", 100);
    scene.drain();
    copy.restore(&mut scene);
    let third = scene.publish("third", 150);
    delete(&scene, 200);
    let said = scene.drain();
    assert!(said.contains("went back: its message 199 is younger"), "{said}");
    assert_eq!(sorted(&scene), all(&[&first, &second, &third[..99], &third[100..]]));
}

#[test]
fn a_rollback_is_noticed_with_one_message_per_subject() {
    let mut scene = Scene::with_stream(&json!({ "max_msgs_per_subject": 1 }));
    let publish = |scene: &Scene, life: &str, subjects: &mut dyn Iterator<Item = usize>| {
        let mut raw = scene.server.raw();
        subjects.for_each(|at| raw.send(format!("events.{at}"), None, format!("{life}-{at}")));
        raw.finish();
    };
    publish(&scene, "old", &mut (0..50));
    let copy = StoreCopy::take(&mut scene);
    publish(&scene, "lost", &mut (50..100));
    scene.drain();
    copy.restore(&mut scene);
    publish(&scene, "new", &mut (50..99));
    publish(&scene, "newer", &mut (98..101));
    // Sequence 100 is that of new-98, whose subject has a newer message.
    let said = scene.drain();
    assert!(said.contains("went back"), "{said}");
    let rows = oracle::payloads(&scene.database());
    let missing: Vec<String> =
        (50..98).map(|at| format!("new-{at}")).chain((98..101).map(|at| format!("newer-{at}"))).collect();
    assert!(missing.iter().all(|payload| rows.contains(payload)), "{rows:?}");
    assert_eq!(rows.len(), 100 + missing.len(), "and nothing twice");
}

#[test]
fn a_deleted_message_where_the_ledger_stands_is_no_rollback() {
    let scene = Scene::new();
    let first = scene.publish("first", 100);
    scene.drain();
    for sequence in 95..=100 {
        delete(&scene, sequence);
    }
    let second = scene.publish("second", 10);
    let said = scene.drain();
    assert!(!said.contains("WARN"), "{said}");
    scene.holds_exactly(&[first, second].concat());
}

#[test]
fn events_purged_early_and_restored_are_stored() {
    let mut scene = Scene::new();
    let first = scene.publish("first", 100);
    let copy = StoreCopy::take(&mut scene);
    scene.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": 51 }));
    let second = scene.publish("second", 20);
    scene.drain();
    scene.holds_exactly(&[&first[50..], &second].concat());
    copy.restore(&mut scene);
    let third = scene.publish("third", 10);
    let said = scene.drain();
    assert!(said.contains("went back"), "{said}");
    assert_eq!(sorted(&scene), all(&[&first, &second, &third]));
    // And that is remembered too.
    scene.drain();
    assert_eq!(sorted(&scene), all(&[&first, &second, &third]));
}

#[test]
fn single_restored_events_are_stored_in_a_live_stream() {
    let mut scene = Scene::new();
    let first = scene.publish("first", 100);
    let copy = StoreCopy::take(&mut scene);
    for sequence in [10, 11, 50, 99] {
        delete(&scene, sequence);
    }
    scene.drain();
    assert_eq!(oracle::payloads(&scene.database()).len(), 96);
    copy.restore(&mut scene);
    let second = scene.publish("second", 5);
    let said = scene.drain();
    assert!(said.contains("has events again that were missing when they were collected (10 to 11, 50, 99)"), "{said}");
    assert_eq!(sorted(&scene), all(&[&first, &second]));
    let said = scene.drain();
    assert!(!said.contains("WARN"), "once: {said}");
}

#[test]
fn a_restored_event_of_a_filtered_stream_is_stored() {
    let mut scene = Scene::new();
    let publish = |scene: &Scene, subject: &str, prefix: &str| {
        let payloads: Vec<String> = (0..10).map(|at| format!("{prefix}-{at}")).collect();
        scene.server.raw().publish_all(subject, &payloads);
        payloads
    };
    let first = publish(&scene, "events.ours", "first");
    publish(&scene, "events.other", "other");
    let second = publish(&scene, "events.ours", "second");
    let copy = StoreCopy::take(&mut scene);
    delete(&scene, 3);
    delete(&scene, 15);
    delete(&scene, 22);
    let drain = |scene: &Scene| {
        let done = output(scene.run().arg("--drain").env("CATCHMENT_BROKER__SUBJECTS", "events.ours"));
        assert!(done.status.success(), "{}", stderr(&done));
        stderr(&done)
    };
    drain(&scene);
    assert_eq!(oracle::payloads(&scene.database()).len(), 18);
    copy.restore(&mut scene);
    let said = drain(&scene);
    assert!(said.contains("missing when they were collected"), "{said}");
    assert_eq!(sorted(&scene), all(&[&first, &second]));
    assert!(!drain(&scene).contains("WARN"), "once");
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
    let mut scene = Scene::new();
    let first = scene.publish("first", 100);
    scene.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": 11 }));
    scene.drain();
    let edited = json!({
        "name": "EVENTS", "subjects": ["events.>"], "storage": "file", "retention": "limits", "max_msgs_per_subject": 1_000,
    });
    scene.ask("$JS.API.STREAM.UPDATE.EVENTS", &edited);
    // A 2.9 server says another time of creation from now on.
    scene.server.kill();
    scene.server.restart();
    let second = scene.publish("second", 10);
    let said = scene.drain();
    assert!(!said.contains("WARN"), "{said}");
    scene.holds_exactly(&[&first[10..], &second].concat());
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
        let mut config = Config { broker: quick(""), ..Config::default() };
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
    eventually("all of both lives", || (oracle::payloads(&database).len() == expected.len()).then_some(()));
    collector.stop(std::time::Duration::from_secs(10)).expect("stops");
    assert_eq!(oracle::payloads(&database), expected);
}
