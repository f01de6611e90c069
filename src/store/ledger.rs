//! One row a stream and epoch: how far it is committed, moved in the rows' own transaction.

use rusqlite::{Connection, OptionalExtension, params};

use crate::pipeline::{Epoch, Mark, Position};

/// The latest entry of a stream; `None` where nothing of it was ever committed.
pub(super) fn latest(connection: &Connection, stream: &str) -> rusqlite::Result<Option<Position>> {
    let sql = "SELECT epoch, created, sequence, published_ns FROM catchment_ledger
               WHERE stream = ? ORDER BY epoch DESC LIMIT 1";
    connection
        .prepare_cached(sql)?
        .query_row([stream], |row| {
            Ok(Position {
                epoch: Epoch { stream: stream.to_owned(), number: row.get(0)?, created: row.get(1)? },
                mark: Mark { sequence: row.get(2)?, published_ns: row.get(3)? },
            })
        })
        .optional()
}

/// Begins the next local epoch and forgets those before the last one, which no commit under way can concern. Its own entry
/// comes with its first commit; until then the last one's keeps its number from being given twice.
pub(super) fn begin_local(connection: &Connection) -> rusqlite::Result<Epoch> {
    let sql = "DELETE FROM catchment_ledger
               WHERE stream = ?1 AND epoch < (SELECT max(epoch) FROM catchment_ledger WHERE stream = ?1)";
    connection.execute(sql, [Epoch::local_name()])?;
    let last = latest(connection, Epoch::local_name())?.map_or(0, |position| position.epoch.number);
    let now = connection.query_row("SELECT strftime('%Y-%m-%dT%H:%M:%fZ')", [], |row| row.get(0))?;
    Ok(Epoch::local(last + 1, now))
}

/// How far this epoch is committed: [`Mark::START`] where it has no entry yet.
pub(super) fn mark(connection: &Connection, epoch: &Epoch) -> rusqlite::Result<Mark> {
    let sql = "SELECT sequence, published_ns FROM catchment_ledger WHERE stream = ? AND epoch = ?";
    let found = connection.prepare_cached(sql)?.query_row(params![epoch.stream, epoch.number], |row| {
        Ok(Mark { sequence: row.get(0)?, published_ns: row.get(1)? })
    });
    Ok(found.optional()?.unwrap_or(Mark::START))
}

/// Moves the epoch from `before` to `after`; `false`, and nothing moved, where it does not stand at `before` or a later
/// epoch of the stream has begun.
pub(super) fn advance(connection: &Connection, epoch: &Epoch, before: Mark, after: Mark) -> rusqlite::Result<bool> {
    let changed = if before == Mark::START {
        let sql = "INSERT INTO catchment_ledger(stream, epoch, created, sequence, published_ns)
                   SELECT ?1, ?2, ?3, ?4, ?5
                   WHERE NOT EXISTS (SELECT 1 FROM catchment_ledger WHERE stream = ?1 AND epoch >= ?2)";
        let mut statement = connection.prepare_cached(sql)?;
        statement.execute(params![epoch.stream, epoch.number, epoch.created, after.sequence, after.published_ns])?
    } else {
        let sql = "UPDATE catchment_ledger SET sequence = ?4, published_ns = ?5
                   WHERE stream = ?1 AND epoch = ?2 AND sequence = ?3
                   AND NOT EXISTS (SELECT 1 FROM catchment_ledger WHERE stream = ?1 AND epoch > ?2)";
        let mut statement = connection.prepare_cached(sql)?;
        statement.execute(params![epoch.stream, epoch.number, before.sequence, after.sequence, after.published_ns])?
    };
    Ok(changed == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;
    use proptest::prelude::*;

    fn database() -> Connection {
        let mut connection = Connection::open_in_memory().expect("memory");
        schema::ensure(&mut connection).expect("tables");
        connection
    }

    fn epoch(number: u32) -> Epoch {
        Epoch { stream: "S".into(), number, created: format!("day {number}") }
    }

    fn at(sequence: u64) -> Mark {
        Mark { sequence, published_ns: i64::try_from(sequence).unwrap() * 10 }
    }

    #[test]
    fn it_moves_only_from_where_it_stands() {
        let db = database();
        assert_eq!(latest(&db, "S").unwrap(), None);
        assert!(advance(&db, &epoch(1), Mark::START, at(5)).unwrap());
        assert!(!advance(&db, &epoch(1), Mark::START, at(5)).unwrap(), "a second first time");
        assert!(!advance(&db, &epoch(1), at(4), at(9)).unwrap(), "from elsewhere");
        assert!(advance(&db, &epoch(1), at(5), at(9)).unwrap());
        assert_eq!(latest(&db, "S").unwrap(), Some(Position { epoch: epoch(1), mark: at(9) }));
        assert_eq!(latest(&db, "T").unwrap(), None);
    }

    #[test]
    fn an_epoch_that_was_followed_moves_no_more() {
        let db = database();
        assert!(advance(&db, &epoch(1), Mark::START, at(5)).unwrap());
        assert!(advance(&db, &epoch(2), Mark::START, at(1)).unwrap());
        assert!(!advance(&db, &epoch(1), at(5), at(6)).unwrap());
        assert_eq!(mark(&db, &epoch(1)).unwrap(), at(5));
        assert_eq!(mark(&db, &epoch(3)).unwrap(), Mark::START);
    }

    #[test]
    fn local_epochs_are_told_apart_and_do_not_pile_up() {
        let db = database();
        assert!(advance(&db, &epoch(1), Mark::START, at(5)).unwrap());
        for number in 1..=5 {
            let local = begin_local(&db).unwrap();
            assert_eq!((local.number, local.origin()), (number, None));
            assert!(advance(&db, &local, Mark::START, at(3)).unwrap());
            let rows: u32 = db.query_row("SELECT count(*) FROM catchment_ledger", [], |row| row.get(0)).unwrap();
            assert!(rows <= 3, "{rows} rows");
        }
        assert_eq!(latest(&db, "S").unwrap(), Some(Position { epoch: epoch(1), mark: at(5) }));
    }

    proptest! {
        /// Whatever two writers try, each step is taken once: the ledger is where a lone counter would be.
        #[test]
        fn any_mix_of_attempts_leaves_it_where_the_valid_ones_lead(steps in prop::collection::vec((0u64..6, 1u64..6), 1..60)) {
            let db = database();
            let mut stands = 0;
            for (from, by) in steps {
                let before = if from == 0 { Mark::START } else { at(from) };
                let moved = advance(&db, &epoch(1), before, at(from + by)).unwrap();
                prop_assert_eq!(moved, from == stands);
                if moved {
                    stands = from + by;
                }
            }
            prop_assert_eq!(mark(&db, &epoch(1)).unwrap().sequence, stands);
        }
    }
}
