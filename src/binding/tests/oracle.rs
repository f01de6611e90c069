//! The values of a payload, found in a slow but obviously right way: by crates that read all of it, and by recursion.
//!
//! The fuzz target includes this file too. So of this crate it uses only the tested reader's `Value`, which the module that includes
//! it imports.

use std::fmt;

use rmpv::Value as Packed;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::Value;

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
    /// A text that is JSON with this meaning.
    Json(Json),
}

/// The payload is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused;

/// The difference between the reader's result and the oracle's, if there is one.
pub fn difference(expected: &Result<Vec<Bound>, Refused>, read: &Result<Vec<Bound>, String>) -> Option<String> {
    let agree = match (expected, read) {
        (Ok(expected), Ok(read)) => {
            expected.len() == read.len() && expected.iter().zip(read).all(|(expected, read)| expected.agrees(read))
        }
        (Err(Refused), Err(_)) => true,
        // `rmpv` wrongly reads that byte as nil.
        (Ok(_), Err(reason)) => reason.contains("MessagePack: byte c1"),
        (Err(Refused), Ok(_)) => false,
    };
    if agree { None } else { Some(format!("expected {expected:?}, but read {read:?}")) }
}

/// The JSON Pointer of a path, which is a list of names.
pub fn pointer(place: &[String]) -> String {
    place.iter().flat_map(|name| ["/".to_owned(), name.replace('~', "~0").replace('/', "~1")]).collect()
}

/// A value that the tested reader has read.
impl From<Value<'_>> for Bound {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Integer(value) => Self::Integer(value),
            Value::Real(value) => Self::Real(value),
            Value::Text(text) => Self::Text(text.to_owned()),
            Value::Blob(bytes) => Self::Blob(bytes.to_owned()),
        }
    }
}

impl Bound {
    /// Whether the value of the tested reader is the same.
    fn agrees(&self, read: &Self) -> bool {
        match (self, read) {
            (Self::Json(value), Self::Text(text)) => meaning(text).is_ok_and(|read| read == *value),
            (Self::Real(one), Self::Real(other)) => one.to_bits() == other.to_bits(),
            _ => self == read,
        }
    }
}

fn meaning(json: &str) -> serde_json::Result<Json> {
    let mut reader = serde_json::Deserializer::from_str(json);
    reader.disable_recursion_limit();
    Json::deserialize(&mut reader)
}

/// The value at each of these paths of a JSON payload.
pub fn json(payload: &[u8], places: &[Vec<String>]) -> Result<Vec<Bound>, Refused> {
    let payload = payload.strip_prefix("\u{feff}".as_bytes()).unwrap_or(payload);
    let whole: Box<RawValue> = serde_json::from_slice(payload).map_err(|_| Refused)?;
    places.iter().map(|place| json_at(whole.get(), place)).collect()
}

fn json_at(raw: &str, place: &[String]) -> Result<Bound, Refused> {
    let Some((name, rest)) = place.split_first() else { return json_value(raw) };
    let found = match raw.as_bytes()[0] {
        b'{' => {
            let Fields(fields) = serde_json::from_str(raw).map_err(|_| Refused)?;
            fields.into_iter().find(|(field, _)| field.0 == name.as_bytes()).map(|(_, value)| value)
        }
        b'[' => {
            let mut elements: Vec<Box<RawValue>> = serde_json::from_str(raw).map_err(|_| Refused)?;
            index(name).filter(|at| *at < elements.len()).map(|at| elements.swap_remove(at))
        }
        _ => None,
    };
    found.map_or(Ok(Bound::Null), |found| json_at(found.get(), rest))
}

fn json_value(raw: &str) -> Result<Bound, Refused> {
    Ok(match raw.as_bytes()[0] {
        b'n' => Bound::Null,
        b't' => Bound::Integer(1),
        b'f' => Bound::Integer(0),
        b'"' => Bound::Text(serde_json::from_str(raw).map_err(|_| Refused)?),
        b'{' | b'[' => Bound::Text(raw.to_owned()),
        _ => number(raw).unwrap_or_else(|| Bound::Text(raw.to_owned())),
    })
}

fn number(raw: &str) -> Option<Bound> {
    if raw.contains(['.', 'e', 'E']) {
        return raw.parse().ok().filter(|value: &f64| value.is_finite()).map(Bound::Real);
    }
    raw.parse().ok().map(Bound::Integer)
}

fn index(name: &str) -> Option<usize> {
    name.parse().ok().filter(|index: &usize| index.to_string() == name)
}

/// All fields of an object in their order, also those of one name.
struct Fields(Vec<(Name, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// A name as bytes: a `String` cannot hold half a surrogate pair.
struct Name(Vec<u8>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Name, E> {
                Ok(Name(bytes.to_owned()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Limits the recursion; payloads for the oracle have fewer containers.
const DEEPEST: usize = 10_000;

/// The value at each of these paths of a MessagePack payload.
pub fn messagepack(payload: &[u8], places: &[Vec<String>]) -> Result<Vec<Bound>, Refused> {
    let mut rest = payload;
    let whole = rmpv::decode::read_value_with_max_depth(&mut rest, DEEPEST).map_err(|_| Refused)?;
    if !rest.is_empty() {
        return Err(Refused);
    }
    places.iter().map(|place| packed_value(packed_at(&whole, place)?)).collect()
}

fn packed_at<'v>(value: &'v Packed, place: &[String]) -> Result<&'v Packed, Refused> {
    let Some((name, rest)) = place.split_first() else { return Ok(value) };
    let found = match value {
        Packed::Map(pairs) => {
            let names: Vec<_> = pairs.iter().map(|(key, _)| packed_name(key)).collect::<Result<_, _>>()?;
            names.iter().position(|found| found.as_ref() == Some(name)).map(|at| &pairs[at].1)
        }
        Packed::Array(elements) => index(name).and_then(|at| elements.get(at)),
        _ => None,
    };
    found.map_or(Ok(&Packed::Nil), |found| packed_at(found, rest))
}

/// The name that a key is; `None` for a key that is none.
fn packed_name(key: &Packed) -> Result<Option<String>, Refused> {
    match key {
        Packed::String(name) => name.as_str().map(|name| Some(name.to_owned())).ok_or(Refused),
        Packed::Binary(name) => String::from_utf8(name.clone()).map(Some).map_err(|_| Refused),
        Packed::Integer(number) => Ok(Some(number.to_string())),
        _ => Ok(None),
    }
}

fn packed_value(value: &Packed) -> Result<Bound, Refused> {
    Ok(match value {
        Packed::Nil => Bound::Null,
        Packed::Boolean(value) => Bound::Integer((*value).into()),
        Packed::Integer(number) => number.as_i64().map_or_else(|| Bound::Text(number.to_string()), Bound::Integer),
        Packed::F32(value) if value.is_nan() => Bound::Null,
        Packed::F64(value) if value.is_nan() => Bound::Null,
        Packed::F32(value) => Bound::Real((*value).into()),
        Packed::F64(value) => Bound::Real(*value),
        Packed::String(text) => {
            text.as_str().map_or_else(|| Bound::Blob(text.as_bytes().to_owned()), |text| Bound::Text(text.to_owned()))
        }
        Packed::Binary(data) => Bound::Blob(data.clone()),
        Packed::Ext(kind, data) => timestamp(*kind, data).unwrap_or_else(|| Bound::Blob(data.clone())),
        Packed::Array(_) | Packed::Map(_) => Bound::Json(packed_json(value)?),
    })
}

fn packed_json(value: &Packed) -> Result<Json, Refused> {
    Ok(match value {
        Packed::Array(elements) => elements.iter().map(packed_json).collect::<Result<_, _>>()?,
        Packed::Map(pairs) => {
            let mut fields = serde_json::Map::new();
            for (key, value) in pairs {
                if let Some(name) = packed_name(key)? {
                    fields.insert(name, packed_json(value)?);
                }
            }
            Json::Object(fields)
        }
        Packed::Boolean(value) => (*value).into(),
        Packed::Integer(number) => number.as_i64().map_or_else(|| number.as_u64().into(), Json::from),
        _ => match packed_value(value)? {
            Bound::Integer(value) => value.into(),
            Bound::Real(value) => value.into(),
            Bound::Text(text) => text.into(),
            Bound::Blob(data) => data_encoding::BASE64.encode(&data).into(),
            Bound::Null | Bound::Json(_) => Json::Null,
        },
    })
}

fn timestamp(kind: i8, data: &[u8]) -> Option<Bound> {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let (seconds, nanoseconds) = match (kind, data.len()) {
        (-1, 4) => (number(data), 0),
        (-1, 8) => (number(data) % (1 << 34), number(data) >> 34),
        (-1, 12) => (number(&data[4..]), number(&data[..4])),
        _ => return None,
    };
    let seconds = seconds.cast_signed();
    match nanoseconds {
        0 => Some(Bound::Integer(seconds)),
        #[allow(clippy::cast_precision_loss, reason = "as documented")]
        1..=999_999_999 => Some(Bound::Real(seconds as f64 + nanoseconds as f64 / 1e9)),
        _ => None,
    }
}
