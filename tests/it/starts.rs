//! A start that a signal ends, or that fails: what it leaves, and what others wait for meanwhile.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use catchment::config::RouteConfig;
use catchment::record::CommitMode;
use catchment::{DirectRecorder, DirectRecorderConfig, Event, Recorder};
use rusqlite::Connection;

use crate::readers::catches_signals;
use crate::support::collector::{Collector, catchment, output, run, signal, stderr};
use crate::support::refusal::{ends, refused};
use crate::support::server::Server;
use crate::support::{eventually, oracle};

/// Migrations that never end, in a folder of this name.
fn endless_migrations(folder: &Path) -> PathBuf {
    let migrations = folder.join("migrations");
    std::fs::create_dir(&migrations).expect("a folder");
    let endless = "CREATE TABLE t(a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                   INSERT INTO t SELECT i FROM n WHERE i < 0;";
    std::fs::write(migrations.join("001_endless.sql"), endless).expect("writes");
    let settings = folder.join("endless.toml");
    std::fs::write(&settings, format!("[database]\nmigrations = '{}'\n", migrations.display())).expect("writes");
    settings
}

#[test]
fn a_stream_of_a_collector_that_starts_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let database = folder.path().join("a.db");
    let settings = endless_migrations(folder.path());
    let mut command = run(&server.url(), &database);
    command.arg("--config").arg(&settings);
    let mut collector = Collector::start(command, &folder.path().join("run.log"));
    eventually("the start", || {
        std::fs::read_to_string(folder.path().join("a.db.lock")).ok().filter(|text| text.contains("opening"))
    });
    let began = Instant::now();
    let mut publish = catchment();
    publish
        .args(["publish", "events.a", "x", "--timeout", "3s", "--server", &server.url(), "--database"])
        .arg(&database);
    let said = ends(&mut publish, 1, &["no stream takes its subject"]);
    assert!(began.elapsed() >= Duration::from_millis(2_500), "more than half of the time-out");
    let waits = "its collector is starting; waiting for a stream that takes the events, at most 3s";
    assert_eq!(said.matches(waits).count(), 1, "{said}");
    let mut publish = catchment();
    publish
        .args(["publish", "events.a", "x", "--timeout", "1m", "--server", &server.url(), "--database"])
        .arg(&database);
    let waiting = publish.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("catchment starts");
    server.make_stream("EVENTS", &["events.>"]);
    let done = waiting.wait_with_output().expect("ends");
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(server.messages("EVENTS"), 1);
    // And a signal ends the migration: nothing is left of it.
    signal(collector.pid(), "INT");
    assert_eq!(collector.wait().code(), Some(0), "{}", collector.log());
    let said = collector.log();
    assert!(said.contains("a.db was open: unfinished migrations were rolled back, no events were received"), "{said}");
    assert!(!database.exists() && !folder.path().join("a.db.lock").exists());
    // A database that was there before stays as it was, and --drain has the signal's status.
    assert!(output(run(&server.url(), &database).arg("--drain")).status.success());
    let mut command = run(&server.url(), &database);
    command.args(["--drain", "--config"]).arg(&settings);
    let mut collector = Collector::start(command, &folder.path().join("second.log"));
    eventually("the start", || {
        std::fs::read_to_string(folder.path().join("a.db.lock")).ok().filter(|text| text.contains("opening"))
    });
    signal(collector.pid(), "TERM");
    assert_eq!(collector.wait().code(), Some(143), "{}", collector.log());
    assert_eq!(oracle::count(&database), 1);
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 't'";
    let connection = Connection::open(&database).expect("opens");
    assert_eq!(connection.query_row(tables, [], |row| row.get::<_, i64>(0)), Ok(0));
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let files = || std::fs::read_dir(folder.path()).expect("reads").count();
    let refused_with = |database: &Path, status: i32, arguments: &[&str], words: &[&str]| {
        let before = files();
        let mut command = catchment();
        command.args(["run", "--server", "nats://127.0.0.1:9", "--database"]).arg(database).args(arguments);
        refused(&mut command, status, words);
        assert_eq!(files(), before, "{words:?}");
    };
    std::os::unix::fs::symlink("loop", at("loop")).expect("a link");
    std::fs::write(at("empty.db"), "").expect("writes");
    let bad = "[[route]]\nsubject = \"a\"\nsql = \"INSERT INTO absent VALUES (1)\"\n";
    std::fs::write(at("bad.toml"), bad).expect("writes");
    let bad = at("bad.toml");
    let core = at("core.toml");
    std::fs::write(&core, "[broker]\nmode = \"core\"\n").expect("writes");
    for database in ["new.db", "empty.db"] {
        refused_with(&at(database), 1, &[], &["refused", "catchment run --with-server --database ", " starts one"]);
        refused_with(&at(database), 1, &["--config", core.to_str().expect("UTF-8")], &["refused"]);
        refused_with(&at(database), 2, &["--config", bad.to_str().expect("UTF-8")], &["no such table: absent"]);
    }
    refused_with(&at("loop"), 1, &[], &["loop", "symbolic links"]);
    refused_with(&at(&"a".repeat(250)), 1, &[], &["its name has 250 bytes"]);
    let mut direct = DirectRecorderConfig::new(at("direct.db"));
    direct.routes = vec![RouteConfig::new("a", ["INSERT INTO absent VALUES (1)"])];
    for mode in [CommitMode::Grouped, CommitMode::PerEvent] {
        let before = files();
        direct.commit = mode;
        DirectRecorder::open(direct.clone()).expect_err("no such table");
        assert_eq!(files(), before);
    }
    // Where events were stored before, everything stays.
    let recorder = DirectRecorder::create(at("events.db")).expect("opens");
    recorder.record(Event::new("a", "x")).expect("records");
    recorder.close(Duration::from_secs(30)).expect("commits");
    drop(recorder);
    // Its threads may close their connections a moment later.
    eventually("the database to be closed", || (!at("events.db-wal").exists()).then_some(()));
    refused_with(&at("events.db"), 1, &[], &["refused"]);
    assert_eq!(oracle::count(&at("events.db")), 1);
}

#[test]
fn a_database_of_another_program_is_refused_unless_it_is_meant() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let database = folder.path().join("shop.db");
    Connection::open(&database).and_then(|shop| shop.execute_batch("CREATE TABLE customers(name)")).expect("SQL");
    let before = std::fs::read(&database).expect("reads");
    let words = ["tables of another program (customers) and none of catchment's", "catchment adopt --database"];
    refused(run(&server.url(), &database).arg("--drain"), 1, &words);
    refused(catchment().args(["run", "--with-server", "--database"]).arg(&database), 1, &words);
    let check = output(catchment().args(["check", "--offline", "--database"]).arg(&database));
    assert_eq!(check.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&check.stdout).contains(words[0]), "{}", String::from_utf8_lossy(&check.stdout));
    assert_eq!(std::fs::read(&database).expect("reads"), before);
    assert!(!folder.path().join("shop.db.lock").exists() && !folder.path().join("shop.db.nats").exists());
    // Routes for its tables show that it is meant.
    let copy = folder.path().join("copy.db");
    std::fs::copy(&database, &copy).expect("copies");
    let settings = folder.path().join("a.toml");
    let route = "[[route]]\nsubject = \"events.customer\"\nsql = \"INSERT INTO customers VALUES (:name)\"\n";
    std::fs::write(&settings, route).expect("writes");
    let done = output(run(&server.url(), &copy).arg("--drain").arg("--config").arg(&settings));
    assert!(done.status.success(), "{}", stderr(&done));
    // And so does adopting it.
    let adopted = output(catchment().args(["adopt", "--database"]).arg(&database));
    assert!(adopted.status.success(), "{}", stderr(&adopted));
    assert!(String::from_utf8_lossy(&adopted.stdout).contains("shop.db has catchment's tables now"));
    let done = output(run(&server.url(), &database).arg("--drain"));
    assert!(done.status.success(), "{}", stderr(&done));
}

#[test]
fn a_database_whose_events_belong_to_another_program_is_not_adopted() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let database = folder.path().join("shop.db");
    let sql = "CREATE TABLE customers(name); CREATE VIEW events AS SELECT name FROM customers";
    Connection::open(&database).and_then(|shop| shop.execute_batch(sql)).expect("SQL");
    let before = std::fs::read(&database).expect("reads");
    let words = ["that view belongs to another program: set --database to another file, or rename the view \"events\""];
    refused(run(&server.url(), &database).arg("--drain"), 1, &words);
    refused(catchment().args(["adopt", "--database"]).arg(&database), 1, &words);
    let check = output(catchment().args(["check", "--offline", "--database"]).arg(&database));
    let found = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.code() == Some(2) && found.contains("rename the view"), "{found}");
    assert!(!found.contains("catchment adopt"), "{found}");
    assert_eq!(std::fs::read(&database).expect("reads"), before);
    assert!(!folder.path().join("shop.db.lock").exists());
}

/// Starts the command, sends it a signal once `is_reached` returns `true`, and returns the only line that it prints.
fn signalled(mut command: Command, name: &str, status: i32, is_reached: impl Fn(u32) -> bool) -> String {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("catchment starts");
    eventually("the moment", || is_reached(child.id()).then_some(()));
    signal(child.id(), name);
    let done = child.wait_with_output().expect("ends");
    let said = stderr(&done);
    assert_eq!((done.status.code(), said.lines().count()), (Some(status), 1), "{command:?}: {said}");
    said
}

#[test]
fn the_first_signal_ends_every_command_that_opens_a_database_for_writing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let database = folder.path().join("a.db");
    assert!(output(run(&server.url(), &database).arg("--drain")).status.success());
    let letter = "INSERT INTO catchment_dead_letters(published_us, subject, payload, error, recorded_us)
                  VALUES (1, 'events.a', 'x', 'bad', 1)";
    let connection = Connection::open(&database).expect("opens");
    connection.execute_batch(letter).expect("SQL");
    connection.busy_timeout(Duration::ZERO).expect("sets");
    let settings = endless_migrations(folder.path());
    let events = folder.path().join("events.ndjson");
    std::fs::write(&events, "{\"subject\":\"events.a\",\"payload\":\"x\"}\n").expect("writes");
    let command = |words: &[&str]| {
        let mut command = catchment();
        command.args(words);
        command
    };
    let state = "SELECT (SELECT count(*) FROM catchment_dead_letters) || (SELECT value FROM catchment_meta WHERE key = 'identity')
                 || (SELECT count(*) FROM sqlite_schema WHERE name = 't')";
    let state = || connection.query_row(state, [], |row| row.get::<_, String>(0)).expect("reads");
    let before = state();
    // Migrations that never end. They hold the write lock.
    let is_locked = |_| connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err();
    for (name, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut retry = command(&["dead-letters", "retry", "--all", "--config"]);
        retry.arg(&settings).arg("--database").arg(&database);
        let said = signalled(retry, name, status, is_locked);
        assert_eq!(said, "catchment: interrupted: of 1 dead letter, 1 not tried\n");
        let mut test = command(&["test", "--config"]);
        test.arg(&settings).arg(&events);
        let said = signalled(test, name, status, catches_signals);
        assert_eq!(said, "catchment: interrupted before the first event\n");
    }
    assert_eq!(state(), before);
    // Another process that writes.
    connection.execute_batch("BEGIN IMMEDIATE").expect("nobody writes");
    for (name, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut adopt = command(&["adopt", "--database"]);
        adopt.arg(&database);
        let said = signalled(adopt, name, status, catches_signals);
        assert!(said.starts_with("catchment: interrupted: ") && said.contains("same identity and tables"), "{said}");
        let mut remove = command(&["dead-letters", "drop", "--all", "--database"]);
        remove.arg(&database);
        let said = signalled(remove, name, status, catches_signals);
        assert_eq!(said, "catchment: interrupted: of 1 dead letter, 0 dropped\n");
    }
    connection.execute_batch("ROLLBACK").expect("ends");
    assert_eq!(state(), before);
}
