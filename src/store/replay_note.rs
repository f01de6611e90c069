//! What a replay notes in the database that it fills: which stream, from where, and with which routes. So the same command continues,
//! and another one does not mix its rows with these.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::meta;
use super::read_connection::ReadConnection;
use super::sqlite_error::database_error;
use super::{Database, ledger, schema};
use crate::config::{DeleteMarkers, RouteConfig, Unmatched};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Epoch, Mark};

/// The key of the note in `catchment_meta`.
const KEY: &str = "replay";

/// What a replay notes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayNote {
    /// The stream.
    pub stream: String,
    /// When the stream was created, as the server writes it.
    pub created: String,
    /// Where the replay begins, as it was asked for: `all`, `sequence 7`, `a time`.
    pub start: String,
    /// The first sequence that it reads.
    pub first: u64,
    /// Identifies the routes.
    pub routes: String,
}

/// A text that is the same for the same routes.
#[must_use]
pub fn routes_checksum(routes: &[RouteConfig], unmatched: Unmatched, delete_markers: DeleteMarkers) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{unmatched:?} {delete_markers:?}"));
    for route in routes {
        let RouteConfig { subject, sql, bind, codec, max_steps, delete_markers, .. } = route;
        digest.update(format!(
            "{:?} {subject:?} {sql:?} {bind:?} {codec:?} {max_steps} {delete_markers:?}",
            route.name()
        ));
    }
    data_encoding::HEXLOWER.encode(&digest.finalize())[..16].to_owned()
}

impl ReplayNote {
    /// The note in a database; `None` if a replay may begin in it: there is no file, it is empty, or nothing was ever stored in it. Changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: it is a database that no replay has made.
    pub fn of(path: &Path) -> Result<Option<Self>, Error> {
        if std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
            return Ok(None);
        }
        let connection = ReadConnection::open(path)?;
        let (note, is_free) = connection.read(|sqlite| match schema::identity(sqlite)? {
            Some(_) => Ok((read(sqlite)?, nothing_stored(sqlite)?)),
            None => Ok((None, schema::tables(sqlite)?.is_empty())),
        })?;
        if note.is_some() || is_free {
            return Ok(note);
        }
        let (fault, detail) = (DatabaseFault::Conflict, "it is a database that no replay has made".to_owned());
        let error = Error::database(fault, path, detail);
        Err(error.with_remedy("name a new file, or remove this one"))
    }
}

/// Whether neither events nor dead letters were ever stored.
fn nothing_stored(connection: &Connection) -> rusqlite::Result<bool> {
    let is_empty = |table: &str| {
        let found = connection.query_row(&format!("SELECT 1 FROM {table} LIMIT 1"), [], |_| Ok(())).optional();
        found.map(|found| found.is_none())
    };
    Ok(is_empty("catchment_ledger")? && is_empty("catchment_dead_letters")? && is_empty("events")?)
}

/// The note of a database with catchment's tables.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Option<ReplayNote>> {
    let found: Option<String> = meta::get(connection, KEY)?;
    Ok(found.and_then(|note| serde_json::from_str(&note).ok()))
}

impl Database {
    /// Begins a replay: notes it, and sets the ledger to this mark, so that the first event comes after it. Both in one transaction.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when it cannot be written.
    pub fn begin_replay(&self, note: &ReplayNote, before: Mark) -> Result<(), Error> {
        let mut connection = self.connect()?;
        let begin = |sqlite: &mut Connection| -> rusqlite::Result<()> {
            let transaction = sqlite.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let text = serde_json::to_string(note).unwrap_or_default();
            meta::set(&transaction, KEY, text)?;
            if before != Mark::START {
                ledger::advance(&transaction, &Epoch::new(&note.stream, 1, &note.created), Mark::START, before)?;
            }
            transaction.commit()
        };
        begin(&mut connection.sqlite).map_err(|e| database_error(self.file().path(), e))
    }
}
