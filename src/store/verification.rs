//! Compares what a database has of a stream with the stream's messages.
//!
//! The sequences that the database has are read once, in one transaction, into a sorted temporary file. So the comparison is one of a
//! moment, and a collector can go on: no transaction stays open while the stream is read. The rows of table `events` are read again when
//! their message is compared.

mod counts;
mod position_index;
mod route_targets;
mod row_difference;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::columns::micros;
use super::read_connection::ReadConnection;
use super::repetitions::{BatchNumbers, NumberWindow};
use super::routes::Routes;
use super::routes::authorizer::Authorizer;
use super::routes::decoded_batch::{DecodedBatch, Disposition};
use super::routes::plan::Plan;
use super::sqlite_error::database_error;
use super::{ledger, replay_note, schema};
use crate::error::Error;
use crate::pipeline::{Batch, EpochProgress};
use crate::task::Task;
pub use counts::VerifyCounts;
use position_index::{Position, PositionIndex, Source};
pub use route_targets::CountedTable;
use route_targets::{Key, RouteTarget, RouteTargets};
use row_difference::difference;

/// How many rows are read between two reports of progress.
const REPORT_EVERY: u64 = 10_000;

/// A database at one moment, ready to be compared with a stream.
#[derive(Debug)]
pub struct Verification {
    path: PathBuf,
    reader: ReadConnection,
    index: PositionIndex,
    history: Vec<EpochProgress>,
    /// The first sequence that the database is to have: a replay may have begun later than the stream.
    first: u64,
    has_recorders: bool,
    plan: Arc<Plan>,
    decoded: DecodedBatch,
    numbers: BatchNumbers,
    /// The numbers of each recorder so far, and the first of them.
    seen: HashMap<Arc<str>, (u64, NumberWindow)>,
    keys: Vec<Key>,
    routes: Vec<RouteTarget>,
    /// The rows of tables that are compared by counts.
    tables: Vec<CountedTable>,
    /// Below these sequences rows were deleted on purpose: of table `events`, and of the table of each key.
    pruned: (u64, Vec<u64>),
}

/// What a comparison has found of some messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// How many there are of each kind.
    pub counts: VerifyCounts,
    /// The indices of the messages that the database lacks.
    pub missing: Vec<usize>,
    /// Rows of table `events` that differ from their message: its index, the row's number, and what differs.
    pub differing: Vec<(usize, i64, String)>,
    /// The sequences of messages that are stored, and dead letters too.
    pub stored_and_dead: Vec<u64>,
}

impl Verification {
    /// Reads which sequences of the stream the database has, as of now. `keys` names columns that have the sequences of routed events:
    /// `messages.seq`. Others are found in the routes' statements. A collector may run at the same time. Blocks while all rows of table
    /// `events` and of the tables with a key are read. `pruned` names tables whose oldest rows were deleted on purpose (`true`), or
    /// others too.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: it cannot be read, or the routes do not fit its tables. [`Error::Config`]: a key names no such column, or a
    /// table that no route fills. [`Error::Cancelled`].
    pub fn open(
        path: &Path,
        stream: &str,
        routes: &Routes,
        (keys, pruned): (&[String], &[(String, bool)]),
        task: Task<'_>,
    ) -> Result<Self, Error> {
        let reader = ReadConnection::open(path)?;
        schema::must_be_ours(reader.sqlite(), path)?;
        let on_error = |e| database_error(path, e);
        let authorizer = Authorizer::of(reader.sqlite()).map_err(on_error)?;
        let plan = Arc::new(Plan::new(path, routes, reader.sqlite(), &authorizer)?);
        let targets = RouteTargets::new(&plan, reader.sqlite(), &authorizer, keys)?;
        let RouteTargets { keys, routes: mut targets, mut tables } = targets;
        let index = PositionIndex::new().map_err(on_error)?;
        let sqlite = reader.sqlite();
        sqlite.execute_batch("BEGIN").map_err(on_error)?;
        let history = ledger::history(sqlite, stream).map_err(on_error)?;
        let first = replay_note::read(sqlite).map_err(on_error)?.filter(|note| note.stream == stream);
        let sql = "SELECT 1 FROM catchment_recorders WHERE stream = ? LIMIT 1";
        let has_recorders = schema::has_table(sqlite, "catchment_recorders")
            .and_then(|has| Ok(has && sqlite.query_row(sql, [stream], |_| Ok(())).optional()?.is_some()))
            .map_err(on_error)?;
        let mut filling = Filling { sqlite, index: &index, task, path };
        filling.read(
            Source::Events,
            "SELECT sequence, published_us, id FROM events WHERE stream = ?1 AND sequence IS NOT NULL",
            Some(stream),
        )?;
        filling.read(
            Source::DeadLetters,
            "SELECT sequence, published_us, id FROM catchment_dead_letters WHERE stream = ?1 AND sequence IS NOT NULL",
            Some(stream),
        )?;
        for (number, Key { table, column }) in keys.iter().enumerate() {
            let (table, column) = (schema::quoted(table), schema::quoted(column));
            let sql = format!("SELECT {column}, 0, 0 FROM {table} WHERE typeof({column}) = 'integer' AND {column} > 0");
            filling.read(Source::Key(number), &sql, None)?;
        }
        for table in &mut tables {
            let sql = format!("SELECT count(*) FROM {}", schema::quoted(&table.table));
            table.rows = sqlite.query_row(&sql, [], |row| row.get(0)).map_err(on_error)?;
        }
        sqlite.execute_batch("COMMIT").map_err(on_error)?;
        reader.unchanged()?;
        let pruned_table = |name: &str| pruned.iter().find(|(table, _)| table.eq_ignore_ascii_case(name));
        let first_kept = |name: &str, source| match pruned_table(name) {
            Some((_, true)) => index.first_of(source).map(|first| first.unwrap_or(u64::MAX)).map_err(on_error),
            Some((_, false)) => Ok(u64::MAX),
            None => Ok(0),
        };
        let of_keys = keys.iter().enumerate().map(|(at, key)| first_kept(&key.table, Source::Key(at)));
        let pruned_below = (first_kept("events", Source::Events)?, of_keys.collect::<Result<Vec<_>, _>>()?);
        // Fewer rows than messages says nothing of these.
        for target in &mut targets {
            if matches!(target, RouteTarget::Count(table) if pruned_table(&tables[*table].table).is_some()) {
                *target = RouteTarget::Unknown;
            }
        }
        Ok(Self {
            path: path.to_owned(),
            decoded: DecodedBatch::new(Arc::clone(&plan)),
            reader,
            index,
            history,
            first: first.map_or(1, |note| note.first),
            has_recorders,
            plan,
            numbers: BatchNumbers::default(),
            seen: HashMap::new(),
            keys,
            routes: targets,
            tables,
            pruned: pruned_below,
        })
    }

    /// How far each epoch of the stream was committed at that moment, the latest last.
    #[must_use]
    pub fn history(&self) -> &[EpochProgress] {
        &self.history
    }

    /// The first sequence that the database is to have.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The columns by which routed events are found: `messages.seq`.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.keys.iter().map(|Key { table, column }| format!("{table}.{column}")).collect()
    }

    /// The routes whose events cannot be found, because their statements do not add one row for each event.
    #[must_use]
    pub fn unknown_routes(&self) -> Vec<String> {
        let names = self.plan.names().zip(&self.routes);
        names.filter(|(_, target)| **target == RouteTarget::Unknown).map(|(name, _)| name.to_string()).collect()
    }

    /// The tables that are compared by counts, with what was counted so far.
    #[must_use]
    pub fn tables(&self) -> &[CountedTable] {
        &self.tables
    }

    /// Whether a sequence that is neither in the stream nor in the database is a loss: every event has a row in table `events`, and none
    /// was sent twice.
    #[must_use]
    pub fn accounts_for_all(&self) -> bool {
        self.plan.routes().is_plain() && !self.has_recorders && self.pruned.0 == 0
    }

    /// Compares these messages. They are all that the stream has of the sequences from `first` to `last`. `epochs` are the epochs of this
    /// stream, `others` those of streams of the same name before.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn compare(
        &mut self,
        batch: &Batch,
        (first, last): (u64, u64),
        epochs: &[EpochProgress],
        others: &[EpochProgress],
    ) -> Result<Compared, Error> {
        let path = self.path.clone();
        let on_error = |e| database_error(&path, e);
        let positions = self.index.between(first, last).map_err(on_error)?;
        self.decoded.read(batch);
        self.numbers.read(batch);
        let mut compared = Compared::default();
        compared.counts.messages = batch.len() as u64;
        let mut matched: BTreeSet<i64> = BTreeSet::new();
        let mut found = &positions[..];
        let mut sequences: BTreeSet<u64> = positions.iter().map(|position| position.sequence).collect();
        let mut messages = Vec::with_capacity(batch.len());
        for index in 0..batch.len() {
            let delivery = batch.delivery(index);
            let mark = delivery.mark;
            sequences.insert(mark.sequence);
            messages.push(mark.sequence);
            let from = found.partition_point(|position| position.sequence < mark.sequence);
            let to = found.partition_point(|position| position.sequence <= mark.sequence);
            let (own, rest) = (&found[from..to], &found[to..]);
            found = rest;
            let is_repeated = self.is_repeated(index, first);
            let us = micros(mark);
            let at = |source: Source| own.iter().filter(move |position| position.source == source);
            let rows: Vec<i64> =
                at(Source::Events).filter(|row| row.published_us == us).map(|position| position.id).collect();
            matched.extend(&rows);
            let is_dead = at(Source::DeadLetters).any(|letter| letter.published_us == us);
            if is_dead && !rows.is_empty() {
                compared.stored_and_dead.push(mark.sequence);
            }
            if let Some(id) = rows.first() {
                compared.counts.stored += 1;
                if let Some(what) = difference(self.reader.sqlite(), *id, &delivery).map_err(on_error)? {
                    compared.differing.push((index, *id, what));
                }
                continue;
            }
            if is_dead {
                compared.counts.dead_letters += 1;
                continue;
            }
            if matches!(self.decoded.disposition(index), Disposition::Dropped | Disposition::SkippedMarker) {
                compared.counts.dropped += 1;
                continue;
            }
            if is_repeated {
                compared.counts.repeated += 1;
                continue;
            }
            let target = match self.decoded.disposition(index) {
                Disposition::Route(route, _) => Some(self.routes[*route]),
                _ => None,
            };
            match target {
                Some(RouteTarget::Key(key)) if at(Source::Key(key)).next().is_some() => compared.counts.stored += 1,
                Some(RouteTarget::Count(table)) => {
                    self.tables[table].messages += 1;
                    compared.counts.counted += 1;
                }
                Some(RouteTarget::Unknown) => compared.counts.counted += 1,
                // Not stored, and not to be: the collector passed it while the stream lacked it.
                _ if !epochs.iter().any(|progress| progress.has(mark)) => compared.counts.returned += 1,
                Some(RouteTarget::Key(key)) if mark.sequence < self.pruned.1[key] => compared.counts.pruned += 1,
                None if mark.sequence < self.pruned.0 => compared.counts.pruned += 1,
                _ => compared.missing.push(index),
            }
        }
        judge_rows(&positions, &matched, (batch, &messages), others, &mut compared);
        let gaps: u64 = missing_of(epochs, first, last);
        let all = (last + 1).saturating_sub(first);
        compared.counts.unaccounted = all.saturating_sub(sequences.len() as u64).saturating_sub(gaps);
        Ok(compared)
    }

    /// What the database has of sequences that are not compared: rows of table `events` below `first` and above `last`, and sequences
    /// below `first` that it does not have.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn outside(&self, first: u64, last: u64, epochs: &[EpochProgress]) -> Result<(u64, u64, u64), Error> {
        let on_error = |e| database_error(&self.path, e);
        let (below, above) = self.index.events_outside(first, last).map_err(on_error)?;
        let had = self.index.sequences_below(first).map_err(on_error)?;
        let gaps = missing_of(epochs, self.first, first.saturating_sub(1));
        let lacking = first.saturating_sub(self.first).saturating_sub(had).saturating_sub(gaps);
        Ok((below, above, lacking))
    }

    /// Rows of table `events` with sequence and time of another one, at any sequence: of each its sequence and its number.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn doubled_events(&self) -> Result<Vec<(u64, i64)>, Error> {
        self.index.doubled_events().map_err(|e| database_error(&self.path, e))
    }

    /// Whether this message is one that its recorder has sent before, as far as the stream shows. Below the first number that was seen
    /// of a recorder, the first copy may have been before the part of the stream that is there.
    fn is_repeated(&mut self, index: usize, first: u64) -> bool {
        let Some((recorder, number)) = self.numbers.number(index) else { return false };
        let recorder = &self.numbers.recorders()[recorder];
        let (lowest, window) =
            self.seen.entry(Arc::clone(recorder)).or_insert_with(|| (number, NumberWindow::default()));
        !window.insert(number) || (first > 1 && number < *lowest)
    }
}

/// Rows that no message has: of an earlier epoch, or their message is gone, or their time is another than that of the message.
fn judge_rows(
    positions: &[Position],
    matched: &BTreeSet<i64>,
    (batch, messages): (&Batch, &[u64]),
    others: &[EpochProgress],
    compared: &mut Compared,
) {
    let rows = positions.iter().filter(|row| row.source == Source::Events && !matched.contains(&row.id));
    for row in rows {
        let is_of = |progress: &EpochProgress| {
            row.sequence <= progress.mark.sequence && row.published_us <= micros(progress.mark)
        };
        match messages.binary_search(&row.sequence) {
            _ if others.iter().any(is_of) => compared.counts.of_earlier_epochs += 1,
            Err(_) => compared.counts.only_stored += 1,
            Ok(index) => {
                // Then the message does not lack a row; this one is not right.
                if let Some(at) = compared.missing.iter().position(|missing| *missing == index) {
                    compared.missing.remove(at);
                    compared.counts.stored += 1;
                }
                let subject = batch.delivery(index).subject;
                log::debug!("row {} of table events: its time is not that of message {subject}", row.id);
                compared.differing.push((index, row.id, "published_us".into()));
            }
        }
    }
}

/// How many sequences of this range were missing when they were due.
fn missing_of(epochs: &[EpochProgress], first: u64, last: u64) -> u64 {
    epochs.last().map_or(0, |progress| progress.gaps.missing_between(first, last))
}

/// Reads sequences into the index.
struct Filling<'a> {
    sqlite: &'a Connection,
    index: &'a PositionIndex,
    task: Task<'a>,
    path: &'a Path,
}

impl Filling<'_> {
    fn read(&mut self, source: Source, sql: &str, stream: Option<&str>) -> Result<(), Error> {
        let on_error = |e| database_error(self.path, e);
        let mut statement = self.sqlite.prepare(sql).map_err(on_error)?;
        let mut rows = match stream {
            Some(stream) => statement.query([stream]),
            None => statement.query([]),
        }
        .map_err(on_error)?;
        let mut done = 0_u64;
        while let Some(row) = rows.next().map_err(on_error)? {
            let read = || -> rusqlite::Result<Position> {
                Ok(Position { source, sequence: row.get(0)?, published_us: row.get(1)?, id: row.get(2)? })
            };
            self.index.add(read().map_err(on_error)?).map_err(on_error)?;
            done += 1;
            if done.is_multiple_of(REPORT_EVERY) {
                self.task.report("reading", done, None, "rows")?;
            }
        }
        self.task.report("reading", done, None, "rows")
    }
}
