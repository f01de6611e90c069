//! Runs the statements of events on one connection, and finds the cause where one fails.

use std::sync::Arc;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, ErrorCode, OptionalExtension, Statement};

use super::decoded_batch::{DecodedBatch, Disposition};
use super::multi_row::{self, ROWS};
use super::plan::{Plan, StatementId};
use crate::binding::{Envelope, Row};
use crate::error::Error;
use crate::pipeline::{Batch, Delivery, Epoch};
use crate::store::columns::{bound, event_headers_json, micros, text_or_blob};
use crate::store::dead_letters::DeadLetterReason;
use crate::store::limits;
use crate::store::pool::WriteConnection;
use crate::store::schema;
use crate::store::sqlite_error::{is_event_error, is_transient, is_virtual_table_corruption, message};

/// The statements of a plan during a transaction. Each is prepared when the first event needs it.
pub(in crate::store) struct Statements<'c> {
    plan: &'c Plan,
    pooled: &'c WriteConnection,
    insert_event: Option<CachedStatement<'c>>,
    insert_events: Option<CachedStatement<'c>>,
    of_routes: Vec<Option<CachedStatement<'c>>>,
}

/// Why an event was not stored.
pub(in crate::store) enum StatementError {
    /// The event causes the error: no retry can store it.
    Event(DeadLetterReason),
    /// The same, and the error ended the whole transaction: everything in it is rolled back.
    EndedTransaction(DeadLetterReason),
    /// A statement can no longer be prepared, because a table is gone for instance. Waiting does not help.
    Invalid(Error),
    /// The database has a problem.
    Database(rusqlite::Error),
}

impl<'c> Statements<'c> {
    pub(in crate::store) fn new(plan: &'c Plan, pooled: &'c WriteConnection) -> Self {
        let of_routes = (0..plan.slots).map(|_| None).collect();
        Self { plan, pooled, insert_event: None, insert_events: None, of_routes }
    }

    /// The statement of the event at this index of `decoded`, if [`Statements::run_together`] may run it for several events.
    pub(in crate::store) fn multi_row(
        &self,
        decoded: &DecodedBatch,
        index: usize,
        delivery: &Delivery<'_>,
    ) -> Option<StatementId> {
        let id = match decoded.disposition(index) {
            Disposition::Events => StatementId::Events,
            Disposition::Route(route, _) => StatementId::Route { route: *route, number: 0 },
            Disposition::Dropped | Disposition::SkippedMarker | Disposition::DeadLetter(..) => return None,
        };
        (self.plan.is_multi_row(id) && multi_row::takes(delivery)).then_some(id)
    }

    /// Inserts the rows of [`ROWS`] events with one statement. The events are those at these indexes of `decoded` and `batch`.
    /// If it fails, nothing is inserted, and the single statements find the cause.
    pub(in crate::store) fn run_together(
        &mut self,
        id: StatementId,
        events: impl Iterator<Item = usize>,
        decoded: &DecodedBatch,
        batch: &Batch,
    ) -> rusqlite::Result<()> {
        let Self { plan, pooled, insert_events, of_routes, .. } = self;
        let (slot, sql) = match id {
            StatementId::Events => (insert_events, plan.multi_row_events().ok_or(rusqlite::Error::InvalidQuery)?),
            StatementId::Route { route, .. } => {
                let planned = plan.route(route).multi_row.as_ref().ok_or(rusqlite::Error::InvalidQuery)?;
                (&mut of_routes[planned.slot], &*planned.sql)
            }
        };
        let statement = match slot {
            Some(prepared) => prepared,
            none => none.insert(pooled.authorizer.enforce(|| pooled.sqlite.prepare_cached(sql))?),
        };
        let mut next = 1;
        for index in events {
            let delivery = batch.delivery(index);
            let epoch = batch.epoch().map(Arc::as_ref);
            next = match decoded.disposition(index) {
                Disposition::Route(route, row) => {
                    let (planned, envelope) = (plan.route(*route), Envelope::of(&delivery, epoch));
                    let bindings = planned.multi_row.iter().flat_map(|insert| &insert.bindings);
                    bind(
                        statement,
                        next,
                        bindings.map(|&parameter| {
                            bound(planned.parameters.value(parameter, &envelope, decoded.fields(), *row))
                        }),
                    )?
                }
                _ => bind_event(statement, next, epoch, &delivery)?,
            };
        }
        limited(plan, id, ROWS, pooled, || statement.raw_execute()).map(drop)
    }

    /// Runs the statements of the event at this index of `decoded`, in order, up to the first that fails. The changes of those
    /// before it stay.
    pub(in crate::store) fn run(
        &mut self,
        decoded: &DecodedBatch,
        index: usize,
        delivery: &Delivery<'_>,
        epoch: Option<&Epoch>,
    ) -> Result<(), StatementError> {
        match decoded.disposition(index) {
            Disposition::Dropped | Disposition::SkippedMarker => Ok(()),
            Disposition::DeadLetter(_, reason) => Err(StatementError::Event(reason.as_ref().clone())),
            Disposition::Events => self.run_events(epoch, delivery),
            Disposition::Route(route, row) => self.run_route(*route, decoded, *row, &Envelope::of(delivery, epoch)),
        }
    }

    /// As [`Statements::run`], in a savepoint within the caller's transaction: the changes of an event that fails are undone.
    pub(in crate::store) fn run_in_savepoint(
        &mut self,
        decoded: &DecodedBatch,
        index: usize,
        delivery: &Delivery<'_>,
        epoch: Option<&Epoch>,
    ) -> Result<(), StatementError> {
        let connection = &self.pooled.sqlite;
        let control =
            |sql| connection.prepare_cached(sql).and_then(|mut s| s.execute([])).map_err(StatementError::Database);
        control("SAVEPOINT one_event")?;
        let ran = self.run(decoded, index, delivery, epoch);
        if connection.is_autocommit() {
            return Err(match ran {
                Err(StatementError::Event(reason)) => StatementError::EndedTransaction(reason),
                Err(failure) => failure,
                Ok(()) => StatementError::EndedTransaction(DeadLetterReason {
                    route: decoded.route(index),
                    statement: None,
                    error: "its statements end the transaction".into(),
                }),
            });
        }
        if matches!(ran, Err(StatementError::Event(_))) {
            control("ROLLBACK TO one_event")?;
        }
        control("RELEASE one_event")?;
        ran
    }

    fn run_events(&mut self, epoch: Option<&Epoch>, delivery: &Delivery<'_>) -> Result<(), StatementError> {
        let statement = prepared(&mut self.insert_event, self.plan, StatementId::Events, self.pooled)?;
        let ran = bind_event(statement, 1, epoch, delivery)
            .and_then(|_| limited(self.plan, StatementId::Events, 1, self.pooled, || statement.raw_execute()));
        ran.map(drop).map_err(|e| classify(self.plan, StatementId::Events, e, self.pooled))
    }

    fn run_route(
        &mut self,
        route: usize,
        decoded: &DecodedBatch,
        row: Row,
        envelope: &Envelope<'_>,
    ) -> Result<(), StatementError> {
        let planned = self.plan.route(route);
        for (number, planned_statement) in planned.statements.iter().enumerate() {
            let id = StatementId::Route { route, number };
            let statement = prepared(&mut self.of_routes[planned_statement.slot], self.plan, id, self.pooled)?;
            let values = planned_statement
                .bindings
                .iter()
                .map(|&parameter| bound(planned.parameters.value(parameter, envelope, decoded.fields(), row)));
            let ran = bind(statement, 1, values)
                .and_then(|_| limited(self.plan, id, 1, self.pooled, || statement.raw_execute()));
            ran.map_err(|e| classify(self.plan, id, e, self.pooled))?;
        }
        Ok(())
    }
}

/// Binds values to the parameters from this number on. Returns the number after the last.
fn bind<'v>(
    statement: &mut Statement<'_>,
    first: usize,
    values: impl Iterator<Item = ToSqlOutput<'v>>,
) -> rusqlite::Result<usize> {
    let mut next = first;
    for value in values {
        statement.raw_bind_parameter(next, value)?;
        next += 1;
    }
    Ok(next)
}

/// Binds the columns of table `events` to the parameters from this number on. Returns the number after the last.
fn bind_event(
    statement: &mut Statement<'_>,
    first: usize,
    epoch: Option<&Epoch>,
    delivery: &Delivery<'_>,
) -> rusqlite::Result<usize> {
    let origin = epoch.and_then(Epoch::origin);
    let text = |text| ToSqlOutput::Borrowed(ValueRef::Text(str::as_bytes(text)));
    let null = || ToSqlOutput::Borrowed(ValueRef::Null);
    let sequence = origin.map(|_| delivery.mark.sequence.to_sql()).transpose()?;
    let headers = event_headers_json(delivery.headers);
    let values = [
        text(delivery.subject),
        origin.map_or_else(null, text),
        sequence.unwrap_or_else(null),
        micros(delivery.mark).into(),
        headers.as_deref().map_or_else(null, text),
        text_or_blob(delivery.payload),
    ];
    bind(statement, first, values.into_iter())
}

/// Runs a statement for some events under the authorizer and its budget. A route's statement also has a limit on the length of
/// values.
fn limited<T>(plan: &Plan, id: StatementId, events: usize, pooled: &WriteConnection, run: impl FnOnce() -> T) -> T {
    let max_steps = plan.max_steps(id).saturating_mul(events as u64);
    pooled.budget.within(max_steps, || match id {
        StatementId::Events => pooled.authorizer.enforce(run),
        StatementId::Route { .. } => limits::within_length(&pooled.sqlite, || pooled.authorizer.enforce(run)),
    })
}

fn prepared<'s, 'c>(
    statement: &'s mut Option<CachedStatement<'c>>,
    plan: &Plan,
    id: StatementId,
    pooled: &'c WriteConnection,
) -> Result<&'s mut Statement<'c>, StatementError> {
    let statement = match statement {
        Some(prepared) => prepared,
        none => {
            let new = pooled.authorizer.enforce(|| pooled.sqlite.prepare_cached(plan.sql(id)));
            none.insert(new.map_err(|e| unprepared(plan, id, e, pooled))?)
        }
    };
    Ok(statement)
}

/// Finds the cause of a statement's error.
fn classify(plan: &Plan, id: StatementId, error: rusqlite::Error, pooled: &WriteConnection) -> StatementError {
    match error.sqlite_error_code() {
        Some(ErrorCode::AuthorizationForStatementDenied) => unprepared(plan, id, error, pooled),
        // SQLite gives the same code when it compiles a statement again and a table is gone, and when a function refuses its
        // arguments. Preparing the statement again distinguishes the two.
        Some(ErrorCode::Unknown) => match pooled.authorizer.enforce(|| pooled.sqlite.prepare(plan.sql(id)).map(drop)) {
            Ok(()) => StatementError::Event(plan.reason(id, &error)),
            Err(error) => unprepared(plan, id, error, pooled),
        },
        // SQLite gives the same code when the disk is full and when a table has no row number left.
        Some(ErrorCode::DiskFull) => match exhausted_table(plan, id, pooled) {
            Some(table) => {
                let text = format!("table {table} has no row number left: the last, {}, was used", i64::MAX);
                StatementError::Event(DeadLetterReason { error: text, ..plan.reason(id, &error) })
            }
            None => StatementError::Database(error),
        },
        Some(ErrorCode::OperationInterrupted) => {
            let (message, max) = (message(&error), plan.max_steps(id));
            let text = format!("{message}: it takes more than {max} steps of SQLite, its limit (max_steps)");
            StatementError::Event(DeadLetterReason { error: text, ..plan.reason(id, &error) })
        }
        // The file is sound: a full-text index was asked, for instance, to delete words that it does not contain.
        Some(ErrorCode::DatabaseCorrupt) if is_virtual_table_corruption(&error) => {
            let text = format!("{}: a virtual table's content does not match the statement", message(&error));
            StatementError::Event(DeadLetterReason { error: text, ..plan.reason(id, &error) })
        }
        _ if is_event_error(&error) => StatementError::Event(plan.reason(id, &error)),
        _ => StatementError::Database(error),
    }
}

/// A table with AUTOINCREMENT that the statement or its triggers insert into and whose highest row number was used:
/// <https://sqlite.org/autoinc.html>. Other tables are not the cause of the error.
fn exhausted_table(plan: &Plan, id: StatementId, pooled: &WriteConnection) -> Option<String> {
    let sqlite = &pooled.sqlite;
    // If it cannot be compiled now, the caller tries again.
    let tables = pooled.authorizer.inserts(|| drop(sqlite.prepare(plan.sql(id))));
    let is_exhausted = |table: &String| {
        let counted = "SELECT (SELECT seq FROM sqlite_sequence WHERE name = ?1) FROM sqlite_schema
                       WHERE type = 'table' AND name = ?1 AND sql LIKE '%AUTOINCREMENT%'";
        let counted = sqlite.query_row(counted, [table], |row| row.get::<_, Option<i64>>(0)).optional();
        // The table's last row counts too, because the counter may have been reset.
        let last = || {
            let sql = format!("SELECT max(rowid) FROM {}", schema::quoted(table));
            sqlite.query_row(&sql, [], |row| row.get::<_, Option<i64>>(0))
        };
        match counted {
            Ok(Some(Some(i64::MAX))) => true,
            Ok(Some(_)) => matches!(last(), Ok(Some(i64::MAX))),
            _ => false,
        }
    };
    tables.into_iter().find(is_exhausted)
}

fn unprepared(plan: &Plan, id: StatementId, error: rusqlite::Error, pooled: &WriteConnection) -> StatementError {
    if is_transient(&error) {
        return StatementError::Database(error);
    }
    StatementError::Invalid(plan.refused(id, error, &pooled.authorizer))
}
