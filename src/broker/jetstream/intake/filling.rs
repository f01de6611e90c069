//! Adds deliveries, defects and gaps to a batch.

use std::sync::Arc;

use nats::Message;

use super::JetStreamIntake;
use crate::broker::headers;
use crate::broker::jetstream::lost_events::LostEvents;
use crate::broker::jetstream::session::Delivery;
use crate::broker::jetstream::unreadable_message::UnreadableMessage;
use crate::pipeline::{Batch, Defect, Gap, Gaps};

impl JetStreamIntake {
    /// Takes over from the session what the stream no longer had.
    pub(super) fn take_lost_events(&mut self) {
        let Some(session) = &mut self.session else { return };
        let gone = std::mem::take(&mut session.lost_events);
        self.reports.counters.gone.add(usize::try_from(gone).unwrap_or(usize::MAX));
        self.reported_to = self.reported_to.max(session.reported_to());
        for gap in std::mem::take(&mut session.missing) {
            self.history.add_gap(gap);
            self.missing.push(gap);
        }
    }

    /// The stream did not have these when the delivery behind them came. The next batch tells the ledger. Where an earlier epoch
    /// has that delivery, it passed them too.
    pub(super) fn add_missing(&mut self, missing: Option<Gap>, is_known: bool) {
        let Some(gap) = missing else { return };
        self.history.add_gap(gap);
        self.missing.push(gap);
        match &mut self.session {
            _ if is_known => {}
            Some(session) => session.add_lost(gap),
            // Read raw, between two sessions.
            None => {
                let news = Gaps::from(gap).without(&Gaps::default(), self.reported_to);
                if !news.is_empty() {
                    let gone = LostEvents::of(news);
                    log::warn!("broker: {}", gone.report(&self.cluster.config().stream, gap.first));
                    self.reports.counters.gone.add(usize::try_from(gone.events).unwrap_or(usize::MAX));
                }
            }
        }
    }

    /// Adds to the batch what was missing. A batch may have nothing else, once the ledger knows the epoch.
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

    /// Adds a message that was read raw; the next session begins behind it.
    pub(super) fn push_defect(&mut self, batch: &mut Batch, unreadable: &UnreadableMessage) {
        let UnreadableMessage { stored, defect, missing, is_loss } = unreadable;
        let Some(epoch) = self.epoch.clone() else { return };
        let is_known = self.history.is_known(stored.mark);
        self.add_missing(*missing, is_known || !is_loss);
        self.history.reached(stored.mark);
        self.ended |= self.drain_to.is_some_and(|last| stored.mark.sequence >= last);
        if is_known {
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

    /// Adds a delivery, unless an earlier epoch had it; `false` when the batch has no room for it.
    pub(super) fn push(&mut self, batch: &mut Batch, mut delivery: Delivery) -> bool {
        let mark = delivery.metadata.mark;
        let is_known = self.history.is_known(mark);
        if let Some(gap) = delivery.take_missing() {
            self.add_missing(Some(gap), is_known);
        }
        if is_known {
            self.reports.counters.duplicates.add(1);
            self.history.reached(mark);
            self.acks.set_known(delivery.message.reply);
            return true;
        }
        if !batch.has_room_for(size(&delivery.message)) {
            self.unplaced = Some(delivery);
            batch.seal();
            return false;
        }
        let Some(epoch) = &self.epoch else { return true };
        if batch.is_empty() {
            batch.begin(Arc::clone(epoch), self.handed);
        }
        self.missing.drain(..).for_each(|gap| batch.push_gap(gap));
        let message = delivery.message;
        batch.push(mark, &message.subject, headers::pairs(message.headers.as_ref()), &message.data);
        self.history.reached(mark);
        self.handed = mark;
        self.acks.set_latest(mark.sequence, message.reply);
        true
    }

    /// What an earlier epoch had already is committed, once all that came before it is: nothing but an acknowledgement makes room
    /// for more of it.
    pub(super) fn acknowledge_known(&mut self) {
        let settled = self.committed == self.handed;
        let reply = if settled { self.acks.take_known() } else { None };
        if let (Some(reply), Some(session)) = (reply, &self.session) {
            session.acknowledge(reply);
        }
    }
}

/// Bytes it takes in a batch.
fn size(message: &Message) -> usize {
    message.subject.len() + message.data.len() + headers::size(message.headers.as_ref())
}
