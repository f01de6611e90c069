//! A row of a reply.

use data_encoding::BASE64;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::store::Value;

/// A row of a reply: its columns in their order.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) names: Vec<String>,
    pub(super) values: Vec<Value>,
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowVisitor;
        impl<'de> Visitor<'de> for RowVisitor {
            type Value = Row;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut row = Row { names: Vec::new(), values: Vec::new() };
                while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
                    row.names.push(name);
                    row.values.push(column(value));
                }
                Ok(row)
            }
        }
        deserializer.deserialize_map(RowVisitor)
    }
}

/// The value that SQLite had in this column.
fn column(value: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let blob = value.get("$blob").and_then(Json::as_str).and_then(|text| BASE64.decode(text.as_bytes()).ok());
    match (value, blob) {
        (_, Some(bytes)) => Value::Blob(bytes),
        (Json::Null, None) => Value::Null,
        (Json::String(text), None) => Value::Text(text),
        (Json::Number(number), None) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Value::Integer(value),
            (None, Some(value)) => Value::Real(value),
            (None, None) => Value::Text(number.to_string()),
        },
        (other, None) => Value::Text(other.to_string()),
    }
}
