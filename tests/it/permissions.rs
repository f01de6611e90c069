//! The permissions that SECURITY.md lists are enough: with them and no others, the server denies nothing.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::collector::{Collector, catchment, output, stderr};
use crate::support::server::Server;
use crate::support::{eventually, oracle};

const PAGE: &str = include_str!("../../SECURITY.md");

/// The subjects of stream EVENTS in a cell of the page's table; those of a user's own choice are not in it.
fn subjects(cell: &str) -> Vec<String> {
    let quoted = cell.split('`').skip(1).step_by(2);
    let subjects = quoted.filter(|text| text.starts_with('$') || text.starts_with("_INBOX"));
    subjects.map(|subject| subject.replace("<stream>", "EVENTS")).collect()
}

/// What the rows of these parts let a user publish and subscribe to, besides these subjects.
fn permissions(parts: &[&str], mut publish: Vec<String>, mut subscribe: Vec<String>) -> Value {
    for part in parts {
        let row = PAGE.lines().find_map(|line| line.strip_prefix(&format!("| {part}"))).expect("a row of the table");
        let cells: Vec<_> = row.split('|').collect();
        publish.extend(subjects(cells[1]));
        subscribe.extend(subjects(cells[2]));
    }
    subscribe.push("_INBOX.>".into());
    json!({ "publish": publish, "subscribe": subscribe })
}

fn user(name: &str, permissions: &Value) -> Value {
    json!({ "user": name, "password": "secret", "permissions": permissions })
}

/// A server with a user for each part.
fn server(folder: &Path) -> Server {
    let (events, query) = (|| vec!["events.>".to_owned()], || vec!["ask.>".to_owned()]);
    let collector =
        ["collector ", "… that creates the stream", "… on a stream with interest retention", "query service"];
    let users = [
        user("collector", &permissions(&collector, vec![], query())),
        user("recorder", &permissions(&["recorder, "], events(), vec![])),
        user("core-collector", &permissions(&["collector of core NATS"], vec![], events())),
        user("core-recorder", &permissions(&["recorder over core NATS"], events(), vec![])),
        user("asker", &permissions(&["`catchment query`"], query(), vec![])),
        user("checker", &permissions(&["collector ", "`catchment check`"], vec![], vec![])),
    ];
    let admin = json!({ "user": "admin", "password": "secret" });
    let users: Vec<_> = users.into_iter().chain([admin]).collect();
    // The test's own client is the administrator.
    let settings = json!({ "jetstream": {}, "authorization": { "users": users }, "no_auth_user": "admin" });
    Server::configured(folder, &settings.to_string())
}

fn has(database: &Path, events: u64) {
    eventually("the events", || (oracle::count(database) == events).then_some(()));
}

fn of(command: &mut Command, server: &Server, name: &str) {
    command.args(["--server", &server.url(), "--user", name, "--password", "secret"]);
}

#[track_caller]
fn succeeds(mut command: Command) {
    let done = output(&mut command);
    assert!(done.status.success(), "{command:?}: {}", stderr(&done));
    let said = stderr(&done);
    assert!(!said.to_lowercase().contains("violation"), "{command:?}: {said}");
}

fn publish(server: &Server, name: &str) -> Command {
    let mut command = catchment();
    command.args(["publish", "events.a", "--count", "100", "-v"]);
    of(&mut command, server, name);
    command
}

fn run(server: &Server, name: &str, database: &Path) -> Command {
    let mut command = catchment();
    command.args(["run", "-v", "--database"]).arg(database);
    of(&mut command, server, name);
    command
}

/// Neither log has a violation; the server logs also what the client passes over.
#[track_caller]
fn denied_nothing(server_folder: &Path, collector: &Collector) {
    for (whose, log) in [
        ("server", std::fs::read_to_string(server_folder.join("server.log")).expect("reads")),
        ("collector", collector.log()),
    ] {
        assert!(!log.to_lowercase().contains("violation"), "the {whose}'s log:\n{log}");
    }
}

#[test]
fn they_are_enough_for_a_stream_a_recorder_and_queries() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server(folder.path());
    let database = folder.path().join("a.db");
    let settings = folder.path().join("a.toml");
    std::fs::write(&settings, "[[query]]\nsubject = \"ask.count\"\nsql = \"SELECT count(*) AS n FROM events\"")
        .expect("writes");
    let mut run = run(&server, "collector", &database);
    run.arg("--config").arg(&settings);
    let collector = Collector::start(run, &folder.path().join("collector.log"));
    collector.said("collecting stream EVENTS");
    succeeds(publish(&server, "recorder"));
    has(&database, 100);
    let mut query = catchment();
    query.args(["query", "ask.count"]);
    of(&mut query, &server, "asker");
    succeeds(query);
    let mut check = catchment();
    check.args(["check", "--database"]).arg(&database);
    of(&mut check, &server, "checker");
    succeeds(check);
    denied_nothing(folder.path(), &collector);
    assert!(collector.stop().success());
}

#[test]
fn they_are_enough_for_interest_retention() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server(folder.path());
    server.make_stream_with("EVENTS", &["events.>"], &json!({ "retention": "interest", "max_consumers": 1 }));
    let database = folder.path().join("a.db");
    // The second session takes the consumer over: the stream allows no other.
    for round in 1..=2 {
        let log = folder.path().join(format!("collector-{round}.log"));
        let collector = Collector::start(run(&server, "collector", &database), &log);
        collector.said("collecting stream EVENTS");
        succeeds(publish(&server, "recorder"));
        has(&database, 100 * round);
        denied_nothing(folder.path(), &collector);
        assert!(collector.stop().success());
    }
}

#[test]
fn they_are_enough_for_core_nats() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server(folder.path());
    let database = folder.path().join("a.db");
    let mut run = run(&server, "core-collector", &database);
    run.env("CATCHMENT_BROKER__MODE", "core").env("CATCHMENT_BROKER__CORE__OVERFLOW", "block");
    let collector = Collector::start(run, &folder.path().join("collector.log"));
    collector.said("collecting");
    let mut publish = publish(&server, "core-recorder");
    publish.env("CATCHMENT_BROKER__MODE", "core");
    succeeds(publish);
    has(&database, 100);
    denied_nothing(folder.path(), &collector);
    assert!(collector.stop().success());
}
