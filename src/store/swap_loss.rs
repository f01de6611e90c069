//! What a database has that another one lacks which a replay has filled: events that the stream no longer has, other streams and epochs,
//! tables that no replay fills.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::read_connection::ReadConnection;
use super::{ledger, partition_note, replay_note, schema};
use crate::counted;
use crate::error::Error;
use crate::pipeline::{EpochProgress, Gap, Gaps};

/// What the old database has and the new one lacks, in words; empty if the new one has all of it. Counts events by the two ledgers, so
/// rows that were changed or deleted by hand do not matter. Reads whole tables only where rows have no stream. Events of the stream after
/// the new one's position are not lost: the next start collects them. The second value is how many of those the old one has.
///
/// # Errors
///
/// [`Error::Database`].
pub fn lost_by_swap(live: &Path, new: &Path, stream: &str) -> Result<(Vec<String>, u64), Error> {
    let (old, new) = (ReadConnection::open(live)?, ReadConnection::open(new)?);
    schema::must_be_ours(old.sqlite(), live)?;
    let (first, replayed, filled) = new.read(|connection| {
        let first = replay_note::read(connection)?.map_or(1, |note| note.first);
        Ok((first, ledger::history(connection, stream)?, tables_with_rows(connection)?))
    })?;
    old.read(|connection| {
        let mut lost = Vec::new();
        let created: Vec<&str> = replayed.iter().map(|progress| progress.epoch.created.as_str()).collect();
        let history = ledger::history(connection, stream)?;
        let (same, others): (Vec<_>, Vec<_>) =
            history.iter().partition(|progress| created.contains(&progress.epoch.created.as_str()));
        let position = replayed.iter().map(|progress| progress.mark.sequence).max().unwrap_or(0);
        let lacking = had(same.into_iter(), 1).without(&had(replayed.iter(), first), 0);
        let behind = lacking.missing_between(position + 1, u64::MAX - 1);
        let gone: Gaps = lacking.iter().filter_map(|gap| gap.within(1, position)).collect();
        if !gone.is_empty() {
            let events = counted(gone.missing(), "event");
            lost.push(format!("up to {events} of stream {stream} ({gone})"));
        }
        for progress in others.iter().filter(|progress| progress.mark.sequence > 0) {
            let (created, end) = (&progress.epoch.created, progress.mark.sequence);
            lost.push(format!("events of the stream {stream} that was created at {created}, up to {end}"));
        }
        if let Some(end) = partition_note::read_undivided(connection, stream)? {
            lost.push(format!("events of stream {stream} from before it had partitions, up to {end}"));
        }
        lost.extend(other_streams(connection, stream)?);
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0));
        let unnamed = count("SELECT count(*) FROM events WHERE stream IS NULL")?;
        if unnamed > 0 {
            lost.push(format!("{} in table events that came from no stream", counted(unnamed, "event")));
        }
        let letters = count("SELECT count(*) FROM catchment_dead_letters WHERE stream IS NULL")?;
        if letters > 0 {
            lost.push(format!("{} that came from no stream", counted(letters, "dead letter")));
        }
        for table in tables_with_rows(connection)? {
            if !filled.iter().any(|name| name.eq_ignore_ascii_case(&table)) {
                lost.push(format!("table {table}, which has no rows in the new one"));
            }
        }
        Ok((lost, behind))
    })
}

/// The sequences that these epochs have, from `first` on.
fn had<'p>(epochs: impl Iterator<Item = &'p EpochProgress>, first: u64) -> Gaps {
    let of = |progress: &EpochProgress| {
        let all: Gaps = Gap::of(first, progress.mark.sequence).into_iter().collect();
        // Where ranges were joined, any of them may be missing.
        let gaps: Gaps = progress.gaps.iter().filter_map(|gap| Gap::of(gap.first, gap.last)).collect();
        all.without(&gaps, 0)
    };
    epochs.flat_map(|progress| of(progress).iter().collect::<Vec<_>>()).collect()
}

fn other_streams(connection: &Connection, stream: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT stream, max(sequence) FROM catchment_ledger WHERE stream <> ? AND sequence > 0 GROUP BY stream";
    let mut statement = connection.prepare(sql)?;
    let of = |row: &rusqlite::Row<'_>| {
        let name: String = row.get(0)?;
        let is_local = name == crate::pipeline::Epoch::local_name();
        Ok(if is_local { "events of core NATS".to_owned() } else { format!("events of stream {name}") })
    };
    statement.query_map([stream], of)?.collect()
}

/// The names of the user's tables that have a row.
fn tables_with_rows(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut found = Vec::new();
    for table in schema::tables(connection)? {
        if schema::is_ours(&table) || table == "events" {
            continue;
        }
        let sql = format!("SELECT 1 FROM {} LIMIT 1", schema::quoted(&table));
        if connection.query_row(&sql, [], |_| Ok(())).optional()?.is_some() {
            found.push(table);
        }
    }
    Ok(found)
}
