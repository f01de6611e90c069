//! `catchment check`: what it finds, and that it changes nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::create_dir(fixture.path("migrations")).expect("makes");
        fixture.write("catchment.toml", SETTINGS);
        fixture.write("migrations/001_doors.sql", "CREATE TABLE doors(open INTEGER NOT NULL)");
        fixture
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
fn a_folder_in_the_place_of_the_database_is_the_only_fault_that_is_reported() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("a.db")).expect("makes");
    let findings = fixture.offline(2);
    has(&findings, "critical", "database", "a.db: it is a directory; give the path of a file in it");
    assert_eq!(findings.iter().filter(|finding| finding.level != "ok").count(), 1, "{findings:#?}");
    assert!(std::fs::read_dir(fixture.path("a.db")).expect("reads").next().is_none());
}

#[test]
fn a_new_migration_that_does_not_fit_is_not_said_to_be_applied() {
    let fixture = Fixture::new();
    let findings = fixture.with("INTO doors(open)", "INTO gates(open)").offline(2);
    let words = "catchment.toml:10: route doors, statement 1: no such table: gates; change the statement, or the new \
                 migration 001_doors.sql, which was not applied";
    has(&findings, "critical", "routes", words);
}

#[test]
fn sql_that_does_not_fit_is_named() {
    let fixture = Fixture::new();
    has(&fixture.offline(0), "ok", "routes", "1 with 1 statement fits the tables");
    has(&fixture.with("doors(open)", "gates(open)").offline(2), "critical", "routes", "no such table: gates");
    has(&fixture.with("VALUES (:open)", "VALUES (?)").offline(2), "critical", "routes", "route doors");
    let findings = fixture.with("count(*) FROM doors", "cuont(*) FROM doors").offline(2);
    has(&findings, "critical", "queries", "database a.db: catchment.toml:15: query count: no such function: cuont");
    fixture.write("catchment.toml", SETTINGS);
    fixture.write("migrations/002_more.sql", "CREATE TABLE doors(a)");
    has(&fixture.offline(2), "critical", "migrations", "002_more.sql:1: table doors already exists");
    assert!(!fixture.path("a.db").exists(), "nothing is made");
}

#[test]
fn a_route_or_query_that_nothing_comes_to_is_a_warning() {
    let fixture = Fixture::new();
    fixture.with("subject = \"events.door\"", "subject = \"evnts.door\"");
    has(
        &fixture.offline(1),
        "warning",
        "routes",
        "route doors receives no events: evnts.door is not in broker.subjects",
    );
    let other = "[[route]]\nsubject = \"events.*\"\nsql = \"DELETE FROM doors\"\n\n[[route]]\nname = \"doors\"";
    fixture.with("[[route]]\nname = \"doors\"", other);
    has(
        &fixture.offline(1),
        "warning",
        "routes",
        "route doors receives no events: the earlier route events.* takes all",
    );
    let other = "[[query]]\nsubject = \"ask.>\"\nsql = \"SELECT 1\"\n\n[[query]]\nname = \"count\"";
    fixture.with("[[query]]\nname = \"count\"", other);
    has(
        &fixture.offline(1),
        "warning",
        "queries",
        "query count receives no requests: the earlier query ask.> takes all",
    );
}

#[test]
fn settings_that_cannot_be_used_are_unknown_in_every_form() {
    let fixture = Fixture::new();
    fixture.with("stream = \"EVENTS\"", "stream = \"A B\"");
    has(&fixture.offline(3), "unknown", "settings", "broker.stream");
    fixture.with("subject = \"ask.doors\"", "subject = \"events.ask\"");
    has(&fixture.offline(3), "unknown", "settings", "is among broker.subjects");
    fixture.write("catchment.toml", "[broker]\nstrem = 1");
    for (format, begins) in [
        ("text", "unknown   settings     catchment.toml:2: unknown key"),
        ("nagios", "CATCHMENT UNKNOWN - settings: catchment.toml:2"),
        ("prometheus", "# HELP catchment_check_status"),
        ("json", "{\"findings\":["),
    ] {
        let done = output(&mut fixture.command(&["check", "--format", format]));
        assert_eq!(done.status.code(), Some(3));
        let said = String::from_utf8(done.stdout).expect("UTF-8");
        assert!(said.starts_with(begins), "{said}");
    }
    for wrong in [&["check", "--format", "xml"][..], &["check", "--nonsense"]] {
        assert_eq!(output(&mut fixture.command(wrong)).status.code(), Some(3), "{wrong:?}");
    }
    assert_eq!(output(catchment().args(["check", "--help"])).status.code(), Some(0));
}

#[test]
fn a_database_is_looked_at_and_not_touched() {
    let fixture = Fixture::new();
    let server = server_with(fixture.folder.path(), &json!({}));
    fixture.drain(&server);
    fixture.write("migrations/002_more.sql", "CREATE TABLE more(a)");
    fixture.with("doors(open) VALUES (:open)", "more(a) VALUES (:open)");
    let before = std::fs::read(fixture.path("a.db")).expect("reads");
    let findings = fixture.offline(0);
    has(&findings, "ok", "migrations", "the next start applies 002_more.sql");
    has(&findings, "ok", "routes", "1 with 1 statement fits the tables");
    has(&findings, "ok", "database", "is not damaged");
    has(&findings, "ok", "collector", "no process collects into a.db");
    assert!(std::fs::read(fixture.path("a.db")).expect("reads") == before, "the database is as it was");
    assert_eq!(std::fs::metadata(fixture.path("a.db-wal")).map_or(0, |wal| wal.len()), 0);
    fixture.write("migrations/001_doors.sql", "CREATE TABLE doors(open INTEGER)");
    has(&fixture.offline(2), "critical", "migrations", "001_doors.sql");

    let (head, tail) = before.split_at(before.len() / 2);
    std::fs::write(fixture.path("a.db"), [head, &vec![0x55; tail.len()]].concat()).expect("writes");
    fixture.write("migrations/001_doors.sql", "CREATE TABLE doors(open INTEGER NOT NULL)");
    let damaged = fixture.offline(2);
    assert!(damaged.iter().any(|f| f.level == "critical" && f.object == "database"), "{damaged:#?}");
    std::fs::write(fixture.path("a.db"), "no database at all, but long enough for one".repeat(30)).expect("writes");
    let findings = fixture.offline(2);
    has(&findings, "critical", "database", "a.db: file is not a database; set --database to another file");
    assert_eq!(findings.iter().filter(|finding| finding.level == "critical").count(), 1, "it is said once");
    let done = output(&mut fixture.command(&["check", "--offline", "--format", "nagios"]));
    let said = String::from_utf8(done.stdout).expect("UTF-8");
    assert!(said.starts_with("CATCHMENT CRITICAL - database: a.db: file is not a database; "), "{said}");
    assert_eq!(said.matches("not a database").count(), 1, "{said}");
}

#[test]
fn findings_that_cannot_be_printed_are_unknown_or_worse() {
    let fixture = Fixture::new();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opens");
    for (arguments, status) in [(&["--offline"][..], 3), (&["--offline", "--disk-critical", "1EiB"], 2)] {
        for format in ["text", "json", "nagios", "prometheus"] {
            let mut check = fixture.command(&["check", "--format", format]);
            let done = output(check.args(arguments).stdout(full()));
            assert_eq!(done.status.code(), Some(status), "{format}: {}", stderr(&done));
            assert!(stderr(&done).contains("cannot print the findings: standard output: No space left"));
        }
    }
}

#[test]
fn json_is_the_flag_that_other_commands_have() {
    let fixture = Fixture::new();
    for flag in ["-j", "--json"] {
        let done = output(&mut fixture.command(&["check", "--offline", flag]));
        let said: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert_eq!(said["findings"][0]["object"], "settings");
    }
    assert_eq!(output(&mut fixture.command(&["check", "--json", "--format", "text"])).status.code(), Some(3));
}

#[test]
fn a_running_collector_is_found_and_a_missing_one_reported() {
    let fixture = Fixture::new();
    let server = server_with(fixture.folder.path(), &json!({}));
    let collector =
        Collector::start(fixture.command(&["run", "--server", &server.url()]), &fixture.path("collector.log"));
    collector.said("collecting stream EVENTS");
    let url = server.url();
    let findings = fixture.check(0, &["--server", &url]);
    has(&findings, "ok", "collector", &format!("process {} collects into a.db", collector.pid()));
    has(&findings, "ok", "broker", "sync_interval");
    has(&findings, "ok", "progress", "all of EVENTS is in the database");
    // Whoever looks is in nobody's way.
    assert!(collector.stop().success());
    let raw = &mut server.raw();
    raw.publish_all("events.door", &["{\"open\":1}".to_owned(), "{}".to_owned()]);
    let findings = fixture.check(1, &["--server", &url]);
    has(&findings, "warning", "collector", "no process collects into a.db; start one");
    has(&findings, "ok", "progress", "not in the database yet: 2");
    has(&fixture.check(1, &["--server", &url, "--lag-warning", "2"]), "warning", "progress", "yet: 2");
    has(&fixture.check(2, &["--server", &url, "--lag-critical", "2"]), "critical", "progress", "yet: 2");
    fixture.drain(&server);
    let findings = fixture.check(1, &["--server", &url, "--quick"]);
    has(&findings, "warning", "dead letters", "1; the newest: events.door: NOT NULL constraint failed: doors.open");
    has(&findings, "ok", "database", "not checked for damage (quick)");
    assert_eq!(oracle::position(&fixture.path("a.db")), 2);

    server.delete_stream("EVENTS");
    server.make_stream("EVENTS", &["events.>"]);
    has(&fixture.check(1, &["--server", &url]), "warning", "progress", "was created again");
}

#[test]
fn a_disk_without_room_is_critical_before_it_is_full() {
    let fixture = Fixture::new();
    has(&fixture.check(1, &["--offline", "--disk-warning", "1EiB"]), "warning", "disk", "make room");
    has(&fixture.check(2, &["--offline", "--disk-critical", "1EiB"]), "critical", "disk", "make room");
    fixture.with("path = \"a.db\"", "path = \"nowhere/a.db\"");
    has(&fixture.offline(2), "critical", "database", "does not exist; make it (mkdir -p ");
}

#[test]
fn a_broker_that_cannot_be_collected_from_is_critical() {
    let fixture = Fixture::new();
    let missing = fixture.check(2, &["--server", "nats://127.0.0.1:1"]);
    has(&missing, "critical", "broker", "or name another in --server (catchment run --with-server");
    assert!(missing.iter().all(|finding| !finding.words.starts_with("broker ")), "{missing:#?}");
    has(&missing, "critical", "broker", "Connection refused");
    let folder = tempfile::tempdir().expect("a folder");
    let plain = Server::start_with(folder.path(), &[]);
    has(&fixture.check(2, &["--server", &plain.url()]), "critical", "broker", "it has no JetStream");
    let server = Server::start(fixture.folder.path());
    let url = server.url();
    has(&fixture.check(0, &["--server", &url]), "ok", "stream", "the first start makes it on events.>");
    fixture.with("[broker]", "[broker]\ncreate_stream = false");
    has(&fixture.check(2, &["--server", &url]), "critical", "stream", "there is no stream EVENTS; create it");
    fixture.with("[broker]", "[broker]\nmode = \"core\"");
    has(&fixture.check(0, &["--server", &plain.url()]), "ok", "broker", "at most once");
}

/// What a check finds of a stream that differs in this from what we would make.
#[track_caller]
fn of_stream(status: i32, change: &Value) -> Vec<Finding> {
    let fixture = Fixture::new();
    let server = server_with(fixture.folder.path(), change);
    let findings = fixture.check(status, &["--server", &server.url()]);
    assert!(server.consumers("EVENTS").is_empty(), "nothing is made");
    findings
}

#[test]
fn a_stream_that_does_not_fit_is_told_before_the_start() {
    has(&of_stream(2, &json!({"retention": "workqueue"})), "critical", "stream", "workqueue retention");
    let elsewhere = of_stream(2, &json!({"subjects": ["other.>"]}));
    has(&elsewhere, "critical", "stream", "EVENTS stores nothing on events.>: its subjects are other.>");
    let swallowing = of_stream(2, &json!({"subjects": ["events.>", "ask.>"]}));
    has(&swallowing, "critical", "stream", "EVENTS takes ask.>: it answers the requests of query count itself");
    let storing = of_stream(1, &json!({"subjects": ["events.>", "ask.>"], "no_ack": true}));
    has(&storing, "warning", "stream", "it stores the requests of query count");
    has(&of_stream(1, &json!({"storage": "memory"})), "warning", "stream", "is stored in memory");
    let forgetful = of_stream(1, &json!({"duplicate_window": 1_000_000_000}));
    has(&forgetful, "warning", "stream", "detects duplicates for 1s");
    has(&of_stream(0, &json!({"max_age": 3_600_000_000_000_u64})), "ok", "stream", "by limits for 1h, in file");
    has(&of_stream(0, &json!({"retention": "interest"})), "ok", "stream", "by interest");
}

#[test]
fn limits_on_unacknowledged_events_are_checked() {
    if !needs((2, 10), "limits of a stream's consumers") {
        return;
    }
    let limits = json!({"retention": "interest", "consumer_limits": {"max_ack_pending": 1_000}});
    let findings = of_stream(1, &limits);
    has(&findings, "warning", "stream", "allows 1000 unacknowledged events, and a collector needs 30000");
    let enough = json!({"retention": "interest", "consumer_limits": {"max_ack_pending": 30_000}});
    has(&of_stream(0, &enough), "ok", "stream", "by interest");
}

#[test]
fn several_subjects_are_fine_where_the_server_takes_them() {
    let fixture = Fixture::new();
    let server = server_with(fixture.folder.path(), &json!({"subjects": ["a.*", "b.*", "events.>"]}));
    fixture.with("[\"events.>\"]", "[\"a.*\", \"events.*\"]");
    if needs((2, 10), "several subjects") {
        fixture.check(0, &["--server", &server.url()]);
    } else {
        has(
            &fixture.check(2, &["--server", &server.url()]),
            "critical",
            "stream",
            "takes only one subject for a consumer",
        );
    }
    fixture.with("[\"events.>\"]", "[\"b.*\", \"a.*\", \"events.>\"]");
    fixture.check(0, &["--server", &server.url()]);
}

#[test]
fn a_check_beside_a_start_keeps_nobody_from_starting() {
    let (folder, server) = Server::in_new_folder();
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

#[test]
fn the_exit_status_does_not_depend_on_a_reader() {
    let fixture = Fixture::new();
    fixture.with("subject = \"events.door\"", "subject = \"evnts.door\"");
    for format in ["text", "json", "prometheus"] {
        let mut check = fixture.command(&["check", "--offline", "--format", format]);
        let mut child = check.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        drop(child.stdout.take());
        assert_eq!(child.wait().expect("ends").code(), Some(1), "a warning, also where nobody reads it");
    }
}
