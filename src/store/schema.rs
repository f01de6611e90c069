//! The tables that catchment itself brings.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::sqlite_error::database_error;
use crate::error::{DatabaseFault, Error};

/// The version of these tables: one more with each step.
const VERSION: i64 = 3;

/// What brings the tables from each version to the next, the first from nothing. A step that was once released stays as it is.
const STEPS: [&str; 3] = [FIRST, SECOND, THIRD];

/// Table `events` takes what no route does. Its columns are good to query by hand:
/// `SELECT payload ->> '$.user' FROM events WHERE headers ->> 'Trace-Id' = '7'`.
const FIRST: &str = "
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

/// Which migrations of the user's were applied. And a dead letter's number is never used twice: with
/// `catchment dead-letters drop 17` nobody drops another letter than the one that was listed. They move out and in again, for
/// renaming a table fails where a view refers to it.
const SECOND: &str = "
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

/// What a stream did not have when it was due, by epoch. `missing` is less than the length of the range where ranges were joined.
const THIRD: &str = "
CREATE TABLE catchment_gaps(
    stream TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    missing INTEGER NOT NULL,
    PRIMARY KEY(stream, epoch, first)
) STRICT, WITHOUT ROWID;
";

/// What the tables of a database turned out to be.
pub(super) enum Schema {
    /// Ours, made or brought to this version now where they were not. The identity names this database to a broker.
    Known {
        /// Sixteen hexadecimal digits, drawn when the tables were made.
        identity: String,
    },
    /// Of a later version than this program knows.
    Later(i64),
}

/// Whether a table, index, view or trigger of this name is catchment's own: nobody else's begins with `catchment_`.
pub(super) fn is_ours(name: &str) -> bool {
    begins(name, "catchment_")
}

/// Whether a name begins so, in whatever case: SQLite knows no other.
pub(super) fn begins(name: &str, with: &str) -> bool {
    name.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
}

/// Makes the tables where they are missing, and brings older ones to this version, in one transaction.
pub(super) fn ensure(connection: &mut Connection) -> rusqlite::Result<Schema> {
    let mut version = version(connection)?;
    if steps_behind(version).is_some() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Asked again under the write lock: another process may have been faster.
        version = self::version(&transaction)?;
        if let Some(steps) = steps_behind(version) {
            steps.iter().try_for_each(|step| transaction.execute_batch(step))?;
            let sql = "UPDATE catchment_meta SET value = ? WHERE key = 'version'";
            version = Some(VERSION);
            transaction.execute(sql, [version])?;
        }
        transaction.commit()?;
    }
    match version {
        Some(later) if later > VERSION => Ok(Schema::Later(later)),
        _ => Ok(Schema::Known { identity: meta(connection, "identity")? }),
    }
}

/// For those who work with tables that are there, and make none.
pub(super) fn must_be_ours(connection: &Connection, path: &Path) -> Result<(), Error> {
    let refused = |detail: String| Error::Database {
        fault: DatabaseFault::Schema,
        path: path.to_owned(),
        detail,
        remedy: None,
        source: None,
    };
    match version(connection).map_err(|e| database_error(path, e))? {
        None => Err(refused("it is no database of catchment's; name another with --database".into())),
        Some(version) if version > VERSION => Err(refused(later(version))),
        Some(_) => Ok(()),
    }
}

/// For those who only look: there may be none.
pub(super) fn must_not_be_later(connection: &Connection, path: &Path) -> Result<(), Error> {
    match version(connection).map_err(|e| database_error(path, e))? {
        Some(_) => must_be_ours(connection, path),
        None => Ok(()),
    }
}

/// What names a database with our tables to a broker; `None` where there are none.
pub(super) fn identity(connection: &Connection) -> rusqlite::Result<Option<String>> {
    if has_tables(connection)? { meta(connection, "identity").map(Some) } else { Ok(None) }
}

/// What to say of tables of a later version.
pub(super) fn later(version: i64) -> String {
    format!("its tables have version {version}, made by a later catchment; use that one")
}

/// The version of the tables in a database; `None` where there are none.
fn version(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    if has_tables(connection)? { meta(connection, "version").map(Some) } else { Ok(None) }
}

/// The steps that such tables lack, if any.
fn steps_behind(version: Option<i64>) -> Option<&'static [&'static str]> {
    let done = usize::try_from(version.unwrap_or(0)).ok()?;
    STEPS.get(done..).filter(|steps| !steps.is_empty())
}

fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    has_table(connection, "catchment_meta")
}

/// Whether there is a table of this name.
pub(super) fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?";
    Ok(connection.query_row(sql, [name], |_| Ok(())).optional()?.is_some())
}

fn meta<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<T> {
    connection.query_row("SELECT value FROM catchment_meta WHERE key = ?", [key], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database of version 1, with two dead letters and a view on them.
    fn first_version() -> Connection {
        let connection = Connection::open_in_memory().expect("memory");
        connection.execute_batch(FIRST).expect("tables");
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
    fn a_database_of_the_first_version_is_brought_to_this_one_with_all_that_is_in_it() {
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
    fn old_tables_end_as_new_ones_do() {
        let sql =
            "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema WHERE type = 'table' ORDER BY name)";
        let (mut old, mut new) = (first_version(), Connection::open_in_memory().expect("memory"));
        for connection in [&mut old, &mut new] {
            assert!(matches!(ensure(connection), Ok(Schema::Known { .. })));
        }
        assert_eq!(text(&old, sql), text(&new, sql));
    }

    #[test]
    fn tables_of_a_later_version_are_left_alone() {
        let mut connection = first_version();
        connection.execute_batch("UPDATE catchment_meta SET value = 4 WHERE key = 'version'").expect("SQL");
        assert!(matches!(ensure(&mut connection), Ok(Schema::Later(4))));
        assert_eq!(version(&connection).expect("a version"), Some(4));
    }
}
