//! Recording straight into the database: the same trait, without a broker.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use catchment::record::{CommitMode, Destination, FailureReason, FlushError, Overflow, ReceiptKind, WaitError};
use catchment::{DirectRecorder, DirectRecorderConfig, Error, Event, Receipt, Recorder};
use rusqlite::Connection;

use crate::support::chance::Chance;
use crate::support::collector::{Collector, run};
use crate::support::oracle;
use crate::support::server::Server;
use crate::support::{eventually, load};

const PATIENCE: Duration = Duration::from_secs(20);

fn config(database: &Path, commit: CommitMode) -> DirectRecorderConfig {
    let mut config = DirectRecorderConfig::default();
    config.commit = commit;
    database.clone_into(&mut config.database.path);
    config.database.busy_timeout = Duration::from_millis(200);
    config
}

fn open(database: &Path, commit: CommitMode) -> DirectRecorder {
    DirectRecorder::open(config(database, commit)).expect("opens")
}

#[test]
fn events_of_many_threads_are_stored_once_and_in_order() {
    for commit in [CommitMode::PerEvent, CommitMode::Grouped] {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        let recorder = Arc::new(open(&database, commit));
        let each = if commit == CommitMode::PerEvent { 50 } else { 5_000 };
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let recorder = Arc::clone(&recorder);
                std::thread::spawn(move || -> Vec<Receipt> {
                    let event = |n| Event::new(format!("events.{thread}"), format!("{thread}-{n}")).header("N", "1");
                    (0..each).map(|n| recorder.record(event(n)).expect("taken")).collect()
                })
            })
            .collect();
        let receipts: Vec<Receipt> = threads.into_iter().flat_map(|thread| thread.join().expect("records")).collect();
        recorder.flush(PATIENCE).expect("committed");
        for receipt in receipts {
            assert!(receipt.is_settled() && receipt.kind() == ReceiptKind::Committed);
            assert_eq!(receipt.wait(Duration::ZERO).expect("committed").destination, Destination::Database);
        }
        assert!(recorder.health().is_well());
        drop(recorder);
        let connection = oracle::open(&database);
        for thread in 0..4 {
            let sql = "SELECT group_concat(payload, ' ') FROM
                       (SELECT payload FROM events WHERE subject = ? AND headers = '{\"N\":\"1\"}' ORDER BY id)";
            let found: String =
                connection.query_row(sql, [format!("events.{thread}")], |row| row.get(0)).expect("rows");
            assert!(found.split(' ').eq((0..each).map(|n| format!("{thread}-{n}"))), "{commit:?}, thread {thread}");
        }
        let sql = "SELECT count(*) FROM events WHERE stream IS NULL AND sequence IS NULL AND published_us > 0";
        let rows: u64 = connection.query_row(sql, [], |row| row.get(0)).expect("SQL");
        assert_eq!(rows, 4 * each);
    }
}

#[test]
fn an_event_recorded_one_by_one_is_there_when_record_returns() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let recorder = open(&database, CommitMode::PerEvent);
    for count in 1..=20 {
        recorder.record(Event::new("events.a", format!("{count}")).id(format!("id-{count}"))).expect("committed");
        assert_eq!(oracle::count(&database), count);
    }
    let headers: String = oracle::open(&database)
        .query_row("SELECT headers FROM events WHERE payload = '7'", [], |row| row.get(0))
        .expect("a row");
    assert_eq!(headers, r#"{"Nats-Msg-Id":"id-7"}"#);
}

#[test]
fn an_event_the_tables_refuse_is_a_dead_letter_only() {
    for commit in [CommitMode::PerEvent, CommitMode::Grouped] {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        drop(open(&database, commit));
        let connection = Connection::open(&database).expect("opens");
        let trigger = "CREATE TRIGGER odd BEFORE INSERT ON events WHEN NEW.payload LIKE '%7' BEGIN
                       SELECT RAISE(ABORT, 'no sevens'); END";
        connection.execute_batch(trigger).expect("SQL");
        let recorder = open(&database, commit);
        for number in 0..100 {
            recorder.record(Event::new("events.a", number.to_string())).expect("kept either way");
        }
        recorder.flush(PATIENCE).expect("kept");
        assert_eq!(recorder.dead_letters(), 10);
        drop(recorder);
        assert_eq!(oracle::count(&database), 90);
        let sql = "SELECT count(*) FROM catchment_dead_letters WHERE error LIKE '%no sevens%' AND stream IS NULL";
        let dead: u64 = connection.query_row(sql, [], |row| row.get(0)).expect("SQL");
        assert_eq!(dead, 10);
    }
}

#[test]
fn an_event_that_finds_the_database_locked_comes_back_or_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let recorder = open(&database, CommitMode::PerEvent);
    let lock = oracle::lock(&database);
    let refused = recorder.record(Event::new("events.a", "one")).expect_err("it is locked");
    assert!(
        matches!(&refused.reason, FailureReason::Database { detail, .. } if detail.contains("locked")),
        "{refused}"
    );
    assert_eq!(refused.event.payload(), b"one");
    assert!(recorder.health().troubles[0].reason.contains("locked"));
    drop(lock);
    recorder.record(*refused.event).expect("committed");
    assert!(recorder.health().is_well());
    drop(recorder);

    let mut config = config(&database, CommitMode::Grouped);
    (config.batch.max_events, config.overflow) = (10, Overflow::Refuse);
    let recorder = DirectRecorder::open(config).expect("opens");
    let lock = oracle::lock(&database);
    let mut receipts = Vec::new();
    let refused = loop {
        match recorder.record(Event::new("events.a", format!("{}", receipts.len()))) {
            Ok(receipt) => receipts.push(receipt),
            Err(refused) => break refused,
        }
        assert!(receipts.len() < 1_000, "memory is bounded");
    };
    assert!(matches!(refused.reason, FailureReason::BufferFull { .. }), "{refused}");
    eventually("the trouble to show", || (!recorder.health().is_well()).then_some(()));
    let waiting = recorder.flush(Duration::from_millis(50)).expect_err("it is locked");
    let FlushError::Deadline { waiting, trouble } = waiting else { panic!("{waiting}") };
    assert!(waiting == receipts.len() && trouble.is_some_and(|trouble| trouble.contains("locked")));
    assert!(!receipts[0].is_settled());
    drop(lock);
    let handed_in = receipts.len();
    for receipt in receipts {
        assert!(receipt.wait(PATIENCE).is_ok());
    }
    recorder.close(PATIENCE).expect("all is committed");
    assert_eq!(oracle::count(&database), handed_in as u64 + 1);
    oracle::sound(&database);
}

#[test]
fn a_close_ends_in_time_and_receipts_return_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let recorder = open(&database, CommitMode::Grouped);
    let first = recorder.record(Event::new("events.a", "committed")).expect("taken");
    assert!(first.wait(PATIENCE).is_ok());
    let lock = oracle::lock(&database);
    let receipt = recorder.record(Event::new("events.a", "too late").header("A", "b")).expect("taken");
    let began = Instant::now();
    let late = recorder.close(Duration::from_secs(1)).expect_err("it is locked");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let FlushError::Deadline { waiting: 1, trouble: Some(trouble) } = &late else { panic!("{late}") };
    assert!(trouble.contains("locked"), "{trouble}");
    let Err(WaitError::Failed(failed)) = receipt.wait(PATIENCE) else { panic!("it is not committed") };
    assert_eq!(*failed.event, Event::new("events.a", "too late").header("A", "b"));
    assert!(matches!(&failed.reason, FailureReason::Database { detail, .. } if detail.contains("locked")), "{failed}");
    drop(lock);
    assert_eq!(oracle::payloads(&database), ["committed"]);
}

/// The payloads of events that came back, each because of this.
#[track_caller]
fn came_back(error: FlushError, because: &str) -> Vec<String> {
    let FlushError::Failed { failed, .. } = error else { panic!("{error}") };
    assert!(
        failed
            .iter()
            .all(|error| matches!(&error.reason, FailureReason::Database { detail, .. } if detail.contains(because)))
    );
    failed.iter().map(|error| String::from_utf8_lossy(error.event.payload()).into_owned()).collect()
}

#[test]
fn what_a_close_leaves_uncommitted_comes_back_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut config = config(&database, CommitMode::Grouped);
    config.batch.max_events = 10;
    let recorder = DirectRecorder::open(config).expect("opens");
    recorder.record(Event::new("events.a", "committed")).expect("taken");
    recorder.flush(PATIENCE).expect("committed");
    let lock = oracle::lock(&database);
    // Some are with the writer, some in the pipeline, some wait before it.
    let payloads: Vec<String> = (0..12).map(|number| number.to_string()).collect();
    for payload in &payloads {
        recorder.record(Event::new("events.a", payload.as_str())).expect("taken");
    }
    eventually("the trouble to show", || (!recorder.health().is_well()).then_some(()));
    let lost = recorder.close(Duration::from_secs(1)).expect_err("it is locked");
    assert_eq!(came_back(lost, "locked"), payloads);
    drop(lock);
    assert_eq!(oracle::payloads(&database), ["committed"]);
}

#[test]
fn a_flush_gives_back_what_a_failed_recorder_has_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let recorder = open(&database, CommitMode::Grouped);
    recorder.record(Event::new("events.a", "before")).expect("taken");
    recorder.flush(PATIENCE).expect("committed");
    std::fs::rename(&database, folder.path().join("b.db")).expect("moves");
    recorder.record(Event::new("events.a", "one")).expect("taken");
    let lost = recorder.flush(PATIENCE).expect_err("it is gone");
    assert_eq!(came_back(lost, "moved")[0], "one");
    recorder.close(PATIENCE).expect("all was given back");
}

#[test]
fn a_flush_beside_other_threads_counts_no_more_than_there_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let recorder = open(&folder.path().join("a.db"), CommitMode::Grouped);
    let each = 20_000;
    std::thread::scope(|scope| {
        let recording = scope.spawn(|| {
            for number in 0..each {
                recorder.record(Event::new("events.a", number.to_string())).expect("taken");
            }
        });
        while !recording.is_finished() {
            match recorder.flush(Duration::ZERO) {
                Ok(()) => {}
                Err(FlushError::Deadline { waiting, .. }) => assert!((1..=each).contains(&waiting), "{waiting}"),
                Err(other) => panic!("{other}"),
            }
        }
    });
    recorder.close(PATIENCE).expect("all is committed");
}

#[test]
fn one_recorder_of_groups_or_one_collector_has_a_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let first = open(&database, CommitMode::Grouped);
    let second = DirectRecorder::open(config(&database, CommitMode::Grouped)).expect_err("it has an owner");
    assert!(matches!(second, Error::Locked { .. }), "{second}");
    drop(first);
    let collector = Collector::start(run(&server.url(), &database), &folder.path().join("log"));
    collector.said("collecting stream");
    let second = DirectRecorder::open(config(&database, CommitMode::Grouped)).expect_err("it has an owner");
    assert!(matches!(second, Error::Locked { .. }), "{second}");
    // One by one is fine beside a collector.
    let beside = open(&database, CommitMode::PerEvent);
    load::publish(&server, 100);
    beside.record(Event::new("events.direct", "beside")).expect("committed");
    eventually("all rows", || (oracle::count(&database) == 101).then_some(()));
    assert!(collector.stop().success());
    oracle::sound(&database);
}

#[test]
fn a_database_moved_away_is_noticed() {
    for commit in [CommitMode::PerEvent, CommitMode::Grouped] {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        let recorder = open(&database, commit);
        recorder.record(Event::new("events.a", "before")).expect("taken");
        recorder.flush(PATIENCE).expect("committed");
        std::fs::rename(&database, folder.path().join("b.db")).expect("moves");
        let refusal = eventually("the move to be noticed", || match recorder.record(Event::new("events.a", "after")) {
            Err(refused) => Some(refused),
            Ok(receipt) => match receipt.wait(Duration::from_millis(50)) {
                Err(WaitError::Failed(failed)) => Some(failed),
                Ok(_) | Err(WaitError::Pending(_)) => None,
            },
        });
        assert!(
            matches!(&refusal.reason, FailureReason::Database { detail, .. } if detail.contains("moved")),
            "{refusal}"
        );
        assert_eq!(refusal.event.payload(), b"after");
    }
}

/// What a process that is killed records: prints the number of each event that was committed.
#[test]
#[ignore = "the process that what_was_reported_committed_survives_a_kill starts"]
fn a_process_that_records_until_it_is_killed() {
    let Some(database) = std::env::var_os("RECORD_UNTIL_KILLED") else { return };
    let commit = if std::env::var_os("PER_EVENT").is_some() { CommitMode::PerEvent } else { CommitMode::Grouped };
    let recorder = open(Path::new(&database), commit);
    for first in (0..).step_by(50) {
        let record = |number: u64| (number, recorder.record(Event::new("events.a", load::payload(number))));
        let receipts: Vec<_> = (first..first + 50).map(record).collect();
        for (number, receipt) in receipts {
            receipt.expect("taken").wait(PATIENCE).expect("committed");
            println!("committed {number}");
        }
    }
}

#[test]
fn what_was_reported_committed_survives_a_kill() {
    let mut chance = Chance::new();
    for commit in [CommitMode::PerEvent, CommitMode::Grouped] {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "direct::a_process_that_records_until_it_is_killed", "--ignored", "--nocapture"]);
        command.env("RECORD_UNTIL_KILLED", &database).stdout(Stdio::piped()).stderr(Stdio::null());
        if commit == CommitMode::PerEvent {
            command.env("PER_EVENT", "1");
        }
        let mut child = command.spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let until = 100 + chance.up_to(2_000);
        let mut reported = 0;
        let committed = |line: String| line.rsplit_once("committed ").and_then(|(_, n)| n.parse::<u64>().ok());
        while reported < until {
            let line = lines.next().expect("it goes on").expect("text");
            reported = committed(line).map_or(reported, |number| number + 1);
        }
        child.kill().expect("kills");
        child.wait().expect("ends");
        // What it had still said by then.
        reported = lines.map_while(Result::ok).filter_map(committed).map(|n| n + 1).max().unwrap_or(reported);
        let rows = oracle::payloads(&database);
        assert!(rows.len() as u64 >= reported, "{commit:?}: {reported} reported, {} rows", rows.len());
        assert!(rows.iter().eq((0..rows.len() as u64).map(load::payload).collect::<Vec<_>>().iter()), "{commit:?}");
        oracle::sound(&database);
    }
}
