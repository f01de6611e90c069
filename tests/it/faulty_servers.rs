//! Servers that do not answer, or answer with what no server sends: noticed in the configured time, and said with the reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catchment::{Collector, Event, Recorder};
use parking_lot::Mutex;

use crate::support::health::{cannot_record, cannot_start, noticed, quick, quick_config, well};
use crate::support::scripted::{self, Scripted};
use crate::support::{eventually, load, oracle};

#[test]
fn a_server_that_never_greets_is_refused_in_time() {
    let mute = Scripted::greeting_with(|_| String::new(), |_, _| true);
    cannot_start(&mute.url(), &["sent nothing"]);
    cannot_record(&mute.url(), &["sent nothing"]);
    assert!(mute.visits() > 0);
}

#[test]
fn a_server_silent_after_its_greeting_is_refused_in_time() {
    let mute = Scripted::start(|_, _| true);
    cannot_start(&mute.url(), &["no answer", "sent nothing"]);
    cannot_record(&mute.url(), &["no answer", "sent nothing"]);
}

#[test]
fn a_server_without_jetstream_answers_is_refused_in_time() {
    let pings = Scripted::start(|_, _| false);
    cannot_start(&pings.url(), &["no answer"]);
}

#[test]
fn receipts_stay_open_where_nothing_is_acknowledged() {
    let published = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&published);
    let server = Scripted::start(move |_, line| {
        let is_event = line.verb() == "PUB" && line.subject().starts_with("events.");
        counter.fetch_add(u64::from(is_event), Ordering::Relaxed);
        is_event
    });
    let recorder = load::patient(quick(server.url()));
    let began = Instant::now();
    let receipt = recorder.record(Event::new("events.a", "x")).expect("taken");
    noticed(began, &["not confirmed"], || recorder.health());
    eventually("it to be sent again", || (published.load(Ordering::Relaxed) >= 3).then_some(()));
    assert!(!receipt.is_settled());
    let closed = recorder.close(Duration::from_millis(100)).expect_err("nothing was said of it");
    assert!(closed.to_string().contains("1 event"), "{closed}");
}

/// A server with three messages that answers the first pulls in a bad way.
fn answers_badly(words: &[&str], bad: impl Fn(&mut scripted::Talk, &scripted::Line) + Send + Sync + 'static) {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let is_bad = Arc::new(AtomicBool::new(true));
    let still_bad = Arc::clone(&is_bad);
    // Where each consumer begins, until it has been sent what there is.
    let starts = Mutex::new(BTreeMap::<String, u64>::new());
    let server = Scripted::start(move |talk, line| {
        if let Some(consumer) = line.subject().strip_prefix("$JS.API.CONSUMER.CREATE.EVENTS.") {
            let asked: serde_json::Value = serde_json::from_slice(line.payload()).expect("JSON");
            let start = asked["config"]["opt_start_seq"].as_u64().unwrap_or(1);
            starts.lock().insert(consumer.to_owned(), start);
        }
        if let Some(consumer) = line.subject().strip_prefix("$JS.API.CONSUMER.MSG.NEXT.EVENTS.") {
            if still_bad.load(Ordering::Relaxed) {
                bad(talk, line);
            } else if let Some(start) = starts.lock().remove(consumer) {
                for n in start..=3 {
                    let time = 1_700_000_000_000_000_000_u64 + n;
                    let place = format!("$JS.ACK.EVENTS.{consumer}.1.{n}.{}.{time}.{}", n + 1 - start, 3 - n);
                    talk.deliver("events.a", line.reply(), &place, &[], format!("{n}"));
                }
            }
            return true;
        }
        scripted::stream(talk, line, 3)
    });
    let began = Instant::now();
    let collector = Collector::start(&quick_config(&server.url(), database.clone())).expect("starts");
    noticed(began, words, || collector.health());
    assert_eq!(oracle::count(&database), 0, "no status is a row");
    is_bad.store(false, Ordering::Relaxed);
    eventually("3 rows", || (oracle::position(&database) == 3).then_some(()));
    well(|| collector.health());
    collector.stop(Duration::from_secs(10)).expect("stops");
    assert_eq!(oracle::payloads(&database), ["1", "2", "3"]);
    oracle::sound(&database);
}

#[test]
fn a_pull_that_nobody_takes_is_no_row_and_is_tried_again() {
    answers_badly(&["503"], |talk, line| {
        talk.deliver(line.reply(), line.reply(), "", b"NATS/1.0 503\r\n\r\n", "");
    });
}

#[test]
fn a_pull_that_is_refused_is_no_row_and_is_tried_again() {
    answers_badly(&["409"], |talk, line| {
        let status = b"NATS/1.0 409 Exceeded MaxWaiting\r\n\r\n";
        talk.deliver(line.reply(), line.reply(), "", status, "");
    });
}

#[test]
fn an_overlong_protocol_line_ends_only_its_connection() {
    for length in [5_000, 40_000] {
        answers_badly(&["was lost", "no answer for", "sent nothing"], move |talk, line| {
            let subject = format!("events.{}", "x".repeat(length));
            let place = "$JS.ACK.EVENTS.c.1.1.1.1700000000000000001.2";
            talk.deliver(&subject, line.reply(), place, &[], "1");
        });
    }
}

#[test]
fn lines_that_no_server_sends_end_only_their_connection() {
    for said in [
        "MSG\r\n",
        "MSG a b c d e\r\n",
        "\u{0}\u{1}\u{2}\r\n",
        "HMSG a 1 99 3\r\nabc\r\n",
        "-ERR 'Stale Connection'\r\n",
    ] {
        answers_badly(&["was lost", "no answer for", "sent nothing"], move |talk, _| talk.say(said));
    }
}
