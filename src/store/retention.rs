//! Deletes the rows that `[retention]` does not keep, and gives their pages back to the file system.
//!
//! Which rows are to go is read outside of any transaction that writes. They are deleted by their keys in
//! [small transactions](small_transactions), which look again whether the rule is still for them.

mod age;
mod archive;
mod archive_database;
mod figures;
mod lines;
mod rule;
mod small_transactions;
mod target;

pub use figures::{RetentionFigures, RetentionStatus};

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::checkpointer::Checkpointer;
use super::commit_turn::CommitTurn;
use super::database_file::DatabaseFile;
use super::pool::ConnectionManager;
use super::read_connection::ReadConnection;
use super::schema;
use super::sqlite_error::database_error;
use super::statement_limit::StatementLimit;
use super::temp_store::use_files_if_possible;
use super::wal_frames;
use crate::config::RetentionConfig;
use crate::counted;
use crate::error::Error;
use crate::pipeline::Signal;
use archive::Archive;
use rule::{RuleError, RuleState};
use small_transactions::{Failure, Sizes, SmallTransactions};
use target::Target;

/// Free pages that stay in the file, besides a part of the used ones: new rows use them at once.
const SPARE_PAGES: u64 = 256;
const SPARE_PART: u64 = 64;

/// How many pages a step gives back.
const PAGES_PER_STEP: u64 = 16;

/// How often deletions are logged, at most.
const LOG_EVERY: Duration = Duration::from_secs(3_600);

/// Keeps the rules of `[retention]` in a database.
#[derive(Debug)]
pub struct Retention {
    manager: ConnectionManager,
    checkpointer: Arc<Checkpointer>,
    turn: CommitTurn,
    file: DatabaseFile,
    permissions: u32,
    config: RetentionConfig,
    figures: Arc<RetentionFigures>,
    /// What is known of each rule's rows from the last round, in the order of the rules.
    states: Vec<RuleState>,
    logged: Option<(Instant, RetentionStatus)>,
}

/// What a rule would delete now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionForecast {
    /// The table, as the settings name it.
    pub table: String,
    /// The condition of the rule.
    pub condition: Option<String>,
    /// How many rows.
    pub rows: u64,
}

impl Retention {
    pub(super) fn new(
        manager: ConnectionManager,
        checkpointer: Arc<Checkpointer>,
        turn: CommitTurn,
        file: DatabaseFile,
        permissions: u32,
        config: &RetentionConfig,
        figures: Arc<RetentionFigures>,
    ) -> Self {
        let states = config.tables.values().flat_map(|rules| &rules.0).map(|_| RuleState::default()).collect();
        let config = config.clone();
        Self { manager, checkpointer, turn, file, permissions, config, figures, states, logged: None }
    }

    /// The same, without a line in the log for what is deleted: whoever calls it prints that.
    #[must_use]
    pub fn unlogged(self) -> Self {
        Self { logged: Some((Instant::now(), RetentionStatus::default())), ..self }
    }

    /// Deletes all rows that are to go now, and gives free pages back. Blocks until that is done, or `stop` is raised. A collector
    /// commits meanwhile: each transaction takes some milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a rule that does not fit the database any more, or whose archive cannot be used; [`Error::Database`]. What
    /// was deleted before the error stays deleted. The rules after the one that failed are applied too; the first error is returned.
    pub fn round(&mut self, stop: &Signal) -> Result<(), Error> {
        let path = self.file.path().to_owned();
        self.file.must_be_the_same().map_err(|problem| problem.at(&path))?;
        let on_error = |e| database_error(&path, e);
        let connection = self.manager.open_plain().and_then(prepared).map_err(on_error)?;
        let limit = StatementLimit::of(&connection, stop).map_err(on_error)?;
        let page_size = connection.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(on_error)?;
        let work = SmallTransactions {
            connection: &connection,
            limit: &limit,
            turn: &self.turn,
            checkpointer: &self.checkpointer,
            figures: &self.figures,
            stop,
            page_size,
        };
        let mut first_error = None;
        let rules = self.config.tables.iter().flat_map(|(name, rules)| rules.0.iter().map(move |rule| (name, rule)));
        for ((name, rule), state) in rules.zip(&mut self.states) {
            let applied = Target::resolve(&connection, &path, name, rule).and_then(|target| {
                let archive = rule.archive.as_ref();
                let archive =
                    archive.map(|archive| Archive::new(archive, &target.table, &target.columns, self.permissions));
                rule::apply(&work, &target, archive.as_ref(), state, &path).or_else(|error| match error {
                    RuleError::Stopped => Ok(()),
                    RuleError::Other(error) => Err(error),
                })
            });
            if let Err(error) = applied
                && !stop.is_raised()
            {
                first_error.get_or_insert(error);
            }
        }
        if let Err(Failure::Sqlite(error)) = give_back(&work) {
            first_error.get_or_insert(on_error(error));
        }
        self.log();
        first_error.map_or(Ok(()), Err)
    }

    /// Logs what was deleted since the last line, if that was long ago.
    fn log(&mut self) {
        let now = self.figures.now();
        let before = match &self.logged {
            Some((at, _)) if at.elapsed() < LOG_EVERY => return,
            Some((_, before)) => before.clone(),
            None => RetentionStatus::default(),
        };
        if now.rows() == before.rows() {
            return;
        }
        let (rows, archived) = (now.rows() - before.rows(), now.archived_rows - before.archived_rows);
        let returned = now.returned_bytes - before.returned_bytes;
        let path = self.file.path().display();
        log::info!(
            event = "retention.deleted", database:% = path, rows = rows, archived = archived, returned_bytes = returned;
            "database {path}: retention deleted {}{}",
            counted(rows, "row"),
            in_an_archive(rows, archived)
        );
        self.logged = Some((Instant::now(), now));
    }
}

/// How many of the deleted rows are in an archive, after their number.
fn in_an_archive(rows: u64, archived: u64) -> String {
    match archived {
        0 => String::new(),
        all if all == rows => " that are in an archive".into(),
        some => format!(", {some} of them added to an archive before"),
    }
}

/// How many rows each rule would delete now. Changes nothing.
///
/// # Errors
///
/// [`Error::Config`] for a rule that does not fit the database; [`Error::Database`] if it cannot be read, or is none of catchment's.
pub fn forecast(path: &Path, config: &RetentionConfig, stop: &Signal) -> Result<Vec<RetentionForecast>, Error> {
    let reader = ReadConnection::open(path)?;
    let connection = reader.sqlite();
    schema::must_be_ours(connection, path)?;
    StatementLimit::of(connection, stop).map_err(|e| database_error(path, e))?;
    check(connection, path, config)?;
    let mut forecasts = Vec::new();
    for (name, rules) in &config.tables {
        for rule in &rules.0 {
            let target = Target::resolve(connection, path, name, rule)?;
            let rows = rule::forecast(connection, &target, path)?;
            forecasts.push(RetentionForecast { table: name.clone(), condition: rule.condition.clone(), rows });
        }
    }
    reader.unchanged()?;
    Ok(forecasts)
}

/// Checks that the rules fit the tables of one database, and that their archives can be used beside another one. Returns what
/// [`check`] returns.
///
/// # Errors
///
/// [`Error::Config`] for a rule that does not fit; [`Error::Database`].
pub fn check_tables(
    tables_of: &Path,
    database: &Path,
    config: &RetentionConfig,
) -> Result<Vec<(String, String)>, Error> {
    check(ReadConnection::open(tables_of)?.sqlite(), database, config)
}

/// Checks that the rules fit the database and that their archives can be used. Returns the statements that make missing indexes, with
/// the tables as the settings name them.
pub(super) fn check(
    connection: &Connection,
    path: &Path,
    config: &RetentionConfig,
) -> Result<Vec<(String, String)>, Error> {
    let mut missing = Vec::new();
    let mut archives: Vec<Archive> = Vec::new();
    for (name, rules) in &config.tables {
        for rule in &rules.0 {
            let target = Target::resolve(connection, path, name, rule)?;
            if let Some(archive) = &rule.archive {
                let archive = Archive::new(archive, &target.table, &target.columns, 0);
                let refused = |detail| Error::config(format!("retention.{name}.archive"), detail);
                archive.check(path).map_err(refused)?;
                let is_other = |other: &&Archive| other.table() != archive.table() && archive.shares_lines_with(other);
                if let Some(other) = archives.iter().find(is_other) {
                    let detail = format!("{} has the rows of {} too", archive.path().display(), other.table());
                    return Err(refused(detail).with_remedy("give each table a file of its own, or a database"));
                }
                // The mark in the database is that of a path: two paths would have two marks for one file.
                let respells = |other: &&Archive| other.path() != archive.path() && archive.is_same_file(other);
                if let Some(other) = archives.iter().find(respells) {
                    let (path, other) = (archive.path().display(), other.path().display());
                    let detail = format!("{path} is the same file as {other} of another rule");
                    return Err(refused(detail).with_remedy("give it the same path in all rules"));
                }
                archives.push(archive);
            }
            missing.extend(target.missing_index().map(|statement| (name.clone(), statement)));
        }
    }
    missing.dedup();
    Ok(missing)
}

/// A connection for retention: the turn is waited for, and not SQLite's lock; statements that sort use files.
fn prepared(connection: Connection) -> rusqlite::Result<Connection> {
    wal_frames::count(&connection);
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_update(None, "temp_store", "DEFAULT")?;
    use_files_if_possible(&connection)?;
    Ok(connection)
}

/// Gives free pages back to the file system, except for a few. Only where the database was made for that.
fn give_back(work: &SmallTransactions<'_>) -> Result<(), Failure> {
    /// `PRAGMA auto_vacuum` of a database that can.
    const INCREMENTAL: i64 = 2;
    let mode: i64 = work.connection.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?;
    let sizes = Sizes::of(work.connection)?;
    let spare = SPARE_PAGES + sizes.used() / SPARE_PART;
    let excess = sizes.free.saturating_sub(spare);
    if mode != INCREMENTAL || excess < PAGES_PER_STEP {
        return Ok(());
    }
    let steps = usize::try_from(excess / PAGES_PER_STEP).unwrap_or(usize::MAX);
    let sql = format!("PRAGMA incremental_vacuum({PAGES_PER_STEP})");
    let step = |connection: &Connection, _| {
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(0)
    };
    let (done, ran) = work.run(steps, step, |_| Ok(()));
    if done.returned > 0 {
        // The file becomes shorter when a checkpoint is complete.
        work.checkpointer.checkpoint_soon();
    }
    ran
}

#[cfg(test)]
mod tests;
