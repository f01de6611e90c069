//! The configured queries, checked against the database: each is one statement that reads and has named parameters.

mod query_error;
mod runner;

pub use query_error::{QueryError, QueryErrorKind};
pub use runner::{Interrupter, QueryRunner};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, ErrorCode, Statement};

use super::database_file::DatabaseFile;
use super::limits;
use super::read_only::read_only;
use super::sqlite_error::{Violation, database_error, statement_error, violation_error};
use super::suggestion::suggestion;
use crate::binding::RequestParameters;
use crate::config::QueryConfig;
use crate::error::Error;

/// Queries that were checked against the database.
#[derive(Clone, Debug)]
pub struct Queries {
    pub(super) file: DatabaseFile,
    pub(super) queries: Arc<[Query]>,
}

#[derive(Debug)]
pub(super) struct Query {
    pub(super) name: String,
    pub(super) sql: String,
    pub(super) parameters: RequestParameters,
    pub(super) timeout: Duration,
    pub(super) max_rows: usize,
    pub(super) max_bytes: usize,
}

impl Queries {
    /// Checks that each query is one statement that reads, matches this database, and names its parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: the SQL is wrong (the error names the query and the position), or the file cannot be read.
    /// [`Error::Config`]: parameters that cannot be bound.
    pub fn check(path: &Path, configs: &[QueryConfig]) -> Result<Self, Error> {
        let (file, mut queries) = (DatabaseFile::at(path), Vec::new());
        if configs.is_empty() {
            return Ok(Self { file, queries: queries.into() });
        }
        let connection = connect(path).map_err(|e| database_error(path, e))?;
        for config in configs {
            queries.push(check(path, &connection, config)?);
        }
        Ok(Self { file, queries: queries.into() })
    }

    /// As [`Queries::check`], but against the tables that this connection to `path` sees. Replaces its authorizer.
    pub(super) fn check_on(connection: &Connection, path: &Path, configs: &[QueryConfig]) -> Result<(), Error> {
        restrict(connection).map_err(|e| database_error(path, e))?;
        configs.iter().try_for_each(|config| check(path, connection, config).map(drop))
    }

    /// The names that a request of this query may have, in the order of its statement.
    ///
    /// # Panics
    ///
    /// If there is no query with this number.
    #[must_use]
    pub fn parameters(&self, query: usize) -> &[String] {
        self.queries[query].parameters.names()
    }
}

fn check(path: &Path, connection: &Connection, config: &QueryConfig) -> Result<Query, Error> {
    let name = format!("query {}", config.name());
    let refused = |violation| violation_error(path, &name, violation);
    let statement = connection.prepare(&config.sql).map_err(|e| match e {
        rusqlite::Error::MultipleStatement => {
            refused(Violation::with_remedy("is several statements", "make a query of each"))
        }
        e => {
            let is_denied = e.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied);
            let meant = suggestion(connection, &config.sql, &e);
            statement_error(path, &name, &config.sql, e, is_denied.then(not_a_query), &meant)
        }
    })?;
    if !statement.readonly() || statement.column_count() == 0 {
        return Err(refused(not_a_query()));
    }
    let names = names(&statement).map_err(refused)?;
    let names = names.iter().map(String::as_str);
    let parameters = RequestParameters::new(names, &config.bind, config.codec, &config.parameters);
    let parameters = parameters.map_err(|reason| Error::config(name.clone(), reason))?;
    Ok(Query {
        name: config.name().to_owned(),
        sql: config.sql.clone(),
        parameters,
        timeout: config.timeout,
        max_rows: config.max_rows,
        max_bytes: usize::try_from(config.max_bytes.as_u64()).unwrap_or(usize::MAX),
    })
}

fn not_a_query() -> Violation {
    Violation::with_remedy("does more than read", "a query is a SELECT, VALUES or WITH … SELECT")
}

/// The names of its parameters, without their colon.
fn names(statement: &Statement<'_>) -> Result<Vec<String>, Violation> {
    let named = |number| match statement.parameter_name(number) {
        Some(name) if name.starts_with(':') => Ok(name[1..].to_owned()),
        other => {
            let detail = format!("has a parameter {} without a name", other.unwrap_or("?"));
            Err(Violation::with_remedy(detail, "give it the name of what it is bound to, as :limit"))
        }
    };
    (1..=statement.parameter_count()).map(named).collect()
}

/// A connection that can change nothing and reach no other file.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = read_only(path)?;
    restrict(&connection)?;
    Ok(connection)
}

fn restrict(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    limits::set(connection)?;
    limits::set_length(connection)?;
    connection.authorizer(Some(authorize))
}

/// What a query's statement may do. Virtual tables (full-text search, R-trees) prepare statements of their own when they are
/// read: some that write, which this read-only connection never runs, and one that reads the data version.
fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        // Reading a PRAGMA's table runs the PRAGMA.
        AuthAction::Read { table_name, .. } if table_name.starts_with("pragma_") => Authorization::Deny,
        AuthAction::Select
        | AuthAction::Read { .. }
        | AuthAction::Recursive
        | AuthAction::Insert { .. }
        | AuthAction::Update { .. }
        | AuthAction::Delete { .. }
        | AuthAction::Pragma { pragma_name: "data_version", pragma_value: None } => Authorization::Allow,
        AuthAction::Function { function_name } if !function_name.eq_ignore_ascii_case("load_extension") => {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatabaseConfig;
    use crate::store::{Database, Editor, Routes};

    fn database() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        drop(
            Database::open(&DatabaseConfig { path: path.clone(), ..DatabaseConfig::default() }, &Routes::default())
                .expect("opens"),
        );
        let sql = "CREATE TABLE chat(id INTEGER PRIMARY KEY, line TEXT);
                   CREATE VIRTUAL TABLE words USING fts5(line);
                   CREATE VIRTUAL TABLE places USING rtree(id, west, east, south, north);
                   INSERT INTO words VALUES ('hello there');
                   INSERT INTO places VALUES (1, 0, 1, 0, 1);";
        Editor::open(&path).expect("opens").run(sql).expect("SQL");
        (folder, path)
    }

    fn refusal(path: &Path, sql: &str) -> String {
        let query = QueryConfig { name: Some("q".into()), ..QueryConfig::new("a.q", sql) };
        Queries::check(path, &[query]).expect_err(sql).to_string()
    }

    #[test]
    fn wrong_sql_is_refused_with_query_and_position() {
        let (_folder, path) = database();
        let error = refusal(&path, "SELECT line,\n  ümlaut FROM chat");
        assert!(error.ends_with("a.db: query q: no such column: ümlaut (at 2:3, \"ümlaut FROM chat\")"), "{error}");
        assert!(refusal(&path, "SELEC 1").contains("near \"SELEC\": syntax error (at 1:1, "));
        assert!(refusal(&path, "SELECT * FROM gone").contains("no such table: gone"));
        for positional in ["SELECT ?", "SELECT ?2", "SELECT $a", "SELECT @a"] {
            assert!(refusal(&path, positional).contains("without a name; give it the name"), "{positional}");
        }
        assert!(refusal(&path, "SELECT 1; SELECT 2").contains("several statements"));
        assert!(refusal(&path, "SELECT :token_0").contains(":token_0"));
    }

    #[test]
    fn statements_that_do_more_than_read_are_refused() {
        let (folder, path) = database();
        let beside = folder.path().join("b.db").display().to_string();
        for sql in [
            "DELETE FROM chat",
            "INSERT INTO chat(line) VALUES (:line) RETURNING id",
            "CREATE TABLE t(a)",
            "CREATE TEMP TABLE t(a)",
            "BEGIN",
            "SAVEPOINT s",
            "PRAGMA journal_mode",
            "PRAGMA query_only = 0",
            "SELECT * FROM pragma_database_list",
            "VACUUM",
            "ANALYZE",
            "REINDEX",
            &format!("ATTACH '{beside}' AS b"),
            &format!("VACUUM INTO '{beside}'"),
            "",
            "-- nothing",
        ] {
            let error = refusal(&path, sql);
            assert!(error.contains("does more than read"), "{sql}: {error}");
        }
        assert!(!Path::new(&beside).exists());
        assert!(
            refusal(&path, "SELECT load_extension('x')").contains("not authorized to use function: load_extension")
        );
    }

    #[test]
    fn statements_that_read_are_accepted_virtual_tables_too() {
        let (_folder, path) = database();
        let queries = [
            "SELECT line FROM chat ORDER BY id DESC LIMIT coalesce(:limit, 20)",
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < :most) SELECT i FROM n;",
            "VALUES (1, :a), (2, :b) -- two",
            "SELECT rowid FROM words WHERE words MATCH :text",
            "SELECT id FROM places WHERE west <= :x AND east >= :x",
            "SELECT value FROM json_each(:list)",
        ];
        let configs: Vec<_> =
            queries.iter().enumerate().map(|(at, sql)| QueryConfig::new(format!("q.{at}"), *sql)).collect();
        let checked = Queries::check(&path, &configs).expect("all read");
        assert_eq!(checked.parameters(0), ["limit"]);
        assert_eq!(checked.parameters(2), ["a", "b"]);
        assert_eq!(checked.parameters(4), ["x"]);
    }
}
