//! Headers take fifty times in the NATS client what they take on the wire, and what waits is bounded all the same: held against the
//! process's own memory, not against its count.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::asking::{self, ENDLESS, read};
use crate::support::collector::{Collector, run};
use crate::support::server::Server;
use crate::support::{eventually, oracle};

/// What no collector here may take, in KiB: the program with SQLite has some 30 MiB, and nothing that it is asked to bound more
/// than 12.
const MOST: u64 = 96 << 10;

/// So many of them take 185 MB in the client, and 4 MB on the wire.
const EVENTS: u64 = 600;
const HEADERS: u64 = 1_000;

/// Headers of six bytes.
fn headers() -> Vec<u8> {
    let names: Vec<String> = (0..HEADERS).map(|number| format!("{number:03x}:\r\n")).collect();
    format!("NATS/1.0\r\n{}\r\n", names.concat()).into_bytes()
}

struct Fixture {
    _folder: tempfile::TempDir,
    server: Server,
    database: PathBuf,
    collector: Collector,
    lock: rusqlite::Connection,
}

impl Fixture {
    /// A collector whose database is locked.
    fn new(server: &[&str], settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (server, database) = (Server::start_with(folder.path(), server), folder.path().join("a.db"));
        let mut command: Command = run(&server.url(), &database);
        // Only memory is looked at here, and much is asked of the machine. Batches hold next to nothing.
        command.env("CATCHMENT_BROKER__SILENCE", "60s").env("CATCHMENT_BATCH__MAX_EVENTS", "10");
        command.envs(settings.iter().copied());
        let collector = Collector::start(command, &folder.path().join("log"));
        collector.said("INFO  collecting");
        let lock = oracle::lock(&database);
        Self { _folder: folder, server, database, collector, lock }
    }

    /// Waits until the process has taken in what it can and has nothing more to do, because the database is locked: in half a second
    /// it uses no more than so many ticks of CPU, of fifty.
    #[track_caller]
    fn settles_below_the_most(&self, what: &str, idle: u64) {
        let (mut before, mut since) = (self.collector.ticks(), Instant::now());
        eventually(what, || {
            if since.elapsed() < Duration::from_millis(500) {
                return None;
            }
            let ticks = self.collector.ticks();
            let worked = ticks - std::mem::replace(&mut before, ticks);
            since = Instant::now();
            (worked <= idle).then_some(())
        });
        let (_, highest) = self.collector.memory();
        assert!(highest < MOST, "{what}: {highest} KiB");
    }

    /// Lets the database go, and waits for so many rows, each with all its headers.
    fn stores(self, rows: impl Fn(&Collector) -> u64) {
        drop(self.lock);
        eventually("the rows", || (oracle::count(&self.database) == rows(&self.collector)).then_some(()));
        let headers = "SELECT count(*) FROM events WHERE (SELECT count(*) FROM json_each(headers)) <> 1000";
        let odd: u64 = oracle::open(&self.database).query_row(headers, [], |row| row.get(0)).expect("SQL");
        assert_eq!(odd, 0, "rows without all their headers");
        assert!(self.collector.memory().1 < MOST, "{} KiB", self.collector.memory().1);
        assert!(self.collector.stop().success());
        oracle::sound(&self.database);
    }
}

#[test]
fn tiny_headers_fill_no_memory_while_the_database_is_held() {
    let fixture = Fixture::new(&["--jetstream"], &[]);
    let (mut raw, headers) = (fixture.server.raw(), headers());
    for _ in 0..EVENTS {
        raw.send("events.load", Some(&headers), "");
    }
    assert_eq!(raw.finish(), EVENTS);
    let consumer = fixture.server.consumers("EVENTS").pop().expect("a consumer");
    eventually("all to be sent", || {
        let info = fixture.server.ask(&format!("$JS.API.CONSUMER.INFO.EVENTS.{consumer}"), &serde_json::Value::Null);
        (info["delivered"]["stream_seq"] == EVENTS).then_some(())
    });
    fixture.settles_below_the_most("all that was asked for", 2);
    fixture.stores(|_| EVENTS);
}

fn core(overflow: &str, room: &str) -> Fixture {
    let settings = [
        ("CATCHMENT_BROKER__MODE", "core"),
        ("CATCHMENT_BROKER__CORE__MAX_BYTES", room),
        ("CATCHMENT_BROKER__CORE__OVERFLOW", overflow),
    ];
    let fixture = Fixture::new(&[], &settings);
    let client = fixture.server.client();
    let headers = nats::HeaderMap::try_from(headers().as_slice()).expect("headers");
    for _ in 0..EVENTS {
        client.publish_with_reply_or_headers("events.load", None, Some(&headers), "").expect("published");
    }
    client.flush().expect("the server has them");
    fixture
}

#[test]
fn tiny_core_headers_are_dropped_before_they_fill_memory() {
    let fixture = core("drop_newest", "2MiB");
    let dropped = |collector: &Collector| {
        let log = collector.log();
        let counts = log.rsplit_once(" since the start").map_or("", |(before, _)| before);
        counts.rsplit_once(", ").map_or(0, |(_, count)| count.parse::<u64>().expect("a number"))
    };
    fixture.settles_below_the_most("all that was published", 2);
    eventually("a loss to be said", || (dropped(&fixture.collector) > 0).then_some(()));
    assert!(dropped(&fixture.collector) < EVENTS / 2, "of {EVENTS}, which take 3.2 MB");
    fixture.stores(|collector| EVENTS - dropped(collector));
}

#[test]
fn tiny_core_headers_stop_reading_before_memory_is_full() {
    // Half of it has room for what comes until reading stops.
    let fixture = core("block", "4MiB");
    // While reading is stopped, markers are published every 5 ms: five ticks on a slow machine.
    fixture.settles_below_the_most("what there is room for", 10);
    fixture.stores(|_| EVENTS);
}

#[test]
fn requests_of_tiny_headers_are_refused_and_fill_no_memory() {
    const REQUESTS: usize = 600;
    let fixture = asking::Fixture::new();
    let collector = fixture.process("ask.slow", ENDLESS);
    collector.said("answers on ask.slow");
    let client = fixture.client().0;
    let replies = client.subscribe("_INBOX.tiny").expect("subscribes");
    // Both threads are busy.
    for _ in 0..2 {
        client.publish_request("ask.slow", "_INBOX.busy", "").expect("published");
    }
    let headers = nats::HeaderMap::try_from(headers().as_slice()).expect("headers");
    for _ in 0..REQUESTS {
        let inbox = Some("_INBOX.tiny");
        client.publish_with_reply_or_headers("ask.slow", inbox, Some(&headers), "").expect("published");
    }
    for _ in 0..REQUESTS {
        let (code, why) =
            read(&replies.next_timeout(Duration::from_secs(10)).expect("an answer")).expect_err("refused");
        assert!(code == 400 && why.contains("has 1000 headers"), "{code} {why}");
    }
    let (_, highest) = collector.memory();
    assert!(highest < MOST, "{highest} KiB");
    assert!(collector.stop().success());
}
