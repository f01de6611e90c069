//! Recognises events that are stored already, by the numbers that recorders give them.
//!
//! A recorder has a name of its own and numbers its events. Table `catchment_recorders` has, for each recorder, which of its numbers are
//! stored. It is read and changed in the transaction that stores the events, so it is always true of their rows: after a crash, in
//! another epoch of the stream, and in a restored backup.
//!
//! Numbers are kept by stream: a recorder's events may go to several streams, and are in order only within one. Numbers of messages that
//! the server has copied from another stream do not count.

mod batch_numbers;
mod number_window;

use std::time::Duration;

use rusqlite::Error::FromSqlConversionFailure;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, params};

pub(super) use batch_numbers::BatchNumbers;
pub(super) use number_window::NumberWindow;

/// What the database remembers of recorders whose events a transaction stores.
pub(super) struct Repetitions<'a> {
    connection: &'a Connection,
    numbers: &'a BatchNumbers,
    /// By the recorder's index. `None`: not read in this transaction.
    windows: Vec<Option<NumberWindow>>,
    has_new: bool,
}

impl<'a> Repetitions<'a> {
    /// For a transaction on this connection.
    pub(super) fn new(connection: &'a Connection, numbers: &'a BatchNumbers) -> Self {
        let windows = numbers.recorders().iter().map(|_| None).collect();
        Self { connection, numbers, windows, has_new: false }
    }

    /// Whether the event at this index of the batch is stored already. If not, it counts as stored from here on.
    pub(super) fn is_repeated(&mut self, index: usize) -> rusqlite::Result<bool> {
        let Some((recorder, number)) = self.numbers.number(index) else { return Ok(false) };
        let window = match &mut self.windows[recorder] {
            Some(window) => window,
            unread => {
                let found = read(self.connection, self.numbers.stream(), &self.numbers.recorders()[recorder])?;
                self.has_new |= found.is_none();
                unread.insert(found.unwrap_or_default())
            }
        };
        Ok(!window.insert(number))
    }

    /// Stores what changed. `seen_us` is the publish time of the last event, in microseconds since 1970. Returns whether there was a
    /// recorder that the database did not know before.
    pub(super) fn save(self, seen_us: i64) -> rusqlite::Result<bool> {
        let sql = "INSERT INTO catchment_recorders(stream, recorder, base, stored, seen_us) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT DO UPDATE SET base = ?3, stored = ?4, seen_us = max(seen_us, ?5)";
        let stream = self.numbers.stream();
        for (name, window) in self.numbers.recorders().iter().zip(&self.windows) {
            let Some(window) = window else { continue };
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.execute(params![stream, name, window.base(), window.to_blob(), seen_us])?;
        }
        Ok(self.has_new)
    }
}

fn read(connection: &Connection, stream: &str, name: &str) -> rusqlite::Result<Option<NumberWindow>> {
    let sql = "SELECT base, stored FROM catchment_recorders WHERE stream = ? AND recorder = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let window = |row: &rusqlite::Row<'_>| {
        let (base, stored) = (row.get(0)?, row.get_ref(1)?.as_blob()?);
        NumberWindow::from_row(base, stored).map_err(|error| FromSqlConversionFailure(1, Type::Blob, Box::new(error)))
    };
    statement.query_row([stream, name], window).optional()
}

/// Forgets the recorders whose last event was published longer than `after` before `now_us`, which is a publish time too: a stream may be
/// read long after it was written.
pub(super) fn forget(connection: &Connection, now_us: i64, after: Duration) -> rusqlite::Result<usize> {
    let after_us = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
    let sql = "DELETE FROM catchment_recorders WHERE seen_us < ?";
    connection.prepare_cached(sql)?.execute([now_us.saturating_sub(after_us)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_id::NUMBER_HEADER;
    use crate::pipeline::{Batch, Epoch, Limits, Mark};
    use crate::store::schema;

    /// A batch of events with these headers.
    fn numbers(events: &[&[(&str, &str)]]) -> BatchNumbers {
        let mut batch = Batch::new(Limits { events: 100, bytes: 10_000 });
        batch.begin(Epoch::new("S", 1, "today").into(), Mark::START);
        for headers in events {
            batch.push(Mark::START, "a", headers.iter().copied(), b"");
        }
        let mut numbers = BatchNumbers::default();
        numbers.read(&batch);
        numbers
    }

    fn stored(connection: &Connection, events: &[&[(&str, &str)]], seen_us: i64) -> (Vec<bool>, bool) {
        let numbers = numbers(events);
        let mut repetitions = Repetitions::new(connection, &numbers);
        let is_new = (0..events.len()).map(|index| !repetitions.is_repeated(index).expect("reads")).collect();
        (is_new, repetitions.save(seen_us).expect("saves"))
    }

    fn database() -> Connection {
        let mut connection = Connection::open_in_memory().expect("memory");
        assert!(schema::ensure(&mut connection).is_ok());
        connection
    }

    #[test]
    fn a_repetition_is_recognised_in_its_transaction_and_later() {
        let db = database();
        let (a0, a1, b0) = ([(NUMBER_HEADER, "a-0")], [(NUMBER_HEADER, "a-1")], [(NUMBER_HEADER, "b-0")]);
        let first = stored(&db, &[&a0, &b0, &a0, &[("X", "y")], &a1], 1);
        assert_eq!(first, (vec![true, true, false, true, true], true));
        let a2 = [(NUMBER_HEADER, "a-2")];
        assert_eq!(stored(&db, &[&a1, &a2, &[("X", "y")]], 1), (vec![false, true, true], false));
    }

    #[test]
    fn the_number_of_a_copied_message_does_not_count() {
        let db = database();
        for header in ["Nats-Stream-Source", "Nats-Stream", "Nats-Scheduler"] {
            let of = |value| [(header, value), (NUMBER_HEADER, "a-7")];
            assert_eq!(stored(&db, &[&of("A 1 > > a"), &of("B 9 > > a"), &of("A 2 > > a")], 1).0, [true; 3]);
        }
        assert_eq!(stored(&db, &[&[(NUMBER_HEADER, "a-7")]], 1).0, [true]);
        assert_eq!(stored(&db, &[&[("Nats-Stream-Source", "A 1"), (NUMBER_HEADER, "a-7")]], 1).0, [true]);
    }

    #[test]
    fn recorders_that_were_not_seen_for_long_are_forgotten() {
        let db = database();
        let (a, b) = ([(NUMBER_HEADER, "a-0")], [(NUMBER_HEADER, "b-0")]);
        let day = 86_400_000_000;
        assert!(stored(&db, &[&a], day).1 && stored(&db, &[&b], 2 * day).1);
        let days = |n: u64| Duration::from_secs(86_400 * n);
        assert_eq!(forget(&db, 3 * day, days(2)).expect("forgets"), 0);
        assert_eq!(forget(&db, 3 * day + 1, days(2)).expect("forgets"), 1);
        assert_eq!(stored(&db, &[&a, &b], 3 * day).0, [true, false]);
        assert_eq!(forget(&db, 3 * day, Duration::MAX).expect("forgets"), 0);
    }
}
