//! The usual fixture: a server with a stream, a database to be, and the command between them.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::collector::{Collector, output, run, stderr};
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

    /// The stream has these settings beside the usual ones, or in their place.
    pub fn with_stream(settings: &Value) -> Self {
        Self::of(Server::in_new_folder(), settings)
    }

    /// The stream keeps messages as long as this retention says.
    pub fn with_retention(retention: &str) -> Self {
        Self::with_stream(&json!({ "retention": retention }))
    }

    /// As [`Fixture::with_retention`], on a server that has this configuration.
    pub fn configured(configuration: &str, retention: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::configured(folder.path(), configuration);
        Self::of((folder, server), &json!({ "retention": retention }))
    }

    fn of((folder, server): (tempfile::TempDir, Server), settings: &Value) -> Self {
        server.make_stream_with("EVENTS", &["events.>"], settings);
        Self { folder, server }
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("a.db")
    }

    pub fn run(&self) -> Command {
        run(&self.server.url(), &self.database())
    }

    pub fn collector(&self) -> Collector {
        Collector::start(self.run(), &self.folder.path().join("collector.log"))
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
