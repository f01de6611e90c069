//! A spool at its edges: dead letters that are sent again, short runs, a stream that is not the expected one, and a full disk.

use std::process::{Command, Output};
use std::time::Duration;

use catchment::record::FlushError;
use catchment::{Event, Recorder, SpooledRecorder};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{Fixture, LONG, payloads, record};
use crate::support::collector::{catchment, output, printed, results, stderr};
use crate::support::load::payload;
use crate::support::server::Server;
use crate::support::{eventually, oracle, with};

impl Fixture {
    fn command(&self, action: &str, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.args(["spool", action]).arg(self.spool()).args(arguments);
        if action != "retry" {
            command.args(["--server", &format!("nats://127.0.0.1:{}", self.port)]);
        }
        command
    }

    fn drained(&self, arguments: &[&str]) -> (Value, Output) {
        let done = output(self.command("drain", arguments).arg("--json"));
        (serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", stderr(&done))), done)
    }

    fn letters(&self) -> Vec<String> {
        let letters = self.exported(&["--dead-letters"]);
        letters.iter().map(|letter| letter["error"].as_str().expect("text").to_owned()).collect()
    }
}

/// Keeps events without a broker.
fn keep(fixture: &Fixture, events: impl IntoIterator<Item = Event>) {
    let recorder = fixture.open();
    for event in events {
        recorder.record(event).expect("taken");
    }
    recorder.close(LONG).expect("all are kept");
}

#[test]
fn the_shortest_of_two_closes_counts_and_both_know_what_is_not_kept() {
    let fixture = Fixture::new();
    let recorder = fixture.open();
    recorder.record(Event::new("events.a", "kept")).expect("taken");
    recorder.flush(LONG).expect("kept");
    let lock = oracle::lock(&fixture.spool());
    let receipt = recorder.record(Event::new("events.a", "not kept")).expect("taken");
    std::thread::scope(|scope| {
        let long = scope.spawn(|| recorder.close(10 * LONG));
        let short = recorder.close(Duration::from_millis(300));
        let long = long.join().expect("no panic");
        for closed in [short, long, recorder.close(LONG)] {
            assert!(matches!(closed, Err(FlushError::Deadline { waiting: 1, .. })), "{closed:?}");
        }
    });
    drop(lock);
    assert!(receipt.wait(LONG).is_err());
    assert_eq!(recorder.close(LONG).map_err(|error| error.to_string()), Ok(()), "its receipt gave it back");
}

#[test]
fn a_dead_letter_that_was_stored_after_all_is_in_the_database_once() {
    let fixture = Fixture::new();
    keep(&fixture, (0..5).map(|number| Event::new("events.a", payload(number))));
    // Its answer was lost: it is in the stream, and the spool gave it up.
    let spool = Connection::open(fixture.spool()).expect("opens");
    let sql = "INSERT INTO catchment_spool_dead_letters(
                   name, number, recorded_us, size, subject, headers, payload, error, given_up_us
               )
               SELECT name, position - first, recorded_us, size, subject, headers, payload, 'no answer', 1
               FROM catchment_spool_events, catchment_spool_names WHERE position = 3";
    spool.execute(sql, []).expect("SQL");
    drop(spool);
    let server = fixture.serve();
    assert_eq!(fixture.drained(&[]).0["forwarded"], 5);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(printed(&mut fixture.command("retry", &[])), "1 dead letter put back\n");
    assert_eq!(fixture.drained(&[]).0["forwarded"], 1);
    assert_eq!(server.messages("EVENTS"), 6, "beyond the duplicate window the stream has it twice");
    assert_eq!(fixture.collected(&server), payloads(0..5));
}

#[test]
fn a_dead_letter_that_would_not_be_recognised_stays_until_that_is_accepted() {
    let fixture = Fixture::new();
    keep(&fixture, (0..2).map(|number| Event::new("events.a", payload(number))));
    let spool = Connection::open(fixture.spool()).expect("opens");
    // As if 70,000 more had been recorded and forwarded.
    let sql = "INSERT INTO catchment_spool_dead_letters(
                   name, number, recorded_us, size, subject, headers, payload, error, given_up_us
               )
               SELECT name, position - first, recorded_us, size, subject, headers, payload, 'no answer', 1
               FROM catchment_spool_events, catchment_spool_names WHERE position = 1;
               DELETE FROM catchment_spool_events WHERE position = 1;
               UPDATE catchment_spool SET events = 1, bytes = bytes / 2, dead_letters = 1, last = 70000;";
    spool.execute_batch(sql).expect("SQL");
    drop(spool);
    let refused = output(&mut fixture.command("retry", &["--json"]));
    let said: Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    assert_eq!(said, json!({ "retried": 0, "renumbered": 0, "left": 1 }));
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains("--as-new"), "{}", stderr(&refused));
    let said = printed(&mut fixture.command("retry", &["--as-new"]));
    assert_eq!(said, "1 dead letter put back, 1 of them under another number\n");
    let server = fixture.serve();
    assert_eq!(fixture.drained(&[]).0, json!({ "forwarded": 2, "left": 0, "dead_letters": 0, "error": null }));
    assert_eq!(fixture.collected(&server), [payload(1), payload(0)]);
}

#[test]
fn several_short_runs_give_a_poisonous_event_up() {
    let fixture = Fixture::new();
    keep(&fixture, [Event::new("nobody.takes.it", "poison")]);
    let server = fixture.serve();
    let short = ["--give-up-after", "1ms"];
    let (done, ended) = fixture.drained(&[&short[..], &["--timeout", "1s"]].concat());
    assert_eq!((ended.status.code(), &done["left"]), (Some(1), &json!(1)), "nothing else was stored: {done}");
    let mut forwarded = 0;
    while fixture.status()["dead_letters"] == 0 {
        forwarded += 1;
        assert!(forwarded < 5, "{}", fixture.status());
        let said = printed(fixture.command("record", &["events.a", &payload(forwarded)]).args(short));
        assert!(said.starts_with("forwarded, as "), "{said}");
        // The others are not kept until the poisonous one is given up.
        assert!(fixture.status()["events"].as_u64().expect("a number") <= 1, "{}", fixture.status());
    }
    assert!(fixture.letters()[0].contains("no stream takes"), "{:?}", fixture.letters());
    assert_eq!(server.messages("EVENTS"), forwarded);
    assert_eq!(fixture.collected(&server), payloads(1..forwarded + 1));
}

#[test]
fn what_waits_behind_a_poisonous_event_is_forwarded_and_counted_once() {
    let fixture = Fixture::new();
    let poison = Event::new("nobody.takes.it", "poison");
    keep(&fixture, std::iter::once(poison).chain((0..104).map(|number| Event::new("events.a", payload(number)))));
    let server = fixture.serve();
    let (done, ended) = fixture.drained(&["--timeout", "1s"]);
    assert_eq!((ended.status.code(), &done["forwarded"], &done["left"]), (Some(1), &json!(104), &json!(1)), "{done}");
    assert_eq!((&fixture.status()["events"], server.messages("EVENTS")), (&json!(1), 104));
    // It was refused before, and the others were stored after that: it need not be refused for long again.
    let (done, _) = fixture.drained(&["--timeout", "1s", "--give-up-after", "1ms"]);
    assert_eq!((&done["forwarded"], &done["left"], &done["dead_letters"]), (&json!(0), &json!(0), &json!(1)), "{done}");
    assert_eq!(fixture.collected(&server), payloads(0..104));
}

#[test]
fn only_the_expected_stream_stores_events() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    server.make_stream("OTHER", &["other.>"]);
    let config = with(fixture.config(), |config| {
        config.expected_stream = Some("EVENTS".into());
        config.give_up_after = Duration::from_millis(100);
    });
    let recorder = SpooledRecorder::open(config).expect("opens");
    record(&recorder, 0..3);
    recorder.record(Event::new("other.a", "astray")).expect("taken");
    eventually("the dead letter", || {
        recorder.record(Event::new("events.b", "more")).expect("taken");
        (recorder.status().dead_letters == 1).then_some(())
    });
    recorder.close(LONG).expect("closes");
    drop(recorder);
    assert_eq!(server.messages("OTHER"), 0);
    let why = &fixture.letters()[0];
    assert!(why.contains("expected stream") && why.contains("another stream than EVENTS takes its subject"), "{why}");
    let said = output(&mut fixture.command("record", &["other.a", "astray", "--stream", "EVENTS", "--quiet"]));
    assert_eq!(results(said), "kept in the spool; 1 event waiting for the stream\n");
    let (done, _) = fixture.drained(&["--stream", "EVENTS", "--timeout", "1s"]);
    assert!(
        done["left"] == 1 && done["error"].as_str().expect("text").contains("another stream than EVENTS"),
        "{done}"
    );
    assert_eq!(fixture.drained(&["--stream", "OTHER"]).0["forwarded"], 1);
    let invalid = output(&mut fixture.command("drain", &["--stream", "a.b"]));
    assert!(!invalid.status.success() && stderr(&invalid).contains("not a valid stream name"), "{}", stderr(&invalid));
    assert_eq!(fixture.collected(&server)[..3], payloads(0..3));
    let headers = oracle::texts(&fixture.path("a.db"), "SELECT DISTINCT headers FROM events");
    assert_eq!(headers, [r#"{"Nats-Expected-Stream":"EVENTS"}"#]);
}

/// A shell that runs this on a small disk of its own, at `disk`.
fn on_small_disk(fixture: &Fixture, size: &str, script: &str) -> Option<Command> {
    let unshare = crate::database::own_mounts()?;
    let disk = fixture.path("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let catchment = env!("CARGO_BIN_EXE_catchment");
    let disk = disk.display();
    let script = format!("set -e; mount -t tmpfs -o size={size} tmpfs {disk}; cd {disk}; c={catchment}; {script}");
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", &script]);
    Some(command)
}

#[test]
fn a_spool_on_a_disk_without_any_room_is_drained() {
    let fixture = Fixture::new();
    let _server: Server = fixture.serve();
    for size in ["600k", "5m", "20m"] {
        let fixture = Fixture { folder: tempfile::tempdir().expect("a folder"), port: fixture.port };
        let script = format!(
            "for n in 1 2 3; do $c spool record a.spool events.a $n --server nats://127.0.0.1:1 --quiet >kept; done
             cat /dev/zero >ballast 2>full || true
             ls -l >&2; df . >&2
             $c spool drain a.spool --server nats://127.0.0.1:{} && $c spool status a.spool --json",
            fixture.port
        );
        let Some(mut command) = on_small_disk(&fixture, size, &script) else {
            eprintln!("skipped: a_spool_on_a_disk_without_any_room_is_drained: no mount of its own");
            return;
        };
        let done = output(&mut command);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(said.starts_with("forwarded 3 events; the spool is empty\n"), "{size}: {said} {}", stderr(&done));
        assert!(said.contains(r#""events":0,"forwarded":3"#), "{said}");
    }
}

#[test]
fn an_event_for_which_there_is_no_room_is_an_error_in_time_or_at_a_signal() {
    let fixture = Fixture::new();
    let record = "$c spool record a.spool events.a x --server nats://127.0.0.1:1 --quiet";
    for (waits, status, said) in [
        (format!("{record} --timeout 1s || echo $?"), "1\n", "the event is not kept: "),
        (
            format!("{record} --timeout 1h & sleep 1; kill -TERM $!; wait $! || echo $?"),
            "143\n",
            "interrupted; the event is not kept: ",
        ),
    ] {
        let fixture = Fixture { folder: tempfile::tempdir().expect("a folder"), port: fixture.port };
        let script = format!("{record} >kept; cat /dev/zero >ballast 2>full || true; {waits}");
        let Some(mut command) = on_small_disk(&fixture, "600k", &script) else {
            eprintln!("skipped: an_event_for_which_there_is_no_room_is_an_error_in_time_or_at_a_signal: no own mount");
            return;
        };
        let done = output(&mut command);
        assert_eq!(String::from_utf8_lossy(&done.stdout), status, "{}", stderr(&done));
        let errors = stderr(&done);
        let errors: Vec<_> = errors.lines().filter(|line| line.starts_with("catchment: ")).collect();
        assert!(matches!(errors[..], [error] if error.contains(said)), "{errors:?}");
    }
}
