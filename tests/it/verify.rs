//! `catchment verify`: finds what a database lacks of its stream, and stores it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::chance::Chance;
use crate::support::collector::output;
use crate::support::fixture::Fixture;
use crate::support::load::Load;
use crate::support::refusal::refused;
use crate::support::{eventually, oracle};

fn verify(fixture: &Fixture, arguments: &[&str]) -> Command {
    let mut command = fixture.command(&["verify", "--server", &fixture.server.url(), "--database", "a.db"]);
    command.args(arguments);
    command
}

/// Status and report.
fn verified(fixture: &Fixture, arguments: &[&str]) -> (i32, Value) {
    let done = output(verify(fixture, arguments).arg("--json"));
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text} {}", String::from_utf8_lossy(&done.stderr)));
    (done.status.code().expect("a status"), report)
}

fn execute(database: &Path, sql: &str) {
    Connection::open(database).and_then(|connection| connection.execute_batch(sql)).expect("SQL");
}

/// The sequences of what was found.
fn sequences(findings: &Value) -> Vec<u64> {
    let found = findings["first"].as_array().expect("a list");
    found.iter().map(|one| one["sequence"].as_u64().expect("a number")).collect()
}

fn delete(fixture: &Fixture, sequence: u64) {
    fixture.ask("$JS.API.STREAM.MSG.DELETE.EVENTS", &json!({ "seq": sequence }));
}

#[test]
fn a_sound_database_is_verified_beside_its_collector() {
    let fixture = Fixture::new();
    let load = Load::start(&fixture.server, 4_000, 500);
    let collector = fixture.collector();
    eventually("rows", || (oracle::count(&fixture.database()) > 0).then_some(()));
    for _ in 0..3 {
        load.committed(oracle::count(&fixture.database()));
        let (status, report) = verified(&fixture, &[]);
        assert_eq!((status, &report["is_sound"]), (0, &json!(true)), "{report}");
        assert_eq!(report["stored"], report["messages"], "{report}");
    }
    load.committed(4_000);
    load.finish();
    fixture.has(4_000);
    let (status, report) = verified(&fixture, &[]);
    assert_eq!((status, &report["messages"], &report["last"]), (0, &json!(4_000), &json!(4_000)), "{report}");
    refused(&mut verify(&fixture, &["--repair"]), 1, &["database a.db: process ", "uses it already"]);
    assert!(collector.stop().success());
}

#[test]
fn what_was_deleted_changed_or_doubled_is_found_and_repaired() {
    let fixture = Fixture::new();
    let mut raw = fixture.server.raw();
    for number in 1..=3_000 {
        let headers = (number % 2 == 0).then_some(&b"NATS/1.0\r\nB: 2\r\nA: 1\r\nB: 3\r\n\r\n"[..]);
        raw.send("events.test", headers, format!("event-{number}"));
    }
    raw.finish();
    fixture.drain();
    let before = oracle::payloads(&fixture.database());
    assert_eq!(verified(&fixture, &[]).0, 0);
    execute(
        &fixture.database(),
        "DELETE FROM events WHERE sequence IN (7, 2000);
         UPDATE events SET payload = 'forged' WHERE sequence = 8;
         UPDATE events SET headers = NULL, subject = 'events.other' WHERE sequence = 1000;
         UPDATE events SET published_us = published_us + 1 WHERE sequence = 1001;
         INSERT INTO events(subject, stream, sequence, published_us, headers, payload)
             SELECT subject, stream, sequence, published_us, headers, payload FROM events WHERE sequence = 9;",
    );
    // The stream lost two that the database has, and one that it has not any more.
    execute(&fixture.database(), "DELETE FROM events WHERE sequence = 12");
    for sequence in [10, 11, 12] {
        delete(&fixture, sequence);
    }
    let (status, report) = verified(&fixture, &[]);
    assert_eq!((status, &report["is_sound"]), (1, &json!(false)), "{report}");
    assert_eq!(sequences(&report["missing"]), [7, 2_000], "{report}");
    assert_eq!(sequences(&report["differing"]), [8, 1_000, 1_001], "{report}");
    let what: Vec<&Value> = (0..3).map(|at| &report["differing"]["first"][at]["detail"]).collect();
    assert_eq!(what, ["payload", "subject, headers", "published_us"], "{report}");
    assert_eq!(sequences(&report["doubled"]), [9], "{report}");
    assert_eq!((&report["only_stored"], &report["unaccounted"]), (&json!(2), &json!(1)), "{report}");

    let (status, report) = verified(&fixture, &["--repair"]);
    assert_eq!((status, &report["missing"]["repaired"], &report["differing"]["repaired"]), (1, &json!(2), &json!(0)));
    let (status, report) = verified(&fixture, &["--repair", "--rewrite"]);
    assert_eq!(report["missing"]["count"], json!(0), "{report}");
    assert_eq!((&report["differing"]["repaired"], &report["doubled"]["repaired"]), (&json!(3), &json!(1)), "{report}");
    assert_eq!(status, 1, "what neither has cannot be repaired");
    let (_, report) = verified(&fixture, &[]);
    let kinds = ["missing", "differing", "doubled"].map(|kind| report[kind]["count"].clone());
    assert_eq!(kinds, [json!(0), json!(0), json!(0)], "{report}");
    let mut after = oracle::payloads(&fixture.database());
    let mut expected: Vec<String> = before.into_iter().filter(|payload| payload != "event-12").collect();
    after.sort();
    expected.sort();
    assert_eq!(after, expected);
    // The collector goes on after a repair.
    fixture.publish("later", 2);
    fixture.drain();
    assert_eq!(oracle::count(&fixture.database()), 3_001);
}

/// What `verify` says of a stream of 3,000 messages, of which the client cannot read three, and two are deleted.
fn verified_long(fixture: &Fixture, arguments: &[&str]) -> String {
    let mut raw = fixture.server.raw();
    for number in 1..=3_000 {
        let headers = match number {
            1_000 | 1_001 | 2_990 => Some(&b"NATS/1.0\r\nno colon\r\n\r\n"[..]),
            _ => (number % 3 == 0).then_some(&b"NATS/1.0\r\nB: 2\r\nA: 1\r\nB: 3\r\n\r\n"[..]),
        };
        let subject = if number % 5 == 0 { "events.\u{fffd}" } else { "events.test" };
        raw.send(subject, headers, format!("event-{number}"));
    }
    raw.finish();
    fixture.drain();
    delete(fixture, 500);
    delete(fixture, 3_000);
    execute(&fixture.database(), "UPDATE events SET payload = 'forged' WHERE sequence = 2500");
    let done = output(verify(fixture, arguments).args(["--json", "-v"]));
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(sequences(&report["differing"]), [2_500], "{report}");
    assert_eq!((&report["stored"], &report["dead_letters"]), (&json!(2_995), &json!(3)), "{report}");
    assert_eq!((&report["messages"], &report["only_stored"]), (&json!(2_998), &json!(2)), "{report}");
    assert_eq!((&report["missing"]["count"], &report["unaccounted"]), (&json!(0), &json!(0)), "{report}");
    assert_eq!(fixture.server.consumers("EVENTS"), Vec::<String>::new(), "no consumer is left");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[test]
fn a_long_stream_is_read_through_a_consumer_and_unreadable_messages_without() {
    let said = verified_long(&Fixture::new(), &[]);
    assert!(said.contains("message 1000 may have ended the connection"), "{said}");
    assert!(!said.contains("message by message"), "{said}");
}

#[test]
fn a_stream_with_a_limit_on_consumers_is_verified_message_by_message() {
    let said = verified_long(&Fixture::with_stream(&json!({ "max_consumers": 1 })), &[]);
    assert!(!said.contains("may have ended the connection"), "{said}");
}

const ROUTED: &str = "
[broker]
subjects = ['events.>']
[database]
path = 'a.db'
migrations = 'routed'
[[route]]
name = 'keyed'
subject = 'events.keyed'
sql = 'INSERT INTO keyed(seq, text) VALUES (:sequence, :payload)'
[[route]]
name = 'counted'
subject = 'events.counted'
sql = 'INSERT INTO counted(text) VALUES (:payload)'
[[route]]
name = 'named'
subject = 'events.named'
sql = 'INSERT INTO named(text, number) VALUES (:payload, :sequence + 0)'
[[route]]
name = 'sum'
subject = 'events.sum'
sql = 'UPDATE total SET number = number + 1'
[[route]]
name = 'refused'
subject = 'events.refused'
sql = 'INSERT INTO keyed(seq, text) VALUES (:sequence, NULL)'
";

#[test]
fn routed_events_are_found_by_a_key_or_by_counts() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("routed")).expect("a folder");
    fixture.file(
        "routed/001_tables.sql",
        "CREATE TABLE keyed(seq INTEGER PRIMARY KEY, text NOT NULL);
         CREATE TABLE counted(text);
         CREATE TABLE named(text, number);
         CREATE TABLE total(number); INSERT INTO total VALUES (0);",
    );
    fixture.file("routed.toml", ROUTED);
    let mut raw = fixture.server.raw();
    for number in 0..50 {
        for name in ["keyed", "counted", "named", "sum", "refused", "other"] {
            raw.send(format!("events.{name}"), None, format!("\"{name}-{number}\""));
        }
    }
    raw.finish();
    let drain = || {
        let done =
            output(&mut fixture.command(&["run", "-c", "routed.toml", "--drain", "--server", &fixture.server.url()]));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    drain();
    let (status, report) = verified(&fixture, &["-c", "routed.toml"]);
    assert_eq!(status, 0, "{report}");
    assert_eq!((&report["keys"], &report["unknown_routes"]), (&json!(["keyed.seq"]), &json!(["sum"])), "{report}");
    assert_eq!(
        (&report["stored"], &report["dead_letters"], &report["counted"]),
        (&json!(100), &json!(50), &json!(150))
    );
    execute(
        &fixture.database(),
        "DELETE FROM keyed WHERE seq = 7; DELETE FROM counted WHERE rowid = 3; DELETE FROM named WHERE number = 15;
         DELETE FROM catchment_dead_letters WHERE sequence = 11; DELETE FROM events WHERE sequence = 12;",
    );
    let (status, report) = verified(&fixture, &["-c", "routed.toml", "--key", "named.number"]);
    assert_eq!((status, sequences(&report["missing"])), (1, vec![7, 11, 12, 15]), "{report}");
    assert_eq!(report["tables"], json!([{ "table": "counted", "rows": 49, "messages": 50 }]), "{report}");
    let (status, report) = verified(&fixture, &["-c", "routed.toml", "--key", "named.number", "--repair"]);
    assert_eq!(
        (status, &report["missing"]["repaired"]),
        (1, &json!(4)),
        "a row of a table without a key is not known: {report}"
    );
    assert_eq!(report["repaired_as_dead_letters"], json!(1), "{report}");
    let (_, report) = verified(&fixture, &["-c", "routed.toml", "--key", "named.number"]);
    assert_eq!(report["missing"]["count"], json!(0), "{report}");
    for (key, words) in [
        ("named", "--key: \"named\" is not a table and a column"),
        ("named.nothing", "--key: named.nothing is no column"),
        ("total.number", "--key: no route fills the table of total.number"),
    ] {
        refused(&mut verify(&fixture, &["-c", "routed.toml", "--key", key]), 2, &[words]);
    }
}

#[test]
fn rows_that_were_deleted_by_age_are_not_missing() {
    let fixture = Fixture::new();
    fixture.publish("old", 30);
    fixture.drain();
    execute(&fixture.database(), "DELETE FROM events WHERE sequence <= 10 OR sequence = 20");
    let (status, report) = verified(&fixture, &["--pruned", "events"]);
    assert_eq!((status, &report["pruned"], sequences(&report["missing"])), (1, &json!(10), vec![20]), "{report}");
    let (status, report) = verified(&fixture, &["--pruned", "events", "--repair"]);
    assert_eq!((status, oracle::count(&fixture.database())), (0, 20), "{report}");
    fixture.file("kept.toml", "[retention]\nevents = { rows = 20 }\n");
    let (status, report) = verified(&fixture, &["-c", "kept.toml"]);
    assert_eq!((status, &report["pruned"]), (0, &json!(10)), "{report}");
    execute(&fixture.database(), "DELETE FROM events WHERE sequence = 25");
    assert_eq!(verified(&fixture, &["-c", "kept.toml"]).0, 1);
    fixture.file("kept.toml", "[retention]\nevents = { rows = 20, where = \"subject = 'events.test'\" }\n");
    let (status, report) = verified(&fixture, &["-c", "kept.toml"]);
    assert_eq!((status, &report["pruned"]), (0, &json!(11)), "{report}");
}

#[test]
fn an_event_that_a_recorder_sent_twice_is_not_missing() {
    let fixture = Fixture::new();
    let mut raw = fixture.server.raw();
    let mut send = |number: u64| {
        let headers = format!("NATS/1.0\r\nCatchment-Event: abcdefghijklmnopqrst-{number}\r\n\r\n");
        raw.send("events.test", Some(headers.as_bytes()), format!("event-{number}"));
    };
    [0, 1, 2, 1, 3, 2, 4].into_iter().for_each(&mut send);
    raw.finish();
    fixture.drain();
    assert_eq!(oracle::count(&fixture.database()), 5);
    let (status, report) = verified(&fixture, &[]);
    assert_eq!((status, &report["repeated"], &report["stored"]), (0, &json!(2), &json!(5)), "{report}");
    // The first copy of 1 is gone from the stream; the database has it.
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": 3 }));
    let (status, report) = verified(&fixture, &[]);
    assert_eq!((status, &report["repeated"]), (0, &json!(2)), "{report}");
    execute(&fixture.database(), "DELETE FROM events WHERE sequence = 5");
    let (status, report) = verified(&fixture, &["--repair"]);
    assert_eq!((status, sequences(&report["missing"])), (0, vec![5]), "{report}");
    assert_eq!(oracle::count(&fixture.database()), 5);
}

#[test]
fn rows_of_a_stream_that_was_created_again_are_told_apart() {
    let fixture = Fixture::new();
    fixture.publish("first", 10);
    fixture.drain();
    fixture.server.delete_stream("EVENTS");
    fixture.server.make_stream("EVENTS", &["events.>"]);
    let (status, report) = verified(&fixture, &[]);
    assert_eq!((status, &report["is_collected"]), (0, &json!(false)), "{report}");
    fixture.publish("second", 6);
    fixture.drain();
    let (status, report) = verified(&fixture, &[]);
    assert_eq!((status, &report["messages"], &report["stored"]), (0, &json!(6), &json!(6)), "{report}");
    assert_eq!(report["of_earlier_epochs"], json!(6), "{report}");
    execute(&fixture.database(), "DELETE FROM events WHERE payload = 'second-3'");
    let (status, report) = verified(&fixture, &["--repair"]);
    assert_eq!((status, sequences(&report["missing"])), (0, vec![4]), "{report}");
    assert_eq!(oracle::count(&fixture.database()), 16);
}

#[test]
fn a_repair_killed_at_twenty_moments_stores_every_event_once() {
    let fixture = Fixture::new();
    let payloads: Vec<String> = (0..10_000).map(|number| format!("event-{number}")).collect();
    fixture.server.raw().publish_all("events.test", &payloads);
    fixture.drain();
    let database = fixture.database();
    let mut chance = Chance::new();
    for _ in 0..20 {
        let rows = oracle::count(&database);
        execute(&database, "DELETE FROM events WHERE sequence % 3 = 0");
        let mut child = verify(&fixture, &["--repair"]).stdout(std::process::Stdio::null()).spawn().expect("starts");
        let goal = oracle::count(&database) + chance.up_to(rows - oracle::count(&database));
        eventually("some rows, or the end", || {
            let ended = child.try_wait().expect("can be asked").is_some();
            (ended || oracle::count(&database) >= goal).then_some(())
        });
        std::thread::sleep(chance.time(Duration::from_millis(3)));
        let _ = child.kill();
        child.wait().expect("ends");
        let twice = "SELECT count(*) FROM (SELECT 1 FROM events GROUP BY sequence HAVING count(*) > 1)";
        assert_eq!(oracle::number(&database, twice), 0);
    }
    let (status, report) = verified(&fixture, &["--repair"]);
    assert_eq!((status, &report["is_sound"]), (0, &json!(true)), "{report}");
    let mut stored = oracle::payloads(&database);
    let mut expected = payloads;
    stored.sort();
    expected.sort();
    assert_eq!(stored, expected);
}
