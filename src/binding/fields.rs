//! The values that were read from payloads.

use super::Value;

/// The most memory that is kept, so that a single huge payload does not hold memory for ever.
const MAX_KEPT: usize = 4 << 20;

/// The values from the payloads of some messages, in memory that is used again.
#[derive(Debug, Default)]
pub struct Fields {
    cells: Vec<Cell>,
    /// The cells' texts. They are copied, so that their type proves that they are UTF-8.
    texts: String,
    scratch: Scratch,
}

/// The position of a message's values in [`Fields`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    first: usize,
    /// The payload is an object, so it has fields with names.
    object: bool,
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Boolean(bool),
    Integer(i64),
    Real(f64),
    /// Start and end in the texts.
    Text(usize, usize),
    /// A number that SQLite has no type for, as it is written: start and end in the texts. It is bound as text.
    Number(usize, usize),
    /// An object or array as JSON: start and end in the texts.
    Json(usize, usize),
    /// Start and end in the payload.
    Blob(usize, usize),
}

/// Memory of a reader while it reads.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The closing brackets of the objects and arrays that are open, outermost first. They are not on the thread's stack, because a
    /// payload may open a million of them.
    pub(super) ends: Vec<u8>,
    /// The open maps and arrays of a value that is written as JSON.
    pub(super) containers: Vec<Container>,
    /// A name with its escapes resolved. After [`PayloadFault::UnknownName`](super::PayloadFault::UnknownName), that name; after
    /// [`PayloadFault::NoObject`](super::PayloadFault::NoObject), the JSON Pointer of the value.
    pub(super) name: String,
    /// Keep all numbers of JSON as they are written.
    pub(super) verbatim: bool,
}

/// An open map or array.
#[derive(Debug)]
pub(super) struct Container {
    /// How many values or pairs are left in it.
    pub(super) left: u32,
    pub(super) map: bool,
}

/// One message's cells, all NULL at first, and the memory for filling them.
#[derive(Debug)]
pub(super) struct RowBuilder<'f> {
    pub(super) cells: &'f mut [Cell],
    pub(super) texts: &'f mut String,
    pub(super) scratch: &'f mut Scratch,
}

impl Fields {
    /// Removes all rows and keeps the memory, except what a single huge payload needed.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.texts.clear();
        self.texts.shrink_to(MAX_KEPT);
        self.scratch.clear();
        self.scratch.ends.shrink_to(MAX_KEPT);
        self.scratch.containers.shrink_to(MAX_KEPT / size_of::<Container>());
        self.scratch.name.shrink_to(MAX_KEPT);
    }

    /// Without rows. All numbers of JSON are kept as they are written, for an error.
    pub(super) fn verbatim() -> Self {
        Self { scratch: Scratch { verbatim: true, ..Scratch::default() }, ..Self::default() }
    }

    /// Adds a row of so many fields. `read` fills them and returns whether the payload is an object. After its error there is no row.
    pub(super) fn add<E>(
        &mut self,
        fields: usize,
        read: impl FnOnce(RowBuilder<'_>) -> Result<bool, E>,
    ) -> Result<Row, E> {
        let (first, texts) = (self.cells.len(), self.texts.len());
        self.cells.resize(first + fields, Cell::Null);
        self.scratch.clear();
        let builder =
            RowBuilder { cells: &mut self.cells[first..], texts: &mut self.texts, scratch: &mut self.scratch };
        match read(builder) {
            Ok(object) => Ok(Row { first, object }),
            Err(error) => {
                self.cells.truncate(first);
                self.texts.truncate(texts);
                Err(error)
            }
        }
    }

    /// A row's cell for the field with this number, and the texts of all cells.
    pub(super) fn cell(&mut self, row: Row, field: usize) -> (&mut Cell, &mut String) {
        (&mut self.cells[row.first + field], &mut self.texts)
    }

    /// The name, or the JSON Pointer, that the last payload was refused for.
    pub(super) fn refused_name(&self) -> &str {
        &self.scratch.name
    }

    /// A row's field with this number.
    pub(super) fn value<'a>(&'a self, row: Row, field: usize, payload: &'a [u8]) -> Value<'a> {
        match self.cells[row.first + field] {
            Cell::Null => Value::Null,
            Cell::Boolean(value) => Value::Integer(value.into()),
            Cell::Integer(value) => Value::Integer(value),
            Cell::Real(value) => Value::Real(value),
            Cell::Text(from, to) | Cell::Number(from, to) | Cell::Json(from, to) => Value::Text(&self.texts[from..to]),
            Cell::Blob(from, to) => Value::Blob(&payload[from..to]),
        }
    }
}

impl Scratch {
    /// Sets the name.
    pub(super) fn set_name(&mut self, name: &str) {
        self.name.clear();
        self.name.push_str(name);
    }

    fn clear(&mut self) {
        self.ends.clear();
        self.containers.clear();
        self.name.clear();
    }
}

impl Row {
    /// Whether the payload is an object.
    pub(super) fn is_of_object(self) -> bool {
        self.object
    }

    /// The same row, as if the payload were an object.
    pub(super) fn as_of_object(self) -> Self {
        Self { object: true, ..self }
    }
}

impl RowBuilder<'_> {
    /// Sets a field to this text. Cells are filled in place: making a cell and moving it is slower by a third.
    pub(super) fn set_text(&mut self, field: usize, text: &str) {
        let from = self.texts.len();
        self.texts.push_str(text);
        self.cells[field] = Cell::Text(from, self.texts.len());
    }

    /// Sets a field to a number that SQLite has no type for, as it is written.
    pub(super) fn set_number_text(&mut self, field: usize, number: &str) {
        let from = self.texts.len();
        self.texts.push_str(number);
        self.cells[field] = Cell::Number(from, self.texts.len());
    }

    /// Sets a field to the JSON text of an object or array.
    pub(super) fn set_json(&mut self, field: usize, json: &str) {
        let from = self.texts.len();
        self.texts.push_str(json);
        self.cells[field] = Cell::Json(from, self.texts.len());
    }
}
