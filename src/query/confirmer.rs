//! Sends the confirmations of routes: a reply to the publisher that its event is committed.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use serde_json::json;

use super::reply_policy::ReplyPolicy;
use crate::broker::{AddressedReply, Reply, ReplyQueue, ServiceError};
use crate::pipeline::{Confirmation, Counters, Signal};

/// How many confirmations may wait for this thread. A writer never waits: what does not fit is dropped and counted.
pub(super) const CAPACITY: usize = 50_000;

/// How many are sent at once.
const MAX_BATCH: usize = 256;

/// How long to wait while the connection is full.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends confirmations.
pub(super) struct Confirmer {
    confirmations: Receiver<Confirmation>,
    reply_queue: ReplyQueue,
    reply_policy: ReplyPolicy,
    counters: Arc<Counters>,
    quit: Signal,
    has_warned: bool,
}

impl Confirmer {
    pub(super) fn new(
        confirmations: Receiver<Confirmation>,
        reply_queue: ReplyQueue,
        reply_policy: &ReplyPolicy,
        counters: &Arc<Counters>,
        quit: &Signal,
    ) -> Self {
        let (reply_policy, counters, quit) = (reply_policy.clone(), Arc::clone(counters), quit.clone());
        Self { confirmations, reply_queue, reply_policy, counters, quit, has_warned: false }
    }

    /// Sends confirmations until the channel ends.
    pub(super) fn run(mut self) {
        loop {
            let first = crossbeam_channel::select! {
                recv(self.confirmations) -> first => first,
                recv(self.quit.channel()) -> _ => return,
            };
            let Ok(first) = first else { return };
            let all: Vec<_> = std::iter::once(first).chain(self.confirmations.try_iter().take(MAX_BATCH)).collect();
            let requested = all.len();
            let replies: Vec<_> = all.into_iter().filter_map(|confirmation| self.addressed(confirmation)).collect();
            let sent = replies.len();
            let is_sent = sent > 0 && self.reply_queue.send(replies, TIMEOUT);
            self.counters.confirmations_dropped.add(if is_sent { requested - sent } else { requested });
        }
    }

    fn addressed(&mut self, mut confirmation: Confirmation) -> Option<AddressedReply> {
        let to = std::mem::take(&mut confirmation.reply_to);
        if let Err(why) = self.reply_policy.check_confirmation(&to) {
            let level = if self.has_warned { log::Level::Debug } else { log::Level::Warn };
            log::log!(
                level, event = "confirmation.refused", reason = why;
                "service: an event is committed, but its publisher gets no confirmation: {why}"
            );
            self.has_warned = true;
            return None;
        }
        Some(AddressedReply { to, reply: reply(confirmation) })
    }
}

/// `{"stream":"EVENTS","sequence":7,"stored":true}`; for a dead letter an error with its reason.
fn reply(confirmation: Confirmation) -> Reply {
    let Confirmation { stream, sequence, dead_letter, .. } = confirmation;
    let mut body = json!({ "stream": stream, "sequence": sequence, "stored": dead_letter.is_none() });
    let failure = dead_letter.map(|reason| {
        body["error"] = reason.as_str().into();
        ServiceError { code: 400, reason }
    });
    Reply { body: body.to_string().into_bytes(), failure, partition: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_has_the_position_or_the_error() {
        let stored = Confirmation {
            reply_to: "_INBOX.a".into(),
            stream: Some("EVENTS".into()),
            sequence: Some(7),
            dead_letter: None,
        };
        let confirmed = reply(stored.clone());
        assert_eq!(confirmed, Reply::answer(br#"{"sequence":7,"stored":true,"stream":"EVENTS"}"#.to_vec()));
        let dead = Confirmation { stream: None, sequence: None, dead_letter: Some("no such city".into()), ..stored };
        let refused = reply(dead);
        assert_eq!(refused.failure, Some(ServiceError { code: 400, reason: "no such city".into() }));
        let body = r#"{"error":"no such city","sequence":null,"stored":false,"stream":null}"#;
        assert_eq!(String::from_utf8(refused.body).expect("UTF-8"), body);
    }
}
