//! Confirmations: whoever asks for it hears that an event is committed, and by then it is.

use std::path::PathBuf;
use std::time::Duration;

use catchment::config::{Mode, RouteConfig};
use catchment::{Collector, Config};
use serde_json::{Value, json};

use crate::support::server::Server;
use crate::support::{eventually, oracle, with};

const HEADER: &str = "Catchment-Reply-To";

struct Fixture {
    _folder: tempfile::TempDir,
    server: Server,
    config: Config,
}

impl Fixture {
    /// Events on `events.asked.>` are confirmed; a number below 0 is not stored. Others are not confirmed.
    fn new(mode: Mode) -> Self {
        let (folder, server) = Server::in_new_folder();
        let database = folder.path().join("a.db");
        let sql = "CREATE TABLE numbers(n INTEGER NOT NULL CHECK (n >= 0))";
        rusqlite::Connection::open(&database).and_then(|database| database.execute_batch(sql)).expect("SQL");
        let route = |subject: &str, reply| {
            with(RouteConfig::new(subject, ["INSERT INTO numbers(n) VALUES (:n)"]), |route| route.reply = reply)
        };
        let routes = vec![route("events.asked.>", true), route("events.silent", false)];
        let mut config = Config::default();
        config.broker = server.config();
        config.routes = routes;
        (config.broker.mode, config.database.path) = (mode, database);
        Self { _folder: folder, server, config }
    }

    fn database(&self) -> &PathBuf {
        &self.config.database.path
    }

    fn numbers(&self) -> u64 {
        let sql = "SELECT count(*) FROM numbers";
        oracle::open(self.database()).query_row(sql, [], |row| row.get(0)).expect("SQL")
    }
}

/// Publishes with a subject for the confirmation.
fn publish(client: &nats::Connection, subject: &str, reply_to: &str, number: i64) {
    let headers = nats::HeaderMap::from_iter([(HEADER, reply_to)]);
    let body = json!({ "n": number }).to_string();
    client.publish_with_reply_or_headers(subject, None, Some(&headers), body).expect("published");
}

fn read(message: &nats::Message) -> (Value, Option<String>) {
    let headers = message.headers.as_ref();
    let header = |name| headers.and_then(|headers| headers.get(name)).cloned();
    let failure = header("Nats-Service-Error-Code").zip(header("Nats-Service-Error"));
    let failure = failure.map(|(code, reason)| format!("{code} {reason}"));
    (serde_json::from_slice(&message.data).expect("JSON"), failure)
}

#[test]
fn a_confirmation_tells_of_the_commit_or_dead_letter() {
    for mode in [Mode::Jetstream, Mode::Core] {
        let fixture = Fixture::new(mode);
        let collector = Collector::start(&fixture.config).expect("starts");
        let client = fixture.server.client();
        let inbox = client.subscribe("_INBOX.me.*").expect("subscribes");
        let next = || inbox.next_timeout(Duration::from_secs(10)).expect("a confirmation");
        let place = |sequence: u64| match mode {
            Mode::Jetstream => (json!("EVENTS"), json!(sequence)),
            _ => (Value::Null, Value::Null),
        };
        publish(&client, "events.asked.a", "_INBOX.me.1", 7);
        let (message, (stream, sequence)) = (next(), place(1));
        assert_eq!(fixture.numbers(), 1, "it is there when the word comes");
        assert_eq!(message.subject, "_INBOX.me.1");
        assert_eq!(read(&message), (json!({ "stream": stream, "sequence": sequence, "stored": true }), None));
        publish(&client, "events.asked.a", "_INBOX.me.2", -1);
        let (message, (stream, sequence)) = (next(), place(2));
        let reason = "CHECK constraint failed: n >= 0";
        let body = json!({ "stream": stream, "sequence": sequence, "stored": false, "error": reason });
        assert_eq!(read(&message), (body, Some(format!("400 {reason}"))));
        // Nobody else's events are confirmed.
        publish(&client, "events.silent", "_INBOX.me.3", 8);
        publish(&client, "events.other", "_INBOX.me.4", 9);
        publish(&client, "events.asked.a", "_INBOX.me.5", 10);
        assert_eq!(next().subject, "_INBOX.me.5");
        let status = collector.stop(Duration::from_secs(10)).expect("stops");
        assert_eq!((status.committed, status.dead_letters, status.confirmations_dropped), (5, 1, 0));
        assert!(inbox.try_next().is_none());
    }
}

#[test]
fn in_core_nats_a_request_is_enough() {
    let fixture = Fixture::new(Mode::Core);
    let collector = Collector::start(&fixture.config).expect("starts");
    let client = fixture.server.client();
    let confirmed = client.request_timeout("events.asked.a", r#"{"n":1}"#, Duration::from_secs(10)).expect("confirmed");
    assert_eq!(read(&confirmed), (json!({ "stream": null, "sequence": null, "stored": true }), None));
    assert_eq!(fixture.numbers(), 1);
    let refused = client.request_timeout("events.asked.a", "{", Duration::from_secs(10)).expect("confirmed");
    assert!(read(&refused).1.is_some_and(|failure| failure.starts_with("400 ")));
    collector.stop(Duration::from_secs(10)).expect("stops");
}

#[test]
fn nothing_is_published_for_a_publisher_but_to_an_inbox() {
    for mode in [Mode::Jetstream, Mode::Core] {
        let mut fixture = Fixture::new(mode);
        fixture.config.broker.inbox_prefix = Some("in.ours".into());
        let collector = Collector::start(&fixture.config).expect("starts");
        let client = fixture.server.client();
        let all = client.subscribe(">").expect("subscribes");
        let elsewhere =
            ["private.a", "_INBOX.*", "_INBOXES.a", "$JS.API.STREAM.PURGE.EVENTS", "in.other.a", "_INBOX.a b", ""];
        for reply_to in elsewhere {
            publish(&client, "events.asked.a", reply_to, 1);
        }
        publish(&client, "events.asked.a", "in.ours.1", 1);
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last| last != "in.ours.1") {
            let message = all.next_timeout(Duration::from_secs(10)).expect("the last confirmation");
            if read_stored(&message.data) {
                heard.push(message.subject);
            }
        }
        assert_eq!(heard, ["in.ours.1"]);
        let status = collector.stop(Duration::from_secs(10)).expect("stops");
        assert_eq!((status.committed, status.confirmations_dropped), (8, elsewhere.len() as u64));
        assert_eq!(fixture.numbers(), 8, "they are committed all the same");
    }
}

/// Whether these are a confirmation's.
fn read_stored(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| !body["stored"].is_null())
}

#[test]
fn many_events_are_confirmed_once_each_also_at_a_stop() {
    const EVENTS: i64 = 20_000;
    let fixture = Fixture::new(Mode::Jetstream);
    let client = fixture.server.client();
    let inbox = client.subscribe("_INBOX.many.*").expect("subscribes");
    let collector = Collector::start(&fixture.config).expect("starts");
    for number in 0..EVENTS {
        publish(&client, "events.asked.many", &format!("_INBOX.many.{number}"), number);
    }
    client.flush().expect("the server has them");
    eventually("the stream to have them", || (fixture.server.last_sequence("EVENTS") == EVENTS as u64).then_some(()));
    eventually("some to be committed", || (collector.status().committed > 0).then_some(()));
    let status = collector.stop(Duration::from_secs(30)).expect("stops");
    assert_eq!((fixture.numbers(), status.confirmations_dropped), (status.committed, 0));
    client.flush().expect("all is here that was sent before");
    let mut confirmed: Vec<i64> = inbox
        .try_iter()
        .map(|message| message.subject.rsplit('.').next().and_then(|number| number.parse().ok()).expect("a number"))
        .collect();
    assert_eq!(confirmed.len() as u64, status.committed);
    confirmed.sort_unstable();
    confirmed.dedup();
    assert_eq!(confirmed.len() as u64, status.committed, "each once");
}

#[test]
fn an_outage_costs_confirmations_and_no_events() {
    let mut fixture = Fixture::new(Mode::Jetstream);
    let collector = Collector::start(&fixture.config).expect("starts");
    fixture.server.kill();
    eventually("the trouble to show", || collector.status().service);
    fixture.server.restart();
    eventually("health", || collector.health().is_well().then_some(()));
    let client = fixture.server.client();
    let inbox = client.subscribe("_INBOX.me").expect("subscribes");
    publish(&client, "events.asked.a", "_INBOX.me", 1);
    assert!(inbox.next_timeout(Duration::from_secs(10)).is_ok(), "confirmed over the new connection");
    collector.stop(Duration::from_secs(10)).expect("stops");
}
