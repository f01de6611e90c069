//! Reads the places that are asked for from MessagePack, once from front to back; what becomes JSON is read again for that.
//!
//! All of the payload is checked but what is in its texts. The thread's stack grows only with the places that are asked for,
//! never with the payload.

mod item;
mod to_json;

use std::fmt::Write;

use super::fields::{Cell, Sheet};
use super::path::Place;
use super::payload_error::Fault;
use item::{Item, Items, Span};
use to_json::transcribe;

/// The type of the one extension that the format itself defines.
const TIMESTAMP: i8 = -1;

/// Fills the cells of the places that `root` asks for; says whether the payload is a map.
pub(super) fn read(payload: &[u8], root: &Place, sheet: Sheet<'_>) -> Result<bool, Fault> {
    let map = matches!(Items::new(payload).next()?, Item::Map(_));
    let mut reader = Reader { items: Items::new(payload), sheet };
    reader.value(root)?;
    if reader.items.is_at_end() { Ok(map) } else { Err(Fault::At("something behind its end,", reader.items.at)) }
}

struct Reader<'r> {
    items: Items<'r>,
    sheet: Sheet<'r>,
}

impl Reader<'_> {
    /// The next value, at a place that is asked for.
    fn value(&mut self, place: &Place) -> Result<(), Fault> {
        if !place.is_leaf() {
            place.forget(self.sheet.cells);
        }
        let from = self.items.at;
        let item = self.items.next()?;
        match item {
            Item::Map(pairs) if !place.is_leaf() => self.map(pairs, place)?,
            Item::Array(values) if !place.is_leaf() => self.array(values, place)?,
            _ => self.items.skip(item.values())?,
        }
        match (place.field, item) {
            (None, _) => Ok(()),
            (Some(field), Item::Map(_) | Item::Array(_)) => self.set_json(field, from),
            (Some(field), _) => {
                self.set(field, item);
                Ok(())
            }
        }
    }

    fn map(&mut self, pairs: u32, place: &Place) -> Result<(), Fault> {
        let mut expected = 0;
        for _ in 0..pairs {
            let name = self.items.next()?;
            self.items.skip(name.values())?;
            match self.named(name, place, &mut expected) {
                Some(place) => self.value(place)?,
                None => self.items.skip(1)?,
            }
        }
        Ok(())
    }

    fn array(&mut self, values: u32, place: &Place) -> Result<(), Fault> {
        for index in 0..values as usize {
            match place.element(index) {
                Some(place) => self.value(place)?,
                None => self.items.skip(1)?,
            }
        }
        Ok(())
    }

    fn named<'p>(&mut self, name: Item, place: &'p Place, expected: &mut usize) -> Option<&'p Place> {
        let name = match name {
            Item::Text(span) => self.items.bytes(span),
            Item::Integer(_) | Item::Unsigned(_) => {
                self.sheet.scratch.name.clear();
                write_integer(name, &mut self.sheet.scratch.name);
                self.sheet.scratch.name.as_bytes()
            }
            _ => return None,
        };
        place.named(name, expected)
    }

    fn set(&mut self, field: usize, item: Item) {
        let cell = &mut self.sheet.cells[field];
        let blob = |span: Span| Cell::Blob(span.from, span.to);
        match item {
            Item::Boolean(value) => *cell = Cell::Integer(value.into()),
            Item::Integer(value) => *cell = Cell::Integer(value),
            Item::Unsigned(_) => {
                let from = self.sheet.texts.len();
                write_integer(item, self.sheet.texts);
                *cell = Cell::Text(from, self.sheet.texts.len());
            }
            Item::Real(value) if value.is_nan() => *cell = Cell::Null,
            Item::Real(value) => *cell = Cell::Real(value),
            Item::Text(span) => match std::str::from_utf8(self.items.bytes(span)) {
                Ok(text) => self.sheet.set_text(field, text),
                Err(_) => *cell = blob(span),
            },
            Item::Extension(TIMESTAMP, span) => *cell = timestamp(self.items.bytes(span)).unwrap_or(blob(span)),
            Item::Binary(span) | Item::Extension(_, span) => *cell = blob(span),
            Item::Nil | Item::Array(_) | Item::Map(_) => *cell = Cell::Null,
        }
    }

    /// Sets a field to the JSON text of the map or array that begins there.
    fn set_json(&mut self, field: usize, at: usize) -> Result<(), Fault> {
        let from = self.sheet.texts.len();
        self.items.at = at;
        transcribe(&mut self.items, self.sheet.texts, &mut self.sheet.scratch.levels)?;
        self.sheet.cells[field] = Cell::Text(from, self.sheet.texts.len());
        Ok(())
    }
}

fn write_integer(item: Item, into: &mut String) {
    // A string takes all that is written to it.
    let _ = match item {
        Item::Integer(value) => write!(into, "{value}"),
        Item::Unsigned(value) => write!(into, "{value}"),
        _ => Ok(()),
    };
}

/// Seconds since 1970: an integer where they are whole. `None` for what is no timestamp after all.
fn timestamp(data: &[u8]) -> Option<Cell> {
    let (seconds, nanoseconds) = match data.len() {
        4 => (u32::from_be_bytes(data.try_into().ok()?).into(), 0),
        8 => {
            let both = u64::from_be_bytes(data.try_into().ok()?);
            (i64::try_from(both & ((1 << 34) - 1)).ok()?, u32::try_from(both >> 34).ok()?)
        }
        12 => {
            let (nanoseconds, seconds) = data.split_first_chunk()?;
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(*nanoseconds))
        }
        _ => return None,
    };
    match nanoseconds {
        0 => Some(Cell::Integer(seconds)),
        #[allow(clippy::cast_precision_loss, reason = "a double holds microseconds for some centuries to come")]
        1..1_000_000_000 => Some(Cell::Real(seconds as f64 + f64::from(nanoseconds) / 1e9)),
        _ => None,
    }
}
