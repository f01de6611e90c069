//! Statements that write, by hand: to set a database up before a collector opens it, and to be in its way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::sqlite_error::database_error;
use super::temp_store::keep_where_there_is_room;
use crate::error::Error;

/// A connection that runs any statement. What it begins and does not end is undone when it is dropped.
#[derive(Debug)]
pub struct Editor {
    path: PathBuf,
    connection: Connection,
}

impl Editor {
    /// Opens the file, which is created where it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let open = || {
            let connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            keep_where_there_is_room(&connection)?;
            Ok(connection)
        };
        Ok(Self { path: path.to_owned(), connection: open().map_err(|e| database_error(path, e))? })
    }

    /// Runs the statements in turn; waits up to 5 seconds for another writer. Rows that they answer are passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with the first that fails.
    pub fn run(&self, sql: &str) -> Result<(), Error> {
        self.connection.execute_batch(sql).map_err(|e| database_error(&self.path, e))
    }
}
