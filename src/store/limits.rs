//! SQLite's limits for statements of the configuration: <https://sqlite.org/limits.html>.
//!
//! They limit values that come with a message. SQLite interrupts a statement only between two steps, and a step on long values
//! takes long. SQLite's limits on the text of a statement (depth of expressions, terms of a compound, arguments of a function) are
//! not changed: the operator writes that text. SQLite applies those limits to the schema too, so with lower ones a database with a
//! deep CHECK, for instance, would seem damaged.

use rusqlite::Connection;
use rusqlite::limits::Limit;

/// The longest text, blob or row in bytes: twice the largest `max_payload` of a server, 64 MiB. SQLite's default is a billion.
const MAX_LENGTH: i32 = 128 << 20;

/// The longest pattern of LIKE or GLOB in bytes: the time of a step grows with pattern times text. SQLite's default is 50,000.
const MAX_PATTERN: i32 = 1_000;

/// SQLite's default.
const DEFAULT_LENGTH: i32 = 1_000_000_000;

/// Sets the limits that suit every statement, catchment's own included.
pub(super) fn set(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    Ok(())
}

/// Limits the length of values and rows on this connection.
pub(super) fn set_length(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LENGTH).map(drop)
}

/// Limits the length of values and rows during the call. Outside of it, catchment's own statements need the default: as JSON, the
/// headers of an event take up to six times their size.
pub(super) fn within_length<T>(connection: &Connection, run: impl FnOnce() -> T) -> T {
    /// Restores the default, also when the call panics.
    struct Off<'a>(&'a Connection);
    impl Drop for Off<'_> {
        fn drop(&mut self) {
            let _ = self.0.set_limit(Limit::SQLITE_LIMIT_LENGTH, DEFAULT_LENGTH);
        }
    }
    let _off = Off(connection);
    let _ = set_length(connection);
    run()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn the_length_is_limited_only_during_the_call() {
        let connection = Connection::open_in_memory().expect("opens");
        let length = || connection.limit(Limit::SQLITE_LIMIT_LENGTH).expect("a limit");
        let own = length();
        assert_eq!((within_length(&connection, length), length()), (MAX_LENGTH, own));
        let panicked = catch_unwind(AssertUnwindSafe(|| within_length(&connection, || panic!("in a function"))));
        assert!(panicked.is_err() && length() == own);
    }
}
