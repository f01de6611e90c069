//! A migration's statements, run one after the other; of one that fails, the line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Batch, Connection};

use crate::store::schema::is_ours;

/// PRAGMAs that a migration may set: they are the application's, and part of the transaction.
const SETTABLE: [&str; 2] = ["user_version", "application_id"];

/// PRAGMAs that only answer, with an argument or without one. `ALTER TABLE` asks `quick_check` by itself.
const ANSWERING: [&str; 10] = [
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

/// PRAGMAs that SQLite's own modules (FTS5, R*Tree) read.
const READABLE: [&str; 2] = ["data_version", "page_size"];

/// Runs scripts on a connection under the rules for migrations, until it is dropped.
pub(super) struct Scripts<'c> {
    connection: &'c Connection,
    watch: Arc<Watch>,
    /// What is catchment's own, as it was before the scripts.
    own: Own,
}

/// What the authorizer has seen.
#[derive(Default)]
struct Watch {
    refused: Mutex<Option<String>>,
    /// Something that may touch what is catchment's own, which only its outcome tells.
    suspect: AtomicBool,
}

/// Names that begin with `catchment_`, each as often as it is there, and the rows of `sqlite_sequence` for them.
#[derive(PartialEq, Eq)]
struct Own {
    names: Vec<String>,
    numbers: Vec<String>,
}

/// Why a script failed, and in which line.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) line: usize,
    pub(super) reason: Reason,
}

#[derive(Debug)]
pub(super) enum Reason {
    /// SQLite does not take it, or it failed.
    Sqlite(rusqlite::Error),
    /// It is not for migrations.
    Refused(String),
}

impl<'c> Scripts<'c> {
    /// The rules hold for every statement that is prepared on the connection from now on, and within triggers.
    pub(super) fn on(connection: &'c Connection) -> rusqlite::Result<Self> {
        let own = Own::of(connection)?;
        let watch = Arc::new(Watch::default());
        let told = Arc::clone(&watch);
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            if is_suspect(&context.action) {
                told.suspect.store(true, Ordering::Relaxed);
            }
            match refusal(&context) {
                None => Authorization::Allow,
                Some(reason) => {
                    *told.refused.lock() = Some(reason);
                    Authorization::Deny
                }
            }
        }))?;
        Ok(Self { connection, watch, own })
    }

    /// Runs the statements in turn. Rows that they answer are passed over.
    pub(super) fn run(&self, script: &str) -> Result<(), Failure> {
        let mut at = 0;
        loop {
            at = next_word(script, at);
            let prepared = Batch::new(self.connection, &script[at..]).next();
            let Some(mut statement) = prepared.map_err(|e| self.failure(script, at, e))? else { return Ok(()) };
            if statement.parameter_count() > 0 {
                let name = statement.parameter_name(1).unwrap_or("?");
                let reason = format!("{name} is a parameter, and nothing is bound in a migration; write the value out");
                return Err(Failure { line: line_of(script, at), reason: Reason::Refused(reason) });
            }
            let mut rows = statement.raw_query();
            while rows.next().map_err(|e| self.failure(script, at, e))?.is_some() {}
            drop(rows);
            self.leave_ours_alone().map_err(|reason| Failure { line: line_of(script, at), reason })?;
            // Without parameters it is the text as it stands there.
            let text = statement.expanded_sql().filter(|text| !text.is_empty() && script[at..].starts_with(text));
            at += text.ok_or_else(|| self.failure(script, at, rusqlite::Error::InvalidQuery))?.len();
        }
    }

    /// The authorizer hears neither the new name of a table nor which rows are written.
    fn leave_ours_alone(&self) -> Result<(), Reason> {
        if !self.watch.suspect.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let now = Own::of(self.connection).map_err(Reason::Sqlite)?;
        if let Some(name) =
            now.names.iter().zip(0..).find_map(|(name, at)| (self.own.names.get(at) != Some(name)).then_some(name))
        {
            return Err(Reason::Refused(theirs(name)));
        }
        if now.numbers == self.own.numbers {
            return Ok(());
        }
        let reason =
            "sqlite_sequence: its rows for catchment_ tables are catchment's own; name your table in the WHERE";
        Err(Reason::Refused(reason.into()))
    }

    /// The failure of the statement that begins at `at`.
    fn failure(&self, script: &str, at: usize, error: rusqlite::Error) -> Failure {
        let line = match &error {
            rusqlite::Error::SqlInputError { sql, offset, .. } => {
                let token = script.len() - sql.len() + usize::try_from(*offset).unwrap_or(0);
                line_of(script, token)
            }
            _ => line_of(script, at),
        };
        let reason = self.watch.refused.lock().take().map_or(Reason::Sqlite(error), Reason::Refused);
        Failure { line, reason }
    }
}

impl Drop for Scripts<'_> {
    fn drop(&mut self) {
        // Fails only on connections that are not ours.
        let _ = self.connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
    }
}

impl Own {
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

fn is_suspect(action: &AuthAction<'_>) -> bool {
    match action {
        AuthAction::AlterTable { .. } => true,
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => table_name.eq_ignore_ascii_case("sqlite_sequence"),
        _ => false,
    }
}

fn theirs(name: &str) -> String {
    format!("{name}: names that begin with catchment_ are catchment's own; leave them alone")
}

/// Why something is not for migrations.
fn refusal(context: &AuthContext<'_>) -> Option<String> {
    let names: [&str; 2] = match context.action {
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            return Some("migrations run in a transaction of catchment's; take BEGIN, COMMIT and SAVEPOINT out".into());
        }
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            return Some("migrations change this database alone; take ATTACH and DETACH out".into());
        }
        AuthAction::Pragma { pragma_name, pragma_value } => return refused_pragma(pragma_name, pragma_value),
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
    Some(theirs(name))
}

fn refused_pragma(name: &str, value: Option<&str>) -> Option<String> {
    let among = |names: &[&str]| names.iter().any(|one| one.eq_ignore_ascii_case(name));
    if among(&SETTABLE) || among(&ANSWERING) || (value.is_none() && among(&READABLE)) {
        return None;
    }
    Some(if name.eq_ignore_ascii_case("foreign_keys") || name.eq_ignore_ascii_case("defer_foreign_keys") {
        "foreign keys are off while migrations run, and checked behind the last; take the PRAGMA out".into()
    } else {
        format!("PRAGMA {name} is not for migrations, only user_version and application_id are; take it out")
    })
}

/// Where the next statement begins: behind what SQLite takes for white space, comments and empty statements.
fn next_word(script: &str, mut at: usize) -> usize {
    loop {
        let rest = &script[at..];
        let word = rest.trim_start_matches([' ', '\t', '\n', '\x0c', '\r', ';', '\u{feff}']);
        at += rest.len() - word.len();
        let end = match word.get(..2) {
            Some("--") => "\n",
            Some("/*") => "*/",
            _ => return at,
        };
        // What is not ended goes on to the end of the file.
        at += word[2..].find(end).map_or(word.len(), |found| 2 + found + end.len());
    }
}

fn line_of(script: &str, at: usize) -> usize {
    script.as_bytes()[..at.min(script.len())].split(|byte| *byte == b'\n').count()
}
