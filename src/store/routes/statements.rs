//! Runs the statements of events on one connection, and finds the cause where one fails.

use rusqlite::{CachedStatement, ErrorCode, OptionalExtension, Statement, params};

use super::decoded_batch::{DecodedBatch, Disposition};
use super::plan::{Plan, StatementId};
use crate::binding::{Envelope, Row};
use crate::error::Error;
use crate::pipeline::{Delivery, Epoch};
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
        Self { plan, pooled, insert_event: None, of_routes: (0..plan.slots).map(|_| None).collect() }
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
        let origin = epoch.and_then(Epoch::origin);
        let ran = limited(self.plan, StatementId::Events, self.pooled, || {
            statement.execute(params![
                delivery.subject,
                origin,
                origin.map(|_| delivery.mark.sequence),
                micros(delivery.mark),
                event_headers_json(delivery.headers),
                text_or_blob(delivery.payload),
            ])
        });
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
            let bind = |statement: &mut Statement<'_>| {
                planned_statement.bindings.iter().zip(1..).try_for_each(|(&parameter, index): (_, usize)| {
                    let value = planned.parameters.value(parameter, envelope, decoded.fields(), row);
                    statement.raw_bind_parameter(index, bound(value))
                })
            };
            let ran = bind(statement).and_then(|()| limited(self.plan, id, self.pooled, || statement.raw_execute()));
            ran.map_err(|e| classify(self.plan, id, e, self.pooled))?;
        }
        Ok(())
    }
}

/// Runs a statement under the authorizer and its budget. A route's statement also has a limit on the length of values.
fn limited<T>(plan: &Plan, id: StatementId, pooled: &WriteConnection, run: impl FnOnce() -> T) -> T {
    pooled.budget.within(plan.max_steps(id), || match id {
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
