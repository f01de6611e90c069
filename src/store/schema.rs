//! Catchment's own tables, and the steps from each version to the next.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::meta;
use super::sqlite_error::database_error;
use crate::error::{DatabaseFault, Error};

/// The key of a database's identity in [`meta`].
pub(super) const IDENTITY: &str = "identity";

/// The version of these tables. Each step adds one.
const VERSION: i64 = 4;

/// The steps from each version to the next, the first from an empty database. A released step never changes.
const STEPS: [&str; 4] = [TO_VERSION_1, TO_VERSION_2, TO_VERSION_3, TO_VERSION_4];

/// Table `events` stores events that no route matches. Its columns are easy to query by hand:
/// `SELECT subject, payload FROM events WHERE headers ->> 'Trace-Id' = '7'`.
const TO_VERSION_1: &str = "
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

/// Adds the table of the user's applied migrations. And a dead letter's number is never used twice, so that
/// `catchment dead-letters drop 17` drops only the letter that was listed. The rows move to another table and back: renaming a
/// table fails if a view refers to it.
const TO_VERSION_2: &str = "
CREATE TABLE catchment_migrations(
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_us INTEGER NOT NULL
) STRICT;

CREATE TABLE catchment_dead_letters_moved(
    id, stream, epoch, sequence, published_us, subject, headers, payload, route, statement, error, recorded_us
);

INSERT INTO catchment_dead_letters_moved SELECT * FROM catchment_dead_letters ORDER BY id;

DROP TABLE catchment_dead_letters;

CREATE TABLE catchment_dead_letters(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
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

INSERT INTO catchment_dead_letters SELECT * FROM catchment_dead_letters_moved ORDER BY rowid;

DROP TABLE catchment_dead_letters_moved;
";

/// The gaps of a stream, by epoch: events that it no longer had when they were to be collected. `missing` is less than the length
/// of the range if ranges were joined.
const TO_VERSION_3: &str = "
CREATE TABLE catchment_gaps(
    stream TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    missing INTEGER NOT NULL,
    PRIMARY KEY(stream, epoch, first)
) STRICT, WITHOUT ROWID;
";

/// Which numbers of each recorder are stored, by the stream that the events came from: all below `base`, and those from `base` on whose
/// bit in `stored` is set, the lowest bit of the first byte first. `seen_us` is the publish time of the recorder's last batch.
const TO_VERSION_4: &str = "
CREATE TABLE catchment_recorders(
    stream TEXT NOT NULL,
    recorder TEXT NOT NULL,
    base INTEGER NOT NULL,
    stored BLOB NOT NULL,
    seen_us INTEGER NOT NULL,
    PRIMARY KEY(stream, recorder)
) STRICT, WITHOUT ROWID;
";

/// The state of a database's tables.
pub(super) enum Schema {
    /// They have this version now; they were made or upgraded if necessary. The identity is the name of the database at a broker.
    Known {
        /// Sixteen hexadecimal digits, drawn when the tables were made.
        identity: String,
    },
    /// They have a later version than this program supports.
    Later(i64),
}

/// Whether a table, index, view or trigger of this name is catchment's own: names that begin with `catchment_` are reserved.
pub(super) fn is_ours(name: &str) -> bool {
    begins(name, "catchment_")
}

/// Whether a name begins with this. SQLite's names are case-insensitive.
pub(super) fn begins(name: &str, with: &str) -> bool {
    name.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
}

/// Makes missing tables and upgrades older ones, in one transaction.
pub(super) fn ensure(connection: &mut Connection) -> rusqlite::Result<Schema> {
    let mut version = version(connection)?;
    if missing_steps(version).is_some() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Read again under the write lock: another process may have been faster.
        version = self::version(&transaction)?;
        if let Some(steps) = missing_steps(version) {
            steps.iter().try_for_each(|step| transaction.execute_batch(step))?;
            version = Some(VERSION);
            meta::set(&transaction, "version", VERSION)?;
        }
        transaction.commit()?;
    }
    match version {
        Some(later) if later > VERSION => Ok(Schema::Later(later)),
        _ => Ok(Schema::Known { identity: noted(connection, IDENTITY)? }),
    }
}

/// Refuses a database without catchment's tables: for operations that need them and do not make them.
pub(super) fn must_be_ours(connection: &Connection, path: &Path) -> Result<(), Error> {
    match version(connection).map_err(|e| database_error(path, e))? {
        None => Err(schema_error(path, "it has no tables of catchment".into())
            .with_remedy("set database.path to a database that catchment has opened")),
        Some(version) if version > VERSION => Err(later_version(path, version)),
        Some(_) => Ok(()),
    }
}

/// Refuses tables of a later version. A database without catchment's tables is accepted.
pub(super) fn must_not_be_later(connection: &Connection, path: &Path) -> Result<(), Error> {
    match version(connection).map_err(|e| database_error(path, e))? {
        Some(_) => must_be_ours(connection, path),
        None => Ok(()),
    }
}

/// The name of a database at a broker; `None` if it has none of catchment's tables.
pub(super) fn identity(connection: &Connection) -> rusqlite::Result<Option<String>> {
    if has_tables(connection)? { noted(connection, IDENTITY).map(Some) } else { Ok(None) }
}

/// The error for tables of a later version.
pub(super) fn later_version(path: &Path, version: i64) -> Error {
    schema_error(path, format!("its tables have version {version}, made by a later catchment"))
        .with_remedy("use that one")
}

fn schema_error(path: &Path, detail: String) -> Error {
    Error::database(DatabaseFault::Schema, path, detail)
}

/// The version of the tables in a database; `None` if there are none.
fn version(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    if has_tables(connection)? { noted(connection, "version").map(Some) } else { Ok(None) }
}

/// The steps that tables of this version lack, if any.
fn missing_steps(version: Option<i64>) -> Option<&'static [&'static str]> {
    let done = usize::try_from(version.unwrap_or(0)).ok()?;
    STEPS.get(done..).filter(|steps| !steps.is_empty())
}

fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    has_table(connection, "catchment_meta")
}

/// The names of all tables but SQLite's own.
pub(super) fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite^_%' ESCAPE '^' ORDER BY name";
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// A name as an SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether there is a table of this name.
pub(super) fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?";
    Ok(connection.query_row(sql, [name], |_| Ok(())).optional()?.is_some())
}

/// Whether there is a table or a view of this name: `table` or `view`.
pub(super) fn kind_of(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT type FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE";
    connection.query_row(sql, [name], |row| row.get(0)).optional()
}

/// What each of our databases has noted.
fn noted<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<T> {
    meta::get(connection, key)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database of version 1, with two dead letters and a view on them.
    fn first_version() -> Connection {
        let connection = Connection::open_in_memory().expect("memory");
        connection.execute_batch(TO_VERSION_1).expect("tables");
        let letters = "
            INSERT INTO catchment_dead_letters(id, published_us, subject, headers, payload, error, recorded_us)
            VALUES (3, 1, 'a', x'ff', '12', 'bad', 5), (7, 2, 'b', NULL, x'00', 'worse', 6);
            INSERT INTO catchment_ledger VALUES ('S', 1, 'then', 9, 10);
            CREATE VIEW lost AS SELECT subject FROM catchment_dead_letters;";
        connection.execute_batch(letters).expect("SQL");
        connection
    }

    fn text(connection: &Connection, sql: &str) -> String {
        connection.query_row(sql, [], |row| row.get(0)).expect("one text")
    }

    #[test]
    fn a_database_of_version_1_is_upgraded_with_its_rows() {
        let mut connection = first_version();
        let identity = text(&connection, "SELECT value FROM catchment_meta WHERE key = 'identity'");
        for _ in 0..2 {
            let Schema::Known { identity: after } = ensure(&mut connection).expect("tables") else { panic!("later") };
            assert_eq!(after, identity);
            assert_eq!(version(&connection).expect("a version"), Some(VERSION));
            let letters = "SELECT group_concat(id || quote(headers) || quote(payload) || error, ' ')
                           FROM (SELECT * FROM catchment_dead_letters ORDER BY id)";
            assert_eq!(text(&connection, letters), "3X'FF''12'bad 7NULLX'00'worse");
            assert_eq!(text(&connection, "SELECT group_concat(subject) FROM lost"), "a,b");
            assert_eq!(text(&connection, "SELECT stream || sequence FROM catchment_ledger"), "S9");
            assert_eq!(text(&connection, "SELECT count(*) || '' FROM catchment_migrations"), "0");
        }
    }

    #[test]
    fn a_dead_letters_number_is_never_used_again() {
        let mut connection = first_version();
        assert!(matches!(ensure(&mut connection), Ok(Schema::Known { .. })));
        connection.execute_batch("DELETE FROM catchment_dead_letters").expect("SQL");
        let another = "INSERT INTO catchment_dead_letters(published_us, subject, payload, error, recorded_us)
                       VALUES (1, 'a', '', '', 1) RETURNING id || ''";
        assert_eq!(text(&connection, another), "8");
    }

    #[test]
    fn upgraded_tables_equal_new_ones() {
        let sql =
            "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema WHERE type = 'table' ORDER BY name)";
        let (mut old, mut new) = (first_version(), Connection::open_in_memory().expect("memory"));
        for connection in [&mut old, &mut new] {
            assert!(matches!(ensure(connection), Ok(Schema::Known { .. })));
        }
        assert_eq!(text(&old, sql), text(&new, sql));
    }

    #[test]
    fn tables_of_a_later_version_are_not_changed() {
        let mut connection = first_version();
        connection.execute_batch("UPDATE catchment_meta SET value = 5 WHERE key = 'version'").expect("SQL");
        assert!(matches!(ensure(&mut connection), Ok(Schema::Later(5))));
        assert_eq!(version(&connection).expect("a version"), Some(5));
    }
}
