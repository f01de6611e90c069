//! `/readyz` and `catchment health`: each trouble makes a collector not ready within the configured time, says why, and ends.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::collector::{Collector, catchment, output, signal, stderr};
use crate::support::fixture::Fixture;
use crate::support::http::Observed;
use crate::support::oracle;
use crate::support::proxy::{Proxy, Way};
use crate::support::server::{Server, needs};
use crate::support::{collector, eventually};

/// A collector whose readiness is asked, with a broker that counts as silent after a second.
fn observed(fixture: &Fixture, change: impl FnOnce(&mut Command)) -> (Collector, Observed) {
    let mut command = fixture.run();
    command.env("CATCHMENT_BROKER__SILENCE", "1s").env("CATCHMENT_BROKER__TIMEOUT", "1s");
    let observed = Observed::on(&mut command);
    change(&mut command);
    let collector = Collector::start(command, &fixture.path("collector.log"));
    observed.ready(true, &[]);
    (collector, observed)
}

/// Its broker hangs: the process is stopped and goes on when this is dropped.
struct Hanging(u32);

impl Hanging {
    fn new(server: &Server) -> Self {
        signal(server.pid(), "STOP");
        Self(server.pid())
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

#[test]
fn a_broker_that_hangs_or_is_killed_shows_and_heals() {
    let mut fixture = Fixture::new();
    let (collector, observed) = observed(&fixture, |_| ());
    let hanging = Hanging::new(&fixture.server);
    let said = observed.ready(false, &["broker, for "]);
    assert!(said.starts_with("not ready\n"), "{said}");
    drop(hanging);
    observed.ready(true, &[]);
    fixture.server.kill();
    observed.ready(false, &["broker, for "]);
    fixture.server.restart();
    observed.ready(true, &[]);
    let payloads = fixture.publish("after", 10);
    fixture.has(10);
    assert!(collector.stop().success());
    fixture.holds_exactly(&payloads);
}

#[test]
fn a_broker_that_is_silent_shows_and_heals() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(fixture.server.port());
    let mut command = collector::run(&proxy.url(), &fixture.database());
    command.env("CATCHMENT_BROKER__SILENCE", "1s").env("CATCHMENT_BROKER__TIMEOUT", "1s");
    let observed = Observed::on(&mut command);
    let collector = Collector::start(command, &fixture.path("collector.log"));
    observed.ready(true, &[]);
    proxy.swallow(Way::ToClient);
    observed.ready(false, &["broker, for "]);
    proxy.heal();
    proxy.cut();
    observed.ready(true, &[]);
    assert!(collector.stop().success());
}

#[test]
fn a_locked_database_shows_once_events_wait_and_heals() {
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture, |_| ());
    fixture.publish("first", 1);
    fixture.has(1);
    let lock = oracle::lock(&fixture.database());
    // Nothing waits yet, so it is ready, however long the lock is held.
    assert_eq!(observed.get("/readyz").body, "ready\n");
    fixture.publish("second", 10);
    let said = observed.ready(false, &["database, for ", "stall, for "]);
    assert!(
        said.contains("locked") || said.contains("nothing is committed, while 0 events wait to be delivered"),
        "{said}"
    );
    drop(lock);
    observed.ready(true, &[]);
    fixture.has(11);
    assert!(collector.stop().success());
}

#[test]
fn a_replaced_database_shows_before_an_event_comes() {
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture, |_| ());
    fixture.publish("first", 1);
    fixture.has(1);
    let moved = fixture.path("moved.db");
    std::fs::rename(fixture.database(), &moved).expect("moves");
    observed.ready(false, &["moved, removed or replaced"]);
    std::fs::rename(&moved, fixture.database()).expect("moves back");
    observed.ready(true, &[]);
    assert!(collector.stop().success());
}

#[test]
fn a_full_disk_shows_and_heals() {
    let fixture = Fixture::new();
    let disk = fixture.path("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let script = format!(
        "mount -t tmpfs -o size=12m tmpfs {0} && head -c 11500000 /dev/zero >{0}/ballast && exec {1} run --server {2} \
         --database {0}/a.db",
        disk.display(),
        env!("CARGO_BIN_EXE_catchment"),
        fixture.server.url()
    );
    let mounts = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !mounts {
        eprintln!("skipped: a_full_disk_shows_and_heals: no mount of its own");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let observed = Observed::on(&mut command);
    let collector = Collector::start(command, &fixture.path("collector.log"));
    observed.ready(true, &[]);
    fixture.publish(&"x".repeat(1_000), 3_000);
    observed.ready(false, &["full"]);
    let inside = PathBuf::from(format!("/proc/{}/root{}", collector.pid(), disk.display()));
    std::fs::remove_file(inside.join("ballast")).expect("makes room");
    observed.ready(true, &[]);
    eventually("all events", || {
        let totals = &observed.get("/status").json()["totals"];
        (totals["committed"] == 3_000).then_some(())
    });
    assert!(collector.stop().success());
}

/// The name of its consumer.
fn consumer(fixture: &Fixture) -> String {
    eventually("a consumer", || fixture.server.consumers("EVENTS").pop())
}

#[test]
fn a_paused_consumer_shows_and_heals() {
    if !needs((2, 11), "pausing a consumer") {
        return;
    }
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture, |_| ());
    fixture.publish("first", 1);
    fixture.has(1);
    let subject = format!("$JS.API.CONSUMER.PAUSE.EVENTS.{}", consumer(&fixture));
    fixture.ask(&subject, &json!({ "pause_until": "2099-01-01T00:00:00Z" }));
    fixture.publish("second", 1);
    observed.ready(false, &["is paused until 2099"]);
    fixture.ask(&subject, &json!({}));
    observed.ready(true, &[]);
    fixture.has(2);
    assert!(collector.stop().success());
}

#[test]
fn a_deleted_consumer_is_made_again_a_deleted_stream_shows() {
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture, |command| {
        command.env("CATCHMENT_BROKER__CREATE_STREAM", "false");
    });
    let name = consumer(&fixture);
    fixture.ask(&format!("$JS.API.CONSUMER.DELETE.EVENTS.{name}"), &json!({}));
    eventually("another consumer", || fixture.server.consumers("EVENTS").pop().filter(|other| *other != name));
    fixture.publish("first", 5);
    fixture.has(5);
    observed.ready(true, &[]);
    assert!(observed.get("/status").json()["source"]["reconnects"].as_u64() >= Some(1));
    fixture.server.delete_stream("EVENTS");
    observed.ready(false, &["broker, for "]);
    fixture.server.make_stream("EVENTS", &["events.>"]);
    observed.ready(true, &[]);
    fixture.publish("second", 5);
    fixture.has(10);
    assert!(collector.stop().success());
}

#[test]
fn more_lag_than_configured_shows_and_heals() {
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture, |command| {
        command.env("CATCHMENT_OBSERVE__MAX_PENDING", "1000").env("CATCHMENT_OBSERVE__MAX_LAG", "1s");
        command.env("CATCHMENT_BROKER__PREFETCH__EVENTS", "10");
    });
    fixture.publish("first", 1);
    fixture.has(1);
    let lock = oracle::lock(&fixture.database());
    fixture.publish("second", 20_000);
    let said = observed.ready(false, &["more than 1000 (observe.max_pending)"]);
    assert!(said.contains("lag, for "), "{said}");
    observed.ready(false, &["(observe.max_lag)"]);
    drop(lock);
    observed.ready(true, &[]);
    assert!(collector.stop().success());
}

#[test]
fn dead_letters_alone_show_until_an_event_is_stored() {
    let fixture = Fixture::new();
    fixture.file("catchment.toml", "[[route]]\nsubject = 'events.>'\nsql = 'INSERT INTO lines(text) VALUES (:text)'\n[database]\nmigrations = 'm'\n");
    std::fs::create_dir(fixture.path("m")).expect("a folder");
    fixture.file("m/001_lines.sql", "CREATE TABLE lines(text TEXT NOT NULL) STRICT;");
    let (collector, observed) = observed(&fixture, |command| {
        command.current_dir(fixture.folder.path());
    });
    fixture.server.raw().publish_all("events.test", &vec!["{}".to_owned(); 30]);
    let said = observed.ready(false, &["dead letters, for "]);
    assert!(said.contains("the last 30 events all became dead letters"), "{said}");
    let status = observed.get("/status").json();
    assert_eq!((&status["state"], &status["ready"]), (&json!("failed"), &json!(false)));
    eventually("the dead letters on the page", || {
        let letters = observed.get("/status").json()["dead_letters"].clone();
        let is_last = letters["last"][0]["error"] == "NOT NULL constraint failed: lines.text";
        (letters["stored"] == 30 && is_last).then_some(())
    });
    fixture.server.raw().publish_all("events.test", &[r#"{"text": "good"}"#.to_owned()]);
    observed.ready(true, &[]);
    let routes = observed.get("/status").json()["routes"].clone();
    assert_eq!((&routes[0]["name"], &routes[0]["events"]), (&json!("events.>"), &json!(31)));
    assert_eq!(routes[0]["dead_letters"], 30);
    assert!(collector.stop().success());
}

#[test]
fn trouble_shorter_than_configured_does_not_show() {
    let fixture = Fixture::new();
    let (collector, observed) = observed(&fixture, |command| {
        command.env("CATCHMENT_OBSERVE__UNREADY_AFTER", "1h");
    });
    let hanging = Hanging::new(&fixture.server);
    eventually("the trouble", || (observed.get("/status").json()["state"] == "degraded").then_some(()));
    assert_eq!(observed.get("/readyz").body, "ready\n");
    drop(hanging);
    eventually("the end", || (observed.get("/status").json()["state"] == "well").then_some(()));
    let incidents = observed.get("/status").json()["incidents"].clone();
    assert_eq!(incidents[0]["part"], "broker", "{incidents}");
    assert!(incidents[0]["lasted_seconds"].as_f64() > Some(0.0), "{incidents}");
    assert!(collector.stop().success());
}

#[test]
fn health_exits_with_1_where_no_collector_is_ready() {
    let fixture = Fixture::new();
    let health = |arguments: &[&str]| {
        let mut command = catchment();
        command.arg("health").arg("--database").arg(fixture.database()).args(arguments);
        output(&mut command)
    };
    let nobody = health(&[]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).starts_with("catchment: no collector uses ") && nobody.stdout.is_empty(), "{nobody:?}");
    let nobody = health(&["--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&nobody.stdout).expect("JSON");
    assert_eq!((nobody.status.code(), &answer["ready"], &answer["state"]), (Some(1), &false.into(), &"absent".into()));
    let (collector, observed) = observed(&fixture, |_| ());
    let well = health(&[]);
    assert_eq!((well.status.code(), &*well.stdout), (Some(0), &b"ready\n"[..]));
    let hanging = Hanging::new(&fixture.server);
    observed.ready(false, &[]);
    let ill = health(&["--json"]);
    assert_eq!(ill.status.code(), Some(1), "{ill:?}");
    let said: serde_json::Value = serde_json::from_slice(&ill.stdout).expect("JSON");
    assert_eq!(
        (&said["ready"], &said["state"], &said["reasons"][0]["part"]),
        (&json!(false), &json!("failed"), &json!("broker"))
    );
    let is_critical = || {
        let mut command = catchment();
        command.args(["check", "--offline", "--json", "--database"]).arg(fixture.database());
        let checked = output(&mut command);
        let findings: serde_json::Value = serde_json::from_slice(&checked.stdout).expect("JSON");
        let mut findings = findings["findings"].as_array().expect("a list").iter();
        let found = findings.find(|finding| finding["object"] == "readiness").expect("the collector is asked");
        assert_eq!(found["level"], "critical", "{found}");
        assert_eq!(checked.status.code(), Some(2));
    };
    is_critical();
    drop(hanging);
    observed.ready(true, &[]);
    // It hangs itself.
    signal(collector.pid(), "STOP");
    let began = Instant::now();
    let silent = health(&["--timeout", "200ms"]);
    is_critical();
    signal(collector.pid(), "CONT");
    assert!(silent.status.code() == Some(1) && stderr(&silent).contains("no answer in 200ms"), "{silent:?}");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!(collector.stop().success());
}
