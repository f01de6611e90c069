//! Dead letters tried again: through the routes as they are now.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

use super::selection::{Place, Selection};
use super::{DeadLetter, DeadLetterReason, PAGE, PATIENCE, page};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Batch, Epoch, Limits, Mark};
use crate::store::columns::now_us;
use crate::store::pool::Pooled;
use crate::store::reader::Value;
use crate::store::routes::decoded_batch::{Course, Decoded};
use crate::store::routes::plan::Plan;
use crate::store::routes::statements::{Failure, Statements};
use crate::store::sqlite_error::{database_error, detail, is_constraint};

/// How many letters that stay are told by name.
const TOLD: usize = 10;

/// What becomes of letters whose headers could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnreadableHeaders {
    /// They stay.
    #[default]
    Keep,
    /// They are tried without headers.
    LeaveOut,
}

/// What came of trying dead letters again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retried {
    /// Stored, and dead letters no more.
    pub stored: u64,
    /// Tried in vain: they stay, with what was wrong this time.
    pub refused: u64,
    /// Not tried: they stay as they are.
    pub passed_over: u64,
    /// The first of those that stay, by number, and why.
    pub reasons: Vec<(i64, String)>,
}

impl Retried {
    /// How many were selected.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.stored + self.refused + self.passed_over
    }

    fn stays(&mut self, id: i64, why: &str) {
        if self.reasons.len() < TOLD {
            self.reasons.push((id, why.to_owned()));
        }
    }
}

/// Tries letters again on one connection.
pub(in crate::store) struct Retry<'c> {
    path: &'c Path,
    pooled: &'c Pooled,
    plan: &'c Arc<Plan>,
    selection: &'c Selection,
    unreadable: UnreadableHeaders,
    event: Batch,
    decoded: Decoded,
}

/// Why a transaction came to nothing.
enum Undone {
    /// A letter's statements end it, or COMMIT does not take what they did.
    ByLetter { id: i64, reason: DeadLetterReason },
    /// Not a letter's fault.
    Otherwise(Error),
}

impl Undone {
    /// Want of room may be one: a letter has used up the numbers of a table, which shows when it is committed.
    fn may_be_by_letter(&self) -> bool {
        matches!(self, Self::ByLetter { .. } | Self::Otherwise(Error::Database { fault: DatabaseFault::Full, .. }))
    }
}

impl<'c> Retry<'c> {
    /// Leaves the connection with a patience of its own.
    pub(in crate::store) fn new(
        path: &'c Path,
        pooled: &'c Pooled,
        plan: &'c Arc<Plan>,
        selection: &'c Selection,
        unreadable: UnreadableHeaders,
    ) -> Self {
        let event = Batch::new(Limits { events: 1, bytes: 64 << 10 });
        Self { path, pooled, plan, selection, unreadable, event, decoded: Decoded::new(Arc::clone(plan)) }
    }

    /// Page by page, each in a transaction with a savepoint a letter. Where one undoes such a transaction, that page's letters
    /// get one each.
    pub(in crate::store) fn run(&mut self, mut said: impl FnMut(&Retried)) -> Result<Retried, Error> {
        let sqlite = &self.pooled.sqlite;
        let start = sqlite.busy_timeout(PATIENCE).and_then(|()| Place::start(sqlite, self.selection));
        let mut place = start.map_err(|e| self.error(e))?;
        let mut retried = Retried::default();
        let mut one_by_one = 0;
        loop {
            let at_a_time = if one_by_one > 0 { 1 } else { PAGE };
            let (mut next, mut then) = (place, retried.clone());
            match self.try_page(at_a_time, &mut next, &mut then) {
                Ok(0) => return Ok(retried),
                Ok(_) => {}
                Err(undone) if at_a_time > 1 && undone.may_be_by_letter() => {
                    one_by_one = PAGE;
                    continue;
                }
                Err(Undone::ByLetter { id, reason }) => {
                    then = retried;
                    self.refuse(id, &reason, &mut then).map_err(|e| self.error(e))?;
                }
                Err(Undone::Otherwise(error)) => return Err(error),
            }
            one_by_one = one_by_one.saturating_sub(1);
            (place, retried) = (next, then);
            said(&retried);
        }
    }

    /// One transaction; how many letters it tried.
    fn try_page(&mut self, most: usize, place: &mut Place, retried: &mut Retried) -> Result<usize, Undone> {
        let (path, plan, pooled) = (self.path, self.plan, self.pooled);
        let otherwise = |e| Undone::Otherwise(database_error(path, e));
        let transaction = Transaction::new_unchecked(&pooled.sqlite, TransactionBehavior::Immediate);
        let transaction = transaction.map_err(otherwise)?;
        let letters = page(&transaction, self.selection, place, most).map_err(otherwise)?;
        let mut statements = Statements::new(plan, pooled);
        for letter in &letters {
            if let Err(why) = self.read(letter) {
                retried.passed_over += 1;
                retried.stays(letter.id, why);
                continue;
            }
            match statements.run_apart(&self.decoded, &self.event, 0) {
                Ok(()) => {
                    remove(&transaction, letter.id).map_err(otherwise)?;
                    retried.stored += 1;
                }
                Err(Failure::Event(reason)) => self.refuse(letter.id, &reason, retried).map_err(otherwise)?,
                Err(Failure::Ended(reason)) => return Err(Undone::ByLetter { id: letter.id, reason }),
                Err(Failure::Lost(error)) => return Err(Undone::Otherwise(error)),
                Err(Failure::Database(error)) => return Err(otherwise(error)),
            }
        }
        drop(statements);
        transaction.commit().map_err(|error| match letters.last() {
            Some(last) if is_constraint(&error) => {
                Undone::ByLetter { id: last.id, reason: self.decoded.at_commit(0, detail(&error)) }
            }
            _ => otherwise(error),
        })?;
        Ok(letters.len())
    }

    /// Makes the letter an event again, and reads what its route asks for; or says why it is not tried.
    fn read(&mut self, letter: &DeadLetter) -> Result<(), &'static str> {
        if letter.raw_headers.is_some() && self.unreadable == UnreadableHeaders::Keep {
            return Err("its headers cannot be read; retry it without them (--without-headers)");
        }
        let headers = headers(letter.headers.as_deref()).ok_or("its headers are no JSON object of texts; mend them")?;
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let published_ns = letter.published_us.saturating_mul(1_000);
        let mark = Mark { sequence: letter.sequence.unwrap_or(0), published_ns };
        self.event.clear();
        if let Some(stream) = letter.stream.clone() {
            let epoch = Epoch::new(stream, letter.epoch.unwrap_or(0), "");
            self.event.begin(Arc::new(epoch), Mark::START);
        }
        self.event.push(mark, &letter.subject, headers, &bytes(&letter.payload));
        self.decoded.read(&self.event);
        match self.decoded.course(0) {
            Course::Dropped => {
                Err("no route takes it, and unmatched = \"drop\" would lose it; give it a route, or drop it")
            }
            _ => Ok(()),
        }
    }

    /// Notes why a letter was refused this time, in the caller's transaction or in one of its own.
    fn refuse(&self, id: i64, reason: &DeadLetterReason, retried: &mut Retried) -> rusqlite::Result<()> {
        let sql =
            "UPDATE catchment_dead_letters SET route = ?2, statement = ?3, error = ?4, recorded_us = ?5 WHERE id = ?1";
        let row = params![id, reason.route.as_deref(), reason.statement.as_deref(), reason.error, now_us()];
        self.pooled.sqlite.prepare_cached(sql)?.execute(row)?;
        retried.refused += 1;
        retried.stays(id, &reason.error);
        Ok(())
    }

    fn error(&self, error: rusqlite::Error) -> Error {
        database_error(self.path, error)
    }
}

fn remove(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM catchment_dead_letters WHERE id = ?")?.execute([id]).map(drop)
}

/// Names and values of headers that are kept as JSON; `None` where they are not as catchment writes them.
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

/// A JSON object's members as they stand: of two names that are one to a route, as `Trace-Id` and `trace-id`, the first counts.
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
