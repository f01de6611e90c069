//! A writer's side of the database: commits a batch and its ledger entry in one transaction.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::Sender;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::database_file::File;
use super::dead_letters::{self, DeadLetterReason};
use super::ledger;
use super::pool::{Manager, Pooled};
use super::routes::decoded_batch::{Course, Decoded};
use super::routes::plan::Plan;
use super::routes::statements::{Failure, Statements};
use super::sqlite_error::{database_error, detail, is_constraint};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Batch, Committed, Confirmation, Refusal, Sink};

/// How many dead letters may be written again and again while their batch is tried. Beyond, what is known is committed: a
/// batch of nothing but bad events would take a time that grows with the square of its length.
const REPEATED: usize = 64;

/// Commits batches on connections of the pool.
#[derive(Debug)]
pub struct Writer {
    pool: r2d2::Pool<Manager>,
    file: File,
    decoded: Decoded,
    /// `decoded` is what the batch that is not committed yet has in it.
    prepared: bool,
    /// The batch's events that are dead letters, as far as it was tried, and why.
    dead: BTreeMap<usize, String>,
    /// Set by a failure: part of the batch, or all of it, may be committed after all, and only the ledger can tell.
    unclear: bool,
    confirmations: Option<Sender<Confirmation>>,
    /// The channel had no room for the last batch's.
    mute: bool,
}

/// What a try at a span of a batch ran into.
enum Trial {
    /// A statement failed for the sake of some event: try again with a savepoint an event.
    SomeEvent,
    /// This event ends the transaction itself, so that no savepoint helps.
    Event(usize, DeadLetterReason),
    /// It undid what those before this event did, which is what may tell its fault from the database's.
    Behind(usize),
    /// The constraints that only COMMIT checks: some event of the span breaks one.
    AtCommit(String),
    /// Not the events' fault.
    Refused(Refusal),
}

/// What is known of a batch's events from earlier tries.
#[derive(Default)]
struct Findings {
    /// Each event gets a savepoint of its own.
    one_by_one: bool,
    /// Events that go to the dead letters.
    doomed: BTreeMap<usize, DeadLetterReason>,
}

impl Writer {
    pub(super) fn new(pool: r2d2::Pool<Manager>, file: File, plan: Arc<Plan>) -> Self {
        let (decoded, dead) = (Decoded::new(plan), BTreeMap::new());
        Self { pool, file, decoded, prepared: false, dead, unclear: false, confirmations: None, mute: false }
    }

    /// Also says so of each committed event that asks for it, where its route has `reply`. Never waits for room in the
    /// channel: what does not fit is dropped and counted in [`Committed::unconfirmed`].
    #[must_use]
    pub fn confirming(self, confirmations: Sender<Confirmation>) -> Self {
        Self { confirmations: Some(confirmations), ..self }
    }

    /// Commits what of the batch is not committed yet.
    fn commit_rest(&mut self, pooled: &Pooled, batch: &Batch) -> Result<(), Refusal> {
        let start = if self.unclear { self.settled(&pooled.sqlite, batch)? } else { 0 };
        self.unclear = true;
        let mut findings = Findings::default();
        let mut spans = Vec::new();
        // A batch may have nothing but gaps to remember.
        if start < batch.len() || batch.has_only_gaps() {
            spans.push(start..batch.len());
        }
        while let Some(span) = spans.pop() {
            match self.try_span(pooled, batch, span.clone(), &findings) {
                Ok(()) => {}
                Err(Trial::Refused(refusal)) => return Err(refusal),
                Err(Trial::SomeEvent) => {
                    findings.one_by_one = true;
                    spans.push(span);
                }
                Err(Trial::Event(index, reason)) => {
                    findings.doomed.insert(index, reason);
                    if index - span.start < REPEATED {
                        spans.push(span);
                    } else {
                        spans.extend([index..span.end, span.start..index]);
                    }
                }
                Err(Trial::Behind(index)) => spans.extend([index..span.end, span.start..index]),
                Err(Trial::AtCommit(error)) => self.close_in(span, error, &mut findings, &mut spans)?,
            }
        }
        self.unclear = false;
        Ok(())
    }

    /// Some event of the span breaks a constraint that only COMMIT checks. Each half is tried by itself, ledger included,
    /// until the guilty one stands alone.
    fn close_in(
        &self,
        span: Range<usize>,
        error: String,
        findings: &mut Findings,
        spans: &mut Vec<Range<usize>>,
    ) -> Result<(), Refusal> {
        let suspects: Vec<usize> = span.clone().filter(|index| !findings.doomed.contains_key(index)).collect();
        match *suspects {
            [] => return Err(Refusal::Fatal(self.error(DatabaseFault::Other, error))),
            [guilty] => {
                // What it did had others behind it fail that now may not.
                findings.doomed.split_off(&guilty);
                findings.doomed.insert(guilty, self.decoded.at_commit(guilty, error));
                // With what comes next, to save a commit.
                let next = spans.pop_if(|_| span.len() < REPEATED);
                spans.push(span.start..next.map_or(span.end, |next| next.end));
            }
            _ => {
                let middle = suspects[suspects.len() / 2];
                spans.extend([middle..span.end, span.start..middle]);
            }
        }
        Ok(())
    }

    /// How many of the batch's deliveries are committed already, by the ledger.
    fn settled(&self, connection: &Connection, batch: &Batch) -> Result<usize, Refusal> {
        let Some(epoch) = batch.epoch() else { return Ok(0) };
        let stands = ledger::mark(connection, epoch).map_err(|e| refusal(&self.file, e))?;
        (0..=batch.len())
            .find(|&index| batch.before(index) == stands)
            .ok_or_else(|| Refusal::Fatal(self.conflict(batch)))
    }

    /// One transaction: the ledger's step, then each delivery of the span.
    fn try_span(
        &mut self,
        pooled: &Pooled,
        batch: &Batch,
        span: Range<usize>,
        findings: &Findings,
    ) -> Result<(), Trial> {
        let refuse = |e| Trial::Refused(refusal(&self.file, e));
        // `new` wants the connection to itself; here nobody else has it either.
        let transaction = Transaction::new_unchecked(&pooled.sqlite, TransactionBehavior::Immediate).map_err(refuse)?;
        if let Some(epoch) = batch.epoch() {
            let (before, after) = (batch.before(span.start), batch.before(span.end));
            if !ledger::advance(&transaction, epoch, before, after).map_err(refuse)? {
                return Err(Trial::Refused(Refusal::Fatal(self.conflict(batch))));
            }
            ledger::remember(&transaction, epoch, batch.gaps(&span)).map_err(refuse)?;
        }
        self.dead.split_off(&span.start);
        self.store(pooled, batch, span, findings)?;
        // `ON CONFLICT ROLLBACK` ends a transaction without a word: what was stored is gone, COMMIT would fail.
        if transaction.is_autocommit() {
            return Err(Trial::SomeEvent);
        }
        let refuse = |e| Trial::Refused(refusal(&self.file, e));
        transaction.commit().map_err(|e| if is_constraint(&e) { Trial::AtCommit(detail(&e)) } else { refuse(e) })
    }

    fn store(&mut self, pooled: &Pooled, batch: &Batch, span: Range<usize>, findings: &Findings) -> Result<(), Trial> {
        let Self { file, decoded, dead, .. } = self;
        let start = span.start;
        let mut statements = Statements::new(decoded.plan(), pooled);
        for index in span {
            let ran = match findings.doomed.get(&index).or_else(|| decoded.doom(index)) {
                Some(reason) => Err(Failure::Event(reason.clone())),
                None if findings.one_by_one => statements.run_apart(decoded, batch, index),
                None => match statements.run(decoded, batch, index) {
                    // None before it in this transaction failed, so it is the one; and it may have taken long to find out.
                    Err(Failure::Event(reason)) if pooled.sqlite.is_autocommit() => {
                        return Err(Trial::Event(index, reason));
                    }
                    Err(Failure::Event(_)) => return Err(Trial::SomeEvent),
                    ran => ran,
                },
            };
            let reason = match ran {
                Ok(()) => continue,
                Err(Failure::Event(reason)) => reason,
                Err(Failure::Ended(reason)) => return Err(Trial::Event(index, reason)),
                Err(Failure::Lost(error)) => return Err(Trial::Refused(Refusal::Fatal(error))),
                Err(Failure::Database(error)) => {
                    // Not for want of room, perhaps: an event before it may have used up the numbers of a table.
                    let is_full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
                    let is_routed = matches!(decoded.course(index), Course::Route(..));
                    let may_be_theirs = index > start && is_full && is_routed;
                    return Err(if may_be_theirs {
                        Trial::Behind(index)
                    } else {
                        Trial::Refused(refusal(file, error))
                    });
                }
            };
            let (epoch, delivery) = (batch.epoch().map(Arc::as_ref), batch.delivery(index));
            dead_letters::insert(&pooled.sqlite, epoch, &delivery, &reason)
                .map_err(|e| Trial::Refused(refusal(file, e)))?;
            dead.insert(index, reason.error);
        }
        Ok(())
    }

    /// Says what became of the committed events whose publishers want to hear of it; how many of them will not.
    fn confirm(&mut self, batch: &Batch) -> usize {
        let Some(confirmations) = self.confirmations.as_ref().filter(|_| self.decoded.plan().replies()) else {
            return 0;
        };
        let stream = batch.epoch().and_then(|epoch| epoch.origin());
        let mut unconfirmed = 0;
        for index in (0..batch.len()).filter(|&index| self.decoded.replies(index)) {
            let delivery = batch.delivery(index);
            let mut headers = delivery.headers.iter();
            let Some((_, reply_to)) = headers.find(|(name, _)| name.eq_ignore_ascii_case(Confirmation::HEADER)) else {
                continue;
            };
            let confirmation = Confirmation {
                reply_to: reply_to.to_owned(),
                stream: stream.map(str::to_owned),
                sequence: stream.map(|_| delivery.mark.sequence),
                dead_letter: self.dead.get(&index).cloned(),
            };
            unconfirmed += usize::from(confirmations.try_send(confirmation).is_err());
        }
        if unconfirmed > 0 && !self.mute {
            log::warn!("database: {unconfirmed} events are committed without a word to who asked for it: too many ask");
        }
        self.mute = unconfirmed > 0;
        unconfirmed
    }

    fn conflict(&self, batch: &Batch) -> Error {
        let stream = batch.epoch().and_then(|epoch| epoch.origin());
        let whose = stream.map_or_else(|| "of this collector".into(), |stream| format!("of stream {stream}"));
        self.error(
            DatabaseFault::Conflict,
            format!(
                "the ledger {whose} is not where this collector left it: another program writes it, or the \
                 file was replaced; start again with one collector"
            ),
        )
    }

    fn error(&self, fault: DatabaseFault, detail: String) -> Error {
        Error::Database { fault, path: self.file.path().to_owned(), detail, remedy: None, source: None }
    }
}

/// The database's own trouble: kept and tried again.
fn refusal(file: &File, error: rusqlite::Error) -> Refusal {
    match error.sqlite_error_code() {
        Some(_) => Refusal::Retry(detail(&error)),
        None => Refusal::Fatal(database_error(file.path(), error)),
    }
}

impl Sink for Writer {
    fn prepare(&mut self, batch: &Batch) {
        self.decoded.read(batch);
        self.dead.clear();
        self.prepared = true;
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        if !self.prepared {
            self.prepare(batch);
        }
        // Before the commit, not in it: between the two there is always a moment. And before the pool opens a connection, which
        // would make an empty file where there is none.
        if self.file.was_replaced() {
            let detail = "the file was moved, removed or replaced while it was collected into; put it back, or start again \
                          with what is there now";
            return Err(Refusal::Fatal(self.error(DatabaseFault::Conflict, detail.into())));
        }
        let mut pooled = match self.pool.get() {
            Ok(pooled) => pooled,
            Err(error) => return Err(Refusal::Retry(format!("no connection: {error}"))),
        };
        if let Err(refusal) = self.commit_rest(&pooled, batch) {
            // After an I/O error, corruption or a full disk what the connection holds in memory is not to be trusted.
            pooled.done_with = true;
            return Err(refusal);
        }
        self.prepared = false;
        let (dead_letters, unmatched_dropped) = (self.dead.len(), self.decoded.dropped());
        Ok(Committed { dead_letters, unmatched_dropped, unconfirmed: self.confirm(batch) })
    }
}

#[cfg(test)]
mod tests;
