//! Copies a database beside a running collector.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::new_file::NewFile;
use crate::store::{CopyLimits, DatabaseContents, StreamPosition, copy_database, must_be_no_file_of};
use crate::task::{Progress, Task};

/// How a database is copied.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupOptions {
    /// Bytes a second at most. The default has no limit.
    pub rate: Option<u64>,
    /// How large the file `-wal` of the database may be at most, in bytes; the default is 1 GiB. The copy holds it back: it grows with each
    /// commit meanwhile. From half of that on, `rate` does not count. At the limit the backup ends with an error.
    pub max_wal: u64,
    /// Whether a file that is there already is replaced. Default false: then it is an error.
    pub replace: bool,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self { rate: None, max_wal: 1 << 30, replace: false }
    }
}

/// A backup that is complete.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// The file.
    pub file: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// The name of the database at a broker, which the copy has too: sixteen hexadecimal digits.
    pub identity: String,
    /// How far each stream is committed in the copy. Empty if nothing was ever collected from a stream.
    pub positions: Vec<StreamPosition>,
}

/// Copies a database into a file. A collector or any other program may use the database meanwhile; the copy has what was committed when
/// this began, and its rows and positions agree.
///
/// Blocks until the copy is checked page by page (`PRAGMA integrity_check`), is on the disk, and has its name, in this order. Only its
/// owner may read it. A collector refuses to use the copy beside the original, because both have the same consumers.
///
/// # Errors
///
/// [`Error::Database`]: the database cannot be read or is damaged, is none of catchment, or its WAL became too large. [`Error::File`]:
/// the file exists, is no regular file, is the database itself, or its disk is full. [`Error::Cancelled`]. After any error there is no
/// new file, and one that was to be replaced is as before.
pub fn backup(
    database: impl AsRef<Path>,
    to: impl AsRef<Path>,
    options: &BackupOptions,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<BackupReport, Error> {
    let (database, to) = (database.as_ref(), to.as_ref());
    let began = Instant::now();
    must_be_no_file_of(database, to)?;
    let file = NewFile::create(to, options.replace)?;
    let limits = CopyLimits { rate: options.rate, wal: options.max_wal };
    let DatabaseContents { identity, positions } =
        copy_database(database, &file, limits, &Task::new("the backup", progress))?;
    let bytes = file.finish()?;
    Ok(BackupReport { file: to.to_owned(), bytes, took: began.elapsed(), identity, positions })
}
