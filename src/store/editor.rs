//! Runs any SQL on a database: to prepare one before a collector opens it, and to disturb a collector in tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::quoted_names::names_only;
use super::sqlite_error::database_error;
use super::temp_store::use_files_if_possible;
use crate::error::Error;

/// A connection that runs any statement. Dropping it rolls an open transaction back.
#[derive(Debug)]
pub struct Editor {
    path: PathBuf,
    connection: Connection,
}

impl Editor {
    /// Opens the file. Creates it if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let open = || {
            let connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            use_files_if_possible(&connection)?;
            names_only(&connection)?;
            Ok(connection)
        };
        Ok(Self { path: path.to_owned(), connection: open().map_err(|e| database_error(path, e))? })
    }

    /// Runs the statements in turn; waits up to 5 seconds for another writer. Rows that they return are ignored.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] for the first that fails.
    pub fn run(&self, sql: &str) -> Result<(), Error> {
        self.connection.execute_batch(sql).map_err(|e| database_error(&self.path, e))
    }
}
