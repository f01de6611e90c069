//! Copies committed pages from the WAL into the database, on a thread of its own.
//!
//! By default SQLite does this within the commit that makes the WAL too large, and that commit waits until both files are synced
//! (<https://sqlite.org/wal.html#performance_considerations>). Here a commit only counts the WAL's frames, and wakes the thread when
//! a checkpoint is due. The thread's checkpoints are passive: they block neither commits nor readers.
//!
//! SQLite writes to the beginning of the WAL again once every frame is copied and no reader needs one. While commits follow each
//! other without a pause, each checkpoint ends with a few new frames that it did not copy. So if the WAL continues to grow, a
//! commit copies these few itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use parking_lot::Mutex;
use rusqlite::{Connection, InterruptHandle};

use super::database_file::DatabaseFile;
use super::interrupter::end_interrupt;
use super::pool::ConnectionManager;
use super::sqlite_error::one_line;
use super::wal_frames::{self, WalFrames};
use crate::config::Checkpoints;

/// How many frames the WAL may have.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// A checkpoint is due after this many further frames.
    step: u32,
    /// From here on a commit copies the last frames itself, if they are fewer than `step`.
    finish: u32,
    /// From here on a commit waits for the checkpoint that is running.
    wait: u32,
}

/// 16 MiB, 64 MiB and 256 MiB with pages of 4 KiB.
const LIMITS: Limits = Limits { step: 4_000, finish: 16_000, wait: 64_000 };

/// A quarter of that, for a file whose content changes all the time and that should stay small.
const SMALL_LIMITS: Limits = Limits { step: 1_000, finish: 2_000, wait: 16_000 };

/// How often to try again while a reader prevents a large WAL from being reused.
const RETRY: Duration = Duration::from_secs(5);

/// Starts checkpoints of a database when they are due. Its thread starts with the first one and ends when this is dropped.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Mutex<Thread>,
}

enum Thread {
    NotStarted,
    Running {
        wake: Sender<()>,
        thread: JoinHandle<()>,
    },
    /// The system refused a thread: commits run the checkpoints.
    Refused,
}

struct Shared {
    manager: ConnectionManager,
    file: DatabaseFile,
    limits: Limits,
    /// Another program runs the checkpoints.
    is_external: bool,
    wal: Arc<WalFrames>,
    /// The next checkpoint is due when the WAL has this many frames.
    due: AtomicU32,
    /// A commit copies the last frames itself when the WAL has this many.
    finish: AtomicU32,
    /// Locked while a checkpoint runs.
    running: Mutex<()>,
    /// Ends a checkpoint when this is dropped.
    interrupt: Mutex<Option<InterruptHandle>>,
}

/// The result of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checkpoint {
    frames: u32,
    copied: u32,
}

impl fmt::Debug for Checkpointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointer").field("file", &self.shared.file).finish_non_exhaustive()
    }
}

impl Checkpointer {
    pub(super) fn new(manager: ConnectionManager, file: DatabaseFile, checkpoints: Checkpoints) -> Self {
        Self::with_limits(manager, file, LIMITS, checkpoints)
    }

    /// For a file that should stay small.
    pub(super) fn small(manager: ConnectionManager, file: DatabaseFile) -> Self {
        Self::with_limits(manager, file, SMALL_LIMITS, Checkpoints::default())
    }

    fn with_limits(manager: ConnectionManager, file: DatabaseFile, limits: Limits, checkpoints: Checkpoints) -> Self {
        let shared = Shared {
            manager,
            file,
            limits,
            is_external: checkpoints == Checkpoints::External,
            wal: Arc::default(),
            due: AtomicU32::new(limits.step),
            finish: AtomicU32::new(limits.finish),
            running: Mutex::new(()),
            interrupt: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), thread: Mutex::new(Thread::NotStarted) }
    }

    /// How many frames the WAL has.
    pub(super) fn wal(&self) -> &Arc<WalFrames> {
        &self.shared.wal
    }

    /// Called after each commit, by the thread that committed on this connection. Its frames must be
    /// [counted](wal_frames::count).
    pub(super) fn committed(&self, connection: &Connection) {
        let Shared { limits, wal, due, finish, .. } = &*self.shared;
        let WalFrames { written: frames, copied } = &**wal;
        let now = wal_frames::take();
        if now == 0 {
            return;
        }
        if now < frames.swap(now, Ordering::Relaxed) {
            // SQLite has begun the WAL anew.
            copied.store(0, Ordering::Relaxed);
            due.store(limits.step, Ordering::Relaxed);
            finish.store(limits.finish, Ordering::Relaxed);
        }
        if self.shared.is_external {
            return;
        }
        if now >= due.load(Ordering::Relaxed) && !self.wake() {
            return self.shared.finish_on(connection);
        }
        if now < finish.load(Ordering::Relaxed) {
            return;
        }
        let behind = now.saturating_sub(copied.load(Ordering::Relaxed));
        if now >= limits.wait || (behind < limits.step && !self.shared.running.is_locked()) {
            self.shared.finish_on(connection);
        }
    }

    /// Starts a checkpoint on the thread, although none is due. Does not block.
    pub(super) fn checkpoint_soon(&self) {
        if !self.shared.is_external {
            self.wake();
        }
    }

    /// Wakes the thread. `false` if there is none.
    fn wake(&self) -> bool {
        let mut thread = self.thread.lock();
        if let Thread::NotStarted = *thread {
            let (wake, woken) = crossbeam_channel::bounded(1);
            let shared = Arc::clone(&self.shared);
            let spawned = std::thread::Builder::new().name("catchment-checkpointer".into());
            *thread = match spawned.spawn(move || shared.run(&woken)) {
                Ok(thread) => Thread::Running { wake, thread },
                Err(error) => {
                    log::debug!("database: the system gives no thread for checkpoints: {error}; commits run them");
                    Thread::Refused
                }
            };
        }
        match &*thread {
            Thread::Running { wake, .. } => {
                let _ = wake.try_send(());
                true
            }
            Thread::NotStarted | Thread::Refused => false,
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        if let Thread::Running { wake, thread } = std::mem::replace(&mut *self.thread.lock(), Thread::Refused) {
            drop(wake);
            if let Some(handle) = self.shared.interrupt.lock().as_ref() {
                handle.interrupt();
            }
            // It has logged what went wrong.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The thread: one checkpoint each time it is woken.
    fn run(&self, woken: &Receiver<()>) {
        let mut connection = None;
        let mut trouble = false;
        let mut held_back = false;
        loop {
            let wait = if held_back { RETRY } else { Duration::MAX };
            match woken.recv_timeout(wait) {
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            }
            match self.checkpoint_on(&mut connection) {
                // Another program copies: it is tried again with the next commits.
                Ok(None) => {}
                Ok(Some(checkpoint)) => {
                    if std::mem::take(&mut trouble) {
                        let path = self.file.path().display();
                        log::info!(
                            event = "checkpoint.recovered", database:% = path;
                            "database {path}: checkpoints succeed again"
                        );
                    }
                    let was_held_back = std::mem::replace(&mut held_back, self.is_held_back(checkpoint));
                    self.report(checkpoint, was_held_back, held_back);
                    if let (true, false, Some(connection)) = (was_held_back, held_back, &connection) {
                        self.truncate(connection);
                    }
                }
                Err(_) if is_over(woken) => break,
                Err(error) => {
                    connection = None;
                    self.due.store(self.wal.written.load(Ordering::Relaxed) + self.limits.step, Ordering::Relaxed);
                    if !std::mem::replace(&mut trouble, true) {
                        let path = self.file.path().display();
                        log::warn!(
                            event = "checkpoint.failed", database:% = path, error:% = error;
                            "database {path}: a checkpoint failed, so its -wal file grows: {error}"
                        );
                    }
                }
            }
        }
        // From here on nothing interrupts it.
        *self.interrupt.lock() = None;
        connection.iter().for_each(end_interrupt);
    }

    /// Whether a reader prevents a large WAL from being reused.
    fn is_held_back(&self, Checkpoint { frames, copied }: Checkpoint) -> bool {
        frames >= self.limits.wait && frames.saturating_sub(copied) >= self.limits.step
    }

    /// Reports when a reader begins to hold a large WAL, and when it no longer does.
    fn report(&self, checkpoint: Checkpoint, was_held_back: bool, is_held_back: bool) {
        let path = self.file.path().display();
        match (was_held_back, is_held_back) {
            (false, true) => log::warn!(
                event = "wal.held", database:% = path, pages = checkpoint.frames;
                "database {path}: its -wal file has {} pages and grows: a program that reads the database has not ended its \
                 transaction; end it",
                checkpoint.frames
            ),
            (true, false) => {
                log::info!(
                    event = "wal.released", database:% = path;
                    "database {path}: its -wal file can be reused again"
                );
            }
            _ => {}
        }
    }

    /// A checkpoint on the thread's own connection, which is opened if necessary. `None` if another program runs one.
    fn checkpoint_on(&self, connection: &mut Option<Connection>) -> Result<Option<Checkpoint>, String> {
        // Opening creates an empty file if there is none.
        self.file.must_be_the_same().map_err(|problem| problem.to_string())?;
        let connection = match connection {
            Some(connection) => connection,
            none => none.insert(self.open()?),
        };
        let _running = self.running.lock();
        let checkpoint = passive(connection).map_err(|e| one_line(&e))?;
        self.note(checkpoint);
        Ok(checkpoint)
    }

    /// Opens the thread's connection. It waits for nobody: the thread tries again later.
    fn open(&self) -> Result<Connection, String> {
        let opened = self.manager.open_plain().map_err(|e| one_line(&e))?;
        opened.busy_timeout(Duration::ZERO).map_err(|e| one_line(&e))?;
        *self.interrupt.lock() = Some(opened.get_interrupt_handle());
        Ok(opened)
    }

    /// Copies the last frames on the connection of a commit, whose thread does not commit meanwhile.
    fn finish_on(&self, connection: &Connection) {
        let _running = self.running.lock();
        match passive(connection) {
            Ok(checkpoint) => self.note(checkpoint),
            Err(error) => log::debug!("database {}: checkpoint: {}", self.file.path().display(), one_line(&error)),
        }
        // If it was not complete, a reader still needs a frame: other commits do not try again at once.
        let next = self.wal.written.load(Ordering::Relaxed) + self.limits.step;
        self.finish.store(next, Ordering::Relaxed);
        self.due.fetch_max(next, Ordering::Relaxed);
    }

    fn note(&self, checkpoint: Option<Checkpoint>) {
        let frames = match checkpoint {
            Some(Checkpoint { frames, copied }) => {
                self.wal.copied.store(copied, Ordering::Relaxed);
                frames
            }
            None => self.wal.written.load(Ordering::Relaxed),
        };
        self.due.store(frames + self.limits.step, Ordering::Relaxed);
    }

    /// Makes the WAL's file small again, unless a program uses it at this moment.
    fn truncate(&self, connection: &Connection) {
        // SQLite runs one checkpoint at a time: a commit that must finish one waits for this instead of being refused.
        let _running = self.running.lock();
        let result = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = result {
            log::debug!("database: the -wal file keeps its size: {}", one_line(&error));
        }
    }
}

/// Whether the checkpointer was dropped. It may have woken the thread before.
fn is_over(woken: &Receiver<()>) -> bool {
    woken.try_iter().for_each(drop);
    matches!(woken.try_recv(), Err(TryRecvError::Disconnected))
}

/// Copies what can be copied without waiting for anybody. `None` if another connection runs a checkpoint:
/// <https://sqlite.org/pragma.html#pragma_wal_checkpoint>.
fn passive(connection: &Connection) -> rusqlite::Result<Option<Checkpoint>> {
    let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
    let (frames, copied) = statement.query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
    // Both are -1 if it was not run.
    Ok(u32::try_from(frames).ok().zip(u32::try_from(copied).ok()).map(|(frames, copied)| Checkpoint { frames, copied }))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::Unmatched;
    use crate::store::fixture::Fixture;

    const SMALL: Limits = Limits { step: 50, finish: 200, wait: 1_000 };

    /// A database, a connection whose commits are counted, and a checkpointer with small limits.
    fn set_up() -> (Fixture, Connection, Checkpointer) {
        let fixture = Fixture::with_routes("CREATE TABLE t(x)", &[], Unmatched::Store).expect("opens");
        let manager = ConnectionManager::new(&fixture.config, 0);
        let connection = manager.open_counted().expect("opens").sqlite;
        let checkpointer =
            Checkpointer::with_limits(manager, DatabaseFile::at(&fixture.config.path), SMALL, Checkpoints::Auto);
        (fixture, connection, checkpointer)
    }

    /// Commits one row, and returns how many frames the WAL has then.
    fn commit(connection: &Connection, checkpointer: &Checkpointer) -> u32 {
        connection.execute("INSERT INTO t VALUES (randomblob(3000))", []).expect("commits");
        checkpointer.committed(connection);
        checkpointer.shared.wal.written.load(Ordering::Relaxed)
    }

    #[test]
    fn the_wal_stays_small_under_commits_without_a_pause() {
        let (_fixture, connection, checkpointer) = set_up();
        let largest = (0..5_000).map(|_| commit(&connection, &checkpointer)).max().expect("commits");
        // A commit adds a few frames.
        assert!(largest < SMALL.wait + SMALL.step, "{largest}");
    }

    #[test]
    fn the_thread_copies_the_frames_of_a_pause() {
        let (_fixture, connection, checkpointer) = set_up();
        while commit(&connection, &checkpointer) < SMALL.step {}
        let until = Instant::now() + Duration::from_mins(1);
        while checkpointer.shared.wal.copied.load(Ordering::Relaxed) < SMALL.step && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(checkpointer.shared.wal.copied.load(Ordering::Relaxed) >= SMALL.step);
        assert!(commit(&connection, &checkpointer) < SMALL.step, "the WAL must begin anew");
    }

    #[test]
    fn a_reader_makes_the_wal_grow_only_as_long_as_it_reads() {
        let (fixture, connection, checkpointer) = set_up();
        let reader = ConnectionManager::new(&fixture.config, 0).open_plain().expect("opens");
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").expect("reads");
        let frames = (0..SMALL.wait).map(|_| commit(&connection, &checkpointer)).last().expect("commits");
        assert!(frames >= SMALL.wait, "{frames}");
        reader.execute_batch("COMMIT").expect("ends");
        let mut commits = 0;
        while commit(&connection, &checkpointer) > SMALL.step {
            commits += 1;
            assert!(commits < 2 * SMALL.step, "the WAL does not begin anew");
        }
    }

    #[test]
    fn another_connections_checkpoint_is_waited_for_and_not_taken_for_ours() {
        let (fixture, connection, checkpointer) = set_up();
        commit(&connection, &checkpointer);
        let open = || ConnectionManager::new(&fixture.config, 0).open_plain().expect("opens");
        let (reader, other, third) = (open(), open(), open());
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").expect("reads");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                other.busy_timeout(Duration::from_mins(1)).expect("is set");
                // It waits for the reader, once it does not meet a checkpoint of the third.
                let restart = "PRAGMA wal_checkpoint(RESTART)";
                while other.query_row(restart, [], |row| row.get::<_, bool>(0)).expect("ends") {}
            });
            while passive(&third).expect("is answered").is_some() {
                std::thread::yield_now();
            }
            reader.execute_batch("COMMIT").expect("ends");
        });
        assert!(passive(&third).expect("is answered").is_some());
    }

    #[test]
    fn the_last_connection_to_close_leaves_no_wal() {
        let (fixture, connection, checkpointer) = set_up();
        while commit(&connection, &checkpointer) < 4 * SMALL.step {}
        let until = Instant::now() + Duration::from_mins(1);
        while checkpointer.shared.interrupt.lock().is_none() {
            assert!(Instant::now() < until, "the thread has no connection");
            std::thread::yield_now();
        }
        let wal = fixture.config.path.with_extension("db-wal");
        assert!(wal.exists(), "{}", wal.display());
        drop(connection);
        drop(checkpointer);
        assert!(
            !wal.exists(),
            "the thread's connection is the last, and is interrupted as the checkpointer is dropped"
        );
    }

    #[test]
    fn without_a_thread_commits_run_the_checkpoints() {
        let (_fixture, connection, checkpointer) = set_up();
        *checkpointer.thread.lock() = Thread::Refused;
        let largest = (0..1_000).map(|_| commit(&connection, &checkpointer)).max().expect("commits");
        assert!(largest < 2 * SMALL.step, "{largest}");
    }
}
