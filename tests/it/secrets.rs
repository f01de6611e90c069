//! No secret is in anything that is printed or logged, however wrongly it was given.

use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use crate::support::collector::output;
use crate::support::fixture;

const SECRET: &str = "hunter2";

/// Addresses with a secret in them that are mistakes, or look like some.
const ADDRESSES: [&str; 16] = [
    "nats://user:hunter2/host",
    "nats://user:hunter2/host:4222",
    "nats://user:hunter2",
    "user:hunter2",
    "nats://user@hunter2/host:4222",
    "nats://user:hunter2:4222",
    "nats://user:1234/hunter2",
    "nats://hunter2/host",
    "nats://user:a/hunter2@127.0.0.1:1",
    "nats://user:#hunter2@127.0.0.1:1",
    "nats:/user:hunter2@127.0.0.1:1",
    "//user:hunter2@127.0.0.1:1",
    "http://user:hunter2/x",
    "nats://us er:hunter2/host",
    "nats://127.0.0.1:1?token=hunter2",
    "tls://user:hunter2\\host",
];

/// What should be in a file and was given instead of its name.
const CONTENTS: [&str; 4] = [
    "-----BEGIN NATS USER JWT-----\neyJhunter2.eyJh.c2ln\n------END NATS USER JWT------",
    "-----BEGIN PRIVATE KEY-----hunter2",
    "eyJhunter2.eyJh.c2ln",
    "SUHUNTER2AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA2",
];

/// A server, and commands that log all they can.
struct Fixture(fixture::Fixture);

impl Deref for Fixture {
    type Target = fixture::Fixture;

    fn deref(&self) -> &fixture::Fixture {
        &self.0
    }
}

impl Fixture {
    fn new() -> Self {
        Self(fixture::Fixture::without_stream())
    }

    fn publish(&self) -> Command {
        self.command(&["publish", "events.a", "x", "--timeout", "300ms"])
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        command.env("RUST_LOG", "debug");
        command
    }

    fn context(&self, json: &str) -> Command {
        let contexts = self.path("nats/context");
        std::fs::create_dir_all(&contexts).expect("makes");
        std::fs::write(contexts.join("a.json"), json).expect("writes");
        let mut command = self.publish();
        command.env("XDG_CONFIG_HOME", self.folder.path()).args(["--context", "a"]);
        command
    }

    fn settings(&self, text: &str) -> [Command; 2] {
        self.file("c.toml", text);
        let mut publish = self.publish();
        publish.args(["-c", "c.toml"]);
        [publish, self.command(&["check", "-c", "c.toml"])]
    }
}

/// Runs it, and looks for the secret in all that it says.
#[track_caller]
fn tells_nothing(mut command: Command) {
    let done = output(&mut command);
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(!done.status.success(), "{command:?}: {said}");
    assert!(!said.to_lowercase().contains(SECRET), "{command:?}: {said}");
    let program = Path::new(command.get_program()).display().to_string();
    assert!(said.lines().count() >= 1 && !program.is_empty(), "it says something");
}

#[test]
fn a_secret_in_a_wrong_address_is_told_nowhere() {
    let fixture = Fixture::new();
    for address in ADDRESSES {
        let mut by_flag = fixture.publish();
        by_flag.args(["--server", address]);
        tells_nothing(by_flag);
        let mut by_variable = fixture.publish();
        by_variable.env("NATS_URL", address);
        tells_nothing(by_variable);
        let mut by_own_variable = fixture.publish();
        by_own_variable.env("CATCHMENT_BROKER__SERVERS", address);
        tells_nothing(by_own_variable);
        tells_nothing(fixture.context(&serde_json::json!({ "url": address }).to_string()));
        fixture.settings(&format!("[broker]\nservers = ['{address}']\n")).into_iter().for_each(tells_nothing);
    }
}

#[test]
fn contents_given_where_a_file_was_meant_are_told_nowhere() {
    let fixture = Fixture::new();
    let url = fixture.server.url();
    for contents in CONTENTS {
        for (flag, beside) in [
            ("--creds", None),
            ("--nkey", None),
            ("--jwt", Some(["--nkey", "/nowhere/a.nk"])),
            ("--token-file", None),
            ("--password-file", Some(["--user", "me"])),
            ("--tlsca", None),
            ("--tlscert", Some(["--tlskey", "/nowhere/a.key"])),
            ("--tlskey", Some(["--tlscert", "/nowhere/a.crt"])),
        ] {
            let mut command = fixture.publish();
            command.args(["--server", &url, flag, contents]).args(beside.iter().flatten());
            tells_nothing(command);
        }
        for key in ["creds", "nkey", "user_jwt", "cert", "key", "ca"] {
            tells_nothing(fixture.context(&serde_json::json!({ "url": url, key: contents }).to_string()));
        }
    }
}

#[test]
fn a_secret_in_broken_settings_is_told_nowhere() {
    let fixture = Fixture::new();
    for line in [
        "password = \"hunter2",
        "password = hunter2",
        "pasword = \"hunter2\"",
        "password = [\"hunter2\"]",
        "token = \"hunter2\" x",
        "servers = \"nats://u:hunter2@h\"",
        "servers = [\"nats://u:hunter2@h\", 5]",
        "password = \"hunter2\"\npassword = \"hunter2\"",
        "creds = \"eyJhunter2.a.b\"",
    ] {
        fixture.settings(&format!("[broker]\n{line}\n")).into_iter().for_each(tells_nothing);
    }
    for (name, value) in [
        ("CATCHMENT_BROKER__PASWORD", "hunter2"),
        ("CATCHMENT_BROKER__PASSWORD", "hunter2"),
        ("CATCHMENT_BROKER", "{password = \"hunter2\"}"),
        ("NATS_CREDS", "-----BEGIN hunter2"),
    ] {
        let mut command = fixture.publish();
        command.env(name, value);
        tells_nothing(command);
    }
    for json in [
        "password: hunter2",
        r#"{"password": "hunter2""#,
        r#"{"password": ["hunter2"]}"#,
        r#"{"url": 5, "token": "hunter2"}"#,
    ] {
        tells_nothing(fixture.context(json));
    }
}
