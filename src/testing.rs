//! Runs events through a configuration's routes into a temporary database, without a broker.
//!
//! For your own tests:
//!
//! ```
//! use catchment::config::{Config, RouteConfig};
//! use catchment::testing::TestDatabase;
//! use catchment::Event;
//!
//! # let folder = tempfile::tempdir()?;
//! # std::fs::write(folder.path().join("001_lines.sql"), "CREATE TABLE lines(user TEXT NOT NULL, text TEXT)")?;
//! let mut config = Config::default();
//! config.broker.subjects = vec!["chat.>".into()];
//! config.database.migrations = Some("migrations".into());
//! # config.database.migrations = Some(folder.path().into());
//! let sql = "INSERT INTO lines(user, text) VALUES (:user, :text)";
//! config.routes = vec![RouteConfig::new("chat.line", [sql])];
//!
//! let mut database = TestDatabase::new(&config)?;
//! database.run([
//!     Event::new("chat.line", r#"{"user": "ada", "text": "hello"}"#),
//!     Event::new("chat.line", r#"{"text": "from nobody"}"#),
//! ])?;
//! assert_eq!(database.rows("SELECT user, text FROM lines")?, [["ada".into(), "hello".into()]]);
//! assert_eq!(database.dead_letters()?[0].error, "NOT NULL constraint failed: lines.user");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With a settings file, and the feature `toml`: `Config::from_toml_file("catchment.toml")?`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tempfile::TempDir;

use crate::binding::Envelope;
use crate::broker::StreamMessage;
use crate::config::{Config, DatabaseConfig, Mode};
use crate::error::{DatabaseFault, Error};
use crate::event::Event;
use crate::new_file::folder_of;
use crate::pipeline::{Batch, Epoch, Limits, Mark, Refusal, Signal, SingleEvent, Sink};
pub use crate::record::MemoryRecorder;
pub use crate::store::{QueryError, QueryErrorKind, TableChange, Value};

use crate::store::{
    Database, DeadLetter, DeadLetters, Editor, QueryRunner, Reader, Routes, Selection, StatementOutput, Writer,
    changes, copy_schema,
};
use crate::subject::{Filter, InvalidSubject};
use crate::unix_time::{nanoseconds, now_ns};

/// A temporary database with a configuration's migrations and routes. Dropping this deletes it.
///
/// Events are committed as by a collector: by the same routes, in batches of the same size, with the same rules for dead letters.
/// They count as events of the configuration's stream, numbered from 1; in mode `core` they come from no stream.
#[derive(Debug)]
pub struct TestDatabase {
    folder: TempDir,
    subjects: Vec<Filter>,
    writer: Writer,
    /// The subjects of the queries, in their order.
    query_subjects: Vec<Filter>,
    queries: QueryRunner,
    batch: Batch,
    epoch: Arc<Epoch>,
    /// The last event that was committed.
    last: Mark,
}

/// The outcome of one run: how many events were committed, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Events committed, dead letters, dropped ones and skipped delete markers included.
    pub committed: usize,
    /// How many of them became dead letters.
    pub dead_letters: usize,
    /// How many of them were dropped because no route takes them and `unmatched` is `drop`.
    pub unmatched_dropped: usize,
    /// How many of them were delete markers that were skipped.
    pub markers_skipped: usize,
    /// Events on subjects that `broker.subjects` does not take. A collector would not receive them, so they were skipped.
    pub not_collected: usize,
}

const BEFORE: &str = "before.db";
const NOW: &str = "test.db";

impl TestDatabase {
    /// Makes an empty database, applies the configuration's migrations, and prepares its routes and queries. Of the files that the
    /// configuration names, it reads only the migrations. Blocks as long as it takes to make a small file.
    ///
    /// # Errors
    ///
    /// The errors with which a collector with an empty database would not start, except those of the broker: [`Error::Config`],
    /// [`Error::Migration`], [`Error::Database`], [`Error::Thread`].
    pub fn new(config: &Config) -> Result<Self, Error> {
        Self::new_while(config, &|| true)
    }

    /// Like [`TestDatabase::new`]. While it applies migrations, it calls `keep_going` several times a second and gives up as soon as that
    /// returns `false`.
    ///
    /// # Errors
    ///
    /// As [`TestDatabase::new`]. With [`DatabaseFault::Interrupted`] where `keep_going` returned `false`.
    pub(crate) fn new_while(config: &Config, keep_going: &dyn Fn() -> bool) -> Result<Self, Error> {
        Self::begin(config, keep_going, |_| Ok(()))
    }

    /// Like [`TestDatabase::new`], but starts with the tables of the configuration's database, without their rows. Migrations that
    /// are new to that database are applied to the copy. The database itself is only read.
    ///
    /// # Errors
    ///
    /// As [`TestDatabase::new`].
    pub fn on_tables_of(config: &Config) -> Result<Self, Error> {
        Self::begin(config, &|| true, |database| copy_schema(&config.database.path, database))
    }

    fn begin(
        config: &Config,
        keep_going: &dyn Fn() -> bool,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let config = config.resolved()?;
        config.validate()?;
        let folder = temporary_folder(&config.database.path)?;
        let path = folder.path().join(NOW);
        make(&path)?;
        let database = DatabaseConfig { path: path.clone(), writers: 1, ..config.database.clone() };
        // An error names the configuration's database: the temporary file no longer exists when the error is read.
        let named = |error| with_path(error, &config.database.path);
        let routes = Routes::of(&config)?;
        let (database, queries) =
            Database::open_while(&database, &routes, &config.queries, keep_going).map_err(named)?;
        let before = folder.path().join(BEFORE);
        Editor::open(&path)?.run(&format!("VACUUM INTO '{}'", before.display().to_string().replace('\'', "''")))?;
        let (max_events, max_bytes) = (config.batch.max_events, config.batch.max_bytes.as_u64());
        let limits = Limits { events: max_events, bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX) };
        let epoch = match config.broker.mode {
            Mode::Jetstream => Epoch::new(&config.broker.stream, 1, "a test"),
            Mode::Core => database.begin_local()?,
        };
        let writer = database.writers().pop();
        Ok(Self {
            folder,
            subjects: filters(config.broker.filters().iter())?,
            query_subjects: filters(config.queries.iter().map(|query| &query.subject))?,
            queries: QueryRunner::new(&queries, &Signal::default()),
            writer: writer.ok_or_else(|| Error::config("database.writers", "is 0; at least 1"))?,
            batch: Batch::new(limits),
            epoch: Arc::new(epoch),
            last: Mark::START,
        })
    }

    /// Commits these events, with the current time as their publish time. Blocks until they are committed.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for an event that cannot be published; the events before it are committed. [`Error::Database`] for
    /// everything that would stop a collector.
    pub fn run(&mut self, events: impl IntoIterator<Item = Event>) -> Result<Outcome, Error> {
        self.run_at(events.into_iter().map(|event| (event, SystemTime::now())))
    }

    /// Like [`TestDatabase::run`], with a publish time for each event, for `:published_s` and `:published_us`.
    ///
    /// # Errors
    ///
    /// As [`TestDatabase::run`].
    pub fn run_at(&mut self, events: impl IntoIterator<Item = (Event, SystemTime)>) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        for (event, published) in events {
            if let Err(invalid) = event.validate() {
                self.commit(&mut outcome)?;
                return Err(Error::config("event", invalid.to_string()));
            }
            if !self.subjects.iter().any(|filter| filter.matches(event.subject())) {
                outcome.not_collected += 1;
                continue;
            }
            if self.batch.is_full() || !self.batch.has_room_for(event.size()) {
                self.commit(&mut outcome)?;
            }
            self.push(&event, published);
        }
        self.commit(&mut outcome)?;
        Ok(outcome)
    }

    /// Commits messages of a stream, in their order. A message whose headers cannot be read is left out.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] for everything that would stop a collector.
    pub(crate) fn run_messages(&mut self, messages: &[StreamMessage]) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        for message in messages {
            let Ok(headers) = &message.headers else { continue };
            if !self.subjects.iter().any(|filter| filter.matches(&message.subject)) {
                outcome.not_collected += 1;
                continue;
            }
            let size = message.subject.len()
                + message.payload.len()
                + headers.iter().map(|(name, value)| name.len() + value.len() + Batch::HEADER).sum::<usize>();
            if self.batch.is_full() || !self.batch.has_room_for(size) {
                self.commit(&mut outcome)?;
            }
            if self.batch.is_empty() {
                self.batch.begin(Arc::clone(&self.epoch), self.last);
            }
            // The stream's own sequence, if it goes on from there.
            let sequence = message.sequence.max(self.last.sequence + 1);
            self.last = Mark { sequence, published_ns: message.published_ns };
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            self.batch.push(self.last, &message.subject, headers, &message.payload);
        }
        self.commit(&mut outcome)?;
        Ok(outcome)
    }

    /// Checks `[retention]` against the tables. Returns the statements for missing indexes, with the tables as the settings name them.
    #[cfg(feature = "check")]
    pub(crate) fn check_retention(&self, config: &Config) -> Result<Vec<(String, String)>, Error> {
        crate::store::check_retention(&self.path(), &config.database.path, &config.retention)
    }

    /// The subjects whose events are collected.
    pub(crate) fn subjects(&self) -> &[Filter] {
        &self.subjects
    }

    fn push(&mut self, event: &Event, published: SystemTime) {
        if self.batch.is_empty() {
            self.batch.begin(Arc::clone(&self.epoch), self.last);
        }
        self.last = Mark { sequence: self.last.sequence + 1, published_ns: nanoseconds(published) };
        self.batch.push(self.last, event.subject(), event.all_headers(), event.payload());
    }

    fn commit(&mut self, outcome: &mut Outcome) -> Result<(), Error> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.writer.prepare(&self.batch);
        let committed = self.writer.commit(&self.batch).map_err(|refusal| match refusal {
            Refusal::Fatal(error) => error,
            Refusal::Closed => Error::config("database", "is closed"),
            Refusal::Retry(problem) => problem.at(self.path()),
        })?;
        outcome.committed += self.batch.len();
        outcome.dead_letters += committed.dead_letters;
        outcome.unmatched_dropped += committed.unmatched_dropped;
        outcome.markers_skipped += committed.markers_skipped;
        self.batch.clear();
        Ok(())
    }

    /// The rows that your own, read-only SQL returns, in its order. Blocks while the SQL runs, and holds all rows in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] for SQL that is wrong or that writes.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<Value>>, Error> {
        let mut rows = Vec::new();
        let _: Option<()> = Reader::open(&self.path())?.run(sql, |answer| {
            if let StatementOutput::Row(row) = answer {
                rows.push(row);
            }
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    /// The answer of the configuration's query with this subject, to a request that is received now: a JSON array of its rows. The
    /// request has no headers. Blocks while the statement runs, at most for about the query's `timeout`.
    ///
    /// # Errors
    ///
    /// [`QueryError`]; of kind [`QueryErrorKind::Request`] if no query has this subject.
    pub fn ask(&mut self, subject: &str, request: &[u8]) -> Result<String, QueryError> {
        let Some(query) = self.query_subjects.iter().position(|filter| filter.matches(subject)) else {
            let detail = format!("no query has the subject {subject}");
            return Err(QueryError::new(QueryErrorKind::Request, detail));
        };
        let mark = Mark { sequence: 0, published_ns: now_ns() };
        let event = SingleEvent::new(mark, subject, [], request);
        let mut answer = Vec::new();
        self.queries.answer(query, &Envelope::of(&event.delivery(), None), usize::MAX, &mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// All dead letters, oldest first. Holds them all in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] if they cannot be read.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, Error> {
        DeadLetters::open(self.path())?.list(&Selection::default())?.collect()
    }

    /// The rows that were added or changed since this was made, table by table. Holds them all in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] if the tables cannot be read.
    pub fn changes(&self) -> Result<Vec<TableChange>, Error> {
        changes(&self.folder.path().join(BEFORE), &self.path())
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(NOW)
    }
}

/// A folder in the system's temporary folder. Where that cannot be written, as in a container with a read-only root, a folder beside
/// the database.
fn temporary_folder(database: &Path) -> Result<TempDir, Error> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("catchment-test-");
    let beside = folder_of(database);
    builder.tempdir().or_else(|error| builder.tempdir_in(beside).map_err(|_| error)).map_err(|source| Error::Database {
        fault: DatabaseFault::Unwritable,
        path: std::env::temp_dir(),
        detail: format!("no temporary database can be made: {source}"),
        remedy: Some("set TMPDIR to a directory that can be written".into()),
        source: Some(Box::new(source)),
    })
}

/// The error with this path, where it is about a statement or the tables.
fn with_path(error: Error, database: &Path) -> Error {
    match error {
        Error::Database {
            fault: fault @ (DatabaseFault::Statement | DatabaseFault::Schema),
            detail,
            remedy,
            source,
            ..
        } => Error::Database { fault, path: database.to_owned(), detail, remedy, source },
        other => other,
    }
}

fn filters<'s>(subjects: impl Iterator<Item = &'s String>) -> Result<Vec<Filter>, Error> {
    let parse =
        |subject: &String| subject.parse().map_err(|error: InvalidSubject| Error::config("subject", error.to_string()));
    subjects.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use bytesize::ByteSize;

    use super::*;
    use crate::config::{QueryConfig, RouteConfig, Unmatched};

    fn config(folder: &Path) -> Config {
        let tables = "CREATE TABLE counted(word TEXT PRIMARY KEY, times INTEGER, last INTEGER) STRICT;
                      INSERT INTO counted VALUES ('seed', 7, 0);";
        std::fs::write(folder.join("001_tables.sql"), tables).expect("writes");
        let sql = "INSERT INTO counted(word, times, last) VALUES (:word, 1, :published_s)
                   ON CONFLICT(word) DO UPDATE SET times = times + 1, last = excluded.last";
        let route = RouteConfig { subject: "said.*".into(), sql: vec![sql.into()], ..RouteConfig::default() };
        let mut config = Config { routes: vec![route], ..Config::default() };
        config.broker.subjects = vec!["said.*".into(), "other".into()];
        config.database.migrations = Some(folder.into());
        config.database.path = folder.join("never-made.db");
        config
    }

    fn said(word: &str) -> Event {
        Event::new("said.x", format!("{{\"word\":{word}}}"))
    }

    #[test]
    fn changes_and_dead_letters_are_returned() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(folder.path());
        // Several batches. The last event of a batch depends on the ones before.
        config.batch.max_events = 2;
        config.batch.max_bytes = ByteSize::b(40);
        let mut database = TestDatabase::new(&config).expect("begins");
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let events = ["\"a\"", "\"b\"", "\"a\"", "null}", "\"a\""].map(|word| (said(word), at));
        let outcome = database.run_at(events).expect("runs");
        assert_eq!(outcome, Outcome { committed: 5, dead_letters: 1, ..Outcome::default() });
        let [changed] = &database.changes().expect("reads")[..] else { panic!("one table") };
        assert_eq!((changed.table.as_str(), changed.deleted), ("counted", 0));
        let last = || Value::Integer(1_700_000_000);
        assert_eq!(changed.rows, [["a".into(), 3.into(), last()], ["b".into(), 1.into(), last()]]);
        let letters = database.dead_letters().expect("reads");
        assert_eq!((letters.len(), letters[0].sequence, letters[0].route.as_deref()), (1, Some(4), Some("said.*")));
        assert!(!config.database.path.exists());
    }

    #[test]
    fn events_that_go_nowhere_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Config { unmatched: Unmatched::Drop, ..config(folder.path()) };
        let mut database = TestDatabase::new(&config).expect("begins");
        let outcome = database.run([Event::new("other", ""), Event::new("elsewhere", "")]).expect("runs");
        assert_eq!(outcome, Outcome { committed: 1, unmatched_dropped: 1, not_collected: 1, ..Outcome::default() });
        assert_eq!(database.changes().expect("reads"), []);
        let refused = database.run([said("1"), Event::new("said.*", "")]).expect_err("no subject").to_string();
        assert!(refused.contains("has a wildcard"), "{refused}");
        assert_eq!(database.rows("SELECT word FROM counted WHERE times = 1").expect("reads"), [["1".into()]]);
    }

    #[test]
    fn queries_answer_from_what_was_committed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(folder.path());
        config.queries = vec![QueryConfig::new("words.*", "SELECT times FROM counted WHERE word = :word")];
        let mut database = TestDatabase::new(&config).expect("begins");
        assert_eq!(database.ask("words.x", br#"{"word":"a"}"#).expect("rows"), "[]");
        database.run([said("\"a\"")]).expect("runs");
        assert_eq!(database.ask("words.x", br#"{"word":"a"}"#).expect("rows"), "[{\"times\":1}]");
        assert_eq!(database.ask("words.x", b"{").expect_err("broken").kind(), QueryErrorKind::Request);
        assert!(
            database.ask("other", b"").expect_err("no query").to_string().contains("no query has the subject other")
        );
    }

    #[test]
    fn a_configuration_that_cannot_collect_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(folder.path());
        config.routes[0].sql[0] = "INSERT INTO gone VALUES (1)".into();
        let refused = TestDatabase::new(&config).expect_err("no such table").to_string();
        assert!(
            refused.starts_with(&format!("database {}: route said.*", config.database.path.display())),
            "{refused}"
        );
        assert!(refused.contains("route said.*") && refused.contains("no such table: gone"), "{refused}");
    }
}
