//! `catchment compare`: it has every figure, none from a run that lost an event, and leaves nothing behind.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::collector::{catchment, output, signal, stderr};
use crate::support::server::{needs, program};
use crate::support::{eventually, server::Server};

const ALL: [&str; 6] =
    ["direct-per-event", "direct-grouped", "core-nats", "jetstream", "jetstream-sync-always", "spooled"];

/// `catchment compare` in this directory, with everything that takes long left out or short.
fn compare(folder: &Path) -> Command {
    let mut command = catchment();
    command.args(["compare", "--quick", "--no-curve", "--no-axes", "--no-hotspots", "--directory"]);
    command.arg(folder.join("runs")).args(["--stall", "1200ms", "--away", "400ms", "--idle", "300ms"]);
    command.arg("--report").arg(folder.join("out.json")).env("NATS_SERVER_BIN", program());
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
    let done = output(compare(folder.path()).args(["--events", "1000", "--pairs", "3", "--budget", "1h"]));
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
fn an_outage_of_the_broker_shows_what_each_arm_keeps() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = compare(folder.path());
    command.args(["--arms", "direct-grouped,core-nats,jetstream,spooled", "--events", "200", "--pairs", "1"]);
    command.args(["--rate", "200", "--outage", "1s"]);
    let done = output(&mut command);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(String::from_utf8_lossy(&done.stdout).contains("When the broker is away"));
    let found = found(folder.path());
    let outages = found["outages"].as_array().expect("outages");
    let names: Vec<_> = outages.iter().filter_map(|outage| outage["arm"].as_str()).collect();
    assert_eq!(names, ["direct-grouped", "core-nats", "jetstream", "spooled"]);
    for outage in outages {
        let of = |what: &str| outage[what].as_u64().unwrap_or_else(|| panic!("{what}: {outage}"));
        let arm = outage["arm"].as_str().expect("a name");
        // Half a second before the outage, and the second of it.
        assert_eq!((of("rate"), of("events"), of("refused")), (200, 300, 0), "{outage}");
        assert!(outage["away_s"].as_f64() >= Some(1.0) && outage["recovery_s"].is_f64(), "{outage}");
        assert_eq!(outage["has_broker"], arm != "direct-grouped");
        let (recorded, unsettled) = (of("recorded"), of("unsettled"));
        assert!(recorded > 0, "nobody waits for the broker: {outage}");
        match arm {
            "jetstream" => assert!(unsettled >= recorded, "the stream was away: {outage}"),
            "core-nats" => {}
            _ => assert!(unsettled < recorded, "they are on the disk: {outage}"),
        }
        assert!(arm == "core-nats" || (of("missing"), of("failed")) == (0, 0), "{outage}");
    }
    assert_eq!(left(folder.path()), [""; 0]);
    assert_eq!(processes(folder.path()), [""; 0]);
}

#[test]
fn each_partition_has_a_collector_and_all_rows_are_counted() {
    if !needs((2, 10), "subject transforms") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = compare(folder.path());
    command.args(["--arms", "direct-grouped,jetstream,spooled", "--events", "300", "--pairs", "1"]);
    command.args(["--partitions", "1,2,3", "--within", "10min"]);
    let done = output(&mut command);
    assert!(done.status.success(), "{}", stderr(&done));
    let found = found(folder.path());
    let axes = found["axes"].as_array().expect("axes");
    let names: Vec<_> = axes.iter().map(|axis| (axis["setting"].as_str(), axis["arm"].as_str())).collect();
    assert_eq!(names, ["jetstream", "spooled"].map(|arm| (Some("partitions"), Some(arm))));
    for axis in axes {
        let points = axis["points"].as_array().expect("points");
        let values: Vec<_> = points.iter().map(|point| (&point["value"], &point["control"])).collect();
        let wanted = [("1", true), ("2", false), ("3", false)].map(|(value, control)| (value.into(), control.into()));
        assert_eq!(values, wanted.iter().map(|(value, control)| (value, control)).collect::<Vec<(&Value, &Value)>>());
        for run in points.iter().flat_map(|point| point["runs"].as_array().expect("runs")) {
            assert_eq!((&run["events"], &run["committed"]), (&300.into(), &300.into()), "{run}");
            assert!(run["processes"]["collector"]["cpu_s"].as_f64() > Some(0.0), "{run}");
        }
        assert!(points.iter().all(|point| point["runs"].as_array().is_some_and(|runs| runs.len() == 1)), "{axis}");
    }
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
    // The trial run takes long enough that the signal comes in the middle of it.
    command.args(["--run-for", "60s", "--arms", "jetstream", "--rate", "100"]).stderr(Stdio::piped());
    let comparison = command.spawn().expect("starts");
    let both =
        |all: &[String]| all.iter().any(|p| p.contains("nats")) && all.iter().any(|p| p.contains("--end-with-input"));
    eventually("broker and collector", || both(&processes(folder.path())).then_some(()));
    signal(comparison.id(), "INT");
    let done = comparison.wait_with_output().expect("ends");
    assert_eq!(done.status.code(), Some(130));
    assert!(stderr(&done).contains("stopped before every arm had figures; nothing is kept"), "{}", stderr(&done));
    assert!(!folder.path().join("out.json").exists());
    assert_eq!(left(folder.path()), [""; 0]);
    assert_eq!(processes(folder.path()), [""; 0]);
}

#[test]
fn a_comparison_that_is_stopped_reports_what_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = catchment();
    // The stall begins when the timed runs are over, and lasts longer than the test.
    command.args(["compare", "--quick", "--events", "100", "--pairs", "1", "--arms", "direct-grouped"]);
    command.args(["--stall", "10min", "-v", "--report"]).arg(folder.path().join("out.json"));
    command.arg("--directory").arg(folder.path().join("runs"));
    let log = folder.path().join("log");
    command.stdout(Stdio::piped()).stderr(std::fs::File::create(&log).expect("a log"));
    let comparison = command.spawn().expect("starts");
    let has_begun = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("stall, direct, grouped"));
    eventually("the stall", || has_begun().then_some(()));
    signal(comparison.id(), "TERM");
    let done = comparison.wait_with_output().expect("ends");
    assert_eq!(done.status.code(), Some(143));
    let log = std::fs::read_to_string(&log).expect("a log");
    assert!(log.contains("stopped before it was done; the report has what was measured"), "{log}");
    let found = found(folder.path());
    assert_eq!((&found["stopped"], found["arms"][0]["runs"].as_array().map(Vec::len)), (&Value::Bool(true), Some(1)));
    assert_eq!(found["settings"]["cut_short"], "it was stopped before it was done");
    assert!(found["stalls"].as_array().is_some_and(Vec::is_empty));
    assert!(String::from_utf8_lossy(&done.stdout).contains("it was stopped before it was done"));
    assert_eq!(left(folder.path()), [""; 0]);
}

#[test]
fn a_comparison_that_is_killed_takes_its_processes_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = compare(folder.path());
    command.args(["--run-for", "60s", "--arms", "jetstream"]).stdout(Stdio::null()).stderr(Stdio::null());
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
    command.args(["compare", "--quick", "--no-curve", "--no-axes", "--events", "5000", "--pairs", "1"]);
    command.args(["--arms", "direct-grouped", "--stall", "500ms", "--report"]).arg(folder.path().join("out.json"));
    command.current_dir(folder.path());
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
    assert!(found["outages"].as_array().is_some_and(Vec::is_empty));
    assert!(found["environment"]["nats_server"].as_str().is_some_and(|version| version.starts_with('2')), "{found}");
    let streams = server.ask("$JS.API.STREAM.NAMES", &Value::Null);
    assert!(streams["streams"].as_array().is_none_or(Vec::is_empty), "{streams}");
}

#[test]
fn what_cannot_be_compared_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    for (arguments, words, status) in [
        (["--arms", "direct"], "expected one of direct-per-event", 2),
        (["--events", "0"], "--events: is 0", 2),
        (["--run-for", "0s"], "--run-for: is 0", 2),
        (["--curve", "1000,0"], "--curve: names 0 events", 2),
        (["--partitions", "2,0"], "--partitions: names a number out of range; give numbers from 1 to 64", 2),
        (["--report", "report.pdf"], "cannot write report.pdf; its name has to end with .json, .md or .html", 2),
        (["--report", "/nowhere/a.md"], "cannot write /nowhere/a.md; name a file in a directory that exists", 2),
        (["--baseline", "/nowhere/before.json"], "baseline /nowhere/before.json: cannot read it", 2),
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

/// Both are known before anything is measured: no test environment is made.
#[test]
fn a_server_that_cannot_be_used_is_refused_first() {
    let folder = tempfile::tempdir().expect("a folder");
    // Nothing listens on port 1.
    let done = output(compare(folder.path()).args(["--server", "nats://127.0.0.1:1", "-v"]));
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    let said = stderr(&done);
    assert!(said.contains("127.0.0.1:1") && said.contains("refused"), "{said}");
    assert!(!said.contains("trial runs") && !said.contains("stays on the server"), "{said}");

    let (folder, server) = Server::in_new_folder();
    let done = output(compare(folder.path()).args(["--server", &server.url(), "--arms", "jetstream-sync-always"]));
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    assert!(stderr(&done).contains("--arms: none of them can be run here"), "{}", stderr(&done));
    assert_eq!(left(folder.path()), [""; 0]);
}

#[test]
fn trial_runs_choose_how_long_a_run_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = compare(folder.path());
    command.args(["--run-for", "200ms", "--pairs", "1", "--arms", "direct-per-event,direct-grouped", "--json"]);
    let done = output(&mut command);
    assert!(done.status.success(), "{}", stderr(&done));
    let found = found(folder.path());
    // On standard output is the same JSON.
    assert_eq!(serde_json::from_slice::<Value>(&done.stdout).expect("JSON"), found);
    assert!(found["settings"]["events"].is_null() && found["settings"]["run_for_s"] == 0.2, "{}", found["settings"]);
    for arm in found["arms"].as_array().expect("arms") {
        assert!(arm["events"].as_u64() > Some(0), "{arm}");
        for run in arm["runs"].as_array().expect("runs") {
            assert_eq!((&run["events"], &run["committed"]), (&arm["events"], &arm["events"]));
        }
    }
    assert_eq!(found["ratios"][0]["finding"], "too few pairs");
}

#[test]
fn short_and_long_runs_and_the_axes_have_their_figures() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = catchment();
    command.args(["compare", "--quick", "--no-hotspots", "--pairs", "1", "--events", "300", "--stall", "200ms"]);
    command.args(["--away", "100ms", "--idle", "100ms", "--within", "10min"]);
    command.args(["--curve", "500,50", "--arms", "direct-grouped", "--report"]).arg(folder.path().join("out.json"));
    let done = output(command.current_dir(folder.path()));
    assert!(done.status.success(), "{}", stderr(&done));
    let found = found(folder.path());
    let points = found["costs"][0]["points"].as_array().expect("points");
    let events: Vec<_> = points.iter().map(|point| point["events"].as_u64()).collect();
    assert_eq!((&found["costs"][0]["arm"], events), (&Value::from("direct-grouped"), vec![Some(50), Some(500)]));
    assert!(points.iter().all(|point| point["runs"].as_array().is_some_and(|runs| runs.len() == 3)), "{points:?}");
    let axes = found["axes"].as_array().expect("axes");
    let settings: Vec<_> = axes.iter().filter_map(|axis| axis["setting"].as_str()).collect();
    assert_eq!(settings, ["producers", "writers", "batch", "codec"]);
    let controls: Vec<&Value> = axes
        .iter()
        .flat_map(|axis| axis["points"].as_array().expect("points"))
        .filter(|point| point["control"] == true)
        .map(|point| &point["runs"])
        .collect();
    assert!(controls.len() == 4 && controls.iter().all(|runs| runs == &controls[0]), "one control for all axes");
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
}

#[test]
fn what_became_worse_than_the_baseline_is_an_exit_status() {
    let folder = tempfile::tempdir().expect("a folder");
    let again = |arguments: &[&str]| {
        let mut command = compare(folder.path());
        output(
            command
                .args(["--events", "200", "--pairs", "6", "--budget", "1h", "--arms", "direct-grouped"])
                .args(arguments),
        )
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
    // Refused before anything is measured, with what differs and what to do.
    let done = again(&["--baseline", baseline.to_str().expect("UTF-8"), "--writers", "2", "-v"]);
    assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
    assert!(
        stderr(&done).contains("writers is 1 there and 2 here; measure both with the same settings"),
        "{}",
        stderr(&done)
    );
    assert!(!stderr(&done).contains("trial runs"), "{}", stderr(&done));
}
