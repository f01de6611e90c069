//! Reads the database, also while a collector runs. The connection is read-only, whatever the SQL.

mod filtered;
mod several;
mod tables;

pub use tables::RowTable;
pub(super) use tables::rowid_name;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;
use rusqlite::{Batch, ErrorCode, OptionalExtension, Row, Statement};

use super::read_connection::ReadConnection;
use super::row_filter::{RowFilter, add_functions, parameter_of};
use super::sqlite_error::{database_error, message, position};
use super::suggestion::suggestion;
use crate::binding;
use crate::error::{DatabaseFault, Error};

/// Steps of SQLite's virtual machine between two looks at an interruption: some tens of microseconds.
const STEPS: i32 = 1_000;

/// A read-only connection.
#[derive(Debug)]
pub struct Reader {
    connection: ReadConnection,
    /// What becomes of text that is not UTF-8.
    bad_text: BadText,
}

/// What [`Reader::run`] makes of text that is not UTF-8, which SQLite allows.
#[derive(Debug)]
enum BadText {
    /// Text with U+FFFD for other bytes.
    Replaced,
    /// A blob; so many there were.
    Blob(AtomicU64),
}

/// A value of a row. SQLite has no other types: <https://sqlite.org/datatype3.html>.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A 64-bit float.
    Real(f64),
    /// Text. Bytes that are not UTF-8, which SQLite allows in text, become U+FFFD.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl Value {
    /// A borrowed copy.
    #[must_use]
    pub(crate) fn borrowed(&self) -> binding::Value<'_> {
        match self {
            Self::Null => binding::Value::Null,
            Self::Integer(value) => binding::Value::Integer(*value),
            Self::Real(value) => binding::Value::Real(*value),
            Self::Text(text) => binding::Value::Text(text),
            Self::Blob(bytes) => binding::Value::Blob(bytes),
        }
    }
}

/// A row of table `events`.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// Its number.
    pub id: i64,
    /// The event's subject.
    pub subject: String,
    /// Publish time in microseconds since 1970.
    pub published_us: i64,
    /// The headers as JSON.
    pub headers: Option<String>,
    /// Text or a blob.
    pub payload: Value,
}

/// What a statement does with PRAGMAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pragma {
    None,
    Reads,
    ReadsJournalMode,
    Sets,
}

/// PRAGMAs whose value is a name or a number of rows, not a setting: <https://sqlite.org/pragma.html>.
const NAMED_PRAGMAS: [&str; 10] = [
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];

impl Reader {
    /// Opens an existing database. No permission to write is needed: if another process uses the database, only that its files
    /// beside the database can be read.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when there is no file or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let connection = ReadConnection::open(path)?;
        connection.read(add_functions)?;
        Ok(Self { connection, bad_text: BadText::Replaced })
    }

    /// From now on, [`Reader::run`] passes text that is not UTF-8 on as a blob, with its bytes.
    pub fn keep_bad_text(&mut self) {
        self.bad_text = BadText::Blob(AtomicU64::new(0));
    }

    /// How many texts were not UTF-8 and became blobs.
    #[must_use]
    pub fn bad_texts(&self) -> u64 {
        match &self.bad_text {
            BadText::Replaced => 0,
            BadText::Blob(count) => count.load(Ordering::Relaxed),
        }
    }

    fn value(&self, row: &Row<'_>, at: usize) -> rusqlite::Result<Value> {
        match (row.get_ref(at)?, &self.bad_text) {
            (ValueRef::Text(bytes), BadText::Blob(count)) if std::str::from_utf8(bytes).is_err() => {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(Value::Blob(bytes.to_owned()))
            }
            _ => value(row, at),
        }
    }

    /// Whether there may be commits that this does not see. Then open it again.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.connection.is_outdated()
    }

    /// Interrupts the statement that runs as soon as the flag is set.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn interrupt_when(&self, flag: Arc<AtomicBool>) -> Result<(), Error> {
        let is_set = move || flag.load(Ordering::Relaxed);
        self.connection.read(|sqlite| sqlite.progress_handler(STEPS, Some(is_set)))
    }

    /// Runs the statements in turn. `visit` gets the column names before each statement's rows, then each row, then
    /// [`StatementOutput::End`]. It may stop the run.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], with [`DatabaseFault::Statement`] for wrong SQL and for statements that write anything.
    pub fn run<B>(
        &self,
        sql: &str,
        mut visit: impl FnMut(StatementOutput<'_>) -> ControlFlow<B>,
    ) -> Result<Option<B>, Error> {
        // SQLite takes it for the end of the SQL.
        if let Some(at) = sql.find('\0') {
            let line = sql[..at].matches('\n').count() + 1;
            return Err(self
                .refused(format!("the SQL has a NUL character in line {line}"), None)
                .with_remedy("remove it"));
        }
        let failed = |error| self.statement_error(error, sql);
        let refused =
            |what: &str| self.refused(format!("only statements that read are run here, and this one {what}"), None);
        let mut batch = Batch::new(self.connection.sqlite(), sql);
        loop {
            let (compiled, use_of_pragmas) = self.compile(&mut batch).map_err(failed)?;
            if use_of_pragmas == Pragma::Sets {
                return Err(refused("sets a PRAGMA"));
            }
            let Some(mut statement) = compiled.map_err(failed)? else { break };
            // On a read-only connection, `VACUUM INTO` and some pragmas still write.
            if !statement.readonly() && use_of_pragmas != Pragma::ReadsJournalMode {
                return Err(refused("writes"));
            }
            // It would be NULL, and a comparison with it finds nothing.
            if let Some(detail) = parameter_of(&statement) {
                return Err(self.refused(detail, None).with_remedy("write a value instead"));
            }
            let columns: Vec<String> = statement.column_names().iter().map(|&name| name.to_owned()).collect();
            let count = columns.len();
            if let ControlFlow::Break(value) = visit(StatementOutput::Columns(&columns)) {
                return Ok(Some(value));
            }
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next().map_err(failed)? {
                let values = (0..count).map(|at| self.value(row, at));
                let values = values.collect::<Result<Vec<_>, _>>().map_err(failed)?;
                if let ControlFlow::Break(value) = visit(StatementOutput::Row(values)) {
                    return Ok(Some(value));
                }
            }
            self.connection.unchanged()?;
            if let ControlFlow::Break(value) = visit(StatementOutput::End) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Compiles the next statement, and examines what it does with PRAGMAs: SQLite counts `PRAGMA journal_mode` as writing, and PRAGMAs
    /// that change the connection as reading. One that sets something is not compiled: some have their effect while they are
    /// (`temp_store_directory`).
    fn compile<'c>(
        &self,
        batch: &mut Batch<'c, '_>,
    ) -> rusqlite::Result<(rusqlite::Result<Option<Statement<'c>>>, Pragma)> {
        let found = Arc::new(Mutex::new((Pragma::None, false)));
        let seen = Arc::clone(&found);
        let judge = move |context: AuthContext<'_>| {
            let (pragma, does_more) = &mut *seen.lock();
            match context.action {
                AuthAction::Pragma { pragma_name, pragma_value: None } => {
                    let reads_journal_mode = pragma_name.eq_ignore_ascii_case("journal_mode");
                    *pragma = if reads_journal_mode { Pragma::ReadsJournalMode } else { Pragma::Reads };
                }
                AuthAction::Pragma { pragma_name, .. } => {
                    if !NAMED_PRAGMAS.iter().any(|name| name.eq_ignore_ascii_case(pragma_name)) {
                        *pragma = Pragma::Sets;
                        return Authorization::Deny;
                    }
                    *pragma = Pragma::Reads;
                }
                _ => *does_more = true,
            }
            Authorization::Allow
        };
        let sqlite = self.connection.sqlite();
        sqlite.authorizer(Some(judge))?;
        let compiled = batch.next();
        sqlite.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
        let found = *found.lock();
        let pragma = match found {
            (Pragma::ReadsJournalMode, true) => Pragma::Reads,
            (pragma, _) => pragma,
        };
        Ok((compiled, pragma))
    }

    fn statement_error(&self, error: rusqlite::Error, sql: &str) -> Error {
        let is_json = error.to_string().contains("malformed JSON");
        let meant = suggestion(self.connection.sqlite(), sql, &error);
        let detail = message(&error) + &position(sql, &error) + &meant;
        match error.sqlite_error_code() {
            None | Some(ErrorCode::Unknown) if is_json => self
                .refused(detail, Some(error))
                .with_remedy("some value is not JSON: leave it out with WHERE json_valid(payload), or use CASE WHEN json_valid(payload) THEN … END"),
            None | Some(ErrorCode::Unknown) => self.refused(detail, Some(error)),
            // ATTACH names the file that is meant, and it is not this database.
            Some(ErrorCode::CannotOpen) if detail.starts_with("unable to open database: ") => {
                self.refused(detail, Some(error)).with_remedy("check that the attached file exists and can be read")
            }
            Some(_) => database_error(self.connection.path(), error),
        }
    }

    fn refused(&self, detail: String, source: Option<rusqlite::Error>) -> Error {
        let (fault, path) = (DatabaseFault::Statement, self.connection.path().to_owned());
        Error::Database { fault, path, detail, remedy: None, source: source.map(Into::into) }
    }

    /// The events after this id, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn events_after(&self, id: i64, at_most: usize) -> Result<Vec<EventRow>, Error> {
        self.events_in(&RowFilter::default(), (id, i64::MAX), at_most)
    }

    /// When the event with this id was published, in microseconds since 1970; `None` if there is no such event.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn published_us(&self, id: i64) -> Result<Option<i64>, Error> {
        let sql = "SELECT published_us FROM events WHERE id = ?";
        self.connection.read(|sqlite| sqlite.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional())
    }

    /// The sequence up to which the stream is committed; `None` if nothing of it is.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn position(&self, stream: &str) -> Result<Option<u64>, Error> {
        let sql = "SELECT sequence FROM catchment_ledger WHERE stream = ? ORDER BY epoch DESC LIMIT 1";
        self.connection.read(|sqlite| sqlite.prepare_cached(sql)?.query_row([stream], |row| row.get(0)).optional())
    }

    /// The id of the last event published at or before this time; 0 if there is none. Scans from the newest event.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn id_before_later(&self, published_us: i64) -> Result<i64, Error> {
        let sql = "SELECT coalesce((SELECT id FROM events WHERE published_us <= ? ORDER BY id DESC LIMIT 1), 0)";
        self.connection.read(|sqlite| sqlite.query_row(sql, [published_us], |row| row.get(0)))
    }

    /// A number that changes when another connection commits. Reading it is cheap:
    /// <https://sqlite.org/pragma.html#pragma_data_version>.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn version(&self) -> Result<i64, Error> {
        self.connection.read(|sqlite| sqlite.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0)))
    }

    /// The id of the event before the last `back` events; 0 if there are fewer.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn id_before_last(&self, back: usize) -> Result<i64, Error> {
        let sql = "SELECT coalesce((SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?), 0)";
        let back = i64::try_from(back).unwrap_or(i64::MAX);
        self.connection.read(|sqlite| sqlite.query_row(sql, [back], |row| row.get(0)))
    }
}

/// What [`Reader::run`] passes on of a statement.
#[derive(Debug)]
pub enum StatementOutput<'a> {
    /// The names of the columns of the rows that follow; empty for a statement without rows.
    Columns(&'a [String]),
    /// A row.
    Row(Vec<Value>),
    /// There are no more rows of this statement.
    End,
}

pub(super) fn value(row: &Row<'_>, at: usize) -> rusqlite::Result<Value> {
    Ok(match row.get_ref(at)? {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::Real(value),
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatabaseConfig;
    use crate::store::{Database, Routes};

    #[test]
    fn only_reading_is_allowed() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = DatabaseConfig { path: folder.path().join("a.db"), ..DatabaseConfig::default() };
        drop(Database::open(&config, &Routes::default()).expect("a new database"));
        let reader = Reader::open(&config.path).expect("opens");
        let run = |sql: &str| {
            let mut rows = 0;
            let ran = reader.run::<()>(sql, |answer| {
                rows += usize::from(matches!(answer, StatementOutput::Row(_)));
                ControlFlow::Continue(())
            });
            ran.map(|_| rows).map_err(|e| e.to_string())
        };
        assert_eq!(run("SELECT 1; SELECT 2 UNION SELECT 3"), Ok(3));
        for asking in [
            "PRAGMA journal_mode",
            "-- which?\nPragma main.JOURNAL_MODE;",
            "PRAGMA user_version",
            "PRAGMA quick_check(1)",
        ] {
            assert_eq!(run(asking), Ok(1), "{asking}");
        }
        let copy = folder.path().join("copy.db");
        for sql in [
            "DELETE FROM events".to_owned(),
            "PRAGMA journal_mode = DELETE".into(),
            "PRAGMA journal_mode(WAL)".into(),
            "PRAGMA wal_checkpoint".into(),
            "PRAGMA query_only = 0".into(),
            "PRAGMA writable_schema(1)".into(),
            "PRAGMA user_version = 7".into(),
            "pragma temp_store_directory='/nowhere'".into(),
            format!("PRAGMA temp_store_directory = '{}'", folder.path().display()),
            "EXPLAIN PRAGMA cache_size = 7".into(),
            "BEGIN IMMEDIATE".into(),
            "CREATE TEMP TABLE t(a)".into(),
            format!("VACUUM INTO '{}'", copy.display()),
        ] {
            let refused = run(&sql).expect_err(&sql);
            assert!(refused.contains("only statements that read"), "{refused}");
        }
        assert!(!copy.exists());
        let setting = run("PRAGMA temp_store_directory = '/nowhere'").expect_err("sets");
        assert!(setting.ends_with("and this one sets a PRAGMA"), "{setting}");
        // SQLite sets it for the whole process, while it compiles the statement.
        assert_eq!(run("PRAGMA temp_store_directory"), Ok(0), "it is not set");
        for (sql, words) in [
            ("SELEC 1", "near \"SELEC\": syntax error (at 1:1, \"SELEC 1\")"),
            ("SELECT 1;\n\n   SELECT nope\n", "no such column: nope (at 3:11, \"nope\")"),
            ("SELECT 1 WHERE 1 = :id", "the parameter :id has no value here; write a value instead"),
            ("SELECT ?", "the parameter ? has no value here; write a value instead"),
            ("SELECT 1;\nSELECT '\0'", "the SQL has a NUL character in line 2; remove it"),
            (
                "ATTACH '/nowhere/a.db' AS a",
                "unable to open database: /nowhere/a.db; check that the attached file exists and can be read",
            ),
        ] {
            let refused = run(sql).expect_err(sql);
            assert!(refused.ends_with(words), "{refused}");
        }
        let not_json = run("SELECT 'hello' ->> '$.a'").expect_err("not JSON");
        assert!(not_json.contains("malformed JSON; some value is not JSON: leave it out with WHERE"), "{not_json}");
    }

    #[test]
    fn a_flag_interrupts_the_statement_that_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        crate::store::Editor::open(&path).expect("opens").run("CREATE TABLE t(a)").expect("SQL");
        let reader = Reader::open(&path).expect("opens");
        let flag = Arc::new(AtomicBool::new(false));
        reader.interrupt_when(Arc::clone(&flag)).expect("sets");
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
        let mut rows = 0_u64;
        let ran = reader.run::<()>(endless, |_| {
            rows += 1;
            flag.store(rows > 100, Ordering::Relaxed);
            ControlFlow::Continue(())
        });
        assert!(ran.expect_err("is interrupted").to_string().contains("interrupted"));
        flag.store(false, Ordering::Relaxed);
        assert!(reader.run::<()>("SELECT 1", |_| ControlFlow::Continue(())).is_ok());
    }
}
