//! Everything that uses SQLite.
//!
//! A batch's rows and the ledger's new position are one transaction. Connections come from a pool. After an error that leaves
//! its state unclear, a connection is dropped, and the ledger is read again before the next attempt.

mod backup;
mod cell;
mod changes;
mod checkpointer;
mod columns;
mod commit_turn;
mod compact;
mod database;
mod database_file;
mod dead_letters;
mod editor;
pub mod event_line;
mod event_writer;
mod file_identity;
mod file_sizes;
#[cfg(test)]
mod fixture;
mod importer;
mod insert_statement;
mod inspection;
mod interrupter;
mod json;
mod ledger;
mod limits;
mod lock;
mod lock_holder;
mod meta;
pub mod migrations;
mod new_database;
mod observation;
mod optimize;
mod outbox;
mod partition_note;
mod pool;
mod precheck;
mod queries;
mod quick_check;
mod quoted_names;
mod read_connection;
mod read_only;
mod reader;
mod reload_note;
mod repair;
mod repetitions;
mod replay_note;
mod restore;
mod retention;
mod route_switch;
mod routes;
mod row_filter;
mod scheduled_backups;
mod schema;
mod schema_copy;
mod sole_connection;
mod spool;
pub mod sql_tokens;
mod sqlite_error;
mod statement_limit;
mod stored_event;
mod suggestion;
mod swap;
mod swap_loss;
mod temp_store;
mod verification;
mod wal_frames;
mod writer;

pub use backup::{CopyLimits, DatabaseContents, StreamPosition, copy_database, must_be_no_file_of, stream_history};
pub use changes::{TableChange, changes};
pub use compact::{Compacted, compact};
pub use database::Database;
pub use database_file::{DatabaseFile, file_beside, unlinked};
pub use dead_letters::{DeadLetter, DeadLetterIter, DeadLetters, RetryReport, Selection, UnreadableHeaders};
pub use editor::Editor;
pub use event_writer::{EventOutcome, EventWriter};
pub use file_identity::{FileIdentity, IdentityChange, PreviousFile, adopt};
pub use file_sizes::FileSizes;
pub use importer::{ImportCounts, ImportNote, ImportedLine, Importer, LineMarks};
pub use insert_statement::InsertStatement;
pub use inspection::Inspection;
pub use json::{Json, JsonRowWriter, LosslessJson};
pub use lock::{Lock, StartPhase};
pub use lock_holder::LockHolder;
pub use observation::Observation;
pub use optimize::Optimizer;
pub use outbox::{Outbox, OutboxOptions, OutboxStatus};
pub use queries::{Interrupter, Queries, QueryError, QueryErrorKind, QueryRunner};
pub use quick_check::quick_check;
pub use reader::{EventRow, Reader, RowTable, StatementOutput, Value};
pub use reload_note::ReloadNote;
pub use replay_note::{ReplayNote, routes_checksum};
pub use restore::{followed_path, is_of_others, must_not_be_in_use, present, replace_database};
pub use retention::{
    Retention, RetentionFigures, RetentionForecast, RetentionStatus, check_tables as check_retention,
    forecast as forecast_retention,
};
pub use route_switch::{CheckedRoutes, ConfirmationsTo, RouteSwitch};
pub use routes::Routes;
pub use routes::route_counters::{RouteCounters, RouteStatus};
pub use row_filter::RowFilter;
pub use scheduled_backups::ScheduledBackups;
pub use schema_copy::copy_schema;
pub use spool::{
    RetriedLetters, Spool, SpoolChange, SpoolInspection, SpoolLimits, SpoolPart, SpoolReader, SpoolSink, SpoolTotals,
};
pub use stored_event::{FirstRefusal, GivenUp, StoredEvent};
pub use swap::{prepare_swap, swap, undo_interrupted_swap, undo_interrupted_transaction};
pub use swap_loss::lost_by_swap;
pub use verification::{Compared, CountedTable, Verification, VerifyCounts};
pub use wal_frames::WalFrames;
pub use writer::Writer;

pub use rusqlite;

/// The version of SQLite that is built in: `3.53.2`.
#[must_use]
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}
