//! The SQL: migrations, routes and queries, compiled in a temporary database that is empty or has the tables of the existing one.

use super::finding::ReportBuilder;
use crate::config::Config;
use crate::counted;
use crate::error::{DatabaseFault, Error};
use crate::store::migrations::{self, Migration};
use crate::testing::TestDatabase;

pub(super) fn check(config: &Config, located: &dyn Fn(Error) -> Error, report: &mut ReportBuilder<'_>) {
    let exists = config.database.path.is_file();
    if config.database.migrations.is_some() {
        match migrations::pending(&config.database) {
            Ok(pending) if exists && !pending.is_empty() => {
                let names: Vec<String> = pending.iter().map(Migration::name).collect();
                report.ok("migrations", format!("the next start applies {}", names.join(", ")));
            }
            Ok(pending) if !exists => report.ok("migrations", format!("{} to apply", pending.len())),
            Ok(_) => report.ok("migrations", "all applied"),
            Err(error @ Error::Database { .. }) => return report.error(object(&error), &error),
            Err(error) => return report.error("migrations", &located(error)),
        }
    }
    let compiled = if exists { TestDatabase::on_tables_of(config) } else { TestDatabase::new(config) };
    match compiled {
        Ok(database) => {
            let statements: usize = config.routes.iter().map(|route| route.sql.len()).sum();
            let fit = |count: usize| if count == 1 { "fits" } else { "fit" };
            let (routes, queries) = (config.routes.len(), config.queries.len());
            let statements = counted(statements as u64, "statement");
            report.ok("routes", format!("{routes} with {statements} {} the tables", fit(routes)));
            report.ok("queries", format!("{queries} {} the tables", fit(queries)));
            retention(config, &database, located, report);
        }
        Err(error) => report.error(object(&error), &located(error)),
    }
}

/// Whether the rules of `[retention]` fit the tables, and the indexes that they need.
fn retention(
    config: &Config,
    database: &TestDatabase,
    located: &dyn Fn(Error) -> Error,
    report: &mut ReportBuilder<'_>,
) {
    if config.retention.is_empty() {
        return;
    }
    match database.check_retention(config) {
        Ok(missing) if missing.is_empty() => {
            let tables = config.retention.tables.len() as u64;
            report.ok("retention", format!("the rules of {} fit", counted(tables, "table")));
        }
        Ok(missing) => {
            for (table, statement) in missing {
                let what = format!("{table} has no index for its times, so each round reads the whole table");
                report.warning("retention", what, format!("add a migration with {statement}"));
            }
        }
        Err(error) => report.error("retention", &located(error)),
    }
}

/// Which part of the settings an error of the temporary database is about.
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
