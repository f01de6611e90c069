//! The items of MessagePack: <https://github.com/msgpack/msgpack/blob/master/spec.md>.

use crate::binding::payload_error::PayloadFault;

/// A value, or the beginning of a map or array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item {
    Nil,
    Boolean(bool),
    Integer(i64),
    /// An integer above all `i64`.
    Unsigned(u64),
    Real(f64),
    Text(Span),
    Binary(Span),
    /// Its type and its data.
    Extension(i8, Span),
    /// The number of values that follow.
    Array(u32),
    /// The number of pairs that follow.
    Map(u32),
}

/// Start and end in the payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Reads items one after the other.
#[derive(Debug)]
pub(super) struct Items<'p> {
    payload: &'p [u8],
    /// How much has been read.
    pub(super) at: usize,
}

impl<'p> Items<'p> {
    pub(super) fn new(payload: &'p [u8]) -> Self {
        Self { payload, at: 0 }
    }

    /// The bytes of a span.
    pub(super) fn bytes(&self, span: Span) -> &'p [u8] {
        &self.payload[span.from..span.to]
    }

    /// The text of a name that is a str or bin.
    pub(super) fn name(&self, span: Span) -> Result<&'p str, PayloadFault> {
        std::str::from_utf8(self.bytes(span)).map_err(|_| PayloadFault::At("a name that is not UTF-8,", span.from))
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.payload.len()
    }

    #[allow(clippy::inline_always, reason = "passing an item through memory costs more than reading it")]
    #[inline(always)]
    pub(super) fn next(&mut self) -> Result<Item, PayloadFault> {
        let [marker] = self.take()?;
        Ok(match marker {
            0x00..=0x7f => Item::Integer(marker.into()),
            0x80..=0x8f => Item::Map(u32::from(marker & 0xf)),
            0x90..=0x9f => Item::Array(u32::from(marker & 0xf)),
            0xa0..=0xbf => Item::Text(self.span(u32::from(marker & 0x1f))?),
            0xc0 => Item::Nil,
            0xc1 => return Err(PayloadFault::At("byte c1, which is never used,", self.at - 1)),
            0xc2 | 0xc3 => Item::Boolean(marker == 0xc3),
            0xc4..=0xc6 => {
                let length = self.length(marker - 0xc4)?;
                Item::Binary(self.span(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(marker - 0xc7)?;
                self.extension(length)?
            }
            0xca => Item::Real(f32::from_be_bytes(self.take()?).into()),
            0xcb => Item::Real(f64::from_be_bytes(self.take()?)),
            0xcc => Item::Integer(u8::from_be_bytes(self.take()?).into()),
            0xcd => Item::Integer(u16::from_be_bytes(self.take()?).into()),
            0xce => Item::Integer(u32::from_be_bytes(self.take()?).into()),
            0xcf => {
                let value = u64::from_be_bytes(self.take()?);
                i64::try_from(value).map_or(Item::Unsigned(value), Item::Integer)
            }
            0xd0 => Item::Integer(i8::from_be_bytes(self.take()?).into()),
            0xd1 => Item::Integer(i16::from_be_bytes(self.take()?).into()),
            0xd2 => Item::Integer(i32::from_be_bytes(self.take()?).into()),
            0xd3 => Item::Integer(i64::from_be_bytes(self.take()?)),
            0xd4..=0xd8 => self.extension(1 << (marker - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(marker - 0xd9)?;
                Item::Text(self.span(length)?)
            }
            0xdc | 0xdd => Item::Array(self.length(marker - 0xdb)?),
            0xde | 0xdf => Item::Map(self.length(marker - 0xdd)?),
            0xe0..=0xff => Item::Integer(i8::from_be_bytes([marker]).into()),
        })
    }

    /// Skips so many values with their content.
    pub(super) fn skip(&mut self, values: u64) -> Result<(), PayloadFault> {
        let mut left = values;
        while left > 0 {
            // Each value takes at least a byte, so `left` cannot overflow either.
            if left > (self.payload.len() - self.at) as u64 {
                return Err(self.end());
            }
            left = left - 1 + self.next()?.values();
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], PayloadFault> {
        let bytes = self.payload[self.at..].first_chunk().ok_or_else(|| self.end())?;
        self.at += N;
        Ok(*bytes)
    }

    /// A length of one, two or four bytes.
    fn length(&mut self, doublings: u8) -> Result<u32, PayloadFault> {
        Ok(match doublings {
            0 => u8::from_be_bytes(self.take()?).into(),
            1 => u16::from_be_bytes(self.take()?).into(),
            _ => u32::from_be_bytes(self.take()?),
        })
    }

    fn span(&mut self, length: u32) -> Result<Span, PayloadFault> {
        let (from, length) = (self.at, length as usize);
        if self.payload.len() - from < length {
            return Err(self.end());
        }
        self.at += length;
        Ok(Span { from, to: self.at })
    }

    fn extension(&mut self, length: u32) -> Result<Item, PayloadFault> {
        let kind = i8::from_be_bytes(self.take()?);
        Ok(Item::Extension(kind, self.span(length)?))
    }

    #[cold]
    fn end(&self) -> PayloadFault {
        PayloadFault::At("it ends too early,", self.payload.len())
    }
}

impl Item {
    /// How many values its content has.
    pub(super) fn values(self) -> u64 {
        match self {
            Self::Array(values) => values.into(),
            Self::Map(pairs) => u64::from(pairs) * 2,
            _ => 0,
        }
    }
}
