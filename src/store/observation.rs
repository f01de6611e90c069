//! What an observer reads of a database while a collector writes it: pages and dead letters. Each read is bounded.

use std::path::Path;

use rusqlite::Connection;

use super::database_file::must_have_one_name;
use super::read_connection::ReadConnection;
use super::schema;
use crate::error::Error;

/// Dead letters are counted up to this number: counting reads an entry of each.
const COUNTED: u64 = 100_000;

/// The longest text of an error that is read, in characters.
const ERROR_LENGTH: u32 = 500;

/// What is in a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages of the database.
    pub pages: u64,
    /// Pages that are in use for nothing.
    pub free_pages: u64,
    /// Dead letters that are stored, at most 100,000: further ones are not counted.
    pub dead_letters: u64,
    /// The last dead letters, the latest first.
    pub last: Vec<LastDeadLetter>,
}

/// A dead letter, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastDeadLetter {
    /// Its number in the database.
    pub id: i64,
    /// When it was stored, in microseconds since 1970.
    pub recorded_us: i64,
    /// Its event's subject.
    pub subject: String,
    /// Its event's sequence in the stream.
    pub sequence: Option<u64>,
    /// The route that it was for.
    pub route: Option<String>,
    /// Why it could not be stored, shortened.
    pub error: String,
}

impl Observation {
    /// Reads a database, and its last dead letters up to this number. Waits for no writer.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be read.
    pub fn make(path: &Path, letters: u32) -> Result<Self, Error> {
        let connection = ReadConnection::open(path)?;
        must_have_one_name(path)?;
        schema::must_be_ours(connection.sqlite(), path)?;
        connection.read(|sqlite| {
            let number = |sql: &str| sqlite.query_row(sql, [], |row| row.get::<_, u64>(0));
            let counted = format!("SELECT count(*) FROM (SELECT 1 FROM catchment_dead_letters LIMIT {COUNTED})");
            Ok(Self {
                page_size: number("PRAGMA page_size")?,
                pages: number("PRAGMA page_count")?,
                free_pages: number("PRAGMA freelist_count")?,
                dead_letters: number(&counted)?,
                last: last(sqlite, letters)?,
            })
        })
    }
}

fn last(sqlite: &Connection, letters: u32) -> rusqlite::Result<Vec<LastDeadLetter>> {
    let mut statement = sqlite.prepare(
        "SELECT id, recorded_us, subject, sequence, route, substr(error, 1, ?1) FROM catchment_dead_letters
         ORDER BY id DESC LIMIT ?2",
    )?;
    let letter = |row: &rusqlite::Row<'_>| {
        Ok(LastDeadLetter {
            id: row.get(0)?,
            recorded_us: row.get(1)?,
            subject: row.get(2)?,
            sequence: row.get(3)?,
            route: row.get(4)?,
            error: row.get(5)?,
        })
    };
    statement.query_map([ERROR_LENGTH, letters], letter)?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unmatched;
    use crate::store::fixture::Fixture;

    #[test]
    fn the_last_dead_letters_are_first_and_short() {
        let fixture = Fixture::with_routes("", &[], Unmatched::Store).expect("opens");
        let path = &fixture.config.path;
        let insert = "INSERT INTO catchment_dead_letters(published_us, recorded_us, subject, payload, route, error)
             VALUES (7, 8, ?1, 'secret', 'r', ?2)";
        for (subject, error) in [("a", "one"), ("b", &*"x".repeat(9_999)), ("c", "three")] {
            fixture.connection.execute(insert, [subject, error]).expect("inserts");
        }
        let found = Observation::make(path, 2).expect("reads");
        assert_eq!(found.dead_letters, 3);
        let last: Vec<(&str, usize)> = found.last.iter().map(|l| (&*l.subject, l.error.len())).collect();
        assert_eq!(last, [("c", 5), ("b", 500)]);
        assert_eq!(found.last[0].route.as_deref(), Some("r"));
        assert!(found.page_size >= 512 && found.pages > 1, "{found:?}");
    }
}
