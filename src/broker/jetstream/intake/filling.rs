//! Adds deliveries, defects and gaps to a batch.

use std::sync::Arc;

use nats::Message;

use super::JetStreamIntake;
use crate::broker::headers;
use crate::broker::jetstream::lost_events::LostEvents;
use crate::broker::jetstream::session::{Delivery, NotCollected};
use crate::broker::jetstream::unreadable_message::UnreadableMessage;
use crate::event_id::{self, in_payload};
use crate::pipeline::{Batch, Defect, Gap, Gaps, Mark};

impl JetStreamIntake {
    /// Takes lost events and gaps from the session.
    pub(super) fn take_lost_events(&mut self) {
        let Some(session) = &mut self.session else { return };
        let lost = std::mem::take(&mut session.lost_events);
        self.reports.counters.lost_events.add(usize::try_from(lost).unwrap_or(usize::MAX));
        self.reported_to = self.reported_to.max(session.reported_to());
        for gap in std::mem::take(&mut session.missing) {
            self.history.add_gap(gap);
            self.missing.push(gap);
        }
    }

    /// Adds sequences that the stream did not have when the next delivery was received. The next batch stores them in
    /// the ledger. If an earlier epoch has that delivery (`is_stored`), it skipped them too.
    pub(super) fn add_missing(&mut self, missing: Option<Gap>, is_stored: bool) {
        let Some(gap) = missing else { return };
        self.history.add_gap(gap);
        self.missing.push(gap);
        match &mut self.session {
            _ if is_stored => {}
            Some(session) => session.add_lost(gap),
            // Read raw, between two sessions.
            None => {
                let new = Gaps::from(gap).without(&Gaps::default(), self.reported_to);
                if !new.is_empty() {
                    let lost = LostEvents::of(new);
                    lost.log(&self.cluster.config().stream, gap.first);
                    self.reports.counters.lost_events.add(usize::try_from(lost.events).unwrap_or(usize::MAX));
                }
            }
        }
    }

    /// Adds the missing sequences to the batch. A batch may consist of them alone, once the ledger has the epoch.
    pub(super) fn push_missing(&mut self, batch: &mut Batch) {
        let Some(epoch) = self.epoch.as_ref().filter(|epoch| !self.missing.is_empty() && self.handed != epoch.begins)
        else {
            return;
        };
        if batch.is_empty() {
            batch.begin(Arc::clone(epoch), self.handed);
        }
        self.missing.drain(..).for_each(|gap| batch.push_gap(gap));
    }

    /// Adds a message that was read raw. The next session begins after it.
    pub(super) fn push_defect(&mut self, batch: &mut Batch, unreadable: &UnreadableMessage) {
        let UnreadableMessage { stored, defect, missing, is_loss } = unreadable;
        let Some(epoch) = self.epoch.clone() else { return };
        let is_stored = self.history.is_stored(stored.mark);
        self.add_missing(*missing, is_stored || !is_loss);
        self.history.reached(stored.mark);
        self.ended |= self.drain_to.is_some_and(|last| stored.mark.sequence >= last);
        if is_stored {
            self.reports.counters.duplicates.add(1);
            return;
        }
        if batch.is_empty() {
            batch.begin(epoch, self.handed);
        }
        self.missing.drain(..).for_each(|gap| batch.push_gap(gap));
        let defect = Defect { reason: defect, raw_headers: &stored.headers };
        batch.push_defect(stored.mark, &stored.subject, defect, &stored.payload);
        self.handed = stored.mark;
    }

    /// Skips a delivery that is not collected. It is acknowledged when everything before it is committed.
    pub(super) fn skip(&mut self, delivery: NotCollected) {
        let mark = delivery.metadata.mark;
        self.add_missing(delivery.missing, self.history.is_stored(mark));
        self.history.reached(mark);
        self.acks.set_stored(delivery.reply);
    }

    /// Adds the message that was received, unless an earlier epoch has it. `false` if it does not fit into the batch.
    pub(super) fn push(&mut self, batch: &mut Batch, mut delivery: Delivery) -> bool {
        let mark = delivery.metadata.mark;
        let is_stored = self.history.is_stored(mark);
        if let Some(gap) = delivery.take_missing() {
            self.add_missing(Some(gap), is_stored);
        }
        let message = self.received.as_mut().expect("a delivery is yielded with its message");
        if is_stored {
            self.reports.counters.duplicates.add(1);
            self.history.reached(mark);
            self.acks.set_stored(message.reply.take());
            return true;
        }
        if !batch.has_room_for(size(message)) {
            self.unplaced = Some(delivery);
            batch.seal();
            return false;
        }
        let Some(epoch) = &self.epoch else { return true };
        if batch.is_empty() {
            batch.begin(Arc::clone(epoch), self.handed);
        }
        self.missing.drain(..).for_each(|gap| batch.push_gap(gap));
        push_message(batch, mark, message);
        self.history.reached(mark);
        self.handed = mark;
        self.acks.set_latest(mark.sequence, message.reply.take());
        true
    }

    /// Acknowledges events that an earlier epoch has or that are not collected, once all events before them are committed. Without this
    /// acknowledgement the consumer may deliver no more.
    pub(super) fn acknowledge_stored(&mut self) {
        let settled = self.committed == self.handed;
        let reply = if settled { self.acks.take_stored() } else { None };
        if let (Some(reply), Some(session)) = (reply, &self.session) {
            session.acknowledge(reply);
        }
    }
}

/// Adds a message. A number in its payload becomes a header.
fn push_message(batch: &mut Batch, mark: Mark, message: &mut Message) {
    let Message { subject, headers, data, .. } = message;
    let headers = || headers::pairs(headers.as_ref());
    let (number, payload) = in_payload::take(subject, headers, data);
    let number = number.map(|number| (event_id::NUMBER_HEADER, number));
    batch.push(mark, subject, number.into_iter().chain(headers()), payload);
}

/// The number of bytes that it takes in a batch, at most.
fn size(message: &Message) -> usize {
    let pairs = || headers::pairs(message.headers.as_ref());
    // In the batch the number is a header.
    let is_numbered = in_payload::may_have_number(&message.data, pairs);
    let number = if is_numbered { event_id::NUMBER_HEADER.len() + Batch::HEADER } else { 0 };
    message.subject.len() + message.data.len() + headers::size(message.headers.as_ref()) + number
}

#[cfg(test)]
mod tests {
    use nats::HeaderMap;

    use super::*;
    use crate::pipeline::Limits;

    #[test]
    fn a_message_takes_no_more_room_than_was_looked_for() {
        let numbered = in_payload::add("k3vfa7q2mzn5x6ohydwu-17", "a.b", br#"{"a":1}"#).expect("an object");
        let trace = HeaderMap::from_iter([("Trace", "1")]);
        for (payload, headers, number) in [
            (numbered.as_slice(), None, Some("k3vfa7q2mzn5x6ohydwu-17")),
            (numbered.as_slice(), Some(trace.clone()), Some("k3vfa7q2mzn5x6ohydwu-17")),
            (br#"{"catchment":"r-1-00000000","a":1}"#, None, None),
            (b"text", Some(trace), None),
        ] {
            let mut message = Message::new("a.b", None, payload, headers);
            let size = size(&message);
            let mut batch = Batch::new(Limits { events: 9, bytes: 9_000 });
            push_message(&mut batch, Mark::default(), &mut message);
            let delivery = batch.delivery(0);
            assert_eq!(delivery.headers.get(event_id::NUMBER_HEADER), number);
            assert_eq!(delivery.payload, if number.is_some() { br#"{"a":1}"# } else { payload });
            assert!(batch.bytes() <= size, "{} of {size}", batch.bytes());
        }
    }
}
