//! Turns the parts of a delivery into values of columns.

use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::binding::Value;
use crate::event_id;
use crate::pipeline::{Headers, Mark};

/// A payload: text where it is UTF-8, else a blob.
pub(super) fn text_or_blob(bytes: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match simdutf8::basic::from_utf8(bytes) {
        Ok(_) => ValueRef::Text(bytes),
        Err(_) => ValueRef::Blob(bytes),
    })
}

/// A parameter's value.
pub(super) fn bound(value: Value<'_>) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match value {
        Value::Null => ValueRef::Null,
        Value::Integer(value) => ValueRef::Integer(value),
        Value::Real(value) => ValueRef::Real(value),
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
        Value::Blob(bytes) => ValueRef::Blob(bytes),
    })
}

/// The headers of an event for table `events`, as [`headers_json`], without those that only serve to recognise a repetition.
pub(super) fn event_headers_json(headers: Headers<'_>) -> Option<String> {
    json(headers.iter().filter(|(name, value)| !event_id::is_generated(name, value)))
}

/// Headers as a JSON object, names in the order of their first occurrence. A name's value is a string, several values of one name
/// are an array of strings. `None` if there are no headers.
pub(super) fn headers_json(headers: Headers<'_>) -> Option<String> {
    json(headers.iter())
}

fn json<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>) -> Option<String> {
    let mut pairs: Vec<(usize, (&str, &str))> = headers.enumerate().collect();
    if pairs.is_empty() {
        return None;
    }
    pairs.sort_by_key(|(_, (name, _))| *name);
    let mut names: Vec<_> = pairs.chunk_by(|(_, (one, _)), (_, (other, _))| one == other).collect();
    names.sort_by_key(|same| same[0].0);
    let mut json = String::with_capacity(64);
    for same in names {
        json.push(if json.is_empty() { '{' } else { ',' });
        push_string(&mut json, same[0].1.0);
        json.push(':');
        match same {
            [(_, (_, value))] => push_string(&mut json, value),
            several => {
                for (at, (_, (_, value))) in several.iter().enumerate() {
                    json.push(if at == 0 { '[' } else { ',' });
                    push_string(&mut json, value);
                }
                json.push(']');
            }
        }
    }
    json.push('}');
    Some(json)
}

fn push_string(json: &mut String, text: &str) {
    // A short cut: most events have a header, and most values are plain ASCII.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        json.push('"');
        json.push_str(text);
        json.push('"');
        return;
    }
    // Serializing a string cannot fail.
    json.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// Publish time in microseconds since 1970.
pub(super) fn micros(mark: Mark) -> i64 {
    mark.published_ns.div_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Batch, Limits};

    #[test]
    fn headers_are_an_object_that_json_functions_read() {
        let mut batch = Batch::new(Limits { events: 9, bytes: 9 });
        batch.push(Mark::START, "a", [("b", "1"), ("a", "say \"hi\"\u{1}"), ("b", "2")], b"");
        let json = headers_json(batch.delivery(0).headers).expect("there are some");
        assert_eq!(json, r#"{"b":["1","2"],"a":"say \"hi\"\u0001"}"#);
        batch.push(Mark::START, "a", [], b"");
        assert_eq!(headers_json(batch.delivery(1).headers), None);
    }

    #[test]
    fn a_generated_identity_is_stored_with_dead_letters_only() {
        let id = "catchment-abcdefghijklmnopq234-17";
        let both = |headers: &[(&str, &str)]| {
            let mut batch = Batch::new(Limits { events: 9, bytes: 9 });
            batch.push(Mark::START, "a", headers.iter().copied(), b"");
            let headers = batch.delivery(0).headers;
            (event_headers_json(headers), headers_json(headers).expect("there are some"))
        };
        let whole = format!(r#"{{"Nats-Msg-Id":"{id}"}}"#);
        assert_eq!(both(&[("Nats-Msg-Id", id)]), (None, whole));
        let (stored, whole) = both(&[("A", "1"), ("Nats-Msg-Id", id), ("Catchment-Event", "r-17")]);
        assert_eq!((stored.as_deref(), whole.contains(id), whole.contains("r-17")), (Some(r#"{"A":"1"}"#), true, true));
        let given = r#"{"Nats-Msg-Id":"order-17"}"#.to_owned();
        assert_eq!(both(&[("Nats-Msg-Id", "order-17")]), (Some(given.clone()), given));
    }
}
