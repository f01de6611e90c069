//! What docs/logs.md says about the log: the events of the source, and what a collector writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::support::collector::{Collector, run, signal};
use crate::support::fixture::Fixture;
use crate::support::server::Server;
use crate::support::{eventually, oracle};

/// An event's level, and its fields in their order.
type Events = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

/// The macros of the log in a file: level, and the text within the parentheses.
fn log_lines(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("log::") {
        let call = &text[at + "log::".len()..];
        let Some((level, rest)) = call.split_once("!(") else { continue };
        if !["error", "warn", "info", "log"].contains(&level) {
            continue;
        }
        let (mut depth, mut is_quoted, mut before) = (1, false, ' ');
        let end = rest.find(|c| {
            match c {
                '"' if before != '\\' => is_quoted = !is_quoted,
                '(' if !is_quoted => depth += 1,
                ')' if !is_quoted => depth -= 1,
                _ => {}
            }
            before = c;
            depth == 0
        });
        found.push((level, &rest[..end.expect("an end")]));
    }
    found
}

/// Adds the events of a file. Lines without an event are for people at a terminal: only commands may have them.
fn add_events_of(path: &Path, events: &mut Events) {
    let text = std::fs::read_to_string(path).expect("reads");
    let is_of_a_command = path.components().any(|part| ["cli", "compare"].iter().any(|of| part.as_os_str() == *of));
    for (level, call) in log_lines(&text) {
        let Some((before, after)) = call.split_once("event = \"") else {
            let is_for_people = is_of_a_command && !path.ends_with("cli/run.rs");
            assert!(is_for_people, "{}: a line of the log has no event: {call}", path.display());
            continue;
        };
        let (name, after) = after.split_once('"').expect("a name");
        let fields = after.split_once("; ").or_else(|| after.split_once(";\n")).expect("a message").0;
        let level = if before.trim().is_empty() { level } else { "log" };
        let (levels, known) = events.entry(name.to_owned()).or_default();
        levels.insert(level.to_owned());
        let fields: BTreeSet<String> = fields
            .split(['=', ','])
            .map(|part| part.trim().trim_end_matches([':', '%', '?']))
            .zip(fields.split_inclusive(['=', ',']))
            .filter(|(_, whole)| whole.ends_with('='))
            .map(|(key, _)| key.to_owned())
            .collect();
        assert!(known.is_empty() || *known == fields, "{}: {name} has other fields elsewhere", path.display());
        known.extend(fields);
    }
}

fn events_of_the_source() -> Events {
    let mut events = Events::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("reads").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                add_events_of(&path, &mut events);
            }
        }
    }
    events
}

#[test]
fn the_page_has_the_events_that_the_source_logs() {
    let source = events_of_the_source();
    assert!(source.len() > 50, "{source:?}");
    let mut page = Events::new();
    for line in include_str!("../../docs/logs.md").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, level, fields, _, ""] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        let fields =
            fields.split(' ').filter(|field| !field.is_empty()).map(|field| field.trim_matches('`').to_owned());
        let known = page.insert(name.to_owned(), (BTreeSet::from([level.to_owned()]), fields.collect()));
        assert!(known.is_none(), "{name} is there twice");
    }
    let names = |events: &Events| events.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&page), names(&source));
    for (name, (levels, fields)) in &source {
        let (documented, documented_fields) = &page[name];
        assert_eq!(documented_fields, fields, "{name}");
        // `log!` has a level that is computed: the page has the one that is not debug.
        let fixed: BTreeSet<_> = levels.iter().filter(|level| *level != "log").cloned().collect();
        assert!(fixed.is_empty() || fixed == *documented, "{name}: {levels:?}, not {documented:?}");
        for reserved in ["time", "level", "target", "message", "event"] {
            assert!(!fields.contains(reserved), "{name}: {reserved}");
        }
    }
}

/// The lines of a log in JSON that have an event, by its name.
fn with_events(log: &str) -> Vec<(String, Value)> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter_map(|line| Some((line["event"].as_str()?.to_owned(), line))).collect()
}

#[test]
fn a_collector_reports_its_start_trouble_and_end_as_events() {
    let fixture = Fixture::new();
    let mut command = fixture.run();
    command.env("CATCHMENT_LOG_FORMAT", "json");
    let collector = Collector::start(command, &fixture.path("log"));
    collector.said("\"collector.started\"");
    fixture.server.signal("STOP");
    collector.said("\"trouble.began\"");
    fixture.server.signal("CONT");
    collector.said("\"trouble.ended\"");
    let payloads = fixture.publish("secret-payload", 3);
    fixture.has(payloads.len());
    signal(collector.pid(), "HUP");
    collector.said("\"settings.reloaded\"");
    let log_file = fixture.path("log");
    assert!(collector.stop().success());
    let log = std::fs::read_to_string(log_file).expect("reads");
    assert!(!log.contains("secret-payload"), "{log}");
    let events = with_events(&log);
    let of = |name: &str| &events.iter().find(|(event, _)| event == name).unwrap_or_else(|| panic!("{name}: {log}")).1;
    let started = of("collector.started");
    assert_eq!((&started["stream"], &started["routes"], &started["queries"]), (&"EVENTS".into(), &0.into(), &0.into()));
    assert_eq!(started["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(started["database"], fixture.database().to_str().expect("UTF-8"));
    let sqlite = rusqlite::version();
    assert!(started["sqlite"] == sqlite && started["message"].as_str().is_some_and(|text| text.contains(sqlite)));
    assert_eq!((&of("trouble.began")["part"], &of("trouble.began")["level"]), (&"broker".into(), &"WARN".into()));
    let ended = of("trouble.ended");
    assert!(ended["part"] == "broker" && ended["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{ended}");
    assert_eq!(of("collector.stopped")["committed"], 3);
    assert_eq!(oracle::count(&fixture.database()), 3);
}

#[test]
fn trouble_that_repeats_is_limited_and_counted() {
    let (folder, server) = Server::in_new_folder();
    let file = folder.path().join("a.toml");
    std::fs::write(&file, "").expect("writes");
    let mut command = run(&server.url(), &folder.path().join("a.db"));
    command.env("CATCHMENT_LOG_FORMAT", "json").arg("--config").arg(&file);
    let collector = Collector::start(command, &folder.path().join("log"));
    collector.said("\"collector.started\"");
    std::fs::write(&file, "nonsense").expect("writes");
    let done =
        || catchment::unversioned::store::Lock::reloads(&folder.path().join("a.db")).map_or(0, |note| note.ended);
    for round in 1..=25 {
        signal(collector.pid(), "HUP");
        eventually("the reload", || (done() >= round).then_some(()));
    }
    let log = collector.log();
    assert_eq!(with_events(&log).iter().filter(|(event, _)| event == "settings.refused").count(), 20, "{log}");
    assert!(collector.stop().success());
}
