//! Every request has an answer in time, also where SQLite does not come back and where more come than can be answered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::asking::{Client, Fixture, ONE, RECENT, query, read, refused, stop};
use crate::support::{eventually, with};

/// How long a step of [`stuck`] takes, about.
const STUCK: Duration = Duration::from_secs(6);

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A single step that SQLite does not interrupt and that takes [`STUCK`] on this machine.
fn stuck() -> String {
    let step = |each: u128| {
        format!(
            "SELECT length(trim(replace(hex(zeroblob(300000)), '0', 'a'),
                                replace(hex(zeroblob({each})), '0', 'b') || 'a')) AS n"
        )
    };
    let few = 100_u128;
    let connection = rusqlite::Connection::open_in_memory().expect("opens");
    let began = Instant::now();
    connection.query_row(&step(few), [], |_| Ok(())).expect("SQL");
    let each = few * STUCK.as_micros() / began.elapsed().as_micros().max(1);
    step(each.clamp(few, 1_000_000)) + " WHERE :any IS NULL"
}

/// A client that has asked for the one step, and three times for what waits behind it.
fn asked(fixture: &Fixture) -> (Client, nats::Subscription) {
    let client = fixture.client();
    client.until_answered("ask.one");
    let replies = client.0.subscribe("_INBOX.ours.*").expect("subscribes");
    client.0.publish_request("ask.stuck", "_INBOX.ours.stuck", "").expect("published");
    for _ in 0..3 {
        client.0.publish_request("ask.one", "_INBOX.ours.waiting", "").expect("published");
    }
    (client, replies)
}

#[test]
fn a_step_that_does_not_end_is_answered_at_its_timeout() {
    let fixture = Fixture::new();
    let quick = |subject, sql| with(query(subject, sql), |query| query.timeout = Duration::from_millis(300));
    let collector = fixture.collector_of_one_thread(vec![quick("ask.stuck", &stuck()), quick("ask.one", ONE)]);
    let (client, replies) = asked(&fixture);
    let mut told = BTreeMap::<String, Vec<(u16, String)>>::new();
    for _ in 0..4 {
        let reply = replies.next_timeout(PATIENCE).expect("each gets a word");
        told.entry(reply.subject.clone()).or_default().push(read(&reply).expect_err("no answer"));
    }
    let slow = "query ask.stuck took longer than its timeout, 300ms".to_owned();
    assert_eq!(told["_INBOX.ours.stuck"], [(504, slow)]);
    assert!(told["_INBOX.ours.waiting"].iter().all(|(code, why)| *code == 503 && why.contains("no thread was free")));
    // The step has not ended: all that was told above was told before its end, and so is this.
    refused(client.ask("ask.one", ""), 503, "every thread runs a query that exceeds its timeout");
    let rows = eventually("the step to end", || client.try_to_ask("ask.one", "").ok()?.ok());
    assert_eq!(rows, json!([{ "one": 1 }]));
    assert!(replies.try_next().is_none(), "an answer twice");
    stop(&collector);
}

#[test]
fn a_stop_during_an_endless_step_is_in_time_and_answers() {
    let fixture = Fixture::new();
    let patient = |subject, sql: &str| with(query(subject, sql), |query| query.timeout = Duration::from_secs(60));
    let collector = fixture.collector_of_one_thread(vec![patient("ask.stuck", &stuck()), patient("ask.one", ONE)]);
    let (client, replies) = asked(&fixture);
    // They wait behind it: what comes later is refused when their bytes, and those of large ones, are too many.
    let large = vec![b' '; 1_000_000];
    for _ in 0..34 {
        client.0.publish_request("ask.one", "_INBOX.ours.large", &large).expect("published");
    }
    let full = replies.next_timeout(PATIENCE).expect("there is no room for the last");
    assert_eq!(full.subject, "_INBOX.ours.large");
    refused(read(&full), 503, "the requests that wait take 32 MiB already");
    // The thread is left behind: the stop is over before the step is.
    let error = collector.stop(STUCK / 3).expect_err("a thread is left behind").to_string();
    assert!(error.contains("catchment-query-"), "{error}");
    let mut told = BTreeMap::<String, usize>::new();
    for _ in 0..37 {
        let reply = replies.next_timeout(PATIENCE).expect("each gets a word");
        if read(&reply) == Err((503, "the collector is stopping".to_owned())) {
            *told.entry(reply.subject).or_default() += 1;
        }
    }
    assert_eq!((told["_INBOX.ours.stuck"], told["_INBOX.ours.waiting"]), (1, 3));
    assert_eq!(told["_INBOX.ours.large"], 33, "all but those that were refused before");
}

#[test]
fn a_row_that_takes_long_is_interrupted_before_the_next() {
    let fixture = Fixture::new();
    // Each row takes some tenths of a second, and the whole half a minute.
    let rows = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100)
                SELECT count(length(trim(replace(hex(zeroblob(100000 + i)), '0', 'a'),
                                         replace(hex(zeroblob(500)), '0', 'b') || 'a'))) AS n FROM n";
    let slow = with(query("ask.slow", rows), |query| query.timeout = Duration::from_millis(300));
    let collector = fixture.collector_of_one_thread(vec![slow, query("ask.one", ONE)]);
    let client = fixture.client();
    client.until_answered("ask.one");
    refused(client.ask("ask.slow", ""), 504, "took longer than its timeout, 300ms");
    let again = Instant::now();
    eventually("the thread to be free", || client.try_to_ask("ask.one", "").ok()?.ok());
    assert!(again.elapsed() < Duration::from_secs(5), "{:?}", again.elapsed());
    stop(&collector);
}

#[test]
fn ten_thousand_requests_at_once_are_all_answered() {
    const REQUESTS: usize = 10_000;
    let fixture = Fixture::new();
    // On a busy machine requests wait for a thread for longer than the usual timeout.
    let patient = with(query("ask.recent", RECENT), |query| query.timeout = Duration::from_secs(60));
    let collector = fixture.collector(vec![patient]);
    fixture.filled(10);
    let client = fixture.client();
    client.until_answered("ask.recent");
    let replies = client.0.subscribe("_INBOX.flood.*").expect("subscribes");
    for number in 0..REQUESTS {
        client.0.publish_request("ask.recent", &format!("_INBOX.flood.{number}"), "").expect("published");
    }
    let (mut answered, mut busy) = (BTreeMap::<String, usize>::new(), 0);
    for _ in 0..REQUESTS {
        let reply = replies.next_timeout(Duration::from_secs(10)).unwrap_or_else(|e| panic!("{e}: {}", answered.len()));
        match read(&reply) {
            Ok(rows) => assert_eq!(rows.as_array().expect("rows").len(), 5),
            Err((503, why)) if why.contains("1024 requests wait already") => busy += 1,
            Err(other) => panic!("{other:?}"),
        }
        *answered.entry(reply.subject).or_default() += 1;
    }
    assert_eq!(answered.len(), REQUESTS, "each once");
    let requests = collector.status().requests;
    assert_eq!((requests.failed, requests.answered), (busy, REQUESTS as u64 - busy + 1));
    stop(&collector);
}

#[test]
fn a_request_of_many_headers_is_refused() {
    let fixture = Fixture::new();
    let collector = fixture.collector(vec![query("ask.h", "SELECT :header_name_31 AS last")]);
    let client = fixture.client();
    client.until_answered("ask.h");
    let ask = |headers: usize| {
        let headers = (0..headers).map(|number| (format!("Name-{number}"), "x".to_owned())).collect();
        read(&client.0.request_with_headers("ask.h", "", &headers).expect("an answer"))
    };
    assert_eq!(ask(32), Ok(json!([{ "last": "x" }])));
    refused(ask(33), 400, "the request has 33 headers; send at most 32");
    stop(&collector);
}
