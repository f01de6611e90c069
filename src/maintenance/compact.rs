//! Compacts a database.

use std::ops::ControlFlow;
use std::path::Path;

use crate::config::Checkpoints;
use crate::error::Error;
use crate::store::{self, Compacted};
use crate::task::{Progress, Task};

/// How to compact a database.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CompactOptions {
    /// Who copies pages from the `-wal` file into the database, as `database.checkpoint` has it. Default `Auto`: the compaction does.
    pub checkpoint: Checkpoints,
}

/// Writes a database anew, without its free pages, and with `auto_vacuum = incremental`: from then on, retention gives free pages back to
/// the file system. Databases of earlier versions cannot do that. Blocks until it is done; it reads and writes the whole database.
///
/// Rows of tables without an `INTEGER PRIMARY KEY` may get other numbers, in the same order. The database is as before until the end, and after a crash at any moment. Programs may read it meanwhile; no program can write.
///
/// # Errors
///
/// [`Error::Locked`] while a collector or a grouped recorder uses it; [`Error::Database`]: it is no database of catchment, or the disk has
/// not twice the room of its used pages, for a temporary copy and the `-wal` file. [`Error::Cancelled`] if `progress` returned
/// [`ControlFlow::Break`]; nothing is changed then. [`Error::Thread`].
pub fn compact(
    database: impl AsRef<Path>,
    options: &CompactOptions,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<Compacted, Error> {
    store::compact(database.as_ref(), options.checkpoint, &Task::new("the compaction", progress))
}
