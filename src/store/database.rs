//! Opens and checks a database, and gives out its writers.

mod upkeep;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthContext, Authorization};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::checkpointer::Checkpointer;
use super::commit_turn::CommitTurn;
use super::database_file::{DatabaseFile, must_have_one_name};
use super::dead_letters::{Retry, RetryReport, Selection, UnreadableHeaders};
use super::event_writer::EventWriter;
use super::file_identity::FileIdentity;
use super::importer::Importer;
use super::interrupter::{OpeningInterrupter, interrupted, work_while};
use super::ledger;
use super::migrations;
use super::new_database::{make, remove_if_unused};
use super::pool::{ConnectionManager, WriteConnection};
use super::precheck::{must_be_usable, must_be_writable, must_not_be_of_others};
use super::queries::Queries;
use super::quick_check::must_be_sound;
use super::route_switch::{ActiveRoutes, CheckedRoutes, RouteSwitch};
use super::routes::Routes;
use super::routes::authorizer::Authorizer;
use super::routes::plan::Plan;
use super::routes::route_counters::RouteCounters;
use super::schema::{self, Schema};
use super::sqlite_error::database_error;
use super::wal_frames::WalFrames;
use super::writer::Writer;
use crate::config::{DatabaseConfig, QueryConfig, RouteConfig, Unmatched};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Confirmation, Epoch, EpochProgress, room_for_threads};

/// The first version without the WAL-reset bug, which several connections that write and checkpoint can run into:
/// <https://sqlite.org/releaselog/3_51_3.html>.
const SOUND_SQLITE: i32 = 3_051_003;

/// Threads that a pool of r2d2 starts. It panics if it cannot start them.
const POOL_THREADS: usize = 3;

/// An open database with its pool of connections.
#[derive(Clone, Debug)]
pub struct Database {
    file: DatabaseFile,
    identity: String,
    /// The connections of the writers.
    pool: r2d2::Pool<ConnectionManager>,
    checkpointer: Arc<Checkpointer>,
    manager: ConnectionManager,
    pub(super) plan: Arc<Plan>,
    writers: usize,
    forget_recorders: Duration,
    permissions: u32,
    route_counters: RouteCounters,
    /// Who writes takes it.
    turn: CommitTurn,
}

impl Database {
    /// Checks that the file can be the database, before a lock file is made beside it: it is missing, empty, or a database, and not
    /// one of another program whose table `events` cannot take events. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn must_be_usable(config: &DatabaseConfig, routes: &Routes) -> Result<(), Error> {
        must_be_usable(config, routes)
    }

    /// Refuses a database that has tables of another program and none of catchment's, unless it has the tables of these routes. For
    /// commands, where the path may be a mistake: [`Database::open`] adds catchment's tables. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]; its remedy names `catchment adopt`, unless the collector could not use the database after that either.
    pub fn must_not_be_of_others(
        config: &DatabaseConfig,
        routes: &[RouteConfig],
        unmatched: Unmatched,
    ) -> Result<(), Error> {
        must_not_be_of_others(config, routes, unmatched)
    }

    /// Opens the file; creates it and catchment's own tables if they are missing; applies new migrations; prepares the statements
    /// of all routes; and commits a small write, so that a problem that would stop the first batch is reported now. Blocks for
    /// up to `busy_timeout` while another process writes.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: the file cannot be opened, is locked, full or damaged, or was made by a later version of catchment.
    /// With [`DatabaseFault::Statement`]: SQL that cannot be run; the error names the route, the number of the statement and the
    /// position in it. [`Error::Migration`]: one fails, or was changed after it was applied. [`Error::Config`]: parameters that
    /// cannot be bound. After any error none of the new migrations is applied: the routes are compiled against the migrated
    /// tables before the migrations are committed. A database that this call has made is removed again.
    pub fn open(config: &DatabaseConfig, routes: &Routes) -> Result<Self, Error> {
        Self::open_with_queries(config, routes, &[]).map(|(database, _)| database)
    }

    /// As [`Database::open`], for a collector that answers queries. They are compiled too before a migration is committed.
    ///
    /// # Errors
    ///
    /// As [`Database::open`] and [`Queries::check`].
    pub fn open_with_queries(
        config: &DatabaseConfig,
        routes: &Routes,
        queries: &[QueryConfig],
    ) -> Result<(Self, Queries), Error> {
        Self::open_interruptibly(config, routes, queries, &OpeningInterrupter::default())
    }

    /// As [`Database::open_with_queries`]. Calls `keep_going` several times a second and gives up as soon as that returns `false`.
    /// Migrations that are not complete by then are rolled back. A single step of SQLite, such as the commit, is not interrupted.
    ///
    /// # Errors
    ///
    /// As [`Database::open_with_queries`]. With [`DatabaseFault::Interrupted`] where `keep_going` returned `false`.
    pub fn open_while(
        config: &DatabaseConfig,
        routes: &Routes,
        queries: &[QueryConfig],
        keep_going: &dyn Fn() -> bool,
    ) -> Result<(Self, Queries), Error> {
        let opened =
            work_while(keep_going, |interrupter| Self::open_interruptibly(config, routes, queries, interrupter))?;
        let detail = "opening it was interrupted; unfinished migrations were rolled back";
        opened.filter(|_| keep_going()).ok_or_else(|| interrupted(&config.path, detail))
    }

    fn open_interruptibly(
        config: &DatabaseConfig,
        routes: &Routes,
        queries: &[QueryConfig],
        interrupter: &OpeningInterrupter,
    ) -> Result<(Self, Queries), Error> {
        let is_new = !config.path.exists();
        let opened = Self::open_or_make(config, routes, queries, interrupter);
        if is_new && opened.is_err() {
            remove_if_unused(&config.path);
        }
        opened
    }

    fn open_or_make(
        config: &DatabaseConfig,
        routes: &Routes,
        queries: &[QueryConfig],
        interrupter: &OpeningInterrupter,
    ) -> Result<(Self, Queries), Error> {
        let path = &config.path;
        if rusqlite::version_number() < SOUND_SQLITE {
            return Err(refused(
                path,
                DatabaseFault::Other,
                format!("SQLite {} can corrupt a database under several writers", rusqlite::version()),
            )
            .with_remedy("build with 3.51.3 or later"));
        }
        must_have_one_name(path)?;
        must_be_usable(config, routes)?;
        must_be_writable(path)?;
        make(path, config.permissions);
        // One connection is opened directly first: a pool reports every problem as a time-out.
        let manager = ConnectionManager::new(config, routes.statements());
        let mut first = manager.open().map_err(|e| database_error(path, e))?;
        interrupter.add(&first.sqlite);
        let schema = schema::ensure(&mut first.sqlite).map_err(|e| database_error(path, e))?;
        let identity = match schema {
            Schema::Known { identity } => identity,
            Schema::Later(version) => {
                return Err(schema::later_version(path, version));
            }
        };
        check(&first.sqlite, path)?;
        migrations::apply(config, interrupter, |migrated| fits(migrated, path, routes, queries))?;
        let plan = Arc::new(plan(&first, path, routes)?);
        let queries = Queries::check(path, queries)?;
        first
            .sqlite
            .execute(
                "INSERT INTO catchment_meta(key, value) VALUES ('opened', datetime('now'))
                 ON CONFLICT(key) DO UPDATE SET value = excluded.value",
                [],
            )
            .map_err(|e| database_error(path, e))?;
        room_for_threads(POOL_THREADS, "for the database's connections")?;
        let pool = r2d2::Pool::builder()
            .max_size(u32::try_from(config.writers).unwrap_or(1))
            .min_idle(Some(0))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_on_check_out(false)
            .connection_timeout(Duration::from_secs(1))
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build(manager.clone())
            .map_err(|e| Error::Database {
                fault: DatabaseFault::Other,
                path: path.clone(),
                detail: e.to_string(),
                remedy: None,
                source: Some(Box::new(e)),
            })?;
        let file = DatabaseFile::at(path);
        let checkpointer = Arc::new(Checkpointer::new(manager.clone(), file.clone(), config.checkpoint));
        Ok((
            Self {
                file,
                identity,
                pool,
                checkpointer,
                manager,
                plan,
                writers: config.writers,
                forget_recorders: config.forget_recorders,
                permissions: config.permissions,
                route_counters: RouteCounters::default(),
                turn: CommitTurn::default(),
            },
            queries,
        ))
    }

    /// The name of this database at a broker: sixteen hexadecimal digits, the same in every copy of it.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Which file this is, and which file was last [recorded](Self::record_file).
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be read.
    pub fn file_identity(&self) -> Result<FileIdentity, Error> {
        let connection = self.connect()?;
        FileIdentity::of(self.file.path(), &connection.sqlite, &self.identity)
            .map_err(|e| database_error(self.file.path(), e))
    }

    /// Records that the database is now this file: from now on its consumers at the broker belong to this file.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be written.
    pub fn record_file(&self, file: &FileIdentity) -> Result<(), Error> {
        let connection = self.connect()?;
        file.record(&connection.sqlite).map_err(|e| database_error(self.file.path(), e))
    }

    /// Removes `-wal` and `-shm` if no other connection uses the file. SQLite does that where the last connection to close can write and
    /// has read the file. The writers' connections are opened with the first commit, so there may be none.
    pub fn close_log(&self) {
        if self.pool.state().connections > 0 || self.file.was_replaced() || !self.file.path().exists() {
            return;
        }
        let read = |connection: Connection| connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
        if let Err(error) = self.manager.open_plain().and_then(read) {
            log::debug!("database {}: its log stays: {error}", self.file.path().display());
        }
    }

    /// The value of a PRAGMA on a connection that can write: `page_size` is `4096`.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be read.
    pub fn pragma(&self, name: &'static str) -> Result<String, Error> {
        let connection = self.connect()?;
        let text = |row: &rusqlite::Row<'_>| match row.get_ref(0)? {
            ValueRef::Integer(number) => Ok(number.to_string()),
            other => Ok(other.as_str()?.to_owned()),
        };
        let answer = connection.sqlite.pragma_query_value(None, name, text);
        answer.map_err(|e| database_error(self.file.path(), e))
    }

    /// How far each epoch of a stream is committed, the latest last; empty if nothing of the stream was ever committed.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be read.
    pub fn history(&self, stream: &str) -> Result<Vec<EpochProgress>, Error> {
        let connection = self.connect()?;
        ledger::history(&connection.sqlite, stream).map_err(|e| database_error(self.file.path(), e))
    }

    /// Begins an epoch for events without a stream. The epochs of earlier starts end.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be written.
    pub fn begin_local(&self) -> Result<Epoch, Error> {
        let connection = self.connect()?;
        ledger::begin_local(&connection.sqlite).map_err(|e| database_error(self.file.path(), e))
    }

    /// Tries dead letters again, in their order, through the routes that the database was opened with. A collector may run at
    /// the same time. A letter that is stored is removed in the transaction that adds its rows. A letter that is refused again
    /// stays, with its new error. The ledger is not changed. `progress` is called after each transaction, with the result so far;
    /// if it breaks, no further letter is tried.
    ///
    /// Blocks until all are tried, and for up to 10 seconds each time another process writes.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]. The pages before the error stay committed.
    pub fn retry(
        &self,
        selection: &Selection,
        unreadable: UnreadableHeaders,
        progress: impl FnMut(&RetryReport) -> ControlFlow<()>,
    ) -> Result<RetryReport, Error> {
        let path = self.file.path();
        let connection = self.connect()?;
        Retry::new(path, &connection, &self.plan, selection, unreadable).run(progress)
    }

    /// Commits the lines of a file.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when the file cannot be opened.
    pub fn importer(&self) -> Result<Importer, Error> {
        Ok(Importer::new(self.file.path(), self.connect()?, &self.plan))
    }

    /// Commits events one by one on the callers' threads, on a connection of its own.
    #[must_use]
    pub fn event_writer(&self) -> EventWriter {
        EventWriter::new(
            self.manager.clone(),
            Arc::clone(&self.checkpointer),
            self.file.clone(),
            Arc::clone(&self.plan),
        )
    }

    /// A connection outside the pool: the writers may use all of the pool's.
    pub(super) fn connect(&self) -> Result<WriteConnection, Error> {
        self.manager.open().map_err(|e| database_error(self.file.path(), e))
    }

    /// Which file it is.
    #[must_use]
    pub fn file(&self) -> &DatabaseFile {
        &self.file
    }

    /// How much of the WAL is written, and how much of it is copied into the database.
    #[must_use]
    pub fn wal(&self) -> &Arc<WalFrames> {
        self.checkpointer.wal()
    }

    /// What the writers count for each route.
    #[must_use]
    pub fn route_counters(&self) -> &RouteCounters {
        &self.route_counters
    }

    /// The sinks of a pipeline, as many as the configuration has writers.
    #[must_use]
    pub fn writers(&self) -> Vec<Writer> {
        self.writers_with(None).0
    }

    /// As [`Database::writers`]. They send a confirmation for each committed event that requests one, if its route has `reply`. What
    /// does not fit into the channel is dropped and counted. The switch replaces their routes.
    #[must_use]
    pub fn writers_with(&self, confirmations: Option<Sender<Confirmation>>) -> (Vec<Writer>, RouteSwitch) {
        let routes = ActiveRoutes::new(Arc::clone(&self.plan), confirmations);
        let writer = |_| {
            let checkpointer = Arc::clone(&self.checkpointer);
            let (pool, file, routes) = (self.pool.clone(), self.file.clone(), Arc::clone(&routes));
            let turn = self.turn.clone();
            Writer::new(pool, checkpointer, file, routes, &self.route_counters, self.forget_recorders, turn)
        };
        ((0..self.writers).map(writer).collect(), routes.switch())
    }

    /// Compiles other routes and queries against the database as it is now. Applies no migrations and changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Database::open_with_queries`]. With [`DatabaseFault::Conflict`] if the file was replaced.
    pub fn check_routes(&self, routes: &Routes, queries: &[QueryConfig]) -> Result<(CheckedRoutes, Queries), Error> {
        let path = self.file.path();
        // A connection would make a new file.
        self.file.must_be_the_same().map_err(|problem| problem.at(path))?;
        let plan = plan(&self.connect()?, path, routes)?;
        Ok((CheckedRoutes(Arc::new(plan)), Queries::check(path, queries)?))
    }
}

fn refused(path: &Path, fault: DatabaseFault, detail: String) -> Error {
    Error::database(fault, path, detail)
}

/// Compiles routes and queries against the tables that this connection sees, within the transaction that made them.
fn fits(connection: &Connection, path: &Path, routes: &Routes, queries: &[QueryConfig]) -> Result<(), Error> {
    let on_error = |e| database_error(path, e);
    // Foreign keys are off while migrations run, but a statement can be wrong because of them alone. The PRAGMA has no effect
    // within a transaction; this setting has. No statement runs before they are off again.
    let foreign_keys = |on| connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, on).map(drop);
    foreign_keys(true).map_err(on_error)?;
    let authorizer = Authorizer::of(connection).map_err(on_error)?;
    Plan::new(path, routes, connection, &authorizer)?;
    Queries::check_on(connection, path, queries)?;
    // The authorizer would refuse the COMMIT.
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(on_error)?;
    foreign_keys(false).map_err(on_error)
}

/// Compiles the routes. A connection caches the schema, and notices changes (by migrations, for instance) only when it runs a
/// statement. So one is run first.
fn plan(first: &WriteConnection, path: &Path, routes: &Routes) -> Result<Plan, Error> {
    let on_error = |e| database_error(path, e);
    let snapshot = Transaction::new_unchecked(&first.sqlite, TransactionBehavior::Deferred).map_err(on_error)?;
    snapshot.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(on_error)?;
    Plan::new(path, routes, &first.sqlite, &first.authorizer)
}

/// Looks for damage: in the whole of a small file; in a large file only at the ends, which the next batch writes.
fn check(connection: &Connection, path: &Path) -> Result<(), Error> {
    let ends = "SELECT id FROM events ORDER BY id DESC LIMIT 1; SELECT id FROM catchment_dead_letters ORDER BY id DESC LIMIT 1";
    must_be_sound(connection, path, ends).map_err(|e| database_error(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unmatched;
    use crate::store::fixture::{Fixture, route};

    #[test]
    fn nobody_waits_for_a_connection_that_another_keeps() {
        let mut fixture = Fixture::with_routes("", &[], Unmatched::Store).expect("opens");
        fixture.config.writers = 1;
        let database = fixture.open();
        let writers = [database.event_writer(), database.event_writer(), database.event_writer()];
        for _ in 0..2 {
            for event_writer in &writers {
                event_writer.commit(7_000, "a", [], b"one").expect("commits");
            }
        }
        let _busy = database.pool.get().expect("the only one");
        assert_eq!(database.history("S").expect("asks"), []);
        assert_eq!(database.pragma("wal_autocheckpoint").expect("asks"), "4000");
        database.begin_local().expect("begins");
        database.retry(&Selection::default(), UnreadableHeaders::Keep, |_| ControlFlow::Continue(())).expect("retries");
        assert_eq!(fixture.stored().len(), 6);
    }

    #[test]
    fn routes_are_compiled_against_the_current_tables() {
        let routes = [route("a", &["INSERT INTO lines VALUES (:text)"])];
        let fixture = Fixture::with_routes("CREATE TABLE lines(text)", &routes, Unmatched::Drop).expect("opens");
        let routes = Routes::new(&routes, Unmatched::Drop).expect("routes");
        let first = ConnectionManager::new(&fixture.config, 1).open().expect("opens");
        plan(&first, &fixture.config.path, &routes).expect("fits");
        fixture.connection.execute_batch("DROP TABLE lines").expect("drops");
        let error = plan(&first, &fixture.config.path, &routes).expect_err("does not fit").to_string();
        assert!(error.ends_with("route a, statement 1: no such table: lines"), "{error}");
    }
}
