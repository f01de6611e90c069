//! Reads the state of a database without changing it. A collector may run at the same time.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::database_file::must_have_one_name;
use super::file_identity::FileIdentity;
use super::read_connection::ReadConnection;
use super::{ledger, partition_note, replay_note, schema};
use crate::config::BrokerConfig;
use crate::error::Error;
use crate::pipeline::EpochProgress;

/// The most problems of a damaged file that are reported.
const MAX_DAMAGE: usize = 10;

/// A read-only connection for checks.
#[derive(Debug)]
pub struct Inspection {
    connection: ReadConnection,
}

impl Inspection {
    /// Opens an existing database.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: there is no file, it cannot be read, or its tables are of a later version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let connection = ReadConnection::open(path)?;
        schema::must_not_be_later(connection.sqlite(), path)?;
        Ok(Self { connection })
    }

    /// The name of the database at a broker; `None` if no collector has opened it.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn identity(&self) -> Result<Option<String>, Error> {
        self.read(schema::identity)
    }

    /// How far each epoch of a stream is committed, the latest last; empty if nothing of the stream was ever committed.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn history(&self, stream: &str) -> Result<Vec<EpochProgress>, Error> {
        self.read(|connection| match schema::identity(connection)? {
            Some(_) => ledger::history(connection, stream),
            None => Ok(Vec::new()),
        })
    }

    /// The first sequence of the stream that the database is to have: a replay may have begun later than the stream. Otherwise 1.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn first_sequence(&self, stream: &str) -> Result<u64, Error> {
        let note = self.read(|connection| match schema::identity(connection)? {
            Some(_) => replay_note::read(connection),
            None => Ok(None),
        })?;
        Ok(note.filter(|note| note.stream == stream).map_or(1, |note| note.first))
    }

    /// Refuses settings with another partition of the stream than the one that the database has.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: it has another partition, or it cannot be read.
    pub fn must_have_partition(&self, broker: &BrokerConfig) -> Result<(), Error> {
        let noted = self.read(|connection| match schema::identity(connection)? {
            Some(_) => partition_note::read(connection, &broker.stream),
            None => Ok(None),
        })?;
        partition_note::compare(self.connection.path(), noted.as_deref(), broker)
    }

    /// Which file it is, and which one it was at its collector's last start; `None` if no collector has opened it.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn file_identity(&self) -> Result<Option<FileIdentity>, Error> {
        self.read(|connection| match schema::identity(connection)? {
            Some(identity) => FileIdentity::of(self.connection.path(), connection, &identity).map(Some),
            None => Ok(None),
        })
    }

    /// The number of dead letters.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn dead_letters(&self) -> Result<u64, Error> {
        self.read(|connection| match schema::identity(connection)? {
            Some(_) => connection.query_row("SELECT count(*) FROM catchment_dead_letters", [], |row| row.get(0)),
            None => Ok(0),
        })
    }

    /// Subject and error of the newest dead letter.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn newest_dead_letter(&self) -> Result<Option<(String, String)>, Error> {
        let sql = "SELECT subject, error FROM catchment_dead_letters ORDER BY id DESC LIMIT 1";
        self.read(|connection| match schema::identity(connection)? {
            Some(_) => connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional(),
            None => Ok(None),
        })
    }

    /// Reads the whole file and checks each index. Returns a line for each problem; empty if the file is sound. Blocks for that
    /// time, which can be long for a large file.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] if it cannot be read at all.
    pub fn damage(&self) -> Result<Vec<String>, Error> {
        self.read(|connection| {
            let mut found = Vec::new();
            let mut check = connection.prepare(&format!("PRAGMA integrity_check({MAX_DAMAGE})"))?;
            for line in check.query_map([], |row| row.get::<_, String>(0))? {
                found.push(line?.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            found.retain(|line| line != "ok");
            Ok(found)
        })
    }

    /// Checks that the file has no second hard link. Such a file must not be written.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] if it has one.
    pub fn has_one_name(&self) -> Result<(), Error> {
        must_have_one_name(self.connection.path())
    }

    /// Whether free pages can be given back to the file system: not in a database that an earlier version made.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn gives_pages_back(&self) -> Result<bool, Error> {
        self.read(|connection| connection.query_row("PRAGMA auto_vacuum", [], |row| Ok(row.get::<_, i64>(0)? > 0)))
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        self.connection.read(read)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::DatabaseConfig;
    use crate::store::{Database, Editor, Routes};

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        (folder, path)
    }

    #[test]
    fn a_database_that_no_collector_has_opened_can_be_read() {
        let (_folder, path) = folder();
        assert!(Inspection::open(&path).expect_err("none").to_string().contains("no such file"));
        Editor::open(&path).expect("opens").run("CREATE TABLE mine(a)").expect("SQL");
        let inspection = Inspection::open(&path).expect("opens");
        assert_eq!(inspection.identity().expect("reads"), None);
        assert_eq!(inspection.history("EVENTS").expect("reads"), []);
        assert_eq!(
            (inspection.dead_letters().expect("reads"), inspection.newest_dead_letter().expect("reads")),
            (0, None)
        );
        assert_eq!(inspection.damage().expect("reads"), Vec::<String>::new());
    }

    #[test]
    fn dead_letters_and_progress_are_read() {
        let (_folder, path) = folder();
        let config = DatabaseConfig { path: path.clone(), ..DatabaseConfig::default() };
        let database = Database::open(&config, &Routes::default()).expect("opens");
        let sql = "INSERT INTO catchment_ledger VALUES ('S', 1, 'then', 9, 10);
                   INSERT INTO catchment_dead_letters(published_us, subject, payload, error, recorded_us)
                   VALUES (1, 'a', '', 'bad', 1), (1, 'b', '', 'worse', 1);";
        let editor = Editor::open(&path).expect("opens");
        editor.run(sql).expect("SQL");
        let inspection = Inspection::open(&path).expect("opens");
        assert_eq!(inspection.identity().expect("reads").as_deref(), Some(database.identity()));
        assert_eq!(inspection.history("S").expect("reads").pop().map(|progress| progress.mark.sequence), Some(9));
        assert_eq!(inspection.dead_letters().expect("reads"), 2);
        assert_eq!(inspection.newest_dead_letter().expect("reads"), Some(("b".into(), "worse".into())));
        editor.run("UPDATE catchment_meta SET value = 99 WHERE key = 'version'").expect("SQL");
        assert!(Inspection::open(&path).expect_err("later").to_string().contains("a later catchment"));
    }

    #[test]
    fn damage_is_reported() {
        let (_folder, path) = folder();
        let sql = "CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES (1), (2);
                   PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t(a + 1)' WHERE name = 'i';";
        Editor::open(&path).expect("opens").run(sql).expect("SQL");
        let damage = Inspection::open(&path).expect("opens").damage().expect("reads");
        assert!(damage.iter().any(|line| line.contains("missing from index i")), "{damage:?}");
    }
}
