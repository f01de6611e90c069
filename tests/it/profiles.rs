//! A collector that is profiled collects as any other, and says what it was doing.

use std::collections::BTreeMap;
use std::time::Duration;

use catchment::compare::Findings;

use crate::support::collector::{output, stderr};
use crate::support::eventually;
use crate::support::load;
use crate::support::oracle;
use crate::support::scene::Scene;

#[test]
fn a_profiled_collector_stores_everything_and_finds_sqlite_and_nats() {
    let scene = Scene::new();
    let prefix = scene.folder.path().join("profile");
    let kept = load::publish(&scene.server, 60_000);
    let done = output(scene.run().arg("--drain").env("CATCHMENT_PROFILE", &prefix));
    assert!(done.status.success() && !stderr(&done).contains("WARN"), "{}", stderr(&done));
    oracle::is_exactly(&scene.database(), &kept);
    let text = std::fs::read_to_string(prefix.with_extension("json")).expect("written");
    let found: Findings = serde_json::from_str(&text).expect("findings");
    assert!(found.samples >= 20, "{text}");
    let shares: BTreeMap<&str, f64> = found.shares.iter().map(|(name, share)| (name.as_str(), *share)).collect();
    assert!(shares["sqlite"] > 0.02 && shares["nats"] > 0.02, "{text}");
    assert!((shares.values().sum::<f64>() - 1.0).abs() < 1e-9 && shares.len() == 6, "{text}");
    assert!(!found.top.is_empty() && found.top.windows(2).all(|pair| pair[0].1 >= pair[1].1), "{text}");
    let picture = std::fs::read_to_string(&found.flamegraph).expect("written");
    assert_eq!(found.flamegraph, prefix.with_extension("svg"));
    for name in ["catchment-intak", "catchment-write", "sqlite3", "nats::"] {
        assert!(picture.contains(name), "no {name} in the flamegraph");
    }
}

#[test]
fn the_timers_signals_disturb_neither_waiting_nor_writing() {
    let scene = Scene::new();
    let prefix = scene.folder.path().join("profile");
    let mut command = scene.run();
    command.env("CATCHMENT_PROFILE", &prefix);
    let collector = crate::support::collector::Collector::start(command, &scene.folder.path().join("log"));
    collector.said("collecting stream");
    let mut kept = Vec::new();
    for round in 0..20 {
        kept.extend(load::publish_from(&scene.server, round * 1_000, 1_000));
        eventually("the rows", || (oracle::position(&scene.database()) == (round + 1) * 1_000).then_some(()));
        // Waits in every thread, with the timer set.
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = collector.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert!(collector.stop().success());
    oracle::is_exactly(&scene.database(), &kept);
    assert!(prefix.with_extension("json").is_file());
}

#[test]
fn a_profile_that_cannot_be_written_costs_a_line_in_the_log() {
    let scene = Scene::new();
    let kept = load::publish(&scene.server, 20_000);
    let prefix = scene.folder.path().join("nowhere/profile");
    let done = output(scene.run().arg("--drain").env("CATCHMENT_PROFILE", &prefix));
    assert!(done.status.success(), "{}", stderr(&done));
    let said = stderr(&done);
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("WARN")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("profile: cannot write"), "{said}");
    oracle::is_exactly(&scene.database(), &kept);
}
