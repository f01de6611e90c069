//! Queries over NATS: rows within their limits, and errors that say what is wrong, while events are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use catchment::config::{Codec, Mode, ParameterConfig, ParameterType};
use catchment::{Collector, Error};
use serde_json::json;

use crate::support::asking::{ENDLESS, Fixture, ONE, RECENT, query, read, refused, stop};
use crate::support::collector::{output, stderr};
use crate::support::{eventually, load, oracle, with};

#[test]
fn a_stopped_collector_leaves_all_in_the_one_file() {
    let fixture = Fixture::new();
    let collector = fixture.collector(vec![query("ask.recent", RECENT)]);
    fixture.filled(10);
    fixture.client().until_answered("ask.recent");
    stop(&collector);
    let log = fixture.folder.path().join("a.db-wal");
    assert!(!log.exists(), "the last connection to close was one that only reads");
}

#[test]
fn rows_are_answered_with_what_the_request_binds() {
    let fixture = Fixture::new();
    let of_token =
        "SELECT :token_3 AS token, :header_trace_id AS trace, :published_s > 1700000000 AS now, :stream AS stream";
    let collector = fixture.collector(vec![query("ask.recent", RECENT), query("ask.by.*", of_token)]);
    fixture.filled(10);
    let client = fixture.client();
    let row = |n: u64| json!({ "id": n + 1, "n": n });
    assert_eq!(client.ask("ask.recent", r#"{"limit":2}"#), Ok(json!([row(9), row(8)])));
    assert_eq!(client.ask("ask.recent", ""), Ok(json!([row(9), row(8), row(7), row(6), row(5)])));
    let headers = nats::HeaderMap::from_iter([("Trace-Id", "7")]);
    let answer = client.0.request_with_headers("ask.by.ann", "", &headers).expect("an answer");
    assert_eq!(read(&answer), Ok(json!([{ "token": "ann", "trace": "7", "now": 1, "stream": null }])));
    let status = collector.status();
    assert_eq!((status.requests.answered, status.requests.failed), (3, 0));
    assert!(status.service.is_none());
    stop(&collector);
    assert_eq!(client.try_to_ask("ask.recent", "").expect_err("nobody").to_string(), "no responders");
}

#[test]
fn what_cannot_be_answered_gets_an_error_and_the_next_an_answer() {
    let fixture = Fixture::new();
    let two = with(query("ask.two", RECENT), |query| query.max_rows = 2);
    let small = with(query("ask.small", RECENT), |query| query.max_bytes = ByteSize::b(64));
    let huge = with(query("ask.huge", "SELECT hex(zeroblob(:n)) AS h"), |query| query.max_bytes = ByteSize::mib(64));
    let endless = with(query("ask.endless", ENDLESS), |query| query.timeout = Duration::from_millis(200));
    let collector = fixture.collector(vec![two, small, huge, endless, query("ask.recent", RECENT)]);
    fixture.filled(10);
    let client = fixture.client();
    refused(client.ask("ask.two", ""), 413, "larger than 2 rows, its max_rows");
    assert!(client.ask("ask.two", r#"{"limit":2}"#).is_ok());
    refused(client.ask("ask.small", ""), 413, "larger than 64 bytes, its max_bytes");
    refused(client.ask("ask.huge", r#"{"n":600000}"#), 413, "the server's limit");
    assert!(client.ask("ask.huge", r#"{"n":500000}"#).is_ok(), "as large as the server takes");
    let began = Instant::now();
    refused(client.ask("ask.endless", ""), 504, "took longer than its timeout, 200ms");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    refused(client.ask("ask.recent", r#"{"limit":"many"}"#), 400, "datatype mismatch");
    refused(client.ask("ask.recent", "{\"limit\":"), 400, "cannot be read as JSON");
    assert_eq!(client.ask("ask.recent", r#"{"limit":1}"#), Ok(json!([{ "id": 10, "n": 9 }])));
    assert_eq!(collector.status().requests.failed, 6);
    stop(&collector);
}

#[test]
fn a_value_where_an_object_is_needed_is_no_missing_field() {
    let fixture = Fixture::new();
    let mut all =
        query("ask.user", "SELECT name FROM (VALUES (1)), (SELECT 'ada' AS name) WHERE name = coalesce(:user, name)");
    all.bind = [("user".to_owned(), "/filter/user".to_owned())].into();
    all.parameters = [("user".to_owned(), ParameterConfig::new(ParameterType::Text))].into();
    let collector = fixture.collector(vec![all]);
    let refused = output(&mut fixture.asking(&["ask.user", "filter=a"]));
    let words = "query ask.user: filter is not an object; the only parameter is /filter/user (error 400)";
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains(words), "{}", stderr(&refused));
    for (parameter, rows) in [
        (r#"filter={"user":"bob"}"#, ""),
        (r#"filter={"user":"ada"}"#, "{\"name\":\"ada\"}\n"),
        ("filter=null", "{\"name\":\"ada\"}\n"),
    ] {
        let answer = output(&mut fixture.asking(&["ask.user", parameter, "--json"]));
        assert_eq!(String::from_utf8_lossy(&answer.stdout), rows, "{parameter}");
    }
    stop(&collector);
}

#[test]
fn the_command_asks_a_query_that_expects_messagepack() {
    let fixture = Fixture::new();
    let named = with(query("ask.name", "SELECT :name AS name"), |query| query.codec = Some(Codec::Messagepack));
    let collector = fixture.collector(vec![named]);
    let answer = output(&mut fixture.asking(&["ask.name", "name=ann", "--json"]));
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "{\"name\":\"ann\"}\n");
    let client = fixture.client();
    refused(client.ask("ask.name", " "), 400, "the request is not an object; the only parameter is name");
    stop(&collector);
}

#[test]
fn a_query_that_does_not_fit_stops_the_start_with_its_name() {
    let fixture = Fixture::new();
    for (sql, words) in [
        (
            "SELECT subject,\n       body FROM events",
            "query ask.q: no such column: body (at 2:8, \"body FROM events\")",
        ),
        ("DELETE FROM events", "query ask.q: it does more than read"),
        ("SELECT ?", "query ask.q: it has a parameter ? without a name"),
    ] {
        let error = Collector::start(&fixture.config(vec![query("ask.q", sql)])).expect_err(sql);
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = Collector::start(&fixture.config(vec![query("events.q", "SELECT 1")])).expect_err("among the events");
    assert!(
        matches!(error, Error::Config { .. }) && error.to_string().contains("among the stream's subjects"),
        "{error}"
    );
}

#[test]
fn many_clients_see_commits_while_events_are_written() {
    const EVENTS: u64 = 60_000;
    const CLIENTS: usize = 8;
    let fixture = Fixture::new();
    let count = query("ask.count", "SELECT count(*) AS n, max(sequence) AS last FROM events WHERE :word = 'all'");
    let mut config = fixture.config(vec![count, query("ask.recent", RECENT)]);
    config.service.threads = 4;
    let collector = Collector::start(&config).expect("starts");
    let done = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (client, done, asked) = (fixture.client(), Arc::clone(&done), Arc::clone(&asked));
            thread::spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let replied = match number % 2 {
                        0 => client.ask("ask.count", r#"{"word":"all"}"#).expect("rows")[0]["n"].clone(),
                        _ => client.ask("ask.recent", r#"{"limit":20}"#).expect("rows")[0]["id"].clone(),
                    };
                    let rows = replied.as_u64().unwrap_or(0);
                    assert!(rows >= last, "{rows} rows after {last}");
                    last = rows;
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let kept = load::publish(&fixture.server, EVENTS);
    eventually("all rows", || (collector.status().committed == EVENTS).then_some(()));
    let client = fixture.client();
    let all = json!([{ "n": EVENTS, "last": EVENTS }]);
    assert_eq!(client.ask("ask.count", r#"{"word":"all"}"#), Ok(all), "what is committed is seen");
    eventually("many answers", || (asked.load(Ordering::Relaxed) > 500).then_some(()));
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("every request was answered");
    }
    let status = collector.stop(Duration::from_secs(10)).expect("stops");
    assert_eq!((status.requests.answered, status.requests.failed), (asked.load(Ordering::Relaxed) + 1, 0));
    oracle::is_exactly(&fixture.database(), &kept);
}

#[test]
fn requests_beyond_those_that_may_wait_are_refused_at_once() {
    let fixture = Fixture::new();
    let slow = with(query("ask.slow", ENDLESS), |query| query.timeout = Duration::from_secs(2));
    let mut config = fixture.config(vec![slow, query("ask.one", ONE)]);
    (config.service.threads, config.service.waiting) = (1, 3);
    let collector = Collector::start(&config).expect("starts");
    let client = fixture.client();
    let replies = client.0.subscribe("_INBOX.slow").expect("subscribes");
    let began = Instant::now();
    for _ in 0..12 {
        client.0.publish_request("ask.slow", "_INBOX.slow", "").expect("published");
    }
    let (mut at_once, mut later) = (0, 0);
    for _ in 0..12 {
        let reply = replies.next_timeout(Duration::from_secs(10)).expect("each gets a word");
        let (code, reason) = read(&reply).expect_err("no answer");
        if reason.contains("3 requests wait already") {
            assert!(code == 503 && began.elapsed() < Duration::from_secs(1), "{code} after {:?}", began.elapsed());
            at_once += 1;
        } else {
            // The first runs for too long; of those behind it one may have its turn before it has waited for too long.
            assert!(
                (code == 504 && reason.contains("took longer"))
                    || (code == 503 && reason.contains("no thread was free"))
            );
            later += 1;
        }
    }
    assert!((3..=4).contains(&later), "three wait, and one runs: {at_once} and {later}");
    assert_eq!(client.ask("ask.one", ""), Ok(json!([{ "one": 1 }])), "then it goes on");
    stop(&collector);
}

#[test]
fn the_command_asks_and_prints_rows() {
    let fixture = Fixture::new();
    let sql = "SELECT :a AS a, :b AS b, x'ff00' AS bytes, NULL AS none, 1.5 AS real";
    let nobody = output(&mut fixture.asking(&["ask.echo"]));
    assert_eq!(nobody.status.code(), Some(1));
    let said = stderr(&nobody);
    assert!(
        said.contains("no collector answers on ask.echo") && said.contains("[[query]]") && said.lines().count() == 1,
        "{said}"
    );
    let collector = fixture.process("ask.echo", sql);
    collector.said("collecting stream");
    let printed = |arguments: &[&str]| {
        let done = output(&mut fixture.asking(arguments));
        assert!(done.status.success(), "{}", stderr(&done));
        String::from_utf8(done.stdout).expect("UTF-8")
    };
    let big = "9223372036854775807";
    let json = printed(&["ask.echo", "--json", &format!("a={big}"), "b=ann b"]);
    let expected =
        format!("{{\"a\":{big},\"b\":\"ann b\",\"bytes\":{{\"$blob\":\"/wA=\"}},\"none\":null,\"real\":1.5}}\n");
    assert_eq!(json, expected);
    let table = printed(&["ask.echo", "a=1", "b=\u{1b}[2J"]);
    assert!(table.contains("x'ff00'") && table.contains("1.5") && !table.contains('\u{1b}'), "{table}");
    let failed = output(fixture.asking(&["ask.echo", "-"]).stdin(std::fs::File::open("Cargo.toml").expect("a file")));
    let said = stderr(&failed);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        said.starts_with("catchment: query ask.echo: ")
            && said.contains("cannot be read as JSON")
            && said.contains("(error 400)"),
        "{said}"
    );
    assert_eq!(output(&mut fixture.asking(&["ask.echo", "a"])).status.code(), Some(2));
    let several = output(&mut fixture.asking(&["ask.*"]));
    assert_eq!(several.status.code(), Some(2), "as of publish");
    assert_eq!(stderr(&several), "catchment: the subject \"ask.*\" has a wildcard, and it must be one subject\n");
    let stored = oracle::position(&fixture.database());
    let event = output(&mut fixture.asking(&["events.message", "a=1"]));
    let said = stderr(&event);
    assert_eq!(event.status.code(), Some(1));
    assert!(
        said.contains("stream EVENTS stores messages on events.message: the request would become an event")
            && said.ends_with("; ask on the subject of a [[query]]\n")
            && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!((fixture.server.last_sequence("EVENTS"), oracle::position(&fixture.database())), (stored, stored));
    let client = fixture.server.client();
    let silent = client.subscribe("ask.silent").expect("subscribes");
    client.flush().expect("the server knows");
    let late = output(&mut fixture.asking(&["ask.silent", "--timeout", "300ms"]));
    let said = stderr(&late);
    assert!(late.status.code() == Some(1) && said.contains("ask.silent: no answer within 300ms"), "{said}");
    drop(silent);
    assert!(collector.stop().success());
}

#[test]
fn no_request_becomes_an_event_of_core_nats() {
    let fixture = Fixture::configured("");
    let mut config = fixture.config(vec![query("ask.one", ONE)]);
    config.broker.mode = Mode::Core;
    let collector = Collector::start(&config).expect("starts");
    let ask = |subject| output(fixture.asking(&[subject, "--json"]).env("CATCHMENT_BROKER__MODE", "core"));
    fixture.client().until_answered("ask.one");
    assert_eq!(ask("ask.one").stdout, b"{\"one\":1}\n");
    let event = ask("events.message");
    let said = stderr(&event);
    assert!(event.status.code() == Some(1) && said.contains("no query has the subject events.message"), "{said}");
    fixture.client().0.publish("events.last", "x").expect("published");
    eventually("the event", || (collector.status().committed == 1).then_some(()));
    stop(&collector);
    let nobody = ask("ask.one");
    assert!(nobody.status.code() == Some(1) && stderr(&nobody).contains("no collector answers on ask.one"));
}

#[test]
fn a_request_is_sent_where_the_question_for_its_subject_is_denied() {
    let users = r#"jetstream: {}
        no_auth_user: all
        authorization { users: [
            { user: all, password: secret },
            { user: asker, password: secret, permissions: { publish: ["ask.>", "events.>"], subscribe: ["_INBOX.>"] } },
        ] }"#;
    let fixture = Fixture::configured(users);
    let collector = fixture.collector(vec![query("ask.one", ONE)]);
    fixture.client().until_answered("ask.one");
    let ask = |subject, mode: &str| {
        let mut asking = fixture.asking(&[subject, "--json", "--user", "asker", "--password", "secret"]);
        output(asking.env("CATCHMENT_BROKER__MODE", mode))
    };
    for mode in ["jetstream", "core"] {
        let asked = ask("ask.one", mode);
        assert_eq!(asked.stdout, b"{\"one\":1}\n", "{}", stderr(&asked));
    }
    // The stream's acknowledgement is not taken for an answer.
    let event = ask("events.message", "jetstream");
    assert!(stderr(&event).contains("stream EVENTS stored the request as an event"), "{}", stderr(&event));
    stop(&collector);
}

#[test]
fn a_request_may_be_messagepack() {
    let fixture = Fixture::new();
    let sql = "SELECT :limit AS l, :text AS t, :bytes AS b";
    let packed = with(query("ask.packed", sql), |query| query.codec = Some(Codec::Messagepack));
    let collector = fixture.collector(vec![query("ask.either", sql), packed]);
    let client = fixture.client();
    // {"limit": 2^53 + 1, "text": "ü", "bytes": 0xff00}
    let mut request = b"\x83\xa5limit\xcf\x00\x20\x00\x00\x00\x00\x00\x01\xa4text\xa2".to_vec();
    request.extend_from_slice("ü".as_bytes());
    request.extend_from_slice(b"\xa5bytes\xc4\x02\xff\x00");
    let rows = json!([{ "l": 9_007_199_254_740_993_i64, "t": "ü", "b": { "$blob": "/wA=" } }]);
    let headers = nats::HeaderMap::from_iter([("Content-Type", "application/msgpack")]);
    let answer = client.0.request_with_headers("ask.either", &request, &headers).expect("an answer");
    assert_eq!(read(&answer), Ok(rows.clone()), "by its header");
    assert_eq!(client.ask("ask.packed", &request), Ok(rows), "by the query's codec");
    refused(client.ask("ask.either", &request), 400, "JSON");
    refused(client.ask("ask.packed", &request[..10]), 400, "MessagePack");
    assert_eq!(client.ask("ask.packed", ""), Ok(json!([{ "l": null, "t": null, "b": null }])));
    stop(&collector);
}
