//! Tries dead letters again, through the routes as they are now.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

use super::selection::{Cursor, Selection};
use super::{DeadLetter, DeadLetterReason, PAGE, TIMEOUT, page};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Epoch, Mark, SingleEvent};
use crate::store::pool::WriteConnection;
use crate::store::reader::Value;
use crate::store::routes::decoded_batch::{DecodedBatch, Disposition};
use crate::store::routes::plan::Plan;
use crate::store::routes::statements::{StatementError, Statements};
use crate::store::sqlite_error::{database_error, is_constraint, one_line};
use crate::unix_time::now_us;

/// How many of the letters that stay are reported with their reason.
const MAX_REASONS: usize = 10;

/// After this time, a transaction tries no further letter and commits. A running collector waits only as long as one transaction takes,
/// and so does a stop.
const LONGEST: Duration = Duration::from_millis(200);

/// What [`retry`](crate::dead_letters::retry) does with letters whose headers could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnreadableHeaders {
    /// They are not tried and stay.
    #[default]
    Keep,
    /// They are tried without headers.
    LeaveOut,
}

/// The result of trying dead letters again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryReport {
    /// Letters that were stored, and so removed from the dead letters.
    pub stored: u64,
    /// Letters that were refused again: they stay, with the new error.
    pub refused: u64,
    /// Letters that were not tried: they stay unchanged.
    pub skipped: u64,
    /// The first ten of those that stay: their numbers and the reasons.
    pub reasons: Vec<(i64, String)>,
}

impl RetryReport {
    /// How many letters were selected so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.stored + self.refused + self.skipped
    }

    fn add_reason(&mut self, id: i64, reason: &str) {
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push((id, reason.to_owned()));
        }
    }
}

/// One retry of selected letters, on one connection.
pub(in crate::store) struct Retry<'c> {
    path: &'c Path,
    pooled: &'c WriteConnection,
    plan: &'c Arc<Plan>,
    selection: &'c Selection,
    unreadable: UnreadableHeaders,
    event: SingleEvent,
    epoch: Option<Epoch>,
    decoded: DecodedBatch,
}

/// Why the transaction of a page was rolled back.
enum PageError {
    /// A letter's statements ended the transaction, or COMMIT refuses what they did.
    ByLetter { id: i64, reason: DeadLetterReason },
    /// The database has a problem.
    Database(Error),
}

impl PageError {
    /// Whether a letter may be the cause. A full database may: a letter has used the last row number of a table, and SQLite reports
    /// both with one code.
    fn may_be_by_letter(&self) -> bool {
        matches!(self, Self::ByLetter { .. } | Self::Database(Error::Database { fault: DatabaseFault::Full, .. }))
    }
}

impl<'c> Retry<'c> {
    /// Changes the busy time-out of the connection when it runs.
    pub(in crate::store) fn new(
        path: &'c Path,
        pooled: &'c WriteConnection,
        plan: &'c Arc<Plan>,
        selection: &'c Selection,
        unreadable: UnreadableHeaders,
    ) -> Self {
        let event = SingleEvent::default();
        Self {
            path,
            pooled,
            plan,
            selection,
            unreadable,
            event,
            epoch: None,
            decoded: DecodedBatch::new(Arc::clone(plan)),
        }
    }

    /// Tries page by page, each in one transaction with a savepoint for each letter. If a letter causes the rollback of a page, each
    /// letter of that page gets its own transaction. Ends if `progress` breaks.
    pub(in crate::store) fn run(
        &mut self,
        mut progress: impl FnMut(&RetryReport) -> ControlFlow<()>,
    ) -> Result<RetryReport, Error> {
        let sqlite = &self.pooled.sqlite;
        let start = sqlite.busy_timeout(TIMEOUT).and_then(|()| Cursor::start(sqlite, self.selection));
        let mut cursor = start.map_err(|e| self.error(e))?;
        let mut report = RetryReport::default();
        let mut one_by_one = 0;
        loop {
            let page_size = if one_by_one > 0 { 1 } else { PAGE };
            let (mut next, mut then) = (cursor, report.clone());
            match self.try_page(page_size, &mut next, &mut then) {
                Ok(0) => return Ok(report),
                Ok(_) => {}
                Err(error) if page_size > 1 && error.may_be_by_letter() => {
                    one_by_one = PAGE;
                    continue;
                }
                Err(PageError::ByLetter { id, reason }) => {
                    then = report;
                    self.refuse(id, &reason, &mut then).map_err(|e| self.error(e))?;
                }
                Err(PageError::Database(error)) => return Err(error),
            }
            one_by_one = one_by_one.saturating_sub(1);
            (cursor, report) = (next, then);
            if progress(&report).is_break() {
                return Ok(report);
            }
        }
    }

    /// Tries one page in one transaction, or a part of it if it takes long. Returns how many letters were tried.
    fn try_page(&mut self, max: usize, cursor: &mut Cursor, report: &mut RetryReport) -> Result<usize, PageError> {
        let (path, plan, pooled) = (self.path, self.plan, self.pooled);
        let on_error = |e| PageError::Database(database_error(path, e));
        let transaction = Transaction::new_unchecked(&pooled.sqlite, TransactionBehavior::Immediate);
        let transaction = transaction.map_err(on_error)?;
        let letters = page(&transaction, self.selection, cursor, max).map_err(on_error)?;
        let mut statements = Statements::new(plan, pooled);
        let (began, mut tried) = (Instant::now(), 0);
        for letter in &letters {
            if tried > 0 && began.elapsed() >= LONGEST {
                cursor.go_back(self.selection, letter.id, (letters.len() - tried) as u64);
                break;
            }
            tried += 1;
            if let Err(reason) = self.read(letter) {
                report.skipped += 1;
                report.add_reason(letter.id, reason);
                continue;
            }
            match statements.run_in_savepoint(&self.decoded, 0, &self.event.delivery(), self.epoch.as_ref()) {
                Ok(()) => {
                    remove(&transaction, letter.id).map_err(on_error)?;
                    report.stored += 1;
                }
                Err(StatementError::Event(reason)) => self.refuse(letter.id, &reason, report).map_err(on_error)?,
                Err(StatementError::EndedTransaction(reason)) => {
                    return Err(PageError::ByLetter { id: letter.id, reason });
                }
                Err(StatementError::Invalid(error)) => return Err(PageError::Database(error)),
                Err(StatementError::Database(error)) => return Err(on_error(error)),
            }
        }
        drop(statements);
        transaction.commit().map_err(|error| match letters[..tried].last() {
            Some(last) if is_constraint(&error) => {
                PageError::ByLetter { id: last.id, reason: self.decoded.at_commit(0, one_line(&error)) }
            }
            _ => on_error(error),
        })?;
        Ok(tried)
    }

    /// Makes the letter an event again and reads the values for its route. The error is why it is not tried.
    fn read(&mut self, letter: &DeadLetter) -> Result<(), &'static str> {
        match &letter.raw_headers {
            // See `import`: it keeps a line that is no event so.
            Some(raw) if raw.is_empty() && letter.stream.is_none() => {
                return Err("it is a line that is no event; correct it in its file, import that file, and drop this");
            }
            Some(raw) if !raw.is_empty() && self.unreadable == UnreadableHeaders::Keep => {
                return Err("its headers cannot be read; retry it with UnreadableHeaders::LeaveOut");
            }
            _ => {}
        }
        let headers =
            headers(letter.headers.as_deref()).ok_or("its headers are not a JSON object of strings; correct them")?;
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let published_ns = letter.published_us.saturating_mul(1_000);
        let mark = Mark { sequence: letter.sequence.unwrap_or(0), published_ns };
        self.epoch = letter.stream.clone().map(|stream| Epoch::new(stream, letter.epoch.unwrap_or(0), ""));
        self.event.replace(mark, &letter.subject, headers, &bytes(&letter.payload));
        self.decoded.read_one(&self.event.delivery(), self.epoch.as_ref());
        match self.decoded.disposition(0) {
            Disposition::Dropped => {
                Err("no route matches it, and unmatched = \"drop\" would lose it; add a route, or drop it")
            }
            Disposition::SkippedMarker => {
                Err("it is a delete marker, which is skipped (delete_markers); add a route that takes it, or drop it")
            }
            _ => Ok(()),
        }
    }

    /// Records why a letter was refused this time, in the caller's transaction or in one of its own.
    fn refuse(&self, id: i64, reason: &DeadLetterReason, report: &mut RetryReport) -> rusqlite::Result<()> {
        let sql =
            "UPDATE catchment_dead_letters SET route = ?2, statement = ?3, error = ?4, recorded_us = ?5 WHERE id = ?1";
        let row = params![id, reason.route.as_deref(), reason.statement.as_deref(), reason.error, now_us()];
        self.pooled.sqlite.prepare_cached(sql)?.execute(row)?;
        report.refused += 1;
        report.add_reason(id, &reason.error);
        Ok(())
    }

    fn error(&self, error: rusqlite::Error) -> Error {
        database_error(self.path, error)
    }
}

fn remove(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM catchment_dead_letters WHERE id = ?")?.execute([id]).map(drop)
}

/// Names and values of headers that are stored as JSON; `None` if catchment did not write them like this.
fn headers(json: Option<&str>) -> Option<Vec<(String, String)>> {
    let Some(json) = json else { return Some(Vec::new()) };
    let InOrder(names) = serde_json::from_str(json).ok()?;
    let mut headers = Vec::new();
    for (name, values) in names {
        let values = match values {
            Json::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            let Json::String(value) = value else { return None };
            headers.push((name.clone(), value));
        }
    }
    Some(headers)
}

/// A JSON object's members in their order: of two names that a route treats as one, as `Trace-Id` and `trace-id`, the first counts.
struct InOrder(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = InOrder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(InOrder(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

fn bytes(payload: &Value) -> Cow<'_, [u8]> {
    match payload {
        Value::Text(text) => Cow::Borrowed(text.as_bytes()),
        Value::Blob(bytes) => Cow::Borrowed(bytes),
        Value::Integer(value) => Cow::Owned(value.to_string().into_bytes()),
        Value::Real(value) => Cow::Owned(value.to_string().into_bytes()),
        Value::Null => Cow::Borrowed(b""),
    }
}

#[cfg(test)]
mod tests;
