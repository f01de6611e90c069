//! With `--log-format json` every line on standard error is a JSON object, whatever happens.

use std::process::Command;

use serde_json::Value;

use crate::support::collector::{Collector, catchment, output, run, stderr};
use crate::support::server::Server;

/// The messages of what a command printed to standard error, each of them an object of the log.
#[track_caller]
fn messages(said: &str) -> Vec<(String, String)> {
    let object = |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")) };
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    said.lines()
        .map(object)
        .map(|object| {
            let mut keys: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
            keys.sort_unstable();
            for key in ["level", "message", "target", "time"] {
                assert!(keys.contains(&key), "{object}");
            }
            // Only an event has fields.
            assert!(keys.len() == 4 || keys.contains(&"event"), "{object}");
            let time = text(&object["time"]);
            assert!(time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000000Z".len(), "{time}");
            (text(&object["level"]), text(&object["message"]))
        })
        .collect()
}

/// Runs a command that fails; its last message.
#[track_caller]
fn failure(command: &mut Command, status: i32) -> String {
    let done = output(command);
    assert_eq!(done.status.code(), Some(status), "{}", stderr(&done));
    let (level, message) = messages(&stderr(&done)).pop().expect("a message");
    assert_eq!(level, "ERROR", "{message}");
    message
}

#[test]
fn what_ends_a_command_is_json_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = |arguments: &[&str]| {
        let mut command = catchment();
        command.current_dir(folder.path()).args(arguments);
        command
    };
    for (arguments, status, words) in [
        (&["--log-format", "json", "sql", "SELECT 1"][..], 1, "database catchment.db: there is no such file"),
        (&["-q", "--log-format", "json", "sql", "SELECT 1"], 1, "database catchment.db: there is no such file"),
        (&["--log-format=json", "sql", " "], 2, ""),
        (&["--log-format", "json", "sql", "SELECT 1", "-c", "nofile"], 2, "configuration: nofile: there is no"),
        (
            &["--log-format", "json", "run", "--nonsense"],
            2,
            "there is no option --nonsense; catchment run --help lists the options",
        ),
        (
            &["run", "--nonsense", "--log-format", "json"],
            2,
            "there is no option --nonsense; catchment run --help lists the options",
        ),
        (&["rum", "--log-format=json"], 2, "there is no command \"rum\""),
        (
            &["check", "--nonsense", "--log-format=json"],
            3,
            "there is no option --nonsense; catchment check --help lists the options",
        ),
        (&["--log-format", "json", "test"], 2, "FILE is missing; catchment test --help describes the arguments"),
        (&["--log-format", "json"], 2, "no command is given"),
        (&["--log-format", "json", "publish", "events.a", "x", "-s", "nats://127.0.0.1:1"], 1, "127.0.0.1:1"),
    ] {
        let message = failure(&mut json(arguments), status);
        assert!(message.contains(words) && !message.contains('\n'), "{arguments:?}: {message}");
    }
    let message = failure(json(&["run", "--nonsense"]).env("CATCHMENT_LOG_FORMAT", "json"), 2);
    assert!(message.contains("--nonsense"), "{message}");
    // Help and version are results.
    let help = output(&mut json(&["--log-format", "json", "--help"]));
    assert!(help.status.success() && help.stderr.is_empty() && help.stdout.starts_with(b"Records events"));
}

#[test]
fn what_a_collector_says_is_json_from_its_first_line_to_its_last() {
    let (folder, server) = Server::in_new_folder();
    let log = folder.path().join("log");
    let mut command = run(&server.url(), &folder.path().join("a.db"));
    command.env("CATCHMENT_LOG_FORMAT", "json").env("RUST_LOG", "inof");
    let collector = Collector::start(command, &log);
    collector.said("collecting stream");
    assert!(collector.stop().success());
    let said = messages(&std::fs::read_to_string(&log).expect("reads"));
    assert!(said[0].1.contains("RUST_LOG") && said[0].0 == "WARN", "{said:?}");
    assert!(said.last().expect("a message").1.starts_with("committed 0 events"), "{said:?}");
}

#[test]
fn init_logs_what_it_wrote() {
    let folder = tempfile::tempdir().expect("a folder");
    let init = |arguments: &[&str]| output(catchment().current_dir(folder.path()).arg("init").args(arguments));
    let said = messages(&stderr(&init(&["--log-format", "json"])));
    let info = |text: &str| ("INFO".to_owned(), text.to_owned());
    assert_eq!(said, [info("wrote catchment.toml"), info("wrote migrations/001_tables.sql")]);
    let (_, refusal) = messages(&stderr(&init(&["--log-format", "json"]))).pop().expect("a message");
    assert!(refusal.starts_with("catchment.toml exists already"), "{refusal}");
}

#[test]
fn a_drain_that_fails_says_so_in_json() {
    let (folder, server) = Server::in_new_folder();
    let mut drain = run(&server.url(), &folder.path().join("a.db"));
    drain.args(["--drain", "--log-format", "json"]).env("CATCHMENT_BROKER__CREATE_STREAM", "false");
    let message = failure(&mut drain, 1);
    assert!(message.contains("EVENTS"), "{message}");
}
