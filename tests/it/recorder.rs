//! A recorder's word: what it reports stored is stored, what it cannot store comes back, and nothing is in between.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use catchment::record::{FailureReason, WaitError};
use catchment::{Event, Receipt, Recorder};
use serde_json::{Value, json};

use crate::support::chance::Chance;
use crate::support::collector::{Collector, catchment, drain, fed, run, stderr};
use crate::support::eventually;
use crate::support::health::{quick, well};
use crate::support::load::{self, Load, payload};
use crate::support::oracle::{self, Kept};
use crate::support::proxy::Proxy;
use crate::support::server::Server;

#[test]
fn reported_events_are_stored_across_broker_kills() {
    const EVENTS: u64 = 15_000;
    let mut chance = Chance::new();
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let load = Load::start(&server, EVENTS, 1_000);
    for round in 1..=4 {
        let until = round * EVENTS / 8 + chance.up_to(EVENTS / 10);
        eventually("some to be acknowledged", || {
            let acknowledged = load.acknowledged();
            load.committed(acknowledged);
            (acknowledged >= until).then_some(())
        });
        server.kill();
        std::thread::sleep(chance.time(Duration::from_millis(100)));
        server.restart();
    }
    let kept = load.finish();
    assert_eq!(kept.len() as u64, EVENTS);
    assert_eq!(server.last_sequence("EVENTS"), EVENTS, "sent again under the same identity, nothing is there twice");
    for kept in kept.iter().step_by(1_000) {
        let answer = server.ask("$JS.API.STREAM.MSG.GET.EVENTS", &json!({ "seq": kept.sequence }));
        let data = answer["message"]["data"].as_str().unwrap_or_else(|| panic!("{answer}"));
        let data = data_encoding::BASE64.decode(data.as_bytes()).expect("base64");
        assert_eq!(String::from_utf8(data).expect("text"), kept.payload);
    }
    drain(&server.url(), &database);
    oracle::is_exactly(&database, &kept);
}

#[test]
fn events_sent_again_after_a_reset_keep_their_identity() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let proxy = Proxy::start(server.port());
    let recorder = load::patient(quick(proxy.url()));
    // Stored, but the recorder does not hear of it before its connection is gone.
    proxy.drop_publish_acknowledgements();
    let receipts: Vec<Receipt> = (0..200)
        .map(|number| {
            let event = Event::new("events.load", payload(number));
            // Whose identity is the application's, and whose is made up.
            recorder.record(if number % 2 == 0 { event } else { event.id(format!("id-{number}")) }).expect("taken")
        })
        .collect();
    eventually("all to be stored", || (server.last_sequence("EVENTS") == 200).then_some(()));
    proxy.heal();
    proxy.cut();
    let kept: Vec<Kept> = (0..200)
        .zip(receipts)
        .map(|(number, receipt)| {
            let stored = receipt.wait(Duration::from_secs(20)).expect("stored");
            assert!(stored.is_duplicate(), "{number}: {stored:?}");
            Kept { payload: payload(number), sequence: stored.sequence().expect("in a stream") }
        })
        .collect();
    well(|| recorder.health());
    recorder.close(Duration::from_secs(5)).expect("nothing is left");
    assert_eq!(server.last_sequence("EVENTS"), 200);
    drain(&server.url(), &database);
    oracle::is_exactly(&database, &kept);
}

#[test]
fn events_too_large_for_a_new_server_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut server = Server::configured(folder.path(), "jetstream: enabled\nmax_payload: 65536\n");
    server.make_stream("EVENTS", &["events.>"]);
    let recorder = load::patient(quick(server.url()));
    let large = || Event::new("events.load", vec![b'x'; 20_000]).header("A", "b");
    let first = recorder.record(large()).expect("taken").wait(Duration::from_secs(20)).expect("stored");
    assert_eq!(first.sequence().expect("in a stream"), 1);
    let too_large = recorder.record(Event::new("events.load", vec![b'x'; 65_536])).expect_err("with its headers");
    assert!(matches!(too_large.reason, FailureReason::TooLarge { limit: 65_536, .. }), "{too_large}");
    server.kill();
    eventually("that to be noticed", || (!recorder.health().is_well()).then_some(()));
    let waiting = [large(), Event::new("events.load", "small"), large(), Event::new("events.load", "last")];
    let receipts: Vec<Receipt> =
        waiting.iter().map(|event| recorder.record(event.clone()).expect("taken, for now")).collect();
    server.configure("jetstream: enabled\nmax_payload: 8192\n");
    server.restart();
    let mut sequences = Vec::new();
    for (event, receipt) in waiting.iter().zip(receipts) {
        match receipt.wait(Duration::from_secs(20)) {
            Ok(stored) => sequences.push((event.payload().to_vec(), stored.sequence().expect("in a stream"))),
            Err(WaitError::Failed(error)) => {
                assert!(matches!(error.reason, FailureReason::TooLarge { limit: 8_192, .. }), "{error}");
                assert_eq!((&*error.event, event.payload().len()), (event, 20_000), "given back as it was");
            }
            Err(pending) => panic!("{pending}"),
        }
    }
    assert_eq!(sequences, [(b"small".to_vec(), 2), (b"last".to_vec(), 3)]);
    let refused = recorder.record(large()).expect_err("it knows by now");
    assert!(matches!(refused.reason, FailureReason::TooLarge { limit: 8_192, .. }), "{refused}");
    assert_eq!(*refused.event, large());
    recorder.close(Duration::from_secs(5)).expect("nothing is left");
    drain(&server.url(), &database);
    assert_eq!(oracle::payloads(&database)[1..], ["small", "last"]);
    oracle::holds(&database, &["small".into(), "last".into()]);
}

#[test]
fn a_denied_event_comes_back_and_delays_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let users =
        "authorization: { users: [{ user: a, password: a, permissions: { publish: { deny: [\"events.denied\"] } } }] }";
    let server = Server::configured(folder.path(), &format!("jetstream: enabled\n{users}\n"));
    let mut broker = quick(server.url());
    (broker.user, broker.password) = (Some("a".into()), Some("a".into()));
    let database = folder.path().join("a.db");
    let mut command = run(&server.url(), &database);
    command.args(["--user", "a", "--password", "a"]);
    let collector = Collector::start(command, &folder.path().join("log"));
    collector.said("collecting stream");
    let recorder = load::patient(broker);
    let denied = recorder.record(Event::new("events.denied", "secret").id("7")).expect("taken");
    let others: Vec<Receipt> =
        (0..10_000).map(|number| recorder.record(Event::new("events.load", payload(number))).expect("taken")).collect();
    for receipt in others {
        receipt.wait(Duration::from_secs(20)).expect("stored");
    }
    let Err(WaitError::Failed(failed)) = denied.wait(Duration::from_secs(5)) else { panic!("it may not be published") };
    assert!(
        matches!(&failed.reason, FailureReason::Refused(what) if what.contains("Permissions Violation")),
        "{failed}"
    );
    assert_eq!(*failed.event, Event::new("events.denied", "secret").id("7"));
    recorder.close(Duration::from_secs(5)).expect("nothing is left");
    eventually("all rows", || (oracle::count(&database) == 10_000).then_some(()));
    assert!(collector.stop().success());
}

/// What a recorder's application does right before it ends, in a process: lines in, and out.
#[test]
fn a_process_that_ends_right_after_its_flush_has_lost_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let mut published = Vec::new();
    for (round, count) in [1, 10, 5_000].into_iter().enumerate() {
        let lines: Vec<String> = (0..count).map(|n| format!("round {round}, line {n}")).collect();
        let mut command = catchment();
        command.args(["publish", "--server", &server.url(), "events.line"]);
        let done = fed(&mut command, lines.join("\n"));
        // Nobody has a moment longer.
        server.kill();
        assert!(done.status.success(), "{}", stderr(&done));
        server.restart();
        published.extend(lines);
    }
    assert_eq!(server.last_sequence("EVENTS"), published.len() as u64);
    drain(&server.url(), &database);
    assert_eq!(oracle::payloads(&database), published);
    oracle::holds(&database, &published);
}

/// The example, as cargo leaves it beside the tests; `cargo test --test it` alone does not build it.
fn bot() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    Some(test.parent()?.parent()?.join("examples/bot")).filter(|program| program.is_file())
}

#[test]
fn the_example_bot_has_recorded_what_it_heard_when_it_ends() {
    let Some(bot) = bot() else {
        eprintln!("skipped: the example bot is not built; cargo test does");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let lines: Vec<String> = (0..500).map(|n| format!("line {n}")).collect();
    let mut child = std::process::Command::new(bot).arg(server.url()).stdin(Stdio::piped()).spawn().expect("runs");
    child.stdin.take().expect("piped").write_all(lines.join("\n").as_bytes()).expect("listens");
    assert!(child.wait().expect("ends").success());
    drain(&server.url(), &database);
    let payloads = oracle::payloads(&database);
    let heard: Vec<Value> = payloads.iter().map(|row| serde_json::from_str(row).expect("JSON")).collect();
    assert!(heard.iter().map(|event| event["text"].as_str()).eq(lines.iter().map(|line| Some(line.as_str()))));
    oracle::holds(&database, &payloads);
}
