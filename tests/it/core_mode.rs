//! Core NATS: what is heard is stored once, what there is no room for is counted, and memory stays bounded.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use catchment::config::{CoreConfig, CoreOverflow, Mode};
use catchment::{Collector, Config, Error, Status};

use crate::support::collector::{self, run, signal};
use crate::support::oracle;
use crate::support::refusal::refused;
use crate::support::server::Server;
use crate::support::{eventually, with};

/// Takes about 450 bytes in memory.
const PAYLOAD: usize = 200;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A server without JetStream.
fn server(folder: &tempfile::TempDir) -> Server {
    Server::start_with(folder.path(), &[])
}

fn config(server: &Server, database: &Path) -> Config {
    let mut config = Config::default();
    config.broker = server.config();
    config.broker.mode = Mode::Core;
    database.clone_into(&mut config.database.path);
    config.database.busy_timeout = Duration::from_millis(200);
    config
}

/// `catchment run` in mode core, with so much room.
fn command(server: &Server, database: &Path, overflow: &str, max_events: usize) -> Command {
    let mut command = run(&server.url(), database);
    command.env("CATCHMENT_BROKER__MODE", "core").env("CATCHMENT_BROKER__CORE__OVERFLOW", overflow);
    command.env("CATCHMENT_BROKER__CORE__MAX_EVENTS", max_events.to_string());
    command
}

fn payload(number: u64) -> String {
    format!("{number:x>PAYLOAD$}")
}

/// Publishes these, until the server has them.
fn publish(server: &Server, numbers: std::ops::Range<u64>) -> Vec<String> {
    let client = server.client();
    let payloads: Vec<String> = numbers.map(payload).collect();
    for some in payloads.chunks(1_000) {
        for payload in some {
            client.publish("events.load", payload).expect("published");
        }
        client.flush().expect("the server has them");
    }
    client.close();
    payloads
}

fn rows(database: &Path, count: usize) {
    let found = || oracle::count(database);
    eventually(&format!("{count} rows"), || (found() == count as u64).then_some(()));
}

/// Every event is there, each once, none has a place in a stream, the file is sound.
fn holds(database: &Path, payloads: &[String]) {
    oracle::holds(database, payloads);
    let sql = "SELECT count(*) FROM events WHERE stream IS NOT NULL OR sequence IS NOT NULL OR published_us < 1e15";
    let odd: u64 = oracle::open(database).query_row(sql, [], |row| row.get(0)).expect("SQL");
    assert_eq!(odd, 0);
}

/// How many events the log says were dropped.
fn dropped(log: &str) -> u64 {
    let last = log.lines().rfind(|line| line.contains("since the start"));
    let words = last.map_or("", |line| line.rsplit(" events, ").next().unwrap_or_default());
    words.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[test]
fn events_are_rows_without_a_stream_and_keep_their_headers() {
    let folder = folder();
    let (server, database) = (server(&folder), folder.path().join("a.db"));
    for start in 1..=3 {
        let collector = Collector::start(&config(&server, &database)).expect("starts");
        let client = server.client();
        let headers = nats::HeaderMap::from_iter([("Trace-Id", "7"), ("Täg", "x"), ("Täg", "y")]);
        client.publish_with_reply_or_headers("events.a", None, Some(&headers), "one").expect("published");
        client.publish("events.b.c", [0xff, 0x00]).expect("published");
        client.publish("other", "not asked for").expect("published");
        client.flush().expect("there");
        eventually("both events", || (collector.status().committed == 2).then_some(()));
        let status = collector.stop(Duration::from_secs(10)).expect("stops");
        assert_eq!((status.received, status.committed, status.dropped, status.pending), (2, 2, 0, 0));
        assert_eq!(oracle::count(&database), start * 2);
    }
    oracle::sound(&database);
    let rows: Vec<String> = oracle::open(&database)
        .prepare(
            "SELECT format('%s %s %s %s %s %s', subject, stream, sequence, hex(payload), headers ->> 'Trace-Id',
                    json_array_length(headers, '$.Täg')) FROM events ORDER BY id LIMIT 2",
        )
        .expect("SQL")
        .query_map([], |row| row.get(0))
        .expect("runs")
        .collect::<Result<_, _>>()
        .expect("text");
    assert_eq!(rows, ["events.a   6F6E65 7 2", "events.b.c   FF00  "]);
    let sql = "SELECT count(*), count(DISTINCT stream), max(sequence) FROM catchment_ledger";
    let ledger: (u64, u64, u64) =
        oracle::open(&database).query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("SQL");
    assert!(ledger.0 <= 2, "entries of earlier starts go: {ledger:?}");
    assert_eq!((ledger.1, ledger.2), (1, 2));
}

#[test]
fn a_subject_that_another_includes_delivers_no_event_twice() {
    let folder = folder();
    let (server, database) = (server(&folder), folder.path().join("a.db"));
    let mut config = config(&server, &database);
    config.broker.subjects = ["events.a", "events.>", "events.>", "b"].map(str::to_owned).into();
    let collector = Collector::start(&config).expect("starts");
    assert_eq!(collector.subjects(), ["events.>", "b"]);
    let client = server.client();
    for subject in ["events.a", "events.c", "b", "c"] {
        client.publish(subject, subject).expect("published");
    }
    client.flush().expect("there");
    eventually("the events", || (collector.status().committed == 3).then_some(()));
    let status = collector.stop(Duration::from_secs(10)).expect("stops");
    assert_eq!(
        (status.received, oracle::payloads(&database)),
        (3, ["events.a", "events.c", "b"].map(str::to_owned).into())
    );
}

#[test]
fn an_event_that_cannot_be_stored_is_a_dead_letter() {
    let folder = folder();
    let (server, database) = (server(&folder), folder.path().join("a.db"));
    let collector = Collector::start(&config(&server, &database)).expect("starts");
    rusqlite::Connection::open(&database)
        .and_then(|database| database.execute_batch("CREATE INDEX city ON events(payload ->> '$.city')"))
        .expect("SQL");
    let client = server.client();
    for payload in ["{}", "{", "[]"] {
        client.publish("events.a", payload).expect("published");
    }
    eventually("all three", || (collector.status().committed == 3).then_some(()));
    assert_eq!(collector.stop(Duration::from_secs(10)).expect("stops").dead_letters, 1);
    assert_eq!(oracle::payloads(&database), ["{}", "[]"]);
    let sql = "SELECT payload FROM catchment_dead_letters WHERE stream IS NULL AND epoch IS NULL AND sequence IS NULL";
    let dead: String = oracle::open(&database).query_row(sql, [], |row| row.get(0)).expect("one");
    assert_eq!(dead, "{");
}

#[test]
fn of_a_queue_group_one_gets_each_event() {
    let folder = folder();
    let server = server(&folder);
    let databases = [folder.path().join("a.db"), folder.path().join("b.db")];
    let collectors = databases.each_ref().map(|database| {
        let mut config = config(&server, database);
        config.broker.core.queue = Some("writers".into());
        Collector::start(&config).expect("starts")
    });
    let mut published = publish(&server, 0..10_000);
    let committed = || collectors.iter().map(|collector| collector.status().committed).sum::<u64>();
    eventually("all events", || (committed() == 10_000).then_some(()));
    for collector in collectors {
        collector.stop(Duration::from_secs(10)).expect("stops");
    }
    let parts = databases.each_ref().map(|database| oracle::payloads(database));
    assert!(parts.iter().all(|part| !part.is_empty()), "both have work to do");
    let mut stored = parts.concat();
    stored.sort();
    published.sort();
    assert_eq!(stored, published);
}

#[test]
fn overflow_is_dropped_and_counted_in_bounded_memory() {
    const EVENTS: u64 = 300_000;
    let folder = folder();
    let (server, database) = (server(&folder), folder.path().join("a.db"));
    let command = command(&server, &database, "drop_newest", 20_000);
    let collector = collector::Collector::start(command, &folder.path().join("log"));
    collector.said("(core NATS: at most once)");
    let lock = oracle::lock(&database);
    let payloads = publish(&server, 0..EVENTS);
    collector.said("those without room are dropped");
    // Beside the room there are three batches of 5,000, and one that fits neither.
    eventually("all to have been heard", || (dropped(&collector.log()) >= EVENTS - 20_000 - 15_001).then_some(()));
    let (_, highest) = collector.memory();
    assert!(highest < 80 << 10, "{highest} KiB");
    drop(lock);
    collector.said("intake: well again");
    let total = || oracle::count(&database) + dropped(&collector.log());
    eventually("each event to be a row or counted", || (total() == EVENTS).then_some(()));
    let log = collector.log();
    assert!(log.matches("since the start").count() < 100, "a line a second at most:\n{log}");
    assert!(collector.stop().success());
    let stored = oracle::payloads(&database);
    holds(&database, &stored);
    assert_eq!(stored[..20_000], payloads[..20_000], "the oldest are kept");
}

#[test]
fn bytes_are_bounded_as_events_are() {
    let folder = folder();
    let (server, database) = (server(&folder), folder.path().join("a.db"));
    let mut config = config(&server, &database);
    config.broker.core = with(CoreConfig::default(), |config| config.max_bytes = ByteSize::kib(100));
    config.batch.max_events = 10;
    let collector = Collector::start(&config).expect("starts");
    let lock = oracle::lock(&database);
    publish(&server, 0..5_000);
    // 100 KiB are 219 events; at most three batches of ten are on their way beside them.
    let dropped = eventually("drops", || Some(collector.status().dropped).filter(|&dropped| dropped >= 4_750));
    assert!(dropped <= 5_000 - 219, "{dropped}");
    let trouble = collector.health().troubles.into_iter().find(|trouble| trouble.part == "intake");
    assert!(trouble.is_some_and(|trouble| trouble.reason.contains("dropped")));
    drop(lock);
    let settled = |status: &Status| status.committed + status.dropped == 5_000;
    eventually("the rest", || Some(collector.status()).filter(settled));
    eventually("health", || collector.health().is_well().then_some(()));
    collector.stop(Duration::from_secs(10)).expect("stops");
}

#[test]
fn with_block_a_short_database_lock_loses_nothing() {
    const EVENTS: u64 = 100_000;
    let folder = folder();
    let (server, database) = (server(&folder), folder.path().join("a.db"));
    let mut config = config(&server, &database);
    config.broker.core = with(CoreConfig::default(), |config| {
        config.max_events = 40_000;
        config.overflow = CoreOverflow::Block;
    });
    let collector = Collector::start(&config).expect("starts");
    let lock = oracle::lock(&database);
    let payloads = publish(&server, 0..EVENTS);
    eventually("the database's trouble to show", || collector.status().database);
    assert_eq!(collector.status().committed, 0);
    drop(lock);
    eventually("all events", || (collector.status().committed == EVENTS).then_some(()));
    let status = collector.stop(Duration::from_secs(10)).expect("stops");
    assert_eq!((status.committed, status.dropped, status.reconnects), (EVENTS, 0, 0));
    assert_eq!(oracle::payloads(&database), payloads, "all, once, in order");
    holds(&database, &payloads);
}

#[test]
fn with_block_reading_stops_and_memory_stays_bounded() {
    const EVENTS: u64 = 300_000;
    let folder = folder();
    let (server, database) = (server(&folder), folder.path().join("a.db"));
    let mut command = command(&server, &database, "block", 40_000);
    command.arg("-v");
    let collector = collector::Collector::start(command, &folder.path().join("log"));
    collector.said("(core NATS: at most once)");
    let lock = oracle::lock(&database);
    publish(&server, 0..EVENTS);
    collector.said("reading stops until there is room");
    let (_, highest) = collector.memory();
    assert!(highest < 80 << 10, "{highest} KiB");
    assert_eq!(oracle::count(&database), 0);
    drop(lock);
    collector.said("reading goes on");
    // The server may have had enough of waiting. Then what waited there is lost; what comes now is not.
    eventually("an event behind all that to be stored", || {
        server.client().publish("events.last", "last").ok()?;
        oracle::payloads(&database).last().filter(|last| *last == "last").map(drop)
    });
    assert!(collector.memory().1 < 80 << 10, "{} KiB", collector.memory().1);
    assert!(collector.stop().success());
    oracle::sound(&database);
}

#[test]
fn a_commit_without_an_answer_doubles_nothing() {
    let folder = folder();
    let (server, database) = (server(&folder), folder.path().join("a.db"));
    let plain = command(&server, &database, "drop_newest", 20_000);
    let mut limited = Command::new("sh");
    // A mebibyte a file: what SQLite reports for it is an I/O error.
    limited.args(["-c", "ulimit -S -f 2048; exec \"$0\" \"$@\""]).arg(plain.get_program());
    limited.args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let collector = collector::Collector::start(limited, &folder.path().join("log"));
    collector.said("(core NATS: at most once)");
    let payloads = publish(&server, 0..10_000);
    collector.said("WARN  database:");
    let raised = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &collector.pid().to_string()]).status();
    assert!(raised.expect("prlimit runs").success());
    collector.said("database: well again");
    rows(&database, 10_000);
    assert!(collector.stop().success());
    assert_eq!(oracle::payloads(&database), payloads);
    holds(&database, &payloads);
}

#[test]
fn it_goes_on_when_the_broker_comes_back_or_falls_silent() {
    let folder = folder();
    let (mut server, database) = (server(&folder), folder.path().join("a.db"));
    for overflow in [CoreOverflow::DropNewest, CoreOverflow::Block] {
        let mut config = config(&server, &database);
        config.broker.core.overflow = overflow;
        let collector = Collector::start(&config).expect("starts");
        let goes_on = |server: &Server, after: u64, collector: &Collector| {
            eventually("health", || collector.health().is_well().then_some(()));
            // A machine under load can be silent for a while too.
            eventually("a new session", || (collector.status().reconnects >= after).then_some(()));
            let before = collector.status().committed;
            publish(server, 0..100);
            eventually("the events", || (collector.status().committed == before + 100).then_some(()));
        };
        goes_on(&server, 0, &collector);
        server.kill();
        eventually("the broker's trouble to show", || collector.status().broker);
        server.restart();
        goes_on(&server, 1, &collector);
        server.signal("STOP");
        eventually("the broker's silence to be noticed", || collector.status().broker);
        server.signal("CONT");
        goes_on(&server, 2, &collector);
        collector.stop(Duration::from_secs(10)).expect("stops");
    }
    oracle::sound(&database);
}

#[test]
fn an_unreadable_message_is_lost_and_the_next_is_stored() {
    let folder = folder();
    let (server, database) = (server(&folder), folder.path().join("a.db"));
    let collector =
        collector::Collector::start(command(&server, &database, "drop_newest", 1_000), &folder.path().join("log"));
    collector.said("(core NATS: at most once)");
    let payloads = publish(&server, 0..100);
    rows(&database, 100);
    server.raw().send("events.bad", Some(b"NATS/1.0\r\nno colon\r\n\r\n"), "unreadable");
    collector.said("a message came that the NATS client cannot read");
    collector.said("is lost");
    let more = publish(&server, 100..200);
    rows(&database, 200);
    assert!(collector.stop().success());
    holds(&database, &[payloads, more].concat());
}

#[test]
fn who_collects_everything_collects_no_probes() {
    for overflow in [CoreOverflow::DropNewest, CoreOverflow::Block] {
        let folder = folder();
        let (server, database) = (server(&folder), folder.path().join("a.db"));
        let mut config = config(&server, &database);
        config.broker.subjects = vec![">".into()];
        config.broker.silence = Duration::from_secs(2);
        config.broker.core.overflow = overflow;
        let client = server.client();
        let probes = client.subscribe("_INBOX.catchment.>").expect("subscribes");
        client.flush().expect("subscribed");
        let collector = Collector::start(&config).expect("starts");
        for _ in 0..3 {
            probes.next_timeout(Duration::from_secs(30)).expect("a probe");
        }
        client.publish("anything", "x").expect("published");
        rows(&database, 1);
        let status = collector.stop(Duration::from_secs(10)).expect("stops");
        assert_eq!((status.committed, status.reconnects, status.dropped), (1, 0, 0));
    }
}

#[test]
fn a_stop_commits_what_is_in_memory() {
    let folder = folder();
    for overflow in ["drop_newest", "block"] {
        let (server, database) = (server(&folder), folder.path().join(format!("{overflow}.db")));
        let command = command(&server, &database, overflow, 100_000);
        let mut collector = collector::Collector::start(command, &folder.path().join(format!("{overflow}.log")));
        collector.said("(core NATS: at most once)");
        let lock = oracle::lock(&database);
        let payloads = publish(&server, 0..30_000);
        collector.said("another process holds its write lock");
        signal(collector.pid(), "TERM");
        collector.said("stopping:");
        drop(lock);
        assert!(collector.wait().success(), "{}", collector.log());
        assert_eq!(oracle::payloads(&database), payloads);
        holds(&database, &payloads);
    }
}

#[test]
fn a_stop_ends_in_time_while_the_database_is_held() {
    const PATIENCE: Duration = Duration::from_secs(2);
    for overflow in [CoreOverflow::DropNewest, CoreOverflow::Block] {
        let folder = folder();
        let (server, database) = (server(&folder), folder.path().join("a.db"));
        let mut config = config(&server, &database);
        config.broker.core = with(CoreConfig::default(), |config| {
            config.max_events = 5_000;
            config.overflow = overflow;
        });
        let collector = Collector::start(&config).expect("starts");
        let lock = oracle::lock(&database);
        publish(&server, 0..50_000);
        eventually("the database's trouble to show", || collector.status().database);
        let began = Instant::now();
        match collector.stop(PATIENCE) {
            Err(error @ Error::StopDeadline { kept: false, .. }) => {
                assert!(error.to_string().contains("are lost"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() < PATIENCE + Duration::from_secs(1), "{:?}", began.elapsed());
        drop(lock);
        let collector = Collector::start(&config).expect("starts again");
        publish(&server, 50_000..50_100);
        eventually("the new events", || (collector.status().committed == 100).then_some(()));
        collector.stop(Duration::from_secs(10)).expect("stops");
        holds(&database, &(50_000..50_100).map(payload).collect::<Vec<_>>());
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let folder = folder();
    let (server, database) = (server(&folder), folder.path().join("a.db"));
    let core = || command(&server, &database, "drop_newest", 10);
    refused(core().arg("--drain"), 2, &["broker.mode", "no stream", "jetstream"]);
    let with = |name: &str, value: &str| {
        let mut command = core();
        command.env(format!("CATCHMENT_BROKER__{name}"), value);
        command
    };
    refused(&mut with("SUBJECTS", "a.*, *.b"), 2, &["CATCHMENT_BROKER__SUBJECTS", "\"a.*\" and \"*.b\" overlap"]);
    refused(&mut with("CORE__QUEUE", "a b"), 2, &["CATCHMENT_BROKER__CORE__QUEUE", "\"a b\""]);
    refused(&mut with("CORE__MAX_EVENTS", "0"), 2, &["CATCHMENT_BROKER__CORE__MAX_EVENTS"]);
    refused(&mut with("CORE__MAX_BYTES", "0B"), 2, &["CATCHMENT_BROKER__CORE__MAX_BYTES"]);
    refused(&mut with("CORE__OVERFLOW", "drop_oldest"), 2, &["drop_newest", "block"]);
    refused(&mut with("MODE", "kafka"), 2, &["jetstream", "core"]);
}

#[test]
fn what_the_server_does_not_permit_is_said_at_the_start() {
    let folder = folder();
    let settings = folder.path().join("server.conf");
    let users = r#"authorization { users = [
        { user: "deaf", password: "p", permissions: { subscribe: ["_INBOX.>"], publish: [">"] } },
        { user: "mute", password: "p", permissions: { subscribe: [">"], publish: ["nothing"] } },
    ] }"#;
    std::fs::write(&settings, users).expect("writes");
    let server = Server::start_with(folder.path(), &["--config", settings.to_str().expect("UTF-8")]);
    let database = folder.path().join("a.db");
    let as_user = |user: &str, overflow: &str| {
        let mut command = command(&server, &database, overflow, 10);
        command.args(["--user", user, "--password", "p"]);
        command
    };
    let said = ["events.>", "allow this user to subscribe", "broker.subjects"];
    crate::support::refusal::ends(&mut as_user("deaf", "drop_newest"), 1, &said);
    crate::support::refusal::ends(&mut as_user("mute", "block"), 1, &["_INBOX.>", "drop_newest"]);
    // Who may not publish can still collect: the refusal of a probe is an answer too.
    let mut command = as_user("mute", "drop_newest");
    command.env("CATCHMENT_BROKER__SILENCE", "2s").arg("-v");
    let collector = collector::Collector::start(command, &folder.path().join("log"));
    collector.said("(core NATS: at most once)");
    eventually("several answers to probes", || {
        (collector.log().to_lowercase().matches("violation for publish").count() > 2).then_some(())
    });
    assert!(!collector.log().contains("no answer for"), "{}", collector.log());
    let mut collector = collector;
    signal(collector.pid(), "TERM");
    assert!(collector.wait().success(), "{}", collector.log());
}
