//! Since when the server refuses events of a spool. It is written down, so that several short runs give an event up as a long one does.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::Spool;
use crate::error::Error;
use crate::pipeline::Problem;
use crate::store::columns::now_us;
use crate::store::sqlite_error::database_error;
use crate::store::stored_event::FirstRefusal;

impl Spool {
    /// Notes that these events were refused for the first time now, and whether others were stored since the last call.
    pub fn note_refused(&self, positions: &[u64], others_stored: bool) -> Result<(), Problem> {
        self.change_in_need("NORMAL", |transaction| {
            let sql =
                "INSERT OR REPLACE INTO catchment_spool_refusals(position, since_us, others_stored) VALUES (?, ?, 0)";
            let mut insert = transaction.prepare_cached(sql)?;
            for position in positions {
                insert.execute(params![position, now_us()])?;
            }
            if others_stored {
                transaction.execute("UPDATE catchment_spool_refusals SET others_stored = 1", [])?;
            }
            Ok(None)
        })
    }

    /// What earlier starts have noted, by position.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn refusals(&self) -> Result<HashMap<u64, FirstRefusal>, Error> {
        let on_error = |e| database_error(self.path(), e);
        let connection = self.shared.manager.open_plain().map_err(on_error)?;
        let sql = "SELECT position, since_us, others_stored FROM catchment_spool_refusals";
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get(0)?, FirstRefusal { at_us: row.get(1)?, others_stored: row.get(2)? }))
        };
        let read = || connection.prepare(sql)?.query_map([], row)?.collect::<rusqlite::Result<_>>();
        read().map_err(on_error)
    }
}

/// Forgets the refusals of events that are gone.
pub(super) fn forget(connection: &Connection, range: (u64, u64)) -> rusqlite::Result<usize> {
    connection.prepare_cached("DELETE FROM catchment_spool_refusals WHERE position BETWEEN ? AND ?")?.execute(range)
}

/// Forgets the refusals of all events that are gone.
pub(super) fn tidy(connection: &Connection) -> rusqlite::Result<usize> {
    let sql =
        "DELETE FROM catchment_spool_refusals WHERE position NOT IN (SELECT position FROM catchment_spool_events)";
    connection.execute(sql, [])
}
