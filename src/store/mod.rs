//! Everything that uses SQLite.
//!
//! A batch's rows and the ledger's new position are one transaction. Connections come from a pool. After an error that leaves
//! its state unclear, a connection is dropped, and the ledger is read again before the next attempt.

mod changes;
mod checkpointer;
mod columns;
mod database;
mod database_file;
mod dead_letters;
mod editor;
mod event_writer;
mod file_identity;
#[cfg(test)]
mod fixture;
mod inspection;
mod interrupter;
mod json;
mod ledger;
mod limits;
mod lock;
mod lock_holder;
pub mod migrations;
mod new_database;
mod observation;
mod outbox;
mod pool;
mod precheck;
mod queries;
mod read_connection;
mod read_only;
mod reader;
mod reload_note;
mod repetitions;
mod route_switch;
mod routes;
mod row_filter;
mod schema;
mod schema_copy;
mod spool;
mod sqlite_error;
mod stored_event;
mod suggestion;
mod temp_store;
mod wal_frames;
mod writer;

pub use changes::{TableChange, changes};
pub use database::Database;
pub use database_file::DatabaseFile;
pub use dead_letters::{DeadLetter, DeadLetterIter, DeadLetters, RetryReport, Selection, UnreadableHeaders};
pub use editor::Editor;
pub use event_writer::{EventOutcome, EventWriter};
pub use file_identity::{FileIdentity, IdentityChange, PreviousFile, adopt};
pub use inspection::Inspection;
pub use json::{Json, JsonRowWriter};
pub use lock::{Lock, StartPhase};
pub use lock_holder::LockHolder;
pub use observation::{FileSizes, Observation};
pub use outbox::{Outbox, OutboxOptions, OutboxStatus};
pub use queries::{Interrupter, Queries, QueryError, QueryErrorKind, QueryRunner};
pub use reader::{EventRow, Reader, RowTable, StatementOutput, Value};
pub use reload_note::ReloadNote;
pub use route_switch::{CheckedRoutes, ConfirmationsTo, RouteSwitch};
pub use routes::Routes;
pub use routes::route_counters::{RouteCounters, RouteStatus};
pub use row_filter::RowFilter;
pub use schema_copy::copy_schema;
pub use spool::{Spool, SpoolChange, SpoolInspection, SpoolLimits, SpoolPart, SpoolReader, SpoolSink, SpoolTotals};
pub use stored_event::StoredEvent;
pub use wal_frames::WalFrames;
pub use writer::Writer;

pub use rusqlite;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The version of SQLite that is built in: `3.53.2`.
#[must_use]
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// A file beside the database: the file that the path leads to, symbolic links followed, with `.extension` appended.
#[must_use]
pub fn beside(database: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(database_file::followed(database));
    name.push(".");
    name.push(extension);
    name.into()
}
