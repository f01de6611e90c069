//! The fixture of this folder's tests: a database in a folder of its own, a writer to it, and a connection to read the result.

use std::sync::Arc;

use rusqlite::Connection;

use super::{Database, Routes, Writer};
use crate::config::{DatabaseConfig, RouteConfig, Synchronous, Unmatched};
use crate::error::Error;
use crate::pipeline::{Batch, Committed, Epoch, Limits, Mark, Refusal, Sink};

pub(super) struct Fixture {
    _folder: tempfile::TempDir,
    pub(super) config: DatabaseConfig,
    routes: Routes,
    pub(super) writer: Writer,
    /// A connection of another program.
    pub(super) connection: Connection,
}

impl Fixture {
    /// Without routes. Runs this SQL before the first event.
    pub(super) fn new(sql: &str) -> Self {
        let fixture = Self::with_routes("", &[], Unmatched::Store).expect("a new database");
        fixture.connection.execute_batch(sql).expect("SQL");
        fixture
    }

    /// With these routes and the tables of this schema.
    pub(super) fn with_routes(schema: &str, routes: &[RouteConfig], unmatched: Unmatched) -> Result<Self, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let config = DatabaseConfig { path, synchronous: Synchronous::Normal, ..DatabaseConfig::default() };
        let connection = Connection::open(&config.path).expect("opens");
        connection.pragma_update(None, "synchronous", "OFF").expect("sets");
        connection.execute_batch(schema).expect("a schema");
        let routes = Routes::new(routes, unmatched)?;
        let writer = Database::open(&config, &routes)?.writers().remove(0);
        Ok(Self { _folder: folder, config, routes, writer, connection })
    }

    pub(super) fn open(&self) -> Database {
        Database::open(&self.config, &self.routes).expect("opens")
    }

    pub(super) fn commit(&mut self, batch: &Batch) -> Committed {
        self.writer.prepare(batch);
        self.writer.commit(batch).expect("commits")
    }

    /// The error of a commit that must fail for good.
    pub(super) fn fatal(&mut self, batch: &Batch) -> String {
        self.writer.prepare(batch);
        match self.writer.commit(batch) {
            Err(Refusal::Fatal(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// The first column of a query's rows.
    pub(super) fn texts(&self, sql: &str) -> Vec<String> {
        texts(&self.connection, sql)
    }

    pub(super) fn stored(&self) -> Vec<String> {
        self.texts("SELECT payload FROM events ORDER BY id")
    }

    pub(super) fn dead(&self) -> Vec<String> {
        self.texts("SELECT CAST(payload AS TEXT) || ': ' || error FROM catchment_dead_letters ORDER BY id")
    }

    pub(super) fn ledger(&self) -> i64 {
        let sql = "SELECT coalesce(max(sequence), 0) FROM catchment_ledger";
        self.connection.query_row(sql, [], |row| row.get(0)).expect("a number")
    }
}

pub(super) fn texts(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).expect("SQL");
    let rows = statement.query_map([], |row| row.get(0)).expect("runs");
    rows.collect::<Result<_, _>>().expect("text")
}

pub(super) fn route(subject: &str, sql: &[&str]) -> RouteConfig {
    let sql = sql.iter().map(|&sql| sql.to_owned()).collect();
    RouteConfig { subject: subject.into(), sql, ..RouteConfig::default() }
}

pub(super) fn mark(sequence: usize) -> Mark {
    Mark { sequence: sequence as u64, published_ns: 1_000_000 }
}

/// A batch of these payloads, all of subject `a`, after position `after`.
pub(super) fn batch(after: usize, payloads: &[&str]) -> Batch {
    let events: Vec<_> = payloads.iter().map(|payload| ("a", *payload)).collect();
    batch_of(after, &events)
}

/// A batch of these subjects and payloads after position `after`.
pub(super) fn batch_of(after: usize, events: &[(&str, &str)]) -> Batch {
    let mut batch = Batch::new(Limits { events: 100, bytes: 10_000 });
    let before = if after == 0 { Mark::START } else { mark(after) };
    batch.begin(Arc::new(Epoch::new("S", 1, "then")), before);
    for ((subject, payload), sequence) in events.iter().zip(after + 1..) {
        batch.push(mark(sequence), subject, [], payload.as_bytes());
    }
    batch
}
