//! How far a table is published.

use rusqlite::OptionalExtension;

use super::rows::Rows;
use super::{Outbox, OutboxOptions, connect, must_be_a_path, of_state, state};
use crate::error::Error;
use crate::store::database_file::must_exist;
use crate::store::schema;
use crate::store::sqlite_error::database_error;

/// How far a table is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxStatus {
    /// All rows up to this id are in the stream, or given up.
    pub position: u64,
    /// Rows after it.
    pub waiting: u64,
    /// Rows that were forwarded.
    pub forwarded: u64,
    /// Rows that were given up.
    pub given_up: u64,
    /// Rows that appeared at or below the position, and are not forwarded, at least.
    pub missed: u64,
    /// When the oldest waiting row was made, in microseconds since 1970, if the table says it.
    pub oldest_us: Option<i64>,
}

impl Outbox {
    /// How far a table is published. Changes nothing, also while a process publishes it.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: there is no such table, or it lacks a column.
    pub fn status(options: &OutboxOptions) -> Result<OutboxStatus, Error> {
        let path = &options.path;
        must_exist(path)?;
        let on_error = |e| database_error(path, e);
        let source = connect(path, false).map_err(on_error)?;
        let rows = Rows::of(path, &source, &options.table)?;
        let state = match options.state.as_ref().filter(|state| state.exists()) {
            Some(state) => {
                must_be_a_path(state)?;
                let connection = connect(state, false).map_err(|e| of_state(database_error(state, e)))?;
                state::must_be_of(&connection, state, path, rows.table())?;
                Some(connection)
            }
            None => None,
        };
        let of_state = if options.state.is_some() { state.as_ref() } else { Some(&source) };
        let read = || -> rusqlite::Result<OutboxStatus> {
            let (position, forwarded, given_up) = match of_state {
                Some(state) if schema::has_table(state, "catchment_forward")? => {
                    let sql = "SELECT position, forwarded, given_up FROM catchment_forward WHERE source = ?";
                    let row = state.query_row(sql, [rows.table()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
                    row.optional()?.unwrap_or_default()
                }
                _ => (0, 0, 0),
            };
            let waiting = rows.count(&source, position, i64::MAX.unsigned_abs())?;
            let oldest_us = rows.read(&source, position, 1, 1)?.events.first().map(|event| event.recorded_us);
            let oldest_us = oldest_us.filter(|_| rows.has_time());
            let passed = match of_state {
                Some(state) => state::passed(state, rows.table())?,
                None => None,
            };
            let below = rows.below(&source, position)?;
            let missed = if position == 0 { below } else { passed.map_or(0, |passed| below.saturating_sub(passed)) };
            Ok(OutboxStatus { position, waiting, forwarded, given_up, missed, oldest_us })
        };
        read().map_err(on_error)
    }
}
