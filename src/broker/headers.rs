//! The client's map of headers as names and values.

use nats::HeaderMap;

use crate::event::Event;
use crate::event_id;
use crate::pipeline::Batch;

/// An event's headers, and its identity if it was given one.
pub(super) fn of(event: &Event) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(id) = event.given_id() {
        headers.insert(event_id::HEADER, id);
    }
    for (name, value) in event.headers() {
        headers.append(name.as_str(), value.as_str());
    }
    headers
}

/// Each name with each of its values, in byte order: the client does not keep the order of the message.
pub(super) fn pairs(headers: Option<&HeaderMap>) -> impl Iterator<Item = (&str, &str)> {
    in_order(unordered(headers))
}

fn in_order<'h>(mut all: impl Iterator<Item = (&'h str, &'h str)>) -> impl Iterator<Item = (&'h str, &'h str)> {
    // Most messages have one header, and need no memory here.
    let first = all.next();
    let mut rest: Vec<_> = all.collect();
    let first = first.filter(|_| rest.is_empty()).or_else(|| {
        rest.extend(first);
        rest.sort_unstable();
        None
    });
    first.into_iter().chain(rest)
}

/// How many there are.
pub(super) fn count(headers: Option<&HeaderMap>) -> usize {
    unordered(headers).count()
}

/// Whether there are more than this many.
pub(super) fn are_more_than(most: usize, headers: Option<&HeaderMap>) -> bool {
    unordered(headers).nth(most).is_some()
}

/// Each name with each of its values, in any order.
fn unordered(headers: Option<&HeaderMap>) -> impl Iterator<Item = (&str, &str)> {
    headers
        .into_iter()
        .flat_map(|headers| headers.iter())
        .flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), value.as_str())))
}

/// Bytes they take in a batch.
pub(super) fn size(headers: Option<&HeaderMap>) -> usize {
    unordered(headers).map(|(name, value)| name.len() + value.len() + Batch::HEADER).sum()
}

/// Bytes that the client's map takes in memory, at most, where few headers share a name. Measured: beside name and value, 250 to 310 for
/// each header, and 480 for a single one, however short they are.
pub(super) fn memory(headers: Option<&HeaderMap>) -> usize {
    const MAP: usize = 256;
    const HEADER: usize = 320;
    headers.map_or(0, |_| MAP)
        + unordered(headers).map(|(name, value)| name.len() + value.len() + HEADER).sum::<usize>()
}

/// Headers in one piece of memory, for events that wait. A name and a value take their length and two bytes; in the client's map they
/// take some 300 bytes more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packed(Box<str>);

impl Packed {
    /// Packs headers from the client. It reads them line by line, so they contain no line feed. This takes less time than the client
    /// needs to read them: so a thread that packs what the client reads keeps up with it, however busy the machine is.
    pub(super) fn of(headers: Option<&HeaderMap>) -> Self {
        let mut text =
            String::with_capacity(unordered(headers).map(|(name, value)| name.len() + value.len() + 2).sum());
        for (name, value) in unordered(headers) {
            debug_assert!(!name.contains('\n') && !value.contains('\n'), "{name:?}: {value:?}");
            text.push_str(name);
            text.push('\n');
            text.push_str(value);
            text.push('\n');
        }
        Self(text.into())
    }

    /// Each name with each of its values, in byte order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        in_order(self.unordered())
    }

    fn unordered(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut lines = self.0.split_terminator('\n');
        std::iter::from_fn(move || Some((lines.next()?, lines.next()?)))
    }

    /// Bytes they take in a batch.
    pub(super) fn size(&self) -> usize {
        self.unordered().map(|(name, value)| name.len() + value.len() + Batch::HEADER).sum()
    }

    /// Bytes they take in memory.
    pub(super) fn memory(&self) -> usize {
        self.0.len()
    }

    /// The headers as the client's map.
    pub(super) fn map(&self) -> Option<HeaderMap> {
        (!self.0.is_empty()).then(|| self.unordered().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_in_byte_order() {
        let given = [("x-trace", "b"), ("Trace", "2"), ("X-Trace", "a"), ("Trace", "10")];
        let ordered = [("Trace", "10"), ("Trace", "2"), ("X-Trace", "a"), ("x-trace", "b")];
        for at in 0..=given.len() {
            let map: HeaderMap = given[..at].iter().collect();
            let expected: Vec<_> = ordered.into_iter().filter(|pair| given[..at].contains(pair)).collect();
            assert_eq!(pairs(Some(&map)).collect::<Vec<_>>(), expected);
        }
        assert_eq!(pairs(None).count(), 0);
    }

    #[test]
    fn packed_headers_are_the_same_and_no_longer_than_they_came() {
        let block = "NATS/1.0\r\nA:1\r\nA:2\r\nEmpty:\r\nb: two words \r\n: no name\r\nc:folded\r\n line\r\n\r\n";
        let map = HeaderMap::try_from(block.as_bytes()).expect("headers");
        let packed = Packed::of(Some(&map));
        assert_eq!(packed.map().as_ref(), Some(&map));
        assert_eq!(packed.pairs().count(), 6);
        assert_eq!(packed.size(), size(Some(&map)));
        assert!(packed.memory() < block.len(), "{} of {}", packed.memory(), block.len());
        let none = Packed::of(None);
        assert_eq!((none.map(), none.pairs().count(), none.memory()), (None, 0, 0));
    }
}
