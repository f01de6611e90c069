//! The main job: what is published is in the table, once, in order.

use std::time::Duration;

use catchment::record::NatsRecorderConfig;
use catchment::{Config, Event, NatsRecorder, Recorder, Until};

use crate::support::collector::{self, Collector, catchment, run, stderr};
use crate::support::eventually;
use crate::support::fixture::Fixture;
use crate::support::oracle;
use crate::support::server::Server;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn what_is_recorded_is_in_the_table_once_and_in_order() {
    let folder = folder();
    let server = Server::start(folder.path());
    let mut config = Config::default();
    config.broker = server.config();
    config.database.path = folder.path().join("a.db");
    let collector = catchment::Collector::start(&config).expect("starts");
    let mut recorder_config = NatsRecorderConfig::default();
    recorder_config.broker = server.config();
    let recorder = NatsRecorder::open(recorder_config).expect("connects");
    let payloads: Vec<String> = (0..5_000).map(|n| format!("{{\"n\":{n}}}")).collect();
    let receipts: Vec<_> = payloads
        .iter()
        .map(|payload| recorder.record(Event::new("events.test", payload.as_str()).header("N", "1")).expect("takes it"))
        .collect();
    recorder.flush(Duration::from_secs(30)).expect("all are in the stream");
    for (at, receipt) in receipts.into_iter().enumerate() {
        assert_eq!(receipt.wait(Duration::ZERO).expect("kept").sequence().expect("in a stream"), at as u64 + 1);
    }
    eventually("all rows", || (oracle::count(&config.database.path) == 5_000).then_some(()));
    let status = collector.stop(Duration::from_secs(10)).expect("stops");
    assert_eq!((status.committed, status.dead_letters, status.duplicates), (5_000, 0, 0));
    assert_eq!(oracle::payloads(&config.database.path), payloads);
    oracle::holds(&config.database.path, &payloads);
    let header: String = oracle::open(&config.database.path)
        .query_row("SELECT headers ->> 'N' FROM events WHERE id = 17", [], |row| row.get(0))
        .expect("a row");
    assert_eq!(header, "1");
}

#[test]
fn a_drain_resumes_where_the_last_one_ended() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.make_stream("EVENTS", &["events.>"]);
    let database = folder.path().join("a.db");
    let publish = |count: &str| {
        let mut command = catchment();
        command.args(["publish", "--server", &server.url(), "events.load", "--count", count]);
        let done = collector::output(&mut command);
        assert!(done.status.success(), "{}", stderr(&done));
    };
    for (count, rows) in [("3000", 3_000), ("500", 3_500)] {
        publish(count);
        let done = collector::output(run(&server.url(), &database).arg("--drain"));
        assert!(done.status.success(), "{}", stderr(&done));
        assert_eq!(oracle::count(&database), rows);
    }
    let empty = collector::output(run(&server.url(), &database).arg("--drain"));
    assert!(empty.status.success(), "nothing to do is no failure: {}", stderr(&empty));
    assert_eq!(oracle::count(&database), 3_500);
}

#[test]
fn several_writers_keep_the_streams_order() {
    let folder = folder();
    let server = Server::start(folder.path());
    let mut config = Config::default();
    config.broker = server.config();
    config.database.path = folder.path().join("a.db");
    config.database.writers = 4;
    config.batch.max_events = 7;
    server.make_stream("EVENTS", &["events.>"]);
    let mut recorder_config = NatsRecorderConfig::default();
    recorder_config.broker = server.config();
    let recorder = NatsRecorder::open(recorder_config).expect("connects");
    let payloads: Vec<String> = (0..3_000).map(|n| n.to_string()).collect();
    for payload in &payloads {
        recorder.record(Event::new("events.test", payload.as_str())).expect("takes it");
    }
    recorder.close(Duration::from_secs(30)).expect("all are in the stream");
    let collector = catchment::Collector::start_until(&config, Until::Drained).expect("starts");
    assert!(collector.wait(Duration::from_secs(60)).expect("no failure"));
    assert_eq!(oracle::payloads(&config.database.path), payloads);
}

#[test]
fn events_that_come_fast_are_polled_for_and_stored_once_and_in_order() {
    for retention in ["limits", "interest"] {
        let fixture = Fixture::with_retention(retention);
        let mut run = fixture.run();
        run.arg("--verbose");
        let collector = Collector::start(run, &fixture.path("collector.log"));
        collector.said("collecting stream EVENTS");
        let (mut client, mut payloads) = (fixture.server.raw(), Vec::new());
        // Twenty thousand a second, which is twice what is needed.
        eventually("the collector to poll", || {
            for _ in 0..100 {
                for _ in 0..20 {
                    let payload = format!("event-{}", payloads.len());
                    client.send("events.fast", None, &payload);
                    payloads.push(payload);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            collector.log().contains("requesting them every 10ms").then_some(())
        });
        collector.said("each is sent as it is stored");
        payloads.push("the last".into());
        client.send("events.fast", None, "the last");
        client.finish();
        fixture.has(payloads.len());
        fixture.holds_exactly(&payloads);
        assert!(collector.stop().success());
    }
}
