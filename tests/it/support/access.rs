//! A server that lets in who proves who they are: the command must get in, or be refused in one line, and show no secret.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::authority::Pair;
use super::collector::{catchment, output, stderr};
use super::oracle;
use super::refusal::{SECRETS, ends};
use super::server::Server;

/// A folder with a server, and the files that lead there.
pub struct AccessFixture {
    folder: tempfile::TempDir,
}

impl AccessFixture {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("writes");
        path
    }

    /// A server with this configuration, in a folder of its own.
    pub fn server(&self, name: &str, config: &str) -> Server {
        let file = self.file(&format!("{name}/server.conf"), config);
        Server::start_with(&self.path().join(name), &["--config", text(&file)])
    }

    /// The collector and the publisher get in and do their work, and show none of these.
    #[track_caller]
    pub fn works(&self, secrets: &[&str], with: impl Fn(&mut Command)) {
        let database =
            tempfile::NamedTempFile::new_in(self.path()).expect("a file").into_temp_path().with_extension("db");
        let payload = format!("to {}", database.display());
        let mut run = catchment();
        run.args(["run", "--drain", "--database"]).arg(&database).env("RUST_LOG", "trace");
        let mut publish = catchment();
        publish.args(["publish", "events.a", &payload, "-v"]).env("RUST_LOG", "trace");
        with(&mut run);
        with(&mut publish);
        for command in [&mut run, &mut publish] {
            succeeds(command, secrets);
        }
        succeeds(&mut run, secrets);
        assert_eq!(oracle::payloads(&database).last(), Some(&payload));
    }

    /// Neither gets in; both say so with these words in one line, and show no secret.
    #[track_caller]
    pub fn refuses(&self, secrets: &[&str], words: &[&str], with: impl Fn(&mut Command)) {
        self.refuses_with(1, secrets, words, with);
    }

    #[track_caller]
    pub fn refuses_with(&self, status: i32, secrets: &[&str], words: &[&str], with: impl Fn(&mut Command)) {
        let mut run = catchment();
        run.args(["run", "--drain", "--database"]).arg(self.path().join("refused.db"));
        let mut publish = catchment();
        publish.args(["publish", "events.a", "x"]);
        for mut command in [run, publish] {
            command.args(["--timeout", "1s"]);
            with(&mut command);
            let said = ends(&mut command, status, words);
            assert_eq!(said.lines().count(), 1, "one line: {said}");
            shows_none(&said, secrets);
            let said = ends(command.arg("-v").env("RUST_LOG", "trace"), status, words);
            shows_none(&said, secrets);
        }
    }
}

#[track_caller]
pub fn succeeds(command: &mut Command, secrets: &[&str]) {
    let done = output(command);
    assert!(done.status.success(), "{}", stderr(&done));
    shows_none(&stderr(&done), secrets);
    shows_none(&String::from_utf8_lossy(&done.stdout), secrets);
}

#[track_caller]
pub fn shows_none(said: &str, secrets: &[&str]) {
    for secret in secrets.iter().chain(&SECRETS) {
        assert!(!said.contains(secret), "a secret is shown: {said}");
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

pub fn tls(pair: &Pair, more: &str) -> String {
    let (cert, key) = (text(&pair.cert), text(&pair.key));
    format!("jetstream: {{}}\ntls {{ cert_file: {cert:?}, key_file: {key:?}\n{more} }}\n")
}

pub fn with_scheme(server: &Server, scheme: &str) -> String {
    server.url().replace("nats", scheme)
}
