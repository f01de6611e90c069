//! A writer's side of the database: commits a batch and its ledger entry in one transaction.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::dead_letters::{self, Reason};
use super::failure::{database_error, detail, is_events_own, route_error};
use super::file::File;
use super::ledger;
use super::pool::Manager;
use super::route::Routes;
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Batch, Committed, Refusal, Sink};

/// Commits batches on connections of the pool.
#[derive(Debug)]
pub struct Writer {
    pool: r2d2::Pool<Manager>,
    file: File,
    /// Set by a failure: part of the batch, or all of it, may be committed after all, and only the ledger can tell.
    unclear: bool,
}

/// What a try at a span of a batch ran into.
enum Trial {
    /// A statement failed for the sake of some event: try again with a savepoint an event.
    SomeEvent,
    /// This event ends the transaction itself, so that no savepoint helps.
    Event(usize, Reason),
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
    doomed: BTreeMap<usize, Reason>,
}

impl Writer {
    pub(super) fn new(pool: r2d2::Pool<Manager>, file: File) -> Self {
        Self { pool, file, unclear: false }
    }

    /// Commits what of the batch is not committed yet; says how many dead letters there were.
    fn commit_rest(&mut self, connection: &mut Connection, batch: &Batch) -> Result<usize, Refusal> {
        let start = if self.unclear { self.settled(connection, batch)? } else { 0 };
        self.unclear = true;
        let mut findings = Findings::default();
        let mut spans = Vec::new();
        spans.push(start..batch.len());
        let mut dead = 0;
        while let Some(span) = spans.pop().filter(|span| !span.is_empty()) {
            match self.try_span(connection, batch, span.clone(), &findings) {
                Ok(dead_here) => {
                    dead += dead_here;
                    continue;
                }
                Err(Trial::Refused(refusal)) => return Err(refusal),
                Err(Trial::SomeEvent) => findings.one_by_one = true,
                Err(Trial::Event(index, reason)) => {
                    findings.doomed.insert(index, reason);
                }
                Err(Trial::AtCommit(error)) if span.len() == 1 => {
                    let reason = Reason { route: None, statement: Some("COMMIT"), error: error.clone() };
                    if findings.doomed.insert(span.start, reason).is_some() {
                        return Err(Refusal::Fatal(self.error(DatabaseFault::Other, error)));
                    }
                }
                Err(Trial::AtCommit(_)) => {
                    // Each half commits by itself, ledger included, until the guilty event stands alone.
                    let middle = span.start + span.len() / 2;
                    spans.push(middle..span.end);
                    spans.push(span.start..middle);
                    continue;
                }
            }
            spans.push(span);
        }
        self.unclear = false;
        Ok(dead)
    }

    /// How many of the batch's deliveries are committed already, by the ledger.
    fn settled(&self, connection: &Connection, batch: &Batch) -> Result<usize, Refusal> {
        let Some(epoch) = batch.epoch() else { return Ok(0) };
        let stands = ledger::mark(connection, epoch).map_err(|e| self.refusal(e))?;
        (0..=batch.len())
            .find(|&index| batch.before(index) == stands)
            .ok_or_else(|| Refusal::Fatal(self.conflict(batch)))
    }

    /// One transaction: the ledger's step, then each delivery of the span.
    fn try_span(
        &self,
        connection: &mut Connection,
        batch: &Batch,
        span: Range<usize>,
        findings: &Findings,
    ) -> Result<usize, Trial> {
        let refuse = |e| Trial::Refused(self.refusal(e));
        let transaction = Transaction::new(connection, TransactionBehavior::Immediate).map_err(refuse)?;
        if let Some(epoch) = batch.epoch() {
            let (before, after) = (batch.before(span.start), batch.before(span.end));
            if !ledger::advance(&transaction, epoch, before, after).map_err(refuse)? {
                return Err(Trial::Refused(Refusal::Fatal(self.conflict(batch))));
            }
        }
        if findings.one_by_one {
            // A cached statement hides that its table is gone, and blames the events; one prepared anew says so.
            transaction.flush_prepared_statement_cache();
        }
        let dead = self.store(&transaction, batch, span, findings)?;
        // `ON CONFLICT ROLLBACK` ends a transaction without a word: what was stored is gone, COMMIT would fail.
        if transaction.is_autocommit() {
            return Err(Trial::SomeEvent);
        }
        transaction.commit().map_err(|e| if is_constraint(&e) { Trial::AtCommit(detail(&e)) } else { refuse(e) })?;
        Ok(dead)
    }

    fn store(
        &self,
        connection: &Connection,
        batch: &Batch,
        span: Range<usize>,
        findings: &Findings,
    ) -> Result<usize, Trial> {
        let refuse = |e| Trial::Refused(self.refusal(e));
        let epoch = batch.epoch().map(Arc::as_ref);
        let mut routes = Routes::prepare(connection).map_err(|e| Trial::Refused(self.setup_refusal(e)))?;
        let mut dead = 0;
        for index in span {
            let delivery = batch.delivery(index);
            let defect =
                delivery.defect.map(|defect| Reason { route: None, statement: None, error: defect.reason.to_owned() });
            let reason = match defect.or_else(|| findings.doomed.get(&index).cloned()) {
                Some(reason) => reason,
                None if findings.one_by_one => {
                    connection.execute_batch("SAVEPOINT one_event").map_err(refuse)?;
                    let result = routes.apply(epoch, &delivery);
                    let reason = match result {
                        Ok(()) => None,
                        Err(e) if is_events_own(&e) => Some(Routes::reason(&e)),
                        Err(e) => return Err(refuse(e)),
                    };
                    if connection.is_autocommit() {
                        let reason = reason.unwrap_or_else(|| Reason {
                            route: None,
                            statement: None,
                            error: "its statements end the transaction".into(),
                        });
                        return Err(Trial::Event(index, reason));
                    }
                    let end =
                        if reason.is_some() { "ROLLBACK TO one_event; RELEASE one_event" } else { "RELEASE one_event" };
                    connection.execute_batch(end).map_err(refuse)?;
                    match reason {
                        None => continue,
                        Some(reason) => reason,
                    }
                }
                None => match routes.apply(epoch, &delivery) {
                    Ok(()) => continue,
                    Err(e) if is_events_own(&e) => return Err(Trial::SomeEvent),
                    Err(e) => return Err(refuse(e)),
                },
            };
            dead_letters::insert(connection, epoch, &delivery, &reason).map_err(refuse)?;
            dead += 1;
        }
        Ok(dead)
    }

    /// The database's own trouble: kept and tried again.
    fn refusal(&self, error: rusqlite::Error) -> Refusal {
        match error.sqlite_error_code() {
            Some(_) => Refusal::Retry(detail(&error)),
            None => Refusal::Fatal(database_error(self.file.path(), error)),
        }
    }

    /// A statement that cannot even be prepared: a table or column is gone, and waiting brings none back.
    fn setup_refusal(&self, error: rusqlite::Error) -> Refusal {
        match error.sqlite_error_code() {
            None | Some(ErrorCode::Unknown) => Refusal::Fatal(route_error(self.file.path(), error)),
            Some(_) => self.refusal(error),
        }
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
        Error::Database { fault, path: self.file.path().to_owned(), detail, source: None }
    }
}

fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

impl Sink for Writer {
    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        let mut pooled = match self.pool.get() {
            Ok(pooled) => pooled,
            Err(error) => return Err(Refusal::Retry(format!("no connection: {error}"))),
        };
        // Before the commit, not in it: between the two there is always a moment.
        if self.file.was_replaced() {
            pooled.done_with = true;
            let detail = "the file was moved, removed or replaced while it was collected into; put it back, or start again \
                          with what is there now";
            return Err(Refusal::Fatal(self.error(DatabaseFault::Conflict, detail.into())));
        }
        match self.commit_rest(&mut pooled.sqlite, batch) {
            Ok(dead_letters) => Ok(Committed { dead_letters }),
            Err(refusal) => {
                // After an I/O error, corruption or a full disk what the connection holds in memory is not to be trusted.
                pooled.done_with = true;
                Err(refusal)
            }
        }
    }
}

#[cfg(test)]
mod tests;
