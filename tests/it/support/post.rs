//! A fixture in which every byte counts: what is published, and what must become of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use super::collector::{Collector, output, run, stderr};
use super::raw::Raw;
use super::server::Server;
use super::{eventually, oracle};

/// An event that the test published, and where the stream keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    pub sequence: u64,
    pub payload: Vec<u8>,
}

/// A server with stream `EVENTS`, what was published to it byte by byte, and what must become of it.
pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub server: Server,
    pub raw: Raw,
    pub sent: Vec<Sent>,
    /// Sequences of those that must be dead letters.
    pub dead: BTreeSet<u64>,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start(folder.path());
        Self::of(folder, server)
    }

    /// On a server with these lines in its configuration.
    pub fn configured(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::configured(folder.path(), text);
        Self::of(folder, server)
    }

    fn of(folder: tempfile::TempDir, server: Server) -> Self {
        server.make_stream("EVENTS", &["events.>"]);
        let raw = server.raw();
        Self { folder, server, raw, sent: Vec::new(), dead: BTreeSet::new() }
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

    pub fn drain(&self, change: impl FnOnce(&mut Command)) -> String {
        let mut command = self.run();
        change(command.arg("--drain"));
        let done = output(&mut command);
        assert!(done.status.success(), "{}", stderr(&done));
        stderr(&done)
    }

    pub fn publish(&mut self, subject: impl AsRef<[u8]>, headers: Option<&[u8]>, payload: impl AsRef<[u8]>) -> u64 {
        let sequence = self.raw.publish(subject, headers, payload.as_ref());
        self.sent.push(Sent { sequence, payload: payload.as_ref().to_vec() });
        sequence
    }

    /// A plain event.
    pub fn good(&mut self) {
        let payload = format!("good {}", self.sent.len());
        self.publish("events.good", None, payload);
    }

    /// One that must become a dead letter.
    pub fn bad(&mut self, subject: impl AsRef<[u8]>, headers: Option<&[u8]>) {
        let payload = format!("bad {}", self.sent.len());
        let sequence = self.publish(subject, headers, payload);
        self.dead.insert(sequence);
    }

    /// Waits until the last event is in one of the tables.
    pub fn all_came(&self) {
        let (database, last) = (self.database(), self.sent.last().expect("some").sequence);
        eventually(&format!("event {last}"), || {
            if !database.exists() {
                return None;
            }
            let sql = "SELECT coalesce(max(sequence), 0) FROM catchment_ledger";
            // Not there yet: the collector is making its tables.
            let stands: u64 = oracle::open(&database).query_row(sql, [], |row| row.get(0)).ok()?;
            (stands >= last).then_some(())
        });
    }

    /// Every event sent is in the table or, where it must be, a dead letter; once, in order, byte by byte.
    pub fn holds(&self) {
        let connection = oracle::open(&self.database());
        let read = |table: &str| -> Vec<Sent> {
            let sql = format!("SELECT sequence, CAST(payload AS BLOB) FROM {table} ORDER BY id");
            let mut statement = connection.prepare(&sql).expect("SQL");
            let rows = statement.query_map([], |row| Ok(Sent { sequence: row.get(0)?, payload: row.get(1)? }));
            rows.expect("runs").collect::<Result<_, _>>().expect("rows")
        };
        let (dead, stored): (Vec<Sent>, Vec<Sent>) =
            self.sent.iter().cloned().partition(|sent| self.dead.contains(&sent.sequence));
        let shown = |rows: &[Sent]| -> Vec<(u64, String)> {
            let start = |payload: &[u8]| String::from_utf8_lossy(&payload[..payload.len().min(20)]).into_owned();
            rows.iter().map(|row| (row.sequence, start(&row.payload))).collect()
        };
        let (rows, letters) = (read("events"), read("catchment_dead_letters"));
        assert!(rows == stored, "events: {:?}\nnot {:?}", shown(&rows), shown(&stored));
        assert!(letters == dead, "dead letters: {:?}\nnot {:?}", shown(&letters), shown(&dead));
        oracle::sound(&self.database());
    }

    /// One column of the row with this sequence.
    pub fn column<T: rusqlite::types::FromSql>(&self, expression: &str, sequence: u64) -> T {
        let sql = format!("SELECT {expression} FROM events WHERE sequence = ?");
        oracle::open(&self.database()).query_row(&sql, [sequence], |row| row.get(0)).expect(expression)
    }
}
