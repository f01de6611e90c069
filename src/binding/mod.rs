//! From a message to the parameters of a statement: which names a statement asks for, and what stands there in a message.
//!
//! [`RouteConfig`](crate::config::RouteConfig) has the rules. Knows neither NATS nor SQL.
//!
//! [`Parameters`] knows a statement's names and where their values come from: parts of the [`Envelope`], and places in the payload.
//! Those are a tree, so that [`Parameters::read`] goes through a payload once, checks all of it and keeps what is asked for.
//! [`Fields`] holds that for many messages; reading one more allocates nothing but what this memory grows to.
//!
//! ```
//! use catchment::unversioned::binding::{Envelope, Fields, Parameters, Value};
//! use catchment::unversioned::pipeline::{Mark, SingleEvent};
//!
//! let bind = [("city".to_owned(), "/address/city".to_owned())].into();
//! let parameters = Parameters::new(["name", "city", "token_2"], &bind, None)?;
//! let mut fields = Fields::default();
//!
//! let event = SingleEvent::new(Mark::START, "users.joined", [], br#"{"name": "Ada", "address": {"city": "London"}}"#);
//! let envelope = Envelope::of(&event.delivery(), None);
//! let row = parameters.read(&envelope, &mut fields)?;
//! assert_eq!(parameters.value(1, &envelope, &fields, row), Value::Text("London"));
//! assert_eq!(parameters.value(2, &envelope, &fields, row), Value::Text("joined"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod envelope;
mod fields;
mod json;
mod messagepack;
mod place;
mod unreadable;
mod value;

pub use envelope::Envelope;
pub use fields::{Fields, Row};
pub use unreadable::Unreadable;
pub use value::Value;

use std::collections::BTreeMap;
use std::convert::Infallible;

use crate::config::{Codec, validate_bind};
use envelope::Part;
use place::Place;
use unreadable::Fault;

/// The parameters that the statements of one route, or of one query, ask for, each once.
#[derive(Clone, Debug)]
pub struct Parameters {
    sources: Vec<Source>,
    root: Place,
    fields: usize,
    codec: Option<Codec>,
}

/// Where a parameter's value comes from. Fields have numbers.
#[derive(Clone, Debug)]
enum Source {
    Envelope(Part),
    /// A field that only an object has.
    Named(usize),
    /// A field that a pointer finds.
    Pointed(usize),
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
        validate_bind(bind)?;
        let (mut sources, mut root, mut fields) = (Vec::new(), Place::default(), 0);
        let mut unasked: Vec<&str> = bind.keys().map(String::as_str).collect();
        for name in names {
            unasked.retain(|bound| *bound != name);
            let source = match (bind.get(name), Part::named(name)) {
                (Some(pointer), _) => Source::Pointed(root.ask(pointer, fields)),
                (None, part) => part?.map_or_else(|| Source::Named(root.ask_name(name, fields)), Source::Envelope),
            };
            if let Source::Named(field) | Source::Pointed(field) = source {
                fields = fields.max(field + 1);
            }
            sources.push(source);
        }
        match unasked.first() {
            None => Ok(Self { sources, root, fields, codec }),
            Some(name) => Err(format!("bind.{name} is asked for by no statement; remove it, or write :{name} in one")),
        }
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
        if self.fields == 0 {
            return Ok(self.without_fields(fields));
        }
        let codec = self.codec.unwrap_or_else(|| envelope.codec());
        let read = match codec {
            _ if envelope.payload.is_empty() => return Err(Fault::Empty.of(codec)),
            Codec::Json => json::read,
            Codec::Messagepack => messagepack::read,
        };
        fields.add(self.fields, |sheet| read(envelope.payload, &self.root, sheet)).map_err(|fault| fault.of(codec))
    }

    /// A row of a message that has no fields, as an empty request has none: they are NULL. [`Parameters::read`] refuses an empty
    /// payload.
    pub fn without_fields(&self, fields: &mut Fields) -> Row {
        let row: Result<Row, Infallible> = fields.add(self.fields, |_| Ok(false));
        row.unwrap_or_else(|never| match never {})
    }

    /// The value of the parameter with this number, counted from 0 in the order of the names.
    ///
    /// # Panics
    ///
    /// Beyond the last parameter, or with the row of other parameters or of another message.
    #[must_use]
    pub fn value<'a>(&self, parameter: usize, envelope: &Envelope<'a>, fields: &'a Fields, row: Row) -> Value<'a> {
        match &self.sources[parameter] {
            Source::Envelope(part) => part.of(envelope),
            Source::Named(_) if !row.is_of_object() => Value::Null,
            Source::Named(field) | Source::Pointed(field) => fields.value(row, *field, envelope.payload),
        }
    }
}

#[cfg(test)]
mod tests;
