//! The database file: opened, checked, its connections pooled.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::dead_letters::{Retried, Retry, Selection, UnreadableHeaders};
use super::failure::database_error;
use super::file::File;
use super::home::Home;
use super::ledger;
use super::migrations;
use super::pool::Manager;
use super::routes::Routes;
use super::routes::plan::Plan;
use super::schema::{self, Schema};
use super::single::Single;
use super::writer::Writer;
use crate::config::DatabaseConfig;
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Epoch, Position};

/// The first version without the WAL-reset bug, which several connections that write and checkpoint can run into:
/// <https://sqlite.org/releaselog/3_51_3.html>.
const SOUND_SQLITE: i32 = 3_051_003;

/// Databases up to this size are checked whole when they are opened; it takes a tenth of a second at most.
const CHECKED_WHOLE: u64 = 16 << 20;

/// An open database with its pool of connections.
#[derive(Clone, Debug)]
pub struct Database {
    file: File,
    identity: String,
    pool: r2d2::Pool<Manager>,
    pub(super) plan: Arc<Plan>,
    writers: usize,
}

impl Database {
    /// Opens the file, creates it and catchment's own tables if they are absent, applies the migrations that are new to it,
    /// prepares the statements of all routes, and commits a first small write, so that what would hinder the first batch is
    /// said now. Blocks for `busy_timeout` where another process writes.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: not to be opened, locked, full, damaged, or of a later version of catchment; with
    /// [`DatabaseFault::Statement`] and the name of the route, the number of the statement and the place in it, SQL that
    /// cannot be run. [`Error::Migration`]: one fails, or is not as it was when it was applied; none of the new ones was
    /// applied. [`Error::Config`] for parameters that cannot be bound.
    pub fn open(config: &DatabaseConfig, routes: &Routes) -> Result<Self, Error> {
        let path = &config.path;
        if rusqlite::version_number() < SOUND_SQLITE {
            return Err(refused(
                path,
                DatabaseFault::Other,
                format!(
                    "SQLite {} can corrupt a database under several writers; build with 3.51.3 or later",
                    rusqlite::version()
                ),
            ));
        }
        // One connection by itself first: a pool would answer any trouble with a time-out.
        let manager = Manager::new(config, routes.statements());
        let mut first = r2d2::ManageConnection::connect(&manager).map_err(|e| database_error(path, e))?;
        let schema = schema::ensure(&mut first.sqlite).map_err(|e| database_error(path, e))?;
        let identity = match schema {
            Schema::Known { identity } => identity,
            Schema::Later(version) => {
                return Err(refused(path, DatabaseFault::Schema, schema::later(version)));
            }
        };
        check(&first.sqlite, path)?;
        migrations::apply(config)?;
        let plan = Arc::new(Plan::new(path, routes, &first)?);
        first
            .sqlite
            .execute(
                "INSERT INTO catchment_meta(key, value) VALUES ('opened', datetime('now'))
                 ON CONFLICT(key) DO UPDATE SET value = excluded.value",
                [],
            )
            .map_err(|e| database_error(path, e))?;
        let pool = r2d2::Pool::builder()
            .max_size(u32::try_from(config.writers).unwrap_or(1))
            .min_idle(Some(0))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_on_check_out(false)
            .connection_timeout(Duration::from_secs(1))
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build(manager)
            .map_err(|e| refused(path, DatabaseFault::Other, e.to_string()))?;
        Ok(Self { file: File::at(path), identity, pool, plan, writers: config.writers })
    }

    /// Names this database to a broker: sixteen hexadecimal digits, the same in every copy of it.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Which file this is, and which one it was when it was last [settled](Self::settle).
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be read.
    pub fn home(&self) -> Result<Home, Error> {
        let connection = self.pool.get().map_err(|e| no_connection(self.file.path(), &e))?;
        Home::of(self.file.path(), &connection.sqlite, &self.identity).map_err(|e| database_error(self.file.path(), e))
    }

    /// Writes down that the database is at home in this file: its consumers at the broker are this file's from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be written.
    pub fn settle(&self, home: &Home) -> Result<(), Error> {
        let connection = self.pool.get().map_err(|e| no_connection(self.file.path(), &e))?;
        home.record(&connection.sqlite).map_err(|e| database_error(self.file.path(), e))
    }

    /// What a PRAGMA of this name says on the connections that write: `wal_autocheckpoint` is `4000`.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be asked.
    pub fn pragma(&self, name: &'static str) -> Result<String, Error> {
        let connection = self.pool.get().map_err(|e| no_connection(self.file.path(), &e))?;
        let text = |row: &rusqlite::Row<'_>| match row.get_ref(0)? {
            ValueRef::Integer(number) => Ok(number.to_string()),
            other => Ok(other.as_str()?.to_owned()),
        };
        let answer = connection.sqlite.pragma_query_value(None, name, text);
        answer.map_err(|e| database_error(self.file.path(), e))
    }

    /// How far a stream is committed; `None` where nothing of it ever was.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be read.
    pub fn latest(&self, stream: &str) -> Result<Option<Position>, Error> {
        let connection = self.pool.get().map_err(|e| no_connection(self.file.path(), &e))?;
        ledger::latest(&connection.sqlite, stream).map_err(|e| database_error(self.file.path(), e))
    }

    /// Begins an epoch for events that come from no stream; those of earlier starts are over.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be written.
    pub fn begin_local(&self) -> Result<Epoch, Error> {
        let connection = self.pool.get().map_err(|e| no_connection(self.file.path(), &e))?;
        ledger::begin_local(&connection.sqlite).map_err(|e| database_error(self.file.path(), e))
    }

    /// Tries dead letters again, in their order, through the routes that the database was opened with; also beside a running
    /// collector. What is stored is a dead letter no more, in the same transaction as its rows; what is refused again stays,
    /// with what was wrong this time. The ledger is left alone. `said` hears what came of it so far, after each page of up
    /// to 100.
    ///
    /// Blocks until all are tried, and for up to 10 seconds each time another process writes.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: what came of those before stands.
    pub fn retry(
        &self,
        selection: &Selection,
        unreadable: UnreadableHeaders,
        said: impl FnMut(&Retried),
    ) -> Result<Retried, Error> {
        let path = self.file.path();
        let mut pooled = self.pool.get().map_err(|e| no_connection(path, &e))?;
        let retried = Retry::new(path, &pooled, &self.plan, selection, unreadable).run(said);
        // It waits longer than the pool's others, and after an error it is in doubt.
        pooled.done_with = true;
        retried
    }

    /// Commits events one by one on the threads that bring them.
    #[must_use]
    pub fn single(&self) -> Single {
        Single::new(self.pool.clone(), self.file.clone(), Arc::clone(&self.plan))
    }

    /// The sinks of a pipeline, as many as the configuration has writers.
    #[must_use]
    pub fn writers(&self) -> Vec<Writer> {
        (0..self.writers).map(|_| Writer::new(self.pool.clone(), self.file.clone(), Arc::clone(&self.plan))).collect()
    }
}

pub(super) fn no_connection(path: &Path, error: &r2d2::Error) -> Error {
    refused(path, DatabaseFault::Other, error.to_string())
}

fn refused(path: &Path, fault: DatabaseFault, detail: String) -> Error {
    Error::Database { fault, path: path.to_owned(), detail, source: None }
}

/// Looks for damage: the whole of a small file, of a large one the ends that the next batch will touch.
fn check(connection: &Connection, path: &Path) -> Result<(), Error> {
    let on_error = |e| database_error(path, e);
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    let found: String = if size <= CHECKED_WHOLE {
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(on_error)?
    } else {
        for table in ["events", "catchment_dead_letters"] {
            let sql = format!("SELECT id FROM {table} ORDER BY id DESC LIMIT 1");
            connection.execute_batch(&sql).map_err(on_error)?;
        }
        "ok".into()
    };
    if found == "ok" {
        return Ok(());
    }
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    let found = found.replace('\n', " ");
    Err(database_error(path, rusqlite::Error::SqliteFailure(corrupt, Some(found))))
}
