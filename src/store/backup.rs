//! Copies a database, page by page, while others write it.
//!
//! SQLite's backup reads the pages of one transaction, so the copy is the database of one moment: rows and ledger agree. Without that
//! transaction SQLite begins the copy again after each commit of another process, and beside a busy writer it never ends
//! (<https://sqlite.org/c3ref/backup_finish.html>). `VACUUM INTO` reads in one transaction too, but writes every row anew: it cannot pause,
//! and gives the rows of tables without an INTEGER PRIMARY KEY other numbers. Measured on 174 MiB beside 130 commits a second: one second
//! in one transaction; 2,200 new beginnings in 20 seconds and no end without; three seconds with `VACUUM INTO`.
//!
//! While the transaction is open, no part of the WAL is used again, so the WAL grows with every commit. That is bounded: from half of
//! the limit on, the copy no longer pauses, and at the limit it ends with an error.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::database_file::{file_beside, followed, must_exist};
use super::interrupter::work_while;
use super::ledger;
use super::read_connection::ReadConnection;
use super::read_only::immutable;
use super::schema::{self, must_be_ours};
use super::sqlite_error::{database_error, fault, message};
use crate::error::{DatabaseFault, Error};
use crate::new_file::NewFile;
use crate::pipeline::{Epoch, EpochProgress};
use crate::task::Task;

/// The most pages of a step: 1 MiB with pages of 4 KiB.
const STEP: i32 = 256;

/// With a low rate, so many steps are made in a second.
const STEPS_A_SECOND: u64 = 10;

/// The copy is written to the disk after so many bytes. Otherwise one sync at the end would hold up those of the collector.
const SYNC_EVERY: u64 = 16 << 20;

/// How often progress is reported, and how long a pause lasts at most.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// How long to wait for another process that locks a database which is not in WAL mode.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How a database is copied.
#[derive(Clone, Copy, Debug)]
pub struct CopyLimits {
    /// Bytes a second at most.
    pub rate: Option<u64>,
    /// How large the file `-wal` may be at most, in bytes.
    pub wal: u64,
}

/// How far a stream is committed in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamPosition {
    /// The stream.
    pub stream: String,
    /// The sequence of its last event that is committed.
    pub sequence: u64,
    /// When the stream stored that event, in microseconds since 1970.
    pub published_us: i64,
}

/// What is in a complete copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseContents {
    /// The name of the database at a broker: sixteen hexadecimal digits.
    pub identity: String,
    /// How far each stream is committed, in the order of their names.
    pub positions: Vec<StreamPosition>,
}

/// Copies the database into the new file, checks every page of the copy, and writes it to the disk. The copy has what was committed
/// when this began. Others may write the database meanwhile.
///
/// # Errors
///
/// [`Error::Database`]: it is no database of catchment, a page is damaged, or its WAL became too large. [`Error::File`]: the copy cannot
/// be written. [`Error::Cancelled`].
pub fn copy_database(
    from: &Path,
    to: &NewFile,
    limits: CopyLimits,
    task: &Task<'_>,
) -> Result<DatabaseContents, Error> {
    must_exist(from)?;
    let source = ReadConnection::open(from)?;
    {
        let on_error = |e| database_error(from, e);
        let snapshot = Transaction::new_unchecked(source.sqlite(), TransactionBehavior::Deferred).map_err(on_error)?;
        // This read begins the transaction.
        must_be_ours(&snapshot, from)?;
        copy_pages(from, &snapshot, to, limits, task)?;
    }
    source.unchanged()?;
    drop(source);
    to.sync()?;
    examine(to.part(), from, task)
}

/// Checks the pages and rows of a complete copy that nobody changes, and reads what is in it. Damage is that of the original: the copy
/// has the same pages.
fn examine(copy: &Path, from: &Path, task: &Task<'_>) -> Result<DatabaseContents, Error> {
    let cancelled = std::cell::Cell::new(None);
    let keep_going = || match task.report("checking the copy", 0, None, "pages") {
        Ok(()) => true,
        Err(error) => {
            cancelled.set(Some(error));
            false
        }
    };
    let examined = work_while(&keep_going, |interrupter| {
        let on_error = |e| database_error(from, e);
        let connection = immutable(copy).map_err(on_error)?;
        interrupter.add(&connection);
        let found: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(on_error)?;
        if found != "ok" {
            let detail = format!("it is damaged: {}", found.replace('\n', " "));
            let error = Error::database(DatabaseFault::Corrupt, from, detail);
            return Err(error.with_remedy("use an earlier backup"));
        }
        contents(&connection).map_err(on_error)
    })?;
    match (examined, cancelled.take()) {
        (Some(contents), _) => Ok(contents),
        (None, Some(error)) => Err(error),
        (None, None) => Err(super::interrupter::interrupted(from, "its check was interrupted")),
    }
}

/// How far each epoch of a stream is committed in the database, the latest last.
///
/// # Errors
///
/// [`Error::Database`].
pub fn stream_history(database: &Path, stream: &str) -> Result<Vec<EpochProgress>, Error> {
    ReadConnection::open(database)?.read(|sqlite| ledger::history(sqlite, stream))
}

/// Refuses a file to write that is the database, or one of those that SQLite and catchment keep beside a database. And one beside which
/// there is a log of SQLite: it would be applied to the new file.
///
/// # Errors
///
/// [`Error::File`].
pub fn must_be_no_file_of(database: &Path, file: &Path) -> Result<(), Error> {
    let refused = |detail: String| Err(Error::File { path: file.to_owned(), detail, source: None });
    let inode = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let target = followed(file);
    if target == followed(database) || inode(file).is_some_and(|there| inode(database) == Some(there)) {
        return refused("it is the database itself; name another file".into());
    }
    for ending in ["-wal", "-shm", "-journal", ".lock", ".server", ".sock"] {
        if target == file_beside(database, ending) {
            return refused(format!("it is a file of the database {}; name another file", database.display()));
        }
    }
    for ending in ["-wal", "-journal"] {
        let log = file_beside(file, ending);
        if std::fs::metadata(&log).is_ok_and(|found| found.len() > 0) {
            let log = log.display();
            return refused(format!("{log} is beside it, so it is a database in use, or was one; name another file"));
        }
    }
    Ok(())
}

/// What is in a database of catchment.
pub(super) fn contents(connection: &Connection) -> rusqlite::Result<DatabaseContents> {
    let identity = schema::identity(connection)?.unwrap_or_default();
    let sql = "SELECT stream, sequence, published_ns FROM catchment_ledger AS ledger
               WHERE stream <> ? AND epoch = (SELECT max(epoch) FROM catchment_ledger WHERE stream = ledger.stream)
               ORDER BY stream";
    let mut statement = connection.prepare(sql)?;
    let positions = statement.query_map([Epoch::local_name()], |row| {
        let published_ns: i64 = row.get(2)?;
        Ok(StreamPosition { stream: row.get(0)?, sequence: row.get(1)?, published_us: published_ns.div_euclid(1_000) })
    })?;
    Ok(DatabaseContents { identity, positions: positions.collect::<Result<_, _>>()? })
}

fn copy_pages(
    from: &Path,
    source: &Connection,
    to: &NewFile,
    limits: CopyLimits,
    task: &Task<'_>,
) -> Result<(), Error> {
    let on_write = |e: rusqlite::Error| copy_error(from, to, e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to.part(), flags).map_err(on_write)?;
    // A copy that is not complete is removed, so it needs no journal. It is synced here.
    copy.pragma_update(None, "journal_mode", "OFF").map_err(on_write)?;
    copy.pragma_update(None, "synchronous", "OFF").map_err(on_write)?;
    let page_size: u64 =
        source.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(|e| database_error(from, e))?;
    let step = limits
        .rate
        .map_or(STEP, |rate| i32::try_from(rate / STEPS_A_SECOND / page_size.max(1)).unwrap_or(STEP).clamp(1, STEP));
    let backup = Backup::new(source, &mut copy).map_err(on_write)?;
    let (began, mut reported, mut waiting_since) = (Instant::now(), Instant::now(), None);
    let (mut copied, mut synced) = (0, 0);
    let mut is_begun = false;
    loop {
        let wal = wal_size(from);
        must_fit(from, wal, limits.wal)?;
        match backup.step(step).map_err(on_write)? {
            StepResult::Done => break,
            StepResult::Busy | StepResult::Locked => {
                let since = *waiting_since.get_or_insert_with(Instant::now);
                if since.elapsed() > TIMEOUT {
                    let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                    return Err(database_error(from, rusqlite::Error::SqliteFailure(busy, None)));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => waiting_since = None,
        }
        let progress = backup.progress();
        let [pages, left] = [progress.pagecount, progress.remaining].map(|pages| u64::try_from(pages).unwrap_or(0));
        copied = pages.saturating_sub(left) * page_size;
        if !std::mem::replace(&mut is_begun, true) || reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            task.report("copying", copied, Some(pages * page_size), "bytes")?;
        }
        if copied >= synced + SYNC_EVERY {
            synced = copied;
            to.file().sync_data().map_err(|e| to.error(&e))?;
        }
        let is_hurried = wal_size(from) >= limits.wal / 2;
        if let Some(rate) = limits.rate.filter(|_| !is_hurried) {
            pause(began, copied, rate, || {
                task.report("copying", copied, Some(pages * page_size), "bytes")?;
                must_fit(from, wal_size(from), limits.wal)?;
                Ok(wal_size(from) < limits.wal / 2)
            })?;
        }
    }
    task.report("copying", copied, Some(copied), "bytes")?;
    drop(backup);
    copy.close().map_err(|(_, error)| on_write(error))
}

/// Waits until so many bytes are due. Calls `may_pause` several times a second, and ends as soon as that returns `false`.
fn pause(
    began: Instant,
    copied: u64,
    rate: u64,
    mut may_pause: impl FnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    let due_us = u128::from(copied) * 1_000_000 / u128::from(rate.max(1));
    let due = Duration::from_micros(u64::try_from(due_us).unwrap_or(u64::MAX));
    while let Some(left) = due.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::sleep(left.min(REPORT_EVERY));
        if left > REPORT_EVERY && !may_pause()? {
            break;
        }
    }
    Ok(())
}

/// Only looked at: closing a file of the database would drop the locks of SQLite's connections in this process.
fn wal_size(database: &Path) -> u64 {
    std::fs::metadata(file_beside(database, "-wal")).map_or(0, |file| file.len())
}

fn must_fit(from: &Path, wal: u64, limit: u64) -> Result<(), Error> {
    if wal < limit {
        return Ok(());
    }
    let [has, limit] = [wal, limit].map(bytesize::ByteSize::b);
    let detail = format!("its -wal file has {has}, and may grow to {limit} during a copy, which holds it back");
    let error = Error::database(DatabaseFault::Busy, from, detail);
    Err(error.with_remedy(
        "copy faster, allow more (--max-wal, backup.max_wal), or end the program that reads the database in a long transaction",
    ))
}

/// An error while the copy is written: its cause is the copy's disk, or damage in the original.
fn copy_error(from: &Path, to: &NewFile, error: rusqlite::Error) -> Error {
    let is_too_large = error.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE);
    match fault(&error) {
        DatabaseFault::Full => to.error(&std::io::ErrorKind::StorageFull.into()),
        DatabaseFault::Io | DatabaseFault::Unwritable if is_too_large => {
            to.error(&std::io::Error::other(message(&error)))
        }
        _ => database_error(from, error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::ops::ControlFlow;

    use std::path::PathBuf;

    use super::*;
    use crate::config::{DatabaseConfig, Unmatched};
    use crate::store::fixture::Fixture;
    use crate::store::{Database, Editor, Routes};
    use crate::task::Progress;

    const LIMITS: CopyLimits = CopyLimits { rate: None, wal: 1 << 30 };

    fn database(folder: &Path, sql: &str) -> PathBuf {
        let config = DatabaseConfig { path: folder.join("a.db"), ..DatabaseConfig::default() };
        drop(Database::open(&config, &Routes::default()).expect("opens"));
        Editor::open(&config.path).expect("opens").run(sql).expect("SQL");
        config.path
    }

    fn copy_with(
        from: &Path,
        to: &Path,
        limits: CopyLimits,
        report: &dyn Fn(Progress) -> ControlFlow<()>,
    ) -> Result<DatabaseContents, Error> {
        let new = NewFile::create(to, false)?;
        let contents = copy_database(from, &new, limits, &Task::new("the copy", report))?;
        new.finish()?;
        Ok(contents)
    }

    fn copy(from: &Path, to: &Path) -> Result<DatabaseContents, Error> {
        copy_with(from, to, LIMITS, &|_| ControlFlow::Continue(()))
    }

    const LARGE: &str = "CREATE TABLE t(a, b);
        INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
        SELECT i, zeroblob(1000) FROM n;
        INSERT INTO catchment_ledger VALUES ('S', 1, 'then', 9, 10000), ('S', 2, 'now', 4, 20500), ('.local', 1, 'x', 3, 1);";

    #[test]
    fn a_copy_has_the_rows_of_the_moment_when_it_began() {
        let folder = tempfile::tempdir().expect("a folder");
        let from = database(folder.path(), LARGE);
        let writer = Editor::open(&from).expect("opens");
        let steps = Cell::new(0);
        let to = folder.path().join("b.db");
        let contents = copy_with(&from, &to, LIMITS, &|progress| {
            if progress.step == "copying" {
                writer
                    .run("UPDATE t SET a = -1; UPDATE catchment_ledger SET sequence = 99 WHERE stream = 'S'")
                    .expect("SQL");
                steps.set(steps.get() + 1);
                assert_eq!(progress.unit, "bytes");
            }
            ControlFlow::Continue(())
        });
        let contents = contents.expect("copies");
        assert!(steps.get() >= 2, "a first and a last one");
        let at = StreamPosition { stream: "S".into(), sequence: 4, published_us: 20 };
        assert_eq!(contents.positions, [at], "of the last epoch, without the local one");
        let copied = immutable(&to).expect("opens");
        assert_eq!(
            copied.query_row("SELECT sum(a), count(*) FROM t", [], |row| Ok((row.get(0)?, row.get(1)?))),
            Ok((8_002_000, 4_000))
        );
        assert_eq!(schema::identity(&copied).expect("reads"), Some(contents.identity));
        let names = std::fs::read_dir(folder.path()).expect("reads").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort_unstable();
        assert_eq!(names, ["a.db", "a.db-shm", "a.db-wal", "b.db"], "nothing else is left");
    }

    #[test]
    fn a_copy_ends_when_it_is_cancelled_and_when_the_wal_is_too_large() {
        let folder = tempfile::tempdir().expect("a folder");
        let from = database(folder.path(), LARGE);
        let to = folder.path().join("b.db");
        for at in ["copying", "checking the copy"] {
            let cancelled = copy_with(&from, &to, LIMITS, &|progress| {
                if progress.step == at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            // The check of a small copy may be over before it is asked for the first time.
            if at == "copying" || cancelled.is_err() {
                assert_eq!(cancelled.expect_err(at).to_string(), "the copy was cancelled");
                assert!(!to.exists());
            } else {
                std::fs::remove_file(&to).expect("removes");
            }
        }
        let writer = Editor::open(&from).expect("opens");
        let limits = CopyLimits { rate: Some(1 << 20), wal: 2 << 20 };
        let refused = copy_with(&from, &to, limits, &|_| {
            writer.run("UPDATE t SET a = a + 1").expect("SQL");
            ControlFlow::Continue(())
        });
        let refused = refused.expect_err("is too large").to_string();
        assert!(refused.contains("its -wal file has ") && refused.contains("--max-wal"), "{refused}");
        assert!(!to.exists());
    }

    #[test]
    fn a_rate_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let from = database(folder.path(), LARGE);
        let size = std::fs::metadata(&from).expect("a file").len();
        let began = Instant::now();
        let limits = CopyLimits { rate: Some(8 << 20), ..LIMITS };
        copy_with(&from, &folder.path().join("b.db"), limits, &|_| ControlFlow::Continue(())).expect("copies");
        // All but the last step is paused after.
        let least = Duration::from_millis((size - (1 << 20)) * 1_000 / (8 << 20));
        assert!(began.elapsed() >= least, "{:?} for {size} bytes", began.elapsed());
    }

    #[test]
    fn what_is_no_whole_database_of_catchment_is_not_copied() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("text"), "no database\n".repeat(100)).expect("writes");
        Editor::open(&at("other")).expect("opens").run("CREATE TABLE t(a)").expect("SQL");
        for (name, words) in
            [("text", "not a database"), ("other", "it has no tables of catchment"), ("none", "there is no such file")]
        {
            let refused = copy(&at(name), &at("b.db")).expect_err(name).to_string();
            assert!(refused.contains(words), "{refused}");
        }
        let from = database(folder.path(), LARGE);
        let size = std::fs::metadata(&from).expect("a file").len();
        let mut bytes = std::fs::read(&from).expect("reads");
        let middle = usize::try_from(size / 2).expect("fits") / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0xa5);
        std::fs::write(&from, bytes).expect("writes");
        let refused = copy(&from, &at("b.db")).expect_err("is damaged").to_string();
        assert!(refused.contains("a.db: it is damaged: "), "{refused}");
        assert!(!at("b.db").exists());
    }

    #[test]
    fn a_database_of_a_fixture_is_copied() {
        let fixture = Fixture::with_routes("", &[], Unmatched::Store).expect("opens");
        let to = fixture.config.path.with_extension("copy");
        let contents = copy(&fixture.config.path, &to).expect("copies");
        assert_eq!((contents.identity.len(), contents.positions), (16, Vec::new()));
    }
}
