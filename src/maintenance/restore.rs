//! Puts a backup in the place of a database.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::gaps::uncollected;
use crate::broker::{BrokerStatus, DatabasePosition};
use crate::config::{BrokerConfig, DatabaseConfig, Mode};
use crate::error::{DatabaseFault, Error};
use crate::new_file::{NewFile, with_ending};
use crate::pipeline::Gaps;
use crate::store::{
    CopyLimits, Lock, StreamPosition, copy_database, file_beside, followed_path, is_of_others, must_not_be_in_use,
    present, replace_database, stream_history, unlinked,
};
use crate::task::{Progress, Task};
use crate::time_stamp::time_stamp;

/// How a backup is restored.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// Whether the backup may be one of another database than that in the place, which may be one of another program.
    /// Default false: then it is an error.
    pub other_database: bool,
    /// Bytes a second at most. The default has no limit.
    pub rate: Option<u64>,
}

/// A backup that is in place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// Where what was there is now; `None` if there was no file.
    pub kept: Option<PathBuf>,
    /// The name of the database at a broker.
    pub identity: String,
    /// How far each stream is committed in it. A collector continues after that.
    pub positions: Vec<StreamPosition>,
    /// How far it was in what was there; `None` if that could not be read.
    pub positions_before: Option<Vec<StreamPosition>>,
}

/// Puts a copy of the backup in the place of the database, in one step. The backup is checked before and stays as it is. What was there is
/// kept beside it, as `<name>.before-restore-<time>`, with all its commits. If the process is killed, the old or the new database is in
/// the place, complete.
///
/// Blocks until all of that is on the disk. No collector and no other program may have the database open. The next start of a collector
/// reads from the stream what the backup lacks. What the stream no longer has is lost, and so is what was recorded
/// without a stream: that is only in the file that is kept.
///
/// # Errors
///
/// [`Error::Locked`]: a collector or a grouped recorder uses the database or the backup. [`Error::Database`]: the backup is damaged, is no
/// database of catchment or of a later version, or has another identity; or another program has the database open. [`Error::File`]:
/// there is no backup, or the disk is full. [`Error::Cancelled`]. After any error the old database is in its place.
pub fn restore(
    database: &DatabaseConfig,
    backup: impl AsRef<Path>,
    options: &RestoreOptions,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<RestoreReport, Error> {
    let (path, backup) = (&database.path, backup.as_ref());
    must_be_a_backup(path, backup)?;
    let lock = Lock::take_to_replace(path)?;
    let logs = ["-wal", "-shm"].map(|ending| file_beside(backup, ending));
    let had_logs = logs.iter().any(|log| log.exists());
    let restored = put_in_place(database, backup, options, &Task::new("the restore", progress));
    if let Err(error) = &restored {
        lock.withdraw();
        if !had_logs && matches!(error, Error::Database { fault: DatabaseFault::Corrupt, .. }) {
            // SQLite leaves the files behind that it made to read a damaged one.
            for log in &logs {
                let _ = std::fs::remove_file(log);
            }
        }
    }
    restored
}

fn put_in_place(
    database: &DatabaseConfig,
    backup: &Path,
    options: &RestoreOptions,
    task: &Task<'_>,
) -> Result<RestoreReport, Error> {
    let path = &database.path;
    must_not_be_in_use(backup)?;
    let before = present(path);
    // Nobody writes the backup, so no log of it grows.
    let limits = CopyLimits { rate: options.rate, wal: u64::MAX };
    if !options.other_database && is_of_others(path) {
        let detail = "it is a database of another program: it has no tables of catchment".to_owned();
        let error = Error::database(DatabaseFault::Schema, path, detail);
        return Err(error.with_remedy("set database.path to another file, or give --other-database to replace it"));
    }
    let copy = NewFile::create(&followed_path(path), true)?;
    // Before the copy is made, which may take long.
    if let (Some(before), Some(found)) = (&before, present(backup)) {
        must_be_of_the_same_database(path, backup, &before.identity, &found.identity, options)?;
    }
    let contents = copy_database(backup, &copy, limits, task)?;
    let is_same = before.as_ref().is_some_and(|before| before.identity == contents.identity);
    let kept = kept_name(path);
    let had_one = replace_database(path, copy, &kept, database.permissions, is_same)?;
    Ok(RestoreReport {
        kept: had_one.then_some(kept),
        identity: contents.identity,
        positions: contents.positions,
        positions_before: before.map(|before| before.positions),
    })
}

/// Refuses a path that can be no backup, in words about the backup.
fn must_be_a_backup(database: &Path, backup: &Path) -> Result<(), Error> {
    let refused = |detail: &str| Error::File { path: backup.to_owned(), detail: detail.into(), source: None };
    let found = match std::fs::metadata(backup) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(refused("there is no such file; name a backup"));
        }
        Err(error) => return Err(crate::new_file::failed(backup, &error)),
    };
    if found.is_dir() {
        return Err(refused("it is a folder; name a backup in it"));
    }
    if !found.is_file() {
        return Err(refused("it is no regular file; name a backup"));
    }
    let is_same = |there: &std::fs::Metadata| (there.dev(), there.ino()) == (found.dev(), found.ino());
    if std::fs::metadata(database).is_ok_and(|there| is_same(&there)) {
        return Err(refused("it is the database itself; name a backup of it"));
    }
    Ok(())
}

fn must_be_of_the_same_database(
    database: &Path,
    backup: &Path,
    ours: &str,
    found: &str,
    options: &RestoreOptions,
) -> Result<(), Error> {
    if ours == found || options.other_database {
        return Ok(());
    }
    let detail = format!(
        "it is a backup of another database: its identity is {found}, and that of {} is {ours}",
        database.display()
    );
    let error = Error::database(DatabaseFault::Copy, backup, detail);
    Err(error.with_remedy("name a backup of this database, or give --other-database to put that one in its place"))
}

/// The name under which what was there is kept. Beside the file itself: a link to it may be on another disk.
fn kept_name(database: &Path) -> PathBuf {
    let file = unlinked(database);
    let stamp = time_stamp(OffsetDateTime::now_utc());
    let name = |number: usize| {
        let again = if number > 1 { format!("-{number}") } else { String::new() };
        with_ending(&file, &format!(".before-restore-{stamp}{again}"))
    };
    // Two in one second are rare. If all are taken, the exchange fails.
    (1..100).map(name).find(|name| std::fs::symlink_metadata(name).is_err()).unwrap_or_else(|| name(1))
}

/// The events that the database has not collected and the stream no longer has.
#[derive(Clone, Debug, Default)]
pub(crate) struct MissingInStream {
    /// What the next start reports: what is gone at the beginning, or that the stream was created again.
    pub(crate) notice: Option<String>,
    /// The sequences that are gone, at the beginning and further on.
    pub(crate) gone: Gaps,
    /// What is not known.
    pub(crate) unknown: Vec<String>,
}

/// What the stream of these settings no longer has after the position of the database. Blocks for a few times `broker.timeout` at most.
///
/// # Errors
///
/// [`Error::Broker`] or [`Error::Config`] where the broker cannot be asked; [`Error::Database`].
pub(crate) fn missing_in_stream(database: &Path, broker: &BrokerConfig) -> Result<MissingInStream, Error> {
    if broker.mode == Mode::Core {
        return Ok(MissingInStream::default());
    }
    let history = stream_history(database, &broker.stream)?;
    let position = DatabasePosition { owner: None, history: &history, pipeline_holds: 0 };
    let status = BrokerStatus::ask(broker, position)?;
    let Some(jetstream) = status.jetstream else { return Ok(MissingInStream::default()) };
    let Some(stream) = jetstream.stream else {
        let notice = Some(format!("there is no stream {}", broker.stream));
        return Ok(MissingInStream { notice, ..MissingInStream::default() });
    };
    let (gone, unknown) = uncollected(database, broker)?;
    Ok(MissingInStream { notice: stream.news, gone, unknown })
}
