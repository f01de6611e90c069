//! `catchment compare`: it has every figure, none from a run that lost an event, and leaves nothing behind.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::collector::{catchment, output, signal, stderr};
use crate::support::server::{needs, program};
use crate::support::{eventually, server::Server};

const ALL: [&str; 5] = ["direct-per-event", "direct-grouped", "core-nats", "jetstream", "jetstream-sync-always"];

/// `catchment compare` in this directory, with everything that takes long left out or short.
fn compare(folder: &Path) -> Command {
    let mut command = catchment();
    command.args(["compare", "--quick", "--no-axes", "--no-hotspots", "--directory"]).arg(folder.join("runs"));
    command.args(["--stall", "1200ms", "--away", "400ms", "--idle", "300ms"]);
    command.arg("--json").arg(folder.join("out.json")).env("NATS_SERVER_BIN", program());
    command
}

fn found(folder: &Path) -> Value {
    let text = std::fs::read(folder.join("out.json")).expect("a report");
    serde_json::from_slice(&text).expect("JSON")
}

/// What is left of a comparison in its directory.
fn left(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("runs")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Processes that work in this directory.
fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().expect("UTF-8");
    let all = std::fs::read_dir("/proc").expect("processes").flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(folder)).collect()
}

#[test]
fn every_row_of_the_study_s_table_has_its_figure() {
    let folder = tempfile::tempdir().expect("a folder");
    let done = output(compare(folder.path()).args(["--events", "1000", "--pairs", "3"]));
    assert!(done.status.success(), "{}", stderr(&done));
    let found = found(folder.path());
    let told = |what: &str| found["not_measured"].to_string().contains(what);
    let names: Vec<&str> =
        found["arms"].as_array().expect("arms").iter().filter_map(|arm| arm["arm"].as_str()).collect();
    assert_eq!(names, ALL);
    for arm in found["arms"].as_array().expect("arms") {
        let name = &arm["arm"];
        if !arm["skipped"].is_null() {
            assert!(name == "jetstream-sync-always" && !needs((2, 10), "sync_interval"), "{arm}");
            continue;
        }
        assert!(!arm["promise"].as_str().expect("words").is_empty());
        assert_eq!(arm["runs"].as_array().expect("runs").len(), 3, "{arm}");
        assert_eq!(arm["again"].as_array().expect("runs").len(), if name == ALL[0] { 3 } else { 0 });
        for run in arm["runs"].as_array().expect("runs") {
            let positive = |value: &Value| value.as_f64().is_some_and(|value| value > 0.0);
            assert!(positive(&run["total_s"]) && positive(&run["publish_s"]), "{name}: {run}");
            assert!(name == "core-nats" || run["committed"] == 1000, "{name}: {run}");
            let roles: Vec<&String> = run["processes"].as_object().expect("processes").keys().collect();
            let direct = name.as_str().is_some_and(|name| name.starts_with("direct"));
            assert_eq!(roles.len(), if direct { 1 } else { 3 }, "{name}: {roles:?}");
            for (role, used) in run["processes"].as_object().expect("processes") {
                assert!(positive(&used["cpu_s"]) && positive(&used["peak_memory"]), "{name}, {role}: {used}");
                assert!(used["voluntary_switches"].is_u64() && used["involuntary_switches"].is_u64());
                assert!(used["syscalls"].is_u64() || told("system calls"), "{name}, {role}: {used}");
                assert!(used["instructions"].is_u64() || told("instructions"), "{name}, {role}: {used}");
            }
        }
        assert!(arm["latency"]["commit_us"]["p50"].as_f64().is_some_and(|us| us > 0.0), "{arm}");
        assert!(arm["idle"]["cpu_s"]["application"].is_f64(), "{arm}");
    }
    let of = |what: &str, arm: &str| {
        let all = found[what].as_array().expect("experiments");
        all.iter().find(|one| one["arm"] == arm).unwrap_or_else(|| panic!("{what} of {arm}")).clone()
    };
    // Who commits in the caller's thread waits for the lock; who hands over does not.
    assert!(of("stalls", "direct-per-event")["record_us"]["max"].as_f64() > Some(1_000_000.0));
    assert!(of("stalls", "jetstream")["record_us"]["p50"].as_f64() < Some(100_000.0));
    let isolation = of("isolations", "jetstream");
    assert!(isolation["handed_over"].as_u64() > Some(0), "{isolation}");
    assert_eq!(isolation["committed"], isolation["events"]);
    assert_eq!(isolation["seen_live"], isolation["events"]);
    assert_eq!(of("isolations", "direct-grouped")["handed_over"], 0);
    assert_eq!(left(folder.path()), [""; 0]);
    assert_eq!(processes(folder.path()), [""; 0]);
}

#[test]
fn an_arm_that_lost_a_row_gets_an_error_instead_of_a_figure() {
    let folder = tempfile::tempdir().expect("a folder");
    let arms = ["--arms", "direct-grouped,jetstream", "--lose-a-row", "jetstream"];
    let done = output(compare(folder.path()).args(["--events", "100", "--pairs", "1"]).args(arms));
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    let said = "jetstream: 99 rows for 100 events, 1 missing (the first: event 0); no figure is given for it";
    assert!(stderr(&done).contains(said), "{}", stderr(&done));
    let found = found(folder.path());
    assert_eq!(found["arms"][1]["error"], said);
    assert_eq!(found["arms"][1]["runs"], Value::Array(Vec::new()));
    assert_eq!(found["arms"][0]["runs"].as_array().map(Vec::len), Some(1));
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = compare(folder.path());
    // Long enough that it is in the middle of it.
    command.args(["--events", "200000", "--arms", "jetstream", "--rate", "100"]).stderr(Stdio::piped());
    let comparison = command.spawn().expect("starts");
    let both =
        |all: &[String]| all.iter().any(|p| p.contains("nats")) && all.iter().any(|p| p.contains("--end-with-input"));
    eventually("broker and collector", || both(&processes(folder.path())).then_some(()));
    signal(comparison.id(), "INT");
    let done = comparison.wait_with_output().expect("ends");
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("stopped before the comparison was done"), "{}", stderr(&done));
    assert_eq!(left(folder.path()), [""; 0]);
    assert_eq!(processes(folder.path()), [""; 0]);
}

#[test]
fn a_comparison_that_is_killed_takes_its_processes_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = compare(folder.path());
    command.args(["--events", "200000", "--arms", "jetstream"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut comparison = command.spawn().expect("starts");
    eventually("a collector", || {
        processes(folder.path()).iter().any(|line| line.contains("--end-with-input")).then_some(())
    });
    comparison.kill().expect("kills");
    comparison.wait().expect("ends");
    eventually("everything to end", || processes(folder.path()).is_empty().then_some(()));
}

#[test]
fn a_profile_says_where_the_time_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = catchment();
    command.args(["compare", "--quick", "--no-axes", "--events", "5000", "--pairs", "1", "--arms", "direct-grouped"]);
    command.args(["--stall", "500ms", "--json"]).arg(folder.path().join("out.json")).current_dir(folder.path());
    let done = output(&mut command);
    assert!(done.status.success(), "{}", stderr(&done));
    let hotspots = &found(folder.path())["hotspots"][0];
    assert!(hotspots["role"] == "application" && hotspots["samples"].as_u64() > Some(0), "{hotspots}");
    assert_eq!(hotspots["flamegraph"], "out-direct-grouped-application.svg");
    assert!(folder.path().join("out-direct-grouped-application.svg").is_file());
}

#[test]
fn a_server_that_runs_already_is_left_as_it_was() {
    let (folder, server) = Server::in_new_folder();
    let arms = ["--arms", "jetstream,jetstream-sync-always", "--server", &server.url()];
    let done =
        output(compare(folder.path()).args(["--events", "100", "--pairs", "1", "--codec", "messagepack"]).args(arms));
    assert!(done.status.success(), "{}", stderr(&done));
    let found = found(folder.path());
    assert!(
        found["arms"][1]["skipped"].as_str().is_some_and(|why| why.contains("its own settings")),
        "{}",
        found["arms"][1]
    );
    assert!(found["arms"][0]["runs"][0]["processes"]["broker"].is_null());
    assert!(found["not_measured"].to_string().contains("broker's CPU"));
    let streams = server.ask("$JS.API.STREAM.NAMES", &Value::Null);
    assert!(streams["streams"].as_array().is_none_or(Vec::is_empty), "{streams}");
}

#[test]
fn what_cannot_be_compared_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    for (arguments, words, status) in [
        (["--arms", "direct"], "unknown arm; choose from direct-per-event", 2),
        (["--events", "0"], "--events: is 0", 2),
        (["--directory", "/dev/shm"], "choose a directory on a disk (--directory)", 1),
    ] {
        let mut command = catchment();
        command.args(["compare", "--quick"]).args(arguments).current_dir(folder.path());
        let done = output(&mut command);
        assert!(stderr(&done).contains(words), "{arguments:?}: {}", stderr(&done));
        assert_eq!(done.status.code(), Some(status), "{arguments:?}");
    }
    let mut command = compare(folder.path());
    let done = output(command.env("NATS_SERVER_BIN", "/nowhere/nats-server"));
    assert!(stderr(&done).contains("install nats-server"), "{}", stderr(&done));
}

#[test]
fn several_threads_and_all_workloads_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = compare(folder.path());
    command.args([
        "--events",
        "3000",
        "--pairs",
        "1",
        "--producers",
        "4",
        "--writers",
        "2",
        "--work",
        "insert+stats+prune",
    ]);
    let done = output(command.args(["--arms", "direct-grouped,direct-per-event,jetstream"]));
    assert!(done.status.success(), "{}", stderr(&done));
    let found = found(folder.path());
    assert_eq!(found["settings"]["work"], "insert+stats+prune");
    for arm in found["arms"].as_array().expect("arms") {
        assert_eq!(arm["runs"][0]["committed"], 3000, "{arm}");
    }
    assert!(Duration::from_secs_f64(found["took_s"].as_f64().expect("seconds")) < Duration::from_secs(60));
}

#[test]
fn what_became_worse_than_the_baseline_is_an_exit_status() {
    let folder = tempfile::tempdir().expect("a folder");
    let again = |arguments: &[&str]| {
        let mut command = compare(folder.path());
        output(command.args(["--events", "200", "--pairs", "6", "--arms", "direct-grouped"]).args(arguments))
    };
    let done = again(&[]);
    assert!(done.status.success(), "{}", stderr(&done));
    let mut before = found(folder.path());
    for series in ["runs", "again"] {
        for run in before["arms"][0][series].as_array_mut().expect("runs") {
            run["total_s"] = Value::from(run["total_s"].as_f64().expect("seconds") / 1000.0);
        }
    }
    let baseline = folder.path().join("before.json");
    std::fs::write(&baseline, before.to_string()).expect("writes");
    let done = again(&["--baseline", baseline.to_str().expect("UTF-8")]);
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    assert!(stderr(&done).contains("worse than the baseline"), "{}", stderr(&done));
    let done = again(&["--baseline", "/nowhere/before.json"]);
    assert!(stderr(&done).contains("cannot read /nowhere/before.json"), "{}", stderr(&done));
}
