//! Messages that the client cannot read, between those it can: found one by one, kept whole, and in nobody's way.

use std::collections::BTreeMap;

use crate::input::{BREAKING, BREAKING_SUBJECTS, LARGEST};
use crate::support::chance::Chance;
use crate::support::collector::Collector;
use crate::support::oracle;
use crate::support::post::Fixture;
use crate::support::server::needs;

/// Subject, headers and payload.
type Letter = (String, Option<Vec<u8>>, Vec<u8>);

/// A block of so many header lines, with `last` behind them. A stream takes 64 KiB of headers, so they are short.
fn many_headers(lines: usize, last: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut block = b"NATS/1.0\r\n".to_vec();
    for n in 0..lines {
        block.extend([DIGITS[n / 1296], DIGITS[n / 36 % 36], DIGITS[n % 36], b':', b'\r', b'\n']);
    }
    block.extend(last);
    block.extend(b"\r\n");
    block
}

#[test]
fn a_message_with_ten_thousand_header_lines_is_a_row_or_where_one_is_bad_a_dead_letter() {
    let mut fixture = Fixture::new();
    let good = fixture.publish("events.test", Some(&many_headers(10_000, b"")), "many");
    fixture.bad("events.test", Some(&many_headers(10_000, b"no colon\r\n")));
    fixture.bad("events.test", Some(&many_headers(10_000, b"A: \xff\r\n")));
    let repeated = [&b"NATS/1.0\r\n"[..], &b"A:b\r\n".repeat(10_000), b"\r\n"].concat();
    fixture.publish("events.test", Some(&repeated), "repeated");
    fixture.good();
    fixture.drain(|_| {});
    fixture.holds();
    assert_eq!(fixture.column::<u64>("(SELECT count(*) FROM json_each(headers))", good), 10_000);
}

#[test]
fn a_subject_longer_than_the_client_reads_is_a_dead_letter_however_long_it_is() {
    let mut fixture = Fixture::configured("jetstream: enabled\nmax_control_line: 65536\n");
    let collector = fixture.collector();
    for length in [4_100, 10_000, 33_000, 60_000] {
        fixture.bad(format!("events.{}", "x".repeat(length)), None);
        fixture.good();
        fixture.bad(format!("events.{}", "y.".repeat(length / 2) + "y"), Some(b"NATS/1.0\r\nA: b\r\n\r\n"));
        fixture.good();
        fixture.all_came();
    }
    assert!(collector.stop().success());
    fixture.holds();
}

#[test]
fn a_message_exactly_as_large_as_the_server_takes_is_stored_whole() {
    let mut fixture = Fixture::new();
    let headers = b"NATS/1.0\r\nA: b\r\n\r\n";
    fixture.publish("events.test", None, vec![b'x'; LARGEST]);
    fixture.publish("events.test", Some(headers), vec![0xfe; LARGEST - headers.len()]);
    fixture.good();
    fixture.drain(|_| {});
    fixture.holds();
}

#[test]
fn a_server_that_takes_larger_messages_than_the_default_is_collected_whole() {
    const LARGE: usize = 8 << 20;
    let mut fixture = Fixture::configured("jetstream: enabled\nmax_payload: 8MB\n");
    fixture.publish("events.test", None, vec![b'x'; LARGE]);
    fixture.good();
    let sequence = fixture.publish("events.test", Some(BREAKING[1]), vec![0xfe; LARGE - BREAKING[1].len()]);
    fixture.dead.insert(sequence);
    fixture.good();
    fixture.drain(|_| {});
    fixture.holds();
}

#[test]
fn a_search_for_bad_messages_survives_the_collectors_kills() {
    let mut chance = Chance::new();
    let mut fixture = Fixture::new();
    for _ in 0..40 {
        for _ in 0..chance.up_to(3) {
            fixture.good();
        }
        for _ in 0..chance.up_to(3) {
            let which = usize::try_from(chance.up_to(BREAKING.len() as u64)).expect("small") - 1;
            fixture.bad("events.test", Some(BREAKING[which]));
        }
    }
    fixture.good();
    let (database, last) = (fixture.database(), fixture.sent.last().expect("some").sequence);
    let mut kills = 0;
    while oracle::position(&database) < last {
        let before = oracle::position(&database);
        let mut collector = fixture.collector();
        let further = before + chance.up_to(10);
        crate::support::eventually("it to get further", || {
            assert_eq!(collector.ended(), None, "{}", collector.log());
            (oracle::position(&database) >= further.min(last)).then_some(())
        });
        collector.kill();
        kills += 1;
    }
    assert!(kills >= 5, "{kills} kills");
    fixture.holds();
}

#[test]
fn bad_messages_among_several_subjects_are_those_of_the_wanted_subjects() {
    if !needs((2, 10), "several subjects") {
        return;
    }
    let mut fixture = Fixture::new();
    for _ in 0..3 {
        for wanted in ["events.a.x", "events.b.y"] {
            fixture.publish(wanted, None, format!("good {}", fixture.sent.len()));
            fixture.bad(wanted, Some(BREAKING[0]));
            let other = fixture.raw.publish("events.c.z", Some(BREAKING[0]), "not wanted");
            assert!(other > 0);
            fixture.bad(wanted, Some(BREAKING[1]));
        }
        fixture.raw.publish("events.c.z", None, "not wanted");
    }
    fixture.publish("events.b.y", None, "last");
    fixture.drain(|command| {
        command.env("CATCHMENT_BROKER__SUBJECTS", "events.a.>,events.b.>");
    });
    fixture.holds();
}

#[test]
fn a_dead_letter_is_its_message_byte_by_byte() {
    let mut fixture = Fixture::new();
    let payloads: [&[u8]; 5] = [b"", b"\0", b"text", b"\xff\xfe\x00\x01", b"MSG a 1 2\r\nxx\r\n"];
    let mut expected = BTreeMap::new();
    for (at, headers) in BREAKING.iter().enumerate() {
        let (subject, payload) = (format!("events.of.{at}"), payloads[at % payloads.len()]);
        let sequence = fixture.publish(&subject, Some(headers), payload);
        fixture.dead.insert(sequence);
        expected.insert(sequence, (subject, Some(headers.to_vec()), payload.to_vec()));
        fixture.good();
    }
    // A subject whose bytes are no text cannot be kept as they are in a column of text; the rest of the message is.
    let odd = fixture.publish(BREAKING_SUBJECTS[1], Some(b"NATS/1.0\r\nA: b\r\n\r\n"), b"\xfe");
    fixture.dead.insert(odd);
    let subject = String::from_utf8(BREAKING_SUBJECTS[1].to_vec()).expect("UTF-8");
    expected.insert(odd, (subject, Some(b"NATS/1.0\r\nA: b\r\n\r\n".to_vec()), b"\xfe".to_vec()));
    let collector: Collector = fixture.collector();
    fixture.good();
    fixture.all_came();
    assert!(collector.stop().success());
    fixture.holds();
    let connection = oracle::open(&fixture.database());
    let sql = "SELECT sequence, subject, CAST(headers AS BLOB), CAST(payload AS BLOB) FROM catchment_dead_letters";
    let mut statement = connection.prepare(sql).expect("SQL");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?))));
    let letters: BTreeMap<u64, Letter> = rows.expect("runs").collect::<Result<_, _>>().expect("rows");
    assert_eq!(letters, expected);
}
