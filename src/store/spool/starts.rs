//! The names of the starts that have taken events.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::refusals;
use super::totals::{SpoolTotals, totals};
use crate::event_id::{NameRange, draw_name};
use crate::unix_time::now_us;

/// The last position of a name of which it is not known how many numbers were used.
pub(super) const UNKNOWN: i64 = i64::MAX;

/// Draws a name for this start, and forgets those whose events are gone. The name before it ends.
pub(super) fn begin(connection: &Connection, path: &Path) -> rusqlite::Result<(Vec<NameRange>, SpoolTotals)> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let file = identity(path);
    // In a copy, the last name may have ended later: the original was used meanwhile.
    let sql = "UPDATE catchment_spool_names
               SET through = (SELECT CASE WHEN file = ?1 THEN last ELSE ?2 END FROM catchment_spool)
               WHERE through IS NULL";
    transaction.execute(sql, params![file, UNKNOWN])?;
    let sql = "INSERT INTO catchment_spool_names(first, name, started_us)
               SELECT max(
                   (SELECT last FROM catchment_spool),
                   coalesce((SELECT max(position) FROM catchment_spool_events), 0),
                   coalesce((SELECT max(first) FROM catchment_spool_names), 0)
               ) + 1, ?, ?";
    transaction.execute(sql, params![draw_name(), now_us()])?;
    transaction.execute("UPDATE catchment_spool SET file = ?", [file])?;
    let sql = "DELETE FROM catchment_spool_names
               WHERE first < (SELECT max(first) FROM catchment_spool_names)
                 AND name NOT IN (SELECT name FROM catchment_spool_dead_letters)
                 AND NOT EXISTS (
                     SELECT 1 FROM catchment_spool_events
                     WHERE position >= catchment_spool_names.first AND position < (
                         SELECT min(next.first) FROM catchment_spool_names AS next
                         WHERE next.first > catchment_spool_names.first
                     )
                 )";
    transaction.execute(sql, [])?;
    refusals::tidy(&transaction)?;
    let range = |row: &rusqlite::Row<'_>| Ok(NameRange { first: row.get(0)?, name: row.get(1)? });
    let sql = "SELECT first, name FROM catchment_spool_names ORDER BY first";
    let names = transaction.prepare(sql)?.query_map([], range)?.collect::<rusqlite::Result<_>>()?;
    let totals = totals(&transaction)?;
    transaction.commit()?;
    Ok((names, totals))
}

/// What a copy of the file has not.
fn identity(path: &Path) -> String {
    let Ok(file) = std::fs::metadata(path) else { return String::new() };
    let made = file.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    format!("{}:{}", file.ino(), made.unwrap_or_default().as_nanos())
}
