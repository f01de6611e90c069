//! The usual fixture: a server with a stream, a database to be, and the command between them.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::collector::{Collector, catchment, output, run, stderr};
use super::server::Server;
use super::{eventually, oracle};

/// A server with stream `EVENTS`, and a database to be.
pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub server: Server,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with_stream(&json!({}))
    }

    /// The server has no stream yet.
    pub fn without_stream() -> Self {
        let (folder, server) = Server::in_new_folder();
        Self { folder, server }
    }

    /// As [`Fixture::without_stream`], on a server that has this configuration.
    pub fn configured_without_stream(configuration: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::configured(folder.path(), configuration);
        Self { folder, server }
    }

    /// The stream has these settings beside the usual ones, or in their place.
    pub fn with_stream(settings: &Value) -> Self {
        Self::without_stream().having_stream(settings)
    }

    /// The stream keeps messages as long as this retention says.
    pub fn with_retention(retention: &str) -> Self {
        Self::with_stream(&json!({ "retention": retention }))
    }

    /// As [`Fixture::with_retention`], on a server that has this configuration.
    pub fn configured(configuration: &str, retention: &str) -> Self {
        Self::configured_without_stream(configuration).having_stream(&json!({ "retention": retention }))
    }

    fn having_stream(self, settings: &Value) -> Self {
        self.server.make_stream_with("EVENTS", &["events.>"], settings);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path of a file with this in it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let file = self.path(name);
        std::fs::write(&file, content).expect("writes");
        file.to_str().expect("UTF-8").to_owned()
    }

    pub fn database(&self) -> PathBuf {
        self.path("a.db")
    }

    /// A command in this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    pub fn run(&self) -> Command {
        run(&self.server.url(), &self.database())
    }

    pub fn collector(&self) -> Collector {
        Collector::start(self.run(), &self.path("collector.log"))
    }

    /// Collects what is there and ends; what it logged.
    pub fn drain(&self) -> String {
        let done = output(self.run().arg("--drain"));
        assert!(done.status.success(), "{}", stderr(&done));
        stderr(&done)
    }

    /// Publishes `prefix-0`, `prefix-1`, ...
    pub fn publish(&self, prefix: &str, count: usize) -> Vec<String> {
        let payloads: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
        self.server.raw().publish_all("events.test", &payloads);
        payloads
    }

    pub fn has(&self, rows: usize) {
        let (database, rows) = (self.database(), rows as u64);
        eventually(&format!("{rows} rows"), || (oracle::count(&database) == rows).then_some(()));
    }

    pub fn ask(&self, subject: &str, body: &Value) -> Value {
        let answer = self.server.ask(subject, body);
        assert!(answer["error"].is_null(), "{subject}: {answer}");
        answer
    }

    /// The rows are these payloads, in this order, and nothing else.
    pub fn holds_exactly(&self, payloads: &[String]) {
        assert_eq!(oracle::payloads(&self.database()), payloads);
        oracle::holds(&self.database(), payloads);
    }
}
