//! How the parts of a delivery look in a column.

use std::collections::BTreeMap;

use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::pipeline::{Headers, Mark};

/// A payload: text where it is UTF-8, else a blob.
pub(super) fn text_or_blob(bytes: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match std::str::from_utf8(bytes) {
        Ok(_) => ValueRef::Text(bytes),
        Err(_) => ValueRef::Blob(bytes),
    })
}

/// Headers as a JSON object: a name's value as a string, several values of one name as an array of strings. `None` where
/// there are none.
pub(super) fn headers_json(headers: Headers<'_>) -> Option<String> {
    if headers.is_empty() {
        return None;
    }
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in headers.iter() {
        values.entry(name).or_default().push(value);
    }
    let one_or_many = |values: Vec<&str>| match values[..] {
        [value] => serde_json::Value::from(value),
        _ => serde_json::Value::from(values),
    };
    let object: serde_json::Map<_, _> =
        values.into_iter().map(|(name, values)| (name.to_owned(), one_or_many(values))).collect();
    Some(serde_json::Value::Object(object).to_string())
}

/// Publish time in microseconds since 1970.
pub(super) fn micros(mark: Mark) -> i64 {
    mark.published_ns.div_euclid(1_000)
}
