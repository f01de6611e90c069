//! The counts of a spool.

use rusqlite::Connection;

/// What is in a spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolTotals {
    /// Events that are not in the stream yet, as far as it is known.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Events that were forwarded, since the file was made.
    pub forwarded: u64,
    /// Events that were dropped to make room, since the file was made.
    pub dropped: u64,
    /// Events that could not be forwarded and are kept as dead letters.
    pub dead_letters: u64,
}

pub(super) fn totals(connection: &Connection) -> rusqlite::Result<SpoolTotals> {
    let sql = "SELECT events, bytes, forwarded, dropped, dead_letters FROM catchment_spool";
    connection.prepare_cached(sql)?.query_row([], |row| {
        Ok(SpoolTotals {
            events: row.get(0)?,
            bytes: row.get(1)?,
            forwarded: row.get(2)?,
            dropped: row.get(3)?,
            dead_letters: row.get(4)?,
        })
    })
}
