//! Writes MessagePack as JSON.

use std::fmt::Write;

use data_encoding::BASE64;

use super::item::{Item, Items, Span};
use super::{TIMESTAMP, timestamp, write_integer};
use crate::binding::fields::{Cell, Level};
use crate::binding::payload_error::Fault;

/// Writes the next value as JSON and goes behind it. `levels` is empty, and is so again unless something fails.
pub(super) fn transcribe(items: &mut Items<'_>, json: &mut String, levels: &mut Vec<Level>) -> Result<(), Fault> {
    loop {
        match items.next()? {
            Item::Map(left) => {
                json.push('{');
                levels.push(Level { left, map: true });
            }
            Item::Array(left) => {
                json.push('[');
                levels.push(Level { left, map: false });
            }
            item => scalar(item, items, json),
        }
        if !goes_on(items, json, levels)? {
            return Ok(());
        }
    }
}

/// Ends the levels that are complete. Says whether there is one that is not: its next value follows, with its name and a
/// colon written.
fn goes_on(items: &mut Items<'_>, json: &mut String, levels: &mut Vec<Level>) -> Result<bool, Fault> {
    while let Some(level) = levels.last_mut() {
        if level.left == 0 {
            json.push(if level.map { '}' } else { ']' });
            levels.pop();
            continue;
        }
        level.left -= 1;
        let before = json.len();
        if !json.ends_with(['{', '[']) {
            json.push(',');
        }
        if !level.map || name(items, json)? {
            return Ok(true);
        }
        json.truncate(before);
        items.skip(1)?;
    }
    Ok(false)
}

/// Writes the name of a map's value; false where it is none.
fn name(items: &mut Items<'_>, json: &mut String) -> Result<bool, Fault> {
    let name = items.next()?;
    items.skip(name.values())?;
    match name {
        Item::Text(span) => match std::str::from_utf8(items.bytes(span)) {
            Ok(name) => quote(name, json),
            Err(_) => return Ok(false),
        },
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

/// JSON has no NaN and nothing infinite.
fn real(value: f64, json: &mut String) {
    if value.is_finite() {
        // A string takes all that is written to it; and this is how JSON writes them too.
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
