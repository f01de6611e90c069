//! Bad input: whatever bytes are in the stream end up in the database, each event once and in order, and none is in the
//! way of the next.

use std::process::Command;
use std::time::Duration;

use catchment::record::{FailureReason, NatsRecorderConfig};
use catchment::{Event, NatsRecorder, Recorder};

use crate::support::collector::Collector;
use crate::support::oracle;
use crate::support::post::Fixture;
use crate::support::server::Server;

/// The server's default `max_payload`.
pub const LARGEST: usize = 1 << 20;

/// Header blocks that end the client's connection.
pub const BREAKING: [&[u8]; 8] = [
    b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"HTTP/1.1\r\nA: b\r\n\r\n",
    b"NATS/1.0\r\n folded without a first line\r\n\r\n",
    b"NATS/1.0\r\nA: b\r\n\r\n folded behind an empty line\r\n\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\x00\x01\x02",
];

/// Subjects that end the client's connection.
pub const BREAKING_SUBJECTS: [&[u8]; 5] =
    [b"events.\xff\xfe", b"events.v\x0bt", b"events.f\x0cf", "events.no\u{a0}break".as_bytes(), b"events.\xc3.\xbc"];

#[test]
fn whatever_a_payload_is_it_is_stored_as_it_is() {
    let mut fixture = Fixture::new();
    let collector = fixture.collector();
    let largest: Vec<u8> = (0..LARGEST).map(|at| b"0123456789abcdef"[at % 16]).collect();
    let largest_blob: Vec<u8> = (0x80..=0xff).cycle().take(LARGEST).collect();
    let kinds: [(&[u8], &str); 13] = [
        (b"not JSON", "text"),
        (b"{\"cut\": ", "text"),
        (b"\xff\xfe not UTF-8", "blob"),
        (b"\xc3", "blob"),
        (b"", "text"),
        (b"\0", "text"),
        (b"a\0b\0", "text"),
        (b"\xef\xbb\xbf{}", "text"),
        ("gr\u{fc}\u{df}e \u{202e}\u{1f30a}".as_bytes(), "text"),
        (b"MSG events.x 1 5\r\nhello\r\n", "text"),
        (b"'); DROP TABLE events; --", "text"),
        (&largest, "text"),
        (&largest_blob, "blob"),
    ];
    for (payload, _) in &kinds {
        fixture.publish("events.test", None, payload);
    }
    fixture.good();
    fixture.all_came();
    assert!(collector.stop().success());
    fixture.holds();
    for (at, (_, kind)) in kinds.iter().enumerate() {
        let stored: String = fixture.column("typeof(payload)", at as u64 + 1);
        assert_eq!(&stored, kind, "payload {at}");
    }
}

#[test]
fn deep_nesting_and_doubled_keys_are_only_text() {
    let mut fixture = Fixture::new();
    fixture.publish("events.test", None, "[".repeat(100_000) + &"]".repeat(100_000));
    fixture.publish("events.test", None, r#"{"a":1,"a":2}"#);
    fixture.publish("events.test", None, "1e999999");
    fixture.drain(|_| {});
    fixture.holds();
}

#[test]
fn events_larger_than_a_request_come_one_by_one_and_in_order() {
    let mut fixture = Fixture::new();
    let mut size = 1_u64;
    for n in 0..400 {
        // A fixed sequence of sizes: tiny, around the limit of 8 KiB with its envelope, and far above.
        size = size.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let size = match (size >> 33) % 8 {
            0..=3 => 40,
            4 => 8_192 - 300 + (size >> 40) as usize % 400,
            5 => 8_192,
            6 => 4_000,
            _ => 60_000,
        };
        fixture.publish("events.test", None, format!("{n:0>size$}"));
    }
    fixture.publish("events.test", None, vec![b'x'; LARGEST]);
    fixture.publish("events.test", None, vec![b'y'; LARGEST]);
    fixture.good();
    let small = |command: &mut Command| {
        command.env("CATCHMENT_BROKER__AHEAD__BYTES", "8KiB").env("CATCHMENT_BROKER__AHEAD__EVENTS", "20");
        command.env("CATCHMENT_BATCH__MAX_BYTES", "10KiB");
    };
    fixture.drain(small);
    fixture.holds();
    // And live, one that is too large after the other.
    let mut command = fixture.run();
    small(&mut command);
    let collector = Collector::start(command, &fixture.folder.path().join("collector.log"));
    for size in [10, 9_000, 9_001, 10, 100_000, 8_192, 10] {
        fixture.publish("events.test", None, vec![b'z'; size]);
        fixture.all_came();
    }
    assert!(!collector.log().contains("WARN"), "{}", collector.log());
    assert!(collector.stop().success());
    fixture.holds();
}

#[test]
fn a_header_block_that_breaks_the_client_becomes_a_dead_letter_and_the_next_event_a_row() {
    let mut fixture = Fixture::new();
    let collector = fixture.collector();
    for headers in BREAKING {
        fixture.good();
        fixture.bad("events.test", Some(headers));
        fixture.good();
        fixture.all_came();
    }
    assert!(collector.log().contains("read raw"), "{}", collector.log());
    assert!(collector.stop().success());
    fixture.holds();
    let connection = oracle::open(&fixture.database());
    let mut statement = connection
        .prepare("SELECT headers, error, subject, stream FROM catchment_dead_letters ORDER BY id")
        .expect("SQL");
    let mut rows = statement.query([]).expect("runs");
    for headers in BREAKING {
        let row = rows.next().expect("reads").expect("a row");
        assert_eq!(row.get::<_, Vec<u8>>(0).expect("a blob"), headers, "kept as it came");
        let error: String = row.get(1).expect("text");
        assert!(error.starts_with("its headers"), "{error}");
        assert_eq!(row.get::<_, String>(2).expect("text"), "events.test");
        assert_eq!(row.get::<_, String>(3).expect("text"), "EVENTS");
    }
}

#[test]
fn many_events_in_a_row_that_break_the_client_are_dead_letters() {
    let mut fixture = Fixture::new();
    fixture.good();
    for round in 0..24 {
        fixture.bad("events.test", Some(BREAKING[round % BREAKING.len()]));
    }
    fixture.good();
    let collector = fixture.collector();
    fixture.all_came();
    assert!(collector.stop().success());
    fixture.holds();
}

#[test]
fn an_event_that_breaks_the_client_may_be_the_very_first() {
    let mut fixture = Fixture::new();
    fixture.bad("events.test", Some(BREAKING[0]));
    fixture.good();
    fixture.drain(|_| {});
    fixture.holds();
}

#[test]
fn an_event_that_breaks_the_client_may_be_the_last_of_a_drain() {
    for several in [1, 3] {
        let mut fixture = Fixture::new();
        fixture.good();
        for headers in &BREAKING[..several] {
            fixture.bad("events.test", Some(headers));
        }
        fixture.drain(|_| {});
        fixture.holds();
    }
}

#[test]
fn an_event_that_breaks_the_client_may_be_the_only_and_last_one() {
    let mut fixture = Fixture::new();
    fixture.bad("events.wanted", Some(BREAKING[1]));
    let not_wanted = fixture.raw.publish("events.other", None, "not wanted");
    assert_eq!(not_wanted, 2);
    fixture.drain(|command| {
        command.env("CATCHMENT_BROKER__SUBJECTS", "events.wanted");
    });
    fixture.holds();
}

#[test]
fn a_large_event_that_breaks_the_client_is_kept_whole() {
    let mut fixture = Fixture::new();
    fixture.good();
    let payload = vec![0x81; LARGEST - BREAKING[0].len()];
    let sequence = fixture.publish("events.test", Some(BREAKING[0]), payload);
    fixture.dead.insert(sequence);
    let mut headers = b"NATS/1.0\r\n".to_vec();
    headers.extend(std::iter::repeat_n(b"no colon\r\n", 6_000).flatten());
    headers.extend(b"\r\n");
    fixture.bad("events.test", Some(&headers));
    fixture.good();
    fixture.drain(|_| {});
    fixture.holds();
}

#[test]
fn subjects_of_any_bytes_and_length_are_in_nobodys_way() {
    let mut fixture = Fixture::new();
    let collector = fixture.collector();
    let long = format!("events.{}", "x".repeat(3_000));
    let deep = format!("events{}", ".y".repeat(900));
    let odd = [
        long.as_str(),
        &deep,
        "events.probe",
        "events.pull",
        "events.gr\u{fc}\u{df}e",
        "events.'\";--",
        "events.{\"a\":1}",
        "events.$JS.ACK.EVENTS.c.1.2.3.4.5",
        "events.a*b",
        "events.\u{1f30a}",
        "events.\u{1b}[2J",
    ];
    let mut sequences = Vec::new();
    for subject in odd {
        sequences.push(fixture.publish(subject, None, subject));
        fixture.good();
    }
    fixture.all_came();
    assert!(!collector.log().contains("WARN"), "the client reads these: {}", collector.log());
    for subject in BREAKING_SUBJECTS {
        fixture.bad(subject, None);
        fixture.good();
        fixture.bad(subject, Some(b"NATS/1.0\r\nA: b\r\n\r\n"));
        fixture.good();
        fixture.all_came();
    }
    // As long as the server takes it: with the acknowledgement's subject, the line is longer than the client reads.
    fixture.bad(format!("events.{}", "z".repeat(4_020)), None);
    fixture.good();
    fixture.all_came();
    assert!(collector.stop().success());
    fixture.holds();
    for (subject, sequence) in odd.iter().zip(sequences) {
        assert_eq!(&fixture.column::<String>("subject", sequence), subject);
    }
}

#[test]
fn odd_headers_are_stored_as_the_client_reads_them() {
    let mut fixture = Fixture::new();
    let mut many = b"NATS/1.0\r\n".to_vec();
    for n in 0..7_000 {
        many.extend(format!("{n:x}:{}\r\n", n % 10).bytes());
    }
    many.extend(b"\r\n");
    let many = fixture.publish("events.test", Some(&many), "many");
    let several =
        fixture.publish("events.test", Some(b"NATS/1.0\r\nA: 1\r\nB: x\r\nA: 2\r\nA: 3\r\n\r\n"), "several values");
    let odd =
        b"NATS/1.0\r\n\"': \"\\\r\nempty:\r\n:no name\r\nfolded: a\r\n b\r\nnul: \0\r\numl\xc3\xa4ut: \xc3\xbc\r\n\r\n";
    let odd = fixture.publish("events.test", Some(odd), "odd");
    let none = fixture.publish("events.test", Some(b"NATS/1.0\r\n\r\n"), "none");
    let said = fixture.drain(|_| {});
    assert!(!said.contains("WARN"), "{said}");
    fixture.holds();
    assert_eq!(fixture.column::<u64>("(SELECT count(*) FROM json_each(headers))", many), 7_000);
    assert_eq!(fixture.column::<String>("headers ->> '1b57'", many), "9");
    assert_eq!(fixture.column::<String>("headers ->> 'B'", several), "x");
    let values: String =
        fixture.column("(SELECT group_concat(value ORDER BY value) FROM json_each(headers, '$.A'))", several);
    assert_eq!(values, "1,2,3");
    let quotes = "(SELECT value FROM json_each(headers) WHERE key = '\"''')";
    assert_eq!(fixture.column::<String>(quotes, odd), "\"\\");
    assert_eq!(fixture.column::<String>("headers ->> 'empty'", odd), "");
    assert_eq!(fixture.column::<String>("headers ->> 'folded'", odd), "a b");
    assert_eq!(fixture.column::<String>("headers ->> 'uml\u{e4}ut'", odd), "\u{fc}");
    assert!(fixture.column::<bool>("json_valid(headers)", odd));
    assert_eq!(fixture.column::<Option<String>>("headers", none), None);
}

#[test]
fn an_event_that_looks_like_a_status_is_an_event_all_the_same() {
    let mut fixture = Fixture::new();
    let collector = fixture.collector();
    for headers in [
        &b"NATS/1.0 503\r\n\r\n"[..],
        b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 5000\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        b"NATS/1.0\r\nStatus: 404\r\n\r\n",
    ] {
        fixture.publish("events.test", Some(headers), "");
        fixture.good();
    }
    fixture.all_came();
    assert!(!collector.log().contains("WARN"), "{}", collector.log());
    assert!(collector.stop().success());
    fixture.holds();
    // The server itself drops a status line that was published; a header of that name it keeps.
    assert_eq!(fixture.column::<String>("headers ->> 'Status'", 9), "404");
}

/// A request that ends with nothing, again and again: its statuses are no rows, and the next event comes at once.
#[test]
fn requests_that_end_without_events_leave_no_rows() {
    let mut fixture = Fixture::new();
    let collector = fixture.collector();
    collector.said("collecting stream EVENTS");
    let names = fixture.server.consumers("EVENTS");
    for name in names {
        // 409 Consumer Deleted to each outstanding request.
        fixture.server.ask(&format!("$JS.API.CONSUMER.DELETE.EVENTS.{name}"), &serde_json::Value::Null);
    }
    collector.said("the server ended the consumer: 409");
    fixture.good();
    fixture.all_came();
    assert!(collector.stop().success());
    fixture.holds();
}

fn recorder(server: &Server) -> NatsRecorder {
    let config = NatsRecorderConfig { broker: server.config(), ..NatsRecorderConfig::default() };
    NatsRecorder::open(config).expect("connects")
}

#[test]
fn the_recorder_gives_back_what_cannot_be_sent_and_goes_on() {
    let fixture = Fixture::new();
    let recorder = recorder(&fixture.server);
    let refused = [
        Event::new("events.a", "x").header("A", "1\r\nNats-Msg-Id: smuggled"),
        Event::new("events.a", "x").header("A\r\nB", "1"),
        Event::new("events.a", "x").header("A:B", "1"),
        Event::new("events.a", "x").header("", "1"),
        Event::new("events.a", "x").id("1\r\nA: 2"),
        Event::new("events.>", "x"),
        Event::new("events.*", "x"),
        Event::new("events..a", "x"),
        Event::new("", "x"),
        Event::new("events.a b", "x"),
        Event::new("events.a\r\nPUB events.b 1\r\nx", "x"),
        Event::new(format!("events.{}", "x".repeat(3_000)), "x"),
        Event::new("$JS.API.STREAM.DELETE.EVENTS", ""),
    ];
    for event in refused {
        let error = recorder.record(event.clone()).expect_err("cannot be sent");
        assert!(matches!(error.reason, FailureReason::Invalid(_)), "{error}");
        assert_eq!(*error.event, event, "given back as it was");
    }
    for (size, fits) in [(LARGEST - 1_000, true), (LARGEST, false), (2 * LARGEST, false)] {
        let event = Event::new("events.a", vec![b'x'; size]);
        match recorder.record(event.clone()) {
            Ok(receipt) => {
                assert!(fits, "{size}");
                receipt.wait(Duration::from_secs(20)).expect("stored");
            }
            Err(error) => {
                assert!(!fits && matches!(error.reason, FailureReason::TooLarge { .. }), "{size}: {error}");
                assert_eq!(*error.event, event, "given back as it was");
            }
        }
    }
    let last = recorder.record(Event::new("events.a", "last")).expect("taken");
    assert_eq!(last.wait(Duration::from_secs(20)).expect("stored").sequence().expect("in a stream"), 2);
    recorder.close(Duration::from_secs(5)).expect("nothing is left");
    fixture.drain(|_| {});
    assert_eq!(oracle::payloads(&fixture.database())[1..], ["last".to_owned()]);
    assert_eq!(oracle::count(&fixture.database()), 2);
}

#[test]
fn an_identity_given_twice_is_stored_once() {
    let fixture = Fixture::new();
    let recorder = recorder(&fixture.server);
    let record = |payload: &str, id: &str| {
        let receipt = recorder.record(Event::new("events.a", payload).id(id)).expect("taken");
        receipt.wait(Duration::from_secs(20)).expect("stored")
    };
    let (first, again, other) = (record("first", "17"), record("again", "17"), record("other", "18"));
    assert!(!first.is_duplicate() && again.is_duplicate() && !other.is_duplicate());
    assert_eq!(
        (
            first.sequence().expect("in a stream"),
            again.sequence().expect("in a stream"),
            other.sequence().expect("in a stream")
        ),
        (1, 1, 2)
    );
    drop(recorder);
    fixture.drain(|_| {});
    assert_eq!(oracle::payloads(&fixture.database()), ["first", "other"]);
}
