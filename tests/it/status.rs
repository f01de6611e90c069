//! `catchment status` and `catchment top`: how a running collector is.

use std::process::Command;

use catchment::DirectRecorder;
use serde_json::Value;

use crate::support::collector::{Collector, output, printed, signal, stderr};
use crate::support::eventually;
use crate::support::fixture::Fixture;
use crate::support::terminal::Terminal;

/// A command for the fixture's database.
fn command(fixture: &Fixture, arguments: &[&str]) -> Command {
    let mut command = fixture.command(arguments);
    command.arg("--database").arg(fixture.database());
    command
}

/// Exit status and what was printed.
fn status(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, String) {
    let done = output(&mut command(fixture, &[&["status"], arguments].concat()));
    (done.status.code(), String::from_utf8(done.stdout).expect("UTF-8") + &String::from_utf8_lossy(&done.stderr))
}

/// A collector that counts as failed after a second.
fn collector(fixture: &Fixture) -> Collector {
    let mut run = fixture.run();
    run.env("CATCHMENT_OBSERVE__UNREADY_AFTER", "1s");
    Collector::start(run, &fixture.path("collector.log"))
}

#[test]
fn the_upkeep_that_was_configured_has_a_line() {
    let fixture = Fixture::new();
    let settings = "[backup]\nfolder = 'backups'\n[upkeep]\nretain_every = '1s'\ncheck_every = '1h'\n[retention]\nevents = { rows = 5 }\n";
    fixture.file("catchment.toml", settings);
    let mut run = fixture.run();
    run.current_dir(fixture.folder.path());
    let running = Collector::start(run, &fixture.path("collector.log"));
    fixture.publish("x", 12);
    let lines = ["\n  backup       last 2", "\n  retention    last 2", "; 7 rows deleted since the start; next 2"];
    let said = eventually("the lines", || {
        Some(status(&fixture, &[]).1).filter(|said| lines.iter().all(|line| said.contains(line)))
    });
    assert!(said.contains("\n  quick check  ") && !said.contains("optimize"), "{said}");
    let (_, json) = status(&fixture, &["--json"]);
    let answer: Value = serde_json::from_str(&json).expect("JSON");
    let names: Vec<&str> =
        answer["upkeep"].as_array().expect("a list").iter().filter_map(|job| job["name"].as_str()).collect();
    for name in ["backup", "quick_check", "retention"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(running.stop().success());
}

#[test]
fn the_exit_status_says_how_a_collector_is() {
    let mut fixture = Fixture::new();
    let (code, said) = status(&fixture, &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.starts_with("absent: no collector uses ") && said.contains("; catchment run --database "), "{said}");
    let (code, said) = status(&fixture, &["--json"]);
    let absent: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &absent["state"], &absent["format"]), (Some(3), &"absent".into(), &1.into()));

    let running = collector(&fixture);
    running.said("collecting stream");
    fixture.publish("x", 7);
    fixture.has(7);
    let well =
        eventually("the collector to answer", || Some(status(&fixture, &[])).filter(|(code, _)| *code == Some(0)));
    assert!(well.1.starts_with("well: Collecting stream EVENTS into "), "{}", well.1);
    for line in [
        "\n  broker       connected to nats://",
        "\n  position     sequence 7 of epoch 1, published 2",
        "\n  lag          0 to come, 0 received",
        "\n  committed    7 events in ",
        "\n  dead letters 0 stored",
    ] {
        assert!(well.1.contains(line), "{line}: {}", well.1);
    }
    let (code, said) = status(&fixture, &["--json"]);
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &answer["state"], &answer["position"]["sequence"]), (Some(0), &"well".into(), &7.into()));

    // Without a broker it is degraded at first, then failed.
    signal(fixture.server.pid(), "KILL");
    let failed = eventually("a failure", || Some(status(&fixture, &[])).filter(|(code, _)| *code == Some(2)));
    assert!(failed.1.starts_with("failed: Not ready: collecting stream EVENTS into "), "{}", failed.1);
    assert!(
        failed.1.contains("Broker, for ") && failed.1.contains("\n  broker       not connected; servers: nats://"),
        "{}",
        failed.1
    );
    fixture.server.restart();
    let well = eventually("a recovery", || Some(status(&fixture, &[])).filter(|(code, _)| *code == Some(0)));
    assert!(well.1.contains("\n  last error   2"), "{}", well.1);

    // One that hangs does not answer.
    signal(running.pid(), "STOP");
    let (code, said) = status(&fixture, &["--timeout", "300ms"]);
    signal(running.pid(), "CONT");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with("failed: ") && said.contains("no answer in 300ms"), "{said}");
    assert!(running.stop().success());
    assert_eq!(status(&fixture, &[]).0, Some(3));

    // A program of one's own has no socket.
    let recorder = DirectRecorder::create(fixture.database()).expect("takes the lock");
    let (code, said) = status(&fixture, &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains(&format!("process {} uses ", std::process::id())) && said.contains("has no socket"),
        "{said}"
    );
    drop(recorder);
}

#[test]
fn top_prints_lines_where_there_is_no_terminal() {
    let fixture = Fixture::new();
    let looks = |fixture: &Fixture| -> Vec<Value> {
        let lines = printed(&mut command(fixture, &["top", "-n", "2", "--interval", "100ms"]));
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let absent = looks(&fixture);
    assert_eq!((absent.len(), &absent[1]["state"], &absent[1]["committed"]), (2, &"absent".into(), &Value::Null));
    let running = collector(&fixture);
    running.said("collecting stream");
    fixture.publish("x", 5);
    fixture.has(5);
    let well = eventually("all to be counted", || {
        Some(looks(&fixture)).filter(|looks| looks[1]["committed"] == 5 && looks[1]["state"] == "well")
    });
    for key in
        ["pending", "queued", "received_per_second", "committed_per_second", "dead_letters", "wal_bytes", "file_bytes"]
    {
        assert!(well[1][key].is_number(), "{key}: {}", well[1]);
    }
    // The help lists all keys.
    let help = printed(&mut fixture.command(&["top", "--help"]));
    let keys = well[1].as_object().expect("an object").keys();
    assert!(keys.clone().count() > 10);
    keys.for_each(|key| assert!(help.contains(&format!("\"{key}\"")), "{key}: {help}"));
    let ended = command(&fixture, &["top", "--json", "--interval", "1h"]).stdout(std::process::Stdio::piped()).spawn();
    let mut ended = ended.expect("catchment starts");
    signal(ended.id(), "TERM");
    // It may have had no time to catch the signal.
    assert!(!ended.wait().expect("ends").success());
    assert!(running.stop().success());
}

#[test]
fn top_draws_while_collectors_come_and_go() {
    let fixture = Fixture::new();
    let mut terminal = Terminal::start(&mut command(&fixture, &["top", "--interval", "100ms"]), 80);
    terminal.draws("absent: no collector uses ");
    assert!(!terminal.echoes());
    let running = collector(&fixture);
    running.said("collecting stream");
    let frame = terminal.draws("● well: Collecting stream EVENTS");
    assert!(frame.contains("to come       0, 0 in the queue") && frame.contains("q quits"), "{frame}");
    fixture.publish("x", 5);
    terminal.draws("5 since the start");
    // The collector ends, and another one comes.
    running.kill();
    terminal.draws("absent: no collector uses ");
    let running = collector(&fixture);
    running.said("collecting stream");
    terminal.draws("● well: ");
    // Each size is kept to.
    for (columns, lines) in [(40, 24), (200, 50), (20, 5), (80, 24)] {
        terminal.resize(columns, lines);
        let before = terminal.frames().len();
        eventually("frames of this size", || (terminal.frames().len() > before + 3).then_some(()));
        let mut frames = terminal.frames();
        frames.pop();
        let frame = frames.pop().expect("one");
        let widest = frame.lines().map(|line| line.chars().count()).max().expect("lines");
        assert!(widest <= columns.into() && frame.lines().count() <= lines.into(), "{columns}x{lines}:\n{frame}");
    }
    assert!(terminal.has_colors());
    terminal.types("xq");
    let (status, _) = terminal.ended();
    assert!(status.success() && terminal.echoes());

    // Ctrl-C is a key here; SIGTERM is not.
    let mut colourless = command(&fixture, &["top"]);
    let mut terminal = Terminal::start_with(&mut colourless, 40, |command| {
        command.env("NO_COLOR", "1");
    });
    terminal.draws("● well: ");
    assert!(!terminal.has_colors());
    terminal.types("\u{3}");
    assert!(terminal.ended().0.success() && terminal.echoes());
    let mut terminal = Terminal::start(&mut command(&fixture, &["top"]), 80);
    terminal.draws("● well: ");
    signal(terminal.pid(), "TERM");
    assert_eq!(terminal.ended().0.code(), Some(143));
    assert!(terminal.echoes());
    assert!(running.stop().success());
}

#[test]
fn options_that_cannot_be_used_are_refused() {
    let fixture = Fixture::new();
    for (arguments, said) in [
        (&["status", "--timeout", "5"][..], "--timeout \"5\": expected a time with its unit"),
        (&["top", "-n", "0"], "--count \"0\": expected a whole number of at least 1"),
        (&["top", "--interval", "soon"], "--interval \"soon\": expected a time"),
    ] {
        let done = output(&mut command(&fixture, arguments));
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&done).contains(said), "{}", stderr(&done));
    }
}
