//! The database, and how many events share a transaction: `[database]` and `[batch]`.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use serde::de::{Deserializer, Unexpected, Visitor};

use super::limits::{MAX_EVENTS, validate_duration};
use super::migrations::Migrations;
use crate::error::Error;

/// The shortest and the longest time after which a recorder is forgotten.
const FORGETTING: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(100 * 366 * 86_400);

/// The database: `[database]`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DatabaseConfig {
    /// The file. It is created if absent; its directory must exist. Default `catchment.db`.
    pub path: PathBuf,
    /// How durable a commit is. Default `full`.
    pub synchronous: Synchronous,
    /// The permissions of files that are created: the database, its `-wal` and `-shm`, the lock and address files beside it. In a file
    /// octal text, `"0640"` for instance. Only reading and writing can be permitted, and the owner must have both. Files that exist keep
    /// theirs. Default 0o600: only the owner.
    #[serde(deserialize_with = "octal")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Permissions"))]
    pub permissions: u32,
    /// Who copies committed pages from the `-wal` file into the database. Default `auto`.
    pub checkpoint: Checkpoints,
    /// Writer threads, 1 to 64. They prepare batches in parallel and commit them in turn. Default 1, measured fastest on two
    /// cores: SQLite commits one transaction at a time.
    pub writers: usize,
    /// How long one try waits for another process that holds the database's write lock. A batch is tried again without
    /// end. Up to a day. Default 1 s.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub busy_timeout: Duration,
    /// How long after its last event a recorder is remembered. As long as it is, an event that it sends again is stored once
    /// ([`Identity`](crate::record::Identity)). A recorder takes some 60 bytes, and each start of an application is a new one. From a
    /// minute to 100 years. Default 30 days.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub forget_recorders: Duration,
    /// A folder of SQL files that create the tables for routes and queries, or such files in the program itself: [`Migrations`].
    /// Default none.
    ///
    /// A file's name is a number, `_` or `-`, a name, and `.sql`: `001_lines.sql`, `0002-users.sql`. Files that end in `.down.sql` are
    /// passed over: nothing is undone. Any other name that ends in `.sql` is refused. The new files are applied by a
    /// [`Collector`](crate::Collector) and a [`DirectRecorder`](crate::DirectRecorder) when they open the database, by a retry of
    /// dead letters, and by the commands that do these (`catchment run`, `catchment dead-letters retry`). They are applied in the
    /// order of their numbers, all in one transaction: either all are applied or none. None is applied if a route or query does
    /// not fit the resulting tables. An applied file must not change, except for its name, its line ends and a byte order mark; later
    /// changes go into a new file with a higher number.
    ///
    /// Foreign keys are off meanwhile and checked after the last file, so a table can be replaced under its old name.
    /// `BEGIN`, `ATTACH`, PRAGMAs (but `user_version` and `application_id`) and changes to tables that begin with `catchment_`
    /// are refused.
    ///
    /// A relative path counts from the current directory, as all paths here do.
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub migrations: Option<Migrations>,
}

/// SQLite's `PRAGMA synchronous` in WAL mode, see <https://sqlite.org/pragma.html#pragma_synchronous>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Synchronous {
    /// A commit is on the disk when it returns.
    #[default]
    Full,
    /// A power cut may lose the last commits; the database stays intact. A collector reads the lost events again from the stream:
    /// their ledger entries are lost with them. In mode `core` and with a direct recorder, these events are lost for good.
    Normal,
}

/// Who copies committed pages from the `-wal` file into the database (<https://sqlite.org/wal.html#ckpt>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Checkpoints {
    /// Catchment does.
    #[default]
    Auto,
    /// Another program does, for example Litestream, which must read every page from the `-wal` file before that is used again. Catchment
    /// never runs a checkpoint, not even when it closes the database. While that program does not run, the file grows without a bound.
    External,
}

/// How many events one transaction commits: `[batch]`. A batch waits for more events only if `linger` is set. Batches grow
/// while the database is busy.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct BatchConfig {
    /// The most events of a batch, 1 to 1,000,000. Default 5,000.
    pub max_events: usize,
    /// The most bytes of a batch, up to 1 GiB; a single larger event is a batch of its own. Default 1 MiB.
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Size"))]
    pub max_bytes: ByteSize,
    /// How long a batch that is not full waits for more events. Up to 60 s. Default 0.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub linger: Duration,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            path: "catchment.db".into(),
            permissions: 0o600,
            synchronous: Synchronous::Full,
            checkpoint: Checkpoints::Auto,
            writers: 1,
            busy_timeout: Duration::from_secs(1),
            forget_recorders: Duration::from_secs(30 * 86_400),
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
    /// Checks the settings without opening a file.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if !(1..=64).contains(&self.writers) {
            return Err(Error::config("database.writers", format!("is {}; from 1 to 64", self.writers)));
        }
        if self.permissions & !0o666 != 0 || self.permissions & 0o600 != 0o600 {
            let detail = format!("is {:04o}; the owner must read and write, and nobody executes", self.permissions);
            return Err(
                Error::config("database.permissions", detail).with_remedy("give for example 0600, 0640 or 0660")
            );
        }
        validate_duration("database.busy_timeout", self.busy_timeout)?;
        if !FORGETTING.contains(&self.forget_recorders) {
            let detail = format!("is {:?}; from a minute to 100 years", self.forget_recorders);
            return Err(Error::config("database.forget_recorders", detail));
        }
        validate_database_path(&self.path)?;
        let refused = |detail, remedy| Err(Error::config("database.migrations", detail).with_remedy(remedy));
        match &self.migrations {
            Some(Migrations::Folder(folder)) if folder.as_os_str().is_empty() => {
                refused("is empty", "give a folder, or remove the setting")
            }
            Some(Migrations::Scripts(scripts)) if scripts.is_empty() => {
                refused("has no script", "give one, as 001_tables.sql, or None")
            }
            _ => Ok(()),
        }
    }
}

/// Reads permissions, `"0600"`. A number is refused: TOML would take 600 for a decimal one.
fn octal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    struct Octal;
    impl Visitor<'_> for Octal {
        type Value = u32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("permissions, as \"0600\"")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u32, E> {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            let is_octal =
                (3..=5).contains(&digits.len()) && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
            let refused = || E::invalid_value(Unexpected::Str(text), &self);
            u32::from_str_radix(digits, 8).ok().filter(|_| is_octal).ok_or_else(refused)
        }
    }
    deserializer.deserialize_str(Octal)
}

/// Refuses what SQLite would not take as a file's path: a URI, an in-memory or temporary database.
pub(crate) fn validate_database_path(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    let (detail, remedy) = if path.as_os_str().is_empty() {
        ("is empty".into(), "give a file, as catchment.db".into())
    } else if path.as_os_str().as_encoded_bytes().starts_with(b"file:") {
        (format!("{shown} is a URI"), format!("give the file's path (./{shown} for a file of this name)"))
    } else if path.as_os_str() == ":memory:" {
        (format!("{shown} is not a file"), format!("give a path (./{shown} for a file of this name)"))
    } else {
        return Ok(());
    };
    Err(Error::config("database.path", detail).with_remedy(remedy))
}

impl BatchConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if !(1..=MAX_EVENTS).contains(&self.max_events) {
            let detail = format!("is {}; from 1 to {MAX_EVENTS}", self.max_events);
            return Err(Error::config("batch.max_events", detail));
        }
        if self.linger > MAX_LINGER {
            let detail = format!("is {:?}; the most is {MAX_LINGER:?}", self.linger);
            return Err(Error::config("batch.linger", detail));
        }
        if !(1..=1 << 30).contains(&self.max_bytes.as_u64()) {
            return Err(Error::config("batch.max_bytes", format!("is {}; from 1 B to 1 GiB", self.max_bytes)));
        }
        Ok(())
    }
}

/// The longest `linger`: far below the time after which a stream redelivers unacknowledged events.
const MAX_LINGER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_that_lock_the_owner_out_or_are_no_permissions_are_refused() {
        for (permissions, fits) in [
            (0o600, true),
            (0o640, true),
            (0o666, true),
            (0o400, false),
            (0o060, false),
            (0o700, false),
            (0o1600, false),
            (0, false),
        ] {
            let config = DatabaseConfig { permissions, ..DatabaseConfig::default() };
            assert_eq!(config.validate().is_ok(), fits, "{permissions:o}");
        }
    }
}
