//! `catchment test`: events through routes, without a broker.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::collector::{catchment, fed, output, signal, stderr};

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
        (&letter["event"], &letter["line"], &letter["route"], &letter["payload"]),
        (&json!(3), &json!(4), &json!("message"), &json!("no JSON"))
    );
    assert_eq!(found["interrupted"], json!(false));
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
    let done = fed(&mut test(&folder, &["-"]), "{\"subject\":\"chat.user.left\",\"payload\":\"\"}\nhello\n");
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("catchment: line 2: does not look like {\"subject\""), "{}", stderr(&done));
    assert!(stderr(&done).ends_with("; if the lines are payloads, give their --subject\n"), "{}", stderr(&done));
    assert!(done.stdout.is_empty());
    let done = output(&mut test(&folder, &["--subject", "chat.*", "-"]));
    assert!(done.status.success(), "without an event there is nothing wrong: {}", stderr(&done));
    let done = fed(&mut test(&folder, &["--subject", "chat.*", "-"]), "{}");
    assert!(stderr(&done).contains("line 1: the subject \"chat.*\" has a wildcard"), "{}", stderr(&done));
    let missing = output(&mut test(&folder, &["missing.ndjson"]));
    assert!(stderr(&missing).contains("cannot read missing.ndjson"), "{}", stderr(&missing));
}

#[test]
fn a_dead_letter_names_the_line_of_its_event() {
    let folder = chat();
    let lines = "\u{feff}{\"subject\":\"chat.elsewhere\",\"payload\":\"\"}\r\n\r\n  \n{\"subject\":\"chat.message.log\",\"payload\":\"no JSON\"}\r\n";
    let done = fed(&mut test(&folder, &["--json", "-"]), lines);
    let letters = read(&done)["dead_letters"].clone();
    assert_eq!((&letters[0]["event"], &letters[0]["line"]), (&json!(1), &json!(4)), "{letters}");
    let shown = String::from_utf8_lossy(&fed(&mut test(&folder, &["-"]), lines).stdout).into_owned();
    assert!(shown.contains("│ line ┆ subject") && shown.contains("│    4 ┆ chat.message.log"), "{shown}");
}

#[test]
fn an_input_without_events_is_said() {
    let folder = chat();
    let done = fed(&mut test(&folder, &["-"]), "\n \r\n");
    assert!(done.status.success(), "{}", stderr(&done));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.ends_with("0 events: 0 stored, 0 dead letters, 0 dropped; standard input has none\n"), "{said}");
    assert_eq!(read(&fed(&mut test(&folder, &["-", "--json"]), ""))["events"], json!(0));
    let compressed = fed(&mut test(&folder, &["-"]), "\u{1f}\n");
    assert_eq!(compressed.status.code(), Some(1), "no JSON: {}", stderr(&compressed));
    let refused = output(&mut test(&folder, &["."]));
    assert_eq!((refused.status.code(), &*refused.stdout), (Some(1), &b""[..]));
    assert!(stderr(&refused).contains("cannot read .: it is a folder"), "{}", stderr(&refused));
}

#[test]
fn a_signal_ends_a_test_with_what_was_done() {
    let folder = chat();
    for (name, status) in [("INT", 130), ("TERM", 143)] {
        let mut command = test(&folder, &["--json", "--subject", "chat.message.log", "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let mut input = child.stdin.take().expect("piped");
        // More than is read ahead: when it is all written, the first lines were taken.
        input.write_all("{\"username\":\"a\",\"message\":\"b\"}\n".repeat(20_000).as_bytes()).expect("reads");
        signal(child.id(), name);
        let done = child.wait_with_output().expect("ends");
        drop(input);
        assert_eq!(done.status.code(), Some(status), "{}", stderr(&done));
        let (found, said) = (read(&done), stderr(&done));
        assert_eq!(found["interrupted"], json!(true));
        let rows = found["tables"]["messages"].as_array().map_or(0, Vec::len);
        assert_eq!(found["events"], json!(rows));
        assert!(rows > 0 && said.contains("interrupted after") && said.contains("end of standard input"), "{said}");
    }
}

#[test]
fn a_mistake_in_the_settings_is_told_before_any_event() {
    let folder = chat();
    let settings = folder.path().join("catchment.toml");
    let text = std::fs::read_to_string(&settings).expect("reads").replace("INTO messages(", "INTO massages(");
    std::fs::write(&settings, text).expect("writes");
    let done = output(&mut test(&folder, &["-"]));
    assert_eq!(done.status.code(), Some(2));
    let said = stderr(&done);
    assert!(said.contains("route message") && said.contains("no such table: massages"), "{said}");
}
