//! A dead letter as it is read.

use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::store::reader::{Value, value};

/// An event that could not be stored, and why. It has everything that a retry needs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its number. It is never used for another letter of this database.
    pub id: i64,
    /// When it last failed, in microseconds since 1970.
    pub recorded_us: i64,
    /// Publish time in microseconds since 1970.
    pub published_us: i64,
    /// The stream that it came from; `None` for an event without a stream.
    pub stream: Option<String>,
    /// The epoch of that stream: 1, and one more each time the stream was deleted and created again, or went back to an earlier
    /// state.
    pub epoch: Option<u32>,
    /// Its sequence number in that stream.
    pub sequence: Option<u64>,
    /// The event's subject.
    pub subject: String,
    /// The headers as a JSON object: a name's value is a string, several values of one name are an array of strings. `None` if
    /// there are no headers, or if they could not be read.
    pub headers: Option<String>,
    /// The header block as it was received, if it could not be read.
    pub raw_headers: Option<Vec<u8>>,
    /// The payload: text if it is UTF-8, else a blob.
    pub payload: Value,
    /// The name of the route that matched, if one did.
    pub route: Option<String>,
    /// The SQL of the statement that failed, if one did; `COMMIT` for a constraint that is checked only there.
    pub statement: Option<String>,
    /// The error, in one line.
    pub error: String,
}

/// The columns that [`DeadLetter::read`] reads, in its order.
pub(super) const COLUMNS: &str =
    "id, subject, recorded_us, published_us, stream, epoch, sequence, headers, payload, route, statement, error";

impl DeadLetter {
    /// A row of [`COLUMNS`].
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (headers, raw_headers) = match row.get_ref(7)? {
            ValueRef::Blob(raw) => (None, Some(raw.to_owned())),
            ValueRef::Text(json) => (Some(String::from_utf8_lossy(json).into_owned()), None),
            _ => (None, None),
        };
        Ok(Self {
            id: row.get(0)?,
            subject: row.get(1)?,
            recorded_us: row.get(2)?,
            published_us: row.get(3)?,
            stream: row.get(4)?,
            epoch: row.get(5)?,
            sequence: row.get(6)?,
            headers,
            raw_headers,
            payload: value(row, 8)?,
            route: row.get(9)?,
            statement: row.get(10)?,
            error: row.get(11)?,
        })
    }

    /// The approximate size in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        let payload = match &self.payload {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            _ => 0,
        };
        let headers = self.headers.as_ref().map_or(0, String::len) + self.raw_headers.as_ref().map_or(0, Vec::len);
        200 + payload + headers + self.subject.len() + self.error.len()
    }
}
