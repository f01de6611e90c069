//! Since when the server refuses events of a spool. It is written down, so that several short runs give an event up as a long one does.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use crate::store::stored_event::FirstRefusal;
use crate::unix_time::now_us;

/// Notes that these events were refused for the first time now, and whether others were stored.
pub(super) fn note(connection: &Connection, positions: &[u64], others_stored: bool) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO catchment_spool_refusals(position, since_us, others_stored) VALUES (?, ?, 0)";
    let mut insert = connection.prepare_cached(sql)?;
    for position in positions {
        insert.execute(params![position, now_us()])?;
    }
    if others_stored {
        connection.execute("UPDATE catchment_spool_refusals SET others_stored = 1", [])?;
    }
    Ok(())
}

/// What was noted, by position.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<HashMap<u64, FirstRefusal>> {
    let sql = "SELECT position, since_us, others_stored FROM catchment_spool_refusals";
    let row =
        |row: &rusqlite::Row<'_>| Ok((row.get(0)?, FirstRefusal { at_us: row.get(1)?, others_stored: row.get(2)? }));
    connection.prepare(sql)?.query_map([], row)?.collect()
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
