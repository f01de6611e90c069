//! Events whose numbers are in their payloads (`Identity::Payload`): the database has what was recorded, and other readers find a member.

use std::collections::BTreeSet;
use std::time::Duration;

use catchment::config::Mode;
use catchment::record::Identity;
use catchment::unversioned::in_payload;
use catchment::{Collector, Config, DirectRecorder, Event, Recorder, SpooledRecorder, SpooledRecorderConfig};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::support::collector::{output, printed, stderr};
use crate::support::fixture::Fixture;
use crate::support::load::{patient_with, payload};
use crate::support::oracle;
use crate::support::partitioned::Partitions;
use crate::support::server::{needs, version};

const LONG: Duration = Duration::from_secs(30);

/// Payloads that take a number, and payloads that take none.
const PAYLOADS: [&[u8]; 9] = [
    br#"{"a":1}"#,
    b"{\n  \"a\": {\"b\": []}\n}\n",
    br#"{"not":JSON}"#,
    br#"{"catchment":"mine","a":1}"#,
    b"{}",
    br#"["a"]"#,
    b"text",
    b"\xff\x00{}",
    b"",
];

/// Records these events, of which the first tells the recorder the stream's settings.
fn record(fixture: &Fixture, events: impl IntoIterator<Item = Event>) {
    let recorder = patient_with(fixture.server.config(), Identity::Payload);
    for (at, event) in events.into_iter().enumerate() {
        recorder.record(event).expect("taken");
        if at == 0 {
            recorder.flush(LONG).expect("stored");
        }
    }
    recorder.close(LONG).expect("all are stored");
}

/// The headers of a message in stream `EVENTS`, and its payload.
fn message(fixture: &Fixture, sequence: u64) -> (String, Vec<u8>) {
    stored_in(fixture, "EVENTS", sequence)
}

fn stored_in(fixture: &Fixture, stream: &str, sequence: u64) -> (String, Vec<u8>) {
    let answer = fixture.ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), &json!({ "seq": sequence }));
    let decoded = |key: &str| BASE64.decode(answer["message"][key].as_str().unwrap_or_default().as_bytes());
    let headers = String::from_utf8(decoded("hdrs").expect("base 64")).expect("UTF-8");
    (headers, decoded("data").expect("base 64"))
}

/// What the database has: payloads, and how many rows have headers.
fn rows(fixture: &Fixture) -> (Vec<Vec<u8>>, u64) {
    let database = oracle::open(&fixture.database());
    let mut statement = database.prepare("SELECT CAST(payload AS BLOB) FROM events ORDER BY sequence").expect("SQL");
    let rows = statement.query_map([], |row| row.get(0)).expect("reads");
    let payloads = rows.collect::<Result<_, _>>().expect("reads");
    (payloads, oracle::number(&fixture.database(), "SELECT count(headers) FROM events"))
}

#[test]
fn the_database_has_what_was_recorded_and_the_stream_a_member() {
    let fixture = Fixture::new();
    let event = |payload: &[u8]| Event::new("events.a", payload);
    let first = [event(b"first")];
    let marked = [event(br#"{"a":2}"#).id("order-2"), event(br#"{"a":3}"#).header("Trace", "3")];
    record(&fixture, first.into_iter().chain(PAYLOADS.map(event)).chain(marked));

    fixture.drain();
    let (stored, with_headers) = rows(&fixture);
    let recorded = [b"first".as_slice()].into_iter().chain(PAYLOADS).chain([&br#"{"a":2}"#[..], br#"{"a":3}"#]);
    assert_eq!(stored, recorded.map(<[u8]>::to_vec).collect::<Vec<_>>());
    assert_eq!(with_headers, 2, "the id and the trace");
    for (at, recorded) in PAYLOADS.iter().enumerate() {
        let (headers, payload) = message(&fixture, at as u64 + 2);
        let is_in_payload = payload.starts_with(br#"{"catchment":""#) && payload.len() > recorded.len() + 40;
        assert_eq!(is_in_payload, at < 3, "{}", String::from_utf8_lossy(&payload));
        assert_eq!(headers.contains("Catchment-Event"), !is_in_payload, "{headers}");
        assert_eq!(headers.is_empty(), is_in_payload, "{headers}");
    }
    let object: Value = serde_json::from_slice(&message(&fixture, 2).1).expect("still JSON");
    assert_eq!(object["a"], 1);

    let verify = ["verify", "--server", &fixture.server.url(), "--database", "a.db", "--json"];
    let report: Value = serde_json::from_str(&printed(&mut fixture.command(&verify))).expect("JSON");
    assert_eq!((&report["is_sound"], &report["stored"]), (&json!(true), &json!(12)), "{report}");
}

#[test]
fn replays_and_verification_have_what_was_recorded() {
    // More than `verify` reads message by message.
    const EVENTS: u64 = 1_500;
    let fixture = Fixture::new();
    record(&fixture, (0..EVENTS).map(|number| Event::new("events.a", payload(number))));
    let wanted: Vec<String> = (0..EVENTS).map(payload).collect();
    fixture.drain();
    assert_eq!(oracle::payloads(&fixture.database()), wanted);
    let url = fixture.server.url();
    let verify = ["verify", "--server", &url, "--database", "a.db", "--json"];
    let report: Value = serde_json::from_str(&printed(&mut fixture.command(&verify))).expect("JSON");
    assert_eq!((&report["is_sound"], &report["stored"]), (&json!(true), &json!(EVENTS)), "{report}");
    let replay = |into: &str| {
        let arguments = ["replay", "--server", &url, "--database", "a.db", "--into", into, "--all"];
        printed(&mut fixture.command(&arguments));
        assert_eq!(oracle::payloads(&fixture.path(into)), wanted, "{into}");
        let recorders = oracle::number(&fixture.path(into), "SELECT count(*) FROM catchment_recorders");
        assert_eq!(recorders, 1, "events that come again are recognised by the numbers in their payloads: {into}");
    };
    replay("b.db");
    // Then it reads message by message.
    let stream = json!({ "name": "EVENTS", "subjects": ["events.>"], "max_consumers": 1 });
    let changed = fixture.server.ask("$JS.API.STREAM.UPDATE.EVENTS", &stream);
    if changed["error"].is_null() {
        replay("c.db");
    }
}

#[test]
fn a_payload_that_is_published_again_is_an_event_of_its_own() {
    let fixture = Fixture::new();
    record(&fixture, (0..3).map(|number| Event::new("events.a", payload(number))));
    let (headers, numbered) = message(&fixture, 3);
    assert!(headers.is_empty(), "{headers}");
    let changed = String::from_utf8(numbered.clone()).expect("UTF-8").replace("\"n\":2", "\"n\":2000");
    let mut raw = fixture.server.raw();
    raw.publish("events.b", None, &numbered);
    raw.publish("events.a", None, &changed);
    raw.publish("events.a", Some(b"NATS/1.0\r\nNats-Msg-Id: mine\r\n\r\n"), &numbered);
    // The same bytes on the same subject: that is how a recorder repeats an event.
    raw.publish("events.a", None, &numbered);
    raw.finish();
    let said = fixture.drain();
    assert!(said.contains("skipped 1 duplicate"), "{said}");
    let numbered = String::from_utf8(numbered).expect("UTF-8");
    let published = [numbered.clone(), changed, numbered];
    assert_eq!(oracle::payloads(&fixture.database()), (0..3).map(payload).chain(published).collect::<Vec<_>>());
}

#[test]
fn a_copy_in_another_stream_has_what_was_recorded() {
    let fixture = Fixture::new();
    record(&fixture, (0..30).map(|number| Event::new("events.a", payload(number))));
    let sources = json!({ "name": "COPY", "sources": [{ "name": "EVENTS" }] });
    fixture.ask("$JS.API.STREAM.CREATE.COPY", &sources);
    crate::support::eventually("a copy", || (fixture.server.last_sequence("COPY") == 30).then_some(()));
    let done = output(fixture.run().args(["--stream", "COPY", "--drain"]));
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(oracle::payloads(&fixture.database()), (0..30).map(payload).collect::<Vec<_>>());
    assert_eq!(oracle::number(&fixture.database(), "SELECT count(*) FROM catchment_recorders"), 0);
}

#[test]
fn a_stream_that_renames_subjects_has_the_numbers_in_headers() {
    if !needs((2, 10), "subject transforms") {
        return;
    }
    let transform = json!({ "src": "events.>", "dest": "stored.>" });
    let fixture = Fixture::with_stream(&json!({ "subject_transform": transform }));
    record(&fixture, (0..30).map(|number| Event::new("events.a", payload(number))));
    let forms: BTreeSet<bool> =
        (1..=30).map(|sequence| message(&fixture, sequence).0.contains("Catchment-Event")).collect();
    assert_eq!(forms, BTreeSet::from([true]));
    let done = output(fixture.run().args(["--drain"]));
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(oracle::payloads(&fixture.database()), (0..30).map(payload).collect::<Vec<_>>());
}

#[test]
fn a_stream_that_takes_the_place_of_another_is_asked_how_it_stores_events() {
    if !needs((2, 10), "subject transforms") {
        return;
    }
    let with = |settings: Value| {
        let mut all = if version() >= (2, 14) { json!({ "allow_batched": true }) } else { json!({}) };
        all.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
        all
    };
    let fixture = Fixture::with_stream(&with(json!({})));
    let recorder = patient_with(fixture.server.config(), Identity::Payload);
    let record = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            recorder.record(Event::new("events.a", payload(number))).expect("taken");
        }
        recorder.flush(LONG).expect("stored");
    };
    record(0..1);
    record(1..2);
    assert!(message(&fixture, 2).0.is_empty(), "the number is in the payload");
    fixture.server.delete_stream("EVENTS");
    let transform = json!({ "src": "events.>", "dest": "stored.>" });
    // Its name is later in the alphabet, and earlier.
    for (name, first) in [("LATER", 2), ("EARLIER", 102)] {
        fixture.server.make_stream_with(name, &["events.>"], &with(json!({ "subject_transform": transform })));
        record(first..first + 50);
        assert_eq!(fixture.server.last_sequence(name), 50, "its answer about a batch counts, so none is sent again");
        record(first + 50..first + 100);
        let (headers, stored) = stored_in(&fixture, name, 51);
        assert!(headers.contains("Catchment-Event") && stored == payload(first + 50).as_bytes(), "{name}: {headers}");
        fixture.server.delete_stream(name);
    }
}

#[test]
fn an_event_on_a_subject_that_the_client_cannot_read_is_a_dead_letter_as_it_was_recorded() {
    let fixture = Fixture::configured("jetstream: enabled\nmax_control_line: 65536\n", "limits");
    let long = format!("events.{}", "x".repeat(5_000));
    let numbered = in_payload::add("gate-7-0", &long, payload(1).as_bytes()).expect("an object");
    record(&fixture, [Event::new("events.a", payload(0))]);
    fixture.server.raw().publish(&long, None, numbered);
    fixture.drain();
    let letters = "SELECT CAST(payload AS TEXT) FROM catchment_dead_letters";
    assert_eq!(oracle::texts(&fixture.database(), letters), [payload(1)]);
    let verify = ["verify", "--server", &fixture.server.url(), "--database", "a.db", "--json"];
    let report: Value = serde_json::from_str(&printed(&mut fixture.command(&verify))).expect("JSON");
    assert_eq!(report["is_sound"], json!(true), "{report}");
    printed(&mut fixture.command(&["dead-letters", "retry", "--all", "--database", "a.db"]));
    assert_eq!(oracle::payloads(&fixture.database()), [payload(0), payload(1)]);
}

#[test]
fn the_command_and_a_forwarded_table_can_number_so() {
    const EVENTS: u64 = 1_000;
    let fixture = Fixture::new();
    let lines: String = (0..EVENTS).map(|number| payload(number) + "\n").collect();
    let file = fixture.file("lines", lines);
    let url = fixture.server.url();
    let publish = ["publish", "--server", &url, "events.a", "--file", &file, "--identity", "payload"];
    printed(&mut fixture.command(&publish));
    let recorder = DirectRecorder::create(fixture.path("app.db")).expect("opens");
    for number in EVENTS..2 * EVENTS {
        recorder.record(Event::new("events.a", payload(number))).expect("taken");
    }
    recorder.close(LONG).expect("committed");
    let forward = ["forward", "--server", &url, "--database", "app.db", "--once", "--identity", "payload"];
    printed(&mut fixture.command(&forward));
    let numbered = |sequence| message(&fixture, sequence).1.starts_with(br#"{"catchment":""#);
    assert!(numbered(EVENTS) && numbered(2 * EVENTS));
    fixture.drain();
    assert_eq!(oracle::payloads(&fixture.database()), (0..2 * EVENTS).map(payload).collect::<Vec<_>>());
}

#[test]
fn an_event_that_names_its_stream_has_its_number_in_a_header() {
    let fixture = Fixture::new();
    let lines: String = (0..1_000).map(|number| payload(number) + "\n").collect();
    let file = fixture.file("lines", lines);
    let url = fixture.server.url();
    let publish = ["publish", "--server", &url, "events.a", "--file", &file, "--stream", "EVENTS"];
    printed(fixture.command(&publish).args(["--identity", "payload"]));
    let (headers, stored) = message(&fixture, 1_000);
    assert!(headers.contains("Nats-Expected-Stream") && headers.contains("Catchment-Event"), "{headers}");
    assert_eq!(stored, payload(999).as_bytes());
}

#[test]
fn events_from_before_the_partitions_and_after_are_what_was_recorded() {
    if !needs((2, 12), "partitions by the whole subject") {
        return;
    }
    let fixture = Fixture::without_stream();
    fixture.server.make_stream("CHAT", &["chat.*"]);
    let events = |numbers: std::ops::Range<u64>| {
        numbers.map(|number| (format!("chat.{}", number % 20), payload(number))).collect::<Vec<_>>()
    };
    let record_all = |events: &[(String, String)]| {
        record(&fixture, events.iter().map(|(subject, payload)| Event::new(subject.as_str(), payload.as_bytes())));
    };
    let before = events(0..100);
    record_all(&before);
    assert!(stored_in(&fixture, "CHAT", 100).0.is_empty(), "the number is in the payload");
    printed(&mut fixture.command(&["run", "--server", &fixture.server.url(), "--stream", "CHAT", "--drain"]));
    assert_eq!(
        oracle::payloads(&fixture.path("catchment.db")),
        before.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>()
    );

    let transform = json!({ "src": ">", "dest": "{{partition(4)}}.>" });
    let changed = json!({ "name": "CHAT", "subjects": ["chat.*"], "subject_transform": transform });
    fixture.ask("$JS.API.STREAM.UPDATE.CHAT", &changed);
    let after = events(100..300);
    record_all(&after);
    let (headers, stored) = stored_in(&fixture, "CHAT", 300);
    assert!(headers.contains("Catchment-Event") && stored == payload(299).as_bytes(), "{headers}");
    let all =
        Partitions::new(fixture.folder.path(), &fixture.server.url(), 4, "stream = 'CHAT'\nsubjects = ['chat.*']\n");
    all.drain();
    all.hold_exactly(&after);
}

#[test]
fn a_spool_and_a_collector_without_a_stream_have_what_was_recorded() {
    const EVENTS: u64 = 300;
    let fixture = Fixture::new();
    let mut config = Config::default();
    (config.broker, config.database.path) = (fixture.server.config(), fixture.database());
    config.broker.mode = Mode::Core;
    let collector = Collector::start(&config).expect("subscribes");
    let spooled = || {
        let mut config = SpooledRecorderConfig::new(fixture.path("a.spool"));
        (config.broker, config.identity) = (fixture.server.config(), Identity::Payload);
        SpooledRecorder::open(config).expect("opens")
    };
    let mut numbers = 0..EVENTS;
    for _ in 0..3 {
        let recorder = spooled();
        for number in numbers.by_ref().take(100) {
            let receipt = recorder.record(Event::new("events.a", payload(number))).expect("taken");
            if number == 0 {
                receipt.wait_for_stream(LONG).expect("is in the stream");
            }
        }
        recorder.close(LONG).expect("kept");
    }
    let last = spooled();
    fixture.has(300);
    last.close(LONG).expect("nothing is left");
    collector.stop(LONG).expect("stops");
    let wanted: Vec<String> = (0..EVENTS).map(payload).collect();
    assert_eq!(oracle::payloads(&fixture.database()), wanted);
    let is_numbered = |sequence| message(&fixture, sequence).0.is_empty();
    assert!((EVENTS / 2..EVENTS).any(is_numbered), "numbers are in payloads");
    std::fs::remove_file(fixture.database()).expect("removes");
    fixture.drain();
    assert_eq!(oracle::payloads(&fixture.database()), wanted);
}
