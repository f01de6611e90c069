//! The SQL: migrations, routes and queries against an empty database, or an empty one with the tables of that which is there.

use super::finding::Notebook;
use crate::config::Config;
use crate::error::{DatabaseFault, Error};
use crate::store::migrations::{self, Migration};
use crate::testing::TestDatabase;

pub(super) fn look(config: &Config, notes: &mut Notebook<'_>) {
    let there = config.database.path.is_file();
    if config.database.migrations.is_some() {
        match migrations::pending(&config.database) {
            Ok(pending) if there && !pending.is_empty() => {
                let names: Vec<String> = pending.iter().map(Migration::name).collect();
                notes.ok("migrations", format!("the next start applies {}", names.join(", ")));
            }
            Ok(pending) if !there => notes.ok("migrations", format!("{} to apply", pending.len())),
            Ok(_) => notes.ok("migrations", "all applied"),
            Err(error) => return notes.error("migrations", &error),
        }
    }
    let tried = if there { TestDatabase::on_tables_of(config) } else { TestDatabase::new(config) };
    match tried {
        Ok(_) => {
            let statements: usize = config.routes.iter().map(|route| route.sql.len()).sum();
            notes.ok("routes", format!("{} with {statements} statements fit the tables", config.routes.len()));
            notes.ok("queries", format!("{} fit the tables", config.queries.len()));
        }
        Err(error) => notes.error(object(&error), &error),
    }
}

/// What an error of a trial is about.
fn object(error: &Error) -> &'static str {
    match error {
        Error::Migration { .. } => "migrations",
        Error::Config { key: named, .. }
        | Error::Database { fault: DatabaseFault::Statement | DatabaseFault::Schema, detail: named, .. } => {
            match named.split_once(' ') {
                Some(("query", _)) => "queries",
                Some(("route", _)) => "routes",
                _ => "database",
            }
        }
        _ => "database",
    }
}
