//! SQLite's limits where statements of the configuration run: <https://sqlite.org/limits.html>.
//!
//! They are for what comes with a message: SQLite interrupts a statement between two steps, and how long one step takes is a
//! matter of how long the values are that it works on. SQLite's limits on the text of a statement (depth of expressions, terms of
//! a compound, arguments of a function) stay as they are: that text is the operator's. SQLite holds the schema to them too, and a
//! database with a deeper CHECK, say, would seem damaged.

use rusqlite::Connection;
use rusqlite::limits::Limit;

/// Bytes of the longest text, blob or row. Twice the largest event that a server can be set to take, 64 MiB. SQLite's own is a
/// billion.
const LONGEST: i32 = 128 << 20;

/// Bytes of the longest pattern of LIKE or GLOB: a step takes as long as pattern times text. SQLite's own is 50,000.
const LONGEST_PATTERN: i32 = 1_000;

/// SQLite's own.
const UNLIMITED: i32 = 1_000_000_000;

/// Sets those that are in nobody's way, catchment's own statements included.
pub(super) fn set(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LONGEST_PATTERN)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    Ok(())
}

/// Limits the length of values and rows, for good.
pub(super) fn set_length(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST).map(drop)
}

/// The same during the call. Outside of it catchment's own statements store whatever comes: the headers of an event take up to six
/// times their size as JSON.
pub(super) fn within_length<T>(connection: &Connection, run: impl FnOnce() -> T) -> T {
    /// Also when the call panics.
    struct Off<'a>(&'a Connection);
    impl Drop for Off<'_> {
        fn drop(&mut self) {
            let _ = self.0.set_limit(Limit::SQLITE_LIMIT_LENGTH, UNLIMITED);
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
    fn only_the_call_is_held_to_the_length() {
        let connection = Connection::open_in_memory().expect("opens");
        let length = || connection.limit(Limit::SQLITE_LIMIT_LENGTH).expect("a limit");
        let own = length();
        assert_eq!((within_length(&connection, length), length()), (LONGEST, own));
        let panicked = catch_unwind(AssertUnwindSafe(|| within_length(&connection, || panic!("in a function"))));
        assert!(panicked.is_err() && length() == own);
    }
}
