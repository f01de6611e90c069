//! Reads rows as they are committed, also if the database file is replaced by another one.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::lines::Rows;
use super::tables::{EVENTS, FollowedTable, Selection, hint_at_other_tables};
use crate::cli::output::Output;
use crate::error::Error;
use crate::store::{Reader, RowTable};

/// The longest time from a commit until its rows are printed.
const POLL: Duration = Duration::from_millis(100);

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
    has_logged_missing: bool,
}

/// Device and inode.
type FileId = (u64, u64);

impl Follower {
    /// Waits for the database to appear. Starts before the last `back` rows of each table.
    pub fn new(path: PathBuf, selection: Selection, back: usize, output: &Output) -> anyhow::Result<Self> {
        let (file, reader) = wait_for(&path, &selection, output)?;
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
            has_logged_missing: false,
        };
        follower.schema_version = Some(follower.reader.schema_version()?);
        for table in follower.found()? {
            follower.tables.push(FollowedTable::new(&follower.reader, table, back)?);
        }
        Ok(follower)
    }

    /// The next rows of a table, at least one, and whether several tables are followed. Blocks until there are any, or until the
    /// reader of the output has left.
    pub fn next(&mut self, output: &Output) -> anyhow::Result<(Rows, bool)> {
        loop {
            self.notice_new_tables()?;
            if let Some(rows) = self.new_rows()? {
                return Ok((rows, self.tables.len() > 1));
            }
            wait_for_poll(output)?;
            let file = file_id(&self.path);
            if file.is_some() && file != self.file {
                log::info!(
                    "database {}: was replaced by another file; printing the rows of the new one",
                    self.path.display()
                );
                (self.file, self.reader) = wait_for(&self.path, &self.selection, output)?;
                self.tables.clear();
                (self.schema_version, self.read_version) = (None, None);
            } else if self.reader.is_outdated() {
                self.reader = Reader::open(&self.path)?;
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
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        self.read_version = version;
        Ok(None)
    }

    /// Follows tables that were made since the last call, from their start. Forgets those that are gone.
    fn notice_new_tables(&mut self) -> Result<(), Error> {
        let version = Some(self.reader.schema_version()?);
        if version == self.schema_version {
            return Ok(());
        }
        let mut before = std::mem::take(&mut self.tables);
        for table in self.found()? {
            let known = before.iter().position(|followed| followed.table.name == table.name);
            self.tables.push(match known.map(|at| before.swap_remove(at)) {
                Some(mut followed) => {
                    followed.table = Arc::new(table);
                    followed
                }
                None => FollowedTable::from_its_start(table),
            });
        }
        (self.schema_version, self.read_version, self.turn) = (version, None, 0);
        Ok(())
    }

    /// The selected tables that exist. Logs once which do not.
    fn found(&mut self) -> Result<Vec<RowTable>, Error> {
        let (found, missing) = self.selection.found(&self.reader)?;
        if !missing.is_empty() && !self.has_logged_missing {
            self.has_logged_missing = true;
            let (missing, all) = (missing.join(", "), self.reader.table_names()?.join(", "));
            let path = self.path.display();
            log::warn!("database {path}: there is no table {missing}; waiting for it; the tables are {all}");
        }
        Ok(found)
    }
}

/// Waits, then checks that the output still has a reader (`| head`): there may be no row for hours.
fn wait_for_poll(output: &Output) -> std::io::Result<()> {
    thread::sleep(POLL);
    output.check_open()
}

/// Waits until there is a database with tables to follow.
fn wait_for(path: &Path, selection: &Selection, output: &Output) -> anyhow::Result<(Option<FileId>, Reader)> {
    let mut logged = false;
    loop {
        // Read before the file is opened: if the file is replaced in between, the next poll notices it.
        let file = file_id(path);
        if path.exists() {
            let reader = Reader::open(path)?;
            // Without table events, the process that makes the database has not committed yet. Other programs' have none.
            if reader.row_table(EVENTS)?.is_some() || !selection.found(&reader)?.0.is_empty() {
                return Ok((file, reader));
            }
        }
        if !logged {
            log::info!("database {}: waiting until it and its tables exist", path.display());
            logged = true;
        }
        wait_for_poll(output)?;
    }
}

fn file_id(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
