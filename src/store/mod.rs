//! All that speaks SQLite.
//!
//! A batch's rows and the ledger's new position are one transaction. Connections come from a pool; one that failed in a
//! way that leaves it in doubt is dropped and the ledger is read anew before anything is tried again.

mod changes;
mod columns;
mod database;
mod database_file;
mod dead_letters;
mod editor;
mod file_identity;
#[cfg(test)]
mod fixture;
mod inspection;
mod json;
mod ledger;
mod limits;
mod lock;
pub mod migrations;
mod pool;
mod queries;
mod reader;
mod routes;
mod schema;
mod schema_copy;
mod single;
mod sqlite_error;
mod temp_store;
mod writer;

pub use changes::{Changed, changes};
pub use database::Database;
pub use dead_letters::{DeadLetter, DeadLetters, Letters, Retried, Selection, UnreadableHeaders};
pub use editor::Editor;
pub use file_identity::{Adopted, Before, Home, adopt};
pub use inspection::Inspection;
pub use json::{Json, Objects};
pub use lock::Lock;
pub use queries::{Answerer, Breaker, Queries, Unanswered};
pub use reader::{Answer, EventRow, Reader, Value};
pub use routes::Routes;
pub use schema_copy::copy_schema;
pub use single::{Kept, Single};
pub use writer::Writer;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The version of SQLite that is built in: `3.53.2`.
#[must_use]
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// A file beside the database: the name of the file that the path leads to, symbolic links followed, and `.extension` behind
/// it.
#[must_use]
pub fn beside(database: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(database_file::followed(database));
    name.push(".");
    name.push(extension);
    name.into()
}
