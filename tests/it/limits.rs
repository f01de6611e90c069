//! Accounts and servers at their limits: refused with the reason, never reported stored, and healed when there is room.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use catchment::record::{FailureReason, WaitError};
use catchment::{Collector, Config, Event, Receipt, Recorder};
use serde_json::{Value, json};

use crate::support::health::{GRACE, noticed, quick, stays_well, well};
use crate::support::load::{self, payload};
use crate::support::oracle::{self, Kept};
use crate::support::scripted::Scripted;
use crate::support::server::{self, Server};
use crate::support::{eventually, eventually_within};

/// An account with these limits, which everybody is in.
fn limited(limits: &str) -> String {
    format!(
        "jetstream: enabled\nno_auth_user: a\naccounts {{ A {{ jetstream {{ {limits} }}, users: [{{ user: a, password: a }}] }} }}\n"
    )
}

/// Has the server take other limits: at once, or where it is too old for that, by a restart.
fn relimit(server: &mut Server, limits: &str) {
    server.configure(&limited(limits));
    if server::version() < (2, 10) {
        server.kill();
        server.restart();
    }
}

fn config(server: &Server, database: PathBuf) -> Config {
    let mut config = Config::default();
    config.broker = quick(server.url());
    config.database.path = database;
    config
}

#[test]
fn a_consumer_over_the_limit_is_created_when_it_is_lifted() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut server = Server::configured(folder.path(), &limited("max_consumers: 2"));
    server.make_stream("EVENTS", &["events.>"]);
    let collector = Collector::start(&config(&server, database.clone())).expect("starts");
    let mut kept = load::publish(&server, 100);
    eventually("the rows", || (oracle::position(&database) == 100).then_some(()));
    let ours = server.consumers("EVENTS");
    let other = json!({ "stream_name": "EVENTS", "config": { "durable_name": "other", "ack_policy": "explicit" } });
    let made = server.ask("$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.other", &other);
    assert!(made["error"].is_null(), "{made}");
    let began = Instant::now();
    relimit(&mut server, "max_consumers: 1");
    eventually("the limit", || {
        (server.ask("$JS.API.INFO", &Value::Null)["limits"]["max_consumers"] == 1).then_some(())
    });
    server.ask(&format!("$JS.API.CONSUMER.DELETE.EVENTS.{}", ours[0]), &Value::Null);
    let said = noticed(began, &["maximum consumers"], || collector.health());
    assert!(said.contains("EVENTS"), "{said}");
    kept.extend(load::publish_from(&server, 100, 100));
    relimit(&mut server, "max_consumers: 2");
    eventually("the rows behind it", || (oracle::position(&database) == 200).then_some(()));
    stays_well(|| collector.health());
    collector.stop(Duration::from_secs(10)).expect("stops");
    assert_eq!(server.consumers("EVENTS"), ["other"], "somebody else's is untouched");
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_stream_over_the_accounts_limit_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::configured(folder.path(), &limited("max_streams: 1"));
    server.make_stream("OTHER", &["other.>"]);
    let config = config(&server, folder.path().join("a.db"));
    let said = Collector::start(&config).expect_err("one is all there may be").to_string();
    assert!(said.contains("cannot create stream EVENTS") && said.contains("maximum number of streams"), "{said}");
    relimit(&mut server, "max_streams: 2");
    let collector = eventually("the limit to be lifted", || Collector::start(&config).ok());
    let kept = load::publish(&server, 10);
    eventually("the rows", || (oracle::position(&config.database.path) == 10).then_some(()));
    collector.stop(Duration::from_secs(10)).expect("stops");
    oracle::is_exactly(&config.database.path, &kept);
}

#[test]
fn an_event_refused_by_a_full_server_is_sent_again() {
    const EVENTS: u64 = 3_000;
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let server = Server::configured(folder.path(), "jetstream { max_file_store: 1MB }\n");
    server.make_stream("EVENTS", &["events.>"]);
    let collector = Collector::start(&config(&server, database.clone())).expect("starts");
    let recorder = load::patient(quick(server.url()));
    let payloads: Vec<String> = (0..EVENTS).map(|number| format!("{number:0>1000}")).collect();
    let began = Instant::now();
    let receipts: Vec<Receipt> = payloads
        .iter()
        .map(|payload| recorder.record(Event::new("events.load", payload.as_str())).expect("taken"))
        .collect();
    noticed(began, &["insufficient resources"], || recorder.health());
    eventually_within(Duration::from_secs(60), "all to be settled", &mut || {
        if !recorder.health().is_well() {
            // What the database has may go.
            let collected = json!({ "seq": oracle::position(&database) + 1 });
            server.ask("$JS.API.STREAM.PURGE.EVENTS", &collected);
        }
        receipts.iter().all(Receipt::is_settled).then_some(())
    });
    let kept: Vec<Kept> = payloads
        .into_iter()
        .zip(receipts)
        .map(|(payload, receipt)| Kept {
            payload,
            sequence: receipt.wait(Duration::ZERO).expect("stored in the end").sequence().expect("in a stream"),
        })
        .collect();
    well(|| recorder.health());
    eventually("all rows", || (oracle::position(&database) == EVENTS).then_some(()));
    collector.stop(Duration::from_secs(10)).expect("stops");
    oracle::is_exactly(&database, &kept);
}

/// What a server says of an event that it has no room for, and what it says of one that it keeps.
const NO_ROOM: &str =
    r#"{"error":{"code":503,"err_code":10023,"description":"insufficient resources"},"stream":"EVENTS","seq":0}"#;
const KEPT: &str = r#"{"stream":"EVENTS","seq":1}"#;

#[test]
fn a_recorder_is_healthy_when_success_follows_a_refusal() {
    // Refused and sent again, an event may hear both words in one breath.
    let server = Scripted::start(|talk, line| {
        let is_event = line.verb() == "PUB" && line.subject().starts_with("events.");
        if is_event {
            talk.tell(line.reply(), NO_ROOM);
            talk.tell(line.reply(), KEPT);
        }
        is_event
    });
    let recorder = load::patient(quick(server.url()));
    let receipts: Vec<Receipt> =
        (0..100).map(|number| recorder.record(Event::new("events.load", payload(number))).expect("taken")).collect();
    for receipt in receipts {
        receipt.wait(Duration::from_secs(20)).expect("kept");
    }
    eventually_within(GRACE, "nothing to be left to complain of", &mut || recorder.health().is_well().then_some(()));
    recorder.close(Duration::from_secs(5)).expect("nothing is left");
}

#[test]
fn an_event_refused_by_a_full_stream_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let server = Server::start(folder.path());
    let full = json!({
        "name": "EVENTS", "subjects": ["events.>"], "storage": "file", "retention": "limits", "discard": "new",
        "max_bytes": 100_000,
    });
    let made = server.ask("$JS.API.STREAM.CREATE.EVENTS", &full);
    assert!(made["error"].is_null(), "{made}");
    let recorder = load::patient(quick(server.url()));
    let receipts: Vec<Receipt> =
        (0..2_000).map(|number| recorder.record(Event::new("events.load", payload(number))).expect("taken")).collect();
    let (mut kept, mut refused) = (Vec::new(), 0);
    for (number, receipt) in (0..).zip(receipts) {
        match receipt.wait(Duration::from_secs(20)) {
            Ok(stored) => {
                kept.push(Kept { payload: payload(number), sequence: stored.sequence().expect("in a stream") });
            }
            Err(WaitError::Failed(error)) => {
                assert!(
                    matches!(&error.reason, FailureReason::Refused(what) if what.contains("maximum bytes exceeded")),
                    "{error}"
                );
                assert_eq!(error.event.payload(), payload(number).as_bytes(), "given back as it was");
                refused += 1;
            }
            Err(pending) => panic!("{pending}"),
        }
    }
    assert!(refused > 0 && !kept.is_empty(), "{refused} refused, {} kept", kept.len());
    // Room again: the next is stored.
    let collector = Collector::start(&config(&server, database.clone())).expect("starts");
    eventually("the rows", || (oracle::position(&database) == kept.len() as u64).then_some(()));
    server.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({}));
    let next = recorder.record(Event::new("events.load", "next")).expect("taken");
    let sequence = next.wait(Duration::from_secs(1) + GRACE).expect("stored").sequence().expect("in a stream");
    kept.push(Kept { payload: "next".into(), sequence });
    eventually("its row", || (oracle::position(&database) == sequence).then_some(()));
    collector.stop(Duration::from_secs(10)).expect("stops");
    recorder.close(Duration::from_secs(5)).expect("nothing is left");
    oracle::is_exactly(&database, &kept);
}
