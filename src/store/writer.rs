//! Commits a batch and its ledger entry in one transaction, and finds the events that cannot be stored.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::checkpointer::Checkpointer;
use super::columns::micros;
use super::commit_turn::CommitTurn;
use super::database_file::DatabaseFile;
use super::dead_letters::{self, DeadLetterReason};
use super::ledger;
use super::pool::{ConnectionManager, WriteConnection};
use super::repetitions::{self, BatchNumbers, Repetitions};
use super::route_switch::{ActiveRoutes, Handling};
use super::routes::decoded_batch::{DecodedBatch, Disposition};
use super::routes::insert_group::InsertGroup;
use super::routes::route_counters::{RouteCounters, RouteTally};
use super::routes::statements::{StatementError, Statements};
use super::sqlite_error::{database_error, is_constraint, one_line, problem};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Batch, Committed, Confirmation, Problem, Refusal, Sink};

/// How many dead letters may be written again while their batch is tried again. With more, the part before the failed event is
/// committed first. Otherwise the time for a batch of failing events would grow with the square of its length.
const MAX_REPEATED: usize = 64;

/// How many events count as one step of a writer, for whoever watches whether it hangs.
const EVENTS_OF_A_STEP: usize = 16;
/// How often recorders are forgotten, at most. Finding them takes a read of the whole table.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// Commits batches on connections of the pool.
#[derive(Debug)]
pub struct Writer {
    pool: r2d2::Pool<ConnectionManager>,
    checkpointer: Arc<Checkpointer>,
    file: DatabaseFile,
    routes: Arc<ActiveRoutes>,
    /// What the batch is handled with that is not committed yet.
    handling: Option<Arc<Handling>>,
    /// That batch, read for these routes.
    decoded: DecodedBatch,
    /// Counts what the routes did, by their names.
    counters: RouteCounters,
    /// What the routes of a batch did.
    tally: RouteTally,
    /// The numbers of the batch.
    numbers: BatchNumbers,
    /// The events of the batch that are dead letters so far, and why.
    dead: BTreeMap<usize, String>,
    /// The events of the batch that were stored before, so far.
    repeated: BTreeSet<usize>,
    forgetting: Forgetting,
    turn: CommitTurn,
    /// Set by an error: the batch may be committed in part or completely. Only the ledger shows it.
    unclear: bool,
    /// Confirmations of the last batch were dropped: the warning is not repeated.
    has_warned: bool,
}

/// When recorders are forgotten that are not used any more.
#[derive(Debug)]
struct Forgetting {
    after: Duration,
    /// Of this writer.
    last: Option<Instant>,
}

/// Why an attempt to commit a span of a batch failed.
enum AttemptError {
    /// An event's statement failed: try again with a savepoint for each event.
    UnknownEvent,
    /// This event's error ended the transaction, so a savepoint does not help.
    Event(usize, DeadLetterReason),
    /// SQLite is full, perhaps because of an event before this one: commit those before it first, to tell the two causes apart.
    SplitBefore(usize),
    /// An event of the span breaks a constraint that SQLite checks only at COMMIT.
    AtCommit(String),
    /// No event is the cause.
    Refused(Refusal),
}

/// What earlier attempts found out about a batch's events.
#[derive(Default)]
struct Findings {
    /// Each event runs in a savepoint.
    one_by_one: bool,
    /// Events that become dead letters.
    dead_letters: BTreeMap<usize, DeadLetterReason>,
}

impl Writer {
    pub(super) fn new(
        pool: r2d2::Pool<ConnectionManager>,
        checkpointer: Arc<Checkpointer>,
        file: DatabaseFile,
        routes: Arc<ActiveRoutes>,
        counters: &RouteCounters,
        forget_after: Duration,
        turn: CommitTurn,
    ) -> Self {
        let plan = Arc::clone(&routes.current().plan);
        let tally = counters.tally(plan.names());
        Self {
            pool,
            checkpointer,
            file,
            routes,
            handling: None,
            decoded: DecodedBatch::new(plan),
            counters: counters.clone(),
            tally,
            numbers: BatchNumbers::default(),
            dead: BTreeMap::new(),
            repeated: BTreeSet::new(),
            forgetting: Forgetting { after: forget_after, last: None },
            turn,
            unclear: false,
            has_warned: false,
        }
    }

    /// Commits the part of the batch that is not committed yet.
    fn commit_rest(&mut self, pooled: &WriteConnection, batch: &Batch) -> Result<(), Refusal> {
        let start = if self.unclear { self.committed_prefix(&pooled.sqlite, batch)? } else { 0 };
        self.unclear = true;
        let mut findings = Findings::default();
        let mut spans = Vec::new();
        // A batch may contain gaps and no events.
        if start < batch.len() || batch.has_only_gaps() {
            spans.push(start..batch.len());
        }
        while let Some(span) = spans.pop() {
            match self.try_span(pooled, batch, span.clone(), &findings) {
                Ok(()) => {}
                Err(AttemptError::Refused(refusal)) => return Err(refusal),
                Err(AttemptError::UnknownEvent) => {
                    findings.one_by_one = true;
                    spans.push(span);
                }
                Err(AttemptError::Event(index, reason)) => {
                    findings.dead_letters.insert(index, reason);
                    if index - span.start < MAX_REPEATED {
                        spans.push(span);
                    } else {
                        spans.extend([index..span.end, span.start..index]);
                    }
                }
                Err(AttemptError::SplitBefore(index)) => spans.extend([index..span.end, span.start..index]),
                Err(AttemptError::AtCommit(error)) => self.bisect(span, error, &mut findings, &mut spans)?,
            }
        }
        self.unclear = false;
        Ok(())
    }

    /// Finds the event of the span that breaks a constraint at COMMIT: each half is committed by itself, with its ledger step,
    /// until one event is left.
    fn bisect(
        &self,
        span: Range<usize>,
        error: String,
        findings: &mut Findings,
        spans: &mut Vec<Range<usize>>,
    ) -> Result<(), Refusal> {
        let candidates: Vec<usize> = span.clone().filter(|index| !findings.dead_letters.contains_key(index)).collect();
        match *candidates {
            [] => return Err(Refusal::Fatal(self.error(DatabaseFault::Other, error))),
            [failed] => {
                // Its changes may have made later events fail, so those are tried again.
                findings.dead_letters.split_off(&failed);
                findings.dead_letters.insert(failed, self.decoded.at_commit(failed, error));
                // Joined with the next span, to save a commit.
                let next = spans.pop_if(|_| span.len() < MAX_REPEATED);
                spans.push(span.start..next.map_or(span.end, |next| next.end));
            }
            _ => {
                let middle = candidates[candidates.len() / 2];
                spans.extend([middle..span.end, span.start..middle]);
            }
        }
        Ok(())
    }

    /// How many of the batch's deliveries the ledger has as committed.
    fn committed_prefix(&self, connection: &Connection, batch: &Batch) -> Result<usize, Refusal> {
        let Some(epoch) = batch.epoch() else { return Ok(0) };
        let mark = ledger::mark(connection, epoch).map_err(|e| refusal(&self.file, e))?;
        (0..=batch.len()).find(|&index| batch.before(index) == mark).ok_or_else(|| Refusal::Fatal(self.conflict(batch)))
    }

    /// One transaction: the ledger's step, then each delivery of the span.
    fn try_span(
        &mut self,
        pooled: &WriteConnection,
        batch: &Batch,
        span: Range<usize>,
        findings: &Findings,
    ) -> Result<(), AttemptError> {
        let refuse = |e| AttemptError::Refused(refusal(&self.file, e));
        // `new` needs a mutable connection. No other code uses this connection now.
        let transaction = Transaction::new_unchecked(&pooled.sqlite, TransactionBehavior::Immediate).map_err(refuse)?;
        if let Some(epoch) = batch.epoch() {
            let (before, after) = (batch.before(span.start), batch.before(span.end));
            if !ledger::advance(&transaction, epoch, before, after).map_err(refuse)? {
                return Err(AttemptError::Refused(Refusal::Fatal(self.conflict(batch))));
            }
            ledger::record_gaps(&transaction, epoch, batch.gaps(&span)).map_err(refuse)?;
        }
        self.dead.split_off(&span.start);
        self.repeated.split_off(&span.start);
        self.store(pooled, batch, span, findings)?;
        // `ON CONFLICT ROLLBACK` ends a transaction without an error: the rows are gone, and COMMIT would fail.
        if transaction.is_autocommit() {
            return Err(AttemptError::UnknownEvent);
        }
        let refuse = |e| AttemptError::Refused(refusal(&self.file, e));
        transaction
            .commit()
            .map_err(|e| if is_constraint(&e) { AttemptError::AtCommit(one_line(&e)) } else { refuse(e) })
    }

    fn store(
        &mut self,
        pooled: &WriteConnection,
        batch: &Batch,
        span: Range<usize>,
        findings: &Findings,
    ) -> Result<(), AttemptError> {
        let Self { file, decoded, numbers, dead, repeated, forgetting, tally, routes, .. } = self;
        let (start, seen_us) = (span.start, micros(batch.before(span.end)));
        let mut repetitions = Repetitions::new(&pooled.sqlite, numbers);
        let mut clock = tally.clock();
        let mut statements = Statements::new(decoded.plan(), pooled);
        let epoch = batch.epoch().map(Arc::as_ref);
        let failed = |index, error| {
            let may_be_an_earlier_event = index > start && matches!(decoded.disposition(index), Disposition::Route(..));
            attempt_error(file, index, may_be_an_earlier_event, pooled.sqlite.is_autocommit(), error)
        };
        let run_group = |statements: &mut Statements<'_>, group: &mut InsertGroup| match group.take() {
            // The single statements find the cause.
            (Some(insert), events) => {
                statements.run_together(insert, events, decoded, batch).map_err(|_| AttemptError::UnknownEvent)
            }
            (None, mut events) => events.try_for_each(|index| {
                let ran = statements.run(decoded, index, &batch.delivery(index), epoch);
                ran.map_err(|error| failed(index, error))
            }),
        };
        let mut group = InsertGroup::default();
        for index in span {
            if (index - start).is_multiple_of(EVENTS_OF_A_STEP) {
                routes.step();
            }
            if repetitions.is_repeated(index).map_err(|e| AttemptError::Refused(refusal(file, e)))? {
                repeated.insert(index);
                continue;
            }
            let delivery = batch.delivery(index);
            let known = findings.dead_letters.get(&index).or_else(|| decoded.known_failure(index));
            let insert = match known {
                None if !findings.one_by_one => statements.multi_row(decoded, index, &delivery),
                _ => None,
            };
            if !group.takes(insert) {
                run_group(&mut statements, &mut group)?;
            }
            clock.enter(decoded.route_number(index));
            if let Some(insert) = insert {
                group.push(insert, index);
                continue;
            }
            let ran = match known {
                Some(reason) => Err(StatementError::Event(reason.clone())),
                None if findings.one_by_one => statements.run_in_savepoint(decoded, index, &delivery, epoch),
                None => {
                    statements.run(decoded, index, &delivery, epoch).map_err(|error| failed(index, error))?;
                    continue;
                }
            };
            let reason = match ran {
                Ok(()) => continue,
                Err(StatementError::Event(reason)) => reason,
                Err(StatementError::EndedTransaction(reason)) => return Err(AttemptError::Event(index, reason)),
                Err(error) => return Err(failed(index, error)),
            };
            dead_letters::insert(&pooled.sqlite, epoch, &delivery, &reason)
                .map_err(|e| AttemptError::Refused(refusal(file, e)))?;
            dead.insert(index, reason.error);
        }
        run_group(&mut statements, &mut group)?;
        if !numbers.is_empty() {
            save(repetitions, &pooled.sqlite, seen_us, forgetting)
                .map_err(|e| AttemptError::Refused(refusal(file, e)))?;
        }
        Ok(())
    }

    /// Counts the events of a committed batch for their routes.
    fn count_routes(&mut self, batch: &Batch) {
        let Self { tally, decoded, dead, repeated, .. } = self;
        if decoded.all_to_events() && dead.is_empty() {
            tally.add_unrouted(batch.len() - repeated.len());
        } else {
            for index in (0..batch.len()).filter(|index| !repeated.contains(index)) {
                tally.add(decoded.route_number(index), dead.contains_key(&index));
            }
        }
        tally.finish();
    }

    /// Sends the confirmations that publishers of committed events requested. Returns how many were dropped.
    /// Never waits for room in the channel.
    fn confirm(&mut self, batch: &Batch, handling: &Handling) -> usize {
        let Some(confirmations) = handling.confirmations.as_ref().filter(|_| handling.plan.replies()) else {
            return 0;
        };
        let stream = batch.epoch().and_then(|epoch| epoch.origin());
        let mut confirmations_dropped = 0;
        // The first copy of a repeated event was confirmed.
        let is_confirmed = |index: &usize| self.decoded.replies(*index) && !self.repeated.contains(index);
        for index in (0..batch.len()).filter(is_confirmed) {
            let delivery = batch.delivery(index);
            let Some(reply_to) = delivery.headers.get(Confirmation::HEADER) else { continue };
            let confirmation = Confirmation {
                reply_to: reply_to.to_owned(),
                stream: stream.map(str::to_owned),
                sequence: stream.map(|_| delivery.mark.sequence),
                dead_letter: self.dead.get(&index).cloned(),
            };
            confirmations_dropped += usize::from(confirmations.try_send(confirmation).is_err());
        }
        if confirmations_dropped > 0 && !self.has_warned {
            log::warn!(
                event = "confirmations.dropped", confirmations = confirmations_dropped;
                "database: {confirmations_dropped} confirmations dropped: the queue is full"
            );
        }
        self.has_warned = confirmations_dropped > 0;
        confirmations_dropped
    }

    fn conflict(&self, batch: &Batch) -> Error {
        let stream = batch.epoch().and_then(|epoch| epoch.origin());
        let of_stream = stream.map_or_else(|| "of this collector".into(), |stream| format!("of stream {stream}"));
        self.error(
            DatabaseFault::Conflict,
            format!(
                "the ledger {of_stream} is not where this collector left it: another program writes it, or the file was \
                 replaced"
            ),
        )
        .with_remedy("start again with one collector")
    }

    fn error(&self, fault: DatabaseFault, detail: String) -> Error {
        Error::database(fault, self.file.path(), detail)
    }
}

/// What the error of an event's statement means for the attempt in which no event before it failed.
fn attempt_error(
    file: &DatabaseFile,
    index: usize,
    may_be_an_earlier_event: bool,
    has_ended: bool,
    error: StatementError,
) -> AttemptError {
    match error {
        StatementError::EndedTransaction(reason) => AttemptError::Event(index, reason),
        StatementError::Event(reason) if has_ended => AttemptError::Event(index, reason),
        StatementError::Event(_) => AttemptError::UnknownEvent,
        StatementError::Invalid(error) => AttemptError::Refused(Refusal::Fatal(error)),
        // The disk may have room: an event before this one may have used the last row number of a table.
        StatementError::Database(error)
            if may_be_an_earlier_event && error.sqlite_error_code() == Some(ErrorCode::DiskFull) =>
        {
            AttemptError::SplitBefore(index)
        }
        StatementError::Database(error) => AttemptError::Refused(refusal(file, error)),
    }
}

/// Stores which numbers are stored now. Where there is a new recorder, forgets those that are not used any more.
fn save(
    repetitions: Repetitions<'_>,
    connection: &Connection,
    seen_us: i64,
    forgetting: &mut Forgetting,
) -> rusqlite::Result<()> {
    let has_new = repetitions.save(seen_us)?;
    if has_new && forgetting.last.is_none_or(|last| last.elapsed() >= FORGET_EVERY) {
        let forgotten = repetitions::forget(connection, seen_us, forgetting.after)?;
        forgetting.last = Some(Instant::now());
        log::debug!("database: {forgotten} recorders forgotten");
    }
    Ok(())
}

/// A problem of the database: the batch is kept and tried again.
fn refusal(file: &DatabaseFile, error: rusqlite::Error) -> Refusal {
    match error.sqlite_error_code() {
        Some(_) => Refusal::Retry(problem(&error)),
        None => Refusal::Fatal(database_error(file.path(), error)),
    }
}

impl Sink for Writer {
    fn prepare(&mut self, batch: &Batch) {
        let handling = self.routes.current();
        if !Arc::ptr_eq(self.decoded.plan(), &handling.plan) {
            self.decoded.set_plan(&handling.plan);
            self.tally = self.counters.tally(handling.plan.names());
        }
        self.decoded.read(batch);
        self.numbers.read(batch);
        self.dead.clear();
        self.repeated.clear();
        self.handling = Some(handling);
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        self.routes.step();
        // Prepared before the routes were replaced, and after a batch that the new routes were used for. This cannot happen after a
        // first attempt: no other batch is committed until this one is.
        if self.handling.as_ref().is_none_or(|handling| !self.routes.allows(handling)) {
            self.prepare(batch);
        }
        // Checked before the pool opens a connection, which would create an empty file if there is none. A file that is replaced
        // between this check and the commit is noticed by the next batch.
        self.file.must_be_the_same().map_err(|problem| Refusal::Fatal(problem.at(self.file.path())))?;
        let mut pooled = match self.pool.get() {
            Ok(pooled) => pooled,
            Err(error) => {
                let detail = format!("no connection: {error}");
                return Err(Refusal::Retry(Problem::new(DatabaseFault::Unwritable, detail)));
            }
        };
        if let Some(handling) = self.handling.as_ref().filter(|handling| handling.was_replaced()) {
            pooled.cache_statements(handling.plan.slots);
        }
        let turn = self.turn.clone();
        let turn = turn.take();
        if let Err(refusal) = self.commit_rest(&pooled, batch) {
            // After an I/O error, corruption or a full disk, the connection's memory may not match the file.
            pooled.is_broken = true;
            return Err(refusal);
        }
        drop(turn);
        self.checkpointer.committed(&pooled.sqlite);
        self.count_routes(batch);
        let (dead_letters, unmatched_dropped) = (self.dead.len(), self.decoded.dropped());
        let markers_skipped = self.decoded.skipped_markers();
        // Given up here, so that an idle writer keeps no sender of confirmations.
        let handling = self.handling.take();
        let confirmations_dropped = handling.map_or(0, |handling| {
            self.routes.committed(&handling);
            self.confirm(batch, &handling)
        });
        let repeated = self.repeated.len();
        let first_dead = self.dead.keys().next().copied();
        Ok(Committed { dead_letters, first_dead, unmatched_dropped, markers_skipped, repeated, confirmations_dropped })
    }
}

#[cfg(test)]
mod tests;
