//! Events that a recorder sends twice are in the database once, however late, and events that are sent in batches.

use std::time::Duration;

use catchment::record::{FailureReason, Identity, WaitError};
use catchment::{Collector, Config, Event, NatsRecorder, Receipt, Recorder};
use data_encoding::BASE64;
use serde_json::json;

use crate::support::chance::Chance;
use crate::support::fixture::Fixture;
use crate::support::health::quick;
use crate::support::load::{self, payload};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, version};
use crate::support::{eventually, oracle};

const LONG: Duration = Duration::from_secs(30);

/// A collector of the fixture's stream, in this process.
fn collector(fixture: &Fixture) -> Collector {
    let mut config = Config::default();
    config.broker = fixture.server.config();
    config.database.path = fixture.database();
    Collector::start(&config).expect("starts")
}

/// How a database recognises a repetition.
const IN_DATABASES: [Identity; 3] = [Identity::Both, Identity::Database, Identity::Payload];

/// The first server with fast batches.
const BATCHES: (u32, u32) = (2, 14);

/// A stream that accepts batches, where the server has them.
fn batched() -> Fixture {
    Fixture::with_stream(&if version() >= BATCHES { json!({ "allow_batched": true }) } else { json!({}) })
}

fn record(recorder: &impl Recorder, numbers: std::ops::Range<u64>) -> Vec<Receipt> {
    let event = |number| Event::new("events.a", payload(number));
    numbers.map(|number| recorder.record(event(number)).expect("taken")).collect()
}

fn are_stored(receipts: impl IntoIterator<Item = Receipt>) {
    for receipt in receipts {
        receipt.wait(LONG).expect("stored");
    }
}

/// The rows are the events with these numbers, each once, and the stream has this many messages.
fn is_once(fixture: &Fixture, numbers: std::ops::Range<u64>, collector: &Collector) -> u64 {
    let wanted = numbers.end - numbers.start;
    eventually("all rows", || (oracle::count(&fixture.database()) >= wanted).then_some(()));
    let messages = fixture.server.last_sequence("EVENTS");
    eventually("the end of the stream", || (oracle::position(&fixture.database()) == messages).then_some(()));
    let status = collector.stop(LONG).expect("stops");
    let payloads: Vec<String> = numbers.map(payload).collect();
    assert_eq!(oracle::payloads(&fixture.database()), payloads);
    oracle::sound(&fixture.database());
    assert_eq!((status.committed, status.duplicates), (messages, messages - wanted));
    messages
}

/// Records events whose acknowledgements get lost for longer than the stream recognises a repetition. Returns how many messages the stream
/// has in the end, where each event is in the database once.
fn outlast_the_window(identity: Identity, can_be_looked_for: bool) -> u64 {
    let window = u64::try_from(Duration::from_millis(200).as_nanos()).expect("short");
    let fixture = Fixture::with_stream(&json!({ "duplicate_window": window }));
    let collector = collector(&fixture);
    let proxy = Proxy::start(fixture.server.port());
    let recorder = load::patient_with(quick(proxy.url()), identity);
    are_stored(record(&recorder, 0..10));
    if !can_be_looked_for {
        proxy.drop_published("$JS.API.STREAM.MSG.GET.");
    }
    proxy.drop_publish_acknowledgements();
    let receipts = record(&recorder, 10..60);
    eventually("all to be in the stream", || (fixture.server.last_sequence("EVENTS") >= 60).then_some(()));
    if !can_be_looked_for {
        eventually("all to be there twice", || (fixture.server.last_sequence("EVENTS") >= 110).then_some(()));
        proxy.heal();
    }
    are_stored(receipts);
    recorder.close(LONG).expect("all are stored");
    assert_eq!(is_in_payload(&fixture, 60), identity == Identity::Payload);
    is_once(&fixture, 0..60, &collector)
}

/// Whether the number of a message is in its payload.
fn is_in_payload(fixture: &Fixture, sequence: u64) -> bool {
    let answer = fixture.ask("$JS.API.STREAM.MSG.GET.EVENTS", &json!({ "seq": sequence }));
    let payload = answer["message"]["data"].as_str().expect("a payload").as_bytes();
    BASE64.decode(payload).expect("base 64").starts_with(br#"{"catchment":""#)
}

#[test]
fn what_the_stream_no_longer_recognises_is_looked_for() {
    for identity in IN_DATABASES {
        assert_eq!(outlast_the_window(identity, true), 60, "{identity:?}");
    }
}

#[test]
fn what_cannot_be_looked_for_is_sent_again_and_stored_once() {
    for identity in IN_DATABASES {
        assert!(outlast_the_window(identity, false) >= 110, "{identity:?}");
    }
}

#[test]
fn an_event_is_recognised_in_another_life_of_the_stream() {
    let fixture = Fixture::new();
    let put = |numbers: std::ops::Range<u64>| {
        let mut raw = fixture.server.raw();
        for number in numbers {
            let headers = format!("NATS/1.0\r\nCatchment-Event: gate-7-{number}\r\n\r\n");
            raw.publish("events.a", Some(headers.as_bytes()), payload(number));
        }
        raw.finish();
    };
    put(0..20);
    fixture.drain();
    fixture.server.delete_stream("EVENTS");
    fixture.server.make_stream("EVENTS", &["events.>"]);
    put(10..30);
    let said = fixture.drain();
    assert!(said.contains("skipped 10 duplicates"), "{said}");
    let payloads: Vec<String> = (0..30).map(payload).collect();
    assert_eq!(oracle::payloads(&fixture.database()), payloads);
    let headers: u64 = oracle::open(&fixture.database())
        .query_row("SELECT count(headers) FROM events", [], |row| row.get(0))
        .expect("a number");
    assert_eq!(headers, 0, "a number is not stored with its event");
}

#[test]
fn batches_are_stored_whole_and_in_order() {
    let fixture = batched();
    let collector = collector(&fixture);
    let recorder = load::patient_with(fixture.server.config(), Identity::Database);
    // The stream is known from its first acknowledgement on.
    let first = record(&recorder, 0..1);
    recorder.flush(LONG).expect("stored");
    let receipts = record(&recorder, 1..20_000);
    recorder.flush(LONG).expect("stored");
    let sequences: Vec<Option<u64>> =
        first.into_iter().chain(receipts).map(|receipt| receipt.wait(LONG).expect("stored").sequence()).collect();
    let given = |(at, sequence): (usize, &Option<u64>)| sequence.is_none_or(|sequence| sequence == at as u64 + 1);
    assert!(sequences.iter().enumerate().all(given), "a sequence is the event's own");
    let unknown = sequences.iter().filter(|sequence| sequence.is_none()).count();
    assert_eq!(unknown > 10_000, version() >= BATCHES, "{unknown} of 20,000 without a sequence");
    assert_eq!(is_once(&fixture, 0..20_000, &collector), 20_000);
}

#[test]
fn an_event_that_the_stream_refuses_harms_no_other_of_its_batch() {
    let fixture = batched();
    let collector = collector(&fixture);
    let recorder = load::patient_with(fixture.server.config(), Identity::Database);
    record(&recorder, 0..1).remove(0).wait(LONG).expect("stored");
    let mut receipts = Vec::new();
    for number in 0..3_000 {
        let event = Event::new("events.a", payload(number));
        let is_refused = number % 500 == 77;
        let event = if is_refused { event.header("Nats-Expected-Stream", "OTHER") } else { event };
        receipts.push((is_refused, recorder.record(event).expect("taken")));
    }
    assert!(recorder.flush(LONG).is_ok(), "each failure is its receipt's");
    for (number, (is_refused, receipt)) in receipts.into_iter().enumerate() {
        match receipt.wait(LONG) {
            Ok(_) => assert!(!is_refused, "{number}"),
            Err(WaitError::Failed(error)) => {
                let is_named = matches!(&error.reason, FailureReason::Refused(why) if why.contains("expected stream"));
                assert!(is_refused && is_named, "{number}: {error}");
            }
            other => panic!("{number}: {other:?}"),
        }
    }
    let stored = 1 + 3_000 - 6;
    eventually("all rows", || (oracle::count(&fixture.database()) == stored).then_some(()));
    assert_eq!(collector.stop(LONG).expect("stops").committed, fixture.server.last_sequence("EVENTS"));
    let mut payloads = oracle::payloads(&fixture.database());
    payloads.sort();
    payloads.dedup();
    assert_eq!(payloads.len() as u64, stored - 1, "event 0 was recorded twice, under two numbers");
}

#[test]
fn a_stream_that_accepts_no_more_batches_loses_nothing() {
    let fixture = batched();
    let collector = collector(&fixture);
    let recorder = load::patient_with(fixture.server.config(), Identity::Database);
    record(&recorder, 0..1).remove(0).wait(LONG).expect("stored");
    let receipts = record(&recorder, 1..5_000);
    fixture.ask("$JS.API.STREAM.UPDATE.EVENTS", &json!({ "name": "EVENTS", "subjects": ["events.>"] }));
    let more = record(&recorder, 5_000..10_000);
    recorder.flush(LONG).expect("stored");
    are_stored(receipts.into_iter().chain(more));
    eventually("all rows", || (oracle::count(&fixture.database()) == 10_000).then_some(()));
    // The server forgets a batch that is under way, with what it has stored of it.
    let messages = fixture.server.last_sequence("EVENTS");
    eventually("the end of the stream", || (oracle::position(&fixture.database()) == messages).then_some(()));
    assert_eq!(collector.stop(LONG).expect("stops").duplicates, messages - 10_000);
    let mut payloads = oracle::payloads(&fixture.database());
    payloads.sort();
    let mut wanted: Vec<String> = (0..10_000).map(payload).collect();
    wanted.sort();
    assert_eq!(payloads, wanted);
}

/// Records events while the broker is killed, then returns once all are stored.
fn record_through_kills(server: &mut Server, recorder: &NatsRecorder, events: u64, kills: u64) {
    let mut chance = Chance::new();
    let mut receipts = Vec::new();
    for kill in 0..kills {
        receipts.extend(record(recorder, events * kill / kills..events * (kill + 1) / kills));
        std::thread::sleep(chance.time(Duration::from_millis(5)));
        server.kill();
        server.restart();
    }
    recorder.close(Duration::from_secs(60)).expect("all are stored");
    are_stored(receipts);
}

#[test]
fn batches_survive_kills_of_the_broker() {
    survives_kills(Identity::Database);
}

#[test]
fn batches_with_numbers_in_payloads_survive_kills_of_the_broker() {
    survives_kills(Identity::Payload);
}

/// Each event of a recorder with this identity is in the database once, although the broker is killed meanwhile.
fn survives_kills(identity: Identity) {
    let mut fixture = batched();
    let broker = crate::support::with(fixture.server.config(), |broker| broker.silence = Duration::from_secs(1));
    let collector = collector(&fixture);
    record_through_kills(&mut fixture.server, &load::patient_with(broker, identity), 40_000, 5);
    let wanted = 40_000;
    eventually("all rows", || (oracle::count(&fixture.database()) >= wanted).then_some(()));
    let messages = fixture.server.last_sequence("EVENTS");
    eventually("the end of the stream", || (oracle::position(&fixture.database()) == messages).then_some(()));
    assert_eq!(is_in_payload(&fixture, messages), identity == Identity::Payload);
    collector.stop(LONG).expect("stops");
    let mut payloads = oracle::payloads(&fixture.database());
    payloads.sort();
    let mut wanted: Vec<String> = (0..wanted).map(payload).collect();
    wanted.sort();
    assert_eq!(payloads, wanted);
    oracle::sound(&fixture.database());
}
