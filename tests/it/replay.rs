//! Replays: a new database filled from the stream while the collector goes on, and put in its place.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::chance::Chance;
use crate::support::collector::{Collector, output, printed, stderr};
use crate::support::fixture::Fixture;
use crate::support::load::Load;
use crate::support::refusal::{ends, refused};
use crate::support::{eventually, oracle};

/// Settings with other routes: events become lines, and every tenth is refused.
const OTHER: &str = "
[broker]
subjects = ['events.>']
[database]
path = 'a.db'
migrations = 'other'
[[route]]
name = 'line'
subject = 'events.>'
sql = 'INSERT INTO lines(seq, text) VALUES (:sequence, :payload)'
";

/// A fixture with these settings as `other.toml`.
fn fixture(settings: &Value) -> Fixture {
    let fixture = Fixture::with_stream(settings);
    std::fs::create_dir(fixture.path("other")).expect("a folder");
    fixture.file("other/001_lines.sql", "CREATE TABLE lines(seq INTEGER PRIMARY KEY, text ANY NOT NULL) STRICT;");
    fixture.file("other.toml", OTHER);
    fixture
}

fn replay(fixture: &Fixture, arguments: &[&str]) -> Command {
    let mut command = fixture.command(&["replay", "-c", "other.toml", "--server", &fixture.server.url()]);
    command.args(arguments);
    command
}

fn replayed(fixture: &Fixture, arguments: &[&str]) -> Value {
    let text = printed(replay(fixture, arguments).arg("--json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The sequences of table `lines`, in order, without gaps and twice-stored ones: first, last, number.
fn lines(database: &Path) -> (u64, u64, u64) {
    let number = |sql| oracle::number(database, sql);
    (number("SELECT min(seq) FROM lines"), number("SELECT max(seq) FROM lines"), number("SELECT count(*) FROM lines"))
}

fn start(fixture: &Fixture, settings: &str) -> Collector {
    let command = fixture.command(&["run", "-c", settings, "--server", &fixture.server.url()]);
    Collector::start(command, &fixture.path("collector.log"))
}

fn execute(database: &Path, sql: &str) {
    Connection::open(database).and_then(|connection| connection.execute_batch(sql)).expect("SQL");
}

#[test]
fn a_replay_fills_other_tables_while_the_collector_goes_on() {
    let fixture = fixture(&json!({}));
    let load = Load::start(&fixture.server, 6_000, 1_000);
    let collector = fixture.collector();
    let rows = || oracle::count(&fixture.database());
    load.committed(2_000);
    eventually("2,000 rows", || (rows() >= 2_000).then_some(()));
    let before = fixture.server.consumers("EVENTS");
    let mut child = replay(&fixture, &["--all", "--into", "new.db"]);
    let mut child = child.stdout(std::process::Stdio::null()).spawn().expect("starts");
    // Events flow on until the replay has ended.
    eventually("its end", || {
        load.committed(rows().min(4_900) + 50);
        child.try_wait().expect("can be asked").map(|status| assert!(status.success()))
    });
    let (first, last, count) = lines(&fixture.path("new.db"));
    assert_eq!((first, last), (1, count));
    assert!(last >= 2_000, "{last}");
    assert_eq!(fixture.server.consumers("EVENTS"), before, "its own consumer is gone, and the collector's is the same");
    load.committed(6_000);
    let kept = load.finish();
    eventually("all rows", || (rows() == 6_000).then_some(()));
    assert!(collector.stop().success());
    oracle::is_exactly(&fixture.database(), &kept);
    // The same command goes on, then the new one takes the place of the old one.
    let report = replayed(&fixture, &["--all", "--into", "new.db", "--swap"]);
    assert_eq!((&report["position"], &report["lost"]), (&json!(6_000), &json!([])), "{report}");
    assert_eq!(report["events"], json!(6_000 - last), "{report}");
    assert_eq!(lines(&fixture.database()), (1, 6_000, 6_000));
    oracle::is_exactly(&fixture.path("a.db.replaced"), &kept);
    for gone in ["new.db", "new.db-wal", "new.db-shm", "new.db.lock"] {
        assert!(!fixture.path(gone).exists(), "{gone}");
    }
    let collector = start(&fixture, "other.toml");
    fixture.publish("later", 3);
    eventually("the next lines", || (lines(&fixture.database()) == (1, 6_003, 6_003)).then_some(()));
    assert!(collector.stop().success());
}

#[test]
fn a_range_without_an_event_is_refused_in_one_line() {
    let fixture = fixture(&json!({}));
    let range = |arguments: &[&str]| replay(&fixture, &[arguments, &["--into", "new.db"]].concat());
    refused(&mut range(&["--from-seq", "2"]), 2, &["--from-seq", "has no event there or later"]);
    fixture.publish("event", 20);
    for sequence in [18, 19, 20] {
        fixture.ask("$JS.API.STREAM.MSG.DELETE.EVENTS", &json!({ "seq": sequence }));
    }
    let none = "has no event there or later, and ends at sequence 20: there is nothing to replay";
    for (arguments, words) in [
        (&["--from-seq", "22"][..], none),
        (&["--from-seq", "1000"], none),
        // The last ones were deleted.
        (&["--from-seq", "18"], none),
        (&["--from-time", "0s"], none),
        (&["--from-time", "2200-01-01"], "is in the future"),
        (&["--from-seq", "9", "--until-seq", "8"], "is before the first event"),
        (&["--from-seq", "9", "--until-time", "2020-01-01"], "is before the first event, which has sequence 9"),
        (&["--from-time", "2020-01-02", "--until-time", "2020-01-01"], "is not after the first event's time"),
        (&["--all", "--until-time", "2020-01-01"], "is before the first event, which has sequence 1"),
        (&["--from-seq", "2", "--from-time", "1h"], "cannot be combined with"),
        (&["--all", "--until-seq", "2", "--until-time", "1h"], "cannot be combined with"),
    ] {
        refused(&mut range(arguments), 2, &[words]);
        assert!(!fixture.path("new.db").exists(), "{arguments:?}");
    }
    refused(&mut replay(&fixture, &["--all", "--into", "-"]), 2, &["standard input and output cannot be used here"]);
    // Mixed kinds of a range that has events.
    let report = replayed(&fixture, &["--from-time", "2020-01-01", "--until-seq", "5", "--into", "new.db"]);
    assert_eq!((&report["events"], &report["position"]), (&json!(5), &json!(5)), "{report}");
}

#[test]
fn a_part_of_the_stream_is_replayed() {
    let fixture = fixture(&json!({}));
    fixture.publish("old", 20);
    fixture.publish("new", 10);
    let at = oracle_time(&fixture, 21);
    let part = |into: &str, arguments: &[&str]| {
        replayed(&fixture, &[&["--into", into], arguments].concat());
        lines(&fixture.path(into))
    };
    assert_eq!(part("seq.db", &["--from-seq", "11", "--until-seq", "20"]), (11, 20, 10));
    assert_eq!(part("seq.db", &["--from-seq", "11", "--until-seq", "25"]), (11, 25, 15), "further");
    assert_eq!(part("seq.db", &["--from-seq", "11"]), (11, 30, 20), "to the end");
    assert_eq!(part("time.db", &["--from-time", &at]), (21, 30, 10));
    assert_eq!(part("until.db", &["--all", "--until-time", &at]), (1, 20, 20));
    assert_eq!(part("last.db", &["--from-seq", "31"]), (0, 0, 0), "the next one, which is not there yet");
    fixture.publish("new", 1);
    assert_eq!(part("last.db", &["--from-seq", "31"]), (31, 31, 1));
}

/// When this message was published.
fn oracle_time(fixture: &Fixture, sequence: u64) -> String {
    let answer = fixture.ask("$JS.API.STREAM.MSG.GET.EVENTS", &json!({ "seq": sequence }));
    let time = answer["message"]["time"].as_str().expect("a time");
    // To the microsecond, rounded down: the message before is older than that, if a little time has passed.
    let (seconds, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time.trim_end_matches('Z'), "0"));
    format!("{seconds}.{fraction:0<6.6}Z")
}

#[test]
fn a_stream_that_keeps_nothing_acknowledged_is_read_without_a_consumer() {
    for retention in ["workqueue", "interest"] {
        let fixture = fixture(&json!({ "retention": retention }));
        // An interest stream keeps messages for a consumer.
        let consumer =
            json!({ "stream_name": "EVENTS", "config": { "durable_name": "other", "ack_policy": "explicit" } });
        fixture.ask("$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.other", &consumer);
        fixture.publish("queued", 3_000);
        let report = replayed(&fixture, &["--all", "--into", "new.db"]);
        assert_eq!(
            (&report["events"], lines(&fixture.path("new.db"))),
            (&json!(3_000), (1, 3_000, 3_000)),
            "{retention}"
        );
        assert_eq!(fixture.server.consumers("EVENTS"), ["other"], "{retention}");
        assert_eq!(fixture.server.messages("EVENTS"), 3_000, "{retention}: nothing was taken");
        fixture.publish("more", 5);
        replayed(&fixture, &["--all", "--into", "new.db"]);
        assert_eq!(lines(&fixture.path("new.db")), (1, 3_005, 3_005), "{retention}");
    }
}

#[test]
fn a_place_for_a_consumer_is_left_to_the_collector() {
    let fixture = fixture(&json!({ "max_consumers": 1 }));
    fixture.publish("old", 50);
    let collector = fixture.collector();
    fixture.has(50);
    let without_consumer = |database: &str| {
        let said = stderr(&output(&mut replay(&fixture, &["--all", "--into", database, "-v"])));
        assert!(said.contains("without a consumer") && said.contains("max_consumers"), "{said}");
        assert_eq!(lines(&fixture.path(database)), (1, 50, 50));
    };
    without_consumer("new.db");
    assert!(collector.stop().success());
    // Now there is room, and the collector may come back at any moment.
    eventually("the collector's consumer to end", || fixture.server.consumers("EVENTS").is_empty().then_some(()));
    without_consumer("other.db");
}

#[test]
fn what_the_stream_lacks_is_a_gap_of_the_new_database() {
    for retention in ["limits", "workqueue"] {
        let fixture = fixture(&json!({ "retention": retention }));
        fixture.publish("old", 20);
        for sequence in [3, 4, 20] {
            fixture.ask("$JS.API.STREAM.MSG.DELETE.EVENTS", &json!({ "seq": sequence }));
        }
        replayed(&fixture, &["--all", "--into", "new.db"]);
        assert_eq!(lines(&fixture.path("new.db")), (1, 19, 17), "{retention}");
        let gaps = "SELECT group_concat(first || '-' || last) FROM catchment_gaps WHERE last < 20";
        assert_eq!(oracle::texts(&fixture.path("new.db"), gaps), ["3-4"], "{retention}");
    }
}

#[test]
fn the_old_database_is_not_given_up_for_less() {
    let fixture = fixture(&json!({}));
    fixture.publish("old", 20);
    fixture.drain();
    // Gone from the stream, and a table that no route fills.
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": 6 }));
    execute(&fixture.database(), "CREATE TABLE notes(text); INSERT INTO notes VALUES ('mine');");
    let swap = ["--all", "--into", "new.db", "--swap"];
    let said = ends(
        &mut replay(&fixture, &swap),
        1,
        &["it has what new.db lacks: ", "up to 5 events of stream EVENTS (1 to 5)"],
    );
    assert!(said.contains("table notes") && said.contains("give --accept-loss"), "{said}");
    fixture.has(20);
    let report = replayed(&fixture, &[&swap[..], &["--accept-loss"]].concat());
    assert_eq!(report["lost"].as_array().map(Vec::len), Some(2), "{report}");
    assert_eq!(lines(&fixture.database()), (6, 20, 15));
    assert_eq!(oracle::count(&fixture.path("a.db.replaced")), 20);
    assert_ne!(oracle::identity(&fixture.database()), oracle::identity(&fixture.path("a.db.replaced")));
}

#[test]
fn a_swap_waits_for_no_collector_and_no_reader() {
    let fixture = fixture(&json!({}));
    fixture.publish("old", 20);
    let collector = fixture.collector();
    fixture.has(20);
    let swap = ["--all", "--into", "new.db", "--swap"];
    refused(&mut replay(&fixture, &swap), 1, &["database a.db: process ", "uses it already"]);
    assert!(!fixture.path("new.db").exists());
    assert!(collector.stop().success());
    let reader = oracle::open(&fixture.database());
    let count: u64 = reader.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).expect("reads");
    assert_eq!(count, 20);
    let done = output(&mut replay(&fixture, &swap));
    assert!(stderr(&done).contains("another program has it open"), "{}", stderr(&done));
    drop(reader);
    replayed(&fixture, &swap);
    assert_eq!(lines(&fixture.database()), (1, 20, 20));
}

/// The broker ends with `run --with-server`.
#[test]
fn a_swap_without_the_broker_leaves_the_rest_to_the_next_start() {
    let mut fixture = fixture(&json!({}));
    fixture.publish("old", 20);
    replayed(&fixture, &["--all", "--into", "new.db"]);
    fixture.publish("new", 4);
    fixture.drain();
    fixture.server.stop();
    refused(&mut replay(&fixture, &["--all", "--into", "none.db", "--swap", "--offline"]), 2, &["there is no none.db"]);
    let report = replayed(&fixture, &["--all", "--into", "new.db", "--swap", "--offline"]);
    assert_eq!((&report["position"], &report["behind"], &report["lost"]), (&json!(20), &json!(4), &json!([])));
    fixture.server.restart();
    let collector = start(&fixture, "other.toml");
    eventually("the rest", || (lines(&fixture.database()) == (1, 24, 24)).then_some(()));
    assert!(collector.stop().success());
}

#[test]
fn a_swap_keeps_the_consumer_of_an_interest_stream() {
    let fixture = fixture(&json!({ "retention": "interest" }));
    // Something else keeps the events in the stream.
    let consumer = json!({ "stream_name": "EVENTS", "config": { "durable_name": "other", "ack_policy": "explicit" } });
    fixture.ask("$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.other", &consumer);
    let collector = fixture.collector();
    collector.said("collecting stream EVENTS");
    fixture.publish("old", 10);
    fixture.has(10);
    assert!(collector.stop().success());
    replayed(&fixture, &["--all", "--into", "new.db", "--swap"]);
    // For the collector that was stopped the stream keeps these.
    fixture.publish("new", 5);
    let collector = start(&fixture, "other.toml");
    eventually("the rest", || (lines(&fixture.database()) == (1, 15, 15)).then_some(()));
    eventually("one consumer of ours", || (fixture.server.consumers("EVENTS").len() == 2).then_some(()));
    assert!(collector.stop().success());
}

#[test]
fn wrong_uses_are_refused_by_name() {
    let fixture = fixture(&json!({}));
    fixture.publish("old", 10);
    fixture.drain();
    let refuses =
        |arguments: &[&str], status: i32, words: &[&str]| refused(&mut replay(&fixture, arguments), status, words);
    refuses(&["--all", "--into", "a.db"], 2, &["--into: is the database that is collected into"]);
    std::fs::copy(fixture.database(), fixture.path("copy.db")).expect("copies");
    refuses(
        &["--all", "--into", "copy.db"],
        1,
        &["copy.db: it is a database that no replay has made", "name a new file"],
    );
    fixture.file(
        "text.db",
        "this is no database, but a text that is longer than a header of SQLite would be, so that it is read",
    );
    refuses(&["--all", "--into", "text.db"], 1, &["text.db", "not a database"]);
    let from = ["--from-seq", "9", "--until-seq", "5", "--into", "new.db"];
    refuses(&from, 2, &["--until-seq or --until-time: is before the first event"]);
    let from = ["--from-time", "2999-01-01", "--into", "new.db"];
    refuses(&from, 2, &["--from-seq or --from-time: is in the future"]);
    refuses(
        &["--from-seq", "12", "--into", "new.db"],
        2,
        &["--from-seq or --from-time: stream EVENTS has no event there or later"],
    );
    assert!(!fixture.path("new.db").exists() && !fixture.path("new.db.lock").exists());
    replayed(&fixture, &["--from-seq", "5", "--into", "new.db"]);
    refuses(&["--all", "--into", "new.db"], 2, &["was begun with another start (sequence 5) than this (all)"]);
    fixture.file("other.toml", OTHER.replace(":payload", "upper(:payload)"));
    refuses(&["--from-seq", "5", "--into", "new.db"], 2, &["new.db was begun with other routes"]);
    refuses(&["--into", "new.db"], 2, &["--all"]);
    refuses(
        &["--all", "--into", "new.db", "--swap", "--until-seq", "3"],
        2,
        &["--swap cannot be combined with --until-seq"],
    );
}

#[test]
fn routes_may_come_from_another_file() {
    let fixture = fixture(&json!({}));
    fixture.publish("old", 10);
    let mut command = fixture.command(&["replay", "--server", &fixture.server.url(), "--database", "a.db", "--json"]);
    command.args(["--routes", "other.toml", "--all", "--into", "new.db"]);
    printed(&mut command);
    assert_eq!(lines(&fixture.path("new.db")), (1, 10, 10));
}

#[test]
fn a_replay_killed_at_twenty_moments_has_every_line_once() {
    let fixture = fixture(&json!({}));
    let (events, mut chance) = (40_000, Chance::new());
    let payloads: Vec<String> = (0..events).map(|number| format!("event-{number}")).collect();
    fixture.server.raw().publish_all("events.test", &payloads);
    let new = fixture.path("new.db");
    let mut kills = 0;
    while kills < 20 {
        let mut command = replay(&fixture, &["--all", "--into", "new.db"]);
        // Small batches: many commits to die in.
        command.env("CATCHMENT_BATCH__MAX_EVENTS", "50");
        let mut child = command.stdout(std::process::Stdio::null()).spawn().expect("starts");
        let goal = oracle::position(&new) + chance.up_to(500);
        let is_over = eventually("progress", || {
            let ended = child.try_wait().expect("can be asked").is_some();
            (ended || oracle::position(&new) >= goal).then_some(ended)
        });
        if is_over {
            break;
        }
        std::thread::sleep(chance.time(Duration::from_millis(5)));
        child.kill().expect("kills");
        child.wait().expect("ends");
        kills += 1;
    }
    assert!(kills >= 10, "{kills} kills before the end");
    replayed(&fixture, &["--all", "--into", "new.db"]);
    assert_eq!(lines(&new), (1, 40_000, 40_000));
    let wrong = "SELECT count(*) FROM lines WHERE text <> 'event-' || (seq - 1)";
    assert_eq!(oracle::number(&new, wrong), 0);
}

#[test]
fn a_swap_killed_at_any_moment_leaves_a_whole_database() {
    let fixture = fixture(&json!({}));
    fixture.publish("old", 200);
    fixture.drain();
    let mut chance = Chance::new();
    let swap = ["--all", "--into", "new.db", "--swap"];
    for round in 0..20 {
        let mut child = replay(&fixture, &swap).stdout(std::process::Stdio::null()).spawn().expect("starts");
        std::thread::sleep(chance.time(Duration::from_millis(250)));
        child.kill().expect("kills");
        child.wait().expect("ends");
        // A connection that may write: it undoes what was interrupted, as a start does.
        let database = Connection::open(fixture.database()).expect("opens");
        let count = |table: &str| {
            database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u64>(0)).unwrap_or(0)
        };
        let rows = count("events") + count("lines");
        assert_eq!(rows, 200, "round {round}");
    }
    replayed(&fixture, &swap);
    assert_eq!(lines(&fixture.database()), (1, 200, 200));
    let collector = start(&fixture, "other.toml");
    fixture.publish("later", 1);
    eventually("the next line", || (lines(&fixture.database()) == (1, 201, 201)).then_some(()));
    assert!(collector.stop().success());
}

#[test]
fn a_full_disk_ends_a_replay_in_one_line_and_it_continues_later() {
    let fixture = fixture(&json!({}));
    let payloads: Vec<String> = (0..3_000).map(|number| format!("{number:0>1000}")).collect();
    fixture.server.raw().publish_all("events.test", &payloads);
    // A limit on the size of files, as a full disk.
    let limited = replay(&fixture, &["--all", "--into", "new.db", "--quiet"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -f 1500; exec \"$0\" \"$@\""]);
    command.arg(limited.get_program()).args(limited.get_args()).current_dir(fixture.folder.path());
    let done = output(&mut command);
    let said = stderr(&done);
    assert_eq!((done.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.starts_with("catchment: database new.db: "), "{said}");
    assert!(lines(&fixture.path("new.db")).2 < 3_000);
    replayed(&fixture, &["--all", "--into", "new.db"]);
    assert_eq!(lines(&fixture.path("new.db")), (1, 3_000, 3_000));
}
