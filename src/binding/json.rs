//! Reads the needed values from JSON (RFC 8259), once from front to back.
//!
//! All of the payload is checked, but only needed values are kept. The thread's stack grows with the depth of the paths, never with
//! the depth of the payload.

use super::fields::{Cell, RowBuilder};
use super::path::{Named, Names, PathTree};
use super::payload_error::PayloadFault;
use crate::input_format::without_byte_order_mark;

/// Fills the cells of the values in `paths`. Returns whether the payload is an object.
pub(super) fn read(payload: &[u8], paths: &PathTree, builder: RowBuilder<'_>) -> Result<bool, PayloadFault> {
    let text = simdutf8::compat::from_utf8(payload)
        .map_err(|e| PayloadFault::At("bytes that are not UTF-8,", e.valid_up_to()))?;
    // RFC 8259 lets a reader skip a byte order mark.
    let at = text.len() - without_byte_order_mark(text).len();
    let mut reader = Reader { text, at, builder };
    let object = reader.token() == Some(b'{');
    reader.value(paths)?;
    if reader.token().is_some() { Err(reader.fault("extra data after its end,")) } else { Ok(object) }
}

struct Reader<'r> {
    text: &'r str,
    at: usize,
    builder: RowBuilder<'r>,
}

/// The content of a string, between its quotes.
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

    /// The next byte that is not white space.
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
    fn fault(&self, what: &'static str) -> PayloadFault {
        PayloadFault::At(if self.at == self.text.len() { "it ends too early," } else { what }, self.at)
    }

    /// Reads the next value, which has a node.
    fn value(&mut self, node: &PathTree) -> Result<(), PayloadFault> {
        let token = self.token();
        let from = self.at;
        if !node.is_leaf() {
            match (token, &node.expects_object) {
                (Some(b'{'), _) => self.object(node)?,
                (Some(b'['), Some(_)) if node.has_elements() => self.array(node)?,
                (Some(b'['), None) => self.array(node)?,
                (Some(b'n'), _) | (_, None) => return self.leaf(token, node.field),
                (_, Some(pointer)) => return Err(self.no_object(pointer, node.has_elements())),
            }
            if let Some(field) = node.field {
                self.builder.set_json(field, self.since(from));
            }
            return Ok(());
        }
        self.leaf(token, node.field)
    }

    /// Reads the next value, of which nothing within is needed.
    fn leaf(&mut self, token: Option<u8>, field: Option<usize>) -> Result<(), PayloadFault> {
        let Some(field) = field else { return self.skip() };
        let from = self.at;
        match token {
            Some(b'"') => {
                let quoted = self.quoted()?;
                self.set_string(field, quoted)?;
            }
            Some(b'-' | b'0'..=b'9') => {
                let whole = self.number()?;
                self.set_number(field, self.since(from), whole);
            }
            Some(b'{' | b'[') => {
                self.skip()?;
                self.builder.set_json(field, self.since(from));
            }
            _ => self.builder.cells[field] = self.word()?,
        }
        Ok(())
    }

    fn object(&mut self, node: &PathTree) -> Result<(), PayloadFault> {
        self.at += 1;
        if self.token() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut names = Names::of(node);
        loop {
            let name = self.name()?;
            match self.find(name, &mut names) {
                Named::Node(node) => self.value(node)?,
                Named::Unknown if node.closed => return Err(self.unknown(name)),
                Named::Unknown | Named::Repeated => self.skip()?,
            }
            if self.ends(b'}')? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, node: &PathTree) -> Result<(), PayloadFault> {
        self.at += 1;
        if self.token() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        for index in 0.. {
            match node.element(index) {
                Some(node) => self.value(node)?,
                None => self.skip()?,
            }
            if self.ends(b']')? {
                break;
            }
        }
        Ok(())
    }

    /// Reads the bracket `end` and returns true, or a comma and returns false.
    fn ends(&mut self, end: u8) -> Result<bool, PayloadFault> {
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

    /// Reads the name before a value, and the colon.
    fn name(&mut self) -> Result<Quoted, PayloadFault> {
        if self.token() != Some(b'"') {
            return Err(self.fault("a missing name"));
        }
        let name = self.quoted()?;
        if self.token() != Some(b':') {
            return Err(self.fault("a missing colon"));
        }
        self.at += 1;
        Ok(name)
    }

    fn find<'p>(&mut self, name: Quoted, names: &mut Names<'p>) -> Named<'p> {
        let raw = &self.text[name.from..name.to];
        if !name.escaped {
            return names.find(raw.as_bytes());
        }
        let resolved = &mut self.builder.scratch.name;
        resolved.clear();
        // A name with half a surrogate pair matches no parameter.
        if unescape(raw, resolved).is_err() {
            return Named::Unknown;
        }
        names.find(resolved.as_bytes())
    }

    /// The error for a name that has no node.
    #[cold]
    fn unknown(&mut self, name: Quoted) -> PayloadFault {
        let (raw, resolved) = (&self.text[name.from..name.to], &mut self.builder.scratch.name);
        resolved.clear();
        if unescape(raw, resolved).is_err() {
            resolved.clear();
            resolved.push_str(raw);
        }
        PayloadFault::UnknownName
    }

    /// The error for the next value, which is no object, or for what is no value.
    #[cold]
    fn no_object(&mut self, pointer: &str, or_array: bool) -> PayloadFault {
        if let Err(fault) = self.skip() {
            return fault;
        }
        self.builder.scratch.set_name(pointer);
        PayloadFault::NoObject { or_array }
    }

    /// Skips the next value.
    fn skip(&mut self) -> Result<(), PayloadFault> {
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
                    self.builder.scratch.ends.push(b'}');
                    if self.token() != Some(b'}') {
                        self.name()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    self.builder.scratch.ends.push(b']');
                    if self.token() != Some(b']') {
                        continue;
                    }
                }
                _ => {
                    self.word()?;
                }
            }
            loop {
                let Some(&end) = self.builder.scratch.ends.last() else { return Ok(()) };
                if self.ends(end)? {
                    self.builder.scratch.ends.pop();
                } else if end == b'}' {
                    self.name()?;
                    break;
                } else {
                    break;
                }
            }
        }
    }

    fn word(&mut self) -> Result<Cell, PayloadFault> {
        let words = [("true", Cell::Boolean(true)), ("false", Cell::Boolean(false)), ("null", Cell::Null)];
        let rest = &self.text.as_bytes()[self.at..];
        for (word, cell) in words {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(cell);
            }
        }
        Err(self.fault("a missing value"))
    }

    /// Skips a number. Returns whether it is written as an integer.
    fn number(&mut self) -> Result<bool, PayloadFault> {
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

    fn digits(&mut self) -> Result<(), PayloadFault> {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        if self.at == from { Err(self.fault("a missing digit")) } else { Ok(()) }
    }

    /// Skips a string.
    fn quoted(&mut self) -> Result<Quoted, PayloadFault> {
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
                                    return Err(self.fault("a missing hexadecimal digit"));
                                }
                                self.at += 1;
                            }
                        }
                        _ => return Err(self.fault("an unknown escape")),
                    }
                }
                _ => return Err(self.fault("a control character")),
            }
        }
    }

    fn set_string(&mut self, field: usize, quoted: Quoted) -> Result<(), PayloadFault> {
        let raw = &self.text[quoted.from..quoted.to];
        if !quoted.escaped {
            self.builder.set_text(field, raw);
            return Ok(());
        }
        let from = self.builder.texts.len();
        unescape(raw, self.builder.texts)
            .map_err(|at| PayloadFault::At("half a surrogate pair, which is not a character,", quoted.from + at))?;
        self.builder.cells[field] = Cell::Text(from, self.builder.texts.len());
        Ok(())
    }

    /// Sets a field to a number. A number outside of SQLite's types becomes text.
    fn set_number(&mut self, field: usize, number: &str, whole: bool) {
        if whole
            && !self.builder.scratch.verbatim
            && let Ok(value) = number.parse()
        {
            self.builder.cells[field] = Cell::Integer(value);
        } else if !whole
            && !self.builder.scratch.verbatim
            && let Some(value) = number.parse().ok().filter(|value: &f64| value.is_finite())
        {
            self.builder.cells[field] = Cell::Real(value);
        } else {
            self.builder.set_number_text(field, number);
        }
    }
}

/// The offset of the first quote, backslash or control character from `at` on.
fn special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let eight = u64::from_le_bytes(*eight);
        // Sets the highest bit of each byte that is less than `least`. After the first such byte, others may be set wrongly.
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

/// Resolves the escapes of a checked string. The error is the offset of half a surrogate pair.
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

/// The character of one `\u….` escape, or of two that are a pair, and their length.
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
