//! Applies one rule to its table.

use std::path::Path;

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::age::{self, Range};
use super::archive::Archive;
use super::small_transactions::{Failure, Sizes, SmallTransactions};
use super::target::{Target, Time};
use crate::error::Error;
use crate::store::cell::Cell;
use crate::store::meta;
use crate::store::schema::quoted;
use crate::store::sqlite_error::{database_error, is_constraint, message};
use crate::unix_time::now_us;

/// How many rows are found at a time.
const CHUNK: usize = 5_000;

/// How many at a time go to an archive, and how many bytes they may have: they are in memory together.
const ARCHIVE_CHUNK: usize = 1_000;
const ARCHIVE_BYTES: usize = 16 << 20;

/// Above so many rows, `rows` lets a hundredth more in before the rows are counted again: counting reads an entry of each.
const MANY_ROWS: u64 = 1_000_000;
const PART: u64 = 100;

/// How often a table is measured in a round: rows differ in size, so the first estimate may be wrong.
const MEASUREMENTS: u32 = 8;

/// What is known of a rule's rows from the last round.
#[derive(Debug, Default)]
pub(super) struct RuleState {
    /// How many rows there were at most, and the highest number then.
    counted: Option<(u64, i64)>,
    /// How many bytes the table had at most, and how many pages were used in the file then.
    measured: Option<(u64, u64)>,
    /// Up to this number all rows are too old; those that are left are kept by the condition. And the lowest number then.
    passed: Option<(i64, i64)>,
}

/// Why a rule was not applied completely.
#[derive(Debug)]
pub(super) enum RuleError {
    Stopped,
    Other(Error),
}

/// A rule that is being applied.
struct Rule<'a> {
    work: &'a SmallTransactions<'a>,
    target: &'a Target,
    archive: Option<&'a Archive>,
    path: &'a Path,
}

/// Deletes the rows that the rule does not keep.
pub(super) fn apply(
    work: &SmallTransactions<'_>,
    target: &Target,
    archive: Option<&Archive>,
    state: &mut RuleState,
    path: &Path,
) -> Result<(), RuleError> {
    let rule = Rule { work, target, archive, path };
    if let (Some(_), Some(time)) = (target.rule.keep, &target.time) {
        rule.delete_old(time, state)?;
    }
    if let Some(most) = target.rule.rows {
        rule.delete_beyond_rows(most, state)?;
    }
    if let Some(most) = target.rule.bytes {
        rule.delete_beyond_bytes(most.as_u64(), state)?;
    }
    Ok(())
}

/// How many rows the rule would delete now.
pub(super) fn forecast(connection: &Connection, target: &Target, path: &Path) -> Result<u64, Error> {
    let on_error = |e| database_error(path, e);
    let mut rows = 0;
    if let (Some(_), Some(time)) = (target.rule.keep, &target.time) {
        let sql = target.count_old_sql(&time.column);
        for range in ranges(connection, target, time, path)? {
            let count = connection.query_row(&sql, params_from_iter(&range), |row| row.get::<_, u64>(0));
            rows += count.map_err(on_error)?;
        }
    }
    let count: u64 = connection.query_row(&target.count_sql(), [], |row| row.get(0)).map_err(on_error)?;
    if let Some(most) = target.rule.rows {
        rows = rows.max(count.saturating_sub(most));
    }
    if let Some(most) = target.rule.bytes {
        let (bytes, cells) = measure(connection, target).map_err(on_error)?;
        rows = rows.max(rows_for(bytes.saturating_sub(most.as_u64()), bytes, cells).min(count));
    }
    Ok(rows)
}

impl Rule<'_> {
    fn delete_old(&self, time: &Time, state: &mut RuleState) -> Result<(), RuleError> {
        let connection = self.work.connection;
        for range in ranges(connection, self.target, time, self.path).map_err(RuleError::Other)? {
            match self.target.rowid {
                Some(rowid) if time.is_own && !time.is_indexed => {
                    self.delete_old_in_order(rowid, time, &range, state)?;
                }
                _ => self.delete_range(time, &range)?,
            }
        }
        Ok(())
    }

    fn delete_range(&self, time: &Time, range: &Range) -> Result<(), RuleError> {
        let sql = self.target.old_sql(&time.column);
        loop {
            let limit = i64::try_from(self.chunk()).unwrap_or(i64::MAX);
            let parameters: [&dyn ToSql; 3] = [&range[0], &range[1], &limit];
            let keys = self.keys(&sql, &parameters)?;
            if keys.is_empty() || self.delete(&keys, Some(range))? == 0 {
                return Ok(());
            }
        }
    }

    /// Rows were added in the order of their times. Reads them in this order, until a part has none that is too old. So no index is
    /// needed.
    fn delete_old_in_order(
        &self,
        rowid: &str,
        time: &Time,
        range: &Range,
        state: &mut RuleState,
    ) -> Result<(), RuleError> {
        let (connection, target) = (self.work.connection, self.target);
        let table = quoted(&target.table);
        let lowest_sql = format!("SELECT min({rowid}) FROM {table}");
        let lowest = || connection.query_row(&lowest_sql, [], |row| row.get::<_, Option<i64>>(0));
        let end_sql = format!(
            "SELECT max({rowid}) FROM (SELECT {rowid} FROM {table} WHERE {rowid} > ? ORDER BY {rowid} LIMIT {CHUNK})"
        );
        let window_sql = target.window_sql(rowid, &time.column);
        // Numbers begin again when a table was empty.
        let first = lowest().map_err(|e| self.failed(e.into()))?;
        let known = state.passed.filter(|(_, lowest)| first.is_some_and(|first| first >= *lowest));
        let mut after = known.map_or(i64::MIN, |(passed, _)| passed);
        let mut passed = None;
        loop {
            let end = connection.query_row(&end_sql, [after], |row| row.get::<_, Option<i64>>(0));
            let Some(end) = end.map_err(|e| self.failed(e.into()))? else { break };
            let read = || -> rusqlite::Result<Vec<(i64, bool, bool)>> {
                let mut statement = connection.prepare_cached(&window_sql)?;
                let row = |row: &rusqlite::Row<'_>| {
                    let is_true = |at| Ok::<_, rusqlite::Error>(row.get::<_, Option<bool>>(at)?.unwrap_or(false));
                    Ok((row.get(0)?, is_true(1)?, is_true(2)?))
                };
                statement.query_map(rusqlite::params![after, end, range[1]], row)?.collect()
            };
            let window = read().map_err(|e| self.failed(e.into()))?;
            let keys: Vec<Vec<Cell>> =
                window.iter().filter(|(_, _, goes)| *goes).map(|(number, ..)| vec![Cell::Integer(*number)]).collect();
            for keys in keys.chunks(self.chunk()) {
                self.delete(keys, Some(range))?;
            }
            let first_new = window.iter().find(|(_, is_old, _)| !is_old);
            if let Some((number, ..)) = first_new {
                passed.get_or_insert(number - 1);
            }
            if !window.iter().any(|(_, is_old, _)| *is_old) {
                break;
            }
            after = end;
        }
        let passed = passed.unwrap_or(after);
        let lowest = lowest().map_err(|e| self.failed(e.into()))?;
        state.passed = lowest.map(|lowest| (passed, lowest));
        Ok(())
    }

    fn delete_beyond_rows(&self, most: u64, state: &mut RuleState) -> Result<(), RuleError> {
        let newest = self.newest()?;
        let slack = if most > MANY_ROWS { most / PART } else { 0 };
        if let (Some((count, then)), Some(now)) = (state.counted, newest)
            && let Ok(added) = u64::try_from(now - then)
            && count + added <= most + slack
        {
            return Ok(());
        }
        let sql = self.target.count_sql();
        let count: u64 =
            self.work.connection.query_row(&sql, [], |row| row.get(0)).map_err(|e| self.failed(e.into()))?;
        let deleted = self.delete_oldest(count.saturating_sub(most))?;
        state.counted = newest.map(|newest| (count.saturating_sub(deleted), newest));
        Ok(())
    }

    fn delete_beyond_bytes(&self, most: u64, state: &mut RuleState) -> Result<(), RuleError> {
        let connection = self.work.connection;
        let page_size = self.work.page_size;
        let used = || Sizes::of(connection).map(Sizes::used).map_err(|e| self.failed(e.into()));
        if let Some((bytes, then)) = state.measured
            && bytes + used()?.saturating_sub(then) * page_size <= most
        {
            return Ok(());
        }
        for _ in 0..MEASUREMENTS {
            let (bytes, cells) = measure(connection, self.target).map_err(|e| self.failed(e.into()))?;
            state.measured = Some((bytes, used()?));
            // A little more, so that the table need not be measured again soon.
            if bytes <= most || self.delete_oldest(rows_for(bytes - (most - most / PART), bytes, cells))? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Deletes up to so many of the oldest rows. Returns how many it has deleted.
    fn delete_oldest(&self, rows: u64) -> Result<u64, RuleError> {
        let sql = self.target.oldest_sql();
        let mut deleted = 0;
        while deleted < rows {
            let limit = (rows - deleted).min(self.chunk() as u64);
            let keys = self.keys(&sql, &[&i64::try_from(limit).unwrap_or(i64::MAX)])?;
            let now = if keys.is_empty() { 0 } else { self.delete(&keys, None)? };
            if now == 0 {
                break;
            }
            deleted += now;
        }
        Ok(deleted)
    }

    fn chunk(&self) -> usize {
        if self.archive.is_some() { ARCHIVE_CHUNK } else { CHUNK }
    }

    /// The highest number of a row, if rows have numbers.
    fn newest(&self) -> Result<Option<i64>, RuleError> {
        let Some(rowid) = self.target.rowid else { return Ok(None) };
        let sql = format!("SELECT max({rowid}) FROM {}", quoted(&self.target.table));
        self.work.connection.query_row(&sql, [], |row| row.get(0)).map_err(|e| self.failed(e.into()))
    }

    fn keys(&self, sql: &str, parameters: &[&dyn ToSql]) -> Result<Vec<Vec<Cell>>, RuleError> {
        let length = self.target.key_length();
        let read = || {
            let mut statement = self.work.connection.prepare_cached(sql)?;
            statement.query_map(parameters, |row| Cell::row(row, 0, length))?.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|e| self.failed(e.into()))
    }

    /// Deletes the rows with these keys, if they are still to go; with an archive, after they were added to it. Returns how many were
    /// deleted.
    fn delete(&self, keys: &[Vec<Cell>], range: Option<&Range>) -> Result<u64, RuleError> {
        match self.archive {
            None => {
                let parameters: Vec<Vec<&Cell>> =
                    keys.iter().map(|key| key.iter().chain(range.into_iter().flatten()).collect()).collect();
                let deleted = self.delete_rows(&self.target.delete_sql(range.is_some(), false), &parameters, None)?;
                Ok(deleted)
            }
            Some(archive) => self.archive_and_delete(archive, keys, range),
        }
    }

    fn archive_and_delete(
        &self,
        archive: &Archive,
        keys: &[Vec<Cell>],
        range: Option<&Range>,
    ) -> Result<u64, RuleError> {
        let mut deleted = 0;
        let mut rest = keys;
        while !rest.is_empty() {
            let (rows, read) = self.rows(rest).map_err(|e| self.failed(e.into()))?;
            let keys;
            (keys, rest) = rest.split_at(read);
            let contents: Vec<Vec<Cell>> = rows.iter().flatten().cloned().collect();
            if contents.is_empty() {
                continue;
            }
            let key = archive.mark_key();
            let mark = meta::get(self.work.connection, &key).map_err(|e| self.failed(e.into()))?;
            let mark = archive
                .add(&contents, mark)
                .map_err(|detail| RuleError::Other(self.archive_error(archive.path(), &detail)))?;
            let parameters: Vec<Vec<&Cell>> = keys
                .iter()
                .zip(&rows)
                .filter_map(|(key, row)| {
                    Some(key.iter().chain(range.into_iter().flatten()).chain(row.as_ref()?).collect())
                })
                .collect();
            let sql = self.target.delete_sql(range.is_some(), true);
            let now = self.delete_rows(&sql, &parameters, Some((&key, mark)))?;
            self.work.figures.add_archived(now);
            deleted += now;
        }
        Ok(deleted)
    }

    /// The rows with the first of these keys: so many that they do not take too much memory. `None` for one that is gone. And how
    /// many keys that are.
    fn rows(&self, keys: &[Vec<Cell>]) -> rusqlite::Result<(Vec<Option<Vec<Cell>>>, usize)> {
        let count = self.target.columns.len();
        let mut statement = self.work.connection.prepare_cached(&self.target.row_sql())?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for key in keys {
            let row = statement.query_row(params_from_iter(key), |row| Cell::row(row, 0, count)).optional()?;
            bytes += row.iter().flatten().map(Cell::size).sum::<usize>();
            rows.push(row);
            if bytes >= ARCHIVE_BYTES {
                break;
            }
        }
        let read = rows.len();
        Ok((rows, read))
    }

    /// Runs the statement with each of these parameters; with the last one, sets the mark of the archive.
    fn delete_rows(&self, sql: &str, parameters: &[Vec<&Cell>], mark: Option<(&str, i64)>) -> Result<u64, RuleError> {
        // A trigger may delete further rows; they are not counted.
        let step = |connection: &Connection, at: usize| {
            Ok(connection.prepare_cached(sql)?.execute(params_from_iter(&parameters[at]))? as u64)
        };
        let last = |connection: &Connection| {
            let Some((key, mark)) = mark else { return Ok(()) };
            meta::set(connection, key, mark)
        };
        let (done, ran) = self.work.run(parameters.len(), step, last);
        self.work.figures.add_rows(&self.target.name, done.sum);
        ran.map_err(|failure| self.failed(failure))?;
        Ok(done.sum)
    }

    fn failed(&self, failure: Failure) -> RuleError {
        let Target { name, table, .. } = self.target;
        RuleError::Other(match failure {
            Failure::Stopped => return RuleError::Stopped,
            Failure::Sqlite(_) if self.work.stop.is_raised() => return RuleError::Stopped,
            Failure::TooSlow => {
                let detail = format!("deleting one row of {table} takes so long that commits would wait for it");
                let remedy =
                    format!("look at the triggers of {table}, and add an index for each foreign key that refers to it");
                Error::config(format!("retention.{name}"), detail).with_remedy(remedy)
            }
            Failure::Sqlite(error) if is_constraint(&error) => {
                let detail = format!("a row of {table} cannot be deleted: {}", message(&error));
                let remedy =
                    "other tables refer to it: let their rules delete those rows first, or add ON DELETE CASCADE";
                Error::config(format!("retention.{name}"), detail).with_remedy(remedy)
            }
            Failure::Sqlite(error) => database_error(self.path, error),
        })
    }

    /// A failure and not a wrong setting: the archive was looked at when the program started.
    fn archive_error(&self, archive: &Path, detail: &str) -> Error {
        let named = format!("archive {}: ", archive.display());
        let detail = detail.strip_prefix(&named).unwrap_or(detail);
        let setting = format!("retention.{}.archive", self.target.name);
        let detail = format!("{setting}: {detail}; make room for this archive, or name another one");
        Error::File { path: archive.to_owned(), detail, source: None }
    }
}

/// Which times are too old: a range for each unit of the column's times, which do not overlap. None while no row has a time.
fn ranges(connection: &Connection, target: &Target, time: &Time, path: &Path) -> Result<Vec<Range>, Error> {
    /// So many of the newest and of the oldest values show the units. A few that are no times do not matter.
    const SAMPLES: usize = 100;
    let Some(keep) = target.rule.keep else { return Ok(Vec::new()) };
    let now = now_us();
    if time.is_own {
        return Ok(vec![age::microseconds(keep, now)]);
    }
    let samples = || -> rusqlite::Result<Vec<Cell>> {
        let mut statement = connection.prepare_cached(&target.samples_sql(time, SAMPLES))?;
        statement.query_map([], |row| row.get_ref(0).map(Cell::from))?.collect()
    };
    let samples = samples().map_err(|e| database_error(path, e))?;
    age::like(&samples, keep, now, connection).map_err(|reason| {
        let detail = format!("column {} {reason}", time.column);
        let error = Error::config(format!("retention.{}.column", target.name), detail);
        error.with_remedy("name a column with the times of the rows")
    })
}

/// How many bytes the table and its indexes have, and how many entries the table.
fn measure(connection: &Connection, target: &Target) -> rusqlite::Result<(u64, u64)> {
    let names = "SELECT name, type = 'table' FROM sqlite_schema WHERE tbl_name = ? AND type IN ('table', 'index')";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let names: Vec<(String, bool)> =
        connection.prepare(names)?.query_map([&target.table], row)?.collect::<Result<_, _>>()?;
    let (mut bytes, mut cells) = (0, 0);
    let sql = "SELECT coalesce(sum(pgsize), 0), coalesce(sum(ncell) FILTER (WHERE pagetype = 'leaf'), 0) FROM dbstat WHERE name = ?";
    let mut statement = connection.prepare(sql)?;
    for (name, is_table) in names {
        let (size, count): (u64, u64) = statement.query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        bytes += size;
        cells += if is_table { count } else { 0 };
    }
    Ok((bytes, cells))
}

/// How many rows have so many bytes.
fn rows_for(bytes: u64, of_bytes: u64, cells: u64) -> u64 {
    let rows = u128::from(bytes) * u128::from(cells) / u128::from(of_bytes.max(1));
    u64::try_from(rows).unwrap_or(u64::MAX).saturating_add(u64::from(bytes > 0))
}
