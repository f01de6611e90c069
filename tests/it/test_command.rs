//! `catchment test`: events through routes, without a broker.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::collector::{catchment, output, stderr};

/// A folder with the chat preset.
fn chat() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let made = output(catchment().current_dir(folder.path()).args(["init", "--preset", "chat"]));
    assert!(made.status.success(), "{}", stderr(&made));
    folder
}

fn test(folder: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = catchment();
    command.current_dir(folder.path()).args(["--config", "catchment.toml", "test"]).args(arguments);
    command
}

fn fed(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("catchment starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn read(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(output)))
}

#[test]
fn rows_and_dead_letters_are_told_and_nothing_is_left_behind() {
    let folder = chat();
    let lines = concat!(
        r#"{"subject":"chat.message.log","payload":{"username":"ada","message":"hi"},"published_us":1700000000999999}"#,
        "\n\n",
        r#"{"subject":"chat.message.log","payload":"{\"username\":\"ada\",\"message\":12345678901234567890123}"}"#,
        "\n",
        r#"{"subject":"chat.message.log","payload":"no JSON","headers":{"Trace-Id":"7"}}"#,
        "\n",
        r#"{"subject":"chat.user.renamed","payload":{"$blob":"/w=="}}"#,
        "\n",
        r#"{"subject":"chat.elsewhere","payload":""}"#,
    );
    let done = fed(&mut test(&folder, &["--json", "-"]), lines);
    assert_eq!(done.status.code(), Some(1));
    let said = stderr(&done);
    assert!(said.contains("1 event on subjects outside broker.subjects"), "{said}");
    assert!(said.ends_with("catchment: of 4 events, 1 would be dead letters\n"), "{said}");
    assert!(!said.contains("applied migration"), "what is temporary concerns nobody: {said}");
    let found = read(&done);
    assert_eq!((&found["events"], &found["not_collected"], &found["dropped"]), (&json!(4), &json!(1), &json!(0)));
    let messages = &found["tables"]["messages"];
    assert_eq!(messages[0], json!({"id": 1, "username": "ada", "message": "hi", "timestamp": 1_700_000_000}));
    assert_eq!(messages[1]["message"], "12345678901234567890123");
    assert_eq!(
        (&found["tables"]["users"][0]["lines"], found["tables"]["users"].as_array().map(Vec::len)),
        (&json!(2), Some(1))
    );
    assert_eq!(found["tables"]["events"][0]["payload"], json!({"$blob": "/w=="}));
    let [letter] = &found["dead_letters"].as_array().expect("a list")[..] else { panic!("{found:#}") };
    assert_eq!(
        (&letter["event"], &letter["route"], &letter["payload"]),
        (&json!(3), &json!("message"), &json!("no JSON"))
    );
    assert_eq!(found["gone"], json!({}));
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("reads").map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn payloads_of_one_subject_are_a_table_for_eyes() {
    let folder = chat();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/chat.ndjson");
    let done = output(&mut test(&folder, &["--subject", "chat.message.log", file]));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(said.starts_with("messages: 71 rows new or changed\n┌"), "{said}");
    assert!(said.contains("'); DROP TABLE messages; --"), "{said}");
    assert!(said.ends_with("\n71 events: 71 stored, 0 dead letters, 0 dropped\n"), "{said}");
    let bad = fed(&mut test(&folder, &["--subject", "chat.user.joined", "-"]), "{}\n");
    assert_eq!(bad.status.code(), Some(1));
    let said = String::from_utf8_lossy(&bad.stdout).into_owned();
    assert!(said.contains("dead letters:\n") && said.contains("NOT NULL constraint failed: users.username"), "{said}");
}

#[test]
fn what_is_no_event_is_named_by_its_place() {
    let folder = chat();
    let done = fed(&mut test(&folder, &["-"]), "{\"subject\":\"chat.user.left\"}\nhello\n");
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("catchment: event 2: does not look like {\"subject\""), "{}", stderr(&done));
    assert!(done.stdout.is_empty());
    let done = output(&mut test(&folder, &["--subject", "chat.*", "-"]));
    assert!(done.status.success(), "without an event there is nothing wrong: {}", stderr(&done));
    let done = fed(&mut test(&folder, &["--subject", "chat.*", "-"]), "{}");
    assert!(stderr(&done).contains("event 1: the subject \"chat.*\" has a wildcard"), "{}", stderr(&done));
    let missing = output(&mut test(&folder, &["missing.ndjson"]));
    assert!(stderr(&missing).contains("cannot read missing.ndjson"), "{}", stderr(&missing));
}

#[test]
fn a_mistake_in_the_settings_is_told_before_any_event() {
    let folder = chat();
    let settings = folder.path().join("catchment.toml");
    let text = std::fs::read_to_string(&settings).expect("reads").replace("INTO messages(", "INTO massages(");
    std::fs::write(&settings, text).expect("writes");
    let done = output(&mut test(&folder, &["-"]));
    assert_eq!(done.status.code(), Some(1));
    let said = stderr(&done);
    assert!(said.contains("route message") && said.contains("no such table: massages"), "{said}");
}
