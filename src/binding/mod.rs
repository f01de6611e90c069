//! From a message to the parameters of a statement: which names a statement asks for, and what stands there in a message.
//!
//! [`RouteConfig`](crate::config::RouteConfig) has the rules. Knows neither NATS nor SQL.

mod envelope;
mod value;

pub use envelope::Envelope;
pub use value::Value;

use std::collections::BTreeMap;

use crate::config::Codec;
use envelope::Part;

/// The parameters that the statements of one route, or of one query, ask for, each once.
#[derive(Clone, Debug)]
pub struct Parameters {
    sources: Vec<Source>,
    pointers: Vec<String>,
    codec: Option<Codec>,
}

/// Where a parameter's value comes from.
#[derive(Clone, Debug)]
enum Source {
    Envelope(Part),
    /// The field with this number.
    Field(usize),
}

/// What was read from the payloads of some messages: memory that is used again.
#[derive(Debug, Default)]
pub struct Fields {
    values: Vec<serde_json::Value>,
    texts: Vec<String>,
}

/// Where in [`Fields`] a message's are.
#[derive(Clone, Copy, Debug)]
pub struct Row(usize);

/// Why a payload cannot be read: one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload is no {codec}: {reason}")]
pub struct Unreadable {
    codec: &'static str,
    reason: String,
}

impl Fields {
    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.values.clear();
        self.texts.clear();
    }
}

impl Parameters {
    /// Parameters with these names, without their `:`, some of which `bind` finds by a JSON Pointer.
    ///
    /// # Errors
    ///
    /// One line: `:token_0`, a pointer that is none, a name of `bind` that no statement asks for.
    pub fn new<'n>(
        names: impl IntoIterator<Item = &'n str>,
        bind: &BTreeMap<String, String>,
        codec: Option<Codec>,
    ) -> Result<Self, String> {
        let (mut sources, mut pointers) = (Vec::new(), Vec::new());
        for name in names {
            let part = if bind.contains_key(name) { None } else { Part::named(name)? };
            sources.push(part.map_or_else(
                || {
                    let escaped = || format!("/{}", name.replace('~', "~0").replace('/', "~1"));
                    pointers.push(bind.get(name).cloned().unwrap_or_else(escaped));
                    Source::Field(pointers.len() - 1)
                },
                Source::Envelope,
            ));
        }
        Ok(Self { sources, pointers, codec })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Reads what the parameters ask for from a message's payload; reads nothing where they ask for nothing in it.
    ///
    /// # Errors
    ///
    /// [`Unreadable`]: it is not what its codec says. `fields` is as it was.
    pub fn read(&self, envelope: &Envelope<'_>, fields: &mut Fields) -> Result<Row, Unreadable> {
        let row = Row(fields.values.len());
        if self.pointers.is_empty() {
            return Ok(row);
        }
        let whole: serde_json::Value = serde_json::from_slice(envelope.payload)
            .map_err(|e| Unreadable { codec: "JSON", reason: e.to_string() })?;
        for pointer in &self.pointers {
            let value = whole.pointer(pointer).cloned().unwrap_or_default();
            fields.texts.push(match &value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            fields.values.push(value);
        }
        Ok(row)
    }

    /// The value of the parameter with this number, counted from 0 in the order of the names.
    ///
    /// # Panics
    ///
    /// Beyond the last parameter, or with a row of other parameters.
    #[must_use]
    pub fn value<'a>(&self, parameter: usize, envelope: &Envelope<'a>, fields: &'a Fields, row: Row) -> Value<'a> {
        let at = match &self.sources[parameter] {
            Source::Envelope(part) => return part.of(envelope),
            Source::Field(at) => row.0 + at,
        };
        match &fields.values[at] {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Integer(i64::from(*value)),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), ..) => Value::Integer(value),
                (None, None, Some(value)) => Value::Real(value),
                _ => Value::Text(&fields.texts[at]),
            },
            _ => Value::Text(&fields.texts[at]),
        }
    }
}
