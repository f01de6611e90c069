//! Whether a file can be the database, before anything is made beside it or changed in it.

use std::collections::BTreeMap;
use std::path::Path;

use super::database_file::{followed, must_not_be_foreign};
use super::read_only::{immutable, read_only};
use super::routes::Routes;
use super::routes::authorizer::Authorizer;
use super::routes::plan::Plan;
use super::schema::{has_table, identity, tables};
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
    if config.migrations.is_some() || !routes.use_events() || !path.exists() {
        return Ok(());
    }
    let Ok(connection) = immutable(path) else { return Ok(()) };
    let examine = || -> rusqlite::Result<(bool, Authorizer)> {
        let is_of_others = identity(&connection)?.is_none() && has_table(&connection, "events")?;
        Ok((is_of_others, Authorizer::of(&connection)?))
    };
    match examine() {
        Ok((true, authorizer)) => Plan::new(path, &Routes::default(), &connection, &authorizer).map(drop),
        // Another process may write it. Then a read without locks can fail, and opening it shows what is wrong.
        _ => Ok(()),
    }
}

/// Refuses a database that has tables of another program and none of catchment's, unless a statement of
/// the routes fits these tables. For commands, where the path may be a mistake. Changes nothing and makes no file.
///
/// # Errors
///
/// [`Error::Database`].
pub(super) fn must_not_be_of_others(config: &DatabaseConfig, routes: &[RouteConfig]) -> Result<(), Error> {
    /// So many tables are named.
    const NAMED: usize = 3;
    let path = &config.path;
    if !path.exists() {
        return Ok(());
    }
    let mut log = followed(path).into_os_string();
    log.push("-wal");
    // Without locks, so that nobody is waited for. But that does not see what is in the log.
    let opened = if Path::new(&log).exists() { read_only(path) } else { immutable(path) };
    let examined = opened.and_then(|connection| {
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
            let refused = must_not_be_of_others(&config, routes).expect_err("is of others").to_string();
            let words = "it has tables of another program (b, c, customers and 1 more) and none of catchment's; set database.path to \
                         another file, or add catchment's tables to this one (catchment adopt --database ";
            assert!(refused.contains(words), "{refused}");
        }
        must_not_be_of_others(&config, &[route("a", &["INSERT INTO customers VALUES (:name)"])]).expect("its tables");
        assert_eq!(std::fs::read(&path).expect("reads"), before);
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 1);
        assert_eq!(adopt(&path).expect("adds tables").before.as_deref(), None);
        must_not_be_of_others(&config, &[]).expect("has ours");
        Database::open(&config, &Routes::default()).expect("opens");
    }
}
