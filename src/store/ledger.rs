//! The ledger: for each stream and epoch a row with the committed position, moved in the transaction of the events' rows. And the
//! gaps: events that the stream no longer had when they were to be collected.

use rusqlite::{Connection, OptionalExtension, params};

use super::schema;
use crate::pipeline::{Epoch, EpochProgress, Gap, Gaps, Mark};

/// All epochs of a stream, the latest last. Also reads tables of an earlier version, which a check does not upgrade.
pub(super) fn history(connection: &Connection, stream: &str) -> rusqlite::Result<Vec<EpochProgress>> {
    let has_gaps = schema::has_table(connection, "catchment_gaps")?;
    let sql = "SELECT epoch, created, sequence, published_ns FROM catchment_ledger WHERE stream = ? ORDER BY epoch";
    let mut statement = connection.prepare_cached(sql)?;
    let epochs = statement.query_map([stream], |row| {
        let (number, created): (u32, String) = (row.get(0)?, row.get(1)?);
        let epoch = Epoch::new(stream, number, created);
        let gaps = if has_gaps { gaps(connection, &epoch)? } else { Gaps::default() };
        Ok(EpochProgress { epoch, mark: Mark { sequence: row.get(2)?, published_ns: row.get(3)? }, gaps })
    });
    epochs?.collect()
}

fn gaps(connection: &Connection, epoch: &Epoch) -> rusqlite::Result<Gaps> {
    let sql = "SELECT first, last, missing FROM catchment_gaps WHERE stream = ? AND epoch = ? ORDER BY first";
    let mut statement = connection.prepare_cached(sql)?;
    let gaps = statement.query_map(params![epoch.stream, epoch.number], |row| {
        Ok(Gap { first: row.get(0)?, last: row.get(1)?, missing: row.get(2)? })
    });
    gaps?.collect()
}

/// Records gaps of the stream. If there are too many, neighbouring gaps are joined.
pub(super) fn record_gaps(
    connection: &Connection,
    epoch: &Epoch,
    gaps: impl Iterator<Item = Gap>,
) -> rusqlite::Result<()> {
    let mut gaps = gaps.peekable();
    if gaps.peek().is_none() {
        return Ok(());
    }
    let insert = |gap: Gap| {
        let sql = "INSERT OR REPLACE INTO catchment_gaps(stream, epoch, first, last, missing) VALUES (?, ?, ?, ?, ?)";
        let mut statement = connection.prepare_cached(sql)?;
        statement.execute(params![epoch.stream, epoch.number, gap.first, gap.last, gap.missing]).map(|_| ())
    };
    gaps.try_for_each(insert)?;
    let sql = "SELECT count(*) FROM catchment_gaps WHERE stream = ? AND epoch = ?";
    let of_epoch = params![epoch.stream, epoch.number];
    let count: usize = connection.prepare_cached(sql)?.query_row(of_epoch, |row| row.get(0))?;
    if count <= Gaps::MOST {
        return Ok(());
    }
    let mut all = self::gaps(connection, epoch)?;
    all.compact(Gaps::MOST / 2);
    connection.execute("DELETE FROM catchment_gaps WHERE stream = ? AND epoch = ?", of_epoch)?;
    all.iter().try_for_each(insert)
}

/// Begins the next local epoch and deletes those before the last one: no commit in progress can belong to them. The new epoch's
/// entry is made by its first commit. Until then, the last epoch's entry keeps the number from being used twice.
pub(super) fn begin_local(connection: &Connection) -> rusqlite::Result<Epoch> {
    let sql = "DELETE FROM catchment_ledger
               WHERE stream = ?1 AND epoch < (SELECT max(epoch) FROM catchment_ledger WHERE stream = ?1)";
    connection.execute(sql, [Epoch::local_name()])?;
    let sql = "SELECT coalesce(max(epoch), 0) FROM catchment_ledger WHERE stream = ?";
    let last: u32 = connection.query_row(sql, [Epoch::local_name()], |row| row.get(0))?;
    let now = connection.query_row("SELECT strftime('%Y-%m-%dT%H:%M:%fZ')", [], |row| row.get(0))?;
    Ok(Epoch::local(last + 1, now))
}

/// How far this epoch is committed. Without an entry, that is where it begins.
pub(super) fn mark(connection: &Connection, epoch: &Epoch) -> rusqlite::Result<Mark> {
    let sql = "SELECT sequence, published_ns FROM catchment_ledger WHERE stream = ? AND epoch = ?";
    let found = connection.prepare_cached(sql)?.query_row(params![epoch.stream, epoch.number], |row| {
        Ok(Mark { sequence: row.get(0)?, published_ns: row.get(1)? })
    });
    Ok(found.optional()?.unwrap_or(epoch.begins))
}

/// Moves the epoch from `before` to `after`. Returns `false`, and moves nothing, if it is not at `before` or a later epoch of the
/// stream has begun.
pub(super) fn advance(connection: &Connection, epoch: &Epoch, before: Mark, after: Mark) -> rusqlite::Result<bool> {
    let changed = if before == epoch.begins {
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
    use proptest::prelude::*;

    fn database() -> Connection {
        let mut connection = Connection::open_in_memory().expect("memory");
        schema::ensure(&mut connection).expect("tables");
        connection
    }

    fn epoch(number: u32) -> Epoch {
        Epoch::new("S", number, format!("day {number}"))
    }

    fn latest(connection: &Connection, stream: &str) -> rusqlite::Result<Option<(Epoch, Mark)>> {
        Ok(history(connection, stream)?.pop().map(|progress| (progress.epoch, progress.mark)))
    }

    fn at(sequence: u64) -> Mark {
        Mark { sequence, published_ns: i64::try_from(sequence).unwrap() * 10 }
    }

    #[test]
    fn it_moves_only_from_its_position() {
        let db = database();
        assert_eq!(latest(&db, "S").unwrap(), None);
        assert!(advance(&db, &epoch(1), Mark::START, at(5)).unwrap());
        assert!(!advance(&db, &epoch(1), Mark::START, at(5)).unwrap(), "a second first time");
        assert!(!advance(&db, &epoch(1), at(4), at(9)).unwrap(), "from elsewhere");
        assert!(advance(&db, &epoch(1), at(5), at(9)).unwrap());
        assert_eq!(latest(&db, "S").unwrap(), Some((epoch(1), at(9))));
        assert_eq!(latest(&db, "T").unwrap(), None);
    }

    #[test]
    fn an_epoch_with_a_successor_does_not_move() {
        let db = database();
        assert!(advance(&db, &epoch(1), Mark::START, at(5)).unwrap());
        assert!(advance(&db, &epoch(2), Mark::START, at(1)).unwrap());
        assert!(!advance(&db, &epoch(1), at(5), at(6)).unwrap());
        assert_eq!(mark(&db, &epoch(1)).unwrap(), at(5));
        assert_eq!(mark(&db, &epoch(3)).unwrap(), Mark::START);
    }

    #[test]
    fn local_epochs_are_distinct_and_do_not_accumulate() {
        let db = database();
        assert!(advance(&db, &epoch(1), Mark::START, at(5)).unwrap());
        for number in 1..=5 {
            let local = begin_local(&db).unwrap();
            assert_eq!((local.number, local.origin()), (number, None));
            assert!(advance(&db, &local, Mark::START, at(3)).unwrap());
            let rows: u32 = db.query_row("SELECT count(*) FROM catchment_ledger", [], |row| row.get(0)).unwrap();
            assert!(rows <= 3, "{rows} rows");
        }
        assert_eq!(latest(&db, "S").unwrap(), Some((epoch(1), at(5))));
    }

    #[test]
    fn an_epoch_may_continue_at_an_earlier_ones_position() {
        let db = database();
        assert!(advance(&db, &epoch(1), Mark::START, at(5)).unwrap());
        assert!(advance(&db, &epoch(2), Mark::START, at(9)).unwrap());
        let third = Epoch { begins: at(5), number: 3, ..epoch(1) };
        assert_eq!(mark(&db, &third).unwrap(), at(5), "nothing of it is committed yet");
        assert!(!advance(&db, &third, Mark::START, at(6)).unwrap(), "from elsewhere");
        assert!(advance(&db, &third, at(5), at(6)).unwrap());
        assert!(!advance(&db, &third, at(5), at(7)).unwrap(), "a second first time");
        assert!(advance(&db, &third, at(6), at(8)).unwrap());
        let numbers: Vec<_> =
            history(&db, "S").unwrap().iter().map(|progress| (progress.epoch.number, progress.mark)).collect();
        assert_eq!(numbers, [(1, at(5)), (2, at(9)), (3, at(8))]);
    }

    #[test]
    fn gaps_belong_to_their_epoch_and_too_many_are_joined() {
        let db = database();
        let read = |number| {
            history(&db, "S").unwrap().into_iter().find(|progress| progress.epoch.number == number).unwrap().gaps
        };
        for number in 1..=2 {
            assert!(advance(&db, &epoch(number), Mark::START, at(50_000)).unwrap());
        }
        record_gaps(&db, &epoch(1), Gap::of(3, 7).into_iter()).unwrap();
        record_gaps(&db, &epoch(1), [Gap::of(1, 1), Gap::of(8, 9)].into_iter().flatten()).unwrap();
        assert_eq!(read(1), [Gap::of(1, 1), Gap::of(3, 9)].into_iter().flatten().collect());
        assert!(read(2).is_empty());
        let every_second = (1..=Gaps::MOST as u64 + 1).filter_map(|number| Gap::of(number * 2, number * 2));
        record_gaps(&db, &epoch(2), every_second).unwrap();
        let joined = read(2);
        assert_eq!((joined.len(), joined.missing()), (Gaps::MOST / 2, Gaps::MOST as u64 + 1));
    }

    proptest! {
        /// With any attempts of two writers, each step is taken once: the ledger equals a single counter.
        #[test]
        fn only_valid_attempts_move_it(steps in prop::collection::vec((0u64..6, 1u64..6), 1..60)) {
            let db = database();
            let mut position = 0;
            for (from, by) in steps {
                let before = if from == 0 { Mark::START } else { at(from) };
                let moved = advance(&db, &epoch(1), before, at(from + by)).unwrap();
                prop_assert_eq!(moved, from == position);
                if moved {
                    position = from + by;
                }
            }
            prop_assert_eq!(mark(&db, &epoch(1)).unwrap().sequence, position);
        }
    }
}
