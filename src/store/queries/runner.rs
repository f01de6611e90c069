//! Runs queries on a read-only connection of its own and writes their rows as JSON.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, InterruptHandle, Rows};
use serde::ser::{Serialize, Serializer};

use super::query_error::{QueryError, QueryErrorKind};
use super::{Queries, Query, connect};
use crate::binding::{Envelope, Fields, RequestError, Value};
use crate::pipeline::{Problem, Signal};
use crate::store::columns::bound;
use crate::store::json::{Json, JsonRowWriter};
use crate::store::sqlite_error::{is_query_error, message, remedy};

/// Steps of SQLite's virtual machine between two checks of the clock: some tens of microseconds.
const STEPS: i32 = 1_000;

/// Answers requests, one at a time.
#[derive(Debug)]
pub struct QueryRunner {
    queries: Queries,
    watch: Arc<StatementWatch>,
    fields: Fields,
    /// Dropped after an error of the database.
    connection: Option<Connection>,
}

/// When to interrupt the statement that runs, and how.
struct StatementWatch {
    until: Mutex<Option<Instant>>,
    quit: Signal,
    /// Interrupts the connection in use.
    interrupt: Mutex<Option<InterruptHandle>>,
}

impl fmt::Debug for StatementWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatementWatch").finish_non_exhaustive()
    }
}

/// Interrupts the statement of a [`QueryRunner`] from another thread. Clones interrupt the same runner.
#[derive(Clone, Debug)]
pub struct Interrupter(Arc<StatementWatch>);

impl Interrupter {
    /// Interrupts the statement that runs now, if there is one: it ends at the next row or jump of its program, with
    /// [`QueryErrorKind::Timeout`]. A single step, such as a function on a huge text, is not interrupted. Does not block. See
    /// <https://sqlite.org/c3ref/interrupt.html>.
    pub fn interrupt(&self) {
        if let Some(interrupt) = &*self.0.interrupt.lock() {
            interrupt.interrupt();
        }
    }
}

impl StatementWatch {
    fn is_over(&self) -> bool {
        self.until.lock().is_some_and(|until| Instant::now() >= until) || self.quit.is_raised()
    }
}

impl QueryRunner {
    /// A runner with a connection of its own. `quit` interrupts its statement.
    #[must_use]
    pub fn new(queries: &Queries, quit: &Signal) -> Self {
        let (until, interrupt) = (Mutex::default(), Mutex::default());
        let watch = Arc::new(StatementWatch { until, quit: quit.clone(), interrupt });
        let mut runner = Self { queries: queries.clone(), watch, fields: Fields::default(), connection: None };
        // If this fails, the first request connects again and returns the error.
        runner.connection = runner.connect().ok();
        runner
    }

    /// Interrupts what this runs.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(Arc::clone(&self.watch))
    }

    /// Runs the query with this number for a request, appends its rows to `answer` as a JSON array of objects, and returns how
    /// many there are. It sees everything that was committed before. Blocks for the query's `timeout` at most, unless a single
    /// step of SQLite takes longer.
    ///
    /// # Errors
    ///
    /// [`QueryError`]; the contents of `answer` are then undefined.
    ///
    /// # Panics
    ///
    /// If there is no query with this number.
    pub fn answer(
        &mut self,
        query: usize,
        request: &Envelope<'_>,
        max_bytes: usize,
        answer: &mut Vec<u8>,
    ) -> Result<usize, QueryError> {
        let file = &self.queries.file;
        let replaced =
            |problem: Problem| QueryError::new(QueryErrorKind::Database, problem.at(file.path()).to_string());
        file.must_be_the_same().map_err(replaced)?;
        let queries = Arc::clone(&self.queries.queries);
        let query = &queries[query];
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().map_err(unreadable_database)?,
        };
        *self.watch.until.lock() = Instant::now().checked_add(query.timeout);
        let run = Run { query, connection: &connection, max_bytes };
        let rows = run.answer(request, &mut self.fields, answer).map_err(|error| self.query_error(query, error));
        if !rows.as_ref().is_err_and(|error| error.kind() == QueryErrorKind::Database) {
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

    fn query_error(&self, query: &Query, error: RunError) -> QueryError {
        let (name, timeout) = (&query.name, query.timeout);
        let (kind, detail, error) = match error {
            RunError::Query(error) => return error,
            RunError::Preparing(error) | RunError::Running(error) if !is_query_error(&error) => {
                return unreadable_database(error);
            }
            RunError::Preparing(error) => {
                let detail = format!("query {name} does not match the database: {}", message(&error));
                (QueryErrorKind::SchemaMismatch, detail, error)
            }
            RunError::Running(error) => match error.sqlite_error_code() {
                Some(ErrorCode::OperationInterrupted) if self.watch.quit.is_raised() => return QueryError::stopping(),
                Some(ErrorCode::OperationInterrupted) => {
                    let detail = format!("query {name} took longer than its timeout, {timeout:?}");
                    (QueryErrorKind::Timeout, detail, error)
                }
                _ => (QueryErrorKind::Request, format!("query {name}: {}", message(&error)), error),
            },
        };
        QueryError::new(kind, detail).caused_by(error)
    }
}

fn unreadable_database(error: rusqlite::Error) -> QueryError {
    let remedy = remedy(&error);
    QueryError::new(QueryErrorKind::Database, message(&error)).with_remedy(remedy).caused_by(error)
}

/// One run of a query.
struct Run<'a> {
    query: &'a Query,
    connection: &'a Connection,
    max_bytes: usize,
}

enum RunError {
    /// Not an error of SQLite.
    Query(QueryError),
    /// The statement cannot be prepared.
    Preparing(rusqlite::Error),
    Running(rusqlite::Error),
}

impl Run<'_> {
    fn answer(&self, request: &Envelope<'_>, fields: &mut Fields, answer: &mut Vec<u8>) -> Result<usize, RunError> {
        fields.clear();
        let parameters = &self.query.parameters;
        let row = parameters.read(request, fields).map_err(|error: RequestError| {
            let detail = format!("query {}: {error}", self.query.name);
            RunError::Query(QueryError::new(QueryErrorKind::Request, detail).caused_by(error))
        })?;
        self.connection.busy_timeout(self.query.timeout).map_err(RunError::Preparing)?;
        let mut statement = self.connection.prepare_cached(&self.query.sql).map_err(RunError::Preparing)?;
        for (number, value) in (1..).zip(parameters.values(request, fields, row)) {
            statement.raw_bind_parameter(number, bound(value)).map_err(RunError::Running)?;
        }
        let written = self.write(&mut statement.raw_query(), answer);
        drop(statement);
        match written {
            // A cached statement reports a missing table as an unknown error. Preparing it again gives the real one.
            Err(RunError::Running(error)) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                self.connection.flush_prepared_statement_cache();
                self.connection.prepare(&self.query.sql).map_err(RunError::Preparing)?;
                Err(RunError::Running(error))
            }
            written => written,
        }
    }

    fn write(&self, rows: &mut Rows<'_>, answer: &mut Vec<u8>) -> Result<usize, RunError> {
        let start = answer.len();
        let max_bytes = self.query.max_bytes.min(self.max_bytes);
        let (mut count, mut writer) = (0, None);
        answer.push(b'[');
        while let Some(row) = rows.next().map_err(RunError::Running)? {
            if count == self.query.max_rows {
                return Err(self.too_large(&format!("{count} rows, its max_rows")));
            }
            // The columns are known only after the first step: `SELECT *` may have another column than before.
            let writer = writer.get_or_insert_with(|| JsonRowWriter::new(row.as_ref().column_names()));
            let cells = (0..row.as_ref().column_count()).filter_map(|at| row.get_ref(at).ok().map(Cell));
            if count > 0 {
                answer.push(b',');
            }
            let min_size: usize = cells.clone().map(Cell::min_size).sum();
            // A row that cannot fit is not written at all.
            if min_size <= max_bytes {
                writer.write(cells, answer);
            }
            // The closing bracket needs room too.
            if min_size > max_bytes || answer.len() - start >= max_bytes {
                let limit = if max_bytes == self.query.max_bytes { "its max_bytes" } else { "the server's limit" };
                return Err(self.too_large(&format!("{max_bytes} bytes, {limit}")));
            }
            count += 1;
        }
        answer.push(b']');
        Ok(count)
    }

    fn too_large(&self, limit: &str) -> RunError {
        let detail = format!("the answer of query {} is larger than {limit}", self.query.name);
        RunError::Query(QueryError::new(QueryErrorKind::TooLarge, detail).with_remedy(Some("ask for less")))
    }
}

/// A value of a row.
#[derive(Clone, Copy)]
struct Cell<'r>(ValueRef<'r>);

impl Cell<'_> {
    /// A lower bound of its size in JSON, in bytes.
    fn min_size(self) -> usize {
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
