//! Writes MessagePack values as JSON.

use std::fmt::Write;

use data_encoding::BASE64;

use super::item::{Item, Items, Span};
use super::scalar::{TIMESTAMP, timestamp, write_integer};
use crate::binding::fields::{Cell, Container};
use crate::binding::payload_error::PayloadFault;

/// Writes the next value as JSON. `containers` is empty before, and empty again unless this fails.
pub(super) fn write_json(
    items: &mut Items<'_>,
    json: &mut String,
    containers: &mut Vec<Container>,
) -> Result<(), PayloadFault> {
    loop {
        match items.next()? {
            Item::Map(left) => {
                json.push('{');
                containers.push(Container { left, map: true });
            }
            Item::Array(left) => {
                json.push('[');
                containers.push(Container { left, map: false });
            }
            item => scalar(item, items, json),
        }
        if !close_complete(items, json, containers)? {
            return Ok(());
        }
    }
}

/// Closes the complete containers. Returns whether a container is open: its next value follows, and its name and colon are written.
fn close_complete(
    items: &mut Items<'_>,
    json: &mut String,
    containers: &mut Vec<Container>,
) -> Result<bool, PayloadFault> {
    while let Some(container) = containers.last_mut() {
        if container.left == 0 {
            json.push(if container.map { '}' } else { ']' });
            containers.pop();
            continue;
        }
        container.left -= 1;
        let before = json.len();
        if !json.ends_with(['{', '[']) {
            json.push(',');
        }
        if !container.map || name(items, json)? {
            return Ok(true);
        }
        json.truncate(before);
        items.skip(1)?;
    }
    Ok(false)
}

/// Writes a name of a map. Returns false if it cannot be a name in JSON.
fn name(items: &mut Items<'_>, json: &mut String) -> Result<bool, PayloadFault> {
    let name = items.next()?;
    items.skip(name.values())?;
    match name {
        Item::Text(span) | Item::Binary(span) => quote(items.name(span)?, json),
        Item::Integer(_) | Item::Unsigned(_) => {
            json.push('"');
            write_integer(name, json);
            json.push('"');
        }
        _ => return Ok(false),
    }
    json.push(':');
    Ok(true)
}

fn scalar(item: Item, items: &Items<'_>, json: &mut String) {
    match item {
        Item::Boolean(value) => json.push_str(if value { "true" } else { "false" }),
        Item::Integer(_) | Item::Unsigned(_) => write_integer(item, json),
        Item::Real(value) => real(value, json),
        Item::Text(span) => match std::str::from_utf8(items.bytes(span)) {
            Ok(text) => quote(text, json),
            Err(_) => bytes(span, items, json),
        },
        Item::Extension(TIMESTAMP, span) => match timestamp(items.bytes(span)) {
            Some(Cell::Integer(seconds)) => write_integer(Item::Integer(seconds), json),
            Some(Cell::Real(seconds)) => real(seconds, json),
            _ => bytes(span, items, json),
        },
        Item::Binary(span) | Item::Extension(_, span) => bytes(span, items, json),
        Item::Nil | Item::Array(_) | Item::Map(_) => json.push_str("null"),
    }
}

/// Writes a real number. JSON has neither NaN nor infinity.
fn real(value: f64, json: &mut String) {
    if value.is_finite() {
        // Writing into a string cannot fail. Rust's debug format is valid JSON.
        let _ = write!(json, "{value:?}");
    } else {
        json.push_str("null");
    }
}

fn bytes(span: Span, items: &Items<'_>, json: &mut String) {
    json.push('"');
    BASE64.encode_append(items.bytes(span), json);
    json.push('"');
}

fn quote(text: &str, json: &mut String) {
    json.push('"');
    let mut rest = text;
    while let Some(plain) = rest.find(|c| c < ' ' || c == '"' || c == '\\') {
        json.push_str(&rest[..plain]);
        let byte = rest.as_bytes()[plain];
        let _ = match byte {
            b'"' | b'\\' => write!(json, "\\{}", char::from(byte)),
            _ => write!(json, "\\u{byte:04x}"),
        };
        rest = &rest[plain + 1..];
    }
    json.push_str(rest);
    json.push('"');
}
