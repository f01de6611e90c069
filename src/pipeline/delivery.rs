//! A received event, borrowed from the memory that holds it: a [`Batch`](super::Batch) or a
//! [`SingleEvent`](super::SingleEvent).

use std::ops::Range;

use super::epoch::Mark;

/// A received event.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Its position in the stream.
    pub mark: Mark,
    /// Its subject.
    pub subject: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// Its headers.
    pub headers: Headers<'a>,
    /// What is wrong with it, where that is known before it reaches the database. Such a delivery becomes a dead letter.
    pub defect: Option<Defect<'a>>,
}

/// What is wrong with a delivery that goes straight to the dead letters.
#[derive(Clone, Copy, Debug)]
pub struct Defect<'a> {
    /// The reason that the dead letter gets.
    pub reason: &'a str,
    /// The header block as received: it could not be parsed.
    pub raw_headers: &'a [u8],
}

/// The headers of a delivery, in order.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    text: &'a str,
    spans: &'a [HeaderSpans],
}

impl<'a> Headers<'a> {
    pub(super) fn new(text: &'a str, spans: &'a [HeaderSpans]) -> Self {
        Self { text, spans }
    }

    /// Names and values, in order. A name may occur several times.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.spans.iter().map(move |(name, value)| (text(self.text, name), text(self.text, value)))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.spans.is_empty()
    }
}

/// A part of a buffer.
pub(super) type Span = Range<u32>;

/// The spans of a header's name and value.
pub(super) type HeaderSpans = (Span, Span);

/// Appends bytes to the buffer and returns their span.
pub(super) fn append(buffer: &mut Vec<u8>, part: &[u8]) -> Span {
    let start = length(buffer.len());
    buffer.extend_from_slice(part);
    start..length(buffer.len())
}

/// Appends text to the buffer and returns its span. Text has a buffer of its own, so that reading it does not check again that it
/// is UTF-8.
pub(super) fn append_text(buffer: &mut String, part: &str) -> Span {
    let start = length(buffer.len());
    buffer.push_str(part);
    start..length(buffer.len())
}

/// Appends names and values to the buffer, and their spans to `spans`.
pub(super) fn append_headers<'h>(
    buffer: &mut String,
    spans: &mut Vec<HeaderSpans>,
    headers: impl IntoIterator<Item = (&'h str, &'h str)>,
) {
    for (name, value) in headers {
        spans.push((append_text(buffer, name), append_text(buffer, value)));
    }
}

/// Lengths fit 32 bits: the configuration limits a batch to 1 GiB, the server an event to 64 MiB, and this crate an event to
/// 128 MiB.
pub(super) fn length(length: usize) -> u32 {
    u32::try_from(length).expect("a batch stays below 4 GiB")
}

pub(super) fn range(span: &Span) -> Range<usize> {
    span.start as usize..span.end as usize
}

pub(super) fn part<'a>(bytes: &'a [u8], span: &Span) -> &'a [u8] {
    &bytes[range(span)]
}

pub(super) fn text<'a>(text: &'a str, span: &Span) -> &'a str {
    &text[range(span)]
}
