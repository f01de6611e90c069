//! Closing a recorder: within its patience, whatever the broker does, and every event that is not stored comes back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use catchment::record::{FailureReason, FlushError, Overflow};
use catchment::{Event, NatsRecorder, NatsRecorderConfig, Recorder};

use crate::support::collector::drain;
use crate::support::eventually;
use crate::support::load::payload;
use crate::support::oracle;
use crate::support::server::Server;

const EVENTS: u64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(1);

/// The machine's own delays, and copies of the events.
const GRACE: Duration = Duration::from_millis(700);

fn recorder(server: &Server) -> NatsRecorder {
    let mut config = NatsRecorderConfig::default();
    config.broker = server.config();
    config.broker.silence = Duration::from_secs(5);
    config.overflow = Overflow::Refuse;
    NatsRecorder::open(config).expect("connects")
}

fn record(recorder: &NatsRecorder) {
    for number in 0..EVENTS {
        drop(recorder.record(Event::new("events.load", payload(number))).expect("there is room"));
    }
}

/// Closes, and returns what came back: the payloads that are said not to be stored, and those that may be.
fn close(recorder: &NatsRecorder) -> (BTreeSet<String>, BTreeSet<String>) {
    let counters = recorder.counters();
    let began = Instant::now();
    let closed = recorder.close(PATIENCE).expect_err("the broker hangs");
    assert!(began.elapsed() < PATIENCE + GRACE, "it took {:?}", began.elapsed());
    let text = closed.to_string();
    let FlushError::Failed { failed, .. } = closed else { panic!("{text}") };
    let (mut not_stored, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    for failure in failed {
        let payload = String::from_utf8(failure.event.payload().to_vec()).expect("text");
        let new = match failure.reason {
            FailureReason::Closed => not_stored.insert(payload),
            FailureReason::Unconfirmed(_) => unknown.insert(payload),
            other => panic!("{other}"),
        };
        assert!(new, "each comes back once");
    }
    assert!(text.contains(&format!("{} of them may be stored", unknown.len())), "{text}");
    let counts = counters.counts();
    assert_eq!((counts.not_stored, counts.unknown), (not_stored.len() as u64, unknown.len() as u64));
    assert_eq!(counts.settled(), EVENTS);
    (not_stored, unknown)
}

/// What the stream has once the server goes on.
fn stored(server: &Server, folder: &std::path::Path) -> BTreeSet<String> {
    server.signal("CONT");
    let database = folder.join("a.db");
    drain(&server.url(), &database);
    oracle::payloads(&database).into_iter().collect()
}

#[test]
fn all_that_a_stopped_broker_leaves_open_comes_back_in_time() {
    let (folder, server) = Server::in_new_folder();
    server.make_stream("EVENTS", &["events.>"]);
    let recorder = recorder(&server);
    server.signal("STOP");
    record(&recorder);
    let (not_stored, unknown) = close(&recorder);
    assert_eq!((not_stored.len() + unknown.len()) as u64, EVENTS, "nothing was acknowledged");
    let stored = stored(&server, folder.path());
    assert!(stored.is_disjoint(&not_stored), "what is called not stored is not");
    assert!(stored.is_subset(&unknown));
}

#[test]
fn a_broker_that_stops_midway_loses_nothing_silently() {
    let (folder, server) = Server::in_new_folder();
    server.make_stream("EVENTS", &["events.>"]);
    let recorder = recorder(&server);
    let counters = recorder.counters();
    record(&recorder);
    eventually("some to be acknowledged", || (counters.counts().stored > 0).then_some(()));
    server.signal("STOP");
    if counters.counts().stored == EVENTS {
        eprintln!("skipped: all were stored before the server could be stopped");
        server.signal("CONT");
        return;
    }
    let (not_stored, unknown) = close(&recorder);
    let stored = stored(&server, folder.path());
    assert!(stored.is_disjoint(&not_stored), "what is called not stored is not");
    let neither = (0..EVENTS)
        .map(payload)
        .filter(|payload| !stored.contains(payload) && !not_stored.contains(payload) && !unknown.contains(payload));
    assert_eq!(neither.count(), 0);
    assert_eq!(counters.counts().stored, EVENTS - (not_stored.len() + unknown.len()) as u64);
}
