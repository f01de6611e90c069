//! A payload as a tree, with the fields of an object in their order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

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

/// Objects deeper than this are taken as if they had no fields: nobody makes columns of them.
const DEEPEST: usize = 32;

impl Document {
    /// Reads JSON. `None` if it is none.
    pub fn read(json: &[u8]) -> Option<Self> {
        Self::of(serde_json::from_slice(json).ok()?, DEEPEST)
    }

    fn of(value: &RawValue, depth: usize) -> Option<Self> {
        let json = value.get();
        let scalar = |kind, text: String| Some(Self::Scalar { kind, text });
        match json.as_bytes().first()? {
            b'n' => Some(Self::Null),
            b't' | b'f' => scalar(Kind::Boolean, json.into()),
            b'[' => Some(Self::Array),
            b'{' if depth == 0 => Some(Self::Object(Vec::new())),
            b'{' => {
                let Members(members) = serde_json::from_str(json).ok()?;
                let fields = members.into_iter().map(|(name, value)| Some((name, Self::of(value, depth - 1)?)));
                fields.collect::<Option<_>>().map(Self::Object)
            }
            // Without escapes that are not needed.
            b'"' => scalar(Kind::Text, serde_json::to_string(&serde_json::from_str::<String>(json).ok()?).ok()?),
            _ => scalar(kind_of_number(json), json.into()),
        }
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

/// The type as which a route binds a number.
fn kind_of_number(number: &str) -> Kind {
    let is_whole = number.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
    let fits = if is_whole { number.parse::<i64>().is_ok() } else { number.parse::<f64>().is_ok_and(f64::is_finite) };
    match (fits, is_whole) {
        (false, _) => Kind::Text,
        (true, true) => Kind::Integer,
        (true, false) => Kind::Real,
    }
}

/// The members of an object, in their order.
struct Members<'de>(Vec<(String, &'de RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members<'de>, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = members.next_entry()? {
            all.push(member);
        }
        Ok(Members(all))
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

    #[test]
    fn values_have_the_type_as_which_a_route_binds_them() {
        for (json, kind) in [
            ("-0", Kind::Integer),
            ("9223372036854775807", Kind::Integer),
            ("9223372036854775808", Kind::Text),
            ("123456789012345678901234567890", Kind::Text),
            ("1e999", Kind::Text),
            ("1E2", Kind::Real),
            ("-1.5", Kind::Real),
        ] {
            assert_eq!(Document::read(json.as_bytes()), Some(Document::Scalar { kind, text: json.into() }));
        }
        let deep = "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000);
        assert_eq!(Document::read(deep.as_bytes()).and_then(|document| document.kind()), Some(Kind::Object));
    }
}
