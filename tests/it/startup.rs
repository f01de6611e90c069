//! A failed start ends in time, with one line that names the object, the cause and the remedy.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;

use crate::support::collector::{Collector, catchment, output, run, stderr};
use crate::support::eventually;
use crate::support::refusal::{SECRETS, ends, refused};
use crate::support::server::{Server, program};

/// What the commands below are given for an answer.
const TIMEOUT: &str = "1s";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// `catchment run` and `catchment publish` with these arguments.
fn run_and_publish(folder: &Path, url: &str, arguments: &[&str]) -> [Command; 2] {
    let mut run = catchment();
    run.arg("run").arg("--database").arg(folder.join("a.db"));
    let mut publish = catchment();
    publish.args(["publish", "events.a", "x"]);
    [run, publish].map(|mut command| {
        command.args(["--server", url, "--timeout", TIMEOUT]).args(arguments);
        command
    })
}

#[test]
fn wrong_credentials_are_refused_without_showing_them() {
    let folder = folder();
    let (user, token) = (folder.path().join("user"), folder.path().join("token"));
    for folder in [&user, &token] {
        std::fs::create_dir(folder).expect("a folder");
    }
    let server = Server::start_with(&user, &["--jetstream", "--user", "me", "--pass", SECRETS[0]]);
    let url = server.url();
    for mut command in run_and_publish(folder.path(), &url, &["--user", "me", "--password", SECRETS[1]]) {
        refused(&mut command, 1, &[&url, "user me", "--password"]);
    }
    for mut command in run_and_publish(folder.path(), &url, &[]) {
        refused(&mut command, 1, &[&url, "without credentials", "--creds"]);
    }
    for mut command in run_and_publish(folder.path(), &url, &["--token", SECRETS[2]]) {
        refused(&mut command, 1, &[&url, "the token", "--token"]);
    }
    let in_url = url.replace("//", &format!("//me:{}@", SECRETS[1]));
    for mut command in run_and_publish(folder.path(), &in_url, &[]) {
        refused(&mut command, 1, &[&url, "refuses", "--password"]);
    }
    for mut command in run_and_publish(folder.path(), &url, &[]) {
        command.env("CATCHMENT_BROKER__USER", "me").env("CATCHMENT_BROKER__PASSWORD", SECRETS[1]);
        refused(&mut command, 1, &[&url, "user me"]);
    }
    for mut command in run_and_publish(folder.path(), &url, &["--creds", "/nowhere/me.creds"]) {
        refused(&mut command, 1, &["/nowhere/me.creds", "cannot read", "--creds"]);
    }
    let garbage = folder.path().join("garbage.creds");
    std::fs::write(&garbage, "no credentials").expect("writes");
    let garbage = garbage.to_str().expect("UTF-8");
    for mut command in run_and_publish(folder.path(), &url, &["--creds", garbage]) {
        refused(&mut command, 1, &["garbage.creds", "credentials", "--creds"]);
    }
    // And the right ones are taken: by flags, by the environment, in the URL.
    let right = SECRETS[0];
    let mut publish = catchment();
    publish.args(["publish", "events.a", "x", "--server", &url, "--timeout", TIMEOUT, "--user", "me"]);
    publish.args(["--password", right]);
    ends(&mut publish, 1, &["no stream takes its subject"]);

    let server = Server::start_with(&token, &["--jetstream", "--auth", SECRETS[0]]);
    let url = server.url();
    for mut command in run_and_publish(folder.path(), &url, &["--token", SECRETS[2]]) {
        refused(&mut command, 1, &[&url, "the token", "--token"]);
    }
    let done = output(run(&url, &folder.path().join("t.db")).args(["--drain", "--token", right, "-v"]));
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(!stderr(&done).contains(right), "{}", stderr(&done));
}

#[test]
fn a_server_without_jetstream_is_refused() {
    let folder = folder();
    let server = Server::start_with(folder.path(), &[]);
    let [mut run, mut publish] = run_and_publish(folder.path(), &server.url(), &[]);
    refused(&mut run, 1, &[&server.url(), "no JetStream", "--jetstream"]);
    ends(&mut publish, 1, &["no stream takes its subject"]);
}

#[test]
fn an_account_without_jetstream_or_permissions_is_refused() {
    let folder = folder();
    let config = folder.path().join("server.conf");
    let text = "jetstream: {}\naccounts: { A: { users: [{ user: a, password: hunter2-right }] }, \
                B: { jetstream: enabled, users: [{ user: b, password: hunter2-right, \
                permissions: { publish: [\"events.>\"] } }] } }\n";
    std::fs::write(&config, text).expect("writes");
    let server = Server::start_with(folder.path(), &["--config", config.to_str().expect("UTF-8")]);
    for (user, words) in [("a", "no JetStream for this account"), ("b", "$JS.API")] {
        let [mut run, _] =
            run_and_publish(folder.path(), &server.url(), &["--user", user, "--password", SECRETS[0], "-q"]);
        refused(&mut run, 1, &[&server.url(), words]);
    }
}

#[test]
fn a_port_where_nobody_listens_is_refused_at_once() {
    let folder = folder();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let url = format!("nats://127.0.0.1:{port}");
    for mut command in run_and_publish(folder.path(), &url, &[]) {
        refused(&mut command, 1, &[&url, "refused", "check that nats-server runs at this address"]);
    }
    for mut command in run_and_publish(folder.path(), "nats://no-such-host.invalid:4222", &[]) {
        refused(&mut command, 1, &["nats://no-such-host.invalid:4222", "check that nats-server runs at this address"]);
    }
}

#[test]
fn a_server_that_accepts_and_keeps_silent_is_refused_in_time() {
    let folder = folder();
    // The kernel accepts; nobody ever reads.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    for mut command in run_and_publish(folder.path(), &url, &[]) {
        refused(&mut command, 1, &[&url, "sent nothing in 1.0 s"]);
    }
    let mut from_environment = run(&url, &folder.path().join("a.db"));
    refused(from_environment.env("NATS_TIMEOUT", TIMEOUT), 1, &[&url, "sent nothing in 1.0 s"]);
}

#[test]
fn a_server_that_is_stopped_is_refused_in_time() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.signal("STOP");
    for mut command in run_and_publish(folder.path(), &server.url(), &[]) {
        refused(&mut command, 1, &[&server.url(), "sent nothing in 1.0 s"]);
    }
    server.signal("CONT");
}

#[test]
fn a_port_that_speaks_something_else_is_refused() {
    let folder = folder();
    for (greeting, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..], "check the port"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "check the port"),
        (b"INFO {\"no\": \"version\"}\r\n", "greeting"),
        (b"INFO not json\r\n", "greeting"),
        (b"", "check the port"),
        (b"INFO {\"version\":\"2.10.0\",\"max_payload\":1048576}\r\n", "nats://"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("nats://{}", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            // Ends with the test's process: the listener has no other reader.
            for stream in listener.incoming() {
                let _ = stream.and_then(|mut stream| stream.write_all(greeting));
            }
        });
        for mut command in run_and_publish(folder.path(), &url, &[]) {
            refused(&mut command, 1, &[&url, words]);
        }
    }
}

#[test]
fn a_database_that_cannot_be_written_is_refused() {
    let folder = folder();
    let server = Server::start(folder.path());
    let run = |database: &Path| {
        let mut command = run(&server.url(), database);
        command.args(["--timeout", TIMEOUT]);
        command
    };
    let missing = folder.path().join("missing/a.db");
    let make_it = "/missing does not exist; make it (mkdir -p ";
    refused(&mut run(&missing), 1, &[missing.to_str().unwrap(), make_it]);
    assert!(!folder.path().join("missing").exists());
    let directory = folder.path().join("directory.db");
    std::fs::create_dir(&directory).expect("a folder");
    refused(&mut run(&directory), 1, &["directory.db", "it is a directory"]);
    // Where not even root may make a file.
    refused(&mut run(Path::new("/proc/a.db")), 1, &["/proc/a.db", "can be written"]);
    let under_file = folder.path().join("server.log/a.db");
    refused(&mut run(&under_file), 1, &["server.log/a.db", "check its directories"]);
    let mut missing_with_server = catchment();
    missing_with_server.args(["run", "--with-server", "--database"]).arg(&missing).env("NATS_SERVER_BIN", program());
    refused(&mut missing_with_server, 1, &[missing.to_str().unwrap(), make_it]);
}

#[test]
fn what_only_others_may_write_is_refused() {
    let folder = folder();
    let server = Server::start(folder.path());
    let nobody = |command: &mut Command| {
        if is_root() {
            command.uid(65_534).gid(65_534);
        }
    };
    let mut probe = catchment();
    nobody(&mut probe);
    // From a folder of root's own, nobody can start the program.
    if !probe.arg("--version").output().is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: what_only_others_may_write_is_refused: the program cannot be run as nobody");
        return;
    }
    let database = folder.path().join("a.db");
    let done = output(run(&server.url(), &database).arg("--drain"));
    assert!(done.status.success(), "{}", stderr(&done));
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changes");
    };
    mode(folder.path(), 0o555);
    mode(&database, 0o444);
    let mut command = run(&server.url(), &database);
    nobody(&mut command);
    refused(&mut command, 1, &["a.db", "can be written"]);
    // A folder to write in, a file that is not.
    mode(folder.path(), 0o777);
    let _ = std::fs::remove_file(folder.path().join("a.db.lock"));
    let mut command = run(&server.url(), &database);
    nobody(&mut command);
    refused(&mut command, 1, &["a.db", "this user may not write it"]);
    // It left nothing that would be in the way.
    mode(&database, 0o666);
    let mut command = run(&server.url(), &database);
    nobody(command.arg("--drain"));
    let done = output(&mut command);
    assert!(done.status.success(), "{}", stderr(&done));
    mode(&database, 0o000);
    for arguments in [&["sql", "SELECT 1"][..], &["tail", "--no-follow"]] {
        let mut command = catchment();
        nobody(command.args(arguments).arg("--database").arg(&database));
        refused(&mut command, 1, &["a.db", "this user may not read it"]);
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("a process")) == 0
}

#[test]
fn a_locked_database_is_refused() {
    let folder = folder();
    let server = Server::start(folder.path());
    let database = folder.path().join("a.db");
    let done = output(run(&server.url(), &database).arg("--drain"));
    assert!(done.status.success(), "{}", stderr(&done));
    let holder = Connection::open(&database).expect("opens");
    holder.execute_batch("BEGIN EXCLUSIVE").expect("nobody else writes");
    refused(&mut run(&server.url(), &database), 1, &["a.db", "locked", "another process holds"]);
    holder.execute_batch("COMMIT").expect("commits");
    // In SQLite's other journal modes nobody else even reads.
    holder.execute_batch("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE").expect("nobody else writes");
    refused(&mut run(&server.url(), &database), 1, &["a.db", "locked", "another process holds"]);
}

/// A sound database with two thousand events.
fn filled(folder: &Path, server: &Server) -> PathBuf {
    let database = folder.join("a.db");
    server.make_stream("EVENTS", &["events.>"]);
    let payloads: Vec<String> = (0..2_000).map(|n| format!("event {n:0>100}")).collect();
    server.raw().publish_all("events.a", &payloads);
    let done = output(run(&server.url(), &database).arg("--drain"));
    assert!(done.status.success(), "{}", stderr(&done));
    let connection = Connection::open(&database).expect("opens");
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpoints");
    database
}

#[test]
fn a_damaged_database_is_refused() {
    let folder = folder();
    let server = Server::start(folder.path());
    let sound = std::fs::read(filled(folder.path(), &server)).expect("reads");
    assert!(sound.len() > 100_000, "{}", sound.len());
    let flipped = |range: std::ops::Range<usize>| {
        let mut bytes = sound.clone();
        bytes[range].iter_mut().for_each(|byte| *byte ^= 0xff);
        bytes
    };
    let kinds = [
        ("garbage", b"this is no database, it is a letter to my aunt. ".repeat(200)),
        ("short", b"SQLite".to_vec()),
        ("header", flipped(0..100)),
        ("truncated", sound[..sound.len() / 2].to_vec()),
        ("cut", sound[..sound.len() - 1_000].to_vec()),
        ("first-page", flipped(100..4_096)),
        ("all-but-first", flipped(4_096..sound.len())),
        ("last-page", flipped(sound.len() - 4_096..sound.len())),
        ("middle", flipped(sound.len() / 2..sound.len() / 2 + 8_192)),
    ];
    for (name, bytes) in kinds {
        let database = folder.path().join(format!("{name}.db"));
        std::fs::write(&database, bytes).expect("writes");
        refused(&mut run(&server.url(), &database), 1, &[&format!("{name}.db"), "restore a copy"]);
    }
    let garbage = folder.path().join("garbage.db");
    for arguments in [&["sql", "SELECT * FROM events"][..], &["tail", "--no-follow"]] {
        refused(catchment().args(arguments).arg("--database").arg(&garbage), 1, &["garbage.db", "not a database"]);
    }
}

#[test]
fn a_database_of_another_making_is_refused() {
    let folder = folder();
    let server = Server::start(folder.path());
    let database = filled(folder.path(), &server);
    let connection = Connection::open(&database).expect("opens");
    connection.execute("UPDATE catchment_meta SET value = 99 WHERE key = 'version'", []).expect("SQL");
    refused(&mut run(&server.url(), &database), 1, &["a.db", "version 99", "later"]);
    // Somebody's own table of that name.
    let other = folder.path().join("other.db");
    let connection = Connection::open(&other).expect("opens");
    connection.execute_batch("CREATE TABLE events(when_it_was TEXT, what TEXT)").expect("SQL");
    refused(&mut run(&server.url(), &other), 1, &["other.db", "events"]);
}

#[test]
fn wrong_settings_are_refused_by_name_with_status_2() {
    let folder = folder();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path
    };
    let unknown = file("unknown.toml", "[broker]\nstream = \"A\"\n\n[database]\npaht = \"a.db\"\n");
    let section = file("section.toml", "[brokre]\nstream = \"A\"\n");
    let kind = file("kind.toml", "[broker]\ntimeout = 7\n");
    let secret = file("secret.toml", "[broker]\npassword = { x = \"hunter2-right\" }\n");
    let broken = file("broken.toml", "[broker\nstream = \"A\"\n");
    let stream = file("stream.toml", "[broker]\nstream = \"A.B\"\n");
    let missing = folder.path().join("missing.toml");
    let cases: [(&Path, &[&str]); 7] = [
        (&unknown, &["unknown.toml:5", "unknown key `paht`", "path"]),
        (&section, &["section.toml:1", "unknown key `brokre`", "broker"]),
        (&kind, &["kind.toml:2", "expected a duration, as \"5s\""]),
        (&secret, &["secret.toml:2", "expected a string, found a table"]),
        (&broken, &["broken.toml:1"]),
        (&stream, &["stream.toml:2: broker.stream: ", "\"A.B\""]),
        (&missing, &["missing.toml", "there is no such file", "--config"]),
    ];
    for (path, words) in cases {
        let words = [&["catchment: configuration: "], words].concat();
        for command in [&["run"][..], &["publish", "events.a", "x"], &["sql", "SELECT 1"], &["tail"]] {
            refused(catchment().args(command).arg("--config").arg(path), 2, &words);
            refused(catchment().args(command).env("CATCHMENT_CONFIG", path), 2, &words);
        }
    }
    let variables: [(&str, &str, &[&str]); 9] = [
        ("CATCHMENT_BROKER__SERVRES", "nats://a:1", &["unknown key `servres`"]),
        ("CATCHMENT_DATABSE__PATH", "a.db", &["CATCHMENT_DATABSE__PATH: unknown key `databse`"]),
        ("CATCHMENT_DATABASE__WRITERS", "many", &["CATCHMENT_DATABASE__WRITERS", "a whole number"]),
        ("CATCHMENT_DATABASE__WRITERS", "0", &["CATCHMENT_DATABASE__WRITERS: is 0; from 1 to 64"]),
        ("CATCHMENT_DATABASE__SYNCHRONOUS", "sometimes", &["full", "normal"]),
        ("CATCHMENT_BROKER__TIMEOUT", "7", &["CATCHMENT_BROKER__TIMEOUT"]),
        ("CATCHMENT_BROKER__STREAM", "a b", &["CATCHMENT_BROKER__STREAM: \"a b\"", "is not a valid stream name"]),
        ("CATCHMENT_BROKER__SUBJECTS", "a..b", &["CATCHMENT_BROKER__SUBJECTS: \"a..b\"", "events.>"]),
        ("NATS_TIMEOUT", "soon", &["NATS_TIMEOUT", "5s"]),
    ];
    for (name, value, words) in variables {
        for command in [&["run"][..], &["publish", "events.a", "x"]] {
            refused(catchment().args(command).env(name, value), 2, words);
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("reads").filter(is_database).count(), 0);
    let [mut run, mut publish] = run_and_publish(folder.path(), "nats://127.0.0.1:99999", &[]);
    refused(&mut run, 2, &["broker.servers", "nats://127.0.0.1:99999"]);
    refused(&mut publish, 2, &["broker.servers", "nats://127.0.0.1:99999"]);
}

fn is_database(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "db"))
}

#[test]
fn a_start_waits_for_its_broker_where_it_is_told_to() {
    let folder = folder();
    let mut server = Server::start(folder.path());
    server.kill();
    let log = folder.path().join("collector.log");
    let waiting = |wait: &str| {
        let mut command = run(&server.url(), &folder.path().join("a.db"));
        command.args(["--wait", wait, "--timeout", TIMEOUT]);
        command
    };
    // Too long.
    let said = ends(&mut waiting("1s"), 1, &[&server.url()]);
    assert!(said.contains("waiting for it, at most 1s (broker.wait)"), "{said}");
    // Stopped meanwhile.
    let collector = Collector::start(waiting("1m"), &log);
    collector.said("waiting for it, at most 60s (broker.wait)");
    assert!(collector.stop().success());
    assert!(std::fs::read_to_string(&log).expect("reads").contains("stopped before the broker came up"));
    // In time.
    let mut command = run(&server.url(), &folder.path().join("a.db"));
    command.env("CATCHMENT_BROKER__WAIT", "1m").args(["--timeout", TIMEOUT]);
    let log = folder.path().join("second.log");
    let collector = Collector::start(command, &log);
    collector.said("waiting for it, at most 60s (broker.wait)");
    // Several tries: none of them is answered.
    let nobody = eventually("the port", || std::net::TcpListener::bind(("127.0.0.1", server.port())).ok());
    for _ in 0..3 {
        drop(nobody.accept().expect("a try"));
    }
    drop(nobody);
    server.restart();
    collector.said("collecting stream EVENTS");
    assert!(collector.stop().success());
    assert_eq!(std::fs::read_to_string(&log).expect("reads").matches("waiting for it").count(), 1);
}

#[test]
fn a_server_program_that_fails_says_why_in_its_own_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("nats-server");
    let library = "echo first >&2; echo 'nats-server: error while loading shared libraries: libx.so' >&2; exit 127";
    let log = "while [ \"$1\" != --log ]; do shift; done; echo broken >\"$2\"; exit 1";
    for (text, words) in [
        (
            format!("#!/bin/sh\n{library}\n"),
            "shared libraries: libx.so; try to start it by hand, or name another nats-server",
        ),
        ("#!/nowhere/interpreter\n".into(), "; try to start it by hand, or name another nats-server"),
        (format!("#!/bin/sh\n{log}\n"), "ended at once (exit status: 1); see its log, "),
        // The log is one of an earlier start.
        (
            format!("#!/bin/sh\n{library}\n"),
            "shared libraries: libx.so; try to start it by hand, or name another nats-server",
        ),
    ] {
        std::fs::write(&program, &text).expect("writes");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("changes");
        let mut command = catchment();
        command.args(["run", "--with-server", "--database"]).arg(folder.path().join("a.db"));
        let done = output(command.env("NATS_SERVER_BIN", &program));
        let said = stderr(&done);
        let last = said.lines().last().unwrap_or_default();
        assert!(done.status.code() == Some(1) && last.contains(words), "{said}");
        assert!(!last.contains("no such program"), "{said}");
        let log = folder.path().join("a.db.nats/server.log");
        assert_eq!(last.contains("server.log"), text.contains("--log"), "{said}");
        assert_eq!(folder.path().join("a.db.nats").exists(), log.exists(), "what a failed start has made is removed");
    }
}
