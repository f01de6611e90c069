//! Reads the needed values from MessagePack, once from front to back. Maps and arrays that become JSON are read a second time.
//!
//! All of the payload is checked, except the encoding of texts and of names that are not looked at. The thread's stack grows with the
//! depth of the paths, never with the depth of the payload.

mod item;
mod scalar;
mod to_json;

use super::fields::{Cell, RowBuilder};
use super::path::{Named, Names, PathTree};
use super::payload_error::PayloadFault;
use item::{Item, Items, Span};
use scalar::{TIMESTAMP, timestamp, write_integer};
use to_json::write_json;

/// Fills the cells of the values in `paths`. Returns whether the payload is a map.
pub(super) fn read(payload: &[u8], paths: &PathTree, builder: RowBuilder<'_>) -> Result<bool, PayloadFault> {
    let map = matches!(Items::new(payload).next()?, Item::Map(_));
    let mut reader = Reader { items: Items::new(payload), builder };
    reader.value(paths)?;
    if reader.items.is_at_end() { Ok(map) } else { Err(PayloadFault::At("extra data after its end,", reader.items.at)) }
}

struct Reader<'r> {
    items: Items<'r>,
    builder: RowBuilder<'r>,
}

impl Reader<'_> {
    /// Reads the next value, which has a node.
    fn value(&mut self, node: &PathTree) -> Result<(), PayloadFault> {
        let from = self.items.at;
        let item = self.items.next()?;
        match item {
            Item::Map(pairs) if !node.is_leaf() => self.map(pairs, node)?,
            Item::Array(values) if !node.is_leaf() && (node.expects_object.is_none() || node.has_elements()) => {
                self.array(values, node)?;
            }
            Item::Nil => {}
            _ => {
                self.items.skip(item.values())?;
                if let Some(pointer) = &node.expects_object {
                    self.builder.scratch.set_name(pointer);
                    return Err(PayloadFault::NoObject { or_array: node.has_elements() });
                }
            }
        }
        match (node.field, item) {
            (None, _) => Ok(()),
            (Some(field), Item::Map(_) | Item::Array(_)) => self.set_json(field, from),
            (Some(field), _) => {
                self.set(field, item);
                Ok(())
            }
        }
    }

    fn map(&mut self, pairs: u32, node: &PathTree) -> Result<(), PayloadFault> {
        let mut names = Names::of(node);
        for _ in 0..pairs {
            let name = self.items.next()?;
            self.items.skip(name.values())?;
            match self.find(name, &mut names)? {
                Named::Node(node) => self.value(node)?,
                Named::Unknown if node.closed => return Err(self.unknown(name)),
                Named::Unknown | Named::Repeated => self.items.skip(1)?,
            }
        }
        Ok(())
    }

    fn array(&mut self, values: u32, node: &PathTree) -> Result<(), PayloadFault> {
        for index in 0..values as usize {
            match node.element(index) {
                Some(node) => self.value(node)?,
                None => self.items.skip(1)?,
            }
        }
        Ok(())
    }

    fn find<'p>(&mut self, name: Item, names: &mut Names<'p>) -> Result<Named<'p>, PayloadFault> {
        match name {
            Item::Text(span) | Item::Binary(span) => {
                let found = names.find(self.items.bytes(span));
                if let Named::Unknown = found {
                    self.items.name(span)?;
                }
                Ok(found)
            }
            Item::Integer(_) | Item::Unsigned(_) => {
                self.builder.scratch.name.clear();
                write_integer(name, &mut self.builder.scratch.name);
                Ok(names.find(self.builder.scratch.name.as_bytes()))
            }
            _ => Ok(Named::Unknown),
        }
    }

    /// The error for a name that has no node.
    #[cold]
    fn unknown(&mut self, name: Item) -> PayloadFault {
        let shown = &mut self.builder.scratch.name;
        shown.clear();
        match name {
            Item::Text(span) | Item::Binary(span) => shown.push_str(&String::from_utf8_lossy(self.items.bytes(span))),
            Item::Integer(_) | Item::Unsigned(_) => write_integer(name, shown),
            _ => shown.push_str("a key that is no text"),
        }
        PayloadFault::UnknownName
    }

    fn set(&mut self, field: usize, item: Item) {
        let cell = &mut self.builder.cells[field];
        let blob = |span: Span| Cell::Blob(span.from, span.to);
        match item {
            Item::Boolean(value) => *cell = Cell::Boolean(value),
            Item::Integer(value) => *cell = Cell::Integer(value),
            Item::Unsigned(_) => {
                let from = self.builder.texts.len();
                write_integer(item, self.builder.texts);
                *cell = Cell::Number(from, self.builder.texts.len());
            }
            Item::Real(value) if value.is_nan() => *cell = Cell::Null,
            Item::Real(value) => *cell = Cell::Real(value),
            Item::Text(span) => match std::str::from_utf8(self.items.bytes(span)) {
                Ok(text) => self.builder.set_text(field, text),
                Err(_) => *cell = blob(span),
            },
            Item::Extension(TIMESTAMP, span) => *cell = timestamp(self.items.bytes(span)).unwrap_or(blob(span)),
            Item::Binary(span) | Item::Extension(_, span) => *cell = blob(span),
            Item::Nil | Item::Array(_) | Item::Map(_) => *cell = Cell::Null,
        }
    }

    /// Sets a field to the JSON text of the map or array that begins at this offset.
    fn set_json(&mut self, field: usize, at: usize) -> Result<(), PayloadFault> {
        let from = self.builder.texts.len();
        self.items.at = at;
        write_json(&mut self.items, self.builder.texts, &mut self.builder.scratch.containers)?;
        self.builder.cells[field] = Cell::Json(from, self.builder.texts.len());
        Ok(())
    }
}
