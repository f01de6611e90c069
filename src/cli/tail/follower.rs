//! Reads rows as they are committed, also if the database file is replaced by another one.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::lines::Rows;
use super::tables::{EVENTS, FollowedTable, Selection, hint_at_other_tables, must_be_none};
use crate::cli::failure::ExitStatus;
use crate::cli::output::Output;
use crate::cli::signals::Signals;
use crate::cli::values::printable;
use crate::error::Error;
use crate::store::{Lock, Reader, StartPhase};

/// The longest time from a commit until its rows are printed.
const POLL: Duration = Duration::from_millis(100);

/// How long a process may need from the first table that it makes to the last one.
const GRACE: Duration = Duration::from_secs(1);

/// Follows the selected tables.
pub struct Follower {
    path: PathBuf,
    selection: Selection,
    reader: Reader,
    file: Option<FileId>,
    tables: Vec<FollowedTable>,
    /// The table that is read next. Each has its turn, so that none waits for a busy one.
    turn: usize,
    /// The state of the database whose rows were all read.
    read_version: Option<i64>,
    /// The state of the schema for which `tables` was made.
    schema_version: Option<i64>,
    signals: Signals,
}

/// Device and inode.
type FileId = (u64, u64);

impl Follower {
    /// Waits for the database to appear. Starts before the last `back` rows of each table.
    ///
    /// # Errors
    ///
    /// The database cannot be read, or has not one of the tables that are named; a signal came.
    pub fn new(
        path: PathBuf,
        selection: Selection,
        back: usize,
        signals: Signals,
        output: &Output,
    ) -> anyhow::Result<Self> {
        let (file, reader) = wait_for(&path, &selection, &signals, output)?;
        if selection.is_plain() {
            hint_at_other_tables(&reader)?;
        }
        let mut follower = Self {
            path,
            selection,
            reader,
            file,
            tables: Vec::new(),
            turn: 0,
            read_version: None,
            schema_version: None,
            signals,
        };
        follower.schema_version = Some(follower.reader.schema_version()?);
        for (table, filter) in follower.selection.found(&follower.reader)?.tables {
            follower.tables.push(FollowedTable::new(&follower.reader, table, filter, back)?);
        }
        Ok(follower)
    }

    /// The next rows of a table, at least one, and whether several tables are followed. Blocks until there are any.
    ///
    /// # Errors
    ///
    /// The database cannot be read; the reader of the output has left; a signal came.
    pub fn next(&mut self, output: &Output) -> anyhow::Result<(Rows, bool)> {
        loop {
            not_ended(&self.signals)?;
            self.notice_new_tables()?;
            match self.new_rows() {
                Ok(Some(rows)) => return Ok((rows, self.tables.len() > 1)),
                Ok(None) => {}
                // A table was removed or changed in between.
                Err(_) if Some(self.reader.schema_version()?) != self.schema_version => continue,
                Err(error) => return Err(error.into()),
            }
            wait_for_poll(&self.signals, output)?;
            let file = file_id(&self.path);
            if file.is_some() && file != self.file {
                log::info!(
                    "database {}: was replaced by another file; printing the rows of the new one",
                    self.path.display()
                );
                (self.file, self.reader) = wait_for(&self.path, &self.selection, &self.signals, output)?;
                self.tables.clear();
                (self.schema_version, self.read_version) = (None, None);
            } else if self.reader.is_outdated() {
                self.reader = open(&self.path, &self.signals)?;
                self.read_version = None;
            }
        }
    }

    fn new_rows(&mut self) -> Result<Option<Rows>, Error> {
        let version = Some(self.reader.version()?);
        if version == self.read_version {
            return Ok(None);
        }
        for _ in 0..self.tables.len() {
            let at = self.turn % self.tables.len();
            self.turn = at + 1;
            let rows = self.tables[at].next(&self.reader, usize::MAX)?;
            self.tables[at].warn_if_numbers_end();
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        self.read_version = version;
        Ok(None)
    }

    /// Follows tables that were made since the last call, from their start. Forgets those that are gone.
    fn notice_new_tables(&mut self) -> anyhow::Result<()> {
        let version = Some(self.reader.schema_version()?);
        if version == self.schema_version {
            return Ok(());
        }
        let mut before = std::mem::take(&mut self.tables);
        for (table, filter) in self.selection.found(&self.reader)?.tables {
            let known = before.iter().position(|followed| followed.table.name == table.name);
            self.tables.push(match known.map(|at| before.swap_remove(at)) {
                Some(mut followed) => {
                    followed.replace(table, filter);
                    followed
                }
                None => FollowedTable::from_its_start(table, filter),
            });
        }
        for gone in before {
            let (path, name) = (self.path.display(), printable(&gone.table.name));
            log::warn!(
                "database {path}: table {name} was removed; its rows are printed again once there is such a table"
            );
        }
        (self.schema_version, self.read_version, self.turn) = (version, None, 0);
        Ok(())
    }
}

/// Waits, then checks that the output still has a reader (`| head`): there may be no row for hours.
fn wait_for_poll(signals: &Signals, output: &Output) -> anyhow::Result<()> {
    thread::sleep(POLL);
    not_ended(signals)?;
    Ok(output.check_open()?)
}

fn not_ended(signals: &Signals) -> Result<(), ExitStatus> {
    signals.interrupted().map_or(Ok(()), Err)
}

fn open(path: &Path, signals: &Signals) -> Result<Reader, Error> {
    let reader = Reader::open(path)?;
    reader.interrupt_when(signals.flag())?;
    Ok(reader)
}

/// Waits until there is a database with all tables that are named, or with any of those to follow. If a named one is missing for
/// [`GRACE`], the database is refused, unless a collector that is starting may make it.
fn wait_for(
    path: &Path,
    selection: &Selection,
    signals: &Signals,
    output: &Output,
) -> anyhow::Result<(Option<FileId>, Reader)> {
    let (mut logged, mut missing_since) = (false, None::<Instant>);
    loop {
        // Read before the file is opened: if the file is replaced in between, the next poll notices it.
        let file = file_id(path);
        if path.exists() {
            // Read before the tables: a start that ends in between has made them.
            let is_starting = Lock::phase(path).is_some_and(|phase| phase != StartPhase::Running);
            let reader = open(path, signals)?;
            let found = selection.found(&reader)?;
            if !is_starting {
                found.must_be_fit()?;
            }
            // Without table events, the process that makes the database has not committed yet. Other programs' have none.
            let is_made = reader.row_table(EVENTS)?.is_some();
            if found.missing.is_empty() && !found.is_unfit() && (is_made || !found.tables.is_empty()) {
                return Ok((file, reader));
            }
            let is_made = is_made || !reader.table_names()?.is_empty();
            if !is_made || is_starting {
                missing_since = None;
            } else if missing_since.get_or_insert_with(Instant::now).elapsed() >= GRACE {
                must_be_none(&reader, &found.missing)?;
            }
        }
        if !logged {
            log::info!("database {}: waiting until it and its tables exist", path.display());
            logged = true;
        }
        wait_for_poll(signals, output)?;
    }
}

fn file_id(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
