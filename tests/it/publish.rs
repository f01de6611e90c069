//! `catchment publish` as people use it: what it reads, how it ends, and what it says.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::collector::{Collector, catchment, fed, output, piped, results, run, signal, stderr};
use crate::support::publishing::PublishingFixture as Fixture;
use crate::support::refusal::{ends, refused};
use crate::support::server::Server;
use crate::support::{eventually, oracle};

#[track_caller]
fn said(done: &Output) -> String {
    results(done.clone())
}

#[track_caller]
fn json(done: &Output) -> Value {
    serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", stderr(done)))
}

#[test]
fn a_hyphen_is_standard_input_and_lines_are_read_as_people_write_them() {
    let fixture = Fixture::new();
    let input = b"\xef\xbb\xbf{\"n\":1}\r\n\r\n   \r\n\t\n{\"n\":2}";
    for (at, arguments) in
        [&["events.a", "-"][..], &["events.a"], &["events.a", "-f", "-"], &["events.a", "--file", "/dev/stdin"]]
            .iter()
            .enumerate()
    {
        let last = 2 * (at as u64 + 1);
        let done = fed(&mut fixture.publish(arguments), input);
        assert_eq!(said(&done), format!("published 2 events, the last as {last} of stream EVENTS\n"), "{arguments:?}");
        assert_eq!(stderr(&done), "");
    }
    let lines = "\u{feff}{\"subject\":\"events.a\",\"payload\":{\"n\":1}}\r\n\r\n \t\n\u{feff}{\"subject\":\"events.a\",\"payload\":{\"n\":2}}\r\n";
    said(&fed(&mut fixture.publish(&["--events", "-"]), lines.as_bytes()));
    said(&fed(&mut fixture.publish(&["--events"]), lines.as_bytes()));
    assert_eq!(fixture.payloads(), ["{\"n\":1}", "{\"n\":2}"].repeat(6));
}

#[test]
fn a_payload_may_begin_with_a_hyphen() {
    let fixture = Fixture::new();
    let payloads = ["-3.5", "-10", "-1e-05", "- a", "-x"];
    for payload in &payloads[..4] {
        said(&output(&mut fixture.publish(&["events.temp", payload, "-H", "Offset:-1"])));
    }
    said(&output(&mut fixture.publish(&["-H", "Offset: -1", "events.temp", "--", "-x"])));
    assert_eq!(fixture.payloads(), payloads);
    for arguments in
        [&["events.temp", "-x"][..], &["events.temp", "--idd", "7"], &["events.temp", "-3.5", "--idd", "7"]]
    {
        let done = output(&mut fixture.publish(arguments));
        assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
        assert!(stderr(&done).starts_with("catchment: there is no option -"), "{}", stderr(&done));
    }
    assert_eq!(fixture.last(), 5);
}

#[test]
fn an_input_without_events_is_said_and_is_no_failure() {
    let fixture = Fixture::new();
    let white = fixture.file("white", b"\xef\xbb\xbf\n \r\n");
    let done = fed(&mut fixture.publish(&["events.a"]), b"");
    assert_eq!(said(&done), "published 0 events: standard input has none\n");
    assert_eq!(
        said(&output(&mut fixture.publish(&["events.a", "-f", &white]))),
        format!("published 0 events: {white} has none\n")
    );
    assert_eq!(said(&output(&mut fixture.publish(&["events.a", "--count", "0"]))), "published 0 events\n");
    let done = fed(&mut fixture.publish(&["--events", "--json"]), b"");
    assert!(done.status.success());
    let said = json(&done);
    assert_eq!((&said["published"], &said["total"], &said["error"]), (&0.into(), &0.into(), &Value::Null));
}

#[test]
fn an_input_that_is_no_text_is_refused_with_the_way_out() {
    let fixture = Fixture::new();
    let folder = fixture.folder.path().to_str().expect("UTF-8").to_owned();
    let inputs: [(&str, &[u8], &str); 4] = [
        ("a.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "a.gz: it is compressed with gzip; decompress it: zcat "),
        ("a.zst", b"\x28\xb5\x2f\xfd\x04\x58\x39\x00", "a.zst: it is compressed with zstd; decompress it: zstdcat "),
        ("a.txt", b"\xff\xfe{\0}\0\n\0", "a.txt: it is UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 "),
        ("a.json", b"[\n{\"subject\": \"events.a\"}\n]\n", "write each element on a line: jq -c '.[]'"),
    ];
    for (name, content, words) in inputs {
        let file = fixture.file(name, content);
        refused(&mut fixture.publish(&["--events", "--file", &file]), 1, &[words]);
        let done = fed(&mut fixture.publish(&["--events"]), content);
        assert_eq!((done.status.code(), stderr(&done).lines().count()), (Some(1), 1), "{}", stderr(&done));
    }
    refused(&mut fixture.publish(&["events.a", "--file", &folder]), 1, &["it is a folder; name a file in it"]);
    refused(&mut fixture.publish(&["events.a", "--file", "missing"]), 1, &["cannot read missing: No such file"]);
    let mut from_folder = fixture.publish(&["events.a"]);
    from_folder.stdin(File::open(&folder).expect("opens"));
    refused(&mut from_folder, 1, &["cannot read standard input: Is a directory"]);
    assert_eq!(fixture.last(), 0);
}

#[test]
fn an_error_names_the_line_of_the_file() {
    let fixture = Fixture::new();
    let lines = "\n{\"subject\":\"events.a\",\"payload\":{\"n\":1}}\r\n{\"subject\":\"events.a\",}\n";
    let file = fixture.file("a.ndjson", lines.as_bytes());
    let words = [
        "line 3: does not look like {\"subject\"",
        "it is not valid JSON, at column 23; of 1 event before it, 1 is stored",
    ];
    refused(&mut fixture.publish(&["--events", "--file", &file]), 1, &words);
    let file = fixture.file("large", format!("a\n\n{}\n", "x".repeat(1 << 20)).as_bytes());
    let words = ["line 3: event on events.a not recorded: it has", "of 1 event before it, 1 is stored"];
    refused(&mut fixture.publish(&["events.a", "--file", &file]), 1, &words);
    assert_eq!(fixture.payloads(), ["{\"n\":1}", "a"]);
}

#[test]
fn arguments_that_contradict_each_other_are_wrong_usage() {
    let fixture = Fixture::new();
    let file = fixture.file("a", b"x\n");
    for (arguments, words) in [
        (&["events.a", "--id", "7", "-f", &file][..], "--id is the id of a single event"),
        (&["events.a", "--id", "7", "--count", "3"], "--id is the id of a single event"),
        (&["events.a", "--id", "7", "-"], "--id is the id of a single event"),
        (&["--events", "--id", "7"], "\"Nats-Msg-Id\""),
        (&["events.a", "x", "--id", ""], "the id is empty"),
        (&["events.a", "x", "--id", " 7"], "the id \" 7\" has white space at its ends"),
        (&["events.a", "x", "-H", ": y"], "the header with the value \"y\" has no name"),
        (&["--events", "events.a"], "read a file with --events --file FILE"),
    ] {
        refused(&mut fixture.publish(arguments), 2, &[words]);
    }
    for arguments in [
        &["events.a", "--count", "3", "--size", "47"][..],
        &["events.a", "--count", "3", "--size", "99999999999"],
        &["events.a", "--count", "3", "--rate", "0"],
        &["events.a", "--size", "100"],
        &["events.a", "x", "-f", &file],
    ] {
        let done = output(&mut fixture.publish(arguments));
        let said = stderr(&done);
        assert!(
            done.status.code() == Some(2) && said.starts_with("catchment: ") && said.lines().count() == 1,
            "{arguments:?}: {said}"
        );
    }
    assert_eq!(fixture.last(), 0);
    // The bounds themselves.
    let bounds = ["events.a", "--count", "3", "--size", "48", "--rate", "18446744073709551615"];
    said(&output(&mut fixture.publish(&bounds)));
    assert!(fixture.payloads().iter().all(|payload| payload.len() == 48));
}

/// The keys of the result, whatever happened.
const KEYS: [&str; 9] =
    ["error", "interrupted", "last_sequence", "not_stored", "published", "seconds", "stream", "total", "unknown"];

#[track_caller]
fn has_all_keys(said: &Value) {
    let keys: Vec<&String> = said.as_object().expect("an object").keys().collect();
    assert_eq!(keys, KEYS);
}

#[test]
fn the_result_has_the_same_keys_however_it_ends() {
    let fixture = Fixture::new();
    let bad = fixture.file("bad", b"{\"subject\":\"events.a\",\"payload\":\"\"}\nhello\n");
    let cases: [(&[&str], i32, [Value; 4]); 7] = [
        (&["events.a", "x"], 0, [1.into(), 0.into(), 0.into(), 1.into()]),
        (&["events.a", "--count", "9"], 0, [9.into(), 0.into(), 0.into(), 9.into()]),
        (&["other.a", "--count", "7", "--timeout", "500ms"], 1, [0.into(), 7.into(), 0.into(), 7.into()]),
        (&["--events", "--file", &bad], 1, [1.into(), 1.into(), 0.into(), Value::Null]),
        (&["events.a", "--file", "missing"], 1, [0.into(), 0.into(), 0.into(), Value::Null]),
        (&["events.a", "x", "--server", "nats://127.0.0.1:1"], 1, [0.into(), 1.into(), 0.into(), 1.into()]),
        (&["events.a", "--count", "5", "--server", "127.0.0.1:1"], 1, [0.into(), 5.into(), 0.into(), 5.into()]),
    ];
    for (arguments, status, [published, not_stored, unknown, total]) in cases {
        let mut command = catchment();
        command.arg("publish").args(arguments).arg("--json").env("NATS_URL", fixture.server.url());
        let done = output(&mut command);
        assert_eq!(done.status.code(), Some(status), "{arguments:?}: {}", stderr(&done));
        let said = json(&done);
        has_all_keys(&said);
        let found = ["published", "not_stored", "unknown", "total"].map(|key| said[key].clone());
        assert_eq!(found, [published, not_stored, unknown, total], "{arguments:?}");
        assert_eq!(said["error"].is_string(), status != 0, "{said}");
        if let Some(error) = said["error"].as_str() {
            assert!(stderr(&done).ends_with(&format!("catchment: {error}\n")), "{said}");
        }
    }
}

#[test]
fn an_interrupted_command_says_how_many_of_how_many() {
    let fixture = Fixture::new();
    for (name, status) in [("INT", 130), ("TERM", 143)] {
        let before = fixture.last();
        let mut command = fixture.publish(&["events.a", "--count", "1000000", "--rate", "2000", "--json"]);
        let child = piped(&mut command);
        eventually("some events", || (fixture.last() > before + 10).then_some(()));
        signal(child.id(), name);
        let done = child.wait_with_output().expect("ends");
        assert_eq!(done.status.code(), Some(status), "{}", stderr(&done));
        let said = json(&done);
        has_all_keys(&said);
        let published = fixture.last() - before;
        assert_eq!((&said["published"], &said["total"]), (&published.into(), &1_000_000.into()), "{said}");
        assert_eq!((&said["not_stored"], &said["interrupted"]), (&(1_000_000 - published).into(), &true.into()));
        let words = "catchment: interrupted: of 1,000,000 events ";
        assert!(stderr(&done).starts_with(words) && stderr(&done).lines().count() == 1, "{}", stderr(&done));
    }
}

/// Whether SIGTERM no longer ends this process at once.
fn catches_sigterm(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask").trim();
    u64::from_str_radix(caught, 16).expect("hexadecimal") & (1 << 14) != 0
}

#[test]
fn waiting_for_input_ends_with_a_signal() {
    let fixture = Fixture::new();
    let mut child = piped(&mut fixture.publish(&["events.a"]));
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"one\n\ntwo\n").expect("reads");
    eventually("both events", || (fixture.last() == 2).then_some(()));
    signal(child.id(), "INT");
    let done = child.wait_with_output().expect("ends");
    drop(input);
    assert_eq!(done.status.code(), Some(130));
    let words = "catchment: interrupted at line 3: of 2 events 2 are in the stream\n";
    assert!(stderr(&done).starts_with(words), "{}", stderr(&done));
    // A named pipe that nobody writes: nothing was published.
    let pipe = fixture.folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let child = piped(&mut fixture.publish(&["events.a", "--json", "--file", pipe.to_str().expect("UTF-8")]));
    eventually("it to catch the signal", || catches_sigterm(child.id()).then_some(()));
    signal(child.id(), "TERM");
    let done = child.wait_with_output().expect("ends");
    assert_eq!(done.status.code(), Some(143));
    assert_eq!((&json(&done)["published"], &json(&done)["interrupted"]), (&0.into(), &true.into()));
    assert!(stderr(&done).contains("interrupted before the first event"), "{}", stderr(&done));
}

#[test]
fn a_stream_that_is_missing_is_said_once() {
    let fixture = Fixture::new();
    let line = |subject: &str| format!("{{\"subject\":\"{subject}\",\"payload\":\"x\"}}\n");
    let mixed: String = (0..200).map(|n| line(if n % 20 == 7 { "other.a" } else { "events.a" })).collect();
    let file = fixture.file("mixed", mixed.as_bytes());
    let words = ["of 200 events 190 are in the stream, 10 are not", "no stream takes other.a at the moment"];
    let arguments = ["--events", "--file", &file, "--rate", "400", "--timeout", "1s"];
    let said = ends(&mut fixture.publish(&arguments), 1, &words);
    assert_eq!(
        said.lines().filter(|line| line.contains("no stream takes other.a")).count(),
        2,
        "a warning and the error: {said}"
    );
    assert!(!said.contains("well again"), "{said}");
    let said = ends(&mut fixture.publish(&["other.a", "--count", "5000", "--timeout", "1s"]), 1, &["of 5,000 events"]);
    assert!(said.lines().count() <= 4, "{said}");
}

#[test]
fn a_refused_event_counts_as_not_stored() {
    let fixture = Fixture::new();
    let file = fixture.file(
        "one-bad",
        b"{\"subject\":\"events.a\",\"payload\":\"\"}\n{\"subject\":\"events..b\",\"payload\":\"\"}\n",
    );
    let done = output(&mut fixture.publish(&["--events", "--json", "--file", &file]));
    assert_eq!(done.status.code(), Some(1));
    let result = json(&done);
    assert_eq!((&result["published"], &result["not_stored"], &result["unknown"]), (&1.into(), &1.into(), &0.into()));
    let done = output(&mut fixture.publish(&["events..a", "x", "--json"]));
    assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
}

#[test]
fn a_signal_ends_the_wait_for_the_first_connection() {
    // Accepts connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("nats://{}", silent.local_addr().expect("an address"));
    for (name, status) in [("INT", 130), ("TERM", 143)] {
        let mut command = catchment();
        command.args(["publish", "events.a", "x", "--json", "--timeout", "1h", "--server", &url]);
        let child = piped(&mut command);
        let connection = silent.accept().expect("it connects");
        signal(child.id(), name);
        let done = child.wait_with_output().expect("ends");
        drop(connection);
        assert_eq!(done.status.code(), Some(status), "{}", stderr(&done));
        assert_eq!((&json(&done)["published"], &json(&done)["interrupted"]), (&0.into(), &true.into()));
    }
}

#[test]
fn a_publisher_that_lacks_the_mode_of_the_collector_gets_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, database) = (Server::start(folder.path()), folder.path().join("a.db"));
    let mut command = run(&server.url(), &database);
    command.env("CATCHMENT_BROKER__MODE", "core");
    let collector = Collector::start(command, &folder.path().join("run.log"));
    collector.said("collecting subjects");
    let mut publish = catchment();
    publish
        .args(["publish", "events.a", "x", "--timeout", "1s", "--server", &server.url(), "--database"])
        .arg(&database);
    let words = ["not confirmed", "; the collector of ", "publish with CATCHMENT_BROKER__MODE=core"];
    ends(&mut publish, 1, &words);
    let done = output(publish.env("CATCHMENT_BROKER__MODE", "core"));
    assert!(done.status.success(), "{}", stderr(&done));
    // The first one may have come too.
    eventually("the event", || (oracle::count(&database) >= 1).then_some(()));
    assert!(collector.stop().success());
}

#[test]
fn a_denied_subject_is_said_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let users =
        "authorization: { users: [{ user: a, password: a, permissions: { publish: { deny: [\"events.denied\"] } } }] }";
    let server = Server::configured(folder.path(), &format!("jetstream: enabled\n{users}\n"));
    let database: PathBuf = folder.path().join("a.db");
    let login = ["--user", "a", "--password", "a"];
    assert!(output(run(&server.url(), &database).args(["--drain", "--quiet"]).args(login)).status.success());
    let line = |subject: &str| format!("{{\"subject\":\"events.{subject}\",\"payload\":\"\"}}\n");
    let mixed: String = (0..200).map(|n| line(if n % 2 == 0 { "a" } else { "denied" })).collect();
    let file = folder.path().join("mixed");
    std::fs::write(&file, mixed).expect("writes");
    let mut command = catchment();
    command
        .args(["publish", "--events", "--server", &server.url(), "--rate", "100"])
        .args(login)
        .arg("--file")
        .arg(&file);
    let said = ends(&mut command, 1, &["of 200 events 100 are in the stream, 100 are not"]);
    assert_eq!(said.matches("Permissions Violation").count(), 3, "the condition, an event and the error: {said}");
    assert!(!said.contains("well again"), "{said}");
}

#[test]
fn a_terminal_is_told_how_to_end_the_input() {
    let fixture = Fixture::new();
    let terminal = nix::pty::openpty(None, None).expect("a terminal");
    let (mut keys, screen) = (File::from(terminal.master), terminal.slave);
    let mut command = fixture.publish(&["events.a"]);
    command.stdin(screen.as_fd().try_clone_to_owned().expect("a copy")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("catchment starts");
    let mut hint = [0; 400];
    let read = child.stderr.as_mut().expect("piped").read(&mut hint).expect("reads");
    let hint = String::from_utf8_lossy(&hint[..read]).into_owned();
    assert!(hint.contains("reading events from the terminal, one a line; Ctrl-D on an empty line ends them"), "{hint}");
    keys.write_all(b"one\ntwo\n\x04").expect("types");
    let done = child.wait_with_output().expect("ends");
    assert_eq!(said(&done), "published 2 events, the last as 2 of stream EVENTS\n");
}
