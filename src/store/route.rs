//! Which statements an event runs.
//!
//! For now there is one route, the default one: everything goes to table `events`.

use rusqlite::{CachedStatement, Connection, params};

use super::columns::{headers_json, micros, text_or_blob};
use super::dead_letters::Reason;
use crate::pipeline::{Delivery, Epoch};

const DEFAULT_ROUTE: &str = "events";
const INSERT_EVENT: &str =
    "INSERT INTO events(subject, stream, sequence, published_us, headers, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// The routes' statements, prepared on one connection for the length of a transaction.
pub(super) struct Routes<'c> {
    insert_event: CachedStatement<'c>,
}

impl<'c> Routes<'c> {
    /// Prepares all statements.
    ///
    /// # Errors
    ///
    /// SQLite's, naming the table or column that is missing.
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self { insert_event: connection.prepare_cached(INSERT_EVENT)? })
    }

    /// Runs the statements of the route that takes this delivery.
    pub(super) fn apply(&mut self, epoch: Option<&Epoch>, delivery: &Delivery<'_>) -> rusqlite::Result<()> {
        let origin = epoch.and_then(Epoch::origin);
        self.insert_event.execute(params![
            delivery.subject,
            origin,
            origin.map(|_| delivery.mark.sequence),
            micros(delivery.mark),
            headers_json(delivery.headers),
            text_or_blob(delivery.payload),
        ])?;
        Ok(())
    }

    /// What a dead letter says of the route it failed in.
    pub(super) fn reason(error: &rusqlite::Error) -> Reason {
        Reason { route: Some(DEFAULT_ROUTE), statement: Some(INSERT_EVENT), error: super::failure::detail(error) }
    }
}
