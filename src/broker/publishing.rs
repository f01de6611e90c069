//! Events on their way to the broker, and the result of publishing each.

use std::sync::Arc;
use std::time::Instant;

use super::connection::{Flusher, one_line};
use crate::event::Event;
use crate::event_id;
use crate::pipeline::Signal;

/// An event on its way.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its number; the result names it.
    pub number: u64,
    /// The event.
    pub event: Arc<Event>,
    /// It is sent for itself, not in a batch.
    pub alone: bool,
}

/// The result of publishing an event.
#[derive(Clone, Debug)]
pub struct PublishResult {
    /// The event's number.
    pub number: u64,
    /// Where it is, or why it is nowhere.
    pub result: Result<Acknowledgement, Rejection>,
}

/// Where an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// The stream keeps it.
    ByStream {
        /// The stream.
        stream: String,
        /// Its sequence there. `None` where the stream has acknowledged it together with later events.
        sequence: Option<u64>,
        /// The stream had it already, under the same identity.
        duplicate: bool,
    },
    /// The server has read it and passed it on to the subscribers of that moment.
    ByServer,
}

/// Why an event was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// No stream has this subject.
    NoStream,
    /// A stream has this subject, or it is not known yet whether one has, and nobody takes the event at the moment: a cluster may be
    /// electing a leader.
    NoLeader,
    /// The server refuses it.
    ByServer(String),
    /// The server cannot take it at the moment.
    ForNow(String),
}

impl Rejection {
    /// Whether the event may be taken later without anybody's doing. A stream that is full and discards new messages has room again when
    /// old ones are removed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        let is_limit = |reason: &str| reason.contains("maximum") && !self.is_too_large();
        matches!(self, Self::ForNow(_)) || matches!(self, Self::ByServer(reason) if is_limit(reason))
    }

    /// Whether the server would refuse another event of the same subject too, at this moment.
    #[must_use]
    pub fn is_of_subject(&self) -> bool {
        self.may_pass() || matches!(self, Self::NoStream | Self::NoLeader)
    }

    /// Whether the event is larger than its stream takes (error 10054), so that it is refused whatever becomes of others.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::ByServer(reason) if reason.contains("message size exceeds maximum"))
    }
}

/// Gives events to publish. It is called on a thread that may be left behind.
pub trait EventSource: Send + 'static {
    /// Blocks until there are events to publish, or something else to do on the connection; `None` when there will be no more. Where there
    /// are events, calls `before` once and takes them afterwards, with those that came meanwhile.
    fn take(&mut self, before: &mut dyn FnMut()) -> Option<Vec<Outgoing>>;
}

/// A round of at least so many bytes, some dozens of small events, is worth a write of its own.
const WORTH_A_WRITE: usize = 8 << 10;

/// Publishes events from `source` until it has no more or the connection has ended. Events that were taken count as sent, so none are
/// taken once the connection has ended. `before` publishes what else there is, before the events of each round. `forms` gives the
/// form of each event of a round, for `publish`.
pub(super) fn publish_all<F>(
    mut source: impl EventSource,
    mut flusher: Flusher,
    lost: &Signal,
    before: impl Fn() -> std::io::Result<()>,
    forms: impl Fn(&[Outgoing]) -> Vec<F>,
    mut publish: impl FnMut(Outgoing, F) -> std::io::Result<()>,
) {
    let failed = |e: &std::io::Error| {
        log::debug!("broker: publishing failed: {}", one_line(e));
        lost.raise();
    };
    let mut last_small = None;
    // Small rounds, written one by one, would cost a switch of threads each.
    while !lost.is_raised()
        && let Some(batch) = source.take(&mut || {
            if let Some(written) = last_small.take() {
                flusher.gather(written);
            }
        })
    {
        if let Err(e) = before() {
            return failed(&e);
        }
        let mut published = 0;
        let forms = forms(&batch);
        for (outgoing, form) in batch.into_iter().zip(forms) {
            let size = wire_size(&outgoing.event) + outgoing.event.subject().len();
            flusher.before(size);
            published += size;
            if let Err(e) = publish(outgoing, form) {
                return failed(&e);
            }
        }
        flusher.flush();
        last_small = (published < WORTH_A_WRITE).then(Instant::now);
    }
}

/// The bytes of an event that count against the server's `max_payload`, at most: its payload and its headers as written.
#[must_use]
pub fn wire_size(event: &Event) -> usize {
    /// `NATS/1.0`, its line end, and the one behind the last header.
    const FRAME: usize = 12;
    /// The header's name, a colon, what a recorder generates, a line end.
    const IDENTITY: usize = event_id::HEADER.len() + 1 + event_id::LONGEST + 2;
    // The number for the database takes less than that: in a payload, and beside an identity that was given.
    let given = event.given_id().map_or(0, |id| event_id::HEADER.len() + 1 + id.len() + 2);
    let headers: usize = event.headers().iter().map(|(name, value)| name.len() + value.len() + 3).sum();
    FRAME + IDENTITY + given + headers + event.payload().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_id::{EventIds, Identity, in_payload};

    #[test]
    fn the_number_of_an_event_is_within_its_size_on_the_wire() {
        let ids = EventIds::new(Identity::Payload);
        let number = ids.of_database(i64::MAX.unsigned_abs(), None).expect("has a number");
        let event = Event::new("a", r#"{"a":1}"#);
        let payload = in_payload::add(&number, "a", event.payload()).expect("an object");
        let header = event.payload().len() + format!("NATS/1.0\r\nCatchment-Event:{number}\r\n\r\n").len();
        assert!(payload.len() <= wire_size(&event) && header <= wire_size(&event), "{number}");
    }
}
