//! The usual fixture: a server with a stream, the path of a database, and commands for both.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::collector::{Collector, output, run, stderr};
use super::server::Server;
use super::{eventually, oracle};

/// A server with stream `EVENTS`, and the path of a database.
pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub server: Server,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start(folder.path());
        server.make_stream("EVENTS", &["events.>"]);
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
