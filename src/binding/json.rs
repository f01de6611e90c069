//! Reads the places that are asked for from JSON (RFC 8259), once from front to back.
//!
//! All of the payload is checked, and nothing is built of what nobody asks for. The thread's stack grows only with the places
//! that are asked for, never with the payload.

use super::fields::{Cell, Sheet};
use super::path::Place;
use super::payload_error::Fault;

/// Fills the cells of the places that `root` asks for; says whether the payload is an object.
pub(super) fn read(payload: &[u8], root: &Place, sheet: Sheet<'_>) -> Result<bool, Fault> {
    let text = std::str::from_utf8(payload).map_err(|e| Fault::At("what is no UTF-8,", e.valid_up_to()))?;
    let mut reader = Reader { text, at: 0, sheet };
    let object = reader.token() == Some(b'{');
    reader.value(root)?;
    if reader.token().is_some() {
        return Err(reader.fault("something behind its end,"));
    }
    // Only now, for what another field of the same name has replaced does not count.
    let half = |cell: &Cell| if let Cell::Half(at) = cell { Some(*at) } else { None };
    match reader.sheet.cells.iter().find_map(half) {
        None => Ok(object),
        Some(at) => Err(Fault::At("half a surrogate pair, which is no character,", at)),
    }
}

struct Reader<'r> {
    text: &'r str,
    at: usize,
    sheet: Sheet<'r>,
}

/// What stands between the quotes of a string.
#[derive(Clone, Copy)]
struct Quoted {
    from: usize,
    to: usize,
    /// It has escapes.
    escaped: bool,
}

impl<'r> Reader<'r> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no white space.
    fn token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    fn since(&self, from: usize) -> &'r str {
        &self.text[from..self.at]
    }

    #[cold]
    fn fault(&self, what: &'static str) -> Fault {
        Fault::At(if self.at == self.text.len() { "it ends too early," } else { what }, self.at)
    }

    /// The next value, at a place that is asked for.
    fn value(&mut self, place: &Place) -> Result<(), Fault> {
        let token = self.token();
        let from = self.at;
        if !place.is_leaf() {
            place.forget(self.sheet.cells);
            match token {
                Some(b'{') => self.object(place)?,
                Some(b'[') => self.array(place)?,
                _ => return self.leaf(token, place.field),
            }
            if let Some(field) = place.field {
                self.sheet.set_text(field, self.since(from));
            }
            return Ok(());
        }
        self.leaf(token, place.field)
    }

    /// The next value, within which nothing is asked for.
    fn leaf(&mut self, token: Option<u8>, field: Option<usize>) -> Result<(), Fault> {
        let Some(field) = field else { return self.skip() };
        let from = self.at;
        match token {
            Some(b'"') => {
                let quoted = self.quoted()?;
                self.set_string(field, quoted);
            }
            Some(b'-' | b'0'..=b'9') => {
                let whole = self.number()?;
                self.set_number(field, self.since(from), whole);
            }
            Some(b'{' | b'[') => {
                self.skip()?;
                self.sheet.set_text(field, self.since(from));
            }
            _ => self.sheet.cells[field] = self.word()?,
        }
        Ok(())
    }

    fn object(&mut self, place: &Place) -> Result<(), Fault> {
        self.at += 1;
        if self.token() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut expected = 0;
        loop {
            let name = self.name()?;
            match self.named(name, place, &mut expected) {
                Some(place) => self.value(place)?,
                None => self.skip()?,
            }
            if self.ends(b'}')? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, place: &Place) -> Result<(), Fault> {
        self.at += 1;
        if self.token() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        for index in 0.. {
            match place.element(index) {
                Some(place) => self.value(place)?,
                None => self.skip()?,
            }
            if self.ends(b']')? {
                break;
            }
        }
        Ok(())
    }

    /// Whether the object or array that `end` ends does so here; else a comma is behind us.
    fn ends(&mut self, end: u8) -> Result<bool, Fault> {
        match self.token() {
            Some(b',') => {
                self.at += 1;
                Ok(false)
            }
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.fault(if end == b'}' { "neither , nor }" } else { "neither , nor ]" })),
        }
    }

    /// The name before a value, and the colon.
    fn name(&mut self) -> Result<Quoted, Fault> {
        if self.token() != Some(b'"') {
            return Err(self.fault("no name"));
        }
        let name = self.quoted()?;
        if self.token() != Some(b':') {
            return Err(self.fault("no colon"));
        }
        self.at += 1;
        Ok(name)
    }

    fn named<'p>(&mut self, name: Quoted, place: &'p Place, expected: &mut usize) -> Option<&'p Place> {
        let raw = &self.text[name.from..name.to];
        if !name.escaped {
            return place.named(raw.as_bytes(), expected);
        }
        let resolved = &mut self.sheet.scratch.name;
        resolved.clear();
        // What is no text is no parameter's name either.
        unescape(raw, resolved).ok()?;
        place.named(resolved.as_bytes(), expected)
    }

    /// Goes behind the next value.
    fn skip(&mut self) -> Result<(), Fault> {
        loop {
            match self.token() {
                Some(b'"') => {
                    self.quoted()?;
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                }
                Some(b'{') => {
                    self.at += 1;
                    self.sheet.scratch.ends.push(b'}');
                    if self.token() != Some(b'}') {
                        self.name()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    self.sheet.scratch.ends.push(b']');
                    if self.token() != Some(b']') {
                        continue;
                    }
                }
                _ => {
                    self.word()?;
                }
            }
            loop {
                let Some(&end) = self.sheet.scratch.ends.last() else { return Ok(()) };
                if self.ends(end)? {
                    self.sheet.scratch.ends.pop();
                } else if end == b'}' {
                    self.name()?;
                    break;
                } else {
                    break;
                }
            }
        }
    }

    fn word(&mut self) -> Result<Cell, Fault> {
        let words = [("true", Cell::Integer(1)), ("false", Cell::Integer(0)), ("null", Cell::Null)];
        let rest = &self.text.as_bytes()[self.at..];
        for (word, cell) in words {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(cell);
            }
        }
        Err(self.fault("no value"))
    }

    /// Goes behind a number; says whether it is written as an integer.
    fn number(&mut self) -> Result<bool, Fault> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut whole = true;
        if self.byte() == Some(b'.') {
            whole = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            whole = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(whole)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        if self.at == from { Err(self.fault("no digit")) } else { Ok(()) }
    }

    /// Goes behind a string.
    fn quoted(&mut self) -> Result<Quoted, Fault> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        let (from, mut escaped) = (self.at, false);
        loop {
            self.at = special(bytes, self.at);
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Quoted { from, to: self.at - 1, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    match self.byte() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.byte().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                                    return Err(self.fault("no hexadecimal digit"));
                                }
                                self.at += 1;
                            }
                        }
                        _ => return Err(self.fault("no escape")),
                    }
                }
                _ => return Err(self.fault("a control character")),
            }
        }
    }

    fn set_string(&mut self, field: usize, quoted: Quoted) {
        let raw = &self.text[quoted.from..quoted.to];
        if !quoted.escaped {
            return self.sheet.set_text(field, raw);
        }
        let from = self.sheet.texts.len();
        self.sheet.cells[field] = match unescape(raw, self.sheet.texts) {
            Ok(()) => Cell::Text(from, self.sheet.texts.len()),
            Err(at) => Cell::Half(quoted.from + at),
        };
    }

    /// A number that SQLite has none for is text.
    fn set_number(&mut self, field: usize, number: &str, whole: bool) {
        if whole && let Ok(value) = number.parse() {
            self.sheet.cells[field] = Cell::Integer(value);
        } else if !whole && let Some(value) = number.parse().ok().filter(|value: &f64| value.is_finite()) {
            self.sheet.cells[field] = Cell::Real(value);
        } else {
            self.sheet.set_text(field, number);
        }
    }
}

/// Where, from `at` on, the first quote, backslash or control character is.
fn special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let eight = u64::from_le_bytes(*eight);
        // The highest bit of a byte that is below so much; of those behind the first one it may be wrong.
        let below = |bytes: u64, least: u8| bytes.wrapping_sub(ONES * u64::from(least)) & !bytes;
        let is = |byte: u8| below(eight ^ (ONES * u64::from(byte)), 1);
        let found = (below(eight, b' ') | is(b'"') | is(b'\\')) & HIGHS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    bytes[at..].iter().position(|&byte| byte < b' ' || byte == b'"' || byte == b'\\').map_or(bytes.len(), |n| at + n)
}

/// Resolves the escapes of a string that has been checked. The error is where half a surrogate pair is.
fn unescape(raw: &str, into: &mut String) -> Result<(), usize> {
    let mut at = 0;
    while let Some(plain) = raw[at..].find('\\') {
        into.push_str(&raw[at..at + plain]);
        at += plain;
        let (character, length) = match raw.as_bytes()[at + 1] {
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'u' => character(&raw[at..]).ok_or(at)?,
            itself => (char::from(itself), 2),
        };
        into.push(character);
        at += length;
    }
    into.push_str(&raw[at..]);
    Ok(())
}

/// The character that `\u….` stands for, or two of them, and their length.
fn character(escape: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = escape.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let first = unit(0)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 6));
    }
    let high = first.checked_sub(0xd800).filter(|high| *high < 0x400)?;
    let low = unit(6)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    char::from_u32(0x1_0000 + (high << 10) + low).map(|character| (character, 12))
}
