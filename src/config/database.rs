//! The database, and how many events share a transaction.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::{MOST_EVENTS, validate_longest};
use crate::error::Error;

/// The database.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// The file. Default `catchment.db`. It is created if absent; the directory must exist.
    pub path: PathBuf,
    /// When a commit counts as done. Default `full`.
    pub synchronous: Synchronous,
    /// Writer threads. They prepare batches side by side and commit them in turn. Default 1: measured fastest on two
    /// cores, for SQLite commits one transaction at a time.
    pub writers: usize,
    /// How long one try waits for another process that holds the database's write lock. A batch is tried again for as
    /// long as it takes. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub busy_timeout: Duration,
    /// A folder of SQL files that make the tables which routes and queries use. Default none.
    ///
    /// `001_lines.sql`, `0002-users.sql`: a number, `_` or `-`, a name. Whoever opens the database to write applies those that
    /// are new to it in the order of their numbers, all in one transaction: either each of them or none. None is applied where
    /// a route or query does not fit the tables that they make. One that was applied stays as it is, but for its name and line ends; what is to change goes into a new file with a higher number.
    ///
    /// Foreign keys are off meanwhile and checked behind the last, so that a table can be made anew under its old name.
    /// `BEGIN`, `ATTACH`, PRAGMAs (but `user_version` and `application_id`) and changes to tables that begin with `catchment_`
    /// are refused.
    ///
    /// A relative path counts from the current directory, as every path here.
    pub migrations: Option<PathBuf>,
}

/// SQLite's `PRAGMA synchronous` in WAL mode, see <https://sqlite.org/pragma.html#pragma_synchronous>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// Every commit is on the disk when it returns.
    #[default]
    Full,
    /// The last commits may be lost when the power goes, the database never corrupts. They are still in the stream, but
    /// the ledger is lost with them, so they are read again.
    Normal,
}

/// How many events one transaction commits. Batches are never waited for unless `linger` says so: they grow by
/// themselves while the database is busy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// At most this many events. Default 5,000.
    pub max_events: usize,
    /// At most this many bytes, unless a single event is larger. Default 1 MiB.
    pub max_bytes: ByteSize,
    /// Wait this long for more before committing a batch that is not full. Default 0.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            path: "catchment.db".into(),
            synchronous: Synchronous::Full,
            writers: 1,
            busy_timeout: Duration::from_secs(1),
            migrations: None,
        }
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_events: 5_000, max_bytes: ByteSize::mib(1), linger: Duration::ZERO }
    }
}

impl DatabaseConfig {
    /// Checks every setting by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        if !(1..=64).contains(&self.writers) {
            return Err(Error::config("database.writers", format!("is {}; from 1 to 64", self.writers)));
        }
        validate_longest("database.busy_timeout", self.busy_timeout)?;
        validate_database_path(&self.path)?;
        if self.migrations.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            return Err(Error::config("database.migrations", "is empty; give a folder, or take the setting out"));
        }
        Ok(())
    }
}

/// A path is a path: what SQLite would take for something else is refused by name.
pub(crate) fn validate_database_path(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    let reason = if path.as_os_str().is_empty() {
        "is empty; give a file, as catchment.db".into()
    } else if path.as_os_str().as_encoded_bytes().starts_with(b"file:") {
        format!("{shown} is a URI; give the file's path (./{shown} for a file of this name)")
    } else if path.as_os_str() == ":memory:" {
        format!("{shown} is no file; give a path (./{shown} for a file of this name)")
    } else {
        return Ok(());
    };
    Err(Error::config("database.path", reason))
}

impl BatchConfig {
    /// Checks every setting by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        if !(1..=MOST_EVENTS).contains(&self.max_events) {
            let reason = format!("is {}; from 1 to {MOST_EVENTS}", self.max_events);
            return Err(Error::config("batch.max_events", reason));
        }
        if self.linger > LONGEST_LINGER {
            let reason = format!("is {:?}; the most is {LONGEST_LINGER:?}", self.linger);
            return Err(Error::config("batch.linger", reason));
        }
        if !(1..=1 << 30).contains(&self.max_bytes.as_u64()) {
            return Err(Error::config("batch.max_bytes", format!("is {}; from 1 B to 1 GiB", self.max_bytes)));
        }
        Ok(())
    }
}

/// The longest that a batch may wait for more events: far below the time after which a stream delivers again what was not
/// acknowledged.
const LONGEST_LINGER: Duration = Duration::from_secs(60);
