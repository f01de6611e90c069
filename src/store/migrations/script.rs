//! Runs a migration's statements one after the other, under the rules for migrations. An error names the line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Batch, Connection};

use crate::store::schema::is_ours;
use crate::store::sql_tokens::{Token, TokenKind, tokens};
use crate::store::sqlite_error::Violation;

/// PRAGMAs that a migration may set: they belong to the application and are part of the transaction.
const SETTABLE: [&str; 2] = ["user_version", "application_id"];

/// PRAGMAs that only read, with an argument or without. `ALTER TABLE` runs `quick_check` by itself.
const READ_ONLY: [&str; 10] = [
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "foreign_key_check",
    "quick_check",
    "integrity_check",
];

/// PRAGMAs that SQLite's own modules (FTS5, R*Tree) read, without an argument.
const READ_BY_MODULES: [&str; 2] = ["data_version", "page_size"];

/// Runs scripts on a connection. The rules apply until this is dropped.
pub(super) struct ScriptRunner<'c> {
    connection: &'c Connection,
    state: Arc<AuthorizerState>,
    /// Catchment's own names before the scripts.
    reserved: ReservedNames,
}

/// What the authorizer has found.
#[derive(Default)]
struct AuthorizerState {
    violation: Mutex<Option<Violation>>,
    /// The statement may change something of catchment's. Only its result shows whether it does.
    needs_check: AtomicBool,
}

/// Names that begin with `catchment_`, each as often as it exists, and the rows of `sqlite_sequence` for them.
#[derive(PartialEq, Eq)]
struct ReservedNames {
    names: Vec<String>,
    numbers: Vec<String>,
}

/// Why a script failed, and the line.
#[derive(Debug)]
pub(super) struct ScriptError {
    pub(super) line: usize,
    pub(super) kind: ScriptErrorKind,
}

#[derive(Debug)]
pub(super) enum ScriptErrorKind {
    /// SQLite refuses the statement, or it failed.
    Sqlite(rusqlite::Error),
    /// A migration may not do this.
    Violation(Violation),
}

impl<'c> ScriptRunner<'c> {
    /// From now on the rules apply to every statement that is prepared on the connection, and to triggers.
    pub(super) fn on(connection: &'c Connection) -> rusqlite::Result<Self> {
        let reserved = ReservedNames::of(connection)?;
        let state = Arc::new(AuthorizerState::default());
        let found = Arc::clone(&state);
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            if needs_check(&context.action) {
                found.needs_check.store(true, Ordering::Relaxed);
            }
            match violation(&context) {
                None => Authorization::Allow,
                Some(violation) => {
                    *found.violation.lock() = Some(violation);
                    Authorization::Deny
                }
            }
        }))?;
        Ok(Self { connection, state, reserved })
    }

    /// Runs the statements in turn. Rows that they return are ignored.
    pub(super) fn run(&self, script: &str) -> Result<(), ScriptError> {
        let mut at = 0;
        loop {
            at = skip_to_statement(script, at);
            let prepared = Batch::new(self.connection, &script[at..]).next();
            let Some(mut statement) = prepared.map_err(|e| self.error(script, at, e))? else { return Ok(()) };
            if statement.parameter_count() > 0 {
                let name = statement.parameter_name(1).unwrap_or("?");
                let detail = format!("{name} is a parameter, and a migration has no values for parameters");
                let kind = ScriptErrorKind::Violation(Violation::with_remedy(detail, "write the value out"));
                return Err(ScriptError { line: line_of(script, at), kind });
            }
            let mut rows = statement.raw_query();
            while rows.next().map_err(|e| self.error(script, at, e))?.is_some() {}
            drop(rows);
            self.check_reserved().map_err(|kind| ScriptError { line: line_of(script, at), kind })?;
            // Without parameters, the expanded text is the text in the script.
            let text = statement.expanded_sql().filter(|text| !text.is_empty() && script[at..].starts_with(text));
            at += text.ok_or_else(|| self.error(script, at, rusqlite::Error::InvalidQuery))?.len();
        }
    }

    /// Checks the result of a statement: the authorizer sees neither the new name of a table nor which rows are written.
    fn check_reserved(&self) -> Result<(), ScriptErrorKind> {
        if !self.state.needs_check.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let now = ReservedNames::of(self.connection).map_err(ScriptErrorKind::Sqlite)?;
        if let Some(name) =
            now.names.iter().zip(0..).find_map(|(name, at)| (self.reserved.names.get(at) != Some(name)).then_some(name))
        {
            return Err(ScriptErrorKind::Violation(reserved_name(name)));
        }
        if now.numbers == self.reserved.numbers {
            return Ok(());
        }
        let detail = "sqlite_sequence: its rows for catchment_ tables are catchment's own";
        Err(ScriptErrorKind::Violation(Violation::with_remedy(detail, "name your table in the WHERE")))
    }

    /// The error of the statement that begins at `at`.
    fn error(&self, script: &str, at: usize, error: rusqlite::Error) -> ScriptError {
        let line = match &error {
            rusqlite::Error::SqlInputError { sql, offset, .. } => {
                let token = script.len() - sql.len() + usize::try_from(*offset).unwrap_or(0);
                line_of(script, token)
            }
            _ => line_of(script, at),
        };
        let violation = self.state.violation.lock().take();
        ScriptError { line, kind: violation.map_or(ScriptErrorKind::Sqlite(error), ScriptErrorKind::Violation) }
    }
}

impl Drop for ScriptRunner<'_> {
    fn drop(&mut self) {
        // Fails only on connections that catchment did not open.
        let _ = self.connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
    }
}

impl ReservedNames {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let names = "SELECT name FROM (SELECT name FROM sqlite_schema UNION ALL SELECT name FROM sqlite_temp_schema)
                     WHERE name LIKE 'catchment^_%' ESCAPE '^' ORDER BY name";
        let numbers = "SELECT name || ' ' || quote(seq) FROM sqlite_sequence
                       WHERE name LIKE 'catchment^_%' ESCAPE '^' ORDER BY 1";
        let all = |sql| -> rusqlite::Result<Vec<String>> {
            connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        Ok(Self { names: all(names)?, numbers: all(numbers)? })
    }
}

fn needs_check(action: &AuthAction<'_>) -> bool {
    match action {
        AuthAction::AlterTable { .. } => true,
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => table_name.eq_ignore_ascii_case("sqlite_sequence"),
        _ => false,
    }
}

fn reserved_name(name: &str) -> Violation {
    let detail = format!("{name}: names that begin with catchment_ are catchment's own");
    Violation::with_remedy(detail, "do not change or create them")
}

/// The rule that an action breaks, if it breaks one.
fn violation(context: &AuthContext<'_>) -> Option<Violation> {
    let names: [&str; 2] = match context.action {
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            let detail = "catchment runs migrations in a transaction of its own";
            return Some(Violation::with_remedy(detail, "take BEGIN, COMMIT and SAVEPOINT out"));
        }
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            let detail = "migrations change this database alone";
            return Some(Violation::with_remedy(detail, "take ATTACH and DETACH out"));
        }
        AuthAction::Pragma { pragma_name, pragma_value } => return pragma_violation(pragma_name, pragma_value),
        AuthAction::CreateIndex { index_name: name, table_name }
        | AuthAction::CreateTempIndex { index_name: name, table_name }
        | AuthAction::CreateTrigger { trigger_name: name, table_name }
        | AuthAction::CreateTempTrigger { trigger_name: name, table_name }
        | AuthAction::DropIndex { index_name: name, table_name }
        | AuthAction::DropTrigger { trigger_name: name, table_name } => [name, table_name],
        AuthAction::CreateTable { table_name: name }
        | AuthAction::CreateTempTable { table_name: name }
        | AuthAction::CreateView { view_name: name }
        | AuthAction::CreateTempView { view_name: name }
        | AuthAction::CreateVtable { table_name: name, .. }
        | AuthAction::DropTable { table_name: name }
        | AuthAction::DropView { view_name: name }
        | AuthAction::AlterTable { table_name: name, .. }
        | AuthAction::Insert { table_name: name }
        | AuthAction::Update { table_name: name, .. }
        | AuthAction::Delete { table_name: name } => [name, ""],
        _ => return None,
    };
    let name = names.into_iter().find(|name| is_ours(name))?;
    Some(reserved_name(name))
}

fn pragma_violation(name: &str, value: Option<&str>) -> Option<Violation> {
    let among = |names: &[&str]| names.iter().any(|one| one.eq_ignore_ascii_case(name));
    if among(&SETTABLE) || among(&READ_ONLY) || (value.is_none() && among(&READ_BY_MODULES)) {
        return None;
    }
    Some(if name.eq_ignore_ascii_case("foreign_keys") || name.eq_ignore_ascii_case("defer_foreign_keys") {
        let detail = "foreign keys are off while migrations run, and checked after the last one";
        Violation::with_remedy(detail, "take the PRAGMA out")
    } else {
        let detail = format!("a migration may not run PRAGMA {name}, only user_version and application_id");
        Violation::with_remedy(detail, "take it out")
    })
}

/// Where the next statement begins: after white space, comments and empty statements.
fn skip_to_statement(script: &str, at: usize) -> usize {
    let is_of_statement = |token: &Token<'_>| token.kind != TokenKind::Comment && !token.is(";");
    tokens(&script[at..]).find(is_of_statement).map_or(script.len(), |token| at + token.start)
}

fn line_of(script: &str, at: usize) -> usize {
    script.as_bytes()[..at.min(script.len())].split(|byte| *byte == b'\n').count()
}
