//! What was read of payloads.

use super::Value;

/// Beyond this much, memory is given back: a single huge payload needed it.
const KEPT: usize = 4 << 20;

/// What was read from the payloads of some messages: memory that is used again.
#[derive(Debug, Default)]
pub struct Fields {
    cells: Vec<Cell>,
    /// The cells' texts. They are copied, so that they are known to be UTF-8 when they are bound.
    texts: String,
    scratch: Scratch,
}

/// Where in [`Fields`] a message's are.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    first: usize,
    /// The payload is an object, so that it has fields with names.
    object: bool,
}

/// What was read of one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    /// From here to there in the texts.
    Text(usize, usize),
    /// From here to there in the payload.
    Blob(usize, usize),
    /// Half a surrogate pair, there in the payload. No row has one.
    Half(usize),
}

/// What a reader needs while it reads.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// What ends the objects and arrays that it is in, outermost first. It is here and not on the stack of the thread because
    /// a payload may open a million of them.
    pub(super) ends: Vec<u8>,
    /// The same for what becomes JSON.
    pub(super) levels: Vec<Level>,
    /// A name with its escapes resolved.
    pub(super) name: String,
}

/// A map or an array.
#[derive(Debug)]
pub(super) struct Level {
    /// How many values, or pairs of them, are left in it.
    pub(super) left: u32,
    pub(super) map: bool,
}

/// One message's cells, all NULL at first, and what it takes to fill them.
#[derive(Debug)]
pub(super) struct Sheet<'f> {
    pub(super) cells: &'f mut [Cell],
    pub(super) texts: &'f mut String,
    pub(super) scratch: &'f mut Scratch,
}

impl Fields {
    /// Forgets all rows and keeps the memory, but for what a single huge payload made it grow to.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.texts.clear();
        self.texts.shrink_to(KEPT);
        self.scratch.clear();
        self.scratch.ends.shrink_to(KEPT);
        self.scratch.levels.shrink_to(KEPT / size_of::<Level>());
        self.scratch.name.shrink_to(KEPT);
    }

    /// Adds a row of so many fields: all NULL, or what `read` makes of them; it says whether the payload is an object. Where it
    /// fails there is no row.
    pub(super) fn add<E>(&mut self, fields: usize, read: impl FnOnce(Sheet<'_>) -> Result<bool, E>) -> Result<Row, E> {
        let (first, texts) = (self.cells.len(), self.texts.len());
        self.cells.resize(first + fields, Cell::Null);
        self.scratch.clear();
        let sheet = Sheet { cells: &mut self.cells[first..], texts: &mut self.texts, scratch: &mut self.scratch };
        match read(sheet) {
            Ok(object) => Ok(Row { first, object }),
            Err(error) => {
                self.cells.truncate(first);
                self.texts.truncate(texts);
                Err(error)
            }
        }
    }

    /// A row's field with this number.
    pub(super) fn value<'a>(&'a self, row: Row, field: usize, payload: &'a [u8]) -> Value<'a> {
        match self.cells[row.first + field] {
            Cell::Null | Cell::Half(_) => Value::Null,
            Cell::Integer(value) => Value::Integer(value),
            Cell::Real(value) => Value::Real(value),
            Cell::Text(from, to) => Value::Text(&self.texts[from..to]),
            Cell::Blob(from, to) => Value::Blob(&payload[from..to]),
        }
    }
}

impl Scratch {
    fn clear(&mut self) {
        self.ends.clear();
        self.levels.clear();
        self.name.clear();
    }
}

impl Row {
    /// Whether the payload is an object.
    pub(super) fn is_of_object(self) -> bool {
        self.object
    }
}

impl Sheet<'_> {
    /// Sets a field to this text. Cells are filled in place: one that is made and then moved is slower by a third.
    pub(super) fn set_text(&mut self, field: usize, text: &str) {
        let from = self.texts.len();
        self.texts.push_str(text);
        self.cells[field] = Cell::Text(from, self.texts.len());
    }
}
