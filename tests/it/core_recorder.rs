//! A recorder without a stream: what it says the server has read the server has read, what is uncertain comes back, and
//! nothing is sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use catchment::config::{BrokerConfig, Mode};
use catchment::record::{Destination, FailureReason, FlushError, ReceiptKind, WaitError};
use catchment::{Collector, Config, Event, NatsRecorder, Receipt, Recorder};
use parking_lot::Mutex;

use crate::support::authority::Authority;
use crate::support::chance::Chance;
use crate::support::collector::{catchment, output, stderr};
use crate::support::health::{noticed, quick, well};
use crate::support::load::{patient, payload};
use crate::support::proxy::{Proxy, Way};
use crate::support::scripted::Scripted;
use crate::support::server::Server;
use crate::support::{eventually, oracle, with};

const LONG: Duration = Duration::from_secs(20);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn core(broker: BrokerConfig) -> BrokerConfig {
    with(broker, |config| config.mode = Mode::Core)
}

/// Hears all events, on a connection of its own.
struct Listener {
    client: nats::Connection,
    subscription: nats::Subscription,
}

impl Listener {
    fn of(server: &Server) -> Self {
        let client = server.client();
        let subscription = client.subscribe("events.>").expect("subscribes");
        client.flush().expect("the server knows");
        Self { client, subscription }
    }

    /// What the server had read when this was called.
    fn heard(&self) -> Vec<nats::Message> {
        self.client.flush().expect("the server has sent it all");
        self.subscription.try_iter().collect()
    }

    fn payloads(&self) -> Vec<String> {
        self.heard().into_iter().map(|message| String::from_utf8(message.data).expect("text")).collect()
    }
}

fn record(recorder: &NatsRecorder, numbers: std::ops::Range<u64>) -> Vec<(String, Receipt)> {
    let hand_over = |number| {
        let receipt = recorder.record(Event::new("events.load", payload(number))).expect("takes it");
        (payload(number), receipt)
    };
    numbers.map(hand_over).collect()
}

fn number(payload: &str) -> u64 {
    let event: serde_json::Value = serde_json::from_str(payload).expect("JSON");
    event["n"].as_u64().expect("a number")
}

/// What became of events: those that the server has read, and those of which nobody knows.
#[derive(Default)]
struct Told {
    read: Vec<String>,
    uncertain: Vec<String>,
}

impl Told {
    fn of(receipts: Vec<(String, Receipt)>) -> Self {
        let mut told = Self::default();
        for (payload, receipt) in receipts {
            match receipt.wait(LONG) {
                Ok(recorded) => {
                    assert_eq!(recorded.destination, Destination::Broker);
                    told.read.push(payload);
                }
                Err(WaitError::Failed(error)) => {
                    assert!(matches!(error.reason, FailureReason::Unconfirmed(_)), "{error}");
                    assert_eq!(error.event.payload(), payload.as_bytes(), "given back as it was");
                    told.uncertain.push(payload);
                }
                Err(pending) => panic!("{pending}"),
            }
        }
        told
    }

    /// What arrived is all that was read and some of what is uncertain, in order, each once.
    fn is_true_of(&self, arrived: &[String]) {
        let in_order = arrived.windows(2).all(|pair| number(&pair[0]) < number(&pair[1]));
        assert!(in_order, "each once, in order");
        self.is_true_in_any_order_of(arrived);
    }

    fn is_true_in_any_order_of(&self, arrived: &[String]) {
        let count = arrived.len();
        let arrived: std::collections::HashSet<&String> = arrived.iter().collect();
        assert_eq!(arrived.len(), count, "each once");
        let missing = self.read.iter().find(|payload| !arrived.contains(payload));
        assert_eq!(missing, None, "read and not there");
        let known: std::collections::HashSet<&String> = self.read.iter().chain(&self.uncertain).collect();
        assert_eq!(arrived.iter().find(|payload| !known.contains(**payload)), None, "nobody sent it");
    }
}

#[test]
fn what_was_flushed_has_been_read_by_the_server_in_order() {
    let folder = folder();
    let server = Server::start_with(folder.path(), &[]);
    let listener = Listener::of(&server);
    let recorder = patient(core(server.config()));
    let mut all = Vec::new();
    for (from, to) in [(0, 1), (1, 3), (3, 20_000)] {
        let receipts = record(&recorder, from..to);
        recorder.flush(LONG).expect("the server is there");
        let arrived = listener.payloads();
        assert_eq!(arrived.len() as u64, to - from, "all of it is there when the flush is over");
        assert!(receipts.iter().all(|(_, receipt)| receipt.is_settled()));
        assert!(receipts.iter().all(|(_, receipt)| receipt.kind() == ReceiptKind::HandedToBroker));
        Told::of(receipts).is_true_of(&arrived);
        all.extend(arrived);
    }
    assert!(all.iter().cloned().eq((0..20_000).map(payload)), "in order");
    assert!(recorder.health().is_well());
    recorder.record(Event::new("events.load", "last")).expect("taken");
    recorder.close(LONG).expect("the server is there");
    assert_eq!(listener.payloads(), ["last"]);
}

#[test]
fn events_keep_their_headers_and_get_no_identity_of_ours() {
    let folder = folder();
    let server = Server::configured(folder.path(), "max_payload: 8192\n");
    let listener = Listener::of(&server);
    let recorder = patient(core(server.config()));
    let plain = Event::new("events.plain", [0xff, 0x00]);
    let full = Event::new("events.full", "x").header("Trace-Id", "7").header("Tag", "a").header("Tag", "b").id("17");
    for event in [plain, full] {
        recorder.record(event).expect("taken");
    }
    let too_large = recorder.record(Event::new("events.large", vec![b'x'; 8_192])).expect_err("with its headers");
    assert!(matches!(too_large.reason, FailureReason::TooLarge { limit: 8_192, .. }), "{too_large}");
    let invalid = recorder.record(Event::new("events.*", "x")).expect_err("a wildcard");
    assert!(matches!(invalid.reason, FailureReason::Invalid(_)), "{invalid}");
    recorder.flush(LONG).expect("the server is there");
    let heard = listener.heard();
    assert_eq!(heard.len(), 2);
    assert_eq!((heard[0].subject.as_str(), heard[0].data.as_slice()), ("events.plain", &[0xff, 0x00][..]));
    assert!(heard[0].headers.is_none() && heard[0].reply.is_none());
    let headers = heard[1].headers.as_ref().expect("headers");
    assert_eq!(headers.get("Trace-Id").map(String::as_str), Some("7"));
    assert_eq!(headers.get("Nats-Msg-Id").map(String::as_str), Some("17"));
    assert_eq!(headers.get_all("Tag").into_iter().count(), 2);
}

#[test]
fn lost_connections_return_uncertain_events_and_repeat_none() {
    const EVENTS: u64 = 30_000;
    let folder = folder();
    let server = Server::start_with(folder.path(), &[]);
    let (listener, proxy) = (Listener::of(&server), Proxy::start(server.port()));
    let recorder = patient(core(quick(proxy.url())));
    let mut chance = Chance::new();
    let mut receipts = Vec::new();
    for round in 0..6 {
        receipts.extend(record(&recorder, round * EVENTS / 6..(round + 1) * EVENTS / 6));
        std::thread::sleep(chance.time(Duration::from_millis(20)));
        proxy.cut();
    }
    receipts.extend(record(&recorder, EVENTS..EVENTS + 10));
    recorder.close(LONG).expect("each has its receipt");
    let told = Told::of(receipts);
    assert_eq!(told.read.len() + told.uncertain.len(), 30_010);
    assert!(told.uncertain.len() <= 6 * 4_000, "what was not sent is not uncertain");
    told.is_true_of(&listener.payloads());
}

#[test]
fn a_killed_broker_returns_uncertain_events_and_gets_the_rest() {
    let folder = folder();
    let mut server = Server::start_with(folder.path(), &[]);
    let recorder = patient(core(quick(server.url())));
    let before = record(&recorder, 0..10_000);
    server.kill();
    let began = Instant::now();
    eventually("that to be noticed", || (!recorder.health().is_well()).then_some(()));
    let waiting = record(&recorder, 10_000..10_500);
    assert!(recorder.flush(Duration::from_millis(10)).is_err(), "nobody is there");
    assert!(waiting.iter().all(|(_, receipt)| !receipt.is_settled()), "what was not sent waits");
    server.restart();
    // Hears what comes from the moment it listens; the recorder may be there before it.
    let listener = Listener::of(&server);
    let told = Told::of(waiting);
    assert_eq!((told.read.len(), told.uncertain.len()), (500, 0), "{:?}", began.elapsed());
    let before = Told::of(before);
    assert!(before.uncertain.len() <= 4_000, "what was not sent waited: {}", before.uncertain.len());
    let last = Told::of(record(&recorder, 10_500..10_600));
    last.is_true_of(&listener.payloads().into_iter().rev().take(100).rev().collect::<Vec<_>>());
    well(|| recorder.health());
    recorder.close(LONG).expect("each has its receipt");
}

#[test]
fn a_server_that_reads_and_never_answers_has_each_event_once() {
    let folder = folder();
    let server = Server::start_with(folder.path(), &[]);
    let (listener, proxy) = (Listener::of(&server), Proxy::start(server.port()));
    let recorder = patient(core(quick(proxy.url())));
    let (mut end, mut unanswered) = (0, Vec::new());
    // As much may be in flight as the connection carried in a while: many events, not the round trip of one. On a busy machine that
    // was less in some rounds.
    while unanswered.last().is_none_or(|events| *events < 100) {
        assert!(unanswered.len() < 10, "in flight without an answer: {unanswered:?}");
        let (first, silent, rest) = (end, end + 2_000, end + 2_200);
        end += 2_300;
        assert_eq!(Told::of(record(&recorder, first..silent)).read.len(), 2_000);
        proxy.swallow(Way::ToClient);
        let began = Instant::now();
        let silent = record(&recorder, silent..rest);
        noticed(began, &["has not confirmed", "no answer", "was lost"], || recorder.health());
        proxy.heal();
        proxy.cut();
        unanswered.push(Told::of(silent).uncertain.len());
        assert_eq!(Told::of(record(&recorder, rest..end)).read.len(), 100);
    }
    // What the old connection still carried and what the new one carries may overtake each other on the way.
    let (mut arrived, mut sent) = (listener.payloads(), (0..end).map(payload).collect::<Vec<_>>());
    arrived.sort();
    sent.sort();
    assert!(arrived == sent, "each once: {}", arrived.len());
    well(|| recorder.health());
}

#[test]
fn failures_whose_receipts_are_gone_come_with_the_flush() {
    let folder = folder();
    let server = Server::start_with(folder.path(), &[]);
    let proxy = Proxy::start(server.port());
    let recorder = patient(core(quick(proxy.url())));
    proxy.swallow(Way::ToClient);
    drop(record(&recorder, 0..10));
    // Sent, and then nothing more is heard.
    let Err(FlushError::Failed { failed, .. }) = recorder.flush(LONG) else { panic!("nobody answered") };
    assert_eq!(failed.len(), 10);
    assert!(failed.iter().all(|error| matches!(error.reason, FailureReason::Unconfirmed(_))));
    let waiting = record(&recorder, 10..20);
    recorder.close(Duration::from_millis(50)).expect_err("nobody answers");
    for (_, receipt) in waiting {
        let Err(WaitError::Failed(error)) = receipt.wait(Duration::ZERO) else { panic!("it was closed") };
        assert!(matches!(error.reason, FailureReason::Closed | FailureReason::Unconfirmed(_)), "{error}");
    }
}

#[test]
fn a_slow_link_is_found_out_and_used_as_it_is() {
    let folder = folder();
    let server = Server::start_with(folder.path(), &[]);
    let (listener, proxy) = (Listener::of(&server), Proxy::start(server.port()));
    let recorder = patient(core(quick(proxy.url())));
    proxy.throttle(20_000);
    let receipts = record(&recorder, 0..1_000);
    eventually("the first half", || receipts[500].1.is_settled().then_some(()));
    let connections = proxy.connections();
    recorder.flush(Duration::from_secs(40)).expect("each has its receipt");
    assert!(proxy.connections() <= connections + 2, "slow is not lost");
    let told = Told::of(receipts);
    assert!(!told.read.is_empty(), "nothing was heard of what the slow link carried");
    // What a connection that was given up still carries comes behind what the next one brings.
    proxy.heal();
    told.is_true_in_any_order_of(&listener.payloads());
}

/// What a server has read of a connection that it ends: only a made-up one can be asked.
#[test]
fn events_confirmed_before_a_disconnect_were_read() {
    const EVENTS: u64 = 20_000;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (since, hang_up_at) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(1)));
    let (notes, count, at) = (Arc::clone(&heard), Arc::clone(&since), Arc::clone(&hang_up_at));
    let over = Arc::new(AtomicBool::new(false));
    let last = Arc::clone(&over);
    let server = Scripted::start(move |talk, line| {
        if line.verb() == "PUB" {
            notes.lock().push(String::from_utf8_lossy(line.payload()).into_owned());
            let read = count.fetch_add(1, Ordering::Relaxed) + 1;
            if read >= at.load(Ordering::Relaxed) && !last.load(Ordering::Relaxed) {
                count.store(0, Ordering::Relaxed);
                at.store((at.load(Ordering::Relaxed) * 3) % 7_919, Ordering::Relaxed);
                talk.hang_up();
            }
        }
        line.verb() == "PUB"
    });
    let recorder = patient(core(quick(server.url())));
    let receipts = record(&recorder, 0..EVENTS);
    let told = Told::of(receipts);
    over.store(true, Ordering::Relaxed);
    recorder.close(LONG).expect("each had its receipt");
    assert!(server.visits() > 5, "{} connections", server.visits());
    assert!(!told.uncertain.is_empty() && !told.read.is_empty());
    told.is_true_of(&heard.lock());
}

#[test]
fn denied_events_come_back_and_the_others_are_sent() {
    let folder = folder();
    let text = "authorization { users: [
        { user: \"u\", password: \"p\", permissions: { publish: { deny: [\"events.secret.>\"] } } },
        { user: \"all\", password: \"p\" }
    ] }\n";
    let server = Server::configured(folder.path(), text);
    let broker = with(core(quick(server.url())), |config| {
        config.user = Some("u".into());
        config.password = Some("p".into());
    });
    let recorder = patient(broker);
    for round in 0..50 {
        let denied = recorder.record(Event::new("events.secret.a", "x")).expect("taken");
        let open = recorder.record(Event::new("events.a", "x")).expect("taken");
        match denied.wait(LONG) {
            Err(WaitError::Failed(error)) => {
                assert!(
                    matches!(&error.reason, FailureReason::Refused(what) if what.contains("events.secret.a")),
                    "{error}"
                );
            }
            other => panic!("{round}: {other:?}"),
        }
        assert_eq!(open.wait(LONG).expect("allowed").destination, Destination::Broker);
    }
    recorder.close(LONG).expect("each had its receipt");
}

#[test]
fn a_flood_gets_through_tls_without_a_stream() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "ours");
    let pair = authority.issue(&["127.0.0.1"]);
    let text = format!("tls {{ cert_file: {:?}, key_file: {:?} }}\n", pair.cert, pair.key);
    let server = Server::configured(folder.path(), &text);
    let mut broker = core(quick(server.url()));
    broker.tls.ca = Some(authority.file);
    let recorder = patient(broker);
    let began = Instant::now();
    for _ in 0..300 {
        let receipt = recorder.record(Event::new("events.a", "x")).expect("takes it");
        receipt.wait(Duration::from_secs(1)).expect("answered before long");
    }
    for (count, size) in [(20_000, 1_000), (100, 500_000)] {
        for _ in 0..count {
            recorder.record(Event::new("events.a", vec![b'x'; size])).expect("taken");
        }
        recorder.flush(LONG).expect("the server has read all");
    }
    assert!(recorder.health().is_well(), "{:?}", began.elapsed());
}

#[test]
fn the_command_says_that_nobody_confirmed_anything() {
    let folder = folder();
    let (server, database) = (Server::start_with(folder.path(), &[]), folder.path().join("a.db"));
    let mut config = Config::default();
    config.broker = core(server.config());
    config.database.path.clone_from(&database);
    let collector = Collector::start(&config).expect("starts");
    let publish = |arguments: &[&str]| {
        let mut command = catchment();
        command.args(["publish", "--server", &server.url()]).args(arguments).env("CATCHMENT_BROKER__MODE", "core");
        let done = output(&mut command);
        assert!(done.status.success(), "{}", stderr(&done));
        String::from_utf8(done.stdout).expect("text")
    };
    let said = publish(&["events.a", "hello"]);
    assert_eq!(said.trim(), "published 1 event (core NATS does not confirm that they were stored)");
    let said: serde_json::Value =
        serde_json::from_str(&publish(&["events.load", "--count", "5000", "--json"])).expect("JSON");
    assert_eq!(said["published"], 5_000);
    assert!(said["stream"].is_null() && said["last_sequence"].is_null(), "{said}");
    // Who listened has them all.
    eventually("all rows", || (collector.status().committed == 5_001).then_some(()));
    collector.stop(LONG).expect("stops");
    assert_eq!(oracle::count(&database), 5_001);
}
