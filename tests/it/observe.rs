//! The HTTP server of a collector: what it answers, whom, and what bad clients cost.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::collector::{Collector, catchment, output, stderr};
use crate::support::fixture::Fixture;
use crate::support::http::{Answer, Observed, on_socket};
use crate::support::{eventually, eventually_within, oracle};

fn observed(fixture: &Fixture) -> (Collector, Observed) {
    let mut command = fixture.run();
    let observed = Observed::on(&mut command);
    let collector = Collector::start(command, &fixture.path("collector.log"));
    observed.ready(true, &[]);
    (collector, observed)
}

/// The names of the metrics in a text, with the endings of counters and histograms.
fn names(metrics: &str) -> BTreeSet<String> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// The value of a metric, as text: `1000`.
fn shown(metrics: &str, name: &str) -> String {
    value(metrics, name).to_string()
}

/// The value of a metric.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {metrics}"))
}

#[test]
fn metrics_count_what_is_committed() {
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture);
    fixture.publish("event", 1_000);
    fixture.has(1_000);
    // The last that is counted after a commit.
    let last = "catchment_publish_to_commit_seconds_count";
    eventually("all events in the metrics", || (shown(&observed.get("/metrics").body, last) == "1000").then_some(()));
    let answer = observed.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let metrics = answer.body;
    for (name, expected) in [
        ("catchment_events_received_total", "1000"),
        ("catchment_dead_letters_total", "0"),
        ("catchment_batch_events_sum", "1000"),
        ("catchment_publish_to_commit_seconds_count", "1000"),
        ("catchment_queue_events", "0"),
        ("catchment_queue_bytes", "0"),
        ("catchment_consumer_num_pending", "0"),
        ("catchment_stream_sequence", "1000"),
        ("catchment_connected", "1"),
        ("catchment_ready", "1"),
        ("catchment_route_events_total{route=\"(none)\"}", "1000"),
    ] {
        assert_eq!(shown(&metrics, name), expected, "{name}");
    }
    assert_eq!(shown(&metrics, "catchment_batches_committed_total"), shown(&metrics, "catchment_batch_events_count"));
    assert_eq!(
        shown(&metrics, "catchment_commit_duration_seconds_count"),
        shown(&metrics, "catchment_batch_events_count")
    );
    assert!(value(&metrics, "catchment_commit_duration_seconds_sum") > 0.0);
    // Read once a second.
    for name in ["catchment_wal_size_bytes", "catchment_database_size_bytes", "process_resident_memory_bytes"] {
        eventually(name, || (value(&observed.get("/metrics").body, name) > 0.0).then_some(()));
    }
    assert!(value(&metrics, "catchment_last_commit_timestamp_seconds") > 1.7e9);
    let status = observed.get("/status").json();
    let totals = &status["totals"];
    assert_eq!(
        (&totals["committed"], &totals["received"], &status["state"]),
        (&json!(1_000), &json!(1_000), &json!("well"))
    );
    assert_eq!(totals["received_bytes"], totals["committed_bytes"]);
    assert!(collector.stop().success());
}

/// Runs the script that reads metrics with Prometheus's own parsers; `None` where there is no Python for it.
fn parsed(metrics: &Path, format: &str) -> Option<String> {
    let python = std::env::var_os("PYTHON_WITH_NATS").filter(|python| !python.is_empty())?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/metrics.py");
    let done = Command::new(python).args([script, format]).arg(metrics).output().expect("Python runs");
    assert!(done.status.success(), "{}", stderr(&done));
    Some(String::from_utf8(done.stdout).expect("UTF-8")).filter(|said| said != "no parser\n")
}

#[test]
fn prometheus_reads_the_metrics_with_its_own_parser() {
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture);
    fixture.publish("event", 10);
    fixture.has(10);
    for (format, accept) in [("openmetrics", "application/openmetrics-text"), ("text", "text/plain")] {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
        let metrics = observed.send(request).expect("an answer").body;
        let file = fixture.path(format);
        std::fs::write(&file, &metrics).expect("writes");
        let Some(read) = parsed(&file, format) else {
            let why = "skipped: the parser of Prometheus: PYTHON_WITH_NATS names no Python with prometheus-client";
            writeln!(std::io::stderr(), "{why}").expect("writes");
            return;
        };
        let read: BTreeSet<String> = read.lines().map(str::to_owned).collect();
        assert_eq!(read, names(&metrics), "{format}");
    }
    assert!(collector.stop().success());
}

#[test]
fn the_dashboard_and_the_alerts_name_metrics_that_exist() {
    let fixture = Fixture::new();
    fixture.file(
        "catchment.toml",
        "[upkeep]\nretain_every = '1s'\n[retention]\nevents = { rows = 1 }\n[[query]]\nsubject = 'ask.one'\nsql = 'SELECT 1'\n",
    );
    let mut command = fixture.run();
    command.current_dir(fixture.folder.path());
    let observed = Observed::on(&mut command);
    let collector = Collector::start(command, &fixture.path("collector.log"));
    observed.ready(true, &[]);
    fixture.publish("event", 2);
    let known = eventually("every metric", || {
        let known = names(&observed.get("/metrics").body);
        let are_all = ["catchment_stored_dead_letters", "catchment_retention_rows_total"];
        are_all.iter().all(|name| known.contains(*name)).then_some(known)
    });
    // Prometheus has a label `job` of its own.
    let metrics = observed.get("/metrics").body;
    assert!(metrics.contains("catchment_upkeep_failing{task=\"") && !metrics.contains("{job="), "{metrics}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let page = include_str!("../../docs/monitoring.md");
    let mut found = BTreeSet::new();
    for file in ["grafana-dashboard.json", "prometheus-alerts.yml"] {
        let text = std::fs::read_to_string(root.join(file)).expect(file);
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let used =
            text.split(|c| !word(c)).filter(|name| name.starts_with("catchment_") || name.starts_with("process_"));
        for name in used {
            assert!(known.contains(name), "{file}: {name}");
            found.insert(name.to_owned());
        }
    }
    assert!(found.len() > 20, "{found:?}");
    let dashboard = std::fs::read_to_string(root.join("grafana-dashboard.json")).expect("reads");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 8), "{dashboard}");
    for name in &known {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let is_listed = page.contains(&format!("`{family}`")) || page.contains(&format!("`{name}`"));
        assert!(is_listed, "{name} is not in docs/monitoring.md");
    }
    assert!(collector.stop().success());
}

#[test]
fn every_path_has_its_answer_and_every_answer_its_bounds() {
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture);
    for (target, status, kind) in [
        ("/", 200, "text/html; charset=utf-8"),
        ("/metrics", 200, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("/healthz", 200, "text/plain; charset=utf-8"),
        ("/readyz", 200, "text/plain; charset=utf-8"),
        ("/status", 200, "application/json; charset=utf-8"),
        ("/status?format=json", 200, "application/json; charset=utf-8"),
        ("/nothing", 404, "text/plain; charset=utf-8"),
        ("/../etc/passwd", 404, "text/plain; charset=utf-8"),
        ("//healthz", 404, "text/plain; charset=utf-8"),
    ] {
        let answer = observed.get(target);
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(kind)), "{target}");
        for (name, expected) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("connection", "close"),
        ] {
            assert_eq!(answer.header(name), Some(expected), "{target}");
        }
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{target}: {policy}");
        let head = {
            let mut stream = observed.connect().expect("connects");
            write!(stream, "HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("writes");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("reads");
            text
        };
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && head.ends_with("\r\n\r\n"), "{target}: {head}");
    }
    let json = observed.send("GET /readyz HTTP/1.1\r\nHost: a.localhost\r\nHost: b\r\n\r\n").expect("an answer");
    assert_eq!(json.status, 400);
    for (request, status) in [
        ("POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03", 400),
        ("SSH-2.0-OpenSSH_9.2\r\n", 400),
        ("CONNECT {\"lang\":\"go\"}\r\n\r\n", 400),
    ] {
        assert_eq!(observed.send(request).map(|answer| answer.status), Some(status), "{request:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(9_000));
    assert_eq!(observed.send(long).map(|answer| answer.status), Some(431));
    let endless = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}", "A: b\r\n".repeat(5_000));
    // It may be cut off while it is still being sent.
    assert!(observed.send(endless).is_none_or(|answer| answer.status == 431));
    assert_eq!(observed.get("/healthz").body, "ok\n");
    assert!(collector.stop().success());
    assert!(observed.try_get("/healthz").is_none());
}

#[test]
fn a_slow_request_is_ended_and_its_client_told() {
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture);
    let mut slow = observed.connect().expect("connects");
    slow.write_all(b"GET / HT").expect("writes");
    let mut idle = observed.connect().expect("connects");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("reads");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let mut nothing = Vec::new();
    idle.read_to_end(&mut nothing).expect("reads");
    assert_eq!(nothing, b"");
    assert!(collector.stop().success());
}

#[test]
fn a_client_that_has_sent_its_request_and_sends_no_more_is_answered() {
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture);
    let answer = |request: &[u8]| {
        let mut client = observed.connect().expect("connects");
        client.write_all(request).expect("writes");
        client.shutdown(std::net::Shutdown::Write).expect("ends");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("reads");
        answer
    };
    for _ in 0..20 {
        let whole = answer(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(Answer::parse(&whole).map(|answer| answer.status), Some(200), "{whole:?}");
    }
    assert_eq!(answer(b"GET /healthz HTTP/1.1\r\n"), b"", "it is no request");
    assert!(collector.stop().success());
}

#[test]
fn beyond_loopback_there_is_no_start_without_a_token() {
    let fixture = Fixture::new();
    let port = crate::support::server::free_port();
    let listen = format!("0.0.0.0:{port}");
    let refused = output(fixture.run().env("CATCHMENT_OBSERVE__LISTEN", &listen));
    assert_eq!(refused.status.code(), Some(2));
    let said = stderr(&refused);
    assert!(
        said.contains("other machines can reach") && said.contains("observe.token") && said.lines().count() == 1,
        "{said}"
    );
    assert!(!fixture.database().exists() && !fixture.path("a.db.sock").exists());
    let token = "correct-horse-battery-staple";
    let file = fixture.file("token", format!("{token}\n"));
    let mut command = fixture.run();
    command.env("CATCHMENT_OBSERVE__LISTEN", &listen).env("CATCHMENT_OBSERVE__TOKEN_FILE", file);
    let (collector, observed) = (Collector::start(command, &fixture.path("log")), Observed(port));
    assert_eq!(observed.get("/healthz").status, 200);
    for path in ["/", "/metrics", "/readyz", "/status"] {
        let refused = observed.get(path);
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.head.contains("WWW-Authenticate: Bearer") && !refused.body.contains("EVENTS"), "{refused:?}");
        let with = |authorization: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: any.example\r\nAuthorization: {authorization}\r\n\r\n");
            observed.send(request).expect("an answer").status
        };
        assert_eq!(with(&format!("Bearer {token}x")), 401, "{path}");
        eventually("an answer with the token", || (with(&format!("Bearer {token}")) == 200).then_some(()));
    }
    let socket = on_socket(&fixture.path("a.db.sock"), "/status").expect("an answer without a token");
    assert_eq!(socket.status, 200);
    assert!(!socket.body.contains(token) && !collector.log().contains(token));
    assert!(collector.stop().success());
}

#[test]
fn no_secret_of_the_broker_is_shown() {
    let fixture =
        Fixture::configured_without_stream("jetstream: {}\nauthorization { user: me, password: hunter2secret }\n");
    let mut command = catchment();
    let url = fixture.server.url().replace("nats://", "nats://me:hunter2secret@");
    command.arg("run").args(["--server", &url, "--database"]).arg(fixture.database());
    let observed = Observed::on(&mut command);
    let collector = Collector::start(command, &fixture.path("log"));
    observed.ready(true, &[]);
    for path in ["/", "/metrics", "/readyz", "/status"] {
        let answer = observed.get(path);
        assert!(answer.status == 200 && !answer.body.contains("hunter2"), "{}", answer.body);
    }
    assert!(collector.stop().success());
}

#[test]
fn an_address_in_use_fails_the_start_and_makes_nothing() {
    let fixture = Fixture::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("an address").to_string();
    let refused = output(fixture.run().env("CATCHMENT_OBSERVE__LISTEN", &listen));
    let said = stderr(&refused);
    assert!(!refused.status.success() && said.contains(&listen) && said.contains("observe.listen"), "{said}");
    assert!(!fixture.database().exists());
}

#[test]
fn the_socket_is_the_owners_and_lives_with_the_collector() {
    let fixture = Fixture::new();
    let socket = fixture.path("a.db.sock");
    let collector = fixture.collector();
    let status = eventually("an answer", || on_socket(&socket, "/status"));
    assert_eq!(status.json()["program"]["pid"], collector.pid());
    let file = std::fs::symlink_metadata(&socket).expect("is there");
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    collector.kill();
    assert!(socket.exists(), "a killed process leaves it behind");
    let collector = fixture.collector();
    eventually("an answer of the next one", || {
        let status = on_socket(&socket, "/status")?;
        (status.json()["program"]["pid"] == collector.pid()).then_some(())
    });
    assert!(collector.stop().success());
    assert!(!socket.exists());
    std::fs::write(&socket, "mine").expect("writes");
    let collector = fixture.collector();
    collector.said("there is a file of this name that is no socket");
    fixture.publish("event", 3);
    fixture.has(3);
    assert!(collector.stop().success());
    assert_eq!(std::fs::read_to_string(&socket).expect("is there"), "mine");
}

#[test]
fn a_socket_can_be_configured_instead_of_a_port() {
    let fixture = Fixture::new();
    let socket = fixture.path("http.sock");
    let mut command = fixture.run();
    command.env("CATCHMENT_OBSERVE__LISTEN", format!("unix:{}", socket.display()));
    let collector = Collector::start(command, &fixture.path("log"));
    let answer = eventually("an answer", || on_socket(&socket, "/healthz"));
    assert_eq!(answer.body, "ok\n");
    assert!(collector.stop().success());
    assert!(!socket.exists());
}

#[test]
fn while_it_waits_for_its_broker_it_lives_and_is_not_ready() {
    let fixture = Fixture::new();
    let mut command = catchment();
    let nowhere = format!("nats://127.0.0.1:{}", crate::support::server::free_port());
    command.args(["run", "--wait", "1m", "--server", &nowhere, "--database"]).arg(fixture.database());
    let observed = Observed::on(&mut command);
    let collector = Collector::start(command, &fixture.path("log"));
    assert_eq!(observed.get("/healthz").status, 200);
    observed.ready(false, &["it has not started yet"]);
    assert_eq!(observed.get("/status").json()["state"], "starting");
    let _ = collector.stop();
}

/// Clients that connect and send nothing, and clients that send a byte at a time, until this is dropped.
struct BadClients<'s> {
    over: &'s AtomicBool,
}

impl Drop for BadClients<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn idle(observed: Observed, count: usize, over: &AtomicBool) {
    let mut open: Vec<TcpStream> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        while open.len() < count {
            match observed.connect() {
                Ok(stream) => open.push(stream),
                Err(_) => break,
            }
        }
        // Those that the server has closed are replaced.
        let is_open = |stream: &TcpStream| {
            stream.set_nonblocking(true).expect("sets");
            stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        open.retain(is_open);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn slow(observed: Observed, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let Ok(mut stream) = observed.connect() else { continue };
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".iter().cycle() {
            if over.load(Ordering::Relaxed) || stream.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn idle_and_slow_clients_lose_no_event_and_keep_nobody_out() {
    const EVENTS: usize = 100_000;
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture);
    let over = AtomicBool::new(false);
    let payloads = std::thread::scope(|scope| {
        let _bad = BadClients { over: &over };
        scope.spawn(|| idle(observed, 500, &over));
        (0..50).for_each(|_| _ = scope.spawn(|| slow(observed, &over)));
        let payloads = fixture.publish("event", EVENTS);
        let mut answers = 0;
        eventually_within(Duration::from_secs(600), "all events to be committed", &mut || {
            // A client that asks is answered meanwhile. One may be pushed out by those that come after it.
            answers += u64::from(observed.try_get("/healthz").is_some());
            (oracle::position(&fixture.database()) >= EVENTS as u64).then_some(())
        });
        assert!(answers > 0, "nobody was answered");
        assert!(collector.files() < 400, "{} files are open", collector.files());
        let (_, peak) = collector.memory();
        assert!(peak < 96 << 10, "{peak} KiB");
        payloads
    });
    assert!(collector.stop().success());
    fixture.holds_exactly(&payloads);
}

#[test]
fn nothing_listens_on_a_port_unless_it_is_configured() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    eventually("the socket", || on_socket(&fixture.path("a.db.sock"), "/healthz"));
    let ours = Command::new("ss").args(["-ltnpH"]).stderr(Stdio::null()).output();
    let Ok(ours) = ours else {
        eprintln!("skipped: nothing_listens_on_a_port_unless_it_is_configured: there is no ss");
        assert!(collector.stop().success());
        return;
    };
    let listening = String::from_utf8_lossy(&ours.stdout).into_owned();
    assert!(!listening.contains(&format!("pid={},", collector.pid())), "{listening}");
    assert!(collector.stop().success());
}
