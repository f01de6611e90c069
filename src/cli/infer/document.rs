//! A payload as a tree, with the fields of an object in their order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value. What is in an array is not kept.
#[derive(Debug, PartialEq)]
pub enum Document {
    Null,
    Scalar {
        kind: Kind,
        /// As JSON.
        text: String,
    },
    Array,
    Object(Vec<(String, Document)>),
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Boolean,
    Integer,
    Real,
    Text,
    Array,
    Object,
}

impl Kind {
    /// Its name in the words of JSON and SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Text => "text",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

impl Document {
    /// Reads JSON. `None` if it is none.
    pub fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// Its type; `None` for null.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Null => None,
            Self::Scalar { kind, .. } => Some(*kind),
            Self::Array => Some(Kind::Array),
            Self::Object(_) => Some(Kind::Object),
        }
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
        Ok(Document::Scalar { kind: Kind::Boolean, text: value.to_string() })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
        Ok(Document::Scalar { kind: Kind::Integer, text: value.to_string() })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
        Ok(Document::Scalar { kind: Kind::Integer, text: value.to_string() })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Document, E> {
        Ok(Document::Scalar { kind: Kind::Real, text: format!("{value:?}") })
    }

    fn visit_str<E>(self, text: &str) -> Result<Document, E> {
        Ok(Document::Scalar { kind: Kind::Text, text: serde_json::to_string(text).unwrap_or_default() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Document, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Document::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Document, A::Error> {
        let mut object: Vec<(String, Document)> = Vec::new();
        while let Some((name, value)) = fields.next_entry::<String, Document>()? {
            object.push((name, value));
        }
        Ok(Document::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_types() {
        let read =
            Document::read(br#"{"b": 1, "a": {"x": 1.0, "y": [1, {"z": 2}]}, "c": null, "d": "\u001b", "e": true}"#);
        let Some(Document::Object(fields)) = read else { panic!("an object") };
        let kinds: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.kind())).collect();
        let expected = [
            ("b", Some(Kind::Integer)),
            ("a", Some(Kind::Object)),
            ("c", None),
            ("d", Some(Kind::Text)),
            ("e", Some(Kind::Boolean)),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(fields[3].1, Document::Scalar { kind: Kind::Text, text: "\"\\u001b\"".into() });
        assert_eq!((Document::read(b"no"), Document::read(b"[1] 2")), (None, None));
    }
}
