//! The tables that catchment itself brings.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

/// The version of these tables; raised when they change.
const VERSION: i64 = 1;

/// Table `events` takes what no route does. Its columns are good to query by hand:
/// `SELECT payload ->> '$.user' FROM events WHERE headers ->> 'Trace-Id' = '7'`.
const TABLES: &str = "
CREATE TABLE catchment_meta(
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE catchment_ledger(
    stream TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    created TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    published_ns INTEGER NOT NULL,
    PRIMARY KEY(stream, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE catchment_dead_letters(
    id INTEGER PRIMARY KEY,
    stream TEXT,
    epoch INTEGER,
    sequence INTEGER,
    published_us INTEGER NOT NULL,
    subject TEXT NOT NULL,
    headers ANY,
    payload ANY NOT NULL,
    route TEXT,
    statement TEXT,
    error TEXT NOT NULL,
    recorded_us INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS events(
    id INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    stream TEXT,
    sequence INTEGER,
    published_us INTEGER NOT NULL,
    headers TEXT,
    payload ANY NOT NULL
) STRICT;

INSERT INTO catchment_meta(key, value) VALUES ('version', 1), ('identity', lower(hex(randomblob(8))));
";

/// What the tables of a database turned out to be.
pub(super) enum Schema {
    /// Ours, made now if they were not there. The identity names this database to a broker.
    Known {
        /// Sixteen hexadecimal digits, drawn when the tables were made.
        identity: String,
    },
    /// Of a later version than this program knows.
    Later(i64),
}

/// Makes the tables where they are missing, in one transaction.
pub(super) fn ensure(connection: &mut Connection) -> rusqlite::Result<Schema> {
    if !has_tables(connection)? {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Asked again under the write lock: another process may have been faster.
        if !has_tables(&transaction)? {
            transaction.execute_batch(TABLES)?;
        }
        transaction.commit()?;
    }
    let version: i64 = meta(connection, "version")?;
    if version > VERSION {
        return Ok(Schema::Later(version));
    }
    Ok(Schema::Known { identity: meta(connection, "identity")? })
}

fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'catchment_meta'";
    Ok(connection.query_row(sql, [], |_| Ok(())).optional()?.is_some())
}

fn meta<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<T> {
    connection.query_row("SELECT value FROM catchment_meta WHERE key = ?", [key], |row| row.get(0))
}
