//! Which answers a recorder and `catchment publish` accept as a stream's acknowledgement, and how long they send an event again.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use catchment::record::{FailureReason, Identity, WaitError};
use catchment::{Event, Receipt, Recorder};
use serde_json::{Value, json};

use crate::support::collector::{catchment, output, stderr};
use crate::support::eventually;
use crate::support::health::quick;
use crate::support::load;
use crate::support::proxy::Proxy;
use crate::support::server::{Server, needs};

const LONG: Duration = Duration::from_secs(20);

fn publish(url: &str, arguments: &[&str]) -> Command {
    let mut command = catchment();
    command.args(["publish", "--server", url, "--timeout", "1s"]).args(arguments);
    command
}

/// Another program that answers every event on `events.>` with this; counts its answers.
struct Service {
    _client: nats::Connection,
    answers: Arc<AtomicU64>,
}

impl Service {
    fn start(server: &Server, answer: &'static str) -> Self {
        let client = server.client();
        let answers = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&answers);
        let _handler = client.subscribe("events.>").expect("subscribes").with_handler(move |message| {
            counter.fetch_add(u64::from(message.respond(answer).is_ok()), Ordering::Relaxed);
            Ok(())
        });
        client.flush().expect("the server knows of it");
        Self { _client: client, answers }
    }
}

/// As it may be answered by somebody who knows nothing of streams, or plays one.
const ANSWERS: [&str; 4] = [r#"{"status":"ok"}"#, "", r#"{"error":"busy"}"#, r#"{"stream":"X","seq":7}"#];

#[test]
fn only_the_streams_own_answer_is_an_acknowledgement() {
    for answer in ANSWERS {
        let (_folder, server) = Server::in_new_folder();
        server.make_stream("EVENTS", &["events.>"]);
        let service = Service::start(&server, answer);
        let done = output(&mut publish(&server.url(), &["events.a", "--count", "300", "--rate", "2000", "--json"]));
        assert!(done.status.success(), "{answer}: {}", stderr(&done));
        let said: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert_eq!((&said["published"], &said["unknown"]), (&300.into(), &0.into()), "{answer}");
        assert_eq!((&said["stream"], &said["last_sequence"]), (&"EVENTS".into(), &300.into()), "{answer}");
        assert_eq!(server.last_sequence("EVENTS"), 300, "{answer}");
        assert!(service.answers.load(Ordering::Relaxed) > 0, "it did answer");
    }
}

#[test]
fn what_only_another_service_answers_is_called_unknown() {
    let (_folder, server) = Server::in_new_folder();
    let _service = Service::start(&server, ANSWERS[0]);
    let done = output(&mut publish(&server.url(), &["events.a", "--count", "20"]));
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("of 20 events 20 may be in the stream (sent"), "{said}");
    assert!(said.contains("is not a stream answers"), "the cause: {said}");
}

#[test]
fn events_that_no_stream_takes_are_all_counted() {
    let (_folder, server) = Server::in_new_folder();
    let done = output(&mut publish(&server.url(), &["events.a", "--count", "12000", "--json"]));
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("of 12,000 events 12,000 are not in the stream"), "{said}");
    let line: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!((&line["published"], &line["not_stored"], &line["unknown"]), (&0.into(), &12_000.into(), &0.into()));
}

#[test]
fn events_without_an_answer_are_called_unknown() {
    let (_folder, server) = Server::in_new_folder();
    server.make_stream("EVENTS", &["events.>"]);
    let proxy = Proxy::start(server.port());
    proxy.drop_publish_acknowledgements();
    let done = output(&mut publish(&proxy.url(), &["events.a", "--count", "300"]));
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("of 300 events 300 may be in the stream (sent"), "{said}");
    assert_eq!(server.last_sequence("EVENTS"), 300, "they are");
}

#[test]
fn a_user_who_may_not_ask_for_the_stream_still_publishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let user = "authorization: { users: [{ user: a, password: a, permissions: { publish: [\"events.>\", \"$JS.API.STREAM.CREATE.*\"] } }] }";
    let server = Server::configured(folder.path(), &format!("jetstream: enabled\n{user}\n"));
    let client = nats::Options::with_user_pass("a", "a").connect(server.url()).expect("connects");
    let body = json!({ "name": "EVENTS", "subjects": ["events.>"] }).to_string();
    client.request_timeout("$JS.API.STREAM.CREATE.EVENTS", body, LONG).expect("made");
    let mut command = publish(&server.url(), &["events.a", "--count", "100", "--user", "a", "--password", "a"]);
    let began = std::time::Instant::now();
    let done = output(&mut command);
    let said = stderr(&done);
    assert!(done.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&done.stdout).contains("the last as 100 of stream EVENTS"), "{done:?}");
    assert!(!said.contains("Permissions Violation"), "that is no trouble: {said}");
    assert!(began.elapsed() < Duration::from_secs(5), "nothing waits for an answer that does not come");
}

/// Makes the stream, or edits it, with this duplicate window.
fn set_window(server: &Server, what: &str, window: Duration) {
    let window = u64::try_from(window.as_nanos()).expect("short");
    let body = json!({ "name": "EVENTS", "subjects": ["events.>"], "duplicate_window": window });
    let answer = server.ask(&format!("$JS.API.STREAM.{what}.EVENTS"), &body);
    assert!(answer["error"].is_null(), "{answer}");
}

const EVENTS: u64 = 50;

/// Records events whose acknowledgements get lost, has the connection lost too, and returns their receipts.
fn lose_acknowledgements(server: &Server, proxy: &Proxy, recorder: &impl Recorder) -> Vec<Receipt> {
    let before = server.last_sequence("EVENTS");
    proxy.drop_publish_acknowledgements();
    let event = |number| {
        let event = Event::new("events.a", load::payload(number));
        // Whose identity is the application's, and whose is made up.
        if number % 2 == 0 { event } else { event.id(format!("id-{number}")) }
    };
    let receipts = (0..EVENTS).map(|number| recorder.record(event(number)).expect("taken")).collect();
    eventually("all to be stored", || (server.last_sequence("EVENTS") == before + EVENTS).then_some(()));
    let lost = proxy.connections();
    eventually("another connection", || (proxy.connections() > lost).then_some(()));
    receipts
}

/// What the stream no longer recognises is found in it.
fn are_found(receipts: Vec<Receipt>, first: u64) {
    for (receipt, sequence) in receipts.into_iter().zip(first..) {
        assert_eq!(receipt.wait(LONG).expect("found").sequence(), Some(sequence));
    }
}

/// The next event is the stream's next message: nothing is there twice.
fn comes_next(recorder: &impl Recorder, sequence: u64) {
    let next = recorder.record(Event::new("events.a", "next")).expect("taken").wait(LONG).expect("stored");
    assert_eq!(next.sequence(), Some(sequence), "nothing is there twice");
}

#[test]
fn nothing_is_sent_again_beyond_the_streams_own_window() {
    let (_folder, server) = Server::in_new_folder();
    set_window(&server, "CREATE", Duration::from_millis(500));
    let proxy = Proxy::start(server.port());
    let recorder = load::patient_with(quick(proxy.url()), Identity::Stream);
    let receipts = lose_acknowledgements(&server, &proxy, &recorder);
    proxy.heal();
    are_found(receipts, 1);
    comes_next(&recorder, EVENTS + 1);
}

#[test]
fn a_window_that_is_edited_while_a_recorder_runs_counts() {
    let (_folder, server) = Server::in_new_folder();
    set_window(&server, "CREATE", Duration::from_secs(120));
    let proxy = Proxy::start(server.port());
    let recorder = load::patient_with(quick(proxy.url()), Identity::Stream);
    comes_next(&recorder, 1);
    set_window(&server, "UPDATE", Duration::from_millis(500));
    let receipts = lose_acknowledgements(&server, &proxy, &recorder);
    proxy.heal();
    are_found(receipts, 2);
    comes_next(&recorder, EVENTS + 2);
}

#[test]
fn what_cannot_be_looked_for_beyond_the_window_is_unconfirmed() {
    let (_folder, server) = Server::in_new_folder();
    set_window(&server, "CREATE", Duration::from_millis(500));
    let proxy = Proxy::start(server.port());
    let recorder = load::patient_with(quick(proxy.url()), Identity::Stream);
    proxy.drop_published("$JS.API.STREAM.MSG.GET.");
    let receipts = lose_acknowledgements(&server, &proxy, &recorder);
    for receipt in receipts {
        match receipt.wait(LONG) {
            Err(WaitError::Failed(error)) => {
                let beyond = |window| window <= Duration::from_millis(500);
                assert!(matches!(error.reason, FailureReason::Unconfirmed(window) if beyond(window)), "{error}");
            }
            other => panic!("nobody can tell: {other:?}"),
        }
    }
    proxy.heal();
    comes_next(&recorder, EVENTS + 1);
}

#[test]
fn publish_says_what_a_stream_does_not_keep_its_word_for() {
    let (_folder, server) = Server::in_new_folder();
    set_window(&server, "CREATE", Duration::from_secs(2));
    let done = output(&mut publish(&server.url(), &["events.a", "x"]));
    assert!(stderr(&done).contains("stream EVENTS detects repeated events for only 2s"), "{}", stderr(&done));
    if needs((2, 12), "persist_mode") {
        let body = json!({ "name": "FAST", "subjects": ["fast.>"], "persist_mode": "async" });
        assert!(server.ask("$JS.API.STREAM.CREATE.FAST", &body)["error"].is_null());
        let done = output(&mut publish(&server.url(), &["fast.a", "x"]));
        assert!(stderr(&done).contains("stream FAST has persist_mode async"), "{}", stderr(&done));
    }
}
