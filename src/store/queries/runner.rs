//! Runs queries on a read-only connection of its own and writes their rows as JSON.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, InterruptHandle, Rows};
use serde::ser::{Serialize, Serializer};

use super::{Queries, Query, connect};
use crate::binding::{Envelope, Fields, Value};
use crate::pipeline::Signal;
use crate::store::columns::bound;
use crate::store::json::{Json, Objects};
use crate::store::sqlite_error::{detail, is_statements_own};

/// Steps of SQLite's virtual machine between two looks at the clock: some tens of microseconds.
const STEPS: i32 = 1_000;

/// Answers requests, one at a time.
#[derive(Debug)]
pub struct Answerer {
    queries: Queries,
    watch: Arc<Watch>,
    fields: Fields,
    /// Dropped when it is in doubt.
    connection: Option<Connection>,
}

/// Why a request has no answer. Each says so in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The request cannot be read, or the statement fails for what it says.
    #[error("{0}")]
    Request(String),
    /// The statement took longer than it may.
    #[error("{0}")]
    TooSlow(String),
    /// The answer has more rows or bytes than it may.
    #[error("{0}")]
    TooLarge(String),
    /// The statement no longer fits the database: a table or column is gone.
    #[error("{0}")]
    Misfit(String),
    /// The database is unwell.
    #[error("{0}")]
    Database(String),
    /// Told to quit.
    #[error("the collector is stopping")]
    Quitting,
}

/// Breaks off a statement that takes too long.
struct Watch {
    until: Mutex<Option<Instant>>,
    quit: Signal,
    /// Leads to the connection in use.
    interrupt: Mutex<Option<InterruptHandle>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// Interrupts what an [`Answerer`] runs, from another thread. Clones interrupt the same one.
#[derive(Clone, Debug)]
pub struct Breaker(Arc<Watch>);

impl Breaker {
    /// Interrupts the statement that runs now, if one does: it ends at the next row or jump of its program, and its answer is
    /// [`Unanswered::TooSlow`]. What a single step does, a function on a huge text for instance, is not interrupted. Does not
    /// block. See <https://sqlite.org/c3ref/interrupt.html>.
    pub fn break_off(&self) {
        if let Some(interrupt) = &*self.0.interrupt.lock() {
            interrupt.interrupt();
        }
    }
}

impl Watch {
    fn is_over(&self) -> bool {
        self.until.lock().is_some_and(|until| Instant::now() >= until) || self.quit.is_raised()
    }
}

impl Answerer {
    pub(in crate::store) fn new(queries: Queries, quit: Signal) -> Self {
        let watch = Arc::new(Watch { until: Mutex::default(), quit, interrupt: Mutex::default() });
        let mut answerer = Self { queries, watch, fields: Fields::default(), connection: None };
        // Where that fails, the first request will say so.
        answerer.connection = answerer.connect().ok();
        answerer
    }

    /// Interrupts what this runs.
    #[must_use]
    pub fn breaker(&self) -> Breaker {
        Breaker(Arc::clone(&self.watch))
    }

    /// Runs the query with this number for a request and writes its rows behind what stands in `answer`, as a JSON array of
    /// objects; says how many there are. What was committed before is seen. Blocks for the
    /// query's `timeout` at most, but for what a single step of SQLite takes longer.
    ///
    /// # Errors
    ///
    /// [`Unanswered`]; what then stands in `answer` means nothing.
    ///
    /// # Panics
    ///
    /// Where there is no query with this number.
    pub fn answer(
        &mut self,
        query: usize,
        request: &Envelope<'_>,
        most_bytes: usize,
        answer: &mut Vec<u8>,
    ) -> Result<usize, Unanswered> {
        if self.queries.file.was_replaced() {
            let path = self.queries.file.path().display();
            return Err(Unanswered::Database(format!(
                "{path} was moved, removed or replaced while it was collected into"
            )));
        }
        let queries = Arc::clone(&self.queries.queries);
        let query = &queries[query];
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().map_err(|e| Unanswered::Database(detail(&e)))?,
        };
        *self.watch.until.lock() = Instant::now().checked_add(query.timeout);
        let run = Run { query, connection: &connection, most_bytes };
        let rows = run.answer(request, &mut self.fields, answer).map_err(|why| self.explain(query, why));
        if !matches!(rows, Err(Unanswered::Database(_))) {
            self.connection = Some(connection);
        }
        rows
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = connect(self.queries.file.path())?;
        connection.set_prepared_statement_cache_capacity(self.queries.queries.len());
        let watch = Arc::clone(&self.watch);
        *watch.interrupt.lock() = Some(connection.get_interrupt_handle());
        connection.progress_handler(STEPS, Some(move || watch.is_over()))?;
        Ok(connection)
    }

    fn explain(&self, query: &Query, why: Why) -> Unanswered {
        let error = match why {
            Why::Unanswered(unanswered) => return unanswered,
            Why::Setup(error) | Why::Running(error) if !is_statements_own(&error) => {
                return Unanswered::Database(detail(&error));
            }
            Why::Setup(error) => {
                return Unanswered::Misfit(format!(
                    "query {} does not fit the database: {}",
                    query.name,
                    detail(&error)
                ));
            }
            Why::Running(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) if self.watch.quit.is_raised() => Unanswered::Quitting,
            Some(ErrorCode::OperationInterrupted) => {
                Unanswered::TooSlow(format!("query {} took longer than its timeout, {:?}", query.name, query.timeout))
            }
            _ => Unanswered::Request(format!("query {}: {}", query.name, detail(&error))),
        }
    }
}

/// One run of a query.
struct Run<'a> {
    query: &'a Query,
    connection: &'a Connection,
    most_bytes: usize,
}

enum Why {
    Unanswered(Unanswered),
    /// The statement cannot be prepared.
    Setup(rusqlite::Error),
    Running(rusqlite::Error),
}

impl Run<'_> {
    fn answer(&self, request: &Envelope<'_>, fields: &mut Fields, answer: &mut Vec<u8>) -> Result<usize, Why> {
        fields.clear();
        let parameters = &self.query.parameters;
        let row = if request.payload.is_empty() {
            parameters.without_fields(fields)
        } else {
            let unreadable = |e| Why::Unanswered(Unanswered::Request(format!("query {}: {e}", self.query.name)));
            parameters.read(request, fields).map_err(unreadable)?
        };
        self.connection.busy_timeout(self.query.timeout).map_err(Why::Setup)?;
        let mut statement = self.connection.prepare_cached(&self.query.sql).map_err(Why::Setup)?;
        for parameter in 0..parameters.len() {
            let value = parameters.value(parameter, request, fields, row);
            statement.raw_bind_parameter(parameter + 1, bound(value)).map_err(Why::Running)?;
        }
        let written = self.write(&mut statement.raw_query(), answer);
        drop(statement);
        match written {
            // A statement prepared before hides that its table is gone.
            Err(Why::Running(error)) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                self.connection.flush_prepared_statement_cache();
                self.connection.prepare(&self.query.sql).map_err(Why::Setup)?;
                Err(Why::Running(error))
            }
            written => written,
        }
    }

    fn write(&self, rows: &mut Rows<'_>, answer: &mut Vec<u8>) -> Result<usize, Why> {
        let start = answer.len();
        let most = self.query.max_bytes.min(self.most_bytes);
        let (mut count, mut objects) = (0, None);
        answer.push(b'[');
        while let Some(row) = rows.next().map_err(Why::Running)? {
            if count == self.query.max_rows {
                return Err(self.too_large(&format!("{count} rows, its max_rows")));
            }
            // Known for sure only now: `SELECT *` may have another column than before.
            let objects = objects.get_or_insert_with(|| Objects::new(row.as_ref().column_names()));
            let cells = (0..row.as_ref().column_count()).filter_map(|at| row.get_ref(at).ok().map(Cell));
            if count > 0 {
                answer.push(b',');
            }
            let least: usize = cells.clone().map(Cell::size).sum();
            // What is huge is not even written.
            if least <= most {
                objects.write(cells, answer);
            }
            // The closing bracket needs room too.
            if least > most || answer.len() - start >= most {
                let whose = if most == self.query.max_bytes { "its max_bytes" } else { "all that the server takes" };
                return Err(self.too_large(&format!("{most} bytes, {whose}")));
            }
            count += 1;
        }
        answer.push(b']');
        Ok(count)
    }

    fn too_large(&self, limit: &str) -> Why {
        let reason = format!("the answer of query {} is larger than {limit}; ask for less", self.query.name);
        Why::Unanswered(Unanswered::TooLarge(reason))
    }
}

/// A value of a row.
#[derive(Clone, Copy)]
struct Cell<'r>(ValueRef<'r>);

impl Cell<'_> {
    /// Bytes of it in JSON, at least.
    fn size(self) -> usize {
        match self.0 {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = match self.0 {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(value) => Value::Integer(value),
            ValueRef::Real(value) => Value::Real(value),
            ValueRef::Text(bytes) => return Json(Value::Text(&String::from_utf8_lossy(bytes))).serialize(serializer),
            ValueRef::Blob(bytes) => Value::Blob(bytes),
        };
        Json(json).serialize(serializer)
    }
}

#[cfg(test)]
mod tests;
