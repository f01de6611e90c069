//! Bad links and mute servers: noticed in the configured time, said with the reason, and nothing is lost or doubled when
//! they are well again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catchment::record::{FailureReason, WaitError};
use catchment::{Collector, Config, Error, Event, NatsRecorder, NatsRecorderConfig, Recorder};
use parking_lot::Mutex;

use crate::support::collector as process;
use crate::support::health::{GRACE, SILENCE, noticed, quick, stays_well, well};
use crate::support::load::{self, Account, payload};
use crate::support::oracle::{self, Kept};
use crate::support::proxy::{Proxy, Way, is_publish_acknowledgement};
use crate::support::scripted::{self, Scripted};
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
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start(folder.path());
        server.make_stream("EVENTS", &["events.>"]);
        let proxy = Proxy::start(server.port());
        Self { folder, server, proxy }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("a.db")
    }

    /// A collector on the bad way.
    fn collector(&self) -> Collector {
        Collector::start(&config(&self.proxy.url(), self.database())).expect("starts")
    }

    /// A recorder on the bad way.
    fn recorder(&self) -> NatsRecorder {
        load::patient(quick(self.proxy.url()))
    }

    fn has(&self, rows: u64) {
        rows_are(&self.database(), rows);
    }

    /// Publishes on the good way.
    fn publish(&self, first: u64, count: u64) -> Vec<Kept> {
        load::publish_from(&self.server, first, count)
    }
}

fn config(url: &str, database: PathBuf) -> Config {
    let mut config = Config { broker: quick(url), ..Config::default() };
    config.database.path = database;
    config
}

fn rows_are(database: &std::path::Path, rows: u64) {
    eventually(&format!("{rows} rows"), || (oracle::position(database) == rows).then_some(()));
}

/// Starting a collector and a recorder there fails in time, and says one of these words.
#[track_caller]
fn cannot_start(url: &str, words: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let error = Collector::start(&config(url, folder.path().join("a.db"))).expect_err("cannot start");
    assert!(began.elapsed() < SILENCE + GRACE, "after {:?}", began.elapsed());
    assert!(matches!(error, Error::Broker { .. }), "{error}");
    let said = error.to_string();
    assert!(words.iter().any(|word| said.contains(word)), "{said}");
}

#[track_caller]
fn cannot_record(url: &str, words: &[&str]) {
    let began = Instant::now();
    let config = NatsRecorderConfig { broker: quick(url), ..NatsRecorderConfig::default() };
    let said = NatsRecorder::open(config).expect_err("cannot open").to_string();
    assert!(began.elapsed() < SILENCE + GRACE, "after {:?}", began.elapsed());
    assert!(words.iter().any(|word| said.contains(word)), "{said}");
}

#[test]
fn a_server_that_never_greets_is_refused_in_time() {
    let mute = Scripted::greeting_with(|_| String::new(), |_, _| true);
    cannot_start(&mute.url(), &["said nothing"]);
    cannot_record(&mute.url(), &["said nothing"]);
    assert!(mute.visits() > 0);
}

#[test]
fn a_server_that_greets_and_then_keeps_silent_is_refused_in_time() {
    let mute = Scripted::start(|_, _| true);
    cannot_start(&mute.url(), &["said nothing", "no answer"]);
    cannot_record(&mute.url(), &["said nothing", "no answer"]);
}

#[test]
fn a_server_that_answers_pings_but_no_jetstream_request_is_refused_in_time() {
    let pings = Scripted::start(|_, _| false);
    cannot_start(&pings.url(), &["no answer"]);
}

#[test]
fn no_broker_at_all_is_an_error_of_open() {
    let fixture = Fixture::new();
    fixture.proxy.refuse();
    cannot_start(&fixture.proxy.url(), &["is nats-server running there?"]);
    cannot_record(&fixture.proxy.url(), &["is nats-server running there?"]);
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
    let mut kept = account.close(recorder);
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
        collector: &["said nothing"],
        recorder: &["not confirmed", "said nothing"],
    });
}

#[test]
fn a_link_that_swallows_what_the_server_says_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| proxy.swallow(Way::ToClient),
        collector: &["said nothing"],
        recorder: &["not confirmed", "said nothing"],
    });
}

#[test]
fn a_link_that_swallows_everything_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| {
            proxy.swallow(Way::ToServer);
            proxy.swallow(Way::ToClient);
        },
        collector: &["said nothing"],
        recorder: &["not confirmed", "said nothing"],
    });
}

#[test]
fn a_server_that_answers_pings_but_no_jetstream_request_any_more_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| {
            proxy.drop_published("$JS.API.");
            proxy.only(Way::ToClient, |message| !is_publish_acknowledgement(message));
        },
        collector: &["said nothing", "no answer"],
        recorder: &["not confirmed", "said nothing"],
    });
}

#[test]
fn a_connection_that_is_reset_and_then_refused_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| {
            proxy.refuse();
            proxy.cut();
        },
        collector: &["was lost", "is nats-server running there?"],
        recorder: &["was lost", "is nats-server running there?"],
    });
}

#[test]
fn a_server_that_accepts_again_but_never_greets_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| {
            proxy.swallow(Way::ToClient);
            proxy.cut();
        },
        collector: &["said nothing"],
        recorder: &["said nothing"],
    });
}

#[test]
fn a_server_that_greets_again_but_then_keeps_silent_is_noticed_in_time() {
    noticed_and_healed(&Fault {
        begin: |proxy| {
            proxy.only(Way::ToClient, |message| message.starts_with(b"INFO "));
            // Having heard of its client, a server says INFO once more.
            proxy.swallow(Way::ToServer);
            proxy.cut();
        },
        collector: &["no answer", "said nothing"],
        recorder: &["no answer", "said nothing"],
    });
}

#[test]
fn a_stopped_server_is_noticed_in_time_and_healed_when_it_goes_on() {
    let fixture = Fixture::new();
    let (collector, recorder) = (fixture.collector(), fixture.recorder());
    let mut account = Account::default();
    (0..500).for_each(|number| account.record(&recorder, payload(number)));
    recorder.flush(Duration::from_secs(20)).expect("all is well");
    fixture.has(500);
    let began = Instant::now();
    fixture.server.signal("STOP");
    (500..600).for_each(|number| account.record(&recorder, payload(number)));
    noticed(began, &["has said nothing for"], || collector.health());
    noticed(began, &["has not confirmed"], || recorder.health());
    fixture.server.signal("CONT");
    let kept = account.close(recorder);
    fixture.has(600);
    well(|| collector.health());
    collector.stop(Duration::from_secs(10)).expect("stops");
    oracle::is_exactly(&fixture.database(), &kept);
}

#[test]
fn a_connection_cut_in_the_middle_of_a_payload_costs_and_doubles_nothing() {
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
    let kept = account.close(recorder);
    assert_eq!(fixture.server.last_sequence("EVENTS"), 1_000);
    process::drain(&fixture.server.url(), &fixture.database());
    oracle::is_exactly(&fixture.database(), &kept);
}

#[test]
fn an_event_whose_acknowledgement_is_lost_is_sent_again_under_the_same_identity() {
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
fn an_event_that_the_stream_may_no_longer_recognise_is_given_back_instead_of_sent_again() {
    let fixture = Fixture::new();
    let window = Duration::from_millis(500);
    let recorder = NatsRecorder::open(NatsRecorderConfig {
        broker: quick(fixture.proxy.url()),
        duplicate_window: window,
        ..NatsRecorderConfig::default()
    })
    .expect("connects");
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
fn a_server_that_takes_events_and_never_says_so_leaves_every_receipt_open() {
    let published = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&published);
    let server = Scripted::start(move |_, line| {
        let is_event = line.verb() == "PUB" && line.subject().starts_with("events.");
        counter.fetch_add(u64::from(is_event), Ordering::Relaxed);
        is_event
    });
    let recorder = load::patient(quick(server.url()));
    let began = Instant::now();
    let receipt = recorder.record(Event::new("events.a", "x")).expect("taken");
    noticed(began, &["not confirmed"], || recorder.health());
    eventually("it to be sent again", || (published.load(Ordering::Relaxed) >= 3).then_some(()));
    assert!(!receipt.is_settled());
    let closed = recorder.close(Duration::from_millis(100)).expect_err("nothing was said of it");
    assert!(closed.to_string().contains("1 event"), "{closed}");
}

/// A server with three messages that answers the first pulls in a bad way.
fn answers_badly(words: &[&str], bad: impl Fn(&mut scripted::Talk, &scripted::Line) + Send + Sync + 'static) {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let is_bad = Arc::new(AtomicBool::new(true));
    let still_bad = Arc::clone(&is_bad);
    // Where each consumer begins, until it has been sent what there is.
    let starts = Mutex::new(BTreeMap::<String, u64>::new());
    let server = Scripted::start(move |talk, line| {
        if let Some(consumer) = line.subject().strip_prefix("$JS.API.CONSUMER.CREATE.EVENTS.") {
            let asked: serde_json::Value = serde_json::from_slice(line.payload()).expect("JSON");
            let start = asked["config"]["opt_start_seq"].as_u64().unwrap_or(1);
            starts.lock().insert(consumer.to_owned(), start);
        }
        if let Some(consumer) = line.subject().strip_prefix("$JS.API.CONSUMER.MSG.NEXT.EVENTS.") {
            if still_bad.load(Ordering::Relaxed) {
                bad(talk, line);
            } else if let Some(start) = starts.lock().remove(consumer) {
                for n in start..=3 {
                    let time = 1_700_000_000_000_000_000_u64 + n;
                    let place = format!("$JS.ACK.EVENTS.{consumer}.1.{n}.{}.{time}.{}", n + 1 - start, 3 - n);
                    talk.deliver("events.a", line.reply(), &place, &[], format!("{n}"));
                }
            }
            return true;
        }
        scripted::stream(talk, line, 3)
    });
    let began = Instant::now();
    let collector = Collector::start(&config(&server.url(), database.clone())).expect("starts");
    noticed(began, words, || collector.health());
    assert_eq!(oracle::count(&database), 0, "no status is a row");
    is_bad.store(false, Ordering::Relaxed);
    rows_are(&database, 3);
    well(|| collector.health());
    collector.stop(Duration::from_secs(10)).expect("stops");
    assert_eq!(oracle::payloads(&database), ["1", "2", "3"]);
    oracle::sound(&database);
}

#[test]
fn a_pull_that_nobody_takes_is_no_row_and_is_tried_again() {
    answers_badly(&["503"], |talk, line| {
        talk.deliver(line.reply(), line.reply(), "", b"NATS/1.0 503\r\n\r\n", "");
    });
}

#[test]
fn a_pull_that_is_refused_is_no_row_and_is_tried_again() {
    answers_badly(&["409"], |talk, line| {
        let status = b"NATS/1.0 409 Exceeded MaxWaiting\r\n\r\n";
        talk.deliver(line.reply(), line.reply(), "", status, "");
    });
}

#[test]
fn a_protocol_line_longer_than_the_client_reads_ends_only_its_connection() {
    for length in [5_000, 40_000] {
        answers_badly(&["was lost", "said nothing"], move |talk, line| {
            let subject = format!("events.{}", "x".repeat(length));
            let place = "$JS.ACK.EVENTS.c.1.1.1.1700000000000000001.2";
            talk.deliver(&subject, line.reply(), place, &[], "1");
        });
    }
}

#[test]
fn lines_that_no_server_sends_end_only_their_connection() {
    for said in [
        "MSG\r\n",
        "MSG a b c d e\r\n",
        "\u{0}\u{1}\u{2}\r\n",
        "HMSG a 1 99 3\r\nabc\r\n",
        "-ERR 'Stale Connection'\r\n",
    ] {
        answers_badly(&["was lost", "said nothing"], move |talk, _| talk.say(said));
    }
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
    let kept = account.close(recorder);
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
