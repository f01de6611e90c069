//! `catchment infer` and `catchment test --from-stream`: settings from messages that are there.

use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::collector::{output, printed, stderr};
use crate::support::fixture::Fixture;

/// A command in the fixture's folder, at its server.
fn run(fixture: &Fixture, arguments: &[&str]) -> std::process::Command {
    let mut command = fixture.command(arguments);
    command.env("CATCHMENT_BROKER__SERVERS", fixture.server.url());
    command
}

fn json(command: &mut std::process::Command) -> Value {
    serde_json::from_str(&printed(command)).expect("JSON")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("reads").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| !["streams", "server.log"].contains(&name.as_str()));
    names.sort();
    names
}

#[test]
fn what_it_writes_is_checked_and_collects() {
    let fixture = Fixture::new();
    let folder = fixture.folder.path();
    let raw = &mut fixture.server.raw();
    for (device, payload) in [
        ("oven", r#"{"value": 21, "unit": "°C", "at": {"room": "kitchen"}, "tags": ["a"]}"#),
        ("oven", r#"{"value": 21.5, "unit": null}"#),
        ("lamp", r#"{"value": 1, "on": true, "order": 7, "a'b\"; DROP TABLE x; --": "hostile", "subject": "mine"}"#),
    ] {
        raw.publish(format!("events.{device}.reading"), None, payload);
    }
    raw.publish("events.other", None, "not of this subject");

    // Without --write nothing is written.
    let shown = printed(&mut run(&fixture, &["infer", "events.*.reading"]));
    assert_eq!(names(folder), Vec::<String>::new());
    assert!(
        shown.starts_with("stream EVENTS: read 3 messages on events.*.reading; 3 payloads are objects\n┌"),
        "{shown}"
    );
    assert!(
        shown.contains("\nmigrations/001_events_reading.sql:\n") && shown.contains("\ncatchment.toml:\n"),
        "{shown}"
    );
    assert!(shown.ends_with("\nTried with these messages: 3 stored, 0 dead letters.\n"), "{shown}");

    let written = output(&mut run(&fixture, &["infer", "events.*.reading", "--table", "readings", "--write"]));
    assert!(written.status.success(), "{}", stderr(&written));
    assert!(stderr(&written).contains("wrote catchment.toml"), "{}", stderr(&written));
    assert_eq!(names(folder), ["catchment.toml", "migrations"]);
    assert_eq!(names(&folder.join("migrations")), ["001_readings.sql"]);
    assert!(run(&fixture, &["check", "--offline"]).status().expect("runs").success());
    let tried = json(&mut run(&fixture, &["test", "--from-stream", "100", "--json"]));
    assert_eq!((&tried["events"], &tried["dead_letters"]), (&json!(3), &json!([])));

    // A start takes them as they are.
    assert!(run(&fixture, &["run", "--drain", "--quiet"]).status().expect("runs").success());
    let sqlite = Connection::open(folder.join("catchment.db")).expect("opens");
    let sql = "SELECT group_concat(token_2 || '|' || value || '|' || coalesce(unit, '-') || '|' || coalesce(at_room, '-'), ' ')
               FROM readings";
    let rows: String = sqlite.query_row(sql, [], |row| row.get(0)).expect("rows");
    assert_eq!(rows, "oven|21.0|°C|kitchen oven|21.5|-|- lamp|1.0|-|-");
    let sql = r#"SELECT "on" || "order" || a_b_DROP_TABLE_x || subject FROM readings WHERE token_2 = 'lamp'"#;
    assert_eq!(sqlite.query_row(sql, [], |row| row.get::<_, String>(0)).expect("a row"), "17hostilemine");

    // Payloads that are no objects are stored whole.
    let shown = printed(&mut run(&fixture, &["infer", "events.other"]));
    assert!(shown.contains("; 0 payloads are objects\n") && shown.contains("payload ANY NOT NULL"), "{shown}");

    // Neither these files nor this table are touched again.
    let refused = output(&mut run(&fixture, &["infer", "events.*.reading", "--table", "READINGS"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("it has READINGS already; give another name with --table"),
        "{}",
        stderr(&refused)
    );
    let before = std::fs::read_to_string(folder.join("catchment.toml")).expect("reads");
    let refused = output(&mut run(&fixture, &["--no-config", "infer", "events.*.reading", "--table", "x", "--write"]));
    assert!(stderr(&refused).contains("catchment.toml exists already"), "{}", stderr(&refused));
    assert_eq!(names(&folder.join("migrations")), ["001_readings.sql"]);
    assert_eq!(std::fs::read_to_string(folder.join("catchment.toml")).expect("reads"), before);
}

#[test]
fn with_settings_it_writes_a_route_for_their_end() {
    let fixture = Fixture::new();
    let (folder, settings) = (fixture.folder.path(), fixture.path("catchment.toml"));
    std::fs::create_dir(folder.join("sql")).expect("a folder");
    fixture.file("sql/007_lines.sql", "CREATE TABLE lines(text TEXT) STRICT;");
    let before = "[broker]\nsubjects = [\"events.>\"]\n\n[database]\nmigrations = \"sql\"\n\n[[route]]\nname = \"all\"\n\
                  subject = \"events.line.*\"\nsql = \"INSERT INTO lines(text) VALUES (:text)\"\n";
    std::fs::write(&settings, before).expect("writes");
    let packed = b"\x81\xa4name\xa3ada";
    fixture.server.raw().publish("events.user", Some(b"NATS/1.0\r\nContent-Type: application/msgpack\r\n\r\n"), packed);
    fixture.server.raw().publish("events.line.a", None, "{\"text\": 7}");
    let done = output(&mut run(&fixture, &["infer", "events.user", "--write", "--json"]));
    let result: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", stderr(&done)));
    assert_eq!((&result["messages"], &result["outcome"]["stored"]), (&json!(1), &json!(1)));
    assert_eq!(result["files"][0]["path"], json!("sql/008_events_user.sql"));
    assert_eq!((&result["fields"][0]["path"], &result["fields"][0]["sql_type"]), (&json!("/name"), &json!("TEXT")));
    assert_eq!(std::fs::read_to_string(&settings).expect("reads"), before, "settings are never changed");
    let route = std::fs::read_to_string(folder.join("events_user.route.toml")).expect("a route");
    std::fs::write(&settings, format!("{before}\n{route}")).expect("writes");

    // A message that the tables refuse is named by its sequence.
    let tried = output(&mut run(&fixture, &["test", "--from-stream", "9", "--json"]));
    assert_eq!(tried.status.code(), Some(0), "{}", stderr(&tried));
    let tried: Value = serde_json::from_slice(&tried.stdout).expect("JSON");
    assert_eq!(
        (&tried["tables"]["events_user"][0]["name"], &tried["tables"]["lines"][0]["text"]),
        (&json!("ada"), &json!("7"))
    );
    fixture.server.raw().publish("events.line.b", None, "no JSON");
    let tried = output(&mut run(&fixture, &["test", "--from-stream", "9", "--subject", "events.line.>"]));
    assert_eq!(tried.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&tried.stdout).into_owned();
    assert!(shown.contains("│ sequence ┆ subject") && shown.contains("│        3 ┆ events.line.b"), "{shown}");
    assert!(shown.ends_with("2 events: 1 stored, 1 dead letter, 0 dropped\n"), "{shown}");
    let warned = stderr(&output(&mut run(&fixture, &["infer", "events.line.>"])));
    assert!(warned.contains("route all of catchment.toml comes first"), "{warned}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let fixture = Fixture::new();
    for (arguments, status, said) in [
        (&["infer", "events.none"][..], 1, "stream EVENTS holds no message on events.none; publish one"),
        (&["infer", "chat.>"], 1, "stream EVENTS stores nothing on chat.>; it stores events.>"),
        (&["infer", "events.>", "--table", "events"], 2, "--table \"events\": expected letters"),
        (&["infer", "a b"], 2, "SUBJECT \"a b\": expected a subject"),
        (&["infer", "events.>", "--stream", "NONE"], 1, "there is no stream NONE"),
        (&["test", "--from-stream", "9", "file"], 2, "cannot be combined with"),
        (&["test", "--from-stream", "0"], 2, "--from-stream \"0\": expected a whole number"),
    ] {
        let done = output(&mut run(&fixture, arguments));
        assert_eq!(done.status.code(), Some(status), "{arguments:?}: {}", stderr(&done));
        assert!(stderr(&done).contains(said), "{arguments:?}: {}", stderr(&done));
    }
    let mut core = run(&fixture, &["infer", "events.>"]);
    let refused = output(core.env("CATCHMENT_BROKER__MODE", "core"));
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("there is no stream to read"), "{}", stderr(&refused));
    let empty = output(&mut run(&fixture, &["test", "--from-stream", "5"]));
    let shown = String::from_utf8_lossy(&empty.stdout).into_owned();
    assert_eq!(shown, "0 events: 0 stored, 0 dead letters, 0 dropped; stream EVENTS has none\n");
}
