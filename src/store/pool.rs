//! The connections that write: opened through `r2d2_sqlite`, and dropped after an error that leaves their state unclear.

use std::sync::Arc;
use std::time::{Duration, Instant};

use r2d2::ManageConnection;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::limits;
use super::quoted_names::names_only;
use super::routes::authorizer::Authorizer;
use super::routes::budget::Budget;
use super::temp_store::use_memory;
use super::wal_frames;
use crate::config::{Checkpoints, DatabaseConfig, Synchronous};

/// Room in the statement cache for catchment's own statements.
const OWN_STATEMENTS: usize = 16;

/// The pool's manager: opens connections, and reports the broken ones to the pool.
#[derive(Clone, Debug)]
pub(super) struct ConnectionManager(Arc<SqliteConnectionManager>);

/// A connection that writes, with the authorizer and the budget of route statements.
#[derive(Debug)]
pub(super) struct WriteConnection {
    pub(super) sqlite: Connection,
    pub(super) authorizer: Authorizer,
    pub(super) budget: Budget,
    /// Set after an error that leaves the connection's state unclear; the pool then drops it. `r2d2_sqlite` alone never does.
    pub(super) is_broken: bool,
}

impl ConnectionManager {
    /// Each connection caches so many statements besides catchment's own.
    pub(super) fn new(config: &DatabaseConfig, statements: usize) -> Self {
        let busy_timeout = config.busy_timeout;
        let synchronous = match config.synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        };
        let is_external = config.checkpoint == Checkpoints::External;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let manager = SqliteConnectionManager::file(&config.path).with_flags(flags).with_init(move |connection| {
            connection.busy_timeout(busy_timeout)?;
            give_pages_back_later(connection)?;
            into_wal(connection, busy_timeout)?;
            connection.pragma_update(None, "synchronous", synchronous)?;
            connection.pragma_update(None, "foreign_keys", true)?;
            use_memory(connection)?;
            // For connections without a checkpointer: few large checkpoints, because each costs a sync of the database file. 4,000
            // pages are 16 MiB of WAL.
            connection.pragma_update(None, "wal_autocheckpoint", if is_external { 0 } else { 4_000 })?;
            if is_external {
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            }
            connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
            connection.set_prepared_statement_cache_capacity(OWN_STATEMENTS + statements);
            names_only(connection)?;
            limits::set(connection)?;
            Ok(())
        });
        Self(Arc::new(manager))
    }
}

/// Chooses `auto_vacuum = incremental` for a file that is still empty: later, only a `VACUUM` could
/// (<https://sqlite.org/pragma.html#pragma_auto_vacuum>).
fn give_pages_back_later(connection: &Connection) -> rusqlite::Result<()> {
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages > 0 {
        return Ok(());
    }
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")
}

/// Sets WAL mode. When several connections open a new file at once, SQLite returns busy here without waiting, so this waits.
pub(super) fn into_wal(connection: &Connection, timeout: Duration) -> rusqlite::Result<()> {
    let until = Instant::now() + timeout;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

impl ConnectionManager {
    /// A connection outside the pool: for long use, or while the writers may use all of the pool's.
    pub(super) fn open(&self) -> Result<WriteConnection, rusqlite::Error> {
        let sqlite = self.0.connect()?;
        let (authorizer, budget) = (Authorizer::of(&sqlite)?, Budget::of(&sqlite)?);
        Ok(WriteConnection { sqlite, authorizer, budget, is_broken: false })
    }

    /// A connection whose commits are counted for a [`Checkpointer`](super::checkpointer::Checkpointer), and run no checkpoint.
    pub(super) fn open_counted(&self) -> Result<WriteConnection, rusqlite::Error> {
        let connection = self.open()?;
        wal_frames::count(&connection.sqlite);
        Ok(connection)
    }

    /// A connection that runs no statement of a route.
    pub(super) fn open_plain(&self) -> Result<Connection, rusqlite::Error> {
        self.0.connect()
    }
}

impl WriteConnection {
    /// Makes room in the statement cache for so many statements besides catchment's own.
    pub(super) fn cache_statements(&self, statements: usize) {
        self.sqlite.set_prepared_statement_cache_capacity(OWN_STATEMENTS + statements);
    }
}

impl ManageConnection for ConnectionManager {
    type Connection = WriteConnection;
    type Error = rusqlite::Error;

    fn connect(&self) -> Result<WriteConnection, rusqlite::Error> {
        self.open_counted()
    }

    fn is_valid(&self, connection: &mut WriteConnection) -> Result<(), rusqlite::Error> {
        self.0.is_valid(&mut connection.sqlite)
    }

    fn has_broken(&self, connection: &mut WriteConnection) -> bool {
        connection.is_broken
    }
}
