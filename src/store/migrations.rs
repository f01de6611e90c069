//! The user's own tables: a folder of numbered SQL files, each applied once.
//!
//! [`DatabaseConfig::migrations`] has the rules. What was applied is remembered in table `catchment_migrations`.

mod folder;
mod script;

pub use folder::Migration;

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};

use super::columns::now_us;
use super::sqlite_error::{database_error, fault, may_pass, what};
use super::temp_store::keep_where_there_is_room;
use crate::config::DatabaseConfig;
use crate::error::{DatabaseFault, Error};
use folder::refused;
use script::{Failure, Reason, Scripts};

/// A migration that was applied.
struct Applied {
    number: i64,
    name: String,
    checksum: String,
    /// RFC 3339, in UTC.
    when: String,
}

/// The migrations that opening this database would apply, in their order: all of them where there is no database yet.
/// Changes nothing.
///
/// # Errors
///
/// As [`Database::open`](super::Database::open), as far as can be told without running them.
pub fn pending(config: &DatabaseConfig) -> Result<Vec<Migration>, Error> {
    let Some(folder) = &config.migrations else { return Ok(Vec::new()) };
    let mut all = folder::read(folder)?;
    if !config.path.exists() {
        return Ok(all);
    }
    let on_error = |e| database_error(&config.path, e);
    let connection = connect(config, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(on_error)?;
    let applied = applied(&connection).map_err(on_error)?;
    let new = first_new(&all, &applied, folder)?;
    Ok(all.split_off(new))
}

/// Applies what is pending, in one transaction: all of it or nothing. `fits` looks at the tables before the commit, and its
/// error rolls everything back: the database stays as it was.
pub(super) fn apply(config: &DatabaseConfig, fits: impl FnOnce(&Connection) -> Result<(), Error>) -> Result<(), Error> {
    let Some(folder) = &config.migrations else { return Ok(()) };
    let on_error = |e| database_error(&config.path, e);
    let all = folder::read(folder)?;
    // One of its own, for it is set up as no other: foreign keys are checked behind the last migration instead of all along,
    // or a table that is replaced by another of its name would take along the rows that refer to it
    // (https://sqlite.org/lang_altertable.html#otheralter).
    let mut connection = connect(config, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(on_error)?;
    connection.pragma_update(None, "foreign_keys", false).map_err(on_error)?;
    if first_new(&all, &applied(&connection).map_err(on_error)?, folder)? == all.len() {
        return Ok(());
    }
    let transaction = Transaction::new(&mut connection, TransactionBehavior::Immediate).map_err(on_error)?;
    // Asked again under the write lock: another process may have been faster.
    let new = &all[first_new(&all, &applied(&transaction).map_err(on_error)?, folder)?..];
    for migration in new {
        run(&transaction, migration, &config.path)?;
    }
    if let Some(last) = new.last() {
        check_references(&transaction, last, &config.path)?;
        fits(&transaction).map_err(|error| rolled_back(error, new))?;
    }
    transaction.commit().map_err(on_error)?;
    for migration in new {
        log::info!("database {}: applied migration {}", config.path.display(), migration.name());
    }
    Ok(())
}

fn connect(config: &DatabaseConfig, how: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = how | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(&config.path, flags)?;
    connection.busy_timeout(config.busy_timeout)?;
    // Of a large table an index may be more than memory has room for.
    keep_where_there_is_room(&connection)?;
    Ok(connection)
}

fn run(transaction: &Transaction<'_>, migration: &Migration, database: &Path) -> Result<(), Error> {
    let ran = Scripts::on(transaction).map_err(|e| database_error(database, e))?.run(&migration.text);
    ran.map_err(|failure| failed(migration, failure, database))?;
    let sql = "INSERT INTO catchment_migrations(number, name, checksum, applied_us) VALUES (?, ?, ?, ?)";
    let row = params![migration.number, migration.name(), migration.checksum(), now_us()];
    transaction.execute(sql, row).map_err(|e| database_error(database, e))?;
    Ok(())
}

/// The script's fault, or the database's.
fn failed(migration: &Migration, failure: Failure, database: &Path) -> Error {
    let tell = |reason: &str, source| {
        let detail = format!("{reason}; no new migration was applied, mend this one");
        refused(&migration.path, Some(failure.line), detail, source)
    };
    match failure.reason {
        Reason::Refused(reason) => refused(&migration.path, Some(failure.line), reason, None),
        Reason::Sqlite(error) => match fault(&error) {
            DatabaseFault::Other if error.sqlite_error_code() != Some(ErrorCode::SystemIoFailure) => {
                tell(&what(&error), Some(error.into()))
            }
            _ => database_error(database, error),
        },
    }
}

/// Foreign keys were off: whether each still refers to something.
fn check_references(transaction: &Transaction<'_>, last: &Migration, database: &Path) -> Result<(), Error> {
    let on_error = |e: rusqlite::Error| {
        if may_pass(&e) {
            return database_error(database, e);
        }
        let detail = format!("behind it: {}; no new migration was applied, have one mend that", what(&e));
        refused(&last.path, None, detail, Some(e.into()))
    };
    let mut check = transaction.prepare("PRAGMA foreign_key_check").map_err(on_error)?;
    let mut rows = check.query([]).map_err(on_error)?;
    let Some(row) = rows.next().map_err(on_error)? else { return Ok(()) };
    let read = || Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, String>(2)?));
    let (table, row, parent) = read().map_err(on_error)?;
    let row = row.map_or_else(|| "a row".into(), |row| format!("row {row}"));
    let detail = format!(
        "behind it {row} of {table} refers to a row of {parent} that is not there; no new migration was applied, have one \
         mend that"
    );
    Err(refused(&last.path, None, detail, None))
}

/// What does not fit the tables that the migrations made.
fn rolled_back(error: Error, new: &[Migration]) -> Error {
    let which = match new {
        [] => return error,
        [one] => format!("migration {} was", one.name()),
        [first, .., last] => format!("migrations {} to {} were", first.name(), last.name()),
    };
    match error {
        Error::Database { fault: DatabaseFault::Statement | DatabaseFault::Schema, ref remedy, .. } => {
            let first = remedy.as_ref().map_or(String::new(), |remedy| format!("{remedy}; "));
            let rolled_back = format!("{first}new {which} rolled back: change the migration or the statement");
            error.with_remedy(rolled_back)
        }
        other => other,
    }
}

/// What was applied to this database, in order.
fn applied(connection: &Connection) -> rusqlite::Result<Vec<Applied>> {
    let there = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'catchment_migrations'";
    if connection.query_row(there, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(Vec::new());
    }
    let sql = "SELECT number, name, checksum, strftime('%Y-%m-%dT%H:%M:%SZ', applied_us / 1000000, 'unixepoch')
               FROM catchment_migrations ORDER BY number";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(Applied { number: row.get(0)?, name: row.get(1)?, checksum: row.get(2)?, when: row.get(3)? })
    })?;
    rows.collect()
}

/// The index of the first that was not applied, once those that were are there as they were and before all others.
fn first_new(all: &[Migration], applied: &[Applied], folder: &Path) -> Result<usize, Error> {
    for applied in applied {
        match all.iter().find(|migration| migration.number == applied.number) {
            None => {
                let detail =
                    format!("is not there any more, and was applied at {}; put it back as it was", applied.when);
                return Err(refused(&folder.join(&applied.name), None, detail, None));
            }
            Some(changed) if changed.checksum() != applied.checksum => {
                let detail = format!(
                    "was changed after it was applied at {}; put it back as it was, and what is to change into a new one",
                    applied.when
                );
                return Err(refused(&changed.path, None, detail, None));
            }
            Some(_) => {}
        }
    }
    let is_applied = |migration: &Migration| applied.iter().any(|applied| applied.number == migration.number);
    match (all[..applied.len()].iter().find(|migration| !is_applied(migration)), applied.last()) {
        (Some(late), Some(last)) => {
            let detail = format!("comes before {}, which is applied already; give it a number above that", last.name);
            Err(refused(&late.path, None, detail, None))
        }
        _ => Ok(applied.len()),
    }
}

#[cfg(test)]
mod tests;
