//! Reads a spool's events in their order, while others are added.

use rusqlite::{Connection, Row};

use crate::pipeline::Problem;
use crate::store::database_file::DatabaseFile;
use crate::store::pool::ConnectionManager;
use crate::store::sqlite_error::problem;
use crate::store::stored_event::{self, StoredEvent};

/// Reads on a connection of its own.
pub struct SpoolReader {
    file: DatabaseFile,
    manager: ConnectionManager,
    connection: Option<Connection>,
}

impl SpoolReader {
    pub(super) fn new(file: DatabaseFile, manager: ConnectionManager) -> Self {
        Self { file, manager, connection: None }
    }

    /// The events after this position, in order: at most so many, and no more after so many bytes.
    pub fn after(&mut self, position: u64, events: usize, bytes: usize) -> Result<Vec<StoredEvent>, Problem> {
        if self.connection.is_none() {
            if self.file.was_replaced() {
                return Ok(Vec::new());
            }
            self.connection = Some(self.manager.open_plain().map_err(|e| problem(&e))?);
        }
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        read(connection, position, events, bytes).map_err(|error| {
            self.connection = None;
            problem(&error)
        })
    }
}

fn read(connection: &Connection, after: u64, events: usize, bytes: usize) -> rusqlite::Result<Vec<StoredEvent>> {
    let sql = "SELECT position, recorded_us, subject, headers, payload FROM catchment_spool_events
               WHERE position > ? ORDER BY position LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([after, events as u64])?;
    let (mut read, mut size) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let event = stored(row)?;
        size += event.size();
        read.push(event);
        if size >= bytes {
            break;
        }
    }
    Ok(read)
}

/// The event of a row with these columns: position, time, subject, headers, payload.
pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let (position, recorded_us) = (row.get(0)?, row.get(1)?);
    let payload = stored_event::payload(row.get_ref(4)?);
    let headers: Option<String> = row.get(3)?;
    let event = stored_event::event(&row.get::<_, String>(2)?, headers.as_deref(), &payload);
    Ok(StoredEvent { position, recorded_us, event })
}
