//! `catchment check`: what it finds, and that it changes nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::collector::{Collector, catchment, output, run, stderr};
use crate::support::oracle;
use crate::support::server::{Server, needs};

const SETTINGS: &str = r#"
[broker]
stream = "EVENTS"
subjects = ["events.>"]

[database]
path = "a.db"
migrations = "migrations"

[[route]]
name = "doors"
subject = "events.door"
sql = "INSERT INTO doors(open) VALUES (:open)"

[[query]]
name = "count"
subject = "ask.doors"
sql = "SELECT count(*) FROM doors"
"#;

/// A folder with settings and migrations.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::create_dir(desk.path("migrations")).expect("makes");
        desk.write("catchment.toml", SETTINGS);
        desk.write("migrations/001_doors.sql", "CREATE TABLE doors(open INTEGER NOT NULL)");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("writes");
    }

    /// The settings with one part replaced.
    fn with(&self, part: &str, other: &str) -> &Self {
        assert!(SETTINGS.contains(part), "{part}");
        self.write("catchment.toml", &SETTINGS.replace(part, other));
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.current_dir(self.folder.path()).args(["--config", "catchment.toml"]).args(arguments);
        command
    }

    /// What a check says that must end with this status.
    #[track_caller]
    fn check(&self, status: i32, arguments: &[&str]) -> Vec<Finding> {
        let done = output(self.command(&["check", "--format", "json"]).args(arguments));
        let said: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", stderr(&done)));
        assert_eq!(done.status.code(), Some(status), "{said:#}");
        assert_eq!(stderr(&done), "");
        let findings = said["findings"].as_array().expect("findings").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let read = |finding: &Value| Finding {
            level: text(&finding["level"]),
            object: text(&finding["object"]),
            words: format!("{}; {}", text(&finding["what"]), text(&finding["way_out"])),
        };
        findings.map(read).collect()
    }

    #[track_caller]
    fn offline(&self, status: i32) -> Vec<Finding> {
        self.check(status, &["--offline"])
    }

    /// Collects what is in the stream.
    fn drain(&self, server: &Server) {
        let done = output(self.command(&["run", "--drain", "--server", &server.url()]).arg("--quiet"));
        assert!(done.status.success(), "{}", stderr(&done));
    }
}

#[derive(Debug)]
struct Finding {
    level: String,
    object: String,
    words: String,
}

/// Whether there is a finding of this level on this object that says this.
#[track_caller]
fn has(findings: &[Finding], level: &str, object: &str, words: &str) {
    let is_it =
        |finding: &&Finding| finding.level == level && finding.object == object && finding.words.contains(words);
    assert!(findings.iter().any(|finding| is_it(&finding)), "{level} {object} {words:?} is not in {findings:#?}");
}

/// The server with a stream, changed by this.
fn server_with(folder: &Path, change: &Value) -> Server {
    let server = Server::start(folder);
    let mut config = json!({
        "name": "EVENTS", "subjects": ["events.>"], "storage": "file", "retention": "limits", "num_replicas": 1,
        "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "discard": "old",
    });
    for (key, value) in change.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let answer = server.ask("$JS.API.STREAM.CREATE.EVENTS", &config);
    assert!(answer["error"].is_null(), "{answer}");
    server
}

#[test]
fn sql_that_does_not_fit_is_named() {
    let desk = Desk::new();
    has(&desk.offline(0), "ok", "routes", "1 with 1 statements fit the tables");
    has(&desk.with("doors(open)", "gates(open)").offline(2), "critical", "routes", "no such table: gates");
    has(&desk.with("VALUES (:open)", "VALUES (?)").offline(2), "critical", "routes", "route doors");
    let findings = desk.with("count(*) FROM doors", "cuont(*) FROM doors").offline(2);
    has(&findings, "critical", "queries", "database a.db: query count: no such function: cuont");
    desk.write("catchment.toml", SETTINGS);
    desk.write("migrations/002_more.sql", "CREATE TABLE doors(a)");
    has(&desk.offline(2), "critical", "migrations", "002_more.sql:1: table doors already exists");
    assert!(!desk.path("a.db").exists(), "nothing is made");
}

#[test]
fn a_route_or_query_that_nothing_comes_to_is_a_warning() {
    let desk = Desk::new();
    desk.with("subject = \"events.door\"", "subject = \"evnts.door\"");
    has(&desk.offline(1), "warning", "routes", "route doors gets no event: evnts.door is not among broker.subjects");
    let other = "[[route]]\nsubject = \"events.*\"\nsql = \"DELETE FROM doors\"\n\n[[route]]\nname = \"doors\"";
    desk.with("[[route]]\nname = \"doors\"", other);
    has(&desk.offline(1), "warning", "routes", "route doors gets no event: route events.* stands before it");
    let other = "[[query]]\nsubject = \"ask.>\"\nsql = \"SELECT 1\"\n\n[[query]]\nname = \"count\"";
    desk.with("[[query]]\nname = \"count\"", other);
    has(&desk.offline(1), "warning", "queries", "query count gets no request: query ask.> stands before it");
}

#[test]
fn settings_that_cannot_be_used_are_unknown_in_every_form() {
    let desk = Desk::new();
    desk.with("stream = \"EVENTS\"", "stream = \"A B\"");
    has(&desk.offline(3), "unknown", "settings", "broker.stream");
    desk.with("subject = \"ask.doors\"", "subject = \"events.ask\"");
    has(&desk.offline(3), "unknown", "settings", "is among broker.subjects");
    desk.write("catchment.toml", "[broker]\nstrem = 1");
    for (format, begins) in [
        ("text", "unknown   settings     configuration: catchment.toml:2: unknown key"),
        ("nagios", "CATCHMENT UNKNOWN - settings: configuration: catchment.toml:2"),
        ("prometheus", "# HELP catchment_check_status"),
        ("json", "{\"findings\":["),
    ] {
        let done = output(&mut desk.command(&["check", "--format", format]));
        assert_eq!(done.status.code(), Some(3));
        let said = String::from_utf8(done.stdout).expect("UTF-8");
        assert!(said.starts_with(begins), "{said}");
    }
    for wrong in [&["check", "--format", "xml"][..], &["check", "--nonsense"]] {
        assert_eq!(output(&mut desk.command(wrong)).status.code(), Some(3), "{wrong:?}");
    }
    assert_eq!(output(catchment().args(["check", "--help"])).status.code(), Some(0));
}

#[test]
fn a_database_is_looked_at_and_not_touched() {
    let desk = Desk::new();
    let server = server_with(desk.folder.path(), &json!({}));
    desk.drain(&server);
    desk.write("migrations/002_more.sql", "CREATE TABLE more(a)");
    desk.with("doors(open) VALUES (:open)", "more(a) VALUES (:open)");
    let before = std::fs::read(desk.path("a.db")).expect("reads");
    let findings = desk.offline(0);
    has(&findings, "ok", "migrations", "the next start applies 002_more.sql");
    has(&findings, "ok", "routes", "fit the tables");
    has(&findings, "ok", "database", "is sound");
    has(&findings, "ok", "collector", "nobody collects into a.db now");
    assert!(std::fs::read(desk.path("a.db")).expect("reads") == before, "the database is as it was");
    assert_eq!(std::fs::metadata(desk.path("a.db-wal")).map_or(0, |wal| wal.len()), 0);
    desk.write("migrations/001_doors.sql", "CREATE TABLE doors(open INTEGER)");
    has(&desk.offline(2), "critical", "migrations", "001_doors.sql");

    let (head, tail) = before.split_at(before.len() / 2);
    std::fs::write(desk.path("a.db"), [head, &vec![0x55; tail.len()]].concat()).expect("writes");
    desk.write("migrations/001_doors.sql", "CREATE TABLE doors(open INTEGER NOT NULL)");
    let damaged = desk.offline(2);
    assert!(damaged.iter().any(|f| f.level == "critical" && f.object == "database"), "{damaged:#?}");
    std::fs::write(desk.path("a.db"), "no database at all, but long enough for one".repeat(30)).expect("writes");
    has(&desk.offline(2), "critical", "database", "it is damaged or not a database");
}

#[test]
fn a_running_collector_is_well_and_one_that_is_missing_is_missed() {
    let desk = Desk::new();
    let server = server_with(desk.folder.path(), &json!({}));
    let collector = Collector::start(desk.command(&["run", "--server", &server.url()]), &desk.path("collector.log"));
    collector.said("collecting stream EVENTS");
    let url = server.url();
    let findings = desk.check(0, &["--server", &url]);
    has(&findings, "ok", "collector", &format!("process {} collects into a.db", collector.pid()));
    has(&findings, "ok", "broker", "sync_interval");
    has(&findings, "ok", "progress", "all of EVENTS is in the database");
    // Whoever looks is in nobody's way.
    assert!(collector.stop().success());
    let raw = &mut server.raw();
    raw.publish_all("events.door", &["{\"open\":1}".to_owned(), "{}".to_owned()]);
    let findings = desk.check(1, &["--server", &url]);
    has(&findings, "warning", "collector", "nobody collects into a.db now; start it");
    has(&findings, "ok", "progress", "not in the database yet: 2");
    has(&desk.check(1, &["--server", &url, "--lag-warning", "2"]), "warning", "progress", "yet: 2");
    has(&desk.check(2, &["--server", &url, "--lag-critical", "2"]), "critical", "progress", "yet: 2");
    desk.drain(&server);
    let findings = desk.check(1, &["--server", &url, "--quick"]);
    has(&findings, "warning", "dead letters", "1; the newest: events.door: NOT NULL constraint failed: doors.open");
    has(&findings, "ok", "database", "--quick");
    assert_eq!(oracle::position(&desk.path("a.db")), 2);

    server.delete_stream("EVENTS");
    server.make_stream("EVENTS", &["events.>"]);
    has(&desk.check(1, &["--server", &url]), "warning", "progress", "was made anew");
}

#[test]
fn a_disk_without_room_is_critical_before_it_is_full() {
    let desk = Desk::new();
    has(&desk.check(1, &["--offline", "--disk-warning", "1EiB"]), "warning", "disk", "make room");
    has(&desk.check(2, &["--offline", "--disk-critical", "1EiB"]), "critical", "disk", "make room");
    desk.with("path = \"a.db\"", "path = \"nowhere/a.db\"");
    has(&desk.offline(2), "critical", "database", "there is no such directory");
}

#[test]
fn a_broker_that_cannot_be_collected_from_is_critical() {
    let desk = Desk::new();
    let gone = desk.check(2, &["--server", "nats://127.0.0.1:1"]);
    has(&gone, "critical", "broker", "Connection refused");
    let folder = tempfile::tempdir().expect("a folder");
    let plain = Server::start_with(folder.path(), &[]);
    has(&desk.check(2, &["--server", &plain.url()]), "critical", "broker", "it has no JetStream");
    let server = Server::start(desk.folder.path());
    let url = server.url();
    has(&desk.check(0, &["--server", &url]), "ok", "stream", "the first start makes it on events.>");
    desk.with("[broker]", "[broker]\ncreate_stream = false");
    has(&desk.check(2, &["--server", &url]), "critical", "stream", "there is no stream EVENTS; make it");
    desk.with("[broker]", "[broker]\nmode = \"core\"");
    has(&desk.check(0, &["--server", &plain.url()]), "ok", "broker", "at most once");
}

/// What a check finds of a stream that differs in this from what we would make.
#[track_caller]
fn of_stream(status: i32, change: &Value) -> Vec<Finding> {
    let desk = Desk::new();
    let server = server_with(desk.folder.path(), change);
    let findings = desk.check(status, &["--server", &server.url()]);
    assert!(server.consumers("EVENTS").is_empty(), "nothing is made");
    findings
}

#[test]
fn a_stream_that_does_not_fit_is_told_before_the_start() {
    has(&of_stream(2, &json!({"retention": "workqueue"})), "critical", "stream", "workqueue retention");
    let elsewhere = of_stream(2, &json!({"subjects": ["other.>"]}));
    has(&elsewhere, "critical", "stream", "EVENTS stores nothing on events.>: it takes other.>");
    let swallowing = of_stream(2, &json!({"subjects": ["events.>", "ask.>"]}));
    has(&swallowing, "critical", "stream", "EVENTS takes ask.>: it answers the requests of query count itself");
    let storing = of_stream(1, &json!({"subjects": ["events.>", "ask.>"], "no_ack": true}));
    has(&storing, "warning", "stream", "it stores the requests of query count");
    has(&of_stream(1, &json!({"storage": "memory"})), "warning", "stream", "kept in memory");
    let forgetful = of_stream(1, &json!({"duplicate_window": 1_000_000_000}));
    has(&forgetful, "warning", "stream", "recognises a publisher's repetition for 1s");
    has(&of_stream(0, &json!({"max_age": 3_600_000_000_000_u64})), "ok", "stream", "by limits for 1h, in file");
    has(&of_stream(0, &json!({"retention": "interest"})), "ok", "stream", "by interest");
}

#[test]
fn limits_on_what_is_unacknowledged_are_held_against_what_collecting_takes() {
    if !needs((2, 10), "limits of a stream's consumers") {
        return;
    }
    let limits = json!({"retention": "interest", "consumer_limits": {"max_ack_pending": 1_000}});
    let findings = of_stream(1, &limits);
    has(
        &findings,
        "warning",
        "stream",
        "lets 1000 events be unacknowledged at a time, and a collector would have 30000",
    );
    let enough = json!({"retention": "interest", "consumer_limits": {"max_ack_pending": 30_000}});
    has(&of_stream(0, &enough), "ok", "stream", "by interest");
}

#[test]
fn several_subjects_are_no_matter_for_a_server_that_takes_them_or_where_they_are_the_streams_own() {
    let desk = Desk::new();
    let server = server_with(desk.folder.path(), &json!({"subjects": ["a.*", "b.*", "events.>"]}));
    desk.with("[\"events.>\"]", "[\"a.*\", \"events.*\"]");
    if needs((2, 10), "several subjects") {
        desk.check(0, &["--server", &server.url()]);
    } else {
        has(&desk.check(2, &["--server", &server.url()]), "critical", "stream", "takes no several subjects");
    }
    desk.with("[\"events.>\"]", "[\"b.*\", \"a.*\", \"events.>\"]");
    desk.check(0, &["--server", &server.url()]);
}

#[test]
fn a_check_beside_a_start_keeps_nobody_from_starting() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let database = folder.path().join("a.db");
    let looking = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while looking.load(std::sync::atomic::Ordering::Relaxed) {
                catchment::unversioned::store::Lock::holder(&database).expect("looks");
            }
        });
        for _ in 0..10 {
            let done = output(run(&server.url(), &database).arg("--drain"));
            if !done.status.success() {
                looking.store(false, std::sync::atomic::Ordering::Relaxed);
            }
            assert!(done.status.success(), "{}", stderr(&done));
        }
        looking.store(false, std::sync::atomic::Ordering::Relaxed);
    });
}
