//! A fixture with a collector that answers queries, and a program that asks them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use catchment::config::QueryConfig;
use catchment::{Collector, Config};
use serde_json::{Value, json};

use super::collector::{self, catchment, run};
use super::server::Server;
use super::{eventually, load, oracle};

pub const RECENT: &str = "SELECT id, payload ->> '$.n' AS n FROM events ORDER BY id DESC LIMIT coalesce(:limit, 5)";
pub const ENDLESS: &str = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS i FROM n";
pub const ONE: &str = "SELECT 1 AS one";

pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub server: Server,
}

impl Fixture {
    pub fn new() -> Self {
        let (folder, server) = Server::in_new_folder();
        Self { folder, server }
    }

    /// With a server that has this configuration.
    pub fn configured(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::configured(folder.path(), text);
        Self { folder, server }
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("a.db")
    }

    pub fn config(&self, queries: Vec<QueryConfig>) -> Config {
        let mut config = Config::default();
        config.broker = self.server.config();
        config.queries = queries;
        config.database.path = self.database();
        config
    }

    pub fn collector(&self, queries: Vec<QueryConfig>) -> Collector {
        Collector::start(&self.config(queries)).expect("starts")
    }

    /// A collector in which a single thread answers.
    pub fn collector_of_one_thread(&self, queries: Vec<QueryConfig>) -> Collector {
        let mut config = self.config(queries);
        config.service.threads = 1;
        Collector::start(&config).expect("starts")
    }

    /// `catchment run` with this one query.
    pub fn process(&self, subject: &str, sql: &str) -> collector::Collector {
        let file = self.folder.path().join("a.toml");
        std::fs::write(&file, format!("[[query]]\nsubject = {subject:?}\nsql = {sql:?}\n")).expect("writes");
        let mut command = run(&self.server.url(), &self.database());
        command.arg("--config").arg(file);
        collector::Collector::start(command, &self.folder.path().join("log"))
    }

    /// `catchment query` with these arguments.
    pub fn asking(&self, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.args(["query", "--server", &self.server.url()]).args(arguments);
        command
    }

    /// Publishes events numbered from 0 and waits for their rows.
    pub fn filled(&self, events: u64) {
        load::publish(&self.server, events);
        eventually("the rows", || (oracle::count(&self.database()) == events).then_some(()));
    }

    pub fn client(&self) -> Client {
        Client(self.server.client())
    }
}

/// Asks as a program does that knows nothing of catchment.
#[derive(Clone)]
pub struct Client(pub nats::Connection);

/// A reply: its body, or its code and reason.
pub type Replied = Result<Value, (u16, String)>;

impl Client {
    pub fn ask(&self, subject: &str, body: impl AsRef<[u8]>) -> Replied {
        self.try_to_ask(subject, body).unwrap_or_else(|e| panic!("{subject}: {e}"))
    }

    pub fn try_to_ask(&self, subject: &str, body: impl AsRef<[u8]>) -> std::io::Result<Replied> {
        let message = self.0.request_timeout(subject, body, Duration::from_secs(10))?;
        Ok(read(&message))
    }

    /// Waits until requests are answered.
    pub fn until_answered(&self, subject: &str) -> Value {
        eventually("an answer", || self.try_to_ask(subject, "").ok()?.ok())
    }
}

/// What a message says in reply.
pub fn read(message: &nats::Message) -> Replied {
    let header = |name| message.headers.as_ref().and_then(|headers| headers.get(name)).cloned();
    let body: Value = serde_json::from_slice(&message.data).expect("JSON");
    match (header("Nats-Service-Error-Code"), header("Nats-Service-Error")) {
        (Some(code), Some(reason)) => {
            let code = code.parse().expect("a number");
            assert_eq!(body, json!({ "code": code, "error": reason }), "the body says what the headers say");
            Err((code, reason))
        }
        (None, None) => Ok(body),
        half => panic!("half an error: {half:?}"),
    }
}

pub fn query(subject: &str, sql: &str) -> QueryConfig {
    QueryConfig::new(subject, sql)
}

pub fn stop(collector: &Collector) {
    collector.stop(Duration::from_secs(10)).expect("stops");
}

#[track_caller]
pub fn refused(replied: Replied, code: u16, words: &str) {
    let (found, reason) = replied.expect_err("must be refused");
    assert!(found == code && reason.contains(words), "{found} {reason}, not {code} {words}");
}
