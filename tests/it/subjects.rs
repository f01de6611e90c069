//! Streams that store events on other subjects than they take them on, and streams that do not keep what they promise.

use std::ops::Deref;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::collector::{Collector, catchment, output, printed, stderr};
use crate::support::server::needs;
use crate::support::{eventually, fixture, oracle};

/// A server whose streams each test makes.
struct Fixture(fixture::Fixture);

impl Deref for Fixture {
    type Target = fixture::Fixture;

    fn deref(&self) -> &fixture::Fixture {
        &self.0
    }
}

impl Fixture {
    fn new() -> Self {
        Self(fixture::Fixture::without_stream())
    }

    fn stream(&self, name: &str, settings: &Value) {
        self.ask("CREATE", name, settings);
    }

    fn ask(&self, what: &str, name: &str, settings: &Value) {
        let mut body = settings.clone();
        body["name"] = name.into();
        self.0.ask(&format!("$JS.API.STREAM.{what}.{name}"), &body);
    }

    /// Publishes so many events, each acknowledged.
    fn publish(&self, subject: &str, count: u64) {
        let mut command = catchment();
        command.args(["publish", "--server", &self.server.url(), subject, "--count", &count.to_string()]);
        printed(&mut command);
    }

    fn command(&self, stream: &str, subjects: &[&str], arguments: &[&str]) -> Command {
        let subjects = if subjects.is_empty() { String::new() } else { format!("subjects = {subjects:?}\n") };
        let settings = format!("[broker]\nstream = \"{stream}\"\n{subjects}[database]\npath = \"a.db\"\n");
        self.file("catchment.toml", settings);
        let mut command = self.0.command(&["--config", "catchment.toml"]);
        command.args(arguments).args(["--server", &self.server.url()]);
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

    fn rows(&self) -> u64 {
        oracle::count(&self.database())
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
    let said = "stream EVENTS stores nothing on events.>: it renames subjects, and stores stored.>";
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
fn a_sourcing_stream_without_matching_events_is_reported() {
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
fn a_work_queue_fed_by_a_collected_stream_keeps_its_events() {
    let fixture = Fixture::new();
    fixture.stream("EVENTS", &json!({ "subjects": ["jobs.>"] }));
    fixture.stream("QUEUE", &json!({ "retention": "workqueue", "sources": [{ "name": "EVENTS" }] }));
    fixture.publish("jobs.a", 10);
    let refused = fixture.drain("QUEUE", &["jobs.>"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("let the queue copy them from there (sources)"), "{}", stderr(&refused));
    let done = fixture.drain("EVENTS", &["jobs.>"]);
    assert!(done.status.success() && fixture.rows() == 10, "{}", stderr(&done));
    eventually("the queue to have them", || (fixture.server.messages("QUEUE") == 10).then_some(()));
    let worker = json!({ "stream_name": "QUEUE", "config": { "durable_name": "w", "ack_policy": "explicit" } });
    let made = fixture.server.ask("$JS.API.CONSUMER.DURABLE.CREATE.QUEUE.w", &worker);
    assert!(made["error"].is_null(), "{made}");
    let client = fixture.server.client();
    for _ in 0..10 {
        let job =
            client.request_timeout("$JS.API.CONSUMER.MSG.NEXT.QUEUE.w", "", Duration::from_secs(5)).expect("a job");
        job.respond("+ACK").expect("acknowledges");
    }
    eventually("all to be done", || (fixture.server.messages("QUEUE") == 0).then_some(()));
    assert_eq!(fixture.server.messages("EVENTS"), 10, "the collected stream keeps them");
    client.close();
}

#[test]
fn without_subjects_all_of_a_stream_is_collected() {
    for retention in ["limits", "interest"] {
        let fixture = Fixture::new();
        fixture.stream("ORDERS", &json!({ "subjects": ["orders.>", "bills"], "retention": retention }));
        let done = fixture.drain("ORDERS", &[]);
        let said = "collecting all of stream ORDERS (orders.>, bills): broker.subjects is not set";
        assert!(done.status.success() && stderr(&done).contains(said), "{}", stderr(&done));
        fixture.publish("orders.new", 5);
        fixture.publish("bills", 3);
        let done = fixture.drain("ORDERS", &[]);
        assert!(done.status.success() && fixture.rows() == 8, "{}", stderr(&done));
        // What the stream takes later is collected too.
        fixture.ask("UPDATE", "ORDERS", &json!({ "subjects": ["orders.>", "returns"], "retention": retention }));
        fixture.publish("returns", 1);
        let done = fixture.drain("ORDERS", &[]);
        assert!(done.status.success() && fixture.rows() == 9, "{}", stderr(&done));
        assert!(!stderr(&done).contains("WARN"), "{}", stderr(&done));
        assert!(fixture.check(1, "ORDERS", &[]).contains("all of ORDERS is collected (orders.>, returns)"));
        let unacknowledged = if retention == "interest" { 0 } else { 9 };
        eventually("the stream to keep what it must", || {
            (fixture.server.messages("ORDERS") == unacknowledged).then_some(())
        });
    }
}

#[test]
fn only_the_default_stream_is_made_without_subjects() {
    let fixture = Fixture::new();
    let said = "there is no stream BOT, and broker.subjects is not set; create the stream";
    let refused = fixture.drain("BOT", &[]);
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains(said), "{}", stderr(&refused));
    assert!(fixture.check(2, "BOT", &[]).contains(said));
    assert!(fixture.check(0, "EVENTS", &[]).contains("the first start makes it on events.>"));
    let done = fixture.drain("EVENTS", &[]);
    assert!(stderr(&done).contains("created stream EVENTS on events.>"), "{}", stderr(&done));
    assert!(done.status.success(), "{}", stderr(&done));
}

#[test]
fn a_deleted_stream_is_not_made_again_with_other_subjects() {
    let fixture = Fixture::new();
    fixture.stream("EVENTS", &json!({ "subjects": ["events.>", "more"] }));
    let mut run = fixture.command("EVENTS", &[], &["run"]);
    run.env("CATCHMENT_BROKER__SILENCE", "2s").env("CATCHMENT_BROKER__RETRY", "200ms");
    let collector = Collector::start(run, &fixture.path("log"));
    collector.said("collecting stream EVENTS");
    fixture.server.delete_stream("EVENTS");
    collector.said("stream EVENTS was deleted; it had the subjects events.>, more; create it again");
    fixture.stream("EVENTS", &json!({ "subjects": ["events.>", "more"] }));
    fixture.publish("more", 2);
    eventually("the new stream to be collected", || (fixture.rows() == 2).then_some(()));
    assert!(collector.stop().success());
}

#[test]
fn doubled_subjects_are_one_subject() {
    let fixture = Fixture::new();
    let done = fixture.drain("N", &["n.a.b", "n.>", "n.>"]);
    let said = stderr(&done);
    assert!(done.status.success() && said.contains("created stream N on n.>"), "{said}");
    assert!(said.contains("broker.subjects has n.a.b and n.>; the second includes the first"), "{said}");
    assert!(said.contains("broker.subjects has n.> twice, which is the same as once"), "{said}");
    assert!(fixture.check(1, "N", &["n.a.b", "n.>"]).contains("the second includes the first"));
    fixture.publish("n.a.b", 3);
    let done = fixture.drain("N", &["n.a.b", "n.a.b"]);
    assert!(done.status.success() && fixture.rows() == 3, "{}", stderr(&done));
}

#[test]
fn subjects_that_overlap_in_part_are_collected_once() {
    for retention in ["limits", "interest"] {
        let fixture = Fixture::new();
        fixture.stream("S", &json!({ "subjects": ["s.>"], "retention": retention }));
        let filters = ["s.a.*", "s.*.a"];
        let done = fixture.drain("S", &filters);
        assert!(done.status.success(), "{}", stderr(&done));
        let collector = Collector::start(fixture.command("S", &filters, &["run"]), &fixture.path("log"));
        collector.said("collecting stream S");
        for subject in ["s.c.c", "s.a.b", "s.c.c", "s.b.a", "s.a.a", "s.c.c", "s.c.c"] {
            fixture.publish(subject, 10);
        }
        eventually("30 rows", || (fixture.rows() == 30).then_some(()));
        let subjects = oracle::open(&fixture.path("a.db"))
            .query_row("SELECT group_concat(DISTINCT subject) FROM events", [], |row| row.get::<_, String>(0))
            .expect("SQL");
        assert_eq!(subjects, "s.a.b,s.b.a,s.a.a");
        if retention == "interest" {
            eventually("all to be acknowledged", || (fixture.server.messages("S") == 0).then_some(()));
        }
        assert!(collector.stop().success());
        let done = fixture.drain("S", &filters);
        assert!(done.status.success() && fixture.rows() == 30, "{}", stderr(&done));
    }
    let fixture = Fixture::new();
    let said = "a stream cannot have subjects that overlap, as s.a.* and s.*.a";
    let refused = fixture.drain("S", &["s.a.*", "s.*.a"]);
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains(said), "{}", stderr(&refused));
    assert!(fixture.check(2, "S", &["s.a.*", "s.*.a"]).contains(said));
}

#[test]
fn an_account_that_requires_a_limit_on_streams_is_told() {
    let accounts = "jetstream {}\naccounts { A { jetstream { max_file: 1GB, max_mem: 1MB, max_bytes_required: true },
                    users [{ user: a, password: a }] } }\nno_auth_user: a\n";
    let fixture = Fixture(fixture::Fixture::configured_without_stream(accounts));
    let said = "this account requires a limit on the bytes of each stream; create it: nats stream add N";
    let refused = fixture.drain("N", &["n.>"]);
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains(said), "{}", stderr(&refused));
    assert!(fixture.check(2, "N", &["n.>"]).contains(said));
}

#[test]
fn a_stream_that_would_store_the_collectors_own_messages_is_refused() {
    let fixture = Fixture::new();
    // Without no_ack the server itself refuses it.
    fixture.stream("ALL", &json!({ "subjects": [">"], "no_ack": true, "storage": "file", "retention": "limits" }));
    for subjects in [&[][..], &[">"], &["chat.>"]] {
        let words = "stream ALL takes >, which includes the answers that the collector receives (_INBOX.*.>)";
        for command in [&["run", "--drain"][..], &["check", "--quick"]] {
            let done = output(&mut fixture.command("ALL", subjects, command));
            let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), stderr(&done));
            assert!(!done.status.success() && said.contains(words), "{subjects:?}, {command:?}: {said}");
        }
    }
    let missing = output(&mut fixture.command("NEW", &[">"], &["run", "--drain"]));
    assert!(stderr(&missing).contains("cannot create stream NEW on >: it would take JetStream's requests and answers"));
    let own = output(&mut fixture.command("NEW", &["events.>", "_INBOX.>"], &["run", "--drain"]));
    assert_eq!(own.status.code(), Some(2));
    assert!(stderr(&own).contains("broker.subjects: \"_INBOX.>\" includes the answers that the collector receives"));
}
