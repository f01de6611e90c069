//! One event that is in no batch: a direct recorder's, a dead letter that is retried, a request.

use super::delivery::{Delivery, HeaderSpans, Headers, Span, append, append_headers, append_text, part, text};
use super::epoch::Mark;

/// An event that owns its memory and lends a `Delivery` of it. The memory is used again by the next event.
#[derive(Clone, Debug, Default)]
pub struct SingleEvent {
    mark: Mark,
    /// Subject and headers.
    text: String,
    bytes: Vec<u8>,
    headers: Vec<HeaderSpans>,
    subject: Span,
    payload: Span,
}

impl SingleEvent {
    /// Bytes of memory that stay with it for the next event; one large event must not hold its memory for ever.
    const RETAINED: usize = 128 << 10;

    /// An event with these parts.
    #[must_use]
    pub fn new<'h>(
        mark: Mark,
        subject: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        payload: &[u8],
    ) -> Self {
        let mut event = Self::default();
        event.replace(mark, subject, headers, payload);
        event
    }

    /// Holds another event from now on. Allocates only where the memory it has is too small.
    pub fn replace<'h>(
        &mut self,
        mark: Mark,
        subject: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        payload: &[u8],
    ) {
        self.text.clear();
        self.text.shrink_to(Self::RETAINED);
        self.bytes.clear();
        self.bytes.shrink_to(Self::RETAINED);
        self.headers.clear();
        self.headers.shrink_to(Self::RETAINED / size_of::<HeaderSpans>());
        self.mark = mark;
        append_headers(&mut self.text, &mut self.headers, headers);
        self.subject = append_text(&mut self.text, subject);
        self.payload = append(&mut self.bytes, payload);
    }

    /// The event, borrowed.
    #[must_use]
    pub fn delivery(&self) -> Delivery<'_> {
        Delivery {
            mark: self.mark,
            subject: text(&self.text, &self.subject),
            payload: part(&self.bytes, &self.payload),
            headers: Headers::new(&self.text, &self.headers),
            defect: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lends_what_it_was_given_last() {
        let mark = |sequence| Mark { sequence, published_ns: 7 };
        let large = vec![b'x'; 4 * SingleEvent::RETAINED];
        let mut event = SingleEvent::new(mark(1), "a.b", [("K", "v"), ("K", "w")], &large);
        let first = event.delivery();
        assert_eq!((first.mark, first.subject, first.payload), (mark(1), "a.b", &large[..]));
        assert_eq!(first.headers.iter().collect::<Vec<_>>(), [("K", "v"), ("K", "w")]);
        event.replace(mark(2), "c", [("L", "x")], b"two");
        let second = event.delivery();
        assert_eq!((second.mark, second.subject, second.payload), (mark(2), "c", &b"two"[..]));
        assert_eq!(second.headers.iter().collect::<Vec<_>>(), [("L", "x")]);
        assert!(second.defect.is_none() && event.bytes.capacity() <= SingleEvent::RETAINED);
    }

    #[test]
    fn the_next_event_uses_the_same_memory() {
        let mut event = SingleEvent::new(Mark::START, "a.b", [("K", "v")], b"four");
        let memory = (event.text.as_ptr(), event.bytes.as_ptr(), event.headers.as_ptr());
        event.replace(Mark::START, "a.c", [("L", "w")], b"five");
        assert_eq!((event.text.as_ptr(), event.bytes.as_ptr(), event.headers.as_ptr()), memory);
    }
}
