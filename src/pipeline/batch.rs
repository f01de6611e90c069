//! The deliveries that one transaction commits, in buffers that they share.
//!
//! A delivery needs no allocation of its own: its subject, headers and payload are appended to the batch's buffers. The intake
//! and the writers pass batches back and forth for as long as the pipeline runs, so the buffers are used again.

use std::ops::Range;
use std::sync::Arc;

use super::delivery::{
    Defect, Delivery, HeaderSpans, Headers, Span, append, append_headers, append_text, length, part, range, text,
};
use super::epoch::{Epoch, Mark};
use super::gaps::Gap;

/// How large a batch may grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most this many deliveries.
    pub events: usize,
    /// At most this many bytes; a batch may exceed it where it has a single, larger delivery.
    pub bytes: usize,
}

/// The deliveries of one transaction, in order, all of one epoch.
#[derive(Debug)]
pub struct Batch {
    limits: Limits,
    epoch: Option<Arc<Epoch>>,
    before: Mark,
    ticket: u64,
    /// The next delivery does not fit, so the batch counts as full.
    sealed: bool,
    /// Subjects and headers.
    text: String,
    /// Payloads, and headers that could not be parsed.
    bytes: Vec<u8>,
    headers: Vec<HeaderSpans>,
    slots: Vec<Slot>,
    /// Gaps of the stream, each with the index of the delivery that it is committed with.
    gaps: Vec<(usize, Gap)>,
}

#[derive(Debug)]
struct Slot {
    mark: Mark,
    subject: Span,
    payload: Span,
    headers: Span,
    /// Indices into `headers`: one entry that has the reason, in `text`, and the raw headers, in `bytes`.
    defect: Option<Span>,
}

impl Batch {
    /// Bytes that a header takes in a batch beside its name and value.
    pub const HEADER: usize = size_of::<HeaderSpans>();

    /// An empty batch with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            epoch: None,
            before: Mark::START,
            ticket: 0,
            sealed: false,
            text: String::new(),
            bytes: Vec::with_capacity(limits.bytes.min(1 << 20)),
            headers: Vec::new(),
            slots: Vec::with_capacity(limits.events.min(1 << 16)),
            gaps: Vec::new(),
        }
    }

    /// Sets other limits. Call it while the batch is empty.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether a delivery of this many bytes fits. In an empty batch any delivery fits.
    #[must_use]
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.slots.is_empty() || (self.slots.len() < self.limits.events && self.bytes() + bytes <= self.limits.bytes)
    }

    /// Whether no further delivery fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sealed || self.slots.len() >= self.limits.events || self.bytes() >= self.limits.bytes
    }

    /// Marks the batch as full: the next delivery does not fit.
    pub fn seal(&mut self) {
        self.sealed = true;
    }

    /// Whether it has neither deliveries nor gaps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.gaps.is_empty()
    }

    /// Whether it has gaps and no delivery.
    #[must_use]
    pub fn has_only_gaps(&self) -> bool {
        self.slots.is_empty() && !self.gaps.is_empty()
    }

    /// Whether one of its deliveries has a defect.
    #[must_use]
    pub fn has_defects(&self) -> bool {
        self.slots.iter().any(|slot| slot.defect.is_some())
    }

    /// Its size in bytes: subjects, payloads, headers, and [`Batch::HEADER`] for each header.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len() + self.bytes.len() + self.headers.len() * Self::HEADER
    }

    /// The number of its deliveries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Sets the epoch of the deliveries that follow, and the mark before the first of them.
    ///
    /// # Panics
    ///
    /// When the batch is not empty: one transaction advances one epoch.
    pub fn begin(&mut self, epoch: Arc<Epoch>, before: Mark) {
        assert!(self.is_empty(), "a batch of two epochs");
        self.epoch = Some(epoch);
        self.before = before;
    }

    /// Adds a delivery.
    pub fn push<'h>(
        &mut self,
        mark: Mark,
        subject: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        payload: &[u8],
    ) {
        let first_header = length(self.headers.len());
        append_headers(&mut self.text, &mut self.headers, headers);
        let headers = first_header..length(self.headers.len());
        self.add(mark, subject, headers, payload, None);
    }

    /// Adds a delivery with a defect: it becomes a dead letter.
    pub fn push_defect(&mut self, mark: Mark, subject: &str, defect: Defect<'_>, payload: &[u8]) {
        let at = length(self.headers.len());
        let reason = append_text(&mut self.text, defect.reason);
        let raw_headers = append(&mut self.bytes, defect.raw_headers);
        self.headers.push((reason, raw_headers));
        self.add(mark, subject, at..at, payload, Some(at..at + 1));
    }

    /// Adds a range of sequences that the stream does not have. It is committed with the next delivery; if none follows in this
    /// batch, with the last one.
    pub fn push_gap(&mut self, gap: Gap) {
        self.gaps.push((self.slots.len(), gap));
    }

    /// The gaps that are committed with these deliveries.
    pub fn gaps(&self, span: &Range<usize>) -> impl Iterator<Item = Gap> + '_ {
        let to = if span.end == self.slots.len() { usize::MAX } else { span.end };
        let from = self.gaps.partition_point(|(index, _)| *index < span.start);
        self.gaps[from..].iter().take_while(move |(index, _)| *index < to).map(|(_, gap)| *gap)
    }

    fn add(&mut self, mark: Mark, subject: &str, headers: Span, payload: &[u8], defect: Option<Span>) {
        // In most batches one subject occurs many times: consecutive deliveries share its bytes.
        let same = self.slots.last().filter(|slot| text(&self.text, &slot.subject) == subject);
        let subject = match same.map(|slot| slot.subject.clone()) {
            Some(span) => span,
            None => append_text(&mut self.text, subject),
        };
        let payload = append(&mut self.bytes, payload);
        self.slots.push(Slot { mark, subject, payload, headers, defect });
    }

    /// Moves all deliveries of `next` into this batch, after its own. Returns `false` and moves nothing where not all of them
    /// fit; the batch is full then.
    ///
    /// # Panics
    ///
    /// When they are of another epoch, or do not follow this batch's deliveries directly.
    pub fn append(&mut self, next: &mut Self) -> bool {
        if self.slots.len() + next.slots.len() > self.limits.events || self.bytes() + next.bytes() > self.limits.bytes {
            self.seal();
            return false;
        }
        assert!(self.epoch == next.epoch && self.after() == next.before, "a batch of two epochs");
        let (text, bytes) = (length(self.text.len()), length(self.bytes.len()));
        let headers = length(self.headers.len());
        let slots = self.slots.len();
        self.gaps.extend(next.gaps.iter().map(|(index, gap)| (index + slots, *gap)));
        let moved = |span: &Span, by: u32| span.start + by..span.end + by;
        self.text.push_str(&next.text);
        self.bytes.extend_from_slice(&next.bytes);
        self.headers.extend(next.headers.iter().map(|(name, value)| (moved(name, text), moved(value, text))));
        for defect in next.slots.iter().filter_map(|slot| slot.defect.as_ref()) {
            let entry = (defect.start + headers) as usize;
            self.headers[entry].1 = moved(&next.headers[defect.start as usize].1, bytes);
        }
        self.slots.extend(next.slots.iter().map(|slot| Slot {
            mark: slot.mark,
            subject: moved(&slot.subject, text),
            payload: moved(&slot.payload, bytes),
            headers: moved(&slot.headers, headers),
            defect: slot.defect.as_ref().map(|at| moved(at, headers)),
        }));
        next.clear();
        true
    }

    /// The delivery at this index.
    ///
    /// # Panics
    ///
    /// When the index is out of bounds.
    #[must_use]
    pub fn delivery(&self, index: usize) -> Delivery<'_> {
        let slot = &self.slots[index];
        Delivery {
            mark: slot.mark,
            subject: text(&self.text, &slot.subject),
            payload: part(&self.bytes, &slot.payload),
            headers: Headers::new(&self.text, &self.headers[range(&slot.headers)]),
            defect: slot.defect.as_ref().map(|at| {
                let (reason, raw) = &self.headers[at.start as usize];
                Defect { reason: text(&self.text, reason), raw_headers: part(&self.bytes, raw) }
            }),
        }
    }

    /// The epoch; `None` where no ledger entry is to be advanced.
    #[must_use]
    pub fn epoch(&self) -> Option<&Arc<Epoch>> {
        self.epoch.as_ref()
    }

    /// The mark before the delivery at this index.
    #[must_use]
    pub fn before(&self, index: usize) -> Mark {
        if index == 0 { self.before } else { self.slots[index - 1].mark }
    }

    /// The mark of the last delivery.
    #[must_use]
    pub fn after(&self) -> Mark {
        self.before(self.slots.len())
    }

    /// When its deliveries were published, in nanoseconds since 1970.
    pub(super) fn published_ns(&self) -> impl Iterator<Item = i64> + '_ {
        self.slots.iter().map(|slot| slot.mark.published_ns)
    }

    /// Its number in the order of commits.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    pub(super) fn set_ticket(&mut self, ticket: u64) {
        self.ticket = ticket;
    }

    /// Empties it. Keeps its memory up to three times the limit: what one large event needed is freed.
    pub fn clear(&mut self) {
        self.epoch = None;
        self.sealed = false;
        self.text.clear();
        self.text.shrink_to(self.limits.bytes);
        self.bytes.clear();
        self.bytes.shrink_to(self.limits.bytes.saturating_mul(2));
        self.headers.clear();
        self.headers.shrink_to(self.limits.bytes / Self::HEADER);
        self.slots.clear();
        self.gaps.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(sequence: u64) -> Mark {
        Mark { sequence, published_ns: 7 }
    }

    #[test]
    fn deliveries_come_out_unchanged() {
        let mut batch = Batch::new(Limits { events: 3, bytes: 1000 });
        batch.push(mark(1), "a.b", [("K", "v"), ("K", "w")], b"one");
        batch.push(mark(2), "a.b", [], b"");
        batch.push_defect(mark(5), "c", Defect { reason: "odd", raw_headers: b"\xff" }, b"three");
        let first = batch.delivery(0);
        assert_eq!((first.subject, first.payload, first.mark), ("a.b", &b"one"[..], mark(1)));
        assert_eq!(first.headers.iter().collect::<Vec<_>>(), [("K", "v"), ("K", "w")]);
        assert!(batch.delivery(1).headers.is_empty() && batch.delivery(1).defect.is_none());
        let third = batch.delivery(2);
        assert_eq!((third.subject, third.payload), ("c", &b"three"[..]));
        assert_eq!(third.defect.map(|d| (d.reason, d.raw_headers)), Some(("odd", &b"\xff"[..])));
        assert_eq!((batch.before(0), batch.before(2), batch.after()), (Mark::START, mark(2), mark(5)));
        assert!(batch.is_full());
    }

    #[test]
    fn appended_deliveries_follow_unchanged() {
        let limits = Limits { events: 4, bytes: 1000 };
        let (mut batch, mut next) = (Batch::new(limits), Batch::new(limits));
        batch.push(mark(1), "a.b", [("K", "v")], b"one");
        let fill = |next: &mut Batch| {
            next.before = mark(1);
            next.push(mark(2), "a.c", [("L", "w"), ("M", "x")], b"two");
            next.push_defect(mark(3), "d", Defect { reason: "odd", raw_headers: b"\xff" }, b"three");
        };
        fill(&mut next);
        assert!(batch.append(&mut next) && next.is_empty());
        let second = batch.delivery(1);
        assert_eq!((second.subject, second.payload, second.mark), ("a.c", &b"two"[..], mark(2)));
        assert_eq!(second.headers.iter().collect::<Vec<_>>(), [("L", "w"), ("M", "x")]);
        assert_eq!(batch.delivery(0).headers.iter().collect::<Vec<_>>(), [("K", "v")]);
        assert_eq!(batch.delivery(2).defect.map(|d| (d.reason, d.raw_headers)), Some(("odd", &b"\xff"[..])));
        assert_eq!((batch.len(), batch.before(1), batch.after()), (3, mark(1), mark(3)));
        fill(&mut next);
        assert!(!batch.is_full());
        assert!(!batch.append(&mut next) && next.len() == 2, "there is room for one");
        assert!(batch.is_full(), "the next delivery does not fit");
        batch.clear();
        assert!(!batch.is_full());
    }

    #[test]
    fn a_gap_is_committed_with_the_delivery_after_it() {
        let gap = |first, last| Gap::of(first, last).expect("not empty");
        let mut batch = Batch::new(Limits { events: 10, bytes: 1000 });
        batch.push_gap(gap(1, 3));
        assert!(!batch.is_empty(), "a gap must be committed too");
        batch.push(mark(4), "a", [], b"");
        batch.push(mark(5), "a", [], b"");
        batch.push_gap(gap(6, 7));
        batch.push(mark(8), "a", [], b"");
        batch.push_gap(gap(2, 2));
        let of = |span: Range<usize>| batch.gaps(&span).collect::<Vec<_>>();
        assert_eq!(of(0..3), [gap(1, 3), gap(6, 7), gap(2, 2)]);
        assert_eq!((of(0..1), of(1..2)), (vec![gap(1, 3)], vec![]));
        assert_eq!(of(2..3), [gap(6, 7), gap(2, 2)], "no delivery follows the last gap");
        let mut first = Batch::new(Limits { events: 10, bytes: 1000 });
        first.push(mark(0), "a", [], b"");
        batch.before = mark(0);
        assert!(first.append(&mut batch));
        assert_eq!(first.gaps(&(1..2)).collect::<Vec<_>>(), [gap(1, 3)]);
    }

    #[test]
    fn only_an_empty_batch_takes_more_than_its_limit() {
        let mut batch = Batch::new(Limits { events: 10, bytes: 8 });
        assert!(batch.has_room_for(100));
        batch.push(mark(1), "a", [], b"1234");
        assert!(batch.has_room_for(3) && !batch.has_room_for(4));
        batch.clear();
        assert!(batch.is_empty() && batch.has_room_for(100));
    }
}
