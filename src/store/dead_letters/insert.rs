//! Inserts an event as a dead letter.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use crate::pipeline::{Delivery, Epoch};
use crate::store::columns::{headers_json, micros, text_or_blob};
use crate::unix_time::now_us;

/// Why an event could not be stored, and where it failed.
#[derive(Clone, Debug)]
pub struct DeadLetterReason {
    /// The route that matched, if one did.
    pub route: Option<Arc<str>>,
    /// The SQL of the statement that failed, if one did.
    pub statement: Option<Arc<str>>,
    /// What was wrong.
    pub error: String,
}

/// Inserts a dead letter in the caller's transaction.
pub(in crate::store) fn insert(
    connection: &Connection,
    epoch: Option<&Epoch>,
    delivery: &Delivery<'_>,
    reason: &DeadLetterReason,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO catchment_dead_letters(
                   stream, epoch, sequence, published_us, subject, headers, payload, route, statement, error, recorded_us
               ) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let epoch = epoch.filter(|epoch| epoch.origin().is_some());
    let json = headers_json(delivery.headers);
    let headers = match delivery.defect {
        Some(defect) => ValueRef::Blob(defect.raw_headers),
        None => json.as_ref().map_or(ValueRef::Null, |json| ValueRef::Text(json.as_bytes())),
    };
    connection.prepare_cached(sql)?.execute(params![
        epoch.and_then(Epoch::origin),
        epoch.map(|epoch| epoch.number),
        epoch.map(|_| delivery.mark.sequence),
        micros(delivery.mark),
        delivery.subject,
        rusqlite::types::ToSqlOutput::Borrowed(headers),
        text_or_blob(delivery.payload),
        reason.route.as_deref(),
        reason.statement.as_deref(),
        reason.error,
        now_us(),
    ])?;
    Ok(())
}
