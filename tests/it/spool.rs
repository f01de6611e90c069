//! Recording into a spool: nothing that was kept is lost, and nothing is in the database twice.

mod edges;
mod processes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use catchment::record::{Destination, FailureReason, Overflow, ReceiptKind, WaitError};
use catchment::{Error, Event, Recorder, SpooledRecorder, SpooledRecorderConfig};
use serde_json::{Value, json};

use crate::support::collector::{catchment, drain, output, printed, stderr};
use crate::support::load::payload;
use crate::support::server::{Server, free_port};
use crate::support::{eventually, oracle, with};

const LONG: Duration = Duration::from_secs(60);

/// A folder with a server that has not started, and a spool.
struct Fixture {
    folder: tempfile::TempDir,
    port: u16,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), port: free_port() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spool(&self) -> PathBuf {
        self.path("a.spool")
    }

    fn config(&self) -> SpooledRecorderConfig {
        with(SpooledRecorderConfig::new(self.spool()), |config| {
            config.broker.servers = vec![format!("nats://127.0.0.1:{}", self.port)];
            config.broker.timeout = Duration::from_secs(2);
            config.broker.silence = Duration::from_secs(2);
        })
    }

    fn open(&self) -> SpooledRecorder {
        SpooledRecorder::open(self.config()).expect("opens")
    }

    /// The server, with a stream that recognises repetitions for a moment only.
    fn serve(&self) -> Server {
        let server = Server::start_at(self.folder.path(), self.port);
        let window = u64::try_from(Duration::from_millis(100).as_nanos()).expect("short");
        server.make_stream_with("EVENTS", &["events.>"], &json!({ "duplicate_window": window }));
        server
    }

    /// The rows of a database that collects the whole stream.
    fn collected(&self, server: &Server) -> Vec<String> {
        let database = self.path("a.db");
        drain(&server.url(), &database);
        oracle::sound(&database);
        oracle::payloads(&database)
    }

    fn exported(&self, arguments: &[&str]) -> Vec<Value> {
        let text = printed(catchment().args(["spool", "export"]).arg(self.spool()).args(arguments));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn status(&self) -> Value {
        let line = printed(catchment().args(["spool", "status", "--json"]).arg(self.spool()));
        serde_json::from_str(&line).expect("JSON")
    }
}

fn record(recorder: &impl Recorder, numbers: std::ops::Range<u64>) {
    for number in numbers {
        recorder.record(Event::new("events.a", payload(number))).expect("taken");
    }
}

fn payloads(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(payload).collect()
}

#[test]
fn events_are_kept_without_a_broker_and_forwarded_by_a_later_start() {
    let fixture = Fixture::new();
    let recorder = fixture.open();
    let receipt = recorder.record(Event::new("events.a", payload(0)).id("first").header("A", "1")).expect("taken");
    assert!(receipt.wait_settled(LONG) && receipt.kind() == ReceiptKind::Spooled);
    record(&recorder, 1..500);
    recorder.flush(LONG).expect("on the disk");
    let status = recorder.status();
    assert_eq!((status.spooled, status.forwarded, status.dead_letters), (500, 0, 0));
    eventually("the oldest", || recorder.status().oldest_waiting);
    eventually("the trouble", || (!recorder.health().is_well()).then_some(()));
    let pending = receipt.wait_for_stream(Duration::ZERO).expect_err("is not in the stream");
    assert!(matches!(&pending, WaitError::Pending(_)) && pending.to_string().contains("127.0.0.1"), "{pending}");
    // It does not wait for a broker that is away.
    recorder.close(Duration::MAX).expect("all are kept");
    let WaitError::Pending(receipt) = pending else { panic!("is pending") };
    let ended = receipt.wait_for_stream(Duration::MAX).expect_err("is not in the stream").to_string();
    assert!(ended.contains("forwarded at the next start"), "{ended}");
    let late = recorder.record(Event::new("events.a", "late")).expect_err("is closed");
    assert_eq!(late.reason, FailureReason::Closed);
    drop(recorder);
    let exported = fixture.exported(&[]);
    assert_eq!((exported.len(), &exported[0]["headers"]), (500, &json!({ "Nats-Msg-Id": "first", "A": "1" })));

    let server = fixture.serve();
    let recorder = fixture.open();
    recorder.flush_to_stream(LONG).expect("all are in the stream");
    let receipt = recorder.record(Event::new("events.a", payload(500))).expect("taken");
    let metadata = receipt.wait_for_stream(LONG).expect("is in the stream");
    assert_eq!((metadata.sequence(), metadata.is_duplicate()), (Some(501), false));
    let kept = recorder.record(Event::new("events.a", payload(501))).expect("taken").wait(LONG).expect("is kept");
    assert_eq!(kept.destination, Destination::Spool);
    recorder.close(LONG).expect("all are in the stream");
    assert_eq!(recorder.status().forwarded, 502);
    let status = fixture.status();
    assert_eq!((&status["events"], &status["forwarded"], &status["holder"]), (&json!(0), &json!(502), &Value::Null));
    assert_eq!(fixture.collected(&server), payloads(0..502));
    let headers = oracle::texts(&fixture.path("a.db"), "SELECT headers FROM events WHERE headers IS NOT NULL");
    assert_eq!(headers, [r#"{"A":"1","Nats-Msg-Id":"first"}"#]);
}

#[test]
fn many_events_arrive_in_order_and_the_file_gives_its_space_back() {
    let fixture = Fixture::new();
    let recorder = fixture.open();
    record(&recorder, 0..60_000);
    recorder.flush(LONG).expect("on the disk");
    let full = std::fs::metadata(fixture.spool()).expect("is there").len() + wal(&fixture.spool());
    assert!(full > 6_500_000, "{full} bytes");
    let server = fixture.serve();
    recorder.flush_to_stream(LONG).expect("all are in the stream");
    assert_eq!(fixture.collected(&server), payloads(0..60_000));
    recorder.close(LONG).expect("closes");
    drop(recorder);
    let left = std::fs::metadata(fixture.spool()).expect("is there").len();
    assert!(left < 5_500_000, "{left} bytes");
}

fn wal(spool: &Path) -> u64 {
    std::fs::metadata(format!("{}-wal", spool.display())).map_or(0, |file| file.len())
}

#[test]
fn a_spool_has_one_user_at_a_time() {
    let fixture = Fixture::new();
    let recorder = fixture.open();
    let refused = SpooledRecorder::open(fixture.config()).expect_err("is in use");
    assert!(matches!(&refused, Error::Locked { is_own: true, .. }), "{refused}");
    record(&recorder, 0..3);
    recorder.flush(LONG).expect("on the disk");
    let refused = output(catchment().args(["spool", "drain"]).arg(fixture.spool()));
    let said = stderr(&refused);
    assert!(
        said.contains(&format!(
            "process {} uses it already; stop that one, or give this one another file",
            std::process::id()
        )),
        "{said}"
    );
    assert!(!refused.status.success() && said.contains("a.spool"), "{said}");
    // Looking is allowed.
    let status = fixture.status();
    assert_eq!((&status["events"], status["holder"].is_string()), (&json!(3), true));
    assert_eq!(fixture.exported(&[]).len(), 3);
}

#[test]
fn a_full_spool_blocks_refuses_or_drops_its_oldest_events() {
    let fixture = Fixture::new();
    let config = |overflow| {
        with(fixture.config(), |config| {
            config.max_events = 100;
            config.overflow = overflow;
        })
    };
    let recorder = SpooledRecorder::open(config(Overflow::Refuse)).expect("opens");
    record(&recorder, 0..100);
    let refused = recorder.record(Event::new("events.a", "x")).expect_err("is full");
    assert!(matches!(refused.reason, FailureReason::SpoolFull { events: 100, .. }), "{refused}");
    let parts: Vec<_> = recorder.health().troubles.iter().map(|trouble| trouble.part).collect();
    assert!(parts.contains(&"spool"), "{parts:?}");
    recorder.close(LONG).expect("all are kept");
    drop(recorder);

    let recorder = SpooledRecorder::open(config(Overflow::DropOldest)).expect("opens");
    let first = recorder.record(Event::new("events.a", payload(100))).expect("taken");
    record(&recorder, 101..250);
    recorder.flush(LONG).expect("on the disk");
    let status = recorder.status();
    assert_eq!((status.spooled, status.dropped), (100, 150));
    let dropped = first.wait_for_stream(LONG).expect_err("is dropped");
    assert!(matches!(&dropped, WaitError::Failed(error) if error.reason == FailureReason::Dropped), "{dropped}");
    recorder.close(LONG).expect("all are kept");
    drop(recorder);
    let left: Vec<String> =
        fixture.exported(&[]).iter().map(|line| line["payload"].as_str().expect("text").into()).collect();
    assert_eq!(left, payloads(150..250));

    let recorder = SpooledRecorder::open(config(Overflow::Block(LONG))).expect("opens");
    let server = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| record(&recorder, 250..300));
        eventually("the spool to be full", || (!recorder.health().is_well()).then_some(()));
        let server = fixture.serve();
        waiting.join().expect("all are taken");
        server
    });
    recorder.flush_to_stream(LONG).expect("all are in the stream");
    assert_eq!(fixture.collected(&server), payloads(150..300));
    eventually("its health", || recorder.health().is_well().then_some(()));
}

#[test]
fn a_poisonous_event_becomes_a_dead_letter_and_the_rest_goes_on() {
    let fixture = Fixture::new();
    let text = "jetstream { }\nmax_payload: 4096\nlisten: 127.0.0.1:PORT\n";
    std::fs::write(fixture.path("server.conf"), text.replace("PORT", &fixture.port.to_string())).expect("writes");
    let config = with(fixture.config(), |config| config.give_up_after = Duration::from_millis(300));
    let recorder = SpooledRecorder::open(config).expect("opens");
    record(&recorder, 0..10);
    let large = recorder.record(Event::new("events.a", vec![b'x'; 5_000])).expect("taken");
    recorder.record(Event::new("nobody.takes.it", "poison")).expect("taken");
    let other = Event::new("events.a", "other").header("Nats-Expected-Stream", "OTHER");
    recorder.record(other).expect("taken");
    record(&recorder, 10..20);
    let server = Server::start_at_with(
        fixture.folder.path(),
        fixture.port,
        &["--config", fixture.path("server.conf").to_str().expect("UTF-8")],
    );
    // Without a stream that takes anything, all wait.
    eventually("the trouble", || {
        recorder.health().troubles.iter().any(|trouble| trouble.reason.contains("no stream takes")).then_some(())
    });
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!((recorder.status().dead_letters, recorder.status().spooled), (1, 22), "only the large one");
    server.make_stream("EVENTS", &["events.>"]);
    // The others show that only these are refused.
    eventually("dead letters", || {
        recorder.record(Event::new("events.b", "more")).expect("taken");
        (recorder.status().dead_letters == 3).then_some(())
    });
    let error = large.wait_for_stream(LONG).expect_err("is too large").to_string();
    assert!(error.contains("the server accepts 4096"), "{error}");
    recorder.flush_to_stream(LONG).expect("the rest is in the stream");
    recorder.close(LONG).expect("closes");
    drop(recorder);
    let rows = fixture.collected(&server);
    assert_eq!(rows[..20], payloads(0..20));
    assert!(rows[20..].iter().all(|row| row == "more"));
    let mut letters: Vec<(String, String)> = fixture
        .exported(&["--dead-letters"])
        .iter()
        .map(|letter| {
            (letter["subject"].as_str().expect("text").into(), letter["error"].as_str().expect("text").into())
        })
        .collect();
    letters.sort();
    assert!(letters[0].1.contains("4096") && letters[1].1.contains("expected stream"), "{letters:?}");
    assert!(letters[2].0 == "nobody.takes.it" && letters[2].1.contains("no stream takes"), "{letters:?}");
    // With a stream that takes it, it goes on its way.
    server.make_stream("OTHER", &["nobody.>"]);
    let put_back = printed(catchment().args(["spool", "retry"]).arg(fixture.spool()));
    assert_eq!(put_back, "3 dead letters put back\n");
    let recorder = SpooledRecorder::open(fixture.config()).expect("opens");
    eventually("the event", || (server.messages("OTHER") == 1).then_some(()));
    drop(recorder);
}

#[test]
fn a_spool_that_was_copied_while_in_use_doubles_nothing() {
    let fixture = Fixture::new();
    let recorder = fixture.open();
    record(&recorder, 0..300);
    recorder.flush(LONG).expect("on the disk");
    let copy = Fixture::new();
    for ending in ["", "-wal"] {
        let name = |fixture: &Fixture| format!("{}{ending}", fixture.spool().display());
        std::fs::copy(name(&fixture), name(&copy)).expect("copies");
    }
    record(&recorder, 300..400);
    let server = fixture.serve();
    let copied = SpooledRecorder::open(with(fixture.config(), |config| config.path = copy.spool())).expect("opens");
    record(&copied, 400..500);
    for recorder in [&recorder, &copied] {
        recorder.flush_to_stream(LONG).expect("all are in the stream");
    }
    let mut rows = fixture.collected(&server);
    rows.sort();
    assert_eq!(rows, with(payloads(0..500), |all| all.sort()));
}

/// Damages a spool with 3,000 events in its middle. Returns its content.
fn damaged(fixture: &Fixture) -> Vec<u8> {
    let recorder = fixture.open();
    record(&recorder, 0..3_000);
    recorder.close(LONG).expect("all are kept");
    drop(recorder);
    let mut content = std::fs::read(fixture.spool()).expect("reads");
    let middle = content.len() / 2 / 4_096 * 4_096;
    content[middle..middle + 4_096].fill(0x5a);
    std::fs::write(fixture.spool(), &content).expect("writes");
    content
}

#[test]
fn a_damaged_spool_is_moved_aside_and_recording_goes_on() {
    let fixture = Fixture::new();
    let content = damaged(&fixture);
    let server = fixture.serve();
    let recorder = fixture.open();
    record(&recorder, 3_000..3_010);
    recorder.flush_to_stream(LONG).expect("all are in the stream");
    assert_eq!(fixture.collected(&server), payloads(3_000..3_010));
    let names = std::fs::read_dir(fixture.folder.path()).expect("reads");
    let aside =
        names.map(|entry| entry.expect("reads").path()).find(|path| path.to_string_lossy().contains(".damaged-"));
    let aside = aside.expect("is kept");
    assert_eq!(std::fs::read(&aside).expect("reads"), content, "whole");
    let exported = output(catchment().args(["spool", "export"]).arg(&aside));
    let lines = String::from_utf8(exported.stdout.clone()).expect("text").lines().count();
    assert!(lines > 2_000 && lines < 3_000, "{lines} lines");
    assert!(!exported.status.success() && stderr(&exported).contains("could be read"), "{}", stderr(&exported));
}

#[test]
fn a_damaged_spool_is_no_success_of_drain_and_retry() {
    for action in ["drain", "retry"] {
        let fixture = Fixture::new();
        damaged(&fixture);
        let server = fixture.serve();
        let mut command = catchment();
        command.args(["spool", action]).arg(fixture.spool());
        if action == "drain" {
            command.args(["--server", &server.url()]);
        }
        let ended = output(&mut command);
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(1), "{action}: {said}");
        assert!(said.contains("the spool is damaged: its events are in") && said.contains(".damaged-"), "{said}");
    }
}
