//! Streams that store events on other subjects than they take them on, and streams that do not keep what they promise.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::collector::{catchment, output, stderr};
use crate::support::eventually;
use crate::support::oracle;
use crate::support::server::{Server, needs};

struct Fixture {
    folder: tempfile::TempDir,
    server: Server,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start(folder.path());
        Self { folder, server }
    }

    fn stream(&self, name: &str, settings: &Value) {
        self.ask("CREATE", name, settings);
    }

    fn ask(&self, what: &str, name: &str, settings: &Value) {
        let mut body = settings.clone();
        body["name"] = name.into();
        let answer = self.server.ask(&format!("$JS.API.STREAM.{what}.{name}"), &body);
        assert!(answer["error"].is_null(), "{answer}");
    }

    /// Publishes so many events, each acknowledged.
    fn publish(&self, subject: &str, count: u64) {
        let mut command = catchment();
        command.args(["publish", "--server", &self.server.url(), subject, "--count", &count.to_string()]);
        let done = output(&mut command);
        assert!(done.status.success(), "{}", stderr(&done));
    }

    fn command(&self, stream: &str, subjects: &[&str], arguments: &[&str]) -> Command {
        let settings =
            format!("[broker]\nstream = \"{stream}\"\nsubjects = {subjects:?}\n[database]\npath = \"a.db\"\n");
        std::fs::write(self.path("catchment.toml"), settings).expect("writes");
        let mut command = catchment();
        command.current_dir(self.folder.path()).args(["--config", "catchment.toml"]).args(arguments);
        command.args(["--server", &self.server.url()]);
        command
    }

    fn drain(&self, stream: &str, subjects: &[&str]) -> Output {
        output(&mut self.command(stream, subjects, &["run", "--drain"]))
    }

    /// What a check says that ends with this status.
    #[track_caller]
    fn check(&self, status: i32, stream: &str, subjects: &[&str]) -> String {
        let done = output(&mut self.command(stream, subjects, &["check"]));
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(done.status.code(), Some(status), "{said}{}", stderr(&done));
        said
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn rows(&self) -> u64 {
        if Path::new(&self.path("a.db")).exists() { oracle::count(&self.path("a.db")) } else { 0 }
    }
}

#[test]
fn filters_are_on_what_a_stream_that_renames_stores() {
    if !needs((2, 10), "subject transforms") {
        return;
    }
    let fixture = Fixture::new();
    let renames = json!({ "subjects": ["events.>"], "subject_transform": { "src": "events.>", "dest": "stored.>" } });
    fixture.stream("EVENTS", &renames);
    fixture.publish("events.a", 10);
    let said = "stream EVENTS stores nothing on events.>: it renames what it takes, and stores stored.>";
    let refused = fixture.drain("EVENTS", &["events.>"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(stderr(&refused).contains(said), "{}", stderr(&refused));
    let critical = fixture.check(2, "EVENTS", &["events.>"]);
    assert!(critical.contains(said), "{critical}");
    let done = fixture.drain("EVENTS", &["stored.>"]);
    assert!(done.status.success() && fixture.rows() == 10, "{}", stderr(&done));
    assert!(!stderr(&done).contains("WARN"), "{}", stderr(&done));
    // Nobody collects at the moment, which is a warning.
    let fits = fixture.check(1, "EVENTS", &["stored.>"]);
    assert!(!fits.contains("critical") && fits.contains("ok        stream"), "{fits}");
}

#[test]
fn filters_are_on_what_a_mirror_that_renames_stores() {
    if !needs((2, 10), "subject transforms") {
        return;
    }
    let fixture = Fixture::new();
    fixture.stream("RAW", &json!({ "subjects": ["raw.>"] }));
    fixture.publish("raw.a", 10);
    let mirror = json!({ "name": "RAW", "subject_transforms": [{ "src": "raw.>", "dest": "copy.>" }] });
    fixture.stream("COPY", &json!({ "mirror": mirror }));
    eventually("the mirror to have them", || (fixture.server.last_sequence("COPY") == 10).then_some(()));
    let refused = fixture.drain("COPY", &["raw.>"]);
    assert!(stderr(&refused).contains("stores copy.>"), "{}", stderr(&refused));
    fixture.check(2, "COPY", &["raw.>"]);
    let done = fixture.drain("COPY", &["copy.>"]);
    assert!(done.status.success() && fixture.rows() == 10, "{}", stderr(&done));
}

#[test]
fn a_branch_that_is_renamed_away_is_told_and_the_rest_collected() {
    if !needs((2, 10), "subject transforms") {
        return;
    }
    let fixture = Fixture::new();
    let renames = json!({ "subjects": ["events.>"], "subject_transform": { "src": "events.a", "dest": "stored.a" } });
    fixture.stream("EVENTS", &renames);
    fixture.publish("events.a", 5);
    fixture.publish("events.b", 5);
    let said = "acknowledges events on events.a and stores them on stored.a";
    let done = fixture.drain("EVENTS", &["events.>"]);
    assert!(done.status.success() && fixture.rows() == 5, "{}", stderr(&done));
    assert!(stderr(&done).contains(said), "{}", stderr(&done));
    assert!(fixture.check(2, "EVENTS", &["events.>"]).contains(said));
}

#[test]
fn what_was_stored_before_a_transform_was_added_is_collected() {
    if !needs((2, 10), "subject transforms") {
        return;
    }
    let fixture = Fixture::new();
    fixture.stream("EVENTS", &json!({ "subjects": ["events.>"] }));
    fixture.publish("events.a", 5);
    let renames = json!({ "subjects": ["events.>"], "subject_transform": { "src": "events.>", "dest": "stored.>" } });
    fixture.ask("UPDATE", "EVENTS", &renames);
    let done = fixture.drain("EVENTS", &["events.>"]);
    assert!(done.status.success() && fixture.rows() == 5, "{}", stderr(&done));
    assert!(stderr(&done).contains("stores nothing on events.>"), "and it is said: {}", stderr(&done));
    fixture.publish("events.a", 5);
    let refused = fixture.drain("EVENTS", &["events.>"]);
    assert_eq!(refused.status.code(), Some(1), "nothing more can come: {}", stderr(&refused));
    let both = fixture.drain("EVENTS", &["events.>", "stored.>"]);
    assert!(both.status.success() && fixture.rows() == 10, "{}", stderr(&both));
}

#[test]
fn a_stream_of_another_ones_events_that_has_none_to_collect_is_told() {
    let fixture = Fixture::new();
    fixture.stream("ORDERS", &json!({ "subjects": ["orders.>"] }));
    fixture.publish("orders.a", 5);
    fixture.stream("ALL", &json!({ "sources": [{ "name": "ORDERS" }] }));
    eventually("it to have them", || (fixture.server.last_sequence("ALL") == 5).then_some(()));
    let said = "stream ALL has 5 events, and none of them is on events.>";
    let done = fixture.drain("ALL", &["events.>"]);
    assert!(stderr(&done).contains(said), "{}", stderr(&done));
    if !needs((2, 10), "filters on subjects that only a source has") {
        return;
    }
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(fixture.check(1, "ALL", &["events.>"]).contains(said));
    let done = fixture.drain("ALL", &["orders.>"]);
    assert!(done.status.success() && fixture.rows() == 5, "{}", stderr(&done));
    assert!(!stderr(&done).contains("WARN"), "{}", stderr(&done));
}

#[test]
fn a_stream_that_loses_what_it_acknowledged_is_told() {
    if !needs((2, 12), "persist_mode") {
        return;
    }
    let fixture = Fixture::new();
    fixture.stream("EVENTS", &json!({ "subjects": ["events.>"], "persist_mode": "async" }));
    fixture.publish("events.a", 5);
    let done = fixture.drain("EVENTS", &["events.>"]);
    assert!(done.status.success() && fixture.rows() == 5, "{}", stderr(&done));
    assert!(stderr(&done).contains("stream EVENTS has persist_mode async"), "{}", stderr(&done));
    assert!(fixture.check(2, "EVENTS", &["events.>"]).contains("persist_mode async"));
}

/// What the refusal of a work queue advises.
#[test]
fn a_queue_that_takes_its_events_from_a_collected_stream_keeps_them() {
    let fixture = Fixture::new();
    fixture.stream("EVENTS", &json!({ "subjects": ["jobs.>"] }));
    fixture.stream("QUEUE", &json!({ "retention": "workqueue", "sources": [{ "name": "EVENTS" }] }));
    fixture.publish("jobs.a", 10);
    let refused = fixture.drain("QUEUE", &["jobs.>"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("let the queue take them from there (sources)"), "{}", stderr(&refused));
    let done = fixture.drain("EVENTS", &["jobs.>"]);
    assert!(done.status.success() && fixture.rows() == 10, "{}", stderr(&done));
    let messages = |stream: &str| {
        let info = fixture.server.ask(&format!("$JS.API.STREAM.INFO.{stream}"), &Value::Null);
        info["state"]["messages"].as_u64().expect("a count")
    };
    eventually("the queue to have them", || (messages("QUEUE") == 10).then_some(()));
    let worker = json!({ "stream_name": "QUEUE", "config": { "durable_name": "w", "ack_policy": "explicit" } });
    let made = fixture.server.ask("$JS.API.CONSUMER.DURABLE.CREATE.QUEUE.w", &worker);
    assert!(made["error"].is_null(), "{made}");
    let client = fixture.server.client();
    for _ in 0..10 {
        let job =
            client.request_timeout("$JS.API.CONSUMER.MSG.NEXT.QUEUE.w", "", Duration::from_secs(5)).expect("a job");
        job.respond("+ACK").expect("acknowledges");
    }
    eventually("all to be done", || (messages("QUEUE") == 0).then_some(()));
    assert_eq!(messages("EVENTS"), 10, "the collected stream keeps them");
    client.close();
}
