//! The service as a whole: found by discovery, shared by collectors, back after whatever happens to the server, in nobody's way.

use std::thread;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use catchment::Collector;
use catchment::config::Mode;
use serde_json::json;

use crate::support::asking::{Client, ENDLESS, Fixture, ONE, RECENT, query, refused, stop};
use crate::support::authority::Authority;
use crate::support::collector::{self, output, run, stderr};
use crate::support::{eventually, with};

#[test]
fn discovery_finds_the_service_and_counts_what_it_did() {
    let fixture = Fixture::new();
    let mut config = fixture.config(vec![query("ask.recent", RECENT), query("ask.by.*", "SELECT :token_3 AS token")]);
    (config.service.name, config.service.description) = ("weather".into(), "readings".into());
    let collector = Collector::start(&config).expect("starts");
    let client = fixture.client();
    let pong = client.ask("$SRV.PING", "").expect("an answer");
    let id = pong["id"].as_str().expect("an id").to_owned();
    let described = |kind: &str| {
        json!({
            "type": format!("io.nats.micro.v1.{kind}_response"), "name": "weather", "id": id,
            "version": env!("CARGO_PKG_VERSION"), "metadata": {},
        })
    };
    for way in ["", ".weather", &format!(".weather.{id}")] {
        assert_eq!(client.ask(&format!("$SRV.PING{way}"), ""), Ok(described("ping")), "{way}");
    }
    let mut info = described("info");
    info["description"] = "readings".into();
    info["endpoints"] = json!([
        { "name": "ask_recent", "subject": "ask.recent", "queue_group": "q", "metadata": { "parameters": "limit" } },
        { "name": "ask_by__", "subject": "ask.by.*", "queue_group": "q", "metadata": {} },
    ]);
    assert_eq!(client.ask("$SRV.INFO.weather", ""), Ok(info));
    client.ask("ask.recent", "").expect("rows");
    refused(client.ask("ask.recent", "{"), 400, "cannot be read as JSON");
    let stats = client.ask(&format!("$SRV.STATS.weather.{id}"), "").expect("an answer");
    assert_eq!(stats["type"], "io.nats.micro.v1.stats_response");
    let started = stats["started"].as_str().expect("a time");
    assert!(started.len() >= 20 && started.ends_with('Z') && started.as_bytes()[10] == b'T', "{started}");
    let endpoint = &stats["endpoints"][0];
    assert_eq!((&endpoint["num_requests"], &endpoint["num_errors"]), (&json!(2), &json!(1)));
    assert!(
        endpoint["last_error"].as_str().is_some_and(|error| error.starts_with("400:query ask.recent: ")),
        "{endpoint}"
    );
    let (spent, average) = (&endpoint["processing_time"], &endpoint["average_processing_time"]);
    assert!(spent.as_u64() > Some(0) && average.as_u64() == spent.as_u64().map(|spent| spent / 2), "{endpoint}");
    assert_eq!(stats["endpoints"][1]["num_requests"], 0);
    stop(&collector);
}

#[test]
fn of_two_collectors_one_answers_each_request() {
    let fixture = Fixture::new();
    let start = |file: &str| {
        let mut config = fixture.config(vec![query("ask.one", ONE)]);
        config.database.path = fixture.folder.path().join(file);
        Collector::start(&config).expect("starts")
    };
    let collectors = [start("a.db"), start("b.db")];
    let client = fixture.client();
    for _ in 0..200 {
        client.ask("ask.one", "").expect("rows");
    }
    let answered: Vec<u64> = collectors.iter().map(|collector| collector.status().requests.answered).collect();
    assert!(answered.iter().sum::<u64>() == 200 && answered.iter().all(|&count| count > 0), "{answered:?}");
    collectors.iter().for_each(stop);
}

#[test]
fn it_answers_again_when_the_server_is_back_or_goes_on() {
    let mut fixture = Fixture::new();
    for mode in [Mode::Jetstream, Mode::Core] {
        let mut config = fixture.config(vec![query("ask.one", ONE)]);
        config.broker.mode = mode;
        let collector = Collector::start(&config).expect("starts");
        let one = json!([{ "one": 1 }]);
        assert_eq!(fixture.client().ask("ask.one", ""), Ok(one.clone()));
        fixture.server.kill();
        eventually("the trouble to show", || collector.status().service);
        assert!(collector.health().troubles.iter().any(|trouble| trouble.part == "service"));
        fixture.server.restart();
        eventually("health", || collector.status().service.is_none().then_some(()));
        assert_eq!(fixture.client().ask("ask.one", ""), Ok(one.clone()));
        fixture.server.signal("STOP");
        eventually("the silence to be noticed", || collector.status().service);
        fixture.server.signal("CONT");
        eventually("health", || collector.status().service.is_none().then_some(()));
        assert_eq!(fixture.client().until_answered("ask.one"), one);
        stop(&collector);
    }
}

#[test]
fn only_who_has_queries_has_threads_and_a_connection_for_them() {
    let fixture = Fixture::new();
    // Beside the link's own there are two threads of the client, which take its name.
    let connections = |process: &collector::Collector| process.thread_names()["catchment-link"] / 3;
    // The kernel keeps fifteen letters of a name.
    let ours = |process: &collector::Collector| {
        let names = process.thread_names();
        ["catchment-query", "catchment-reque"].map(|name| names.get(name).copied().unwrap_or(0))
    };
    let plain = collector::Collector::start(
        run(&fixture.server.url(), &fixture.database()),
        &fixture.folder.path().join("log"),
    );
    plain.said("collecting stream");
    assert_eq!(ours(&plain), [0, 0]);
    assert_eq!(connections(&plain), 1);
    assert!(plain.stop().success());
    let asked = fixture.process("ask.one", ONE);
    fixture.client().until_answered("ask.one");
    assert_eq!(ours(&asked), [2, 1]);
    assert_eq!(connections(&asked), 2);
    assert!(asked.stop().success());
}

#[test]
fn a_stop_answers_waiting_and_interrupts_hanging_queries() {
    let fixture = Fixture::new();
    let slow = format!(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT max(i) AS i FROM n",
        300_000
    );
    let endless = with(query("ask.endless", ENDLESS), |query| query.timeout = Duration::from_secs(3600));
    let patient = with(query("ask.slow", &slow), |query| query.timeout = Duration::from_secs(60));
    let start = || fixture.collector_of_one_thread(vec![patient.clone(), endless.clone()]);
    let client = fixture.client();
    let replies = client.0.subscribe("_INBOX.waiting").expect("subscribes");
    let collector = start();
    for _ in 0..5 {
        client.0.publish_request("ask.slow", "_INBOX.waiting", "").expect("published");
    }
    client.0.flush().expect("the server has them");
    eventually("a first answer", || (collector.status().requests.answered > 0).then_some(()));
    stop(&collector);
    for _ in 0..5 {
        let reply = replies.next_timeout(Duration::from_secs(1)).expect("sent before the stop ended");
        assert_eq!(String::from_utf8_lossy(&reply.data), r#"[{"i":300000}]"#);
    }
    let collector = start();
    client.0.publish_request("ask.endless", "_INBOX.waiting", "").expect("published");
    client.0.flush().expect("the server has it");
    let began = Instant::now();
    collector.stop(Duration::from_secs(2)).expect("stops");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let reply = replies.next_timeout(Duration::from_secs(1)).expect("sent before the stop ended");
    let said = String::from_utf8_lossy(&reply.data);
    assert_eq!(said, r#"{"code":503,"error":"the collector is stopping"}"#);
}

#[test]
fn a_stream_that_takes_requests_for_events_is_said() {
    let fixture = Fixture::new();
    fixture.server.make_stream("OTHER", &["ask.>"]);
    let collector = fixture.process("ask.one", ONE);
    collector.said("service: stream OTHER takes requests on ask.one for events");
    assert!(collector.stop().success());
    let said = output(&mut fixture.asking(&["ask.one"]));
    assert_eq!(said.status.code(), Some(1));
    assert!(
        stderr(&said).contains("stream OTHER stores messages on ask.one: the request would become an event"),
        "{}",
        stderr(&said)
    );
}

#[test]
fn denied_rights_are_reported_and_events_still_stored() {
    // May neither listen on ask.secret nor publish replies to anything but the usual inboxes.
    let fixture = Fixture::configured(
        r#"jetstream: {}
        authorization { users: [
            { user: ours, password: ours, permissions: {
                subscribe: { deny: ["ask.secret"] }, publish: { deny: ["private.>"] } } }
            { user: all, password: all } ] }"#,
    );
    let url = |user: &str| format!("nats://{user}:{user}@127.0.0.1:{}", fixture.server.port());
    let mut config = fixture.config(vec![query("ask.one", ONE), query("ask.secret", ONE)]);
    config.broker.servers = vec![url("ours")];
    let collector = Collector::start(&config).expect("starts");
    let trouble = collector.status().service.expect("it is said").reason;
    assert!(trouble.contains("ask.secret") && trouble.contains("allow this user to subscribe"), "{trouble}");
    let client = Client(nats::connect(url("all")).expect("connects"));
    assert_eq!(client.ask("ask.one", ""), Ok(json!([{ "one": 1 }])), "the others are answered");
    let private = client.0.subscribe("private.a").expect("subscribes");
    client.0.publish_request("ask.one", "private.a", "").expect("published");
    eventually("the request to be answered", || (collector.status().requests.answered == 2).then_some(()));
    assert_eq!(client.ask("ask.one", ""), Ok(json!([{ "one": 1 }])), "behind a reply that is denied");
    assert!(private.try_next().is_none());
    client.0.publish("events.a", "x").expect("published");
    eventually("the event", || (collector.status().committed == 1).then_some(()));
    stop(&collector);
}

#[test]
fn over_tls_small_answers_come_at_once_and_large_ones_whole() {
    const LARGE: usize = 500_000;
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "ours");
    let pair = authority.issue(&["127.0.0.1"]);
    // Whoever asks does without: the client alone has its own troubles with TLS.
    let files = format!("cert_file: {:?}, key_file: {:?}", pair.cert, pair.key);
    let tls = format!("jetstream: {{}}\nallow_non_tls: true\ntls {{ {files} }}");
    let fixture = Fixture::configured(&tls);
    let large = with(query("ask.large", "SELECT hex(zeroblob(:n)) AS h"), |query| query.max_bytes = ByteSize::mib(1));
    let mut config = fixture.config(vec![query("ask.one", ONE), large]);
    config.broker.tls.ca = Some(authority.file.clone());
    // What waits for a word of the server waits for long.
    config.broker.silence = Duration::from_secs(60);
    let collector = Collector::start(&config).expect("starts");
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let client = fixture.client();
            thread::spawn(move || {
                for _ in 0..25 {
                    let rows = client.ask("ask.large", format!("{{\"n\":{}}}", LARGE / 2)).expect("rows");
                    assert_eq!(rows[0]["h"].as_str().map(str::len), Some(LARGE));
                    assert_eq!(client.ask("ask.one", ""), Ok(json!([{ "one": 1 }])));
                }
            })
        })
        .collect();
    for asking in asking {
        asking.join().expect("each is answered");
    }
    let client = fixture.client();
    for _ in 0..100 {
        let began = Instant::now();
        client.ask("ask.one", "").expect("rows");
        assert!(began.elapsed() < Duration::from_secs(5), "no answer waits for the next one: {:?}", began.elapsed());
    }
    let status = collector.stop(Duration::from_secs(10)).expect("stops");
    assert_eq!((status.requests.answered, status.requests.failed), (300, 0));
}

/// `MSG ask.one 1 REPLY 0` and its line end are as long as the client reads with a reply of 4,078 bytes. The server takes
/// one of 4,086.
const LONGEST_READ: usize = 4_096 - "MSG ask.one 1  0\r\n".len();

#[test]
fn an_overlong_reply_subject_gets_no_reply() {
    let fixture = Fixture::new();
    let collector = fixture.process("ask.one", ONE);
    collector.said("answers on ask.one");
    let client = fixture.client();
    client.until_answered("ask.one");
    for length in [2_049, 3_000, LONGEST_READ] {
        client.0.publish_request("ask.one", &reply_of(length), "").expect("published");
    }
    client.until_answered("ask.one");
    let log = collector.log();
    assert!(log.contains("a request is not answered: the subject \"_INBOX.aaa"), "{log}");
    assert_eq!((log.matches("is not answered").count(), log.contains("was lost")), (1, false), "{log}");
    // One more byte, and the client ends the connection.
    client.0.publish_request("ask.one", &reply_of(LONGEST_READ + 1), "").expect("published");
    collector.said("a message came that the NATS client cannot read");
    collector.said("service: well again");
    assert_eq!(client.until_answered("ask.one"), json!([{ "one": 1 }]));
    assert!(collector.stop().success());
}

#[test]
fn a_server_with_shorter_lines_refuses_long_subjects() {
    let fixture = Fixture::configured("jetstream {}\nmax_control_line: 4000\n");
    let collector = fixture.process("ask.one", ONE);
    collector.said("answers on ask.one");
    let stranger = fixture.client();
    for length in [3_900, LONGEST_READ + 1, 4_086] {
        let _ = stranger.0.publish_request("ask.one", &reply_of(length), "");
        let _ = stranger.0.flush();
    }
    fixture.client().until_answered("ask.one");
    assert!(!collector.log().contains("was lost"), "{}", collector.log());
    assert!(collector.stop().success());
}

fn reply_of(length: usize) -> String {
    format!("{:a<length$}", "_INBOX.")
}
