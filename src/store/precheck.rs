//! Whether a file can be the database, before anything is made beside it or changed in it.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::hooks::{AuthContext, Authorization};

use super::database_file::{file_beside, must_not_be_foreign};
use super::migrations::{self, Migration};
use super::read_connection::may_write;
use super::read_only::{immutable, read_only};
use super::routes::Routes;
use super::routes::authorizer::Authorizer;
use super::routes::plan::Plan;
use super::schema::{identity, kind_of, tables};
use super::sqlite_error::database_error;
use crate::config::{DatabaseConfig, RouteConfig, Unmatched};
use crate::error::{DatabaseFault, Error};
use crate::hint::word;
use crate::printable::printable;

/// Refuses what is no database, and the database of another program whose table `events` cannot take events, unless migrations
/// change that first. Takes no lock, changes nothing and makes no file.
///
/// # Errors
///
/// [`Error::Database`].
pub(super) fn must_be_usable(config: &DatabaseConfig, routes: &Routes) -> Result<(), Error> {
    let path = &config.path;
    must_not_be_foreign(path)?;
    if !routes.use_events() || !path.exists() {
        return Ok(());
    }
    // Another process may write it. Then a read can fail, and opening it shows what is wrong.
    let Ok(connection) = for_look(path) else { return Ok(()) };
    match identity(&connection) {
        Ok(None) => events_must_fit(config, routes, &connection),
        _ => Ok(()),
    }
}

/// Refuses a file that this user may not write. SQLite would open it all the same, and make a file `-shm` that nobody may write either.
///
/// # Errors
///
/// [`Error::Database`].
pub(super) fn must_be_writable(path: &Path) -> Result<(), Error> {
    if !path.exists() || may_write(path) {
        return Ok(());
    }
    let error = Error::database(DatabaseFault::Unwritable, path, "this user may not write it");
    Err(error.with_remedy("change its permissions, or run the command as a user who may write it"))
}

/// Refuses a database without catchment's tables that has a table or view `events` of another program which cannot take the events that
/// no route takes, unless a new migration may change it.
///
/// # Errors
///
/// [`Error::Database`]; its remedy names the two ways out.
pub(super) fn events_must_fit(config: &DatabaseConfig, routes: &Routes, connection: &Connection) -> Result<(), Error> {
    let path = &config.path;
    if !routes.use_events() || may_change_events(config) {
        return Ok(());
    }
    let examine = || -> rusqlite::Result<_> { Ok((kind_of(connection, "events")?, Authorizer::of(connection)?)) };
    // If it cannot be read, opening it shows what is wrong.
    let Ok((Some(kind), authorizer)) = examine() else { return Ok(()) };
    let fits = Plan::new(path, &Routes::default(), connection, &authorizer).map(drop);
    // The authorizer would refuse what follows on this connection.
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(|e| database_error(path, e))?;
    fits.map_err(|error| {
        let remedy = format!(
            "that {kind} belongs to another program: set database.path to another file, or rename the {kind} \"events\" in this one"
        );
        error.with_remedy(remedy)
    })
}

/// Whether a migration that is still to be applied names `events`.
fn may_change_events(config: &DatabaseConfig) -> bool {
    let names_it = |migration: &Migration| migration.has_word("events");
    // Migrations that cannot be read are refused when the database is opened.
    migrations::pending(config).is_ok_and(|pending| pending.iter().any(names_it))
}

/// A connection that changes nothing and makes no file. Without locks, so that nobody is waited for, unless there is a log: that is not read
/// without locks.
fn for_look(path: &Path) -> rusqlite::Result<Connection> {
    if file_beside(path, "-wal").exists() { read_only(path) } else { immutable(path) }
}

/// Refuses a database that has tables of another program and none of catchment's, unless a statement of
/// the routes fits these tables. For commands, where the path may be a mistake. Changes nothing and makes no file.
///
/// # Errors
///
/// [`Error::Database`].
pub(super) fn must_not_be_of_others(
    config: &DatabaseConfig,
    routes: &[RouteConfig],
    unmatched: Unmatched,
) -> Result<(), Error> {
    /// So many tables are named.
    const NAMED: usize = 3;
    let path = &config.path;
    if !path.exists() {
        return Ok(());
    }
    let examined = for_look(path).and_then(|connection| {
        let tables = if identity(&connection)?.is_some() { Vec::new() } else { tables(&connection)? };
        Ok((connection, tables))
    });
    // If it cannot be read, opening it shows what is wrong.
    let Ok((connection, tables)) = examined else { return Ok(()) };
    // The start compiles all of them, and its error names the wrong one.
    let fits = |route: &RouteConfig, sql: &String| -> Result<(), Error> {
        let alone = RouteConfig { sql: vec![sql.clone()], bind: BTreeMap::new(), ..route.clone() };
        let authorizer = Authorizer::of(&connection).map_err(|e| database_error(path, e))?;
        Plan::new(path, &Routes::new(&[alone], Unmatched::Drop)?, &connection, &authorizer).map(drop)
    };
    let any_fits = || routes.iter().any(|route| route.sql.iter().any(|sql| fits(route, sql).is_ok()));
    if tables.is_empty() || any_fits() {
        return Ok(());
    }
    // To adopt it would not help then. Wrong routes are refused at the start; whether they take all events does not depend on them.
    let all = Routes::new(routes, unmatched).unwrap_or_default();
    events_must_fit(config, &all, &connection)?;
    let mut named = tables[..tables.len().min(NAMED)].join(", ");
    if tables.len() > NAMED {
        named = format!("{named} and {} more", tables.len() - NAMED);
    }
    let detail = format!("it has tables of another program ({}) and none of catchment's", printable(&named));
    let (fault, path) = (DatabaseFault::Schema, path.to_owned());
    let remedy = format!(
        "set database.path to another file, or add catchment's tables to this one (catchment adopt --database {})",
        word(&path.to_string_lossy())
    );
    Err(Error::Database { fault, path, detail, remedy: Some(remedy), source: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture::route;
    use crate::store::{Database, Editor, adopt};

    #[test]
    fn what_is_no_database_of_ours_stays_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("text"), "a host name\n").expect("writes");
        std::fs::write(at("large"), [7; 5_000]).expect("writes");
        std::fs::create_dir(at("folder")).expect("a folder");
        let other = "PRAGMA journal_mode = DELETE; CREATE TABLE events(day TEXT)";
        Editor::open(&at("other")).expect("opens").run(other).expect("SQL");
        let before = std::fs::read(at("other")).expect("reads");
        for (name, words) in [
            ("text", "file is not a database; set database.path to another file"),
            ("large", "file is not a database; set database.path to another file"),
            ("folder", "it is a directory; give the path of a file in it"),
            ("other", "route events: table events has no column named subject"),
        ] {
            let config = DatabaseConfig { path: at(name), ..DatabaseConfig::default() };
            for refused in [
                Database::must_be_usable(&config, &Routes::default()),
                Database::open(&config, &Routes::default()).map(drop),
            ] {
                let refused = refused.expect_err(name).to_string();
                assert!(refused.contains(words), "{refused}");
            }
        }
        assert_eq!(std::fs::read(at("other")).expect("reads"), before);
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 4);
    }

    #[test]
    fn an_empty_file_and_a_database_of_the_user_are_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("empty"), "").expect("writes");
        Editor::open(&folder.path().join("mine")).expect("opens").run("CREATE TABLE t(a)").expect("SQL");
        for name in ["new", "empty", "mine"] {
            let config = DatabaseConfig { path: folder.path().join(name), ..DatabaseConfig::default() };
            Database::must_be_usable(&config, &Routes::default()).expect(name);
            Database::open(&config, &Routes::default()).expect(name);
        }
    }

    #[test]
    fn a_database_with_tables_of_others_needs_routes_for_them_or_is_adopted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shop.db");
        let tables = "PRAGMA journal_mode = DELETE; CREATE TABLE customers(name); CREATE TABLE b(x); CREATE TABLE c(x); CREATE TABLE d(x)";
        Editor::open(&path).expect("opens").run(tables).expect("SQL");
        let before = std::fs::read(&path).expect("reads");
        let config = DatabaseConfig { path: path.clone(), ..DatabaseConfig::default() };
        let missing = [route("a", &["INSERT INTO nothing VALUES (:name)"])];
        for routes in [&[][..], &missing] {
            let refused =
                must_not_be_of_others(&config, routes, Unmatched::Store).expect_err("is of others").to_string();
            let words = "it has tables of another program (b, c, customers and 1 more) and none of catchment's; set database.path to \
                         another file, or add catchment's tables to this one (catchment adopt --database ";
            assert!(refused.contains(words), "{refused}");
        }
        must_not_be_of_others(&config, &[route("a", &["INSERT INTO customers VALUES (:name)"])], Unmatched::Store)
            .expect("its tables");
        assert_eq!(std::fs::read(&path).expect("reads"), before);
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 1);
        assert_eq!(adopt(&config, &Routes::default(), &|| true).expect("adds tables").before.as_deref(), None);
        must_not_be_of_others(&config, &[], Unmatched::Store).expect("has ours");
        // The byte of the header that says how the file is to be read: 2 is WAL (https://sqlite.org/fileformat.html#file_format_version_numbers).
        assert_eq!(std::fs::read(&path).expect("reads")[19], 2);
        Database::open(&config, &Routes::default()).expect("opens");
    }

    #[test]
    fn a_database_whose_events_belong_to_another_program_is_neither_adopted_nor_to_be_adopted() {
        for (kind, sql) in [
            ("table", "CREATE TABLE events(day TEXT)"),
            ("table", "CREATE TABLE Events(day TEXT)"),
            ("view", "CREATE TABLE t(a); CREATE VIEW events AS SELECT a FROM t"),
            (
                "view",
                "CREATE TABLE t(a); CREATE VIEW events AS SELECT 1 AS id, 's' AS subject, '' AS stream, 1 AS sequence, 1 AS published_us, '' AS headers, '' AS payload FROM t",
            ),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("shop.db");
            Editor::open(&path).expect("opens").run(&format!("PRAGMA journal_mode = DELETE; {sql}")).expect("SQL");
            let before = std::fs::read(&path).expect("reads");
            let config = DatabaseConfig { path: path.clone(), ..DatabaseConfig::default() };
            let missing = [route("a", &["INSERT INTO nothing VALUES (:name)"])];
            for refused in [
                must_not_be_of_others(&config, &missing, Unmatched::Store),
                must_be_usable(&config, &Routes::default()),
                Database::open(&config, &Routes::default()).map(drop),
                adopt(&config, &Routes::default(), &|| true).map(drop),
            ] {
                let refused = refused.expect_err(sql).to_string();
                let words =
                    format!("that {kind} belongs to another program: set database.path to another file, or rename");
                assert!(refused.contains(&words) && !refused.contains("catchment adopt"), "{refused}");
            }
            assert_eq!(std::fs::read(&path).expect("reads"), before);
            assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 1);
            // Without events that no route takes, it is no obstacle.
            let dropping = Routes::new(&[], Unmatched::Drop).expect("routes");
            let advice = must_not_be_of_others(&config, &missing, Unmatched::Drop).expect_err(sql).to_string();
            assert!(advice.contains("catchment adopt"), "{advice}");
            adopt(&config, &dropping, &|| true).expect("adopts");
            Database::open(&config, &dropping).expect("opens");
        }
    }

    #[test]
    fn a_migration_may_rename_the_events_of_another_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shop.db");
        Editor::open(&path).expect("opens").run("CREATE TABLE events(day TEXT)").expect("SQL");
        for (sql, is_usable) in [("CREATE TABLE days(day)", false), ("ALTER TABLE Events RENAME TO days", true)] {
            let migrations = folder.path().join(is_usable.to_string());
            std::fs::create_dir(&migrations).expect("a folder");
            std::fs::write(migrations.join("001_a.sql"), sql).expect("writes");
            let config =
                DatabaseConfig { path: path.clone(), migrations: Some(migrations.into()), ..DatabaseConfig::default() };
            assert_eq!(must_be_usable(&config, &Routes::default()).is_ok(), is_usable, "{sql}");
        }
    }
}
