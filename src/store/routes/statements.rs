//! Runs an event's statements on one connection.

use std::sync::Arc;

use rusqlite::{CachedStatement, ErrorCode, OptionalExtension, Statement, params};

use super::decoded_batch::{Course, Decoded};
use super::plan::{Place, Plan};
use crate::binding::{Envelope, Row};
use crate::error::Error;
use crate::pipeline::{Batch, Delivery, Epoch};
use crate::store::columns::{bound, headers_json, micros, text_or_blob};
use crate::store::dead_letters::DeadLetterReason;
use crate::store::limits;
use crate::store::pool::Pooled;
use crate::store::sqlite_error::{is_events_own, is_virtual_tables, may_pass, what};

/// The statements of a plan, each prepared when the first event asks for it, for the length of a transaction.
pub(in crate::store) struct Statements<'c> {
    plan: &'c Plan,
    pooled: &'c Pooled,
    insert_event: Option<CachedStatement<'c>>,
    of_routes: Vec<Option<CachedStatement<'c>>>,
}

/// Why an event was not stored.
pub(in crate::store) enum Failure {
    /// For its own sake: no retry can store it.
    Event(DeadLetterReason),
    /// The same, and it ended the transaction that it was part of: nothing of that is left.
    Ended(DeadLetterReason),
    /// A statement cannot be prepared any more, for a table is gone say: waiting mends nothing.
    Lost(Error),
    /// The database's own trouble.
    Database(rusqlite::Error),
}

impl<'c> Statements<'c> {
    pub(in crate::store) fn new(plan: &'c Plan, pooled: &'c Pooled) -> Self {
        Self { plan, pooled, insert_event: None, of_routes: (0..plan.statements).map(|_| None).collect() }
    }

    /// Runs the statements of a batch's event in order, up to the first that fails. What those before it did stays.
    pub(in crate::store) fn run(&mut self, decoded: &Decoded, batch: &Batch, index: usize) -> Result<(), Failure> {
        let delivery = batch.delivery(index);
        let epoch = batch.epoch().map(Arc::as_ref);
        match decoded.course(index) {
            Course::Dropped => Ok(()),
            Course::Doomed(_, reason) => Err(Failure::Event(reason.as_ref().clone())),
            Course::Events => self.run_events(epoch, &delivery),
            Course::Route(route, row) => self.run_route(*route, decoded, *row, &Envelope::of(&delivery, epoch)),
        }
    }

    /// The same in a savepoint of its own, within the caller's transaction: of an event that fails nothing is left.
    pub(in crate::store) fn run_apart(
        &mut self,
        decoded: &Decoded,
        batch: &Batch,
        index: usize,
    ) -> Result<(), Failure> {
        let connection = &self.pooled.sqlite;
        let control = |sql| connection.prepare_cached(sql).and_then(|mut s| s.execute([])).map_err(Failure::Database);
        control("SAVEPOINT one_event")?;
        let ran = self.run(decoded, batch, index);
        if connection.is_autocommit() {
            return Err(match ran {
                Err(Failure::Event(reason)) => Failure::Ended(reason),
                Err(failure) => failure,
                Ok(()) => Failure::Ended(DeadLetterReason {
                    route: decoded.route(index),
                    statement: None,
                    error: "its statements end the transaction".into(),
                }),
            });
        }
        if matches!(ran, Err(Failure::Event(_))) {
            control("ROLLBACK TO one_event")?;
        }
        control("RELEASE one_event")?;
        ran
    }

    fn run_events(&mut self, epoch: Option<&Epoch>, delivery: &Delivery<'_>) -> Result<(), Failure> {
        let statement = prepared(&mut self.insert_event, self.plan, Place::Events, self.pooled)?;
        let origin = epoch.and_then(Epoch::origin);
        let ran = watched(self.plan, Place::Events, self.pooled, || {
            statement.execute(params![
                delivery.subject,
                origin,
                origin.map(|_| delivery.mark.sequence),
                micros(delivery.mark),
                headers_json(delivery.headers),
                text_or_blob(delivery.payload),
            ])
        });
        ran.map(drop).map_err(|e| failure(self.plan, Place::Events, e, self.pooled))
    }

    fn run_route(&mut self, route: usize, decoded: &Decoded, row: Row, envelope: &Envelope<'_>) -> Result<(), Failure> {
        let planned = self.plan.route(route);
        for (number, step) in planned.steps.iter().enumerate() {
            let place = Place::Route { route, step: number };
            let statement = prepared(&mut self.of_routes[step.statement], self.plan, place, self.pooled)?;
            let bind = |statement: &mut Statement<'_>| {
                step.bindings.iter().zip(1..).try_for_each(|(&parameter, index): (_, usize)| {
                    let value = planned.parameters.value(parameter, envelope, decoded.fields(), row);
                    statement.raw_bind_parameter(index, bound(value))
                })
            };
            let ran = bind(statement).and_then(|()| watched(self.plan, place, self.pooled, || statement.raw_execute()));
            ran.map_err(|e| failure(self.plan, place, e, self.pooled))?;
        }
        Ok(())
    }
}

/// Runs a statement within its rules, its budget and, where it is a route's, the limits for those.
fn watched<T>(plan: &Plan, place: Place, pooled: &Pooled, run: impl FnOnce() -> T) -> T {
    pooled.budget.within(plan.max_steps(place), || match place {
        Place::Events => pooled.authorizer.watch(run),
        Place::Route { .. } => limits::within_length(&pooled.sqlite, || pooled.authorizer.watch(run)),
    })
}

fn prepared<'s, 'c>(
    statement: &'s mut Option<CachedStatement<'c>>,
    plan: &Plan,
    place: Place,
    pooled: &'c Pooled,
) -> Result<&'s mut Statement<'c>, Failure> {
    let statement = match statement {
        Some(prepared) => prepared,
        none => {
            let new = pooled.authorizer.watch(|| pooled.sqlite.prepare_cached(plan.sql(place)));
            none.insert(new.map_err(|e| unprepared(plan, place, e, pooled))?)
        }
    };
    Ok(statement)
}

/// What the failure of a statement comes from.
fn failure(plan: &Plan, place: Place, error: rusqlite::Error, pooled: &Pooled) -> Failure {
    match error.sqlite_error_code() {
        Some(ErrorCode::AuthorizationForStatementDenied) => unprepared(plan, place, error, pooled),
        // SQLite says it in the same way when it prepares a statement again and cannot, for a table is gone, and when a function
        // refuses its arguments.
        Some(ErrorCode::Unknown) => {
            match pooled.authorizer.watch(|| pooled.sqlite.prepare(plan.sql(place)).map(drop)) {
                Ok(()) => Failure::Event(plan.reason(place, &error)),
                Err(error) => unprepared(plan, place, error, pooled),
            }
        }
        // SQLite says it in the same way when the disk is full and when a table has no number left for a row.
        Some(ErrorCode::DiskFull) => match used_up(plan, place, pooled) {
            Some(table) => {
                let said = format!("table {table} has no number left for a row: its last, {}, was used", i64::MAX);
                Failure::Event(DeadLetterReason { error: said, ..plan.reason(place, &error) })
            }
            None => Failure::Database(error),
        },
        Some(ErrorCode::OperationInterrupted) => {
            let (why, most) = (what(&error), plan.max_steps(place));
            let said = format!("{why}: it takes more than {most} steps of SQLite, the most it may (max_steps)");
            Failure::Event(DeadLetterReason { error: said, ..plan.reason(place, &error) })
        }
        // Not the file: a full-text index was told, say, to forget words that it does not have.
        Some(ErrorCode::DatabaseCorrupt) if is_virtual_tables(&error) => {
            let said = format!("{}: a virtual table holds something else than the statement says", what(&error));
            Failure::Event(DeadLetterReason { error: said, ..plan.reason(place, &error) })
        }
        _ if is_events_own(&error) => Failure::Event(plan.reason(place, &error)),
        _ => Failure::Database(error),
    }
}

/// Of the tables that a statement adds rows to, its triggers included, one with AUTOINCREMENT whose highest number was used:
/// <https://sqlite.org/autoinc.html>. Other tables tell nothing of why this statement failed.
fn used_up(plan: &Plan, place: Place, pooled: &Pooled) -> Option<String> {
    let sqlite = &pooled.sqlite;
    // What cannot be compiled now is asked again later.
    let tables = pooled.authorizer.inserts(|| drop(sqlite.prepare(plan.sql(place))));
    let is_used_up = |table: &String| {
        let counted = "SELECT (SELECT seq FROM sqlite_sequence WHERE name = ?1) FROM sqlite_schema
                       WHERE type = 'table' AND name = ?1 AND sql LIKE '%AUTOINCREMENT%'";
        let counted = sqlite.query_row(counted, [table], |row| row.get::<_, Option<i64>>(0)).optional();
        // The table's own last row counts too, for somebody may have set the count back.
        let last = || {
            let sql = format!("SELECT max(rowid) FROM \"{}\"", table.replace('"', "\"\""));
            sqlite.query_row(&sql, [], |row| row.get::<_, Option<i64>>(0))
        };
        match counted {
            Ok(Some(Some(i64::MAX))) => true,
            Ok(Some(_)) => matches!(last(), Ok(Some(i64::MAX))),
            _ => false,
        }
    };
    tables.into_iter().find(is_used_up)
}

fn unprepared(plan: &Plan, place: Place, error: rusqlite::Error, pooled: &Pooled) -> Failure {
    if may_pass(&error) {
        return Failure::Database(error);
    }
    Failure::Lost(plan.refused(place, error, &pooled.authorizer))
}
