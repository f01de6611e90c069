//! Events that wait for the pipeline, bounded in number and in bytes by our own count.
//!
//! The client's channel can be bounded by a number of messages only, and the client miscounts what it drops. So everything is taken out of
//! it at once and waits here. The client's map of headers takes up to sixty times the received bytes, so headers are packed.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};
use nats::Message;

use crate::broker::headers::Packed;
use crate::config::CoreConfig;

/// The memory of an event beside its parts: allocations, lengths, its place in the channel.
const OVERHEAD: usize = 256;

/// An event that was received.
pub(super) struct Arrival {
    pub(super) subject: String,
    pub(super) headers: Packed,
    pub(super) payload: Vec<u8>,
    /// When it was received, in nanoseconds since 1970.
    pub(super) received_ns: i64,
}

impl Arrival {
    /// Takes what is needed out of a message and drops the rest, which keeps the connection's state alive.
    pub(super) fn of(message: Message, received_ns: i64) -> Self {
        let Message { subject, headers, data: payload, .. } = message;
        Self { subject, headers: Packed::of(headers.as_ref()), payload, received_ns }
    }

    /// Bytes it takes in a batch.
    pub(super) fn size(&self) -> usize {
        self.subject.len() + self.headers.size() + self.payload.len()
    }

    /// Bytes it takes in memory.
    fn memory(&self) -> usize {
        OVERHEAD + self.subject.len() + self.headers.memory() + self.payload.len()
    }
}

/// Events between the connection and the pipeline. They stay when their connection is lost.
pub(super) struct ReceiveBuffer {
    max_events: usize,
    max_bytes: usize,
    events: AtomicUsize,
    bytes: AtomicUsize,
    sender: Sender<Arrival>,
    receiver: Receiver<Arrival>,
}

impl ReceiveBuffer {
    pub(super) fn new(config: &CoreConfig) -> Self {
        let (sender, receiver) = crossbeam_channel::unbounded();
        Self {
            max_events: config.max_events,
            max_bytes: usize::try_from(config.max_bytes.as_u64()).unwrap_or(usize::MAX),
            events: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            sender,
            receiver,
        }
    }

    /// Takes an event in; `false` when there is no room for it. An empty buffer takes any event: otherwise one larger than the buffer
    /// could never be stored. Called by one thread at a time, so the room that it finds stays free.
    pub(super) fn offer(&self, arrival: Arrival) -> bool {
        let bytes = arrival.memory();
        let (events_held, bytes_held) = (self.events.load(Ordering::Acquire), self.bytes.load(Ordering::Acquire));
        if events_held > 0 && (events_held >= self.max_events || bytes_held.saturating_add(bytes) > self.max_bytes) {
            return false;
        }
        self.events.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.sender.send(arrival).is_ok()
    }

    /// The event that has waited longest, if any.
    pub(super) fn take(&self) -> Option<Arrival> {
        let arrival = self.receiver.try_recv().ok()?;
        self.events.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(arrival.memory(), Ordering::AcqRel);
        Some(arrival)
    }

    /// Is ready when there is an event to take.
    pub(super) fn channel(&self) -> &Receiver<Arrival> {
        &self.receiver
    }

    /// Whether it is more than half full.
    pub(super) fn is_past_half(&self) -> bool {
        self.events.load(Ordering::Acquire) > self.max_events / 2
            || self.bytes.load(Ordering::Acquire) > self.max_bytes / 2
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;
    use proptest::prelude::*;

    use super::*;

    fn arrival(bytes: usize) -> Arrival {
        Arrival { subject: "a".into(), headers: Packed::default(), payload: vec![0; bytes], received_ns: 0 }
    }

    fn buffer(max_events: usize, max_bytes: u64) -> ReceiveBuffer {
        ReceiveBuffer::new(&CoreConfig { max_events, max_bytes: ByteSize(max_bytes), ..CoreConfig::default() })
    }

    #[test]
    fn an_empty_buffer_takes_an_event_larger_than_it() {
        let buffer = buffer(10, 100);
        assert!(buffer.offer(arrival(1_000)));
        assert!(!buffer.offer(arrival(0)));
        assert!(buffer.take().is_some() && buffer.take().is_none());
        assert!(buffer.offer(arrival(1_000)));
    }

    proptest! {
        /// In any order of steps it holds what was taken in and not out, and keeps both limits.
        #[test]
        fn it_never_holds_more_than_it_may(steps in prop::collection::vec(prop::option::of(0usize..2_000), 1..200)) {
            let buffer = buffer(7, 4_000);
            let mut held: std::collections::VecDeque<usize> = std::collections::VecDeque::new();
            for step in steps {
                if let Some(bytes) = step {
                    let size = bytes + 1 + OVERHEAD;
                    let fits = held.is_empty() || (held.len() < 7 && held.iter().sum::<usize>() + size <= 4_000);
                    prop_assert_eq!(buffer.offer(arrival(bytes)), fits);
                    held.extend(fits.then_some(size));
                } else {
                    let taken = buffer.take().map(|arrival| arrival.memory());
                    prop_assert_eq!(taken, held.pop_front());
                }
                prop_assert_eq!(buffer.is_past_half(), held.len() > 3 || held.iter().sum::<usize>() > 2_000);
            }
        }
    }
}
