//! Whether a file can be the database, before anything is made beside it or changed in it.

use super::database_file::must_not_be_foreign;
use super::read_only::immutable;
use super::routes::Routes;
use super::routes::authorizer::Authorizer;
use super::routes::plan::Plan;
use super::schema::{has_table, identity};
use crate::config::DatabaseConfig;
use crate::error::Error;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Database, Editor};

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
}
