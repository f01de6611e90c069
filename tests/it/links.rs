//! Bad links: noticed in the configured time, said with the reason, and nothing is lost or doubled when they are well again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use catchment::record::{FailureReason, Identity, WaitError};
use catchment::{Collector, Event, NatsRecorder, NatsRecorderConfig, Recorder};

use crate::support::collector as process;
use crate::support::health::{
    GRACE, SILENCE, cannot_record, cannot_start, noticed, quick, quick_config, stays_well, well,
};
use crate::support::load::{self, Account, payload};
use crate::support::oracle::{self, Kept};
use crate::support::proxy::{Proxy, Way, is_publish_acknowledgement};
use crate::support::server::Server;
use crate::support::{eventually, eventually_within};

/// A server with stream `EVENTS`, and a way to it that can be bad.
struct Fixture {
    folder: tempfile::TempDir,
    server: Server,
    proxy: Proxy,
}

impl Fixture {
    fn new() -> Self {
        let (folder, server) = Server::in_new_folder();
        server.make_stream("EVENTS", &["events.>"]);
        let proxy = Proxy::start(server.port());
        Self { folder, server, proxy }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("a.db")
    }

    /// A collector on the bad way.
    fn collector(&self) -> Collector {
        Collector::start(&quick_config(&self.proxy.url(), self.database())).expect("starts")
    }

    /// A recorder on the bad way.
    fn recorder(&self) -> NatsRecorder {
        load::patient(quick(self.proxy.url()))
    }

    fn has(&self, rows: u64) {
        eventually(&format!("{rows} rows"), || (oracle::position(&self.database()) == rows).then_some(()));
    }

    /// Publishes on the good way.
    fn publish(&self, first: u64, count: u64) -> Vec<Kept> {
        load::publish_from(&self.server, first, count)
    }
}

#[test]
fn no_broker_at_all_is_an_error_of_open() {
    let fixture = Fixture::new();
    fixture.proxy.refuse();
    cannot_start(&fixture.proxy.url(), &["check that nats-server runs at this address"]);
    cannot_record(&fixture.proxy.url(), &["check that nats-server runs at this address"]);
}

/// A fault of the link, begun while a collector and a recorder are at work.
struct Fault {
    begin: fn(&Proxy),
    collector: &'static [&'static str],
    recorder: &'static [&'static str],
}

/// Both must notice it in time, say so, and go on by themselves when it is over.
fn noticed_and_healed(fault: &Fault) {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let recorder = fixture.recorder();
    let mut account = Account::default();
    (0..500).for_each(|number| account.record(&recorder, payload(number)));
    recorder.flush(Duration::from_secs(20)).expect("all is well");
    fixture.has(500);
    assert!(collector.health().is_well() && recorder.health().is_well());

    let began = Instant::now();
    (fault.begin)(&fixture.proxy);
    (500..1_000).for_each(|number| account.record(&recorder, payload(number)));
    let said = noticed(began, fault.collector, || collector.health());
    println!("collector: {said}");
    let said = noticed(began, fault.recorder, || recorder.health());
    println!("recorder: {said}");
    fixture.proxy.heal();
    well(|| collector.health());
    recorder.flush(Duration::from_secs(20)).expect("all is well again");
    well(|| recorder.health());
    let mut kept = account.close(&recorder);
    kept.extend(fixture.publish(1_000, 10));
    fixture.has(1_010);
    stays_well(|| collector.health());
    collector.stop(Duration::from_secs(10)).expect("stops");
    oracle::is_exactly(&fixture.database(), &kept);
}

#[test]
fn a_link_that_swallows_what_the_client_says_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| proxy.swallow(Way::ToServer),
        collector: &["no answer for", "sent nothing"],
        recorder: &["not confirmed", "sent nothing"],
    });
}

#[test]
fn a_link_that_swallows_what_the_server_says_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| proxy.swallow(Way::ToClient),
        collector: &["no answer for", "sent nothing"],
        recorder: &["not confirmed", "sent nothing"],
    });
}

#[test]
fn a_link_that_swallows_everything_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| {
            proxy.swallow(Way::ToServer);
            proxy.swallow(Way::ToClient);
        },
        collector: &["no answer for", "sent nothing"],
        recorder: &["not confirmed", "sent nothing"],
    });
}

#[test]
fn missing_jetstream_answers_are_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| {
            proxy.drop_published("$JS.API.");
            proxy.only(Way::ToClient, |message| !is_publish_acknowledgement(message));
        },
        collector: &["no answer", "sent nothing"],
        recorder: &["not confirmed", "sent nothing"],
    });
}

#[test]
fn a_reset_then_refused_connection_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| {
            proxy.refuse();
            proxy.cut();
        },
        collector: &["was lost", "check that nats-server runs at this address"],
        recorder: &["was lost", "check that nats-server runs at this address"],
    });
}

#[test]
fn a_server_that_no_longer_greets_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| {
            proxy.swallow(Way::ToClient);
            proxy.cut();
        },
        collector: &["no answer for", "sent nothing"],
        recorder: &["sent nothing"],
    });
}

#[test]
fn a_server_silent_after_a_new_greeting_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| {
            proxy.only(Way::ToClient, |message| message.starts_with(b"INFO "));
            // Having heard of its client, a server says INFO once more.
            proxy.swallow(Way::ToServer);
            proxy.cut();
        },
        collector: &["no answer", "sent nothing"],
        recorder: &["no answer", "sent nothing"],
    });
}

#[test]
fn a_stopped_server_is_noticed_and_used_again_later() {
    let fixture = Fixture::new();
    let (collector, recorder) = (fixture.collector(), fixture.recorder());
    let mut account = Account::default();
    (0..500).for_each(|number| account.record(&recorder, payload(number)));
    recorder.flush(Duration::from_secs(20)).expect("all is well");
    fixture.has(500);
    let began = Instant::now();
    fixture.server.signal("STOP");
    (500..600).for_each(|number| account.record(&recorder, payload(number)));
    noticed(began, &["no answer for"], || collector.health());
    noticed(began, &["has not confirmed"], || recorder.health());
    fixture.server.signal("CONT");
    let kept = account.close(&recorder);
    fixture.has(600);
    well(|| collector.health());
    collector.stop(Duration::from_secs(10)).expect("stops");
    oracle::is_exactly(&fixture.database(), &kept);
}

#[test]
fn a_cut_inside_a_payload_loses_and_repeats_nothing() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    // A number of its own each, and far longer than an answer to a request.
    let payloads: Vec<String> = (0..60).map(|number| format!("{number:0>20000}")).collect();
    let mut raw = fixture.server.raw();
    for (round, part) in payloads.chunks(10).enumerate() {
        let before = fixture.proxy.connections();
        fixture.proxy.cut_payload_after([0, 1, 9_999, 10_000, 15_000, 19_999][round]);
        raw.publish_all("events.long", part);
        eventually("another connection", || (fixture.proxy.connections() > before).then_some(()));
        fixture.has(10 * (round as u64 + 1));
    }
    collector.stop(Duration::from_secs(10)).expect("stops");
    assert_eq!(oracle::payloads(&fixture.database()), payloads);
    oracle::holds(&fixture.database(), &payloads);
}

#[test]
fn a_slow_link_is_used_as_it_is_and_fills_no_memory() {
    const EVENTS: u64 = 30_000;
    let fixture = Fixture::new();
    let log = fixture.folder.path().join("log");
    let mut command = process::run(&fixture.proxy.url(), &fixture.database());
    command.env("CATCHMENT_BROKER__SILENCE", "1s").env("CATCHMENT_BROKER__TIMEOUT", "1s");
    let collector = process::Collector::start(command, &log);
    collector.said("collecting stream");
    fixture.proxy.throttle(1_000);
    let (connections, began) = (fixture.proxy.connections(), Instant::now());
    let kept = fixture.publish(0, EVENTS);
    eventually("a few rows", || (oracle::position(&fixture.database()) >= 10).then_some(()));
    eventually("some time to pass", || (began.elapsed() > 2 * SILENCE + GRACE).then_some(()));
    assert!(oracle::position(&fixture.database()) < 1_000, "it is slow");
    assert_eq!(fixture.proxy.connections(), connections, "slow is not lost: {}", collector.log());
    assert!(!collector.log().contains("WARN"), "{}", collector.log());
    let (_, highest) = collector.memory();
    fixture.proxy.heal();
    fixture.has(EVENTS);
    assert!(highest < 60 << 10, "{highest} KiB on a slow link");
    let (_, highest) = collector.memory();
    assert!(highest < 100 << 10, "{highest} KiB when it had caught up");
    assert!(collector.stop().success());
    oracle::is_exactly(&fixture.database(), &kept);
}

#[test]
fn a_recorder_on_a_slow_link_loses_and_doubles_nothing() {
    let fixture = Fixture::new();
    let recorder = fixture.recorder();
    fixture.proxy.throttle(1_000);
    let mut account = Account::default();
    (0..1_000).for_each(|number| account.record(&recorder, payload(number)));
    eventually("a few acknowledgements", || (fixture.server.last_sequence("EVENTS") >= 10).then_some(()));
    fixture.proxy.heal();
    let kept = account.close(&recorder);
    assert_eq!(fixture.server.last_sequence("EVENTS"), 1_000);
    process::drain(&fixture.server.url(), &fixture.database());
    oracle::is_exactly(&fixture.database(), &kept);
}

#[test]
fn a_lost_acknowledgement_repeats_the_same_identity() {
    let fixture = Fixture::new();
    let recorder = fixture.recorder();
    fixture.proxy.drop_publish_acknowledgements();
    let began = Instant::now();
    let receipts: Vec<_> =
        (0..10).map(|number| recorder.record(Event::new("events.load", payload(number))).expect("taken")).collect();
    eventually("the stream to have them", || (fixture.server.last_sequence("EVENTS") == 10).then_some(()));
    noticed(began, &["not confirmed"], || recorder.health());
    assert!(receipts.iter().all(|receipt| !receipt.is_settled()), "nothing was said of them");
    let lost = fixture.proxy.connections();
    eventually("another connection", || (fixture.proxy.connections() > lost).then_some(()));
    fixture.proxy.heal();
    let kept: Vec<Kept> = (0..10)
        .zip(receipts)
        .map(|(number, receipt)| {
            let stored = receipt.wait(Duration::from_secs(20)).expect("stored");
            assert!(stored.is_duplicate(), "the stream had it already");
            Kept { payload: payload(number), sequence: stored.sequence().expect("in a stream") }
        })
        .collect();
    well(|| recorder.health());
    recorder.close(Duration::from_secs(5)).expect("nothing is left");
    assert_eq!(fixture.server.last_sequence("EVENTS"), 10);
    process::drain(&fixture.server.url(), &fixture.database());
    oracle::is_exactly(&fixture.database(), &kept);
}

#[test]
fn an_event_the_stream_may_not_recognise_is_given_back() {
    let fixture = Fixture::new();
    let window = Duration::from_millis(500);
    let mut config = NatsRecorderConfig::default();
    config.broker = quick(fixture.proxy.url());
    (config.identity, config.duplicate_window) = (Identity::Stream, window);
    let recorder = NatsRecorder::open(config).expect("connects");
    // Sent, as far as the recorder can tell.
    fixture.proxy.drop_published("events.");
    let receipt = recorder.record(Event::new("events.load", payload(0)).header("A", "b")).expect("taken");
    let dropped = recorder.record(Event::new("events.load", payload(1))).expect("taken");
    drop(dropped);
    match receipt.wait(SILENCE + GRACE) {
        Err(WaitError::Failed(error)) => {
            assert_eq!(error.reason, FailureReason::Unconfirmed(window), "{error}");
            assert_eq!(*error.event, Event::new("events.load", payload(0)).header("A", "b"), "given back as it was");
        }
        other => panic!("{other:?}"),
    }
    fixture.proxy.heal();
    let flushed = recorder.flush(Duration::from_secs(20)).expect_err("one came to nothing, and nobody asked");
    assert!(flushed.to_string().contains("it may be stored or not"), "{flushed}");
    let last = recorder.record(Event::new("events.load", payload(2))).expect("taken");
    let stored = last.wait(Duration::from_secs(20)).expect("stored");
    assert_eq!(stored.sequence().expect("in a stream"), 1, "the others are not there, and were not sent again");
    recorder.close(Duration::from_secs(5)).expect("nothing is left");
    process::drain(&fixture.server.url(), &fixture.database());
    oracle::holds(&fixture.database(), &[payload(2)]);
}

#[test]
fn a_recorders_reset_connections_cost_and_double_nothing() {
    let fixture = Fixture::new();
    let recorder = fixture.recorder();
    let mut account = Account::default();
    for round in 0..20 {
        (round * 100..round * 100 + 100).for_each(|number| account.record(&recorder, payload(number)));
        eventually("a connection", || (fixture.proxy.open() > 0).then_some(()));
        fixture.proxy.cut();
    }
    let kept = account.close(&recorder);
    process::drain(&fixture.server.url(), &fixture.database());
    assert_eq!(kept.len(), 2_000);
    oracle::is_exactly(&fixture.database(), &kept);
}

#[test]
fn a_collectors_reset_connections_cost_and_double_nothing() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    let mut kept = Vec::new();
    for round in 0..10 {
        kept.extend(fixture.publish(round * 500, 500));
        eventually("a connection", || (fixture.proxy.open() > 0).then_some(()));
        fixture.proxy.cut();
    }
    eventually_within(Duration::from_secs(60), "all rows", &mut || {
        (oracle::position(&fixture.database()) == 5_000).then_some(())
    });
    well(|| collector.health());
    collector.stop(Duration::from_secs(10)).expect("stops");
    oracle::is_exactly(&fixture.database(), &kept);
}
