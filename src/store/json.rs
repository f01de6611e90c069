//! Rows as JSON: what `catchment sql --json` prints and what queries answer.
//!
//! Integers are exact. A blob is `{"$blob":"<base64>"}`, an infinity null. An object cannot have a name twice: the second
//! `id` of a join becomes `id_2`.

use data_encoding::BASE64;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::binding::Value;

/// A value in JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json<'a>(pub Value<'a>);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Integer(value) => serializer.serialize_i64(value),
            // What is not finite is written as null.
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

/// Writes rows of the same columns as JSON objects, the columns in their order.
#[derive(Debug)]
pub struct Objects {
    /// What stands before each value: a bracket or a comma, and its name.
    keys: Vec<Vec<u8>>,
}

impl Objects {
    /// Objects with these columns.
    pub fn new<'n>(columns: impl IntoIterator<Item = &'n str>) -> Self {
        let mut keys = Vec::new();
        for name in told_apart(columns) {
            let mut key = if keys.is_empty() { b"{".to_vec() } else { b",".to_vec() };
            write(&mut key, &name);
            key.push(b':');
            keys.push(key);
        }
        Self { keys }
    }

    /// Writes a row's values, as many as there are columns, behind what stands there.
    pub fn write(&self, row: impl IntoIterator<Item = impl Serialize>, to: &mut Vec<u8>) {
        for (key, value) in self.keys.iter().zip(row) {
            to.extend_from_slice(key);
            write(to, &value);
        }
        to.extend_from_slice(if self.keys.is_empty() { b"{}" } else { b"}" });
    }
}

fn write(to: &mut Vec<u8>, value: &impl Serialize) {
    // Memory takes everything, and a value of a row is always JSON.
    let _ = serde_json::to_writer(to, value);
}

fn told_apart<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let mut apart: Vec<String> = Vec::new();
    for name in names {
        let numbered = (2..).map(|number| format!("{name}_{number}"));
        let free = std::iter::once(name.to_owned()).chain(numbered).find(|name| !apart.contains(name));
        apart.extend(free);
    }
    apart
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
        assert_eq!(json(Value::Text("\u{1b}\"ü\u{2028}")), "\"\\u001b\\\"ü\u{2028}\"");
        assert_eq!(json(Value::Blob(b"hi\xff")), r#"{"$blob":"aGn/"}"#);
    }

    #[test]
    fn rows_are_objects_whose_names_are_told_apart() {
        let objects = Objects::new(["b", "a\"", "b"]);
        let mut to = b"[".to_vec();
        objects.write([Value::Integer(1), Value::Null, Value::Text("x,\ny")].map(Json), &mut to);
        assert_eq!(String::from_utf8(to).expect("UTF-8"), "[{\"b\":1,\"a\\\"\":null,\"b_2\":\"x,\\ny\"}");
        assert_eq!(told_apart(["a", "a_2", "a"]), ["a", "a_2", "a_3"]);
        let mut to = Vec::new();
        Objects::new([]).write([0; 0], &mut to);
        assert_eq!(to, b"{}");
    }
}
