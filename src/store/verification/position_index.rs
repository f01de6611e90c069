//! Which sequences of a stream a database has, sorted, in a temporary file: table `events` has no index for them.

use rusqlite::{Connection, params};

use crate::store::temp_store::use_files_if_possible;

/// Where a sequence was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Table `events`.
    Events,
    /// The dead letters.
    DeadLetters,
    /// The column with this number, from 0, that has the sequences of routed events.
    Key(usize),
}

/// A sequence that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) source: Source,
    pub(super) sequence: u64,
    /// Publish time in microseconds; 0 in a routed table.
    pub(super) published_us: i64,
    /// The row's number in table `events` or among the dead letters.
    pub(super) id: i64,
}

/// The sequences, in a file that is gone when this is dropped.
#[derive(Debug)]
pub(super) struct PositionIndex(Connection);

impl Source {
    fn number(self) -> i64 {
        match self {
            Self::Events => 0,
            Self::DeadLetters => 1,
            Self::Key(number) => 2 + i64::try_from(number).unwrap_or(i64::MAX - 2),
        }
    }

    fn of(number: i64) -> Self {
        match number {
            0 => Self::Events,
            1 => Self::DeadLetters,
            number => Self::Key(usize::try_from(number - 2).unwrap_or_default()),
        }
    }
}

impl PositionIndex {
    /// An empty one. SQLite makes a temporary file for it, beside none of the databases.
    pub(super) fn new() -> rusqlite::Result<Self> {
        let connection = Connection::open("")?;
        use_files_if_possible(&connection)?;
        connection.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;
             CREATE TABLE found(
                 sequence INTEGER, source INTEGER, published_us INTEGER, id INTEGER,
                 PRIMARY KEY(sequence, source, published_us, id)
             ) WITHOUT ROWID;
             BEGIN;",
        )?;
        Ok(Self(connection))
    }

    /// Adds a sequence.
    pub(super) fn add(&self, position: Position) -> rusqlite::Result<()> {
        let Position { source, sequence, published_us, id } = position;
        let mut insert = self.0.prepare_cached("INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?)")?;
        insert.execute(params![sequence, source.number(), published_us, id]).map(drop)
    }

    /// All in this range, by their sequences.
    pub(super) fn between(&self, first: u64, last: u64) -> rusqlite::Result<Vec<Position>> {
        let sql = "SELECT sequence, source, published_us, id FROM found WHERE sequence BETWEEN ? AND ?
                   ORDER BY sequence, source, published_us, id";
        let mut select = self.0.prepare_cached(sql)?;
        let position = |row: &rusqlite::Row<'_>| {
            Ok(Position {
                sequence: row.get(0)?,
                source: Source::of(row.get(1)?),
                published_us: row.get(2)?,
                id: row.get(3)?,
            })
        };
        select.query_map([first, last], position)?.collect()
    }

    /// The first sequence from this source.
    pub(super) fn first_of(&self, source: Source) -> rusqlite::Result<Option<u64>> {
        self.0.query_row("SELECT min(sequence) FROM found WHERE source = ?", [source.number()], |row| row.get(0))
    }

    /// How many different sequences there are below this one.
    pub(super) fn sequences_below(&self, sequence: u64) -> rusqlite::Result<u64> {
        let sql = "SELECT count(DISTINCT sequence) FROM found WHERE sequence < ?";
        self.0.query_row(sql, [sequence], |row| row.get(0))
    }

    /// How many rows of table `events` there are below this sequence, and above that one.
    pub(super) fn events_outside(&self, first: u64, last: u64) -> rusqlite::Result<(u64, u64)> {
        let sql = "SELECT count(*) FILTER (WHERE sequence < ?1), count(*) FILTER (WHERE sequence > ?2) FROM found WHERE source = 0";
        self.0.query_row(sql, [first, last], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Rows of table `events` that have sequence and time of another one before: of each the sequence and the row's number.
    pub(super) fn doubled_events(&self) -> rusqlite::Result<Vec<(u64, i64)>> {
        let sql = "SELECT sequence, id FROM (
                       SELECT sequence, id, row_number() OVER (PARTITION BY sequence, published_us ORDER BY id) AS copy
                       FROM found WHERE source = 0
                   ) WHERE copy > 1 ORDER BY sequence, id";
        self.0.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }
}
