//! Compares a row of table `events` with its message.

use rusqlite::Connection;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use crate::pipeline::Delivery;
use crate::store::columns::{event_headers_json, text_or_blob};

/// What differs between a row of table `events` and its message; `None` if nothing does, or the row is gone.
pub(super) fn difference(sqlite: &Connection, id: i64, delivery: &Delivery<'_>) -> rusqlite::Result<Option<String>> {
    let mut select = sqlite.prepare_cached("SELECT subject, headers, payload FROM events WHERE id = ?")?;
    let mut rows = select.query([id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let mut parts = Vec::new();
    if row.get_ref(0)?.as_str().ok() != Some(delivery.subject) {
        parts.push("subject");
    }
    let expected = event_headers_json(delivery.headers);
    // Read raw, a subject with U+FFFD is ambiguous, and its headers are not read. The row shows that the collector could read them.
    let is_raw = delivery.defect.is_some();
    let are_same = match (row.get_ref(1)?, &expected) {
        (ValueRef::Null, None) => true,
        (ValueRef::Text(found), Some(expected)) => {
            found == expected.as_bytes() || json(found).is_some_and(|found| Some(found) == json(expected.as_bytes()))
        }
        _ => false,
    };
    if !are_same && !is_raw {
        parts.push("headers");
    }
    let payload = text_or_blob(delivery.payload);
    let is_same = match payload.to_sql()? {
        ToSqlOutput::Borrowed(expected) => row.get_ref(2)? == expected,
        _ => false,
    };
    if !is_same {
        parts.push("payload");
    }
    Ok((!parts.is_empty()).then(|| parts.join(", ")))
}

fn json(text: &[u8]) -> Option<serde_json::Value> {
    serde_json::from_slice(text).ok()
}
