//! Which file a database is, and which file it was at its last start. This distinguishes a copy from its original.
//!
//! A copy has the identity of its original, and so the original's consumers. Therefore the database records which file it is:
//! a tag of the file (inode number and time of birth), its path and its machine. A rename keeps the tag; every way of copying
//! a file changes it. A clone of a whole disk keeps it: only the consumers at the broker then show that two are in use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Lock;
use super::database_file::must_exist;
use super::interrupter::{OpeningInterrupter, interrupted, work_while};
use super::meta;
use super::pool::into_wal;
use super::precheck::{events_must_fit, must_be_usable};
use super::read_connection::ReadConnection;
use super::routes::Routes;
use super::schema::{self, Schema};
use super::sqlite_error::database_error;
use crate::config::DatabaseConfig;
use crate::error::{DatabaseFault, Error};
use crate::hint::word;

/// The key of the record in `catchment_meta`.
const KEY: &str = "home";

/// Hexadecimal digits of a tag.
const DIGITS: usize = 8;

/// How long adopting waits while another process writes.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long it waits for that between two calls of `keep_going`.
const ATTEMPT: Duration = Duration::from_millis(100);

/// A database file as it is now, and which file the database was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// Tells this file from others, its copies included: eight hexadecimal digits.
    pub tag: String,
    /// Host and path, for people.
    pub location: String,
    /// Which file the database was at its last start.
    pub previous: PreviousFile,
    /// The tag of the file that this one replaced: consumers made for that file now belong to this one. A consumer that was
    /// taken over keeps its name.
    pub replaced_tag: Option<String>,
    machine: String,
    path: PathBuf,
}

/// Which file a database was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreviousFile {
    /// This one, or none: no collector has used the database.
    Same,
    /// Another file of this machine, which is no longer there: the database was moved, or a backup replaced it.
    Gone {
        /// The other file's tag.
        tag: String,
    },
    /// A file of another machine. Whether it is still in use cannot be seen from here.
    OtherMachine {
        /// The other file's tag.
        tag: String,
        /// Its host and path.
        location: String,
    },
    /// Another file that is still there: this one is a copy.
    StillExists {
        /// The other file's path.
        path: PathBuf,
    },
}

/// The identity of a database before and after [`adopt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityChange {
    /// The identity it shared with its original; `None` for a database of another program, which had none.
    pub before: Option<String>,
    /// Its own identity.
    pub after: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    tag: String,
    host: String,
    machine: String,
    path: PathBuf,
    #[serde(default, rename = "inherits", skip_serializing_if = "Option::is_none")]
    replaced_tag: Option<String>,
}

impl FileIdentity {
    /// Reads the identity of the file at this path and the record in the database.
    pub(super) fn of(path: &Path, connection: &Connection, identity: &str) -> rusqlite::Result<Self> {
        let canonical = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut file = Self {
            tag: tag(path).unwrap_or_default(),
            location: location(&host(), &canonical),
            previous: PreviousFile::Same,
            replaced_tag: None,
            machine: machine(),
            path: canonical,
        };
        if let Some(record) = read(connection)? {
            let recorded_tag = record.replaced_tag.clone();
            file.previous = file.compare(record, identity);
            file.replaced_tag = match &file.previous {
                PreviousFile::Same => recorded_tag,
                PreviousFile::Gone { tag } => Some(tag.clone()),
                PreviousFile::OtherMachine { .. } | PreviousFile::StillExists { .. } => None,
            };
        }
        Ok(file)
    }

    fn compare(&self, record: Record, identity: &str) -> PreviousFile {
        let Record { tag: recorded, host, machine, path, .. } = record;
        if recorded == self.tag && !is_replaced(&path, &recorded, identity) {
            PreviousFile::Same
        } else if path != self.path && (tag(&path) == Some(recorded.clone()) || has_identity(&path, identity)) {
            PreviousFile::StillExists { path }
        } else if machine == self.machine {
            PreviousFile::Gone { tag: recorded }
        } else {
            PreviousFile::OtherMachine { tag: recorded, location: location(&host, &path) }
        }
    }

    /// Refuses a copy whose original is still there.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with [`DatabaseFault::Copy`]. It names the original, and its remedy the two ways out.
    pub fn refuse_copy(&self, path: &Path) -> Result<(), Error> {
        let PreviousFile::StillExists { path: original } = &self.previous else { return Ok(()) };
        let detail = format!(
            "it is a copy of {}, which still exists, and both have one identity at the broker",
            original.display()
        );
        let fault = DatabaseFault::Copy;
        let error = Error::database(fault, path, detail);
        Err(error.with_remedy(format!(
            "give this one its own (catchment adopt --database {}), or move the other one away if this one is to replace it",
            word(&path.to_string_lossy())
        )))
    }

    /// Records that the database is now this file.
    pub(super) fn record(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Self { tag, machine, path, replaced_tag, .. } = self;
        let (tag, machine, path) = (tag.clone(), machine.clone(), path.clone());
        let record = Record { tag, host: host(), machine, path, replaced_tag: replaced_tag.clone() };
        // Only a path that is not UTF-8 cannot be written. Then the next start finds no record of the file.
        let record = serde_json::to_string(&record).unwrap_or_default();
        meta::set(connection, KEY, record)
    }
}

/// Gives a copy of a database its own identity. Its rows and its position in every stream stay. A database of another program gets
/// catchment's tables, and so an identity. Either is in WAL mode then. Waits up to 5 seconds for another writer. Calls `keep_going` several
/// times a second and gives up as soon as that returns `false`.
///
/// # Errors
///
/// [`Error::Locked`] while a collector uses it; [`Error::Database`]: a table `events` of another program cannot take the events that no
/// route of `routes` takes, for instance. With [`DatabaseFault::Interrupted`] where `keep_going` returned `false`. After an error the
/// identity and the tables are as before.
pub fn adopt(config: &DatabaseConfig, routes: &Routes, keep_going: &dyn Fn() -> bool) -> Result<IdentityChange, Error> {
    let path = &config.path;
    must_exist(path)?;
    must_be_usable(config, routes)?;
    let lock = Lock::take_briefly(path)?;
    let until = Instant::now() + TIMEOUT;
    let adopted = work_while(keep_going, |interrupter| {
        loop {
            match change(config, routes, interrupter) {
                Err(Error::Database { fault: DatabaseFault::Busy, .. })
                    if !interrupter.is_interrupted() && Instant::now() < until => {}
                changed => return changed,
            }
        }
    });
    match adopted {
        Ok(Some(change)) => Ok(change),
        failed => {
            lock.withdraw();
            let detail = "adopting it was interrupted; its identity and its tables are as before";
            Err(failed.err().unwrap_or_else(|| interrupted(path, detail)))
        }
    }
}

/// One attempt.
fn change(config: &DatabaseConfig, routes: &Routes, interrupter: &OpeningInterrupter) -> Result<IdentityChange, Error> {
    let path = &config.path;
    let on_error = |e| database_error(path, e);
    let mut connection = Connection::open(path).map_err(on_error)?;
    interrupter.add(&connection);
    connection.busy_timeout(ATTEMPT).map_err(on_error)?;
    let is_of_others = schema::identity(&connection).map_err(on_error)?.is_none()
        && !schema::tables(&connection).map_err(on_error)?.is_empty();
    if is_of_others {
        events_must_fit(config, routes, &connection)?;
    } else {
        schema::must_be_ours(&connection, path)?;
    }
    interrupter.check(path)?;
    into_wal(&connection, Duration::ZERO).map_err(on_error)?;
    if is_of_others {
        return match schema::ensure(&mut connection).map_err(on_error)? {
            Schema::Known { identity: after } => Ok(IdentityChange { before: None, after }),
            Schema::Later(version) => Err(schema::later_version(path, version)),
        };
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(on_error)?;
    let changed = renew_identity(path, &transaction).map_err(on_error)?;
    interrupter.check(path)?;
    transaction.commit().map_err(on_error)?;
    Ok(changed)
}

/// Gives the database an identity of its own, and records that it is this file.
pub(super) fn renew_identity(path: &Path, connection: &Connection) -> rusqlite::Result<IdentityChange> {
    let before = schema::identity(connection)?;
    let after: String = connection.query_row("SELECT lower(hex(randomblob(8)))", [], |row| row.get(0))?;
    meta::set(connection, schema::IDENTITY, &after)?;
    FileIdentity::of(path, connection, &after)?.record(connection)?;
    Ok(IdentityChange { before, after })
}

/// Gives the database the identity of the one whose place it takes, and records that it replaces that file: its consumers belong to this
/// one then.
pub(super) fn inherit_identity(
    path: &Path,
    connection: &Connection,
    identity: &str,
    replaced: &Path,
) -> rusqlite::Result<()> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    meta::set(&transaction, schema::IDENTITY, identity)?;
    let file = FileIdentity::of(path, &transaction, identity)?;
    let path = fs::canonicalize(replaced).unwrap_or_else(|_| replaced.to_owned());
    FileIdentity { previous: PreviousFile::Same, replaced_tag: tag(replaced), path, ..file }.record(&transaction)?;
    transaction.commit()
}

fn read(connection: &Connection) -> rusqlite::Result<Option<Record>> {
    let found: Option<String> = meta::get(connection, KEY)?;
    Ok(found.and_then(|record| serde_json::from_str(&record).ok()))
}

/// The file's tag; `None` where there is no file.
fn tag(path: &Path) -> Option<String> {
    let file = fs::metadata(path).ok()?;
    // The device number of a volume depends on where it is attached. It is used only where the file system has no times of birth.
    let birth = match file.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok()) {
        Some(born) => format!("born {}", born.as_nanos()),
        None => format!("on {}", file.dev()),
    };
    let digest = Sha256::digest(format!("{} {birth}", file.ino()));
    Some(data_encoding::HEXLOWER.encode(&digest)[..DIGITS].to_owned())
}

/// Whether the file at this path is a database with this identity.
fn has_identity(path: &Path, identity: &str) -> bool {
    let found = || ReadConnection::open(path)?.read(schema::identity);
    path.is_file() && found().is_ok_and(|found| found.as_deref() == Some(identity))
}

/// Whether the file with this tag was moved away, and another file of the same database is in its place: a restored backup.
fn is_replaced(path: &Path, recorded: &str, identity: &str) -> bool {
    tag(path).is_some_and(|there| there != recorded) && has_identity(path, identity)
}

/// The record of a database, to pass on with [`pass_on`]; `None` if it cannot be read or has none.
pub(super) fn recorded(database: &Path) -> Option<String> {
    ReadConnection::open(database).ok()?.read(|sqlite| meta::get(sqlite, KEY)).ok()?
}

/// Gives a copy that takes a database's place the record of that database. So the copy owns the consumers that were made for the
/// database after the copy.
pub(super) fn pass_on(record: &str, copy: &Connection) -> rusqlite::Result<()> {
    meta::set(copy, KEY, record)
}

fn location(host: &str, path: &Path) -> String {
    format!("{host}:{}", path.display())
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown host".into() } else { name.trim().to_owned() }
}

/// A name that stays the same when this machine restarts. A container often has only its host name.
fn machine() -> String {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    if id.trim().is_empty() { host() } else { id.trim().to_owned() }
}

#[cfg(test)]
mod tests;
