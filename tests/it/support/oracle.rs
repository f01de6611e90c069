//! What must be in the database, kept outside the system, and the comparison with what is.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Opens the database for reading.
pub fn open(database: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(database, flags).expect("the database opens");
    connection.busy_timeout(std::time::Duration::from_secs(10)).expect("sets");
    connection
}

/// Rows in table `events`; 0 where there is no database yet.
pub fn count(database: &Path) -> u64 {
    if !database.exists() {
        return 0;
    }
    open(database).query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap_or(0)
}

/// Every payload as text, in the order of the rows.
pub fn payloads(database: &Path) -> Vec<String> {
    let connection = open(database);
    let mut statement = connection.prepare("SELECT CAST(payload AS TEXT) FROM events ORDER BY id").expect("SQL");
    let rows = statement.query_map([], |row| row.get(0)).expect("runs");
    rows.collect::<Result<_, _>>().expect("text")
}

/// Holds the acknowledged payloads (each different from all others) against the rows: every one is there, nothing is there
/// twice, rows are in stream order, the file is sound and the ledger stands at the last row.
pub fn holds(database: &Path, acknowledged: &[String]) {
    let mut rows: BTreeMap<String, usize> = BTreeMap::new();
    for payload in payloads(database) {
        *rows.entry(payload).or_default() += 1;
    }
    let twice: Vec<_> = rows.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(twice.is_empty(), "there twice: {twice:?}");
    let missing: Vec<_> = acknowledged.iter().filter(|payload| !rows.contains_key(*payload)).take(5).collect();
    assert!(missing.is_empty(), "acknowledged and missing: {missing:?}");
    in_order(database);
    let connection = open(database);
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
    assert_eq!(sound, "ok");
}

/// Rows are in stream order within each epoch, and the ledger stands at or behind the last.
fn in_order(database: &Path) {
    let connection = open(database);
    let sql = "SELECT count(*) FROM (SELECT sequence, lag(sequence) OVER (ORDER BY id) AS before FROM events)
               WHERE sequence <= before";
    let steps_back: i64 = connection.query_row(sql, [], |row| row.get(0)).expect("SQL");
    let epochs: i64 = connection.query_row("SELECT count(*) FROM catchment_ledger", [], |row| row.get(0)).expect("SQL");
    assert!(steps_back < epochs.max(1), "{steps_back} rows are out of order in {epochs} epochs");
    let sql =
        "SELECT coalesce(max(sequence), 0) <= (SELECT coalesce(max(sequence), 0) FROM catchment_ledger) FROM events";
    let behind: bool = connection.query_row(sql, [], |row| row.get(0)).expect("SQL");
    assert!(behind, "the ledger stands before the last row");
}
