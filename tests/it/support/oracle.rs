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

/// What tells this database and its copies from others.
pub fn identity(database: &Path) -> String {
    let sql = "SELECT value FROM catchment_meta WHERE key = 'identity'";
    open(database).query_row(sql, [], |row| row.get(0)).expect("an identity")
}

/// The number that a query returns; 0 where there is no database yet, or not its table.
pub fn number(database: &Path, sql: &str) -> u64 {
    if !database.exists() {
        return 0;
    }
    open(database).query_row(sql, [], |row| row.get(0)).unwrap_or(0)
}

/// The first column of a query's rows, as text.
pub fn texts(database: &Path, sql: &str) -> Vec<String> {
    let connection = open(database);
    let mut statement = connection.prepare(sql).expect("SQL");
    let rows = statement.query_map([], |row| row.get(0)).expect("runs");
    rows.collect::<Result<_, _>>().expect("text")
}

/// Every payload as text, in the order of the rows.
pub fn payloads(database: &Path) -> Vec<String> {
    let connection = open(database);
    let mut statement = connection.prepare("SELECT CAST(payload AS TEXT) FROM events ORDER BY id").expect("SQL");
    let rows = statement.query_map([], |row| row.get(0)).expect("runs");
    rows.collect::<Result<_, _>>().expect("text")
}

/// Every stream sequence, in the order of the rows.
pub fn sequences(database: &Path) -> Vec<u64> {
    let connection = open(database);
    let mut statement = connection.prepare("SELECT sequence FROM events ORDER BY id").expect("SQL");
    let rows = statement.query_map([], |row| row.get(0)).expect("runs");
    rows.collect::<Result<_, _>>().expect("numbers")
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
    sound(database);
}

/// Rows are in stream order, the file is sound and the ledger stands at the last row.
pub fn sound(database: &Path) {
    in_order(database);
    let connection = open(database);
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
    assert_eq!(sound, "ok");
}

/// An event that the stream has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub payload: String,
    pub sequence: u64,
}

/// The sequence that the ledger stands at, without counting rows; 0 where it has no entry yet. What never lost or doubled a
/// row has as many as this.
pub fn position(database: &Path) -> u64 {
    if !database.exists() {
        return 0;
    }
    let sql = "SELECT coalesce(max(sequence), 0) FROM catchment_ledger";
    open(database).query_row(sql, [], |row| row.get(0)).unwrap_or(0)
}

/// The whole truth where nothing but `kept` was published to one stream that lived once: [`holds`], and each row is the
/// event that was acknowledged under its sequence, no row was invented, and the ledger stands at the last one.
pub fn is_exactly(database: &Path, kept: &[Kept]) {
    let payloads: Vec<String> = kept.iter().map(|kept| kept.payload.clone()).collect();
    holds(database, &payloads);
    let mut kept = kept.to_vec();
    kept.sort_by_key(|kept| kept.sequence);
    let connection = open(database);
    let mut statement =
        connection.prepare("SELECT sequence, CAST(payload AS TEXT) FROM events ORDER BY id").expect("SQL");
    let rows = statement.query_map([], |row| Ok(Kept { sequence: row.get(0)?, payload: row.get(1)? })).expect("runs");
    let rows: Vec<Kept> = rows.collect::<Result<_, _>>().expect("rows");
    let differs = rows.iter().zip(&kept).find(|(row, kept)| row != kept);
    assert!(differs.is_none(), "row and acknowledged event: {differs:?}");
    assert_eq!(rows.len(), kept.len(), "rows, and acknowledged events");
    let ledger: (u64, u64) = connection
        .query_row("SELECT count(*), max(sequence) FROM catchment_ledger", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("SQL");
    assert_eq!(ledger, (1, kept.last().map_or(0, |last| last.sequence)), "epochs, and where the ledger stands");
    let dead: u64 =
        connection.query_row("SELECT count(*) FROM catchment_dead_letters", [], |row| row.get(0)).expect("SQL");
    assert_eq!(dead, 0, "dead letters");
}

/// Holds the database's write lock until it is dropped.
pub fn lock(database: &Path) -> Connection {
    let connection = Connection::open(database).expect("the database opens");
    connection.busy_timeout(std::time::Duration::from_secs(10)).expect("sets");
    connection.execute_batch("BEGIN IMMEDIATE").expect("locks");
    connection
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
