//! The deliveries that one transaction commits, laid out in one piece of memory.
//!
//! A delivery costs no allocation of its own: its subject, headers and payload are copied behind each other into the
//! batch's buffer, which goes round between the intake and a writer for as long as the pipeline lives.

use std::ops::Range;
use std::sync::Arc;

use super::gaps::{Gap, Gaps};

/// One life of a stream: from its creation, or from a rollback of its sequences, to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The stream's name; see [`Epoch::origin`] for events that come from none.
    pub stream: String,
    /// Counts the lives of this stream in this database, from 1.
    pub number: u32,
    /// When the stream was created, in the server's own words: compared, never interpreted.
    pub created: String,
    /// Where it begins: behind the last event of an earlier epoch that it goes on from. [`Mark::START`] for most, and for
    /// every epoch that has an entry in the ledger already.
    pub begins: Mark,
}

/// Stands where a stream's name does, for events that come from none. No stream can have a name with a dot.
const LOCAL: &str = ".local";

impl Epoch {
    /// An epoch that begins at the stream's start.
    #[must_use]
    pub fn new(stream: impl Into<String>, number: u32, created: impl Into<String>) -> Self {
        Self { stream: stream.into(), number, created: created.into(), begins: Mark::START }
    }

    /// The epoch of events that come from no stream, from one start of their intake to the next: the intake numbers them
    /// itself, from 1. The ledger needs it all the same, or nobody could tell whether a commit without an answer succeeded.
    #[must_use]
    pub fn local(number: u32, created: String) -> Self {
        Self::new(LOCAL, number, created)
    }

    /// The name under which the ledger keeps local epochs.
    #[must_use]
    pub fn local_name() -> &'static str {
        LOCAL
    }

    /// The stream that its events came from, if they came from one.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        (self.stream != LOCAL).then_some(self.stream.as_str())
    }
}

/// A place in an epoch: the stream sequence of an event and when the stream took it.
///
/// A sequence alone does not tell events apart, for sequences can be used again; the time beside it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The stream sequence; 0 before the first event.
    pub sequence: u64,
    /// Publish time in nanoseconds since 1970.
    pub published_ns: i64,
}

impl Mark {
    /// Before the first event of an epoch.
    pub const START: Self = Self { sequence: 0, published_ns: 0 };
}

/// What is known of one epoch: how far it was read, and what was missing on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochProgress {
    /// The epoch.
    pub epoch: Epoch,
    /// The last event of it that was taken in.
    pub mark: Mark,
    /// Sequences up to there that the stream did not have when they were due, so that they are not in the database.
    pub gaps: Gaps,
}

impl EpochProgress {
    /// Whether this event was taken in, as far as its place tells.
    #[must_use]
    pub fn has(&self, mark: Mark) -> bool {
        let reached = mark.sequence <= self.mark.sequence && mark.published_ns <= self.mark.published_ns;
        reached && !self.gaps.contains(mark.sequence)
    }
}

/// How large a batch may grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most this many deliveries.
    pub events: usize,
    /// At most this many bytes, unless the batch's only delivery is larger.
    pub bytes: usize,
}

/// The deliveries of one transaction, in the order they came, all of one epoch.
#[derive(Debug)]
pub struct Batch {
    limits: Limits,
    epoch: Option<Arc<Epoch>>,
    before: Mark,
    ticket: u64,
    /// What comes next does not fit.
    sealed: bool,
    bytes: Vec<u8>,
    headers: Vec<Pair>,
    slots: Vec<Slot>,
    /// What the stream did not have, each with the index of the delivery that it is committed with.
    gaps: Vec<(usize, Gap)>,
}

type Span = Range<u32>;

/// Where the name and the value of a header stand.
type Pair = (Span, Span);

#[derive(Debug)]
struct Slot {
    mark: Mark,
    subject: Span,
    payload: Span,
    headers: Span,
    defect: Option<Span>,
}

/// An event as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Its place in the stream.
    pub mark: Mark,
    /// Its subject.
    pub subject: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// Its headers.
    pub headers: Headers<'a>,
    /// Why it cannot be stored as it should be, where that is known before the database has seen it.
    pub defect: Option<Defect<'a>>,
}

/// A delivery that goes straight to the dead letters.
#[derive(Clone, Copy, Debug)]
pub struct Defect<'a> {
    /// What is wrong with it.
    pub reason: &'a str,
    /// Its header block as it came, for it could not be read.
    pub raw_headers: &'a [u8],
}

/// The headers of a delivery: names and values, in order.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    spans: &'a [Pair],
}

impl<'a> Headers<'a> {
    /// Names and values, in order; a name may stand several times.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.spans.iter().map(move |(name, value)| (text(self.bytes, name), text(self.bytes, value)))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.spans.is_empty()
    }
}

impl Batch {
    /// What a header takes in a batch beside its name and its value.
    pub const HEADER: usize = size_of::<Pair>();

    /// An empty batch with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            epoch: None,
            before: Mark::START,
            ticket: 0,
            sealed: false,
            bytes: Vec::with_capacity(limits.bytes.min(1 << 20)),
            headers: Vec::new(),
            slots: Vec::with_capacity(limits.events.min(1 << 16)),
            gaps: Vec::new(),
        }
    }

    /// Whether it can take this many bytes more. An empty batch takes anything.
    #[must_use]
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.slots.is_empty() || (self.slots.len() < self.limits.events && self.bytes() + bytes <= self.limits.bytes)
    }

    /// Whether another delivery could only be turned away.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sealed || self.slots.len() >= self.limits.events || self.bytes() >= self.limits.bytes
    }

    /// Says that the next delivery has no room here: from now on the batch is full.
    pub fn seal(&mut self) {
        self.sealed = true;
    }

    /// Whether nothing is in it, neither deliveries nor gaps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.gaps.is_empty()
    }

    /// Whether it has gaps and no delivery.
    #[must_use]
    pub fn has_only_gaps(&self) -> bool {
        self.slots.is_empty() && !self.gaps.is_empty()
    }

    /// Whether some delivery in it has one.
    #[must_use]
    pub fn has_defects(&self) -> bool {
        self.slots.iter().any(|slot| slot.defect.is_some())
    }

    /// Bytes in it: subjects, headers with [`Batch::HEADER`] for each, and payloads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.headers.len() * Self::HEADER
    }

    /// Deliveries in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Says which epoch the deliveries to come belong to and where that epoch stood before the first of them.
    ///
    /// # Panics
    ///
    /// On a batch that is not empty: one transaction moves one epoch.
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
        let first_header = length(&self.headers);
        for (name, value) in headers {
            let spans = (self.copy(name.as_bytes()), self.copy(value.as_bytes()));
            self.headers.push(spans);
        }
        let headers = first_header..length(&self.headers);
        self.place(mark, subject, headers, payload, None);
    }

    /// Adds a delivery that cannot be stored as it should be: it goes to the dead letters.
    pub fn push_defect(&mut self, mark: Mark, subject: &str, defect: Defect<'_>, payload: &[u8]) {
        let at = length(&self.headers);
        let reason = self.copy(defect.reason.as_bytes());
        let raw = self.copy(defect.raw_headers);
        self.headers.push((reason.clone(), raw));
        self.place(mark, subject, at..at, payload, Some(at..at + 1));
    }

    /// Adds a range of sequences that the stream does not have. It is committed with the delivery that comes next, or where
    /// none does with the one before.
    pub fn push_gap(&mut self, gap: Gap) {
        self.gaps.push((self.slots.len(), gap));
    }

    /// The gaps that are committed with these deliveries.
    pub fn gaps(&self, span: &Range<usize>) -> impl Iterator<Item = Gap> + '_ {
        let to = if span.end == self.slots.len() { usize::MAX } else { span.end };
        let from = self.gaps.partition_point(|(index, _)| *index < span.start);
        self.gaps[from..].iter().take_while(move |(index, _)| *index < to).map(|(_, gap)| *gap)
    }

    fn place(&mut self, mark: Mark, subject: &str, headers: Span, payload: &[u8], defect: Option<Span>) {
        // Most batches have one subject many times over: it is kept once.
        let same = self.slots.last().filter(|slot| text(&self.bytes, &slot.subject) == subject);
        let subject = match same.map(|slot| slot.subject.clone()) {
            Some(span) => span,
            None => self.copy(subject.as_bytes()),
        };
        let payload = self.copy(payload);
        self.slots.push(Slot { mark, subject, payload, headers, defect });
    }

    fn copy(&mut self, bytes: &[u8]) -> Span {
        let start = length(&self.bytes);
        self.bytes.extend_from_slice(bytes);
        start..length(&self.bytes)
    }

    /// Moves the deliveries of `next`, which come behind its own in the same epoch, into this batch; `false`, and nothing is
    /// moved, where there is no room for all of them: then it is full.
    ///
    /// # Panics
    ///
    /// Where they are of another epoch, or do not come behind.
    pub fn append(&mut self, next: &mut Self) -> bool {
        if self.slots.len() + next.slots.len() > self.limits.events || self.bytes() + next.bytes() > self.limits.bytes {
            self.seal();
            return false;
        }
        assert!(self.epoch == next.epoch && self.after() == next.before, "a batch of two epochs");
        let (bytes, headers) = (length(&self.bytes), length(&self.headers));
        let slots = self.slots.len();
        self.gaps.extend(next.gaps.iter().map(|(index, gap)| (index + slots, *gap)));
        let moved = |span: &Span, by: u32| span.start + by..span.end + by;
        self.bytes.extend_from_slice(&next.bytes);
        self.headers.extend(next.headers.iter().map(|(name, value)| (moved(name, bytes), moved(value, bytes))));
        self.slots.extend(next.slots.iter().map(|slot| Slot {
            mark: slot.mark,
            subject: moved(&slot.subject, bytes),
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
    /// Beyond the end.
    #[must_use]
    pub fn delivery(&self, index: usize) -> Delivery<'_> {
        let slot = &self.slots[index];
        Delivery {
            mark: slot.mark,
            subject: text(&self.bytes, &slot.subject),
            payload: part(&self.bytes, &slot.payload),
            headers: Headers { bytes: &self.bytes, spans: &self.headers[range(&slot.headers)] },
            defect: slot.defect.as_ref().map(|at| {
                let (reason, raw) = &self.headers[at.start as usize];
                Defect { reason: text(&self.bytes, reason), raw_headers: part(&self.bytes, raw) }
            }),
        }
    }

    /// The epoch; `None` where there is no stream behind the intake and so no ledger to move.
    #[must_use]
    pub fn epoch(&self) -> Option<&Arc<Epoch>> {
        self.epoch.as_ref()
    }

    /// Where the epoch stood before the delivery at this index.
    #[must_use]
    pub fn before(&self, index: usize) -> Mark {
        if index == 0 { self.before } else { self.slots[index - 1].mark }
    }

    /// Where the epoch stands after the last delivery.
    #[must_use]
    pub fn after(&self) -> Mark {
        self.before(self.slots.len())
    }

    /// Its place in line.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    pub(super) fn set_ticket(&mut self, ticket: u64) {
        self.ticket = ticket;
    }

    /// Empties it and keeps its memory, but for what a single huge event made it grow to.
    pub fn clear(&mut self) {
        self.epoch = None;
        self.sealed = false;
        self.bytes.clear();
        self.bytes.shrink_to(self.limits.bytes.saturating_mul(2));
        self.headers.clear();
        self.headers.shrink_to(self.limits.bytes / Self::HEADER);
        self.slots.clear();
        self.gaps.clear();
    }
}

/// Lengths fit 32 bits: a batch is at most 1 GiB by configuration, one event at most 64 MiB by the server's limit and 128 MiB
/// by ours.
fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("a batch stays below 4 GiB")
}

fn range(span: &Span) -> Range<usize> {
    span.start as usize..span.end as usize
}

fn part<'a>(bytes: &'a [u8], span: &Span) -> &'a [u8] {
    &bytes[range(span)]
}

/// Only ever called with spans that a `str` was copied to.
fn text<'a>(bytes: &'a [u8], span: &Span) -> &'a str {
    std::str::from_utf8(part(bytes, span)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(sequence: u64) -> Mark {
        Mark { sequence, published_ns: 7 }
    }

    #[test]
    fn deliveries_come_out_as_they_went_in() {
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
    fn a_batch_appended_comes_out_behind_as_it_went_in() {
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
        assert!(batch.is_full(), "what comes next does not fit");
        batch.clear();
        assert!(!batch.is_full());
    }

    #[test]
    fn a_gap_is_committed_with_the_delivery_behind_it() {
        let gap = |first, last| Gap::of(first, last).expect("not empty");
        let mut batch = Batch::new(Limits { events: 10, bytes: 1000 });
        batch.push_gap(gap(1, 3));
        assert!(!batch.is_empty(), "a gap is something to commit");
        batch.push(mark(4), "a", [], b"");
        batch.push(mark(5), "a", [], b"");
        batch.push_gap(gap(6, 7));
        batch.push(mark(8), "a", [], b"");
        batch.push_gap(gap(2, 2));
        let of = |span: Range<usize>| batch.gaps(&span).collect::<Vec<_>>();
        assert_eq!(of(0..3), [gap(1, 3), gap(6, 7), gap(2, 2)]);
        assert_eq!((of(0..1), of(1..2)), (vec![gap(1, 3)], vec![]));
        assert_eq!(of(2..3), [gap(6, 7), gap(2, 2)], "nothing comes behind the last");
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
