//! The user's own tables: numbered SQL files, each applied once.
//!
//! [`DatabaseConfig::migrations`] has the rules. Table `catchment_migrations` records what was applied.

mod script;
mod source;

pub use source::{Migration, number_of};

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};

use super::database_file::must_be_a_file;
use super::interrupter::OpeningInterrupter;
use super::quoted_names::names_only;
use super::sqlite_error::{Violation, database_error, fault, is_transient, message};
use super::suggestion::suggestion;
use super::temp_store::use_files_if_possible;
use crate::config::{Checkpoints, DatabaseConfig, Migrations};
use crate::error::{DatabaseFault, Error};
use crate::unix_time::now_us;
use script::{ScriptError, ScriptErrorKind, ScriptRunner};
use source::refused;

const CORRECT: &str = "correct that in a migration; no new migration was applied";

/// A migration that was applied.
struct Applied {
    number: i64,
    name: String,
    checksum: String,
    /// RFC 3339, in UTC.
    when: String,
}

/// The migrations that opening this database would apply, in their order: all of them if there is no database yet.
/// Changes nothing.
///
/// # Errors
///
/// As [`Database::open`](super::Database::open), as far as can be known without running them.
pub fn pending(config: &DatabaseConfig) -> Result<Vec<Migration>, Error> {
    let Some(source) = &config.migrations else { return Ok(Vec::new()) };
    let mut all = source::read(source)?;
    must_be_a_file(&config.path)?;
    if !config.path.exists() {
        return Ok(all);
    }
    let on_error = |e| database_error(&config.path, e);
    let connection = connect(config, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(on_error)?;
    let applied = applied(&connection).map_err(on_error)?;
    let new = first_new(&all, &applied, source)?;
    Ok(all.split_off(new))
}

/// Applies the pending migrations in one transaction, all of them or none. `check` examines the tables before the commit, and
/// its error rolls everything back: the database stays as it was.
pub(super) fn apply(
    config: &DatabaseConfig,
    interrupter: &OpeningInterrupter,
    check: impl FnOnce(&Connection) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(source) = &config.migrations else { return Ok(()) };
    let on_error = |e| database_error(&config.path, e);
    let all = source::read(source)?;
    // A connection of its own, because foreign keys are off on it: they are checked after the last migration. Otherwise replacing
    // a table by another of its name would delete the rows that refer to it
    // (https://sqlite.org/lang_altertable.html#otheralter).
    let mut connection = connect(config, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(on_error)?;
    interrupter.add(&connection);
    connection.pragma_update(None, "foreign_keys", false).map_err(on_error)?;
    if first_new(&all, &applied(&connection).map_err(on_error)?, source)? == all.len() {
        return Ok(());
    }
    let transaction = Transaction::new(&mut connection, TransactionBehavior::Immediate).map_err(on_error)?;
    // Read again under the write lock: another process may have been faster.
    let new = &all[first_new(&all, &applied(&transaction).map_err(on_error)?, source)?..];
    for migration in new {
        run(&transaction, migration, &config.path)?;
    }
    if let Some(last) = new.last() {
        check_references(&transaction, last, &config.path)?;
        check(&transaction).map_err(|error| rolled_back(error, new))?;
    }
    interrupter.check(&config.path)?;
    transaction.commit().map_err(on_error)?;
    for migration in new {
        let (path, migration) = (config.path.display(), migration.name());
        log::info!(
            event = "migration.applied", database:% = path, migration:% = migration;
            "database {path}: applied migration {migration}"
        );
    }
    Ok(())
}

fn connect(config: &DatabaseConfig, access: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(&config.path, flags)?;
    if config.checkpoint == Checkpoints::External {
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    }
    connection.busy_timeout(config.busy_timeout)?;
    // Making an index of a large table may need more space than there is memory.
    use_files_if_possible(&connection)?;
    names_only(&connection)?;
    Ok(connection)
}

fn run(transaction: &Transaction<'_>, migration: &Migration, database: &Path) -> Result<(), Error> {
    if let Some(line) = migration.down_section() {
        let detail = "here begins a part that undoes the migration, and catchment runs the whole text";
        return Err(refused(&migration.path, Some(line), detail, None).with_remedy("take that part out"));
    }
    let ran = ScriptRunner::on(transaction).map_err(|e| database_error(database, e))?.run(&migration.text);
    ran.map_err(|error| script_error(transaction, migration, error, database))?;
    let sql = "INSERT INTO catchment_migrations(number, name, checksum, applied_us) VALUES (?, ?, ?, ?)";
    let row = params![migration.number, migration.name(), migration.checksum(), now_us()];
    transaction.execute(sql, row).map_err(|e| database_error(database, e))?;
    Ok(())
}

/// The library's error: the script is wrong, or the database has a problem.
fn script_error(connection: &Connection, migration: &Migration, error: ScriptError, database: &Path) -> Error {
    let ScriptError { line, kind } = error;
    match kind {
        ScriptErrorKind::Violation(Violation { detail, remedy }) => {
            let error = refused(&migration.path, Some(line), detail, None);
            match remedy {
                Some(remedy) => error.with_remedy(remedy),
                None => error,
            }
        }
        ScriptErrorKind::Sqlite(error) => match fault(&error) {
            DatabaseFault::Other if error.sqlite_error_code() != Some(ErrorCode::SystemIoFailure) => {
                let meant = suggestion(connection, &migration.text, &error);
                let remedy = if meant.is_empty() {
                    "correct it; no new migration was applied"
                } else {
                    "no new migration was applied"
                };
                refused(&migration.path, Some(line), message(&error) + &meant, Some(error.into())).with_remedy(remedy)
            }
            _ => database_error(database, error),
        },
    }
}

/// Checks that every foreign key refers to a row: they were off.
fn check_references(transaction: &Transaction<'_>, last: &Migration, database: &Path) -> Result<(), Error> {
    let on_error = |e: rusqlite::Error| {
        if is_transient(&e) {
            return database_error(database, e);
        }
        let detail = format!("after it, foreign keys cannot be checked: {}", message(&e));
        refused(&last.path, None, detail, Some(e.into())).with_remedy(CORRECT)
    };
    let mut check = transaction.prepare("PRAGMA foreign_key_check").map_err(on_error)?;
    let mut rows = check.query([]).map_err(on_error)?;
    let Some(row) = rows.next().map_err(on_error)? else { return Ok(()) };
    let read = || Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, String>(2)?));
    let (table, row, parent) = read().map_err(on_error)?;
    let row = row.map_or_else(|| "a row".into(), |row| format!("row {row}"));
    let detail = format!("after it, {row} of {table} refers to a row of {parent} that does not exist");
    Err(refused(&last.path, None, detail, None).with_remedy(CORRECT))
}

/// The error for a route or query that does not match the migrated tables: its remedy also names the migrations.
fn rolled_back(error: Error, new: &[Migration]) -> Error {
    let which = match new {
        [] => return error,
        [one] => format!("migration {}, which was not applied", one.name()),
        [first, .., last] => format!("migrations {} to {}, which were not applied", first.name(), last.name()),
    };
    match error {
        Error::Database { fault: DatabaseFault::Statement | DatabaseFault::Schema, ref remedy, .. } => {
            let known = remedy.as_ref().map_or(String::new(), |remedy| format!("{remedy}; "));
            let remedy = format!("{known}change the statement, or the new {which}");
            error.with_remedy(remedy)
        }
        other => other,
    }
}

/// The migrations that were applied to this database, in order.
fn applied(connection: &Connection) -> rusqlite::Result<Vec<Applied>> {
    let exists = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'catchment_migrations'";
    if connection.query_row(exists, [], |row| row.get::<_, i64>(0))? == 0 {
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

/// The index of the first migration that was not applied. Those that were applied must be unchanged and come before all others.
fn first_new(all: &[Migration], applied: &[Applied], source: &Migrations) -> Result<usize, Error> {
    for applied in applied {
        match all.iter().find(|migration| migration.number == applied.number) {
            None => {
                let detail = format!("is missing, but was applied at {}", applied.when);
                let path = match source {
                    Migrations::Folder(folder) => folder.join(&applied.name),
                    Migrations::Scripts(_) => PathBuf::from(&applied.name),
                };
                let error = refused(&path, None, detail, None);
                return Err(error.with_remedy("restore it unchanged"));
            }
            Some(changed) if !changed.has_checksum(&applied.checksum) => {
                let detail = format!("was changed after it was applied at {}", applied.when);
                let error = refused(&changed.path, None, detail, None);
                return Err(error.with_remedy("restore it unchanged, and write the change as a new migration"));
            }
            Some(_) => {}
        }
    }
    let is_applied = |migration: &Migration| applied.iter().any(|applied| applied.number == migration.number);
    match (all[..applied.len()].iter().find(|migration| !is_applied(migration)), applied.last()) {
        (Some(late), Some(last)) => {
            let detail = format!("comes before {}, which is applied already", last.name);
            Err(refused(&late.path, None, detail, None).with_remedy("give it a number above that"))
        }
        _ => Ok(applied.len()),
    }
}

#[cfg(test)]
mod tests;
