//! A stream with partitions, and a collector and a database for each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;

use super::collector::{catchment, output, stderr};
use super::eventually;

/// An event as a database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub subject: String,
    pub payload: String,
    pub sequence: u64,
}

/// The collectors of a stream with partitions: their settings, and where their databases are.
pub struct Partitions {
    folder: PathBuf,
    url: String,
    pub settings: String,
    number: u32,
    databases: Vec<PathBuf>,
}

impl Partitions {
    /// For so many partitions of the stream of these settings, which are without `partitions`.
    pub fn new(folder: &Path, url: &str, number: u32, broker: &str) -> Self {
        let settings = folder.join("partitions.toml").to_str().expect("UTF-8").to_owned();
        let databases = (0..number).map(|partition| folder.join(format!("p{partition}.db"))).collect();
        let all = Self { folder: folder.to_owned(), url: url.to_owned(), settings, number, databases };
        std::fs::write(&all.settings, format!("[broker]\npartitions = {number}\n{broker}")).expect("writes");
        all
    }

    /// A command with the settings of this partition and its database.
    pub fn command(&self, partition: u32, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.current_dir(&self.folder).env("CATCHMENT_BROKER__PARTITION", partition.to_string());
        command.env("CATCHMENT_DATABASE__PATH", self.database(partition));
        command.env("CATCHMENT_BROKER__SILENCE", "2s").env("CATCHMENT_BROKER__RETRY", "200ms");
        command.args(arguments).args(["--config", &self.settings]);
        if !self.url.is_empty() {
            command.args(["--server", &self.url]);
        }
        command
    }

    /// The database of a partition.
    pub fn database(&self, partition: u32) -> &Path {
        &self.databases[partition as usize]
    }

    /// Moves the database of a partition into another folder. No collector may run.
    pub fn move_to(&mut self, partition: u32, folder: &Path) {
        std::fs::create_dir_all(folder).expect("a folder");
        let at = &mut self.databases[partition as usize];
        let moved = folder.join(at.file_name().expect("a name"));
        std::fs::rename(&*at, &moved).expect("moves");
        *at = moved;
    }

    /// Collects each partition to the end of the stream.
    pub fn drain(&self) {
        for partition in 0..self.number {
            let done = output(&mut self.command(partition, &["run", "--drain"]));
            assert!(done.status.success(), "{}", stderr(&done));
        }
    }

    /// The rows of a partition, in their order. Each is of the stream; none is a dead letter.
    pub fn rows(&self, partition: u32) -> Vec<Row> {
        let connection = Connection::open(self.database(partition)).expect("opens");
        let mut statement =
            connection.prepare("SELECT subject, CAST(payload AS TEXT), sequence FROM events ORDER BY id").expect("SQL");
        let row =
            |row: &rusqlite::Row<'_>| Ok(Row { subject: row.get(0)?, payload: row.get(1)?, sequence: row.get(2)? });
        let rows = statement.query_map([], row).expect("runs");
        rows.collect::<Result<_, _>>().expect("rows")
    }

    /// How many events all databases have.
    pub fn count(&self) -> u64 {
        let count = |path: &PathBuf| super::oracle::count(path);
        self.databases.iter().map(count).sum()
    }

    pub fn reaches(&self, rows: u64) {
        eventually(&format!("{rows} rows in {} databases", self.number), || (self.count() >= rows).then_some(()));
    }

    /// The databases together have exactly these events (subject and payload, each payload different), in the order of each subject; all
    /// events of a subject are in one database, and no database is empty.
    pub fn hold_exactly(&self, published: &[(String, String)]) {
        let (mut by_subject, mut places) = (BTreeMap::<_, Vec<String>>::new(), BTreeMap::new());
        for partition in 0..self.number {
            let rows = self.rows(partition);
            assert!(!rows.is_empty(), "partition {partition} has no events");
            assert!(rows.is_sorted_by(|one, other| one.sequence < other.sequence), "in stream order: {partition}");
            for row in rows {
                let place = *places.entry(row.subject.clone()).or_insert(partition);
                assert_eq!(place, partition, "{} is in two databases", row.subject);
                by_subject.entry(row.subject).or_default().push(row.payload);
            }
        }
        let mut expected = BTreeMap::<_, Vec<String>>::new();
        for (subject, payload) in published {
            expected.entry(subject.clone()).or_default().push(payload.clone());
        }
        for (subject, payloads) in &expected {
            let found = by_subject.remove(subject).unwrap_or_default();
            let differs = found.iter().zip(payloads).position(|(found, payload)| found != payload);
            assert_eq!((found.len(), differs), (payloads.len(), None), "events of {subject}");
        }
        assert!(by_subject.is_empty(), "nobody has published {by_subject:?}");
    }
}
