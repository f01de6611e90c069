//! Writes a database anew, without free pages, and so that it can give pages back later.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::statvfs;
use std::os::unix::fs::MetadataExt;

use super::Lock;
use super::database_file::{must_exist, must_have_one_name, unlinked};
use super::file_sizes::FileSizes;
use super::interrupter::end_interrupt;
use super::schema;
use super::sqlite_error::database_error;
use super::temp_store;
use crate::config::Checkpoints;
use crate::error::{DatabaseFault, Error};
use crate::new_file::folder_of;
use crate::task::{Task, run_beside};

/// The result of a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Bytes of the file before.
    pub bytes_before: u64,
    /// Bytes of the file now.
    pub bytes_after: u64,
    /// The database could not give pages back before: it was made by an earlier version.
    pub was_converted: bool,
}

/// Writes the database anew (`VACUUM`) with `auto_vacuum = incremental`.
pub fn compact(path: &Path, checkpoints: Checkpoints, task: &Task<'_>) -> Result<Compacted, Error> {
    must_exist(path)?;
    must_have_one_name(path)?;
    let lock = Lock::take(path)?;
    let compacted = compact_locked(path, checkpoints, task);
    // Removes a lock file that this has made.
    lock.withdraw();
    compacted
}

fn compact_locked(path: &Path, checkpoints: Checkpoints, task: &Task<'_>) -> Result<Compacted, Error> {
    let on_error = |e| database_error(path, e);
    let connection = open(path, checkpoints).map_err(on_error)?;
    schema::must_be_ours(&connection, path)?;
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0)).map_err(on_error);
    let page_size = number("PRAGMA page_size")?;
    let used = (number("PRAGMA page_count")? - number("PRAGMA freelist_count")?) * page_size;
    let was_converted = number("PRAGMA auto_vacuum")? != 2;
    must_have_room(path, used)?;
    let before = FileSizes::of(path);
    task.report("copying", 0, None, "bytes")?;
    let connection = vacuum(connection, path, before, used, task)?;
    if checkpoints == Checkpoints::Auto {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(on_error)?;
    }
    drop(connection);
    let bytes_after = FileSizes::of(path).database;
    Ok(Compacted { bytes_before: before.database, bytes_after, was_converted })
}

fn open(path: &Path, checkpoints: Checkpoints) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    temp_store::use_files_if_possible(&connection)?;
    if checkpoints == Checkpoints::External {
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    }
    Ok(connection)
}

/// Runs `VACUUM` on a thread of its own, while this one reports how much of it is written. It writes into a temporary file first, then
/// all of it into the `-wal` file, and commits that: until then, and after a crash, the database is as before.
fn vacuum(
    connection: Connection,
    path: &Path,
    before: FileSizes,
    used: u64,
    task: &Task<'_>,
) -> Result<Connection, Error> {
    let interrupt = connection.get_interrupt_handle();
    let work = || match connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM") {
        Ok(()) => Ok(connection),
        Err(error) => {
            end_interrupt(&connection);
            Err(database_error(path, error))
        }
    };
    let report = || {
        let written = FileSizes::of(path).wal.saturating_sub(before.wal);
        let (step, total) = if written == 0 { ("copying", None) } else { ("writing", Some(used.max(written))) };
        task.report(step, written, total, "bytes")
    };
    run_beside("catchment-compact", work, report, || interrupt.interrupt())
}

/// Checks that there is room for the copy in the temporary folder, and for all pages in the `-wal` file.
fn must_have_room(path: &Path, used: u64) -> Result<(), Error> {
    let file = unlinked(path);
    let folder = folder_of(&file);
    let Some(temporary) = temp_store::folder() else { return Ok(()) };
    let is_same = match (std::fs::metadata(folder), std::fs::metadata(&temporary)) {
        (Ok(one), Ok(other)) => one.dev() == other.dev(),
        _ => false,
    };
    let needs = if is_same { vec![(folder, used * 2)] } else { vec![(folder, used), (&*temporary, used)] };
    for (folder, needed) in needs {
        let Ok(disk) = statvfs(folder) else { continue };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < needed {
            let (free, needed, shown) = (bytesize::ByteSize::b(free), bytesize::ByteSize::b(needed), folder.display());
            let detail = format!("compacting it needs {needed} at {shown}, and {free} are free");
            let fault = DatabaseFault::Full;
            let error = Error::database(fault, path, detail);
            return Err(
                error.with_remedy("make room, or set TMPDIR to a folder of another disk for the temporary half")
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::config::DatabaseConfig;
    use crate::store::{Database, Editor, Routes};

    #[test]
    fn an_older_database_becomes_small_and_gives_pages_back_from_then_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        // As an earlier version made it.
        let fill = "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
            INSERT INTO t SELECT randomblob(2000) FROM n; DELETE FROM t WHERE rowid > 100;";
        Editor::open(&path).expect("opens").run(fill).expect("SQL");
        let config = DatabaseConfig { path: path.clone(), ..DatabaseConfig::default() };
        let open = || Database::open(&config, &Routes::default()).expect("opens");
        assert_eq!(open().pragma("auto_vacuum").expect("asks"), "0");
        let go_on = |_| ControlFlow::Continue(());
        let task = Task::new("the compaction", &go_on);
        {
            let _lock = Lock::take(&path).expect("is free");
            assert!(matches!(compact(&path, Checkpoints::Auto, &task), Err(Error::Locked { .. })));
        }
        let cancel = |_| ControlFlow::Break(());
        let cancelled =
            compact(&path, Checkpoints::Auto, &Task::new("the compaction", &cancel)).expect_err("is cancelled");
        assert_eq!(cancelled.to_string(), "the compaction was cancelled");
        let done = compact(&path, Checkpoints::Auto, &task).expect("compacts");
        assert!(done.was_converted && done.bytes_after < done.bytes_before / 5, "{done:?}");
        assert_eq!(open().pragma("auto_vacuum").expect("asks"), "2");
        let again = compact(&path, Checkpoints::Auto, &task).expect("compacts");
        assert!(!again.was_converted);
        let other = folder.path().join("other.db");
        Editor::open(&other).expect("opens").run("CREATE TABLE mine(a)").expect("SQL");
        let refused = compact(&other, Checkpoints::Auto, &task).expect_err("is none of ours").to_string();
        assert!(refused.contains("it has no tables of catchment"), "{refused}");
        assert!(compact(&folder.path().join("none.db"), Checkpoints::Auto, &task).is_err());
        assert!(!folder.path().join("none.db").exists() && !folder.path().join("none.db.lock").exists());
    }

    #[test]
    fn a_new_database_gives_pages_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = DatabaseConfig { path: folder.path().join("a.db"), ..DatabaseConfig::default() };
        let database = Database::open(&config, &Routes::default()).expect("opens");
        assert_eq!(database.pragma("auto_vacuum").expect("asks"), "2");
    }
}
