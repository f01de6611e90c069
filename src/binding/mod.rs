//! Binds messages to parameters: finds the values of a statement's parameters in a message.
//!
//! [`RouteConfig`](crate::config::RouteConfig) has the rules. This module depends neither on NATS nor on SQL.
//!
//! [`Parameters`] has a statement's names and the source of each value: a part of the [`Envelope`], or a path in the payload. The
//! paths are a tree, so that [`Parameters::read`] reads a payload once, checks all of it and keeps only the needed values.
//! [`Fields`] holds those values for many messages. Reading a message allocates only when that memory grows.
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
mod path;
mod payload_error;
mod request;
mod value;

pub use envelope::Envelope;
pub use fields::{Fields, Row};
pub use payload_error::PayloadError;
pub use request::{RequestError, RequestParameters};
pub use value::Value;

use std::collections::BTreeMap;
use std::convert::Infallible;

use crate::closest::did_you_mean;
use crate::config::{Codec, validate_bind};
use envelope::Part;
use path::PathTree;
use payload_error::PayloadFault;

/// The parameters of the statements of one route, or of one query, each once.
#[derive(Clone, Debug)]
pub struct Parameters {
    sources: Vec<Source>,
    paths: PathTree,
    fields: usize,
    codec: Option<Codec>,
}

/// The source of a parameter's value. Fields are numbered.
#[derive(Clone, Debug)]
enum Source {
    Envelope(Part),
    /// A field of the payload's object, by its name.
    Named(usize),
    /// A value in the payload, by a JSON Pointer.
    Pointed(usize),
}

/// Why a setting for a parameter that no statement has is refused. `others` are those that have no such setting.
fn unused_name<'n>(setting: &str, name: &str, others: impl Iterator<Item = &'n str>) -> String {
    match did_you_mean(name, others) {
        meant if meant.is_empty() => {
            format!("{setting}.{name} is used by no statement; remove it, or write :{name} in one")
        }
        meant => format!("{setting}.{name} is used by no statement{meant}"),
    }
}

impl Parameters {
    /// Parameters with these names, without their `:`. `bind` has JSON Pointers for some of them.
    ///
    /// # Errors
    ///
    /// One line: `:token_0`, an invalid pointer, or a name in `bind` that no statement uses.
    pub fn new<'n>(
        names: impl IntoIterator<Item = &'n str>,
        bind: &BTreeMap<String, String>,
        codec: Option<Codec>,
    ) -> Result<Self, String> {
        validate_bind(bind)?;
        let (mut sources, mut paths, mut fields) = (Vec::new(), PathTree::default(), 0);
        let mut unused: Vec<&str> = bind.keys().map(String::as_str).collect();
        let mut used = Vec::new();
        for name in names {
            used.push(name);
            unused.retain(|bound| *bound != name);
            let source = match (bind.get(name), Part::named(name)) {
                (Some(pointer), _) => Source::Pointed(paths.add_pointer(pointer, fields)),
                (None, part) => part?.map_or_else(|| Source::Named(paths.add_name(name, fields)), Source::Envelope),
            };
            if let Source::Named(field) | Source::Pointed(field) = source {
                fields = fields.max(field + 1);
            }
            sources.push(source);
        }
        match unused.first() {
            None => Ok(Self { sources, paths, fields, codec }),
            Some(name) => Err(unused_name("bind", name, used.into_iter().filter(|used| !bind.contains_key(*used)))),
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

    /// Reads the parameters' values from a message's payload. If no parameter needs a value of it, the payload is not read.
    ///
    /// # Errors
    ///
    /// [`PayloadError`]: the payload is not valid in its codec. `fields` is then unchanged.
    pub fn read(&self, envelope: &Envelope<'_>, fields: &mut Fields) -> Result<Row, PayloadError> {
        if self.fields == 0 {
            return Ok(self.without_fields(fields));
        }
        self.read_payload(self.codec.unwrap_or_else(|| envelope.codec()), envelope, fields)
    }

    /// As [`Parameters::read`], but reads the payload in any case, in this codec.
    fn read_payload(&self, codec: Codec, envelope: &Envelope<'_>, fields: &mut Fields) -> Result<Row, PayloadError> {
        let read = match codec {
            _ if envelope.payload.is_empty() => return Err(PayloadFault::Empty.in_codec(codec)),
            Codec::Json => json::read,
            Codec::Messagepack => messagepack::read,
        };
        fields
            .add(self.fields, |builder| read(envelope.payload, &self.paths, builder))
            .map_err(|fault| fault.in_codec(codec))
    }

    /// A row whose fields are all NULL, for an empty request. [`Parameters::read`] refuses an empty payload.
    pub fn without_fields(&self, fields: &mut Fields) -> Row {
        let row: Result<Row, Infallible> = fields.add(self.fields, |_| Ok(false));
        row.unwrap_or_else(|never| match never {})
    }

    /// The value of the parameter with this number, counted from 0 in the order of the names.
    ///
    /// # Panics
    ///
    /// If there is no such parameter, or the row belongs to other parameters or to another message.
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
