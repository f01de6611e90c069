//! A dead letter, as it is read.

use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::store::reader::{Value, value};

/// An event that could not be stored, and why.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its number, never used for another one.
    pub id: i64,
    /// When it was last tried in vain, in microseconds since 1970.
    pub recorded_us: i64,
    /// Publish time in microseconds since 1970.
    pub published_us: i64,
    /// The stream it came from, if it came from one.
    pub stream: Option<String>,
    /// Which life of that stream.
    pub epoch: Option<u32>,
    /// Its place there.
    pub sequence: Option<u64>,
    /// The event's subject.
    pub subject: String,
    /// The headers as JSON: a name's value as a string, several values of one name as an array of strings.
    pub headers: Option<String>,
    /// The header block as it came, where it could not be read.
    pub raw_headers: Option<Vec<u8>>,
    /// Text or a blob.
    pub payload: Value,
    /// The route that took it, where one did.
    pub route: Option<String>,
    /// The statement that failed, where one did.
    pub statement: Option<String>,
    /// What was wrong.
    pub error: String,
}

/// What [`DeadLetter::read`] reads, in its order.
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

    /// Bytes that it takes in memory, about.
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
