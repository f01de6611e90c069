//! Queries over NATS: answered while events are written, within their limits, found by discovery, and again after whatever
//! happens to the server.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use catchment::config::{Mode, QueryConfig};
use catchment::{Collector, Config, Error};
use serde_json::{Value, json};

use crate::support::collector::{self, catchment, output, run, stderr};
use crate::support::server::Server;
use crate::support::{eventually, load, oracle};

const RECENT: &str = "SELECT id, payload ->> '$.n' AS n FROM events ORDER BY id DESC LIMIT coalesce(:limit, 5)";
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS i FROM n";

struct Scene {
    folder: tempfile::TempDir,
    server: Server,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start(folder.path());
        Self { folder, server }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("a.db")
    }

    fn config(&self, queries: Vec<QueryConfig>) -> Config {
        let mut config = Config { broker: self.server.config(), queries, ..Config::default() };
        config.database.path = self.database();
        config
    }

    fn collector(&self, queries: Vec<QueryConfig>) -> Collector {
        Collector::start(&self.config(queries)).expect("starts")
    }

    /// Publishes events numbered from 0 and waits for their rows.
    fn filled(&self, events: u64) {
        load::publish(&self.server, events);
        eventually("the rows", || (oracle::count(&self.database()) == events).then_some(()));
    }

    fn client(&self) -> Client {
        Client(self.server.client())
    }
}

/// Asks as a program does that knows nothing of catchment.
#[derive(Clone)]
struct Client(nats::Connection);

/// A reply: its body, or its code and reason.
type Replied = Result<Value, (u16, String)>;

impl Client {
    fn ask(&self, subject: &str, body: impl AsRef<[u8]>) -> Replied {
        self.try_to_ask(subject, body).unwrap_or_else(|e| panic!("{subject}: {e}"))
    }

    fn try_to_ask(&self, subject: &str, body: impl AsRef<[u8]>) -> std::io::Result<Replied> {
        let message = self.0.request_timeout(subject, body, Duration::from_secs(10))?;
        let header = |name| message.headers.as_ref().and_then(|headers| headers.get(name)).cloned();
        let body: Value = serde_json::from_slice(&message.data).expect("JSON");
        Ok(match (header("Nats-Service-Error-Code"), header("Nats-Service-Error")) {
            (Some(code), Some(reason)) => {
                let code = code.parse().expect("a number");
                assert_eq!(body, json!({ "code": code, "error": reason }), "the body says what the headers say");
                Err((code, reason))
            }
            (None, None) => Ok(body),
            half => panic!("half an error: {half:?}"),
        })
    }

    /// Waits until requests are answered.
    fn until_answered(&self, subject: &str) -> Value {
        eventually("an answer", || self.try_to_ask(subject, "").ok()?.ok())
    }
}

fn query(subject: &str, sql: &str) -> QueryConfig {
    QueryConfig::new(subject, sql)
}

fn stop(collector: Collector) {
    collector.stop(Duration::from_secs(10)).expect("stops");
}

#[track_caller]
fn refused(replied: Replied, code: u16, words: &str) {
    let (found, reason) = replied.expect_err("must be refused");
    assert!(found == code && reason.contains(words), "{found} {reason}, not {code} {words}");
}

#[test]
fn a_stopped_collector_leaves_all_in_the_one_file() {
    let scene = Scene::new();
    let collector = scene.collector(vec![query("ask.recent", RECENT)]);
    scene.filled(10);
    scene.client().until_answered("ask.recent");
    stop(collector);
    let log = scene.folder.path().join("a.db-wal");
    assert!(!log.exists(), "the last connection to close was one that only reads");
}

#[test]
fn rows_are_answered_with_what_the_request_binds() {
    let scene = Scene::new();
    let of_token =
        "SELECT :token_3 AS token, :header_trace_id AS trace, :published_s > 1700000000 AS now, :stream AS stream";
    let collector = scene.collector(vec![query("ask.recent", RECENT), query("ask.by.*", of_token)]);
    scene.filled(10);
    let client = scene.client();
    let row = |n: u64| json!({ "id": n + 1, "n": n });
    assert_eq!(client.ask("ask.recent", r#"{"limit":2}"#), Ok(json!([row(9), row(8)])));
    assert_eq!(client.ask("ask.recent", ""), Ok(json!([row(9), row(8), row(7), row(6), row(5)])));
    let headers = nats::HeaderMap::from_iter([("Trace-Id", "7")]);
    let answer = client.0.request_with_headers("ask.by.ann", "", &headers).expect("an answer");
    let answer: Value = serde_json::from_slice(&answer.data).expect("JSON");
    assert_eq!(answer, json!([{ "token": "ann", "trace": "7", "now": 1, "stream": null }]));
    let status = collector.status();
    assert_eq!((status.asked.answered, status.asked.failed), (3, 0));
    assert!(status.service.is_none());
    stop(collector);
    assert_eq!(client.try_to_ask("ask.recent", "").expect_err("nobody").to_string(), "no responders");
}

#[test]
fn what_cannot_be_answered_gets_an_error_and_the_next_an_answer() {
    let scene = Scene::new();
    let two = QueryConfig { max_rows: 2, ..query("ask.two", RECENT) };
    let small = QueryConfig { max_bytes: ByteSize::b(64), ..query("ask.small", RECENT) };
    let huge = QueryConfig { max_bytes: ByteSize::mib(64), ..query("ask.huge", "SELECT hex(zeroblob(:n)) AS h") };
    let endless = QueryConfig { timeout: Duration::from_millis(200), ..query("ask.endless", ENDLESS) };
    let collector = scene.collector(vec![two, small, huge, endless, query("ask.recent", RECENT)]);
    scene.filled(10);
    let client = scene.client();
    refused(client.ask("ask.two", ""), 413, "larger than 2 rows, its max_rows");
    assert!(client.ask("ask.two", r#"{"limit":2}"#).is_ok());
    refused(client.ask("ask.small", ""), 413, "larger than 64 bytes, its max_bytes");
    refused(client.ask("ask.huge", r#"{"n":600000}"#), 413, "all that the server takes");
    assert!(client.ask("ask.huge", r#"{"n":500000}"#).is_ok(), "as large as the server takes");
    let began = Instant::now();
    refused(client.ask("ask.endless", ""), 504, "took longer than its timeout, 200ms");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    refused(client.ask("ask.recent", r#"{"limit":"many"}"#), 400, "datatype mismatch");
    refused(client.ask("ask.recent", "{\"limit\":"), 400, "cannot be read as JSON");
    assert_eq!(client.ask("ask.recent", r#"{"limit":1}"#), Ok(json!([{ "id": 10, "n": 9 }])));
    assert_eq!(collector.status().asked.failed, 6);
    stop(collector);
}

#[test]
fn a_query_that_does_not_fit_stops_the_start_with_its_name() {
    let scene = Scene::new();
    for (sql, words) in [
        (
            "SELECT subject,\n       body FROM events",
            "query ask.q: no such column: body (at 2:8, \"body FROM events\")",
        ),
        ("DELETE FROM events", "query ask.q: it does something else than read"),
        ("SELECT ?", "query ask.q: it has a parameter ? without a name"),
    ] {
        let error = Collector::start(&scene.config(vec![query("ask.q", sql)])).expect_err(sql);
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = Collector::start(&scene.config(vec![query("events.q", "SELECT 1")])).expect_err("among the events");
    assert!(matches!(error, Error::Config { .. }) && error.to_string().contains("among broker.subjects"), "{error}");
}

#[test]
fn many_clients_are_answered_while_events_are_written_and_see_what_is_committed() {
    const EVENTS: u64 = 60_000;
    const CLIENTS: usize = 8;
    let scene = Scene::new();
    let count = query("ask.count", "SELECT count(*) AS n, max(sequence) AS last FROM events WHERE :word = 'all'");
    let mut config = scene.config(vec![count, query("ask.recent", RECENT)]);
    config.service.threads = 4;
    let collector = Collector::start(&config).expect("starts");
    let done = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (client, done, asked) = (scene.client(), Arc::clone(&done), Arc::clone(&asked));
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
    let kept = load::publish(&scene.server, EVENTS);
    eventually("all rows", || (collector.status().committed == EVENTS).then_some(()));
    let client = scene.client();
    let all = json!([{ "n": EVENTS, "last": EVENTS }]);
    assert_eq!(client.ask("ask.count", r#"{"word":"all"}"#), Ok(all), "what is committed is seen");
    eventually("many answers", || (asked.load(Ordering::Relaxed) > 500).then_some(()));
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("every request was answered");
    }
    let status = collector.stop(Duration::from_secs(10)).expect("stops");
    assert_eq!((status.asked.answered, status.asked.failed), (asked.load(Ordering::Relaxed) + 1, 0));
    oracle::is_exactly(&scene.database(), &kept);
}

#[test]
fn requests_beyond_those_that_may_wait_are_refused_at_once() {
    let scene = Scene::new();
    let slow = QueryConfig { timeout: Duration::from_secs(2), ..query("ask.slow", ENDLESS) };
    let mut config = scene.config(vec![slow, query("ask.one", "SELECT 1 AS one")]);
    (config.service.threads, config.service.waiting) = (1, 3);
    let collector = Collector::start(&config).expect("starts");
    let asking: Vec<_> = (0..12)
        .map(|_| {
            let client = scene.client();
            thread::spawn(move || (Instant::now(), client.ask("ask.slow", ""), Instant::now()))
        })
        .collect();
    let mut codes = Vec::new();
    for asked in asking {
        let (began, replied, ended) = asked.join().expect("an answer");
        let (code, reason) = replied.expect_err("no answer");
        if reason.contains("wait already") {
            assert!(ended - began < Duration::from_secs(1), "at once: {:?}", ended - began);
        }
        codes.push((code, reason.contains("wait already")));
    }
    // One runs, three wait; of those the first may have its turn before it has waited for too long.
    let refused = codes.iter().filter(|(_, at_once)| *at_once).count();
    assert_eq!(refused, 8, "{codes:?}");
    assert!(codes.iter().all(|(code, at_once)| *code == 503 || (!at_once && *code == 504)), "{codes:?}");
    assert_eq!(scene.client().ask("ask.one", ""), Ok(json!([{ "one": 1 }])), "then it goes on");
    stop(collector);
}

#[test]
fn discovery_finds_the_service_and_counts_what_it_did() {
    let scene = Scene::new();
    let mut config = scene.config(vec![query("ask.recent", RECENT), query("ask.by.*", "SELECT :token_3 AS token")]);
    (config.service.name, config.service.description) = ("weather".into(), "readings".into());
    let collector = Collector::start(&config).expect("starts");
    let client = scene.client();
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
        { "name": "ask_by__", "subject": "ask.by.*", "queue_group": "q", "metadata": { "parameters": "token_3" } },
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
    stop(collector);
}

#[test]
fn of_two_collectors_one_answers_each_request() {
    let scene = Scene::new();
    let name = "SELECT 1 AS one";
    let start = |file: &str| {
        let mut config = scene.config(vec![query("ask.one", name)]);
        config.database.path = scene.folder.path().join(file);
        Collector::start(&config).expect("starts")
    };
    let collectors = [start("a.db"), start("b.db")];
    let client = scene.client();
    for _ in 0..200 {
        client.ask("ask.one", "").expect("rows");
    }
    let answered: Vec<u64> = collectors.iter().map(|collector| collector.status().asked.answered).collect();
    assert!(answered.iter().sum::<u64>() == 200 && answered.iter().all(|&count| count > 0), "{answered:?}");
    collectors.into_iter().for_each(stop);
}

#[test]
fn it_answers_again_when_the_server_is_back_or_goes_on() {
    let mut scene = Scene::new();
    for mode in [Mode::Jetstream, Mode::Core] {
        let mut config = scene.config(vec![query("ask.one", "SELECT 1 AS one")]);
        config.broker.mode = mode;
        let collector = Collector::start(&config).expect("starts");
        let one = json!([{ "one": 1 }]);
        assert_eq!(scene.client().ask("ask.one", ""), Ok(one.clone()));
        scene.server.kill();
        eventually("the trouble to show", || collector.status().service);
        assert!(collector.health().troubles.iter().any(|trouble| trouble.part == "service"));
        scene.server.restart();
        eventually("health", || collector.status().service.is_none().then_some(()));
        assert_eq!(scene.client().ask("ask.one", ""), Ok(one.clone()));
        scene.server.signal("STOP");
        eventually("the silence to be noticed", || collector.status().service);
        scene.server.signal("CONT");
        eventually("health", || collector.status().service.is_none().then_some(()));
        assert_eq!(scene.client().until_answered("ask.one"), one);
        stop(collector);
    }
}

#[test]
fn only_who_has_queries_has_threads_and_a_connection_for_them() {
    let scene = Scene::new();
    // Beside the link's own there are two threads of the client, which take its name.
    let connections = |process: &collector::Collector| process.thread_names()["catchment-link"] / 3;
    // The kernel keeps fifteen letters of a name.
    let ours = |process: &collector::Collector| {
        let names = process.thread_names();
        ["catchment-query", "catchment-reque"].map(|name| names.get(name).copied().unwrap_or(0))
    };
    let plain =
        collector::Collector::start(run(&scene.server.url(), &scene.database()), &scene.folder.path().join("log"));
    plain.said("collecting stream");
    assert_eq!(ours(&plain), [0, 0]);
    assert_eq!(connections(&plain), 1);
    assert!(plain.stop().success());
    std::fs::write(scene.folder.path().join("a.toml"), toml("ask.one", "SELECT 1 AS one")).expect("writes");
    let asked = scene.process();
    scene.client().until_answered("ask.one");
    assert_eq!(ours(&asked), [2, 1]);
    assert_eq!(connections(&asked), 2);
    assert!(asked.stop().success());
}

#[test]
fn what_waits_is_answered_before_a_stop_and_what_hangs_is_broken_off() {
    let scene = Scene::new();
    let slow = format!(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT max(i) AS i FROM n",
        300_000
    );
    let endless = QueryConfig { timeout: Duration::from_secs(3600), ..query("ask.endless", ENDLESS) };
    let patient = QueryConfig { timeout: Duration::from_secs(60), ..query("ask.slow", &slow) };
    let start = || {
        let mut config = scene.config(vec![patient.clone(), endless.clone()]);
        config.service.threads = 1;
        Collector::start(&config).expect("starts")
    };
    let client = scene.client();
    let replies = client.0.subscribe("_INBOX.waiting").expect("subscribes");
    let collector = start();
    for _ in 0..5 {
        client.0.publish_request("ask.slow", "_INBOX.waiting", "").expect("published");
    }
    client.0.flush().expect("the server has them");
    eventually("a first answer", || (collector.status().asked.answered > 0).then_some(()));
    stop(collector);
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
    let scene = Scene::new();
    scene.server.make_stream("OTHER", &["ask.>"]);
    std::fs::write(scene.folder.path().join("a.toml"), toml("ask.one", "SELECT 1 AS one")).expect("writes");
    let collector = scene.process();
    collector.said("service: stream OTHER takes requests on ask.one for events");
    assert!(collector.stop().success());
    let said = output(&mut scene.asking(&["ask.one"]));
    assert_eq!(said.status.code(), Some(1));
    assert!(stderr(&said).contains("stream OTHER took the request for an event"), "{}", stderr(&said));
}

fn toml(subject: &str, sql: &str) -> String {
    format!("[[query]]\nsubject = {subject:?}\nsql = {sql:?}\n")
}

impl Scene {
    /// `catchment run` with the configuration a.toml.
    fn process(&self) -> collector::Collector {
        let mut command = run(&self.server.url(), &self.database());
        command.arg("--config").arg(self.folder.path().join("a.toml"));
        collector::Collector::start(command, &self.folder.path().join("log"))
    }

    fn asking(&self, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.args(["query", "--server", &self.server.url()]).args(arguments);
        command
    }
}

#[test]
fn the_command_asks_and_prints_rows() {
    let scene = Scene::new();
    let sql = "SELECT :a AS a, :b AS b, x'ff00' AS bytes, NULL AS none, 1.5 AS real";
    std::fs::write(scene.folder.path().join("a.toml"), toml("ask.echo", sql)).expect("writes");
    let nobody = output(&mut scene.asking(&["ask.echo"]));
    assert_eq!(nobody.status.code(), Some(1));
    let said = stderr(&nobody);
    assert!(
        said.contains("nobody answers on ask.echo") && said.contains("[[query]]") && said.lines().count() == 1,
        "{said}"
    );
    let collector = scene.process();
    collector.said("collecting stream");
    let printed = |arguments: &[&str]| {
        let done = output(&mut scene.asking(arguments));
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
    let failed =
        output(&mut scene.asking(&["ask.echo", "-"]).stdin(std::fs::File::open("Cargo.toml").expect("a file")));
    let said = stderr(&failed);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        said.starts_with("catchment: query ask.echo: ")
            && said.contains("cannot be read as JSON")
            && said.contains("(error 400)"),
        "{said}"
    );
    assert_eq!(output(&mut scene.asking(&["ask.echo", "a"])).status.code(), Some(2));
    let several = output(&mut scene.asking(&["ask.*"]));
    assert_eq!(several.status.code(), Some(2), "as of publish");
    assert_eq!(stderr(&several), "catchment: the subject \"ask.*\" has a wildcard, and it must be one subject\n");
    let client = scene.server.client();
    let silent = client.subscribe("ask.silent").expect("subscribes");
    client.flush().expect("the server knows");
    let late = output(&mut scene.asking(&["ask.silent", "--timeout", "300ms"]));
    let said = stderr(&late);
    assert!(late.status.code() == Some(1) && said.contains("ask.silent: no answer within 300ms"), "{said}");
    drop(silent);
    assert!(collector.stop().success());
}
