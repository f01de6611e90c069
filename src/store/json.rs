//! Rows as JSON: the output of `catchment sql --json` and the answers of queries.
//!
//! Integers are exact. A blob is `{"$blob":"<base64>"}`, an infinity is null. Names are made unique: the second `id` of a join
//! becomes `id_2`.

use data_encoding::BASE64;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::binding::Value;

/// A value that serializes as JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json<'a>(pub Value<'a>);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Integer(value) => serializer.serialize_i64(value),
            // An infinite value is serialized as null.
            Value::Real(value) => serializer.serialize_f64(value),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Blob(bytes) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("$blob", &BASE64.encode(bytes))?;
                map.end()
            }
        }
    }
}

/// The same without a loss: an infinity is `{"$real":"inf"}` or `{"$real":"-inf"}`.
#[derive(Clone, Copy, Debug)]
pub struct LosslessJson<'a>(pub Value<'a>);

impl Serialize for LosslessJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Real(value) if value.is_infinite() => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("$real", if value > 0.0 { "inf" } else { "-inf" })?;
                map.end()
            }
            value => Json(value).serialize(serializer),
        }
    }
}

/// Writes rows with the same columns as JSON objects, columns in order.
#[derive(Debug)]
pub struct JsonRowWriter {
    /// The text before each value: a bracket or comma, the name and a colon.
    keys: Vec<Vec<u8>>,
}

impl JsonRowWriter {
    /// A writer for rows with these columns.
    pub fn new<'n>(columns: impl IntoIterator<Item = &'n str>) -> Self {
        let mut keys = Vec::new();
        for name in unique_names(columns) {
            let mut key = if keys.is_empty() { b"{".to_vec() } else { b",".to_vec() };
            write(&mut key, &name);
            key.push(b':');
            keys.push(key);
        }
        Self { keys }
    }

    /// Appends a row, given a value for each column.
    pub fn write(&self, row: impl IntoIterator<Item = impl Serialize>, to: &mut Vec<u8>) {
        for (key, value) in self.keys.iter().zip(row) {
            to.extend_from_slice(key);
            write(to, &value);
        }
        to.extend_from_slice(if self.keys.is_empty() { b"{}" } else { b"}" });
    }
}

fn write(to: &mut Vec<u8>, value: &impl Serialize) {
    // Writing into memory cannot fail, and every value of a row can be serialized.
    let _ = serde_json::to_writer(to, value);
}

fn unique_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        let numbered = (2..).map(|number| format!("{name}_{number}"));
        let free = std::iter::once(name.to_owned()).chain(numbered).find(|name| !unique.contains(name));
        unique.extend(free);
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: Value<'_>) -> String {
        serde_json::to_string(&Json(value)).expect("JSON")
    }

    #[test]
    fn values_keep_their_type_and_every_digit() {
        assert_eq!(json(Value::Integer(i64::MIN)), i64::MIN.to_string());
        assert_eq!(json(Value::Real(1.0)), "1.0");
        assert_eq!(json(Value::Real(f64::NEG_INFINITY)), "null");
        let lossless = |value| serde_json::to_string(&LosslessJson(Value::Real(value))).expect("JSON");
        assert_eq!(lossless(f64::NEG_INFINITY), r#"{"$real":"-inf"}"#);
        assert_eq!(lossless(f64::INFINITY), r#"{"$real":"inf"}"#);
        assert_eq!(lossless(0.5), "0.5");
        assert_eq!(json(Value::Text("\u{1b}\"ü\u{2028}")), "\"\\u001b\\\"ü\u{2028}\"");
        assert_eq!(json(Value::Blob(b"hi\xff")), r#"{"$blob":"aGn/"}"#);
    }

    #[test]
    fn rows_are_objects_with_unique_names() {
        let writer = JsonRowWriter::new(["b", "a\"", "b"]);
        let mut to = b"[".to_vec();
        writer.write([Value::Integer(1), Value::Null, Value::Text("x,\ny")].map(Json), &mut to);
        assert_eq!(String::from_utf8(to).expect("UTF-8"), "[{\"b\":1,\"a\\\"\":null,\"b_2\":\"x,\\ny\"}");
        assert_eq!(unique_names(["a", "a_2", "a"]), ["a", "a_2", "a_3"]);
        let mut to = Vec::new();
        JsonRowWriter::new([]).write([0; 0], &mut to);
        assert_eq!(to, b"{}");
    }
}
