//! A collector that is profiled collects as any other, and says what it was doing.

use std::time::Duration;

use serde_json::Value;

use crate::support::collector::{output, stderr};
use crate::support::eventually;
use crate::support::fixture::Fixture;
use crate::support::load;
use crate::support::oracle;

#[test]
fn a_profiled_collector_stores_everything_and_finds_sqlite_and_nats() {
    let fixture = Fixture::new();
    let prefix = fixture.folder.path().join("profile");
    let kept = load::publish(&fixture.server, 60_000);
    let done = output(fixture.run().arg("--drain").env("CATCHMENT_PROFILE", &prefix));
    assert!(done.status.success() && !stderr(&done).contains("WARN"), "{}", stderr(&done));
    oracle::is_exactly(&fixture.database(), &kept);
    let text = std::fs::read_to_string(prefix.with_extension("json")).expect("written");
    let found: Value = serde_json::from_str(&text).expect("JSON");
    assert!(found["samples"].as_u64() >= Some(20), "{text}");
    let share = |name: &str| found["shares"][name].as_f64().expect("a share");
    assert!(share("sqlite") > 0.02 && share("nats") > 0.02, "{text}");
    let all: f64 = ["nats", "sqlite", "json", "channel", "kernel", "other"].into_iter().map(share).sum();
    assert!((all - 1.0).abs() < 1e-9, "{text}");
    let top: Vec<f64> = found["top"].as_array().expect("functions").iter().filter_map(|one| one[1].as_f64()).collect();
    assert!(!top.is_empty() && top.is_sorted_by(|one, other| one >= other), "{text}");
    assert_eq!(found["flamegraph"].as_str(), prefix.with_extension("svg").to_str());
    let picture = std::fs::read_to_string(prefix.with_extension("svg")).expect("written");
    for name in ["catchment-intak", "catchment-write", "sqlite3", "nats::"] {
        assert!(picture.contains(name), "no {name} in the flamegraph");
    }
}

#[test]
fn the_timers_signals_disturb_neither_waiting_nor_writing() {
    let fixture = Fixture::new();
    let prefix = fixture.folder.path().join("profile");
    let mut command = fixture.run();
    command.env("CATCHMENT_PROFILE", &prefix);
    let collector = crate::support::collector::Collector::start(command, &fixture.folder.path().join("log"));
    collector.said("collecting stream");
    let mut kept = Vec::new();
    for round in 0..20 {
        kept.extend(load::publish_from(&fixture.server, round * 1_000, 1_000));
        eventually("the rows", || (oracle::position(&fixture.database()) == (round + 1) * 1_000).then_some(()));
        // Waits in every thread, with the timer set.
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = collector.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert!(collector.stop().success());
    oracle::is_exactly(&fixture.database(), &kept);
    assert!(prefix.with_extension("json").is_file());
}

#[test]
fn a_profile_that_cannot_be_written_costs_a_line_in_the_log() {
    let fixture = Fixture::new();
    let kept = load::publish(&fixture.server, 20_000);
    let prefix = fixture.folder.path().join("nowhere/profile");
    let done = output(fixture.run().arg("--drain").env("CATCHMENT_PROFILE", &prefix));
    assert!(done.status.success(), "{}", stderr(&done));
    let said = stderr(&done);
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("WARN")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("profile: cannot write"), "{said}");
    oracle::is_exactly(&fixture.database(), &kept);
}
