//! Which file a database is, and which file it was at its last start: so a copy is told from its original.
//!
//! A copy has the identity of its original, and with it the original's consumers. So the database records its *home*: a tag of
//! the file (inode number and time of birth), its path and its machine. A rename keeps the tag; every way of copying a
//! file changes it. A clone of a whole disk does not: there only the consumers at the broker show that two are in use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Lock;
use super::database_file::must_exist;
use super::reader::read_only;
use super::schema;
use super::sqlite_error::database_error;
use crate::error::{DatabaseFault, Error};

/// Where the record is kept in `catchment_meta`.
const KEY: &str = "home";

/// Hexadecimal digits of a tag.
const DIGITS: usize = 8;

/// A database file as it is now, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Tells this file from others, copies of it included: eight hexadecimal digits.
    pub tag: String,
    /// Host and path, for people.
    pub place: String,
    /// Which file the database was at its last start.
    pub before: Before,
    /// The tag of the file whose place this one took: consumers made for that file are this one's. One that was taken over
    /// keeps its name.
    pub inherits: Option<String>,
    machine: String,
    path: PathBuf,
}

/// Which file a database was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// This one, or none: it was never collected into.
    This,
    /// Another of this machine, which is gone from there: the database was moved, or a backup took its place.
    Gone {
        /// The other's tag.
        tag: String,
    },
    /// One of another machine. Whether it is still in use cannot be seen from here.
    Elsewhere {
        /// The other's tag.
        tag: String,
        /// Its host and path.
        place: String,
    },
    /// One that is still there: this is a copy.
    There {
        /// The other's path.
        path: PathBuf,
    },
}

/// What a copy is after [`adopt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The identity it had, which it shared with its original.
    pub before: String,
    /// The identity it has.
    pub now: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    tag: String,
    host: String,
    machine: String,
    path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inherits: Option<String>,
}

impl Home {
    /// Looks at the file of this path and at what the database says of itself.
    pub(super) fn of(path: &Path, connection: &Connection, identity: &str) -> rusqlite::Result<Self> {
        let canonical = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut home = Self {
            tag: tag(path).unwrap_or_default(),
            place: place(&host(), &canonical),
            before: Before::This,
            inherits: None,
            machine: machine(),
            path: canonical,
        };
        if let Some(record) = read(connection)? {
            let inherited = record.inherits.clone();
            home.before = home.compare(record, identity);
            home.inherits = match &home.before {
                Before::This => inherited,
                Before::Gone { tag } => Some(tag.clone()),
                Before::Elsewhere { .. } | Before::There { .. } => None,
            };
        }
        Ok(home)
    }

    fn compare(&self, record: Record, identity: &str) -> Before {
        let Record { tag: before, host, machine, path, .. } = record;
        if before == self.tag {
            Before::This
        } else if path != self.path && (tag(&path) == Some(before.clone()) || has_identity(&path, identity)) {
            Before::There { path }
        } else if machine == self.machine {
            Before::Gone { tag: before }
        } else {
            Before::Elsewhere { tag: before, place: place(&host, &path) }
        }
    }

    /// Refuses a copy whose original is still there.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with [`DatabaseFault::Copy`], naming the original and the ways out.
    pub fn must_be_its_own(&self, path: &Path) -> Result<(), Error> {
        let Before::There { path: original } = &self.before else { return Ok(()) };
        let detail = format!(
            "it is a copy of {}, which is still there, and both have one identity at the broker; give this one its own \
             (catchment adopt --database {}), or move the other one away if this one is to take its place",
            original.display(),
            path.display()
        );
        Err(Error::Database { fault: DatabaseFault::Copy, path: path.to_owned(), detail, remedy: None, source: None })
    }

    /// Writes down that the database is at home here.
    pub(super) fn record(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Self { tag, machine, path, inherits, .. } = self;
        let (tag, machine, path) = (tag.clone(), machine.clone(), path.clone());
        let record = Record { tag, host: host(), machine, path, inherits: inherits.clone() };
        // Of strings and a path: only a path that is not UTF-8 cannot be written, and then nothing is known of the file.
        let record = serde_json::to_string(&record).unwrap_or_default();
        let sql = "INSERT INTO catchment_meta(key, value) VALUES (?1, ?2)
                   ON CONFLICT(key) DO UPDATE SET value = excluded.value WHERE value <> excluded.value";
        connection.execute(sql, params![KEY, record])?;
        Ok(())
    }
}

/// Gives a database an identity of its own, for it is a copy. Its rows and its position in every stream stay. Waits up to
/// 5 seconds for another writer.
///
/// # Errors
///
/// [`Error::Locked`] while a collector has it; [`Error::Database`].
pub fn adopt(path: &Path) -> Result<Adopted, Error> {
    must_exist(path)?;
    let _lock = Lock::take(path)?;
    let on_error = |e| database_error(path, e);
    let mut connection = Connection::open(path).map_err(on_error)?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(on_error)?;
    schema::must_be_ours(&connection, path)?;
    let change = |connection: &mut Connection| {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let identity = "SELECT value FROM catchment_meta WHERE key = 'identity'";
        let before: String = transaction.query_row(identity, [], |row| row.get(0))?;
        transaction
            .execute("UPDATE catchment_meta SET value = lower(hex(randomblob(8))) WHERE key = 'identity'", [])?;
        let now: String = transaction.query_row(identity, [], |row| row.get(0))?;
        Home::of(path, &transaction, &now)?.record(&transaction)?;
        transaction.commit()?;
        Ok(Adopted { before, now })
    };
    change(&mut connection).map_err(on_error)
}

fn read(connection: &Connection) -> rusqlite::Result<Option<Record>> {
    let sql = "SELECT value FROM catchment_meta WHERE key = ?";
    let found: Option<String> = connection.query_row(sql, [KEY], |row| row.get(0)).optional()?;
    Ok(found.and_then(|record| serde_json::from_str(&record).ok()))
}

/// The file's tag; `None` where there is no file.
fn tag(path: &Path) -> Option<String> {
    let file = fs::metadata(path).ok()?;
    // A volume may have another device number wherever it is attached. Where the file system knows no times of birth, it
    // must do.
    let birth = match file.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok()) {
        Some(born) => format!("born {}", born.as_nanos()),
        None => format!("on {}", file.dev()),
    };
    let digest = Sha256::digest(format!("{} {birth}", file.ino()));
    Some(data_encoding::HEXLOWER.encode(&digest)[..DIGITS].to_owned())
}

/// Whether a database of this identity is there.
fn has_identity(path: &Path, identity: &str) -> bool {
    let ask = || schema::identity(&read_only(path).ok()?).ok()?;
    path.is_file() && ask().as_deref() == Some(identity)
}

fn place(host: &str, path: &Path) -> String {
    format!("{host}:{}", path.display())
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown host".into() } else { name.trim().to_owned() }
}

/// What stays the same from one start of this machine to the next; a container often has no more than its host name.
fn machine() -> String {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    if id.trim().is_empty() { host() } else { id.trim().to_owned() }
}

#[cfg(test)]
mod tests;
