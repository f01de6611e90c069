//! A collector and recorders inside a program: waiting for events, shared handles, failures.

use std::sync::Arc;
use std::time::Duration;

use catchment::config::{Mode, RouteConfig, Unmatched};
use catchment::record::{CommitMode, Destination, FailureReason, FlushError, NatsRecorderConfig, WaitError};
use catchment::rusqlite::Connection;
use catchment::testing::MemoryRecorder;
use catchment::{
    Collector, Config, DirectRecorder, DirectRecorderConfig, Error, Event, NatsRecorder, Receipt, Recorder,
};

// The examples are compiled here too, so that tests run them.
#[allow(dead_code, reason = "its main")]
#[path = "../../examples/bot.rs"]
mod bot_example;
#[allow(dead_code, reason = "its main")]
#[path = "../../examples/collector.rs"]
mod collector_example;

use crate::support::server::Server;
use crate::support::{eventually, oracle};

#[test]
fn the_example_of_a_collector_reads_what_it_has_recorded() {
    let (folder, server) = Server::in_new_folder();
    let mut config = Config::default();
    config.broker = server.config();
    config.database.path = folder.path().join("a.db");
    for _ in 0..2 {
        assert_eq!(collector_example::run(&config).expect("it works"), r#"{"open": true}"#);
    }
    assert_eq!(oracle::count(&config.database.path), 2);
}

#[test]
fn the_example_of_a_bot_records_each_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let recorder = DirectRecorder::create(&database).expect("opens");
    bot_example::record_lines(&recorder, &b"one\ntwo\n"[..]).expect("both are committed");
    let expected = [r#"{"from":"stdin","text":"one"}"#, r#"{"from":"stdin","text":"two"}"#];
    assert_eq!(oracle::payloads(&database), expected);
    let failing = MemoryRecorder::new();
    failing.fail_with(FailureReason::NoStream);
    bot_example::record_lines(&failing, &b"one\n"[..]).expect("a refused line is reported, and the bot goes on");
    assert_eq!(failing.events(), []);
}

/// A collector and a recorder of one program, on a server of its own.
struct Program {
    folder: tempfile::TempDir,
    server: Server,
    config: Config,
    collector: Arc<Collector>,
    recorder: Arc<dyn Recorder>,
}

fn program(change: impl FnOnce(&mut Config)) -> Program {
    let (folder, server) = Server::in_new_folder();
    let mut config = Config::default();
    config.broker = server.config();
    config.database.path = folder.path().join("a.db");
    change(&mut config);
    let collector = Arc::new(Collector::start(&config).expect("starts"));
    let recorder = NatsRecorder::open(NatsRecorderConfig::new(server.config())).expect("connects");
    let recorder = Arc::new(recorder);
    Program { folder, server, config, collector, recorder }
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Program {
    /// Records an event; its sequence in the stream.
    fn record(&self, subject: &str, payload: &str) -> u64 {
        let receipt = self.recorder.record(Event::new(subject, payload)).expect("takes it");
        receipt.wait(PATIENCE).expect("stored").sequence().expect("in a stream")
    }
}

#[test]
fn an_event_that_was_waited_for_is_in_the_database() {
    let program = program(|_| {});
    for number in 1..=20 {
        let sequence = program.record("events.test", &number.to_string());
        assert!(program.collector.wait_for(sequence, PATIENCE).expect("no failure"));
        assert_eq!(oracle::count(&program.config.database.path), number);
    }
    assert!(program.collector.wait_for(1, Duration::ZERO).expect("no failure"), "an older one is committed too");
    assert!(!program.collector.wait_for(21, Duration::from_millis(50)).expect("no failure"), "there is no such event");
    // A collector that is started again knows what the database has.
    program.collector.stop(PATIENCE).expect("stops");
    let again = Collector::start(&program.config).expect("starts again, the lock is released");
    assert!(again.wait_for(20, Duration::ZERO).expect("no failure"));
    assert!(!again.wait_for(21, Duration::ZERO).expect("no failure"));
    // Its threads end while another thread waits.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| again.wait_for(21, Duration::from_secs(300)));
        again.stop(PATIENCE).expect("stops");
        assert!(!waiting.join().expect("no panic").expect("no failure"));
    });
}

#[test]
fn an_event_that_is_not_collected_can_be_waited_for_too() {
    let (folder, server) = Server::in_new_folder();
    server.make_stream("EVENTS", &["events.>"]);
    let mut config = Config::default();
    config.broker = server.config();
    config.broker.subjects = vec!["events.mine.>".into()];
    config.broker.silence = Duration::from_secs(1);
    config.database.path = folder.path().join("a.db");
    let publish = |subject: &str, count: usize| {
        server.raw().publish_all(subject, &(0..count).map(|n| n.to_string()).collect::<Vec<_>>());
    };
    publish("events.other", 3);
    let collector = Collector::start(&config).expect("starts");
    assert!(collector.wait_for(3, PATIENCE).expect("no failure"), "before the start");
    publish("events.other", 2);
    assert!(collector.wait_for(5, PATIENCE).expect("no failure"), "the last ones of the stream");
    publish("events.other", 2);
    publish("events.mine.a", 1);
    assert!(collector.wait_for(8, PATIENCE).expect("no failure"));
    assert!(collector.wait_for(7, Duration::ZERO).expect("no failure"), "before one that is committed");
    assert_eq!(oracle::count(&config.database.path), 1);
    assert!(!collector.wait_for(9, Duration::ZERO).expect("no failure"));
    collector.stop(PATIENCE).expect("stops");
}

#[test]
fn a_collector_that_fails_says_so_to_everybody_who_waits() {
    let program = program(|config| {
        config.routes = vec![RouteConfig::new("events.>", ["INSERT INTO t VALUES (:payload)"])];
        let path = &config.database.path;
        Connection::open(path).expect("opens").execute_batch("CREATE TABLE t(x)").expect("SQL");
    });
    let sequence = program.record("events.test", "1");
    assert!(program.collector.wait_for(sequence, PATIENCE).expect("no failure"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| program.collector.wait_for(sequence + 1, Duration::from_secs(300)));
        let watching = scope.spawn(|| program.collector.wait(Duration::from_secs(300)));
        let path = &program.config.database.path;
        std::fs::rename(path, program.folder.path().join("b.db")).expect("moves");
        program.record("events.test", "2");
        let failures = [
            waiting.join().expect("no panic").map(drop),
            watching.join().expect("no panic").map(drop),
            program.collector.stop(PATIENCE).map(drop),
            program.collector.wait_for(sequence + 1, PATIENCE).map(drop),
        ];
        for failure in failures {
            let error = failure.expect_err("it has failed").to_string();
            assert!(error.contains("was moved, removed or replaced"), "{error}");
        }
    });
}

#[test]
fn without_a_stream_no_event_can_be_waited_for() {
    let (folder, server) = Server::in_new_folder();
    let mut config = Config::default();
    config.broker = server.config();
    config.broker.mode = Mode::Core;
    config.database.path = folder.path().join("a.db");
    let collector = Collector::start(&config).expect("starts");
    let refused = collector.wait_for(1, Duration::ZERO).expect_err("there are no sequences").to_string();
    assert!(refused.starts_with("configuration: broker.mode: is core: events have no sequence"), "{refused}");
}

#[test]
fn any_thread_stops_and_closes_what_is_shared() {
    let program = program(|_| {});
    let (collector, recorder) = (program.collector.clone(), program.recorder.clone());
    let sequence = program.record("events.test", "1");
    assert!(program.collector.wait_for(sequence, PATIENCE).expect("no failure"));
    let stopping = std::thread::spawn(move || {
        recorder.close(PATIENCE).expect("all is in the stream");
        collector.stop(PATIENCE).expect("stops")
    });
    assert!(program.collector.wait(PATIENCE).expect("no failure"), "the other thread stops it");
    let status = stopping.join().expect("no panic");
    let refused = program.recorder.record(Event::new("events.test", "2")).expect_err("closed");
    assert_eq!(
        refused.to_string(),
        "event on events.test not recorded: the recorder was closed before the event was sent or committed"
    );
    program.recorder.close(PATIENCE).expect("closing twice does nothing");
    let again = program.collector.stop(PATIENCE).expect("stopping twice returns the status");
    assert_eq!((status.committed, again.committed), (1, 1));
    assert!(program.server.is_running());
}

fn direct(database: &std::path::Path, commit: CommitMode) -> Arc<DirectRecorder> {
    let mut config = DirectRecorderConfig::new(database);
    config.commit = commit;
    Arc::new(DirectRecorder::open(config).expect("opens"))
}

#[test]
fn a_closed_direct_recorder_refuses_events_and_lets_go_of_the_database() {
    for commit in [CommitMode::PerEvent, CommitMode::Grouped] {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        let recorder = direct(&database, commit);
        let receipt = recorder.record(Event::new("events.a", "1")).expect("taken");
        let shared = Arc::clone(&recorder);
        std::thread::spawn(move || shared.close(PATIENCE)).join().expect("no panic").expect("all is committed");
        assert_eq!(receipt.wait(Duration::ZERO).expect("committed").destination, Destination::Database);
        let refused = recorder.record(Event::new("events.a", "2")).expect_err("closed");
        assert_eq!(refused.reason, FailureReason::Closed, "{commit:?}");
        recorder.close(PATIENCE).expect("closing twice does nothing");
        recorder.flush(PATIENCE).expect("nothing is left");
        let wal = database.with_extension("db-wal");
        assert!(!wal.exists(), "{commit:?}: the last connection is closed");
        let second = direct(&database, CommitMode::Grouped);
        second.record(Event::new("events.a", "3")).expect("taken");
        drop((second, recorder));
        assert_eq!(oracle::payloads(&database), ["1", "3"]);
    }
}

/// Waits for a receipt again and again, until the message of the error has this text.
#[track_caller]
fn is_pending_because(mut receipt: Receipt, text: &str) {
    eventually(text, || match std::mem::replace(&mut receipt, settled()).wait(Duration::from_millis(50)) {
        Err(pending) if pending.to_string() == text => Some(()),
        Err(WaitError::Pending(again)) => {
            receipt = again;
            None
        }
        other => panic!("{other:?}"),
    });
}

/// A receipt that stands in while another one is waited for.
fn settled() -> Receipt {
    MemoryRecorder::new().record(Event::new("a", "")).expect("kept")
}

#[test]
fn a_receipt_that_is_waited_for_in_vain_says_what_is_wrong() {
    let program = program(|_| {});
    program.record("events.test", "1");
    let receipt = program.recorder.record(Event::new("other.test", "2")).expect("taken");
    is_pending_because(receipt, "event on other.test not confirmed yet: no stream takes other.test at the moment");

    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let recorder = direct(&database, CommitMode::Grouped);
    let lock = oracle::lock(&database);
    let receipt = recorder.record(Event::new("events.a", "1")).expect("taken");
    let locked = "database is locked; another process holds its write lock; end that process's transaction";
    is_pending_because(receipt, &format!("event on events.a not confirmed yet: {locked}"));
    drop(lock);
}

#[test]
fn a_commit_that_outlasts_the_close_keeps_the_lock_and_then_releases_it() {
    // Until the commit has begun when the recorder is closed.
    while !a_close_met_a_commit() {}
}

/// Closes a recorder while another program has the database locked. Returns whether the commit had begun.
fn a_close_met_a_commit() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut config = DirectRecorderConfig::new(&database);
    config.database.busy_timeout = Duration::from_secs(300);
    let recorder = DirectRecorder::open(config.clone()).expect("opens");
    let lock = oracle::lock(&database);
    let receipt = recorder.record(Event::new("events.a", "1")).expect("taken");
    recorder.close(Duration::from_millis(10)).expect_err("it is locked");
    let Err(WaitError::Failed(failed)) = receipt.wait(Duration::ZERO) else { panic!("it was given back") };
    let has_begun = failed.reason.may_be_stored();
    if has_begun {
        let said = failed.to_string();
        let words = ["event on events.a not recorded: not confirmed within", "it may be stored or not"];
        assert!(words.iter().all(|words| said.contains(words)), "{said}");
        let refused = DirectRecorder::open(config.clone()).expect_err("the commit has not ended");
        assert!(matches!(refused, Error::Locked { is_own: true, .. }), "{refused}");
    } else {
        assert_eq!(failed.reason, FailureReason::Closed);
    }
    drop(lock);
    let second = eventually("the commit to end", || DirectRecorder::open(config.clone()).ok());
    second.record(Event::new("events.a", "2")).expect("taken");
    second.close(PATIENCE).expect("committed");
    let expected = if has_begun { &["1", "2"][..] } else { &["2"] };
    assert_eq!(oracle::payloads(&database), expected, "a commit that had begun was completed, once; no other was made");
    has_begun
}

#[test]
fn a_close_waits_for_calls_of_other_threads() {
    // Until the other thread is inside its call when this one closes.
    while !a_close_met_a_call() {}
}

/// Closes a recorder while another thread records. Returns whether the call of that thread was under way.
fn a_close_met_a_call() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let mut config = DirectRecorderConfig::new(&database);
    config.commit = CommitMode::PerEvent;
    config.database.busy_timeout = Duration::from_secs(60);
    let recorder = DirectRecorder::open(config).expect("opens");
    let lock = oracle::lock(&database);
    std::thread::scope(|scope| {
        let recording = scope.spawn(|| recorder.record(Event::new("events.a", "1")));
        let late = recorder.close(Duration::from_millis(100));
        let refused = recorder.record(Event::new("events.a", "2")).expect_err("closed");
        assert_eq!(refused.reason, FailureReason::Closed);
        drop(lock);
        let result = recording.join().expect("no panic");
        let Err(late) = late else {
            assert_eq!(result.expect_err("closed").reason, FailureReason::Closed);
            return false;
        };
        assert!(matches!(late, FlushError::Deadline { waiting: 1, .. }), "{late}");
        result.expect("committed");
        recorder.close(PATIENCE).expect("nothing is under way");
        assert_eq!(oracle::payloads(&database), ["1"]);
        true
    })
}

#[test]
fn the_receipt_of_a_dropped_event_says_so() {
    for commit in [CommitMode::PerEvent, CommitMode::Grouped] {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        Connection::open(&database).expect("opens").execute_batch("CREATE TABLE t(x)").expect("SQL");
        let mut config = DirectRecorderConfig::new(&database);
        config.commit = commit;
        config.routes = vec![RouteConfig::new("kept.>", ["INSERT INTO t VALUES (:payload)"])];
        config.unmatched = Unmatched::Drop;
        let recorder = DirectRecorder::open(config).expect("opens");
        let destination = |subject: &str| {
            let receipt = recorder.record(Event::new(subject, "1")).expect("taken");
            receipt.wait(PATIENCE).expect("committed").destination
        };
        assert_eq!([destination("kept.a"), destination("other")], [Destination::Database, Destination::Dropped]);
        assert_eq!(recorder.unmatched_dropped(), 1);
    }
}
