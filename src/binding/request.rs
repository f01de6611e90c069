//! Binds a query's parameters from a request. This is stricter than for events: a name that no parameter has is refused, and so is a
//! value that is not of its parameter's type, or is no object where a parameter needs a value within. A misspelt or wrong parameter would
//! otherwise be NULL, and the query would answer something else than it was asked.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use super::fields::Cell;
use super::{Envelope, Fields, Parameters, PayloadError, PayloadFault, Row, Source, Value, unused_name};
use crate::binding::envelope::Part;
use crate::config::{Codec, ParameterConfig, ParameterType, ParameterValue, seconds_of};
use crate::printable::printable;

/// The parameters of one query.
#[derive(Clone, Debug)]
pub struct RequestParameters {
    parameters: Parameters,
    /// The names that a request may have.
    names: Vec<String>,
    typed: Vec<TypedField>,
    /// A request may be something else than an object.
    takes_all: bool,
}

/// A field with a type.
#[derive(Clone, Debug, PartialEq)]
struct TypedField {
    name: String,
    /// Its name in the request; for a value deeper inside, its JSON Pointer.
    shown: String,
    field: usize,
    config: ParameterConfig,
}

/// Why a request cannot be bound, in one line.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It cannot be read.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A name that no parameter has, no object, or a value that is not accepted.
    #[error("{0}")]
    Refused(String),
}

impl RequestParameters {
    /// As [`Parameters::new`]. `types` has the types of some of them.
    ///
    /// # Errors
    ///
    /// As [`Parameters::new`]; a type for a name that no statement uses, or that is not bound from the request's payload.
    pub fn new<'n>(
        names: impl IntoIterator<Item = &'n str> + Clone,
        bind: &BTreeMap<String, String>,
        codec: Option<Codec>,
        types: &BTreeMap<String, ParameterConfig>,
    ) -> Result<Self, String> {
        let mut parameters = Parameters::new(names.clone(), bind, codec)?;
        let mut with_types: Vec<TypedField> = Vec::new();
        for (name, config) in types {
            let Some(at) = names.clone().into_iter().position(|one| one == name) else {
                let others = names.clone().into_iter().filter(|one| !types.contains_key(*one));
                return Err(unused_name("parameters", name, others));
            };
            let (Source::Named(field) | Source::Pointed(field)) = parameters.sources[at] else {
                return Err(format!("parameters.{name} is not bound from the request's fields, so it has no type"));
            };
            if let Some(other) = with_types.iter().find(|other| other.field == field && other.config != *config) {
                return Err(format!(
                    "parameters.{name} and {} are the same field; give both the same type",
                    other.name
                ));
            }
            let shown =
                bind.get(name).map_or(Cow::Borrowed(name.as_str()), |pointer| shown_pointer(pointer)).into_owned();
            with_types.push(TypedField { name: name.clone(), shown, field, config: config.clone() });
        }
        let mut known: Vec<String> = Vec::new();
        for (name, source) in names.into_iter().zip(&parameters.sources) {
            let name = match source {
                Source::Envelope(_) => continue,
                Source::Named(_) => Cow::Borrowed(name),
                Source::Pointed(_) => shown_pointer(&bind[name]),
            };
            if !known.iter().any(|known| *known == name) {
                known.push(name.into_owned());
            }
        }
        let is_named = |source: &Source| matches!(source, Source::Named(_));
        let is_payload = |source: &Source| matches!(source, Source::Envelope(Part::Payload));
        let takes_payload = parameters.sources.iter().any(is_payload);
        let takes_all = !parameters.sources.iter().any(is_named)
            && (takes_payload || parameters.paths.field.is_some() || parameters.paths.has_elements());
        if !takes_payload {
            parameters.paths.close();
        }
        parameters.paths.expect_objects("");
        Ok(Self { parameters, names: known, typed: with_types, takes_all })
    }

    /// The names that a request may have; for a value deeper inside, its JSON Pointer.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Reads the parameters' values from a request. A payload that is empty or white space, and a null, are an object without fields.
    /// Where MessagePack is expected, a JSON object is read too: no MessagePack object begins like one.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. `fields` may then have the row of the request.
    pub fn read(&self, request: &Envelope<'_>, fields: &mut Fields) -> Result<Row, RequestError> {
        let row = self.row(request, fields)?;
        for typed in &self.typed {
            let (cell, texts) = fields.cell(row, typed.field);
            if !typed.convert(cell, texts).map_err(RequestError::Refused)? {
                return Err(RequestError::Refused(self.refusal(typed, request, fields, row)));
            }
        }
        Ok(row)
    }

    fn row(&self, request: &Envelope<'_>, fields: &mut Fields) -> Result<Row, RequestError> {
        let parameters = &self.parameters;
        let codec = match parameters.codec.unwrap_or_else(|| request.codec()) {
            Codec::Messagepack if is_json_object(request.payload) => Codec::Json,
            codec => codec,
        };
        let is_white = |payload: &[u8]| codec == Codec::Json && payload.trim_ascii().is_empty();
        let is_null = match codec {
            Codec::Json => request.payload.trim_ascii() == b"null",
            Codec::Messagepack => request.payload == [0xc0],
        };
        if request.payload.is_empty() || (!self.takes_all && (is_null || is_white(request.payload))) {
            return Ok(parameters.without_fields(fields).as_of_object());
        }
        if parameters.fields == 0 && self.takes_all {
            return Ok(parameters.without_fields(fields));
        }
        match parameters.read_payload(codec, request, fields) {
            Ok(row) if row.is_of_object() || self.takes_all => Ok(row),
            Ok(_) => Err(RequestError::Refused(format!("the request is not an object; {}", self.known()))),
            Err(error) => {
                let name = fields.refused_name();
                let refused = match (error.fault(), name) {
                    (PayloadFault::UnknownName, _) => format!("{} is not a parameter", shown(name)),
                    (PayloadFault::NoObject { or_array }, _) => {
                        let value = if name.is_empty() { "the request".into() } else { shown_pointer(name) };
                        format!("{value} is not an object{}", if or_array { " or array" } else { "" })
                    }
                    _ => return Err(error.into()),
                };
                Err(RequestError::Refused(format!("{refused}; {}", self.known())))
            }
        }
    }

    /// The error for a value that is not of its parameter's type. A number is shown as the request has it.
    #[cold]
    fn refusal(&self, typed: &TypedField, request: &Envelope<'_>, fields: &mut Fields, row: Row) -> String {
        let mut verbatim = Fields::verbatim();
        let as_written = self.row(request, &mut verbatim).ok().map(|row| verbatim.cell(row, typed.field));
        let (cell, texts) = as_written.unwrap_or_else(|| fields.cell(row, typed.field));
        format!("{} is {}; it must be {}", typed.shown, described(*cell, texts), typed.config)
    }

    fn known(&self) -> String {
        match &self.names[..] {
            [] => "the query has no parameters".into(),
            [one] => format!("the only parameter is {one}"),
            names => format!("the parameters are {}", names.join(", ")),
        }
    }

    /// The values of all parameters, in the order of the names.
    ///
    /// # Panics
    ///
    /// If the row belongs to other parameters or to another request.
    pub fn values<'a>(&self, request: &Envelope<'a>, fields: &'a Fields, row: Row) -> impl Iterator<Item = Value<'a>> {
        (0..self.parameters.len()).map(move |parameter| self.parameters.value(parameter, request, fields, row))
    }
}

/// Whether a payload is a JSON object, and not MessagePack: there a brace is the number 123, and nothing follows a number.
fn is_json_object(payload: &[u8]) -> bool {
    payload.len() > 1 && payload.trim_ascii_start().starts_with(b"{")
}

/// A pointer of one level as the name in it; a deeper one, and the empty one, as it is.
fn shown_pointer(pointer: &str) -> Cow<'_, str> {
    match pointer.strip_prefix('/') {
        Some(name) if !name.contains('/') => Cow::Owned(name.replace("~1", "/").replace("~0", "~")),
        _ => Cow::Borrowed(pointer),
    }
}

/// A text of the request in quotes, shortened.
fn shown(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        None => format!("\"{}\"", printable(text)),
        Some((end, _)) => format!("\"{}…\"", printable(&text[..end])),
    }
}

impl TypedField {
    /// Converts a value to the type. Returns false if that is not possible.
    ///
    /// # Errors
    ///
    /// One line: the value is missing.
    fn convert(&self, cell: &mut Cell, texts: &mut String) -> Result<bool, String> {
        let Self { shown: name, config, .. } = self;
        if *cell == Cell::Null {
            if config.required {
                return Err(format!("{name} is missing; it must be {config}"));
            }
            if let Some(default) = &config.default {
                *cell = from_settings(default, config.kind, texts);
                if config.kind == ParameterType::Time {
                    *cell = time(*cell, texts).unwrap_or(*cell);
                }
            }
            return Ok(true);
        }
        let converted = match config.kind {
            ParameterType::Any => return Ok(true),
            ParameterType::Integer => integer(*cell, texts).map(Cell::Integer),
            ParameterType::Real => real(*cell, texts).map(Cell::Real),
            ParameterType::Boolean => boolean(*cell, texts).map(Cell::Boolean),
            ParameterType::Text => text(*cell, texts),
            ParameterType::Time => time(*cell, texts),
        };
        let admitted = converted.filter(|value| match value {
            Cell::Integer(value) => config.admits(&ParameterValue::Integer(*value)),
            Cell::Real(value) => config.admits(&ParameterValue::Real(*value)),
            _ => true,
        });
        if let Some(value) = admitted {
            *cell = value;
        }
        Ok(admitted.is_some())
    }
}

fn from_settings(value: &ParameterValue, kind: ParameterType, texts: &mut String) -> Cell {
    match value {
        ParameterValue::Boolean(value) => Cell::Boolean(*value),
        #[allow(clippy::cast_precision_loss, reason = "the parameter is a real")]
        ParameterValue::Integer(value) if kind == ParameterType::Real => Cell::Real(*value as f64),
        ParameterValue::Integer(value) => Cell::Integer(*value),
        ParameterValue::Real(value) => Cell::Real(*value),
        ParameterValue::Text(text) => {
            let from = texts.len();
            texts.push_str(text);
            Cell::Text(from, texts.len())
        }
    }
}

fn integer(cell: Cell, texts: &str) -> Option<i64> {
    /// 2^53: from here on doubles leave integers out, so this one may have other digits than the request.
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    match cell {
        Cell::Integer(value) => Some(value),
        #[allow(clippy::cast_possible_truncation, reason = "it is whole and in the range")]
        Cell::Real(value) if value.fract() == 0.0 && value.abs() < LIMIT => Some(value as i64),
        Cell::Text(from, to) => texts[from..to].parse().ok(),
        _ => None,
    }
}

fn real(cell: Cell, texts: &str) -> Option<f64> {
    match cell {
        #[allow(clippy::cast_precision_loss, reason = "the parameter is a real")]
        Cell::Integer(value) => Some(value as f64),
        Cell::Real(value) => Some(value),
        Cell::Text(from, to) | Cell::Number(from, to) => texts[from..to].parse().ok(),
        _ => None,
    }
    .filter(|value: &f64| value.is_finite())
}

fn boolean(cell: Cell, texts: &str) -> Option<bool> {
    match cell {
        Cell::Boolean(value) => Some(value),
        Cell::Integer(value @ 0..=1) => Some(value == 1),
        Cell::Text(from, to) => match &texts[from..to] {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// Seconds since 1970: an integer if they are whole, else a real.
fn time(cell: Cell, texts: &str) -> Option<Cell> {
    match cell {
        Cell::Integer(_) => Some(cell),
        Cell::Real(seconds) => Some(Cell::Real(seconds)),
        Cell::Text(from, to) => {
            let seconds = seconds_of(&texts[from..to])?;
            #[allow(clippy::cast_possible_truncation, reason = "it is whole and in the range")]
            let whole = (seconds.fract() == 0.0 && seconds.abs() < 9e15).then_some(seconds as i64);
            Some(whole.map_or(Cell::Real(seconds), Cell::Integer))
        }
        _ => None,
    }
}

/// A number with a fraction or an exponent is refused: its digits may be others than those of the request.
fn text(cell: Cell, texts: &mut String) -> Option<Cell> {
    match cell {
        Cell::Text(..) => Some(cell),
        Cell::Number(from, to) if !texts[from..to].contains(['.', 'e', 'E']) => Some(Cell::Text(from, to)),
        Cell::Integer(value) => {
            let from = texts.len();
            // Writing into a string cannot fail.
            let _ = write!(texts, "{value}");
            Some(Cell::Text(from, texts.len()))
        }
        _ => None,
    }
}

fn described(cell: Cell, texts: &str) -> String {
    match cell {
        Cell::Null => "null".into(),
        Cell::Boolean(value) => value.to_string(),
        Cell::Integer(value) => value.to_string(),
        Cell::Real(value) => format!("{value:?}"),
        Cell::Text(from, to) => shown(&texts[from..to]),
        Cell::Number(from, to) => shown(&texts[from..to]).replace('"', ""),
        Cell::Json(from, _) if texts[from..].starts_with('[') => "an array".into(),
        Cell::Json(..) => "an object".into(),
        Cell::Blob(..) => "a blob".into(),
    }
}
